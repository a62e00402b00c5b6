# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes as namespaces: each is a machine of its own to everything that runs on it, and to ssh. Needs root."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from lab.errors import LabError
from lab.instance import Node
from lab.nodes import network
from lab.nodes.base import Driver
from lab.nodes.guest import furnish, write
from lab.processes import PROC, Mark, Process, children, kill, link, lives, mark_of, pids, read, wait_until

INIT = pathlib.Path(__file__).with_name("init.sh")
UNSHARE = ("unshare", "-m", "-u", "-i", "-p", "-f", "--kill-child", "--propagation", "private")
START_TIMEOUT = 30.0

# What a machine may keep on file systems of their own, and programs need.
TREES = ("/usr", "/opt", "/home", "/nix")

# What the driver runs, and the Debian package that has it.
TOOLS = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "bash": "bash",
}


class NetnsDriver(Driver):
    """Own network, process, mount, host name and IPC namespaces over an overlay of the machine's root."""

    name = "netns"

    def check(self) -> None:
        if os.geteuid() != 0:
            raise LabError("The netns driver needs root: run it with sudo, or take --driver local.")
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
        if missing:
            packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
            raise LabError(
                f"The netns driver needs {', '.join(missing)}: apt-get install {packages}, or --driver local."
            )
        self._try_overlay()

    def _try_overlay(self) -> None:
        """Do once what every node does, because no flag of the kernel tells whether it is permitted here."""
        base = self.instance.directory / "probe"
        for name in ("upper", "work", "root"):
            (base / name).mkdir(parents=True, exist_ok=True)
        script = (
            'mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" '
            '&& mount -t proc proc "$1/root/proc" '
            "&& ip link add bridge0 type bridge && ip link add veth0 type veth peer name veth1"
        )
        argv = [*UNSHARE, "-n", "bash", "-c", script, "probe", str(base)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, env=_tool_env())
        shutil.rmtree(base)
        if done.returncode:
            reason = (done.stderr.strip() or "it gave no reason").splitlines()[0].rstrip(".")
            raise LabError(
                f"This machine does not let the netns driver build a node in {base.parent}: {reason}. "
                "Try --dir on another file system, or --driver local."
            )

    def prepare(self) -> None:
        with network.claimed():
            network.assign(self.instance, network.networks_in_use())
            self.instance.save()
            network.create_bridge(self.instance)
        network.connect(self.instance)
        keys = self.instance.key.parent
        keys.mkdir(mode=0o700)
        for name in (self.instance.key.name, "host"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ringrift-lab", "-f", str(keys / name)]
            subprocess.run(argv, check=True, capture_output=True, timeout=30)
        for node in self.instance.nodes:
            for name in ("upper", "work", "root"):
                (self.instance.home(node) / name).mkdir(parents=True)
            furnish(self.instance, node, self.staging(node), self.login_env(node))

    def staging(self, node: Node) -> pathlib.Path:
        return self.instance.home(node) / "upper"

    def put(self, node: Node, path: str, text: str, mode: int) -> None:
        write(self.staging(node), path, text, mode)

    def start(self) -> None:
        script = INIT.read_text()
        shown = other_file_systems([*TREES, sys.base_prefix, *sys.path])
        started = []
        for node in self.instance.nodes:
            home = self.instance.home(node)
            with open(home / "init.log", "wb") as log:
                process = subprocess.Popen(
                    ["nsenter", f"--net={network.SPACES / node.netns}", *UNSHARE, "bash", "-c", script, "init",
                     str(self.instance.directory), str(home), node.name, *shown],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", env=_tool_env(),
                )  # fmt: skip
            node.supervisor = mark_of(process.pid)
            started.append((node, process))
        for node, process in started:
            wait_until(lambda n=node, p=process: p.poll() is not None or self._ready(n, p.pid), START_TIMEOUT)
            if process.poll() is not None or node.init is None:
                reason = (self.instance.home(node) / "init.log").read_text(errors="replace").strip()
                raise LabError(
                    f"Node {node.name} did not start: {reason.splitlines()[-1] if reason else 'it gave no reason'}"
                )
        self.instance.save()
        self._check_neighbours()

    def _check_neighbours(self) -> None:
        """Refuse a machine whose firewall keeps the nodes apart."""
        other = self.instance.training_nodes[0]
        attempt = ["timeout", "5", "bash", "-c", f": </dev/tcp/{other.address}/22"]
        done = subprocess.run(
            [*_enter(self.instance.coordinator), *attempt], capture_output=True, check=False, timeout=30
        )
        if done.returncode:
            raise LabError(
                f"{self.instance.coordinator.name} cannot reach {other.name}: this machine seems to filter bridged "
                "traffic. Allow it: sysctl -w net.bridge.bridge-nf-call-iptables=0, or take --driver local."
            )

    def _ready(self, node: Node, supervisor: int) -> bool:
        for pid in children(supervisor):
            if _listens(pid, 22):
                node.init = mark_of(pid)
        return node.init is not None

    def lives(self, node: Node) -> bool:
        return lives(node.init)

    def reachable(self, node: Node) -> bool:
        """Whether sshd answers on the node's address."""
        if not self.lives(node) or not _listens(node.init.pid, 22):
            return False
        try:
            return pathlib.Path("/sys/class/net", node.interface, "operstate").read_text().strip() == "up"
        except OSError:
            return False

    def path(self, node: Node, path: str) -> pathlib.Path:
        if not self.lives(node):
            raise LabError(f"Node {node.name} does not run.")
        return PROC / str(node.init.pid) / "root" / path.lstrip("/")

    def written(self, node: Node, path: str) -> pathlib.Path:
        return self.staging(node) / path.lstrip("/")

    def processes(self, node: Node) -> List[Process]:
        space = link(node.init.pid, "ns/pid") if node.init is not None and self.lives(node) else None
        if space is None:
            return []
        proc = PROC / str(node.init.pid) / "root" / "proc"
        found = []
        for host_pid in pids():
            inner = _inner_pid(host_pid) if link(host_pid, "ns/pid") == space else None
            process = read(inner, proc, host_pid) if inner is not None else None
            if process is not None:
                found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def spawn(self, node: Node, argv: Sequence[str], env: Mapping[str, str], log: str) -> None:
        if not self.lives(node):
            raise LabError(f"Node {node.name} does not run.")
        self.detach(_enter(node), node, argv, env, log)

    def command(self, node: Node, argv: Sequence[str]) -> List[str]:
        options = shlex.split(ssh_options())
        return ["ssh", "-i", str(self.instance.key), *options, f"root@{node.address}", *argv]

    def url(self, node: Node) -> str:
        return f"http://{node.address}:{node.p2p_port}"

    def hostvars(self, node: Node) -> Dict[str, Any]:
        return {"ansible_host": node.address}

    def groupvars(self) -> Dict[str, Any]:
        node = self.instance.coordinator
        return {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.instance.key),
            "ansible_ssh_common_args": f"{ssh_options()} -o ControlMaster=auto -o ControlPersist=60s",
            "ringrift_service_path": node.service,
            "ringrift_coordination_dir": self.coordination_dir(node),
            "ringrift_nvidia_smi": node.nvidia_smi,
            "ringrift_kernel_log": self.kernel_log(node),
            "ringrift_p2p_url": f"http://localhost:{node.p2p_port}",
        }

    def cut(self, node: Node, connected: bool) -> None:
        network.plug(node, connected)

    def mount_small(self, node: Node, path: str, size: int, inodes: Optional[int] = None) -> None:
        options = f"size={size},mode=755" + (f",nr_inodes={inodes}" if inodes else "")
        self._inside(node, "mount", "-t", "tmpfs", "-o", options, "small", path)

    def grow(self, node: Node, path: str, size: int) -> None:
        self._inside(node, "mount", "-o", f"remount,size={size}", path)

    def unmount(self, node: Node, path: str) -> None:
        self._inside(node, "umount", "-l", path)

    def _inside(self, node: Node, *argv: str) -> None:
        done = subprocess.run(
            [*_enter(node), *argv], capture_output=True, text=True, check=False, timeout=30, env=_tool_env()
        )
        if done.returncode:
            raise LabError(f"{' '.join(argv)} failed on {node.name}: {done.stderr.strip()}")

    def destroy(self) -> None:
        for node in self.instance.nodes:
            if node.interface and network.exists(node.interface):
                # A connection over a pulled cable would never learn that its other end is gone.
                network.plug(node, True)
        left = kill(self._marks(), timeout=10)
        if left:
            raise LabError(f"Processes {[mark.pid for mark in left]} of the lab do not end; run down again later.")
        network.remove(self.instance.id)

    def _marks(self) -> List[Mark]:
        """The first process of every node, and everything in a namespace that carries this lab's id."""
        recorded = [mark for node in self.instance.nodes for mark in (node.init, node.supervisor) if lives(mark)]
        spaces = {_inode(network.SPACES / name) for name in network.spaces(self.instance.id)} - {None}
        own = (mark_of(pid) for pid in pids() if spaces and _inode(PROC / str(pid) / "ns/net") in spaces)
        return list(dict.fromkeys([*recorded, *(mark for mark in own if mark is not None)]))


def _enter(node: Node) -> List[str]:
    """The prefix that runs a command on a node, without a login."""
    return ["nsenter", "-t", str(node.init.pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w"]


def ssh_options() -> str:
    """Options for nodes that come and go: their host keys say nothing, and there is no password to ask for."""
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes")
    return " ".join(f"-o {option}" for option in options)


def other_file_systems(paths: Iterable[str]) -> List[str]:
    """The directories among ``paths`` that the overlay of the root does not show, without those inside of others."""
    root = os.stat("/").st_dev
    hidden: List[str] = []
    for path in sorted({os.path.realpath(path) for path in paths if os.path.isdir(path)}):
        masked = path.startswith(("/tmp/", "/run/", "/dev/")) or os.stat(path).st_dev != root
        if masked and not any(path.startswith(f"{other}/") for other in hidden):
            hidden.append(path)
    return hidden


def _tool_env() -> Dict[str, str]:
    return {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}


def _listens(pid: int, port: int) -> bool:
    """Whether anything listens on the port in the network of a process. Connecting would count as a failed login."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / str(pid) / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


def _inner_pid(host_pid: int) -> Optional[int]:
    try:
        for line in (PROC / str(host_pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except (OSError, ValueError):
        pass
    return None


def _inode(path: pathlib.Path) -> Optional[int]:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None

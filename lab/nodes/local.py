# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes as directories of this machine, for everybody: one process table and one network for all of them."""

from __future__ import annotations

import os
import pathlib
import socket
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set

from lab.errors import LabError
from lab.instance import Node
from lab.nodes.base import Driver
from lab.processes import PROC, Mark, Process, kill, link, mark_of, pids, read

UNSHARED = "the nodes of the local driver share this machine's {what}. Use --driver netns, as root."


class LocalDriver(Driver):
    """Ansible reaches these nodes with ``ansible_connection: local``."""

    name = "local"

    def check(self) -> None:
        """Every machine can have directories."""

    def prepare(self) -> None:
        ports = free_ports(2 * len(self.instance.nodes))
        for node in self.instance.nodes:
            base = self.instance.home(node)
            node.home = str(base / "home")
            node.service = str(base / "home" / "ringrift" / "ai-service")
            node.nvidia_smi = str(base / "bin" / "nvidia-smi")
            node.p2p_port, node.health_port = ports.pop(), ports.pop()
            for name in ("home", "bin"):
                (base / name).mkdir(parents=True)
        self.instance.save()

    def staging(self, node: Node) -> pathlib.Path:
        return pathlib.Path("/")

    def put(self, node: Node, path: str, text: str, mode: int) -> None:
        target = pathlib.Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def start(self) -> None:
        """A directory needs no start."""

    def lives(self, node: Node) -> bool:
        return os.path.isdir(node.home)

    def reachable(self, node: Node) -> bool:
        return self.lives(node)

    def path(self, node: Node, path: str) -> pathlib.Path:
        return pathlib.Path(path)

    def written(self, node: Node, path: str) -> pathlib.Path:
        return pathlib.Path(path)

    def processes(self, node: Node) -> List[Process]:
        found = [read(pid) for pid in pids() if inside(pid, self.instance.home(node))]
        return [process for process in found if process is not None]

    def spawn(self, node: Node, argv: Sequence[str], env: Mapping[str, str], log: str) -> None:
        self.detach([], node, argv, env, log)

    def command(self, node: Node, argv: Sequence[str]) -> List[str]:
        shell = ["bash", "-c", " ".join(argv)] if argv else ["bash", "-i"]
        env = [f"{name}={value}" for name, value in {**self.base_env(node), **self.login_env(node)}.items()]
        return ["env", "-C", node.home, *env, *shell]

    def url(self, node: Node) -> str:
        return f"http://127.0.0.1:{node.p2p_port}"

    def hostvars(self, node: Node) -> Dict[str, Any]:
        values = {
            "ansible_connection": "local",
            "ansible_host": "127.0.0.1",
            "ansible_remote_tmp": f"{node.home}/.ansible/tmp",
            "ansible_async_dir": f"{node.home}/.ansible_async",
            "ringrift_service_path": node.service,
            "ringrift_coordination_dir": self.coordination_dir(node),
            "ringrift_nvidia_smi": node.nvidia_smi,
            "ringrift_kernel_log": self.kernel_log(node),
            "ringrift_health_url": f"http://localhost:{node.health_port}",
            "ringrift_within": self.within(node),
        }
        return values if node.trains else {**values, "ringrift_p2p_url": self.url(node)}

    def kernel_log(self, node: Node) -> str:
        return str(self.instance.home(node) / "kern.log")

    def within(self, node: Node) -> str:
        return str(self.instance.home(node))

    def base_env(self, node: Node) -> Dict[str, str]:
        env = super().base_env(node)
        return {**env, "PATH": f"{self.instance.home(node)}/bin:{env['PATH']}"}

    def cut(self, node: Node, connected: bool) -> None:
        raise LabError(f"{node.name} cannot be made unreachable: {UNSHARED.format(what='network')}")

    def mount_small(self, node: Node, path: str, size: int, inodes: Optional[int] = None) -> None:
        raise LabError(f"{node.name} cannot be given a full disk: {UNSHARED.format(what='disks')}")

    def unmount(self, node: Node, path: str) -> None:
        raise LabError(f"{node.name} has no disk of its own: {UNSHARED.format(what='disks')}")

    def destroy(self) -> None:
        # Again until none is found: a process may fork while it is looked at.
        for _ in range(20):
            marks = self._marks()
            if not marks:
                return
            kill(marks, timeout=2)
        raise LabError(f"Processes {[mark.pid for mark in marks]} of the lab do not end; run down again later.")

    def _marks(self) -> List[Mark]:
        """What the lab started, and what works in its directory; never the shell from which somebody looks at it."""
        spared = ancestors(os.getpid())
        found = []
        for pid in pids():
            if pid in spared:
                continue
            process = (
                read(pid) if carries(pid, self.instance.directory) or inside(pid, self.instance.directory) else None
            )
            if process is not None and (process.tty == 0 or carries(pid, self.instance.directory)):
                found.append(mark_of(pid))
        return [mark for mark in found if mark is not None]


def inside(pid: int, directory: pathlib.Path) -> bool:
    """Whether a process works below a directory, even if that has been deleted meanwhile."""
    cwd = (link(pid, "cwd") or "").replace(" (deleted)", "")
    return cwd == str(directory) or cwd.startswith(f"{directory}/")


def carries(pid: int, directory: pathlib.Path) -> bool:
    """Whether a process was started by the lab in this directory, or by one that was."""
    try:
        return f"RINGRIFT_LAB={directory}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def ancestors(pid: int) -> Set[int]:
    """A process and the ones that started it."""
    found: Set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        process = read(pid)
        pid = process.ppid if process is not None else 0
    return found


def free_ports(count: int) -> List[int]:
    """Ports of the loopback that nobody uses now."""
    sockets = []
    try:
        for _ in range(count):
            opened = socket.socket()
            opened.bind(("127.0.0.1", 0))
            sockets.append(opened)
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()

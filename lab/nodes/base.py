# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a driver of nodes can do."""

from __future__ import annotations

import abc
import os
import pathlib
import subprocess
from typing import Any, Dict, List, Mapping, Optional, Sequence

from lab.errors import LabError
from lab.instance import Instance, Node
from lab.processes import Process


class Driver(abc.ABC):
    """Makes nodes, runs processes on them and removes them."""

    name = ""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse, with the reason, where this driver cannot work."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Give every node its address, its paths and an empty place for its files."""

    @abc.abstractmethod
    def staging(self, node: Node) -> pathlib.Path:
        """The root of the node's own files, on this machine; for use before the node starts."""

    @abc.abstractmethod
    def put(self, node: Node, path: str, text: str, mode: int) -> None:
        """Write a file of the node before it starts."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start every node and wait until it answers."""

    @abc.abstractmethod
    def lives(self, node: Node) -> bool:
        """Whether the node runs."""

    @abc.abstractmethod
    def reachable(self, node: Node) -> bool:
        """Whether the node can be logged in to."""

    @abc.abstractmethod
    def path(self, node: Node, path: str) -> pathlib.Path:
        """A path of the running node, as a path of this machine."""

    @abc.abstractmethod
    def written(self, node: Node, path: str) -> pathlib.Path:
        """Like ``path``, but only what was written on the node itself."""

    @abc.abstractmethod
    def processes(self, node: Node) -> List[Process]:
        """Everything that runs on the node."""

    @abc.abstractmethod
    def spawn(self, node: Node, argv: Sequence[str], env: Mapping[str, str], log: str) -> None:
        """Start a process on the node, in its service directory, that outlives this command."""

    @abc.abstractmethod
    def command(self, node: Node, argv: Sequence[str]) -> List[str]:
        """The command that runs ``argv`` on the node as a person would, or that logs in."""

    @abc.abstractmethod
    def hostvars(self, node: Node) -> Dict[str, Any]:
        """Inventory variables of one node."""

    @abc.abstractmethod
    def url(self, node: Node) -> str:
        """The node's orchestrator, as seen from this machine and from every other node."""

    @abc.abstractmethod
    def destroy(self) -> None:
        """End every process of the lab and take its network away. Needs no recorded state."""

    def within(self, node: Node) -> Optional[str]:
        """The directory whose processes are the node's; None where the node has a process table of its own."""
        return None

    def groupvars(self) -> Dict[str, Any]:
        """Inventory variables that all nodes share."""
        return {}

    def cut(self, node: Node, connected: bool) -> None:
        """Take the node's network away, or give it back."""
        raise NotImplementedError

    def mount_small(self, node: Node, path: str, size: int, inodes: Optional[int] = None) -> None:
        """Put a file system of ``size`` bytes over a directory of the node, of not more than so many files."""
        raise NotImplementedError

    def grow(self, node: Node, path: str, size: int) -> None:
        """Give it as many bytes; what is on it stays."""
        raise NotImplementedError

    def unmount(self, node: Node, path: str) -> None:
        """Take it away again."""
        raise NotImplementedError

    def service(self, node: Node, *parts: str) -> pathlib.Path:
        """A path below the node's service directory, on this machine."""
        return self.path(node, os.path.join(node.service, *parts))

    def coordination_dir(self, node: Node) -> str:
        """Where the node's service writes its event log."""
        return os.path.join(node.service, "data", "coordination", "events-dir")

    def kernel_log(self, node: Node) -> str:
        """Where the node's syslog keeps what the kernel says."""
        return "/var/log/kern.log"

    def login_env(self, node: Node) -> Dict[str, str]:
        """What every login on the node finds in its environment, beside HOME and PATH."""
        return {
            "RINGRIFT_COORDINATION_DIR": self.coordination_dir(node),
            "RINGRIFT_NODE_ID": node.name,
            "RINGRIFT_LAB": str(self.instance.directory),
            # No end before the last epoch, whoever starts a trainer: who breaks the training decides when it ends.
            "LAB_EARLY_STOPPING_PATIENCE": "0",
        }

    def detach(self, enter: Sequence[str], node: Node, argv: Sequence[str], env: Mapping[str, str], log: str) -> None:
        """Run a command in a session of its own and with no tie to this process, but for a log file."""
        script = 'cd "$1" && log=$2 && shift 2 && exec setsid -f "$@" </dev/null >>"$log" 2>&1'
        pairs = [f"{name}={value}" for name, value in env.items()]
        whole = [*enter, "env", "-i", *pairs, "sh", "-c", script, "sh", node.service, log, *argv]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise LabError(f"{argv[0]} did not start on {node.name}: {done.stderr.strip() or 'it gave no reason'}")

    def base_env(self, node: Node) -> Dict[str, str]:
        """What every process that the lab starts on the node finds in its environment."""
        return {
            "HOME": node.home,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "RINGRIFT_LAB": str(self.instance.directory),
            # No end before the last epoch, whoever starts a trainer: who breaks the training decides when it ends.
            "LAB_EARLY_STOPPING_PATIENCE": "0",
        }

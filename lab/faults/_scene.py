# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fault finds: the lab, the node it aims at, and the training that it hits."""

from __future__ import annotations

import signal
import time
from typing import List, Optional

from lab import operation
from lab.errors import LabError
from lab.instance import Instance, Node
from lab.nodes import driver_of
from lab.nodes.base import Driver
from lab.processes import Process, kill, read, send, wait_until
from lab.training import Trainer, checkpoints, find, trainers


class Scene:
    """A lab, and the node that the fault was aimed at, if any."""

    def __init__(self, instance: Instance, wanted: Optional[str] = None) -> None:
        self.instance = instance
        self.driver: Driver = driver_of(instance)
        self.wanted: Optional[Node] = None if wanted is None else instance.node(wanted)

    @property
    def config(self) -> str:
        return self.instance.config

    def running(self) -> Optional[Trainer]:
        """The trainer that runs, on the wanted node if there is one."""
        nodes = self.instance.nodes if self.wanted is None else [self.wanted]
        found = [trainer for node in nodes for trainer in trainers(self.driver, node, self.config)]
        return found[0] if found else None

    def trainer(self) -> Trainer:
        """The same, where a fault is nothing without one."""
        found = self.running()
        if found is None:
            where = f"on {self.wanted.name}" if self.wanted else "on any node"
            raise LabError(f"No trainer of {self.config} runs {where}, so there is none to break.")
        return found

    def training_node(self) -> Node:
        """The wanted node, else the one that trains, else the one that trained last."""
        if self.wanted is not None:
            return self.wanted
        running = self.running()
        if running is not None:
            return running.node
        newest = [(files[0].stat().st_mtime_ns, node) for node in self.instance.training_nodes
                  for files in [checkpoints(self.driver, node)] if files]  # fmt: skip
        return max(newest, key=lambda entry: entry[0])[1] if newest else self.instance.training_nodes[0]

    def give_up(self, timeout: float = 20.0) -> None:
        """Kill every trainer that the queue starts again, until it has used up its attempts."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            kill_all([process for found in find(self.instance, self.driver) for process in found.family])
            try:
                if not operation.open_work(self.instance, self.driver):
                    return
            except LabError:
                # Without a leader nobody starts anything.
                return
            time.sleep(0.05)
        raise LabError(f"The leader still wants to train {self.config} after {timeout:g} s.")

    def node(self, purpose: str) -> Node:
        """The node that the fault must be aimed at."""
        if self.wanted is None:
            names = ", ".join(node.name for node in self.instance.nodes)
            raise LabError(f"Which node shall be {purpose}? Name it after the fault: {names}.")
        return self.wanted


def kill_all(processes: List[Process]) -> None:
    """SIGKILL, and proof that it worked."""
    left = kill([process.mark for process in processes], timeout=5)
    if left:
        raise LabError(f"Processes {[mark.pid for mark in left]} survived SIGKILL.")


def freeze(process: Process) -> None:
    """SIGSTOP, and proof that it worked."""
    send(process.mark, signal.SIGSTOP)
    if not wait_until(lambda: getattr(read(process.mark.pid), "state", "gone") in ("T", "t"), 5):
        raise LabError(f"Process {process.pid} did not stop.")


def listed(processes: List[Process]) -> str:
    """Process numbers for a sentence."""
    return ", ".join(str(process.pid) for process in processes)

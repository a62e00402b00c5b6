# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of the NVIDIA driver in the kernel log of a node."""

from __future__ import annotations

from lab import kernel_log
from lab.errors import LabError
from lab.faults._scene import Scene
from lab.instance import Node


def node_of(scene: Scene) -> Node:
    """The node whose GPU is meant."""
    node = scene.training_node()
    if not node.trains:
        raise LabError(f"{node.name} has no GPU.")
    return node


def line(scene: Scene, node: Node, code: int, text: str, of_trainer: bool = True) -> str:
    """An XID as the driver writes it; its process is the trainer, where one runs on the node."""
    trainer = scene.running()
    known = of_trainer and trainer is not None and trainer.node.name == node.name
    who = f"pid={trainer.process.pid}, name=python" if known and trainer else "pid='<unknown>', name=<unknown>"
    return f"NVRM: Xid (PCI:{kernel_log.bus_id(node)}): {code}, {who}, {text}"


def forget(scene: Scene) -> str:
    """Undo: the kernel has said nothing since it started."""
    node = node_of(scene)
    kernel_log.reset(scene.driver, node)
    return f"the kernel log of {node.name} is as it was after the boot"

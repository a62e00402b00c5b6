# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wedge the GPU: fully utilized at the power of an idle one, and the trainer spins in its step and gets no further."""

from __future__ import annotations

from lab import gpu
from lab.faults import _orders
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    node = scene.training_node()
    said = gpu.change(scene.driver, node, "wedged")
    trainer = scene.running()
    if trainer is None or trainer.node.name != node.name:
        return said
    # As the driver has a program wait for a kernel that does not end.
    _orders.give(scene, node, hang="spin")
    return f"{said}, and trainer {trainer.process.pid} spins in its step"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    goes_on = _orders.withdraw(scene, node, "hang")
    return gpu.change(scene.driver, node, "normal") + (", and its trainer goes on" if goes_on else "")

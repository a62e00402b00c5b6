# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let every trainer on a node train on and write no checkpoint of an epoch."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    node = scene.training_node()
    _orders.give(scene, node, no_checkpoints=True)
    return f"trainers on {node.name} write no checkpoints"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    if not _orders.withdraw(scene, node, "no_checkpoints"):
        raise LabError(f"Trainers on {node.name} write checkpoints.")
    return f"trainers on {node.name} write checkpoints again"

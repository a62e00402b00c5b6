# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let every trainer that is started from now on end with an error in its first batch."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene
from lab.faults.train_fails import ERROR


def apply(scene: Scene) -> str:
    node = scene.training_node()
    _orders.give(scene, node, error=ERROR)
    return f"every trainer on {node.name} ends in its first batch"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    if not _orders.withdraw(scene, node, "error"):
        raise LabError(f"Trainers on {node.name} do not fail.")
    return f"trainers on {node.name} fail no more"

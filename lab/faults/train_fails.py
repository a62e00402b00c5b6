# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let every trainer end with an error in its first batch, until the queue gives up."""

from __future__ import annotations

from lab import operation
from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene
from lab.processes import wait_until
from lab.training import find

ERROR = "mat1 and mat2 shapes cannot be multiplied (512x4096 and 2048x256)"


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    _orders.give(scene, trainer.node, error=ERROR)
    if not wait_until(lambda: _given_up(scene), 2 * _orders.DEADLINE, 0.1):
        raise LabError(f"The queue still tries to train {scene.config} after {2 * _orders.DEADLINE:g} s.")
    return f"trainer {trainer.process.pid} on {trainer.node.name} and all after it ended with {ERROR!r}"


def _given_up(scene: Scene) -> bool:
    return not operation.open_work(scene.instance, scene.driver) and not find(scene.instance, scene.driver)


def mend(scene: Scene) -> str:
    node = scene.training_node()
    if not _orders.withdraw(scene, node, "error"):
        raise LabError(f"Trainers on {node.name} do not fail.")
    return f"trainers on {node.name} fail no more"

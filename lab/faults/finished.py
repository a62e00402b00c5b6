# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the training come to its end, so that none runs, nothing is wrong, and the cooldown is active."""

from __future__ import annotations

from lab import operation
from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene
from lab.processes import lives, wait_until


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    _orders.give(scene, trainer.node, finish=True)
    try:
        ended = wait_until(lambda: not lives(trainer.process.mark), _orders.DEADLINE, 0.05)
        if not ended or not wait_until(lambda: not operation.open_work(scene.instance, scene.driver), 5, 0.1):
            raise LabError(f"Trainer {trainer.process.pid} on {trainer.node.name} did not come to its end.")
    finally:
        _orders.withdraw(scene, trainer.node, "finish")
    return f"trainer {trainer.process.pid} on {trainer.node.name} has completed its training"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the trainer evaluate for long after an epoch: busy, its log says so, and no new epoch."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene

WORDS = "Evaluating on"


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    log = _orders.log_of(scene, trainer)
    begin = _orders.size(log)
    _orders.give(scene, trainer.node, evaluate=True)
    _orders.await_words(log, begin, WORDS, "The trainer did not begin to evaluate")
    return f"trainer {trainer.process.pid} on {trainer.node.name} evaluates"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    if not _orders.withdraw(scene, node, "evaluate"):
        raise LabError(f"The trainer on {node.name} does not evaluate.")
    return f"the trainer on {node.name} has evaluated"

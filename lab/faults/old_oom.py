# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run out of GPU memory once; the queue starts the trainer again, and that one makes progress."""

from __future__ import annotations

import time

from lab import operation
from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene
from lab.processes import lives, wait_until


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    log = _orders.log_of(scene, trainer)
    begin = _orders.size(log)
    _orders.give(scene, trainer.node, cuda_oom={"max_batch": 0, "crash": True})
    try:
        _orders.await_words(log, begin, "CUDA out of memory", "The trainer did not run out of memory")
    finally:
        _orders.withdraw(scene, trainer.node, "cuda_oom")
    if not wait_until(lambda: not lives(trainer.process.mark), _orders.DEADLINE):
        raise LabError(f"Trainer {trainer.process.pid} on {trainer.node.name} did not end.")
    said = operation.await_training(scene.instance, scene.driver, time.time())
    return f"trainer {trainer.process.pid} on {trainer.node.name} ran out of GPU memory; now {said}"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 the trainer, but leave a stopped data loader worker of it that keeps the training lock."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults._scene import Scene, freeze, kill_all


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    if not trainer.workers:
        raise LabError(
            f"Trainer {trainer.process.pid} on {trainer.node.name} has no data loader worker to keep its lock."
        )
    worker = trainer.workers[0]
    freeze(worker)
    kill_all([process for process in trainer.family if process is not worker])
    scene.give_up()
    return (
        f"killed trainer {trainer.process.pid} on {trainer.node.name}; its stopped worker {worker.pid} keeps the lock "
        f"data/locks/training_{scene.config}.lock"
    )

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 the trainer and its workers, each time that the queue starts them again, until it gives up."""

from __future__ import annotations

from lab.faults._scene import Scene, kill_all, listed


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    kill_all(trainer.family)
    scene.give_up()
    workers = f" and its workers {listed(list(trainer.workers))}" if trainer.workers else ""
    return f"killed trainer {trainer.process.pid}{workers} on {trainer.node.name}; the queue has given up"

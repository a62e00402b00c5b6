# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let an epoch take five seconds, so that training moves, but slowly."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene

SECONDS = 5


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    _orders.give(scene, trainer.node, epoch_seconds=SECONDS)
    return f"trainer {trainer.process.pid} on {trainer.node.name} takes {SECONDS} s for an epoch"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    if not _orders.withdraw(scene, node, "epoch_seconds"):
        raise LabError(f"The trainer on {node.name} is as fast as ever.")
    return f"the trainer on {node.name} is as fast as before"

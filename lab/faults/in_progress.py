# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a crash leave the mark of a training that runs (training_in_progress in the trigger state)."""

from __future__ import annotations

from lab.faults import _records, _triggers
from lab.faults._scene import Scene

COLUMN = "training_in_progress"


def apply(scene: Scene) -> str:
    killed = _records.kill_trainer(scene)
    name = _triggers.change(scene, COLUMN, 1)
    return f"{killed}the triggers on {name} believe that {scene.config} is in training"


def mend(scene: Scene) -> str:
    name = _triggers.change(scene, COLUMN, 0, mending=True)
    return f"the triggers on {name} know that {scene.config} is not in training"

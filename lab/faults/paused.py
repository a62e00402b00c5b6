# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pause the automatic training of the config (training_intensity in the trigger state)."""

from __future__ import annotations

from lab.faults import _triggers
from lab.faults._scene import Scene

COLUMN = "training_intensity"


def apply(scene: Scene) -> str:
    return f"automatic training of {scene.config} is paused on {_triggers.change(scene, COLUMN, 'paused')}"


def mend(scene: Scene) -> str:
    return f"automatic training of {scene.config} goes on on {_triggers.change(scene, COLUMN, 'normal', mending=True)}"

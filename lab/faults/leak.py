# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let memory of the GPU be used that belongs to no process."""

from __future__ import annotations

from lab import gpu
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    return gpu.change(scene.driver, scene.training_node(), "leaked")


def mend(scene: Scene) -> str:
    return gpu.change(scene.driver, scene.training_node(), "normal")

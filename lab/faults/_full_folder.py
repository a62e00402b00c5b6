# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of the service on a disk of its own that is full, and that is given room again."""

from __future__ import annotations

from lab.faults import _small_disk, disk
from lab.faults._scene import Scene


def fill(scene: Scene, folder: str) -> str:
    disk.fill(str(_small_disk.move(scene, _small_disk.just_enough, folder) / disk.FILLER))
    return f"the disk of {folder} on {scene.training_node().name} is full"


def mend(scene: Scene, folder: str) -> str:
    name = _small_disk.grow(scene, folder, disk.FILLER)
    return f"the disk of {folder} on {name} has room again"

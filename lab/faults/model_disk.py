# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill the disk that the models are on, those that a training starts from."""

from __future__ import annotations

from lab.faults import _small_disk, disk
from lab.faults._scene import Scene

FOLDER = "models"


def apply(scene: Scene) -> str:
    node = scene.training_node()
    folder = _small_disk.move(scene, _small_disk.just_enough, FOLDER)
    disk.fill(str(folder / disk.FILLER))
    return f"the disk of {FOLDER} on {node.name} is full"


def mend(scene: Scene) -> str:
    name = _small_disk.grow(scene, FOLDER, disk.FILLER)
    return f"the disk of {FOLDER} on {name} has room again"

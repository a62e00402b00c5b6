# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill the disk that the training file is on."""

from __future__ import annotations

from lab.faults import _full_folder
from lab.faults._scene import Scene

FOLDER = "data/training"


def apply(scene: Scene) -> str:
    return _full_folder.fill(scene, FOLDER)


def mend(scene: Scene) -> str:
    return _full_folder.mend(scene, FOLDER)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave no free inode on the disk that the checkpoints are on, with room for many gigabytes."""

from __future__ import annotations

import pathlib

from lab.errors import LabError
from lab.faults import _small_disk
from lab.faults._scene import Scene

SIZE = 64 << 30
SPARE = 64


def apply(scene: Scene) -> str:
    node = scene.training_node()
    made = fill(_small_disk.move(scene, lambda files: (SIZE, len(files) + SPARE)))
    return f"the disk of checkpoints on {node.name} has no free inode ({made} empty files)"


def fill(folder: pathlib.Path) -> int:
    """Make empty files until no more can be made."""
    for number in range(1 << 16):
        try:
            (folder / f".empty-{number}").touch()
        except OSError:
            return number
    raise LabError(f"{folder} takes more than {1 << 16} files.")


def mend(scene: Scene) -> str:
    name = _small_disk.unmount(scene)
    return f"the disk of checkpoints on {name} has inodes again; what was written meanwhile is gone"

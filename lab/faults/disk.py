# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill the disk that the checkpoints are on."""

from __future__ import annotations

from lab.faults import _small_disk
from lab.faults._scene import Scene

FILLER = ".filler"


def apply(scene: Scene) -> str:
    node = scene.training_node()
    folder = _small_disk.move(scene, _small_disk.just_enough)
    fill(str(folder / FILLER))
    return f"the disk of checkpoints on {node.name} is full"


def fill(path: str) -> None:
    """Write until no byte is left."""
    with open(path, "wb", buffering=0) as stream:
        chunk = bytes(1 << 16)
        while chunk:
            try:
                stream.write(chunk)
            except OSError:
                chunk = chunk[: len(chunk) // 2]


def mend(scene: Scene) -> str:
    name = _small_disk.unmount(scene)
    return f"the disk of checkpoints on {name} has room again; what was written while it was full is gone"

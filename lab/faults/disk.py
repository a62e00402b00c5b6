# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill the disk that the checkpoints are on."""

from __future__ import annotations

import os
import shutil
import tempfile

from lab.errors import LabError
from lab.faults._scene import Scene

FILLER = ".filler"


def apply(scene: Scene) -> str:
    node = scene.training_node()
    folder = scene.driver.service(node, "checkpoints")
    if not folder.is_dir():
        raise LabError(f"{node.name} has no directory checkpoints to fill.")
    inside = os.path.join(node.service, "checkpoints")
    with tempfile.TemporaryDirectory(prefix="ringrift-lab-", dir=scene.instance.directory) as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        needed = sum(entry.stat().st_size + 4096 for entry in os.scandir(aside) if entry.is_file())
        scene.driver.mount_small(node, inside, needed + (1 << 20))
        shutil.copytree(aside, folder, dirs_exist_ok=True)
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
    node = scene.training_node()
    scene.driver.unmount(node, os.path.join(node.service, "checkpoints"))
    return f"the disk of checkpoints on {node.name} has room again; what was written while it was full is gone"

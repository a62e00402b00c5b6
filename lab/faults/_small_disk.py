# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the checkpoints of a node on a small disk of their own."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from typing import Callable, List, Optional, Tuple

from lab.errors import LabError
from lab.faults._scene import Scene

Limits = Tuple[int, Optional[int]]
# More than an exporter wants to see free.
ROOM = 8 << 30


def just_enough(files: List[os.DirEntry]) -> Limits:
    """Room for the files and a little more."""
    return sum(entry.stat().st_size + 4096 for entry in files if entry.is_file()) + (1 << 20), None


def move(scene: Scene, limits: Callable[[List[os.DirEntry]], Limits], name: str = "checkpoints") -> pathlib.Path:
    """A folder of the service, on a disk of as many bytes and inodes as ``limits`` gives for its files."""
    node = scene.training_node()
    folder = scene.driver.service(node, name)
    if not folder.is_dir():
        raise LabError(f"{node.name} has no directory {name} to fill.")
    with tempfile.TemporaryDirectory(prefix="ringrift-lab-", dir=scene.instance.directory) as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        scene.driver.mount_small(node, os.path.join(node.service, name), *limits(list(os.scandir(aside))))
        shutil.copytree(aside, folder, dirs_exist_ok=True)
    return folder


def grow(scene: Scene, name: str, filler: str) -> str:
    """Make room on such a disk, of which only what is used costs memory; the name of the node."""
    node = scene.training_node()
    path = scene.driver.service(node, name, filler)
    if not path.exists():
        raise LabError(f"The disk of {name} on {node.name} is not full.")
    path.unlink()
    scene.driver.grow(node, os.path.join(node.service, name), ROOM)
    return node.name


def unmount(scene: Scene) -> str:
    """Take the disk away again; the name of the node."""
    node = scene.training_node()
    scene.driver.unmount(node, os.path.join(node.service, "checkpoints"))
    return node.name

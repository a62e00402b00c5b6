# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flip one byte in a tensor of the newest checkpoint, which no loader of the service notices."""

from __future__ import annotations

import os
import pathlib
import re
import struct
import zipfile
from typing import Tuple

from lab.errors import LabError
from lab.faults._scene import Scene
from lab.training import checkpoints, trainers


def apply(scene: Scene) -> str:
    node = scene.training_node()
    found = checkpoints(scene.driver, node)
    if not found:
        raise LabError(f"{node.name} has no checkpoints/checkpoint_epoch_*.pth to damage.")
    name, offset = flip(found[0])
    beside = ""
    if trainers(scene.driver, node, scene.config):
        beside = "; the trainer runs on and will write newer ones (break kill first, to keep this one the newest)"
    return f"flipped the byte at offset {offset} ({name}) of checkpoints/{found[0].name} on {node.name}{beside}"


def flip(path: pathlib.Path) -> Tuple[str, int]:
    """Invert the middle byte of the largest tensor, and leave the times of the file as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = [entry for entry in archive.infolist() if re.search(r"/data/\d+\Z", entry.filename)]
    except (OSError, zipfile.BadZipFile) as exc:
        raise LabError(f"{path} is not a checkpoint that could be damaged: {exc}") from exc
    if not tensors:
        raise LabError(f"{path} holds no tensor.")
    entry = max(tensors, key=lambda tensor: tensor.compress_size)
    before = path.stat()
    with open(path, "r+b") as stream:
        # The local header has its own lengths of name and extra field; torch pads the latter.
        stream.seek(entry.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", stream.read(4))
        offset = entry.header_offset + 30 + name_length + extra_length + entry.compress_size // 2
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 0xFF]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return entry.filename, offset

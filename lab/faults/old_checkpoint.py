# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flip one byte in a tensor of the oldest checkpoint; the newer ones and the model stay whole."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults._scene import Scene
from lab.faults.checkpoint import flip
from lab.training import checkpoints


def apply(scene: Scene) -> str:
    node = scene.training_node()
    found = checkpoints(scene.driver, node)
    if len(found) < 2:
        raise LabError(f"{node.name} has no two checkpoints/checkpoint_epoch_*.pth, so none that is old.")
    name, offset = flip(found[-1])
    return f"flipped the byte at offset {offset} ({name}) of checkpoints/{found[-1].name} on {node.name}"

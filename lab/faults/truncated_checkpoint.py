# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut the newest checkpoint to 60 %, as a crash while it was written leaves it."""

from __future__ import annotations

import os

from lab.errors import LabError
from lab.faults._scene import Scene
from lab.training import checkpoints

SHARE = 0.6


def apply(scene: Scene) -> str:
    node = scene.training_node()
    found = checkpoints(scene.driver, node)
    if not found:
        raise LabError(f"{node.name} has no checkpoints/checkpoint_epoch_*.pth to cut.")
    before = found[0].stat()
    os.truncate(found[0], int(before.st_size * SHARE))
    os.utime(found[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"cut checkpoints/{found[0].name} on {node.name} ({before.st_size} -> {int(before.st_size * SHARE)} bytes)"

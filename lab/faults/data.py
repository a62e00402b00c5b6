# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut the training file to 60 % on the coordinator and on all nodes, as an interrupted copy leaves it."""

from __future__ import annotations

import os

from lab.errors import LabError
from lab.faults._scene import Scene

SHARE = 0.6


def apply(scene: Scene) -> str:
    cut = []
    for node in [scene.wanted] if scene.wanted else scene.instance.nodes:
        path = scene.driver.service(node, "data", "training", f"{scene.config}.npz")
        try:
            size = path.stat().st_size
            os.truncate(path, int(size * SHARE))
        except FileNotFoundError:
            continue
        cut.append(f"{node.name} ({size} -> {int(size * SHARE)} bytes)")
    if not cut:
        raise LabError(f"No node has data/training/{scene.config}.npz.")
    return f"cut data/training/{scene.config}.npz on {', '.join(cut)}"

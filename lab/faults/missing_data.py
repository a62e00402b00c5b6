# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete the training file on the coordinator and on all nodes."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    gone = []
    for node in [scene.wanted] if scene.wanted else scene.instance.nodes:
        path = scene.driver.service(node, "data", "training", f"{scene.config}.npz")
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        gone.append(node.name)
    if not gone:
        raise LabError(f"No node has data/training/{scene.config}.npz.")
    return f"deleted data/training/{scene.config}.npz on {', '.join(gone)}"

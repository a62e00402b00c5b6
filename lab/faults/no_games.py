# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete the replay databases on the coordinator and on all nodes."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    gone = []
    for node in [scene.wanted] if scene.wanted else scene.instance.nodes:
        found = list(scene.driver.service(node, "data", "games").glob("*.db*"))
        for path in found:
            path.unlink()
        if found:
            gone.append(node.name)
    if not gone:
        raise LabError("No node has data/games/*.db.")
    return f"deleted data/games/*.db on {', '.join(gone)}"

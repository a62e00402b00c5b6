# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave a lock whose holder is on a host that the lab does not have."""

from __future__ import annotations

import time

from lab.faults import _records
from lab.faults._scene import Scene

HOLDER = "vast-h100-17:48213:5f0c9a1e"


def apply(scene: Scene) -> str:
    node = scene.training_node()
    killed = _records.kill_trainer(scene)
    path = scene.driver.service(node, "data", "locks", f"training_{scene.config}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HOLDER}\n{time.time() - 60}\n3600\n")
    return f"{killed}{HOLDER} holds data/locks/{path.name} on {node.name}"

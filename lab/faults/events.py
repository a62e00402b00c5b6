# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the subscribers of TRAINING_COMPLETED away from the leader's event router."""

from __future__ import annotations

import json

from lab.errors import LabError
from lab.faults._scene import Scene

# The orchestrator obeys this file, and deletes it when it starts.
FILE = ("data", "lab", "p2p_unwired.json")
EVENT = "TRAINING_COMPLETED"


def apply(scene: Scene) -> str:
    node = scene.wanted or scene.instance.coordinator
    path = scene.driver.service(node, *FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([EVENT]) + "\n")
    return f"{EVENT} has no subscriber any more on {node.name}"


def mend(scene: Scene) -> str:
    node = scene.wanted or scene.instance.coordinator
    try:
        scene.driver.service(node, *FILE).unlink()
    except FileNotFoundError as exc:
        raise LabError(f"{EVENT} has its subscribers on {node.name}.") from exc
    return f"{EVENT} has its subscribers again on {node.name}"

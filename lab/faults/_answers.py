# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an orchestrator that runs answers, which it reads from a file at every request (see lab/service/scripts/p2p)."""

from __future__ import annotations

import json
import os

from lab.errors import LabError
from lab.faults._scene import Scene

FILE = ("data", "lab", "p2p_answers.json")


def give(scene: Scene, how: str) -> str:
    """Have the leader, or the orchestrator of the node that is named, answer like this."""
    node = scene.wanted or scene.instance.coordinator
    path = scene.driver.service(node, *FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps({"how": how}))
    os.replace(staged, path)
    return node.name


def mend(scene: Scene) -> str:
    node = scene.wanted or scene.instance.coordinator
    try:
        scene.driver.service(node, *FILE).unlink()
    except FileNotFoundError as exc:
        raise LabError(f"The orchestrator of {node.name} answers as it should.") from exc
    return f"the orchestrator of {node.name} answers as it should"

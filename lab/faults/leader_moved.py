# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the orchestrator of a training node lead, and that of the coordinator follow it."""

from __future__ import annotations

from lab.faults import _orchestrator
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    leader = scene.wanted or scene.instance.training_nodes[-1]
    return _lead(scene, leader.name)


def mend(scene: Scene) -> str:
    return _lead(scene, scene.instance.coordinator.name)


def _lead(scene: Scene, leader: str) -> str:
    for node in scene.instance.nodes:
        _orchestrator.replace(scene, node, leader, {})
    return f"the orchestrator of {leader} leads"

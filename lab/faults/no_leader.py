# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the coordinator's orchestrator so that it leads no more, and nobody else does."""

from __future__ import annotations

from lab.faults import _orchestrator
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    node = scene.instance.coordinator
    _orchestrator.replace(scene, node, None, {})
    return f"the orchestrator of {node.name} was started anew and has no leader"


def mend(scene: Scene) -> str:
    node = scene.instance.coordinator
    _orchestrator.replace(scene, node, node.name, {})
    return f"the orchestrator of {node.name} leads again"

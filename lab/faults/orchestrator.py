# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop the orchestrator that leads, or that of the node that is named."""

from __future__ import annotations

import signal

from lab import operation
from lab.errors import LabError
from lab.faults._scene import Scene, kill_all
from lab.processes import lives, send, wait_until


def apply(scene: Scene) -> str:
    node = scene.wanted or scene.instance.coordinator
    process = operation.orchestrator(scene.driver, node)
    if process is None:
        raise LabError(f"No orchestrator runs on {node.name}.")
    send(process.mark, signal.SIGTERM)
    if not wait_until(lambda: not lives(process.mark), 3):
        kill_all([process])
    return f"stopped orchestrator {process.pid} on {node.name}"


def mend(scene: Scene) -> str:
    node = scene.wanted or scene.instance.coordinator
    if operation.orchestrator(scene.driver, node) is not None:
        raise LabError(f"The orchestrator of {node.name} runs.")
    operation.start_orchestrator(scene.instance, scene.driver, node)
    if not wait_until(lambda: (operation.health(scene.driver, node) or {}).get("healthy"), 30, 0.1):
        raise LabError(f"The orchestrator of {node.name} is not healthy: {operation.log_end(scene.driver, node)}")
    return f"started the orchestrator of {node.name}"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop an orchestrator and start another one in its place, in other circumstances."""

from __future__ import annotations

from typing import Mapping, Optional

from lab import operation
from lab.errors import LabError
from lab.faults import orchestrator
from lab.faults._scene import Scene
from lab.instance import Node
from lab.processes import wait_until


def replace(scene: Scene, node: Node, leader: Optional[str], env: Mapping[str, str]) -> None:
    """Restart the node's orchestrator under that leader, or none, and with more in its environment."""
    orchestrator.apply(Scene(scene.instance, node.name))
    peers = ",".join(f"{other.name}={scene.driver.url(other)}" for other in scene.instance.nodes)
    bind = "127.0.0.1" if scene.instance.driver == "local" else "0.0.0.0"
    argv = ["venv/bin/python", operation.PROGRAM, "--node-id", node.name, "--host", bind, "--port", str(node.p2p_port),
            "--advertise-host", node.address, "--peers", peers, "--training-only"]  # fmt: skip
    whole = {**operation.service_env(scene.instance, scene.driver, node), **env}
    if leader is None:
        # Who is the coordinator makes himself the leader.
        whole.pop("RINGRIFT_IS_COORDINATOR", None)
    else:
        argv += ["--leader", leader]
    scene.driver.spawn(node, argv, whole, operation.LOG)
    if not wait_until(lambda: (operation.health(scene.driver, node) or {}).get("healthy"), 30, 0.1):
        raise LabError(f"The orchestrator of {node.name} is not healthy: {operation.log_end(scene.driver, node)}")

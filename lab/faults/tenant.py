# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a program of somebody else keep the GPU busy."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from lab import gpu, operation
from lab.errors import LabError
from lab.faults._scene import Scene, kill_all
from lab.instance import Node
from lab.processes import Process, wait_until
from lab.training import trainers

NAME = "vllm-worker"
MEMORY = 61000
BUSY = {"utilization.gpu": "97", "power.draw": "512.40", "power.draw.instant": "512.40", "power.draw.average": "512.40"}


def apply(scene: Scene) -> str:
    node = _node(scene)
    # A copy of its own name, so that nothing takes it for a trainer.
    argv = ["bash", "-c", f"exec -a {NAME} sleep 86400"]
    scene.driver.spawn(node, argv, operation.service_env(scene.instance, scene.driver, node), "logs/other.log")
    if not wait_until(lambda: _tenants(scene, node), 10):
        raise LabError(f"{NAME} was not started on {node.name}.")
    pid = _tenants(scene, node)[0].pid
    ours = [one.process.pid for one in trainers(scene.driver, node, scene.config)]
    users = [{"pid": pid, "memory": MEMORY, "name": NAME}, *({"pid": own, "name": "python"} for own in ours)]
    _change(scene, node, {"processes": users, "gpus": [{"values": BUSY}]})
    return f"{NAME} ({pid}) keeps the GPU of {node.name} busy"


def mend(scene: Scene) -> str:
    node = _node(scene)
    found = _tenants(scene, node)
    if not found:
        raise LabError(f"Nobody else uses the GPU of {node.name}.")
    kill_all(found)
    _change(scene, node, {"processes": "auto", "gpus": []})
    return f"{NAME} on {node.name} is gone"


def _node(scene: Scene) -> Node:
    node = scene.training_node()
    if not node.trains:
        raise LabError(f"{node.name} has no GPU.")
    return node


def _tenants(scene: Scene, node: Node) -> List[Process]:
    return [process for process in scene.driver.processes(node) if process.argv[:1] == (NAME,)]


def _change(scene: Scene, node: Node, values: Dict[str, Any]) -> None:
    path = scene.driver.path(node, gpu.state_path(node))
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps({**json.loads(path.read_text()), **values}) + "\n")
    os.replace(staged, path)

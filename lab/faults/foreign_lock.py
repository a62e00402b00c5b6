# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a live process hold the training lock of another config."""

from __future__ import annotations

from lab import operation
from lab.errors import LabError
from lab.faults._scene import Scene
from lab.processes import wait_until


def apply(scene: Scene) -> str:
    node = scene.training_node()
    other = "square8_2p" if scene.config != "square8_2p" else "hex8_2p"
    argv = ["venv/bin/python", "-m", "app.coordination.training_launcher", "--config", other, "--no-redis", "--",
            "sleep", "86400"]  # fmt: skip
    scene.driver.spawn(node, argv, operation.service_env(scene.instance, scene.driver, node), "logs/other.log")
    path = scene.driver.service(node, "data", "locks", f"training_{other}.lock")
    if not wait_until(lambda: path.is_file() and path.stat().st_size > 0, 10):
        raise LabError(f"The lock of {other} on {node.name} was not taken; see logs/other.log there.")
    return f"a process on {node.name} holds the lock of {other}"

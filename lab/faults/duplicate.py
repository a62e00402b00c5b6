# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a second trainer of the config, past the lock and the queue."""

from __future__ import annotations

from lab import operation
from lab.errors import LabError
from lab.faults._scene import Scene, kill_all
from lab.processes import wait_until
from lab.training import trainers

EPOCHS = "5000"


def apply(scene: Scene) -> str:
    node = scene.training_node()
    before = len(trainers(scene.driver, node, scene.config))
    board, players = scene.config.rsplit("_", 1)
    argv = ["venv/bin/python", "-m", "app.training.train", "--board-type", board, "--num-players", players.rstrip("p"),
            "--epochs", EPOCHS, "--batch-size", "512", "--save-path", f"models/second_{scene.config}.pth",
            "--checkpoint-dir", "checkpoints/second", "--allow-stale-data",
            "--data-path", f"data/training/{scene.config}.npz"]  # fmt: skip
    env = operation.service_env(scene.instance, scene.driver, node)
    env.update(PYTHONPATH=node.service, PYTHONUNBUFFERED="1")
    scene.driver.spawn(node, argv, env, "logs/training-2.log")
    if not wait_until(lambda: len(trainers(scene.driver, node, scene.config)) > before, 10, 0.1):
        raise LabError(f"No second trainer was started on {node.name}; see logs/training-2.log there.")
    return f"{before + 1} trainers of {scene.config} run on {node.name}"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    found = [one for one in trainers(scene.driver, node, scene.config) if "checkpoints/second" in one.process.argv]
    if not found:
        raise LabError(f"No second trainer runs on {node.name}.")
    for one in found:
        kill_all(one.family)
    return f"ended the second trainer on {node.name}"

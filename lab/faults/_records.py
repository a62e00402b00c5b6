# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training records that the leader takes into its memory when the file is written."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict

from lab.faults._scene import Scene

FILE = ("data", "lab", "p2p_records.json")


def add(scene: Scene, **values: Any) -> str:
    """Put a record of the lab's config into the leader's memory; its id."""
    board, players = scene.config.rsplit("_", 1)
    now = time.time()
    record: Dict[str, Any] = {
        "job_id": f"nnue_{scene.config}_{int(now)}",
        "board_type": board,
        "num_players": int(players.rstrip("p")),
        "worker_node": scene.training_node().name,
        "created_at": now - 60,
        "started_at": now - 60,
        **values,
    }
    path = scene.driver.service(scene.instance.coordinator, *FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps([record]) + "\n")
    os.replace(staged, path)
    return record["job_id"]


def kill_trainer(scene: Scene) -> str:
    """End the training, if there is one; what to say of it."""
    before = scene.running()
    scene.give_up()
    return f"killed trainer {before.process.pid} on {before.node.name}; " if before else ""

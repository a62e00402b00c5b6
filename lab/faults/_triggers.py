# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the service's automatic trainings, as its trigger daemon keeps it on the coordinator."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from typing import Any

from lab.errors import LabError
from lab.faults._scene import Scene

FILE = ("data", "coordination", "training_trigger_state.db")
SCHEMA = """
CREATE TABLE IF NOT EXISTS config_state (
    config_key TEXT PRIMARY KEY,
    last_training_time REAL DEFAULT 0,
    training_in_progress INTEGER DEFAULT 0,
    last_npz_update REAL DEFAULT 0,
    npz_sample_count INTEGER DEFAULT 0,
    training_intensity TEXT DEFAULT 'normal',
    consecutive_failures INTEGER DEFAULT 0
)
"""


def change(scene: Scene, column: str, value: Any, mending: bool = False) -> str:
    """Set one column of the lab's config; the name of the coordinator.

    :raises LabError: ``mending``, and it has this value already
    """
    node = scene.instance.coordinator
    path = scene.driver.service(node, *FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite resolves links by name, so it would leave the node's file system for the machine's: change a copy.
    with tempfile.TemporaryDirectory(prefix="ringrift-lab-") as aside:
        copy = os.path.join(aside, path.name)
        if path.is_file():
            shutil.copyfile(path, copy)
        changed = _set(copy, scene.config, column, value)
        staged = path.with_name(path.name + ".new")
        shutil.copyfile(copy, staged)
        os.replace(staged, path)
    if mending and not changed:
        raise LabError(f"{column} of {scene.config} is {value!r} already on {node.name}.")
    return node.name


def _set(path: str, config: str, column: str, value: Any) -> bool:
    """Set a column of a config's row; whether it had another value."""
    with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        connection.execute(SCHEMA)
        row = (config, time.time() - 3600)
        connection.execute("INSERT OR IGNORE INTO config_state (config_key, last_training_time) VALUES (?, ?)", row)
        query = f"UPDATE config_state SET {column} = ? WHERE config_key = ? AND {column} IS NOT ?"
        return connection.execute(query, (value, config, value)).rowcount > 0

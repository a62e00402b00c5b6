# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node shows of its training: the trainer, its children, the last epoch, the checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from lab.instance import Instance, Node
from lab.nodes.base import Driver
from lab.processes import Process

MODULES = ("app.training.train", "scripts.train_nnue")


@dataclass(frozen=True)
class Trainer:
    """A trainer and the processes that it forked."""

    node: Node
    process: Process
    workers: Tuple[Process, ...]

    @property
    def family(self) -> List[Process]:
        return [self.process, *self.workers]


def is_trainer(argv: Sequence[str], config: str) -> bool:
    """Whether an argument list is that of a trainer of the config."""
    board, players = config.rsplit("_", 1)
    if not any(first == "-m" and second in MODULES for first, second in zip(argv, argv[1:])):
        return False
    # The launcher carries the trainer's arguments until it becomes the trainer.
    if "app.coordination.training_launcher" in argv:
        return False
    return option(argv, "--board-type") == board and option(argv, "--num-players") == players.rstrip("p")


def option(argv: Sequence[str], name: str) -> Optional[str]:
    """The value of an option in an argument list."""
    for first, second in zip(argv, [*argv[1:], ""]):
        if first == name:
            return second
        if first.startswith(f"{name}="):
            return first.partition("=")[2]
    return None


def trainers(driver: Driver, node: Node, config: str) -> List[Trainer]:
    """The live trainers of the config on a node. A worker whose trainer is dead counts as none."""
    alive = [process for process in driver.processes(node) if process.state not in "ZX"]
    mine = {process.pid: process for process in alive if is_trainer(process.argv, config)}
    found = []
    for process in mine.values():
        if process.ppid not in mine and not is_orphan(process, alive):
            found.append(Trainer(node, process, tuple(descendants(process, alive))))
    return found


def is_orphan(process: Process, among: Sequence[Process]) -> bool:
    """Whether this is a stopped worker that outlived its trainer, of which it has inherited the argument list."""
    adopted = process.ppid <= 1 or process.ppid not in {other.pid for other in among}
    return adopted and process.group != process.pid and process.state in "Tt"


def descendants(process: Process, among: Sequence[Process]) -> List[Process]:
    """Everything that a process started, and what that started."""
    direct = [other for other in among if other.ppid == process.pid]
    return [found for child in direct for found in (child, *descendants(child, among))]


def find(instance: Instance, driver: Driver) -> List[Trainer]:
    """The trainers of the lab's config on all nodes."""
    return [found for node in instance.nodes for found in trainers(driver, node, instance.config)]


def checkpoints(driver: Driver, node: Node) -> List[pathlib.Path]:
    """The checkpoints of the node that were written in the course of a training, the newest first."""
    dated = []
    for path in driver.service(node, "checkpoints").glob("checkpoint_epoch_*.pth"):
        match = re.search(r"_epoch_(\d+)\.pth\Z", path.name)
        try:
            if match:
                dated.append((path.stat().st_mtime_ns, int(match.group(1)), path))
        except FileNotFoundError:
            continue
    return [path for _time, _epoch, path in sorted(dated, reverse=True)]


def progress(driver: Driver, node: Node, config: str) -> Optional[Dict[str, Any]]:
    """The newest epoch in the node's event log, and when it was written."""
    path = driver.path(node, driver.coordination_dir(node)) / "events.db"
    query = (
        "SELECT payload, created_at FROM events WHERE event_type = 'training_progress' ORDER BY event_id DESC LIMIT 50"
    )
    try:
        # SQLite resolves links by name, so it would leave the node's file system for the machine's: read a copy.
        with tempfile.TemporaryDirectory(prefix="ringrift-lab-") as aside:
            for end in ("-wal", ""):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{path}{end}", os.path.join(aside, f"events.db{end}"))
            with contextlib.closing(sqlite3.connect(os.path.join(aside, "events.db"))) as database:
                rows = database.execute(query).fetchall()
    except (sqlite3.Error, OSError):
        return None
    for payload, created_at in rows:
        with contextlib.suppress(ValueError, AttributeError):
            data = json.loads(payload)
            if data.get("config") == config and isinstance(data.get("epoch"), int):
                return {"epoch": data["epoch"], "at": created_at}
    return None

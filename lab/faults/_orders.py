# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders that the trainer obeys (see lab/service/app/training/faults.py), and what it then says in its log."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Dict

from lab.errors import LabError
from lab.faults._scene import Scene
from lab.instance import Node
from lab.processes import link, wait_until
from lab.training import Trainer

FILE = ("data", "lab", "train_fault.json")
LOG = "logs/training.log"
DEADLINE = 20.0


def give(scene: Scene, node: Node, **orders: Any) -> None:
    """Have these obeyed too, from the next batch on and by every trainer that is started later."""
    _write(scene, node, {**_read(scene, node), **orders})


def withdraw(scene: Scene, node: Node, *names: str) -> bool:
    """Have these obeyed no more; False when none of them was."""
    orders = _read(scene, node)
    if not any(name in orders for name in names):
        return False
    _write(scene, node, {name: value for name, value in orders.items() if name not in names})
    return True


def _read(scene: Scene, node: Node) -> Dict[str, Any]:
    try:
        return json.loads(scene.driver.service(node, *FILE).read_text())
    except (OSError, ValueError):
        return {}


def _write(scene: Scene, node: Node, orders: Dict[str, Any]) -> None:
    path = scene.driver.service(node, *FILE)
    if not orders:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(orders))
    os.replace(staged, path)


def log_of(scene: Scene, trainer: Trainer) -> pathlib.Path:
    """The file that the trainer writes its log to, whatever its name is now."""
    shown = link(trainer.process.mark.pid, "fd/1") or ""
    path = scene.driver.path(trainer.node, shown)
    if not shown.startswith("/") or not path.is_file():
        raise LabError(f"Trainer {trainer.process.pid} on {trainer.node.name} writes no log.")
    return path


def await_words(path: pathlib.Path, begin: int, words: str, what: str, timeout: float = DEADLINE) -> None:
    """Wait until the log has these words behind a place."""
    if not wait_until(lambda: words in since(path, begin), timeout, 0.05):
        raise LabError(f"{what} within {timeout:g} s; {path} does not say {words!r}.")


def since(path: pathlib.Path, begin: int) -> str:
    """What was written to a log behind a place."""
    try:
        with open(path, "rb") as stream:
            stream.seek(begin)
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run out of GPU memory: the errors in the trainer's log, and the trainer gone."""

from __future__ import annotations

import json
import os
import pathlib

from lab.errors import LabError
from lab.faults._scene import Scene, kill_all
from lab.processes import link, wait_until

# The trainer obeys this file; see lab/service/app/training/faults.py.
ORDER = ("data", "lab", "train_fault.json")
LAST_LINE = b"Training circuit OPEN"


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    shown = link(trainer.process.mark.pid, "fd/1") or ""
    log = scene.driver.path(trainer.node, shown)
    if not shown.startswith("/") or not log.is_file():
        raise LabError(f"Trainer {trainer.process.pid} on {trainer.node.name} writes no log.")
    order = scene.driver.service(trainer.node, *ORDER)
    order.parent.mkdir(parents=True, exist_ok=True)
    staged = order.with_suffix(".new")
    staged.write_text(json.dumps({"cuda_oom": {"max_batch": 0}}))
    begin = log.stat().st_size
    os.replace(staged, order)
    try:
        if not wait_until(lambda: LAST_LINE in _since(log, begin), 15, 0.05):
            raise LabError(
                f"Trainer {trainer.process.pid} on {trainer.node.name} did not run out of memory within 15 s."
            )
        kill_all(trainer.family)
        scene.give_up()
    finally:
        order.unlink()
    return f"trainer {trainer.process.pid} on {trainer.node.name} ran out of GPU memory (see {shown}) and is gone"


def _since(log: pathlib.Path, begin: int) -> bytes:
    with open(log, "rb") as stream:
        stream.seek(begin)
        return stream.read()

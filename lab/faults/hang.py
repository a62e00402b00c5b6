# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGSTOP the trainer and its data loader workers."""

from __future__ import annotations

import signal

from lab.errors import LabError
from lab.faults._scene import Scene, freeze, listed
from lab.processes import send


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    for process in trainer.family:
        freeze(process)
    return f"stopped trainer {trainer.process.pid} and all it started ({listed(trainer.family)}) on {trainer.node.name}"


def mend(scene: Scene) -> str:
    trainer = scene.trainer()
    stopped = [process for process in trainer.family if process.state in "Tt"]
    if not stopped:
        raise LabError(f"Trainer {trainer.process.pid} on {trainer.node.name} is not stopped.")
    for process in stopped:
        send(process.mark, signal.SIGCONT)
    return f"trainer {trainer.process.pid} on {trainer.node.name} goes on"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave a job in the leader's memory that is said to run, while no trainer does."""

from __future__ import annotations

from lab.faults import _records
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    killed = _records.kill_trainer(scene)
    job = _records.add(scene, status="running")
    return f"{killed}the leader believes that job {job} runs"

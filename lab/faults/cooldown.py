# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a training have completed just now: none runs, and the cooldown is active."""

from __future__ import annotations

import time

from lab.faults import _records
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    killed = _records.kill_trainer(scene)
    job = _records.add(scene, status="completed", completed_at=time.time())
    return f"{killed}job {job} has just completed, so the leader's cooldown is active"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move logs/training.log away and begin an empty one, while the trainer goes on writing to the old one."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    node = scene.training_node()
    log = scene.driver.service(node, _orders.LOG)
    if not log.is_file():
        raise LabError(f"{node.name} has no {_orders.LOG} to move away.")
    log.rename(log.with_name(f"{log.name}.1"))
    log.touch()
    return f"{_orders.LOG} on {node.name} is {_orders.LOG}.1 now, and empty"

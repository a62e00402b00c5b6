# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the kernel have killed a browser because the node had no memory left; the trainer runs on."""

from __future__ import annotations

from lab import kernel_log
from lab.faults import _oom_lines
from lab.faults._scene import Scene

PID = 30217


def apply(scene: Scene) -> str:
    node = scene.training_node()
    kernel_log.write(scene.driver, node, _oom_lines.lines("chrome", PID, 6))
    return f"the kernel of {node.name} killed chrome ({PID}) for want of memory"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    kernel_log.reset(scene.driver, node)
    return f"the kernel log of {node.name} is as it was after the boot"

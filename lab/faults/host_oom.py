# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the kernel kill the trainer because the node has no memory left."""

from __future__ import annotations

from lab import kernel_log
from lab.faults import _oom_lines
from lab.faults._scene import Scene, kill_all


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    kill_all(trainer.family)
    scene.give_up()
    lines = _oom_lines.lines("python", trainer.process.pid, 192)
    kernel_log.write(scene.driver, trainer.node, lines)
    return f"the kernel of {trainer.node.name} killed trainer {trainer.process.pid} for want of memory"

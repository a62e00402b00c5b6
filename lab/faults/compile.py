# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the trainer anew, and let it compile in front of its first epoch: busy, and no progress yet."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults import _orders
from lab.faults._scene import Scene, kill_all

WORDS = "Compiling model with torch.compile"


def apply(scene: Scene) -> str:
    trainer = scene.trainer()
    log = scene.driver.service(trainer.node, _orders.LOG)
    begin = _orders.size(log)
    _orders.give(scene, trainer.node, compile=True)
    kill_all(trainer.family)
    _orders.await_words(log, begin, WORDS, "No trainer that compiles was started")
    started = Scene(scene.instance, trainer.node.name).trainer()
    return f"trainer {started.process.pid} on {trainer.node.name} was started and compiles"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    if not _orders.withdraw(scene, node, "compile"):
        raise LabError(f"The trainer on {node.name} does not compile.")
    return f"the trainer on {node.name} has compiled"

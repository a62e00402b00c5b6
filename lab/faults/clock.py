# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set the clock of the node an hour ahead, for every Python that is started by a login or is a trainer."""

from __future__ import annotations

import time

from lab import operation
from lab.errors import LabError
from lab.faults._scene import Scene, kill_all
from lab.processes import wait_until

# The nodes share the machine's own clock, and libfaketime lets a sleep of Python 3.11 and newer last as long as the
# clock is wrong. So the clock is set in Python, which runs this file when it starts.
HOOK = """\
import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + {seconds} * 10**9
"""
AHEAD = 3600
NAME = "sitecustomize.py"
FOLDER = "/usr/local/lib/lab-clock"
SSHD = "/etc/ssh/sshd_lab_config"


def apply(scene: Scene) -> str:
    node = scene.training_node()
    if scene.driver.name != "netns":
        raise LabError(f"{node.name} shares this machine's clock. Use --driver netns, as root.")
    folder = scene.driver.path(node, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    # A trainer is given the service's directory as its PYTHONPATH.
    for path in (folder / NAME, scene.driver.service(node, NAME)):
        path.write_text(HOOK.format(seconds=AHEAD))
    _change_logins(scene)
    trainer = scene.running()
    if trainer is not None and trainer.node.name == node.name:
        begun = time.time()
        kill_all(trainer.family)
        operation.await_training(scene.instance, scene.driver, begun)
    return f"the clock of {node.name} is an hour ahead"


def _change_logins(scene: Scene) -> None:
    """Have Python find the file in every new login."""
    node = scene.training_node()
    path = scene.driver.path(node, SSHD)
    # Of several such lines sshd takes the first.
    lines = path.read_text().splitlines()
    lines = [f'{line} "PYTHONPATH={FOLDER}"' if line.startswith("SetEnv ") else line for line in lines]
    path.write_text("\n".join([*lines, ""]))
    found = [process for process in scene.driver.processes(node) if "sshd" in "".join(process.argv[:1])]
    # The first process of the node starts another one.
    kill_all([process for process in found if process.ppid == 1])
    if not wait_until(lambda: scene.driver.reachable(node), 10):
        raise LabError(f"sshd of {node.name} did not start again.")

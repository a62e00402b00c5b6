# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGSTOP the sshd of the node that is named: it takes connections and never answers."""

from __future__ import annotations

import signal
from typing import List

from lab.errors import LabError
from lab.faults._scene import Scene, freeze
from lab.processes import Process, send


def apply(scene: Scene) -> str:
    node = scene.node("left hanging")
    found = _daemons(scene)
    for process in found:
        freeze(process)
    return f"sshd of {node.name} hangs"


def mend(scene: Scene) -> str:
    node = scene.node("woken")
    stopped = [process for process in _daemons(scene) if process.state in "Tt"]
    if not stopped:
        raise LabError(f"sshd of {node.name} does not hang.")
    for process in stopped:
        send(process.mark, signal.SIGCONT)
    return f"sshd of {node.name} answers again"


def _daemons(scene: Scene) -> List[Process]:
    """The sshd that listens; the sessions of others go on."""
    node = scene.node("looked at")
    if scene.driver.name != "netns":
        raise LabError(f"{node.name} has no sshd. Use --driver netns, as root.")
    found = [process for process in scene.driver.processes(node) if "sshd" in "".join(process.argv[:1])]
    listening = [process for process in found if process.ppid == 1]
    if not listening:
        raise LabError(f"No sshd runs on {node.name}.")
    return listening

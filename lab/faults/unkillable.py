# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave the trainer in uninterruptible sleep (D), as a stuck driver does; no signal ends it, not even SIGKILL."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys

from lab.errors import LabError
from lab.faults._scene import Scene, listed
from lab.instance import Node
from lab.processes import read, wait_until

# Version 2 has no such thing: SIGKILL ends what it has frozen.
FREEZER = pathlib.Path("/sys/fs/cgroup/freezer")
DEADLINE = 5.0


def apply(scene: Scene) -> str:
    if scene.driver.name != "netns" or not (FREEZER / "cgroup.procs").exists():
        raise LabError(
            "An unkillable trainer needs the netns driver and the freezer of version 1 control groups; break hang is "
            "the nearest that this machine can do."
        )
    trainer = scene.trainer()
    group = _group(scene, trainer.node)
    group.mkdir(exist_ok=True)
    # Should the node be taken down meanwhile, its processes could not end.
    subprocess.Popen(
        [sys.executable, "-m", "lab.faults._thaw", str(group), str(trainer.node.supervisor.pid),
         str(trainer.node.supervisor.start_ticks)],
        cwd=pathlib.Path(__file__).resolve().parents[2], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for process in trainer.family:
        (group / "cgroup.procs").write_text(str(process.mark.pid))
    (group / "freezer.state").write_text("FROZEN")
    if not wait_until(lambda: (group / "freezer.state").read_text().strip() == "FROZEN", DEADLINE):
        raise LabError(f"Trainer {trainer.process.pid} on {trainer.node.name} could not be frozen.")
    return (
        f"trainer {trainer.process.pid} and all it started ({listed(trainer.family)}) on {trainer.node.name} is frozen"
    )


def mend(scene: Scene) -> str:
    nodes = [scene.wanted] if scene.wanted else scene.instance.nodes
    found = [node for node in nodes if _group(scene, node).is_dir()]
    if not found:
        raise LabError("No trainer is unkillable.")
    for node in found:
        group = _group(scene, node)
        (group / "freezer.state").write_text("THAWED")
        for pid in (group / "cgroup.procs").read_text().split():
            # One that was killed meanwhile ends now.
            wait_until(lambda pid=pid: getattr(read(int(pid)), "state", "Z") != "D", DEADLINE)
            with contextlib.suppress(OSError):
                (FREEZER / "cgroup.procs").write_text(pid)
        wait_until(lambda group=group: not _remove(group), DEADLINE)
    return f"what was frozen on {', '.join(node.name for node in found)} goes on"


def _group(scene: Scene, node: Node) -> pathlib.Path:
    return FREEZER / f"ringrift-lab-{scene.instance.id}-{node.name}"


def _remove(group: pathlib.Path) -> bool:
    """Whether the group is still there."""
    with contextlib.suppress(OSError):
        group.rmdir()
    return group.is_dir()

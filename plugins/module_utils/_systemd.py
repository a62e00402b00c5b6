# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop the systemd service that runs a training, so that systemd does not start it again.

Only a service of the machine's own systemd whose purpose is this training is stopped: its main process is one of the
training, or nothing else runs in it. Everything else, such as a login, the orchestrator or a container engine, is left
alone, and its trainers are signalled. This util is private to the collection.
"""

from __future__ import annotations

import fnmatch
import os
from dataclasses import asdict, dataclass
from typing import Any, Callable, Collection, Dict, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _cgroup, _command
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

TOOL = "systemctl"
# A systemd that is stuck costs this much; its processes are signalled then.
TIMEOUT = 5.0
# Services that start trainers among other things, and what a person is logged in with.
NEVER = (
    "ssh*", "sshd*", "user@*", "session-*", "getty@*", "serial-getty@*", "tmux*", "screen*",
    "ringrift-p2p*", "*master-loop*", "*master_loop*", "*orchestrator*",
    "cron*", "atd*", "systemd-*", "dbus*", "docker*", "containerd*", "podman*", "crio*", "kubelet*", "k3s*", "slurm*",
    "supervisor*", "jupyter*", "ansible*", "awx*",
)  # fmt: skip


@dataclass(frozen=True)
class UnitStop:
    """A service that systemd was told to stop; ``problem`` says why it was not, and its processes were signalled."""

    name: str
    pids: List[int]
    problem: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


def find_units(
    pids: Collection[int], is_other: Callable[[int], bool], timeout: float = TIMEOUT
) -> Dict[str, List[int]]:
    """The services whose purpose is a training, each with the processes of the training in it.

    :param pids: the processes of the training
    :param is_other: whether a process of a service is one of another training
    """
    family = frozenset(pids)
    groups: Dict[str, Tuple[_cgroup.Group, List[int]]] = {}
    found: Dict[str, List[int]] = {}
    for pid in pids:
        group = _cgroup.read(pid)
        if group.unit is not None and _may_be_stopped(group):
            groups.setdefault(group.unit, (group, []))[1].append(pid)
    for unit, (group, inside) in groups.items():
        members = _cgroup.unit_members(group)
        if members is None or os.getpid() in members:
            continue
        strangers = members - family
        if strangers and (any(is_other(pid) for pid in strangers) or main_pid(unit, timeout) not in family):
            continue
        found[unit] = sorted(inside)
    return found


def stop_unit(unit: str, pids: Collection[int], timeout: float = TIMEOUT) -> UnitStop:
    """Have systemd stop a service. It is not waited for: who is still there is seen by the processes."""
    try:
        call(["stop", "--no-block", "--no-ask-password", "--", unit], timeout)
    except RecoveryError as exc:
        return UnitStop(unit, sorted(pids), str(exc))
    return UnitStop(unit, sorted(pids))


def main_pid(unit: str, timeout: float = TIMEOUT) -> Optional[int]:
    """The main process of a service; None when systemd does not say."""
    try:
        output = call(["show", "--property=MainPID", "--", unit], timeout)
    except RecoveryError:
        return None
    name, _sign, value = output.strip().partition("=")
    return int(value) or None if name == "MainPID" and value.isdecimal() else None


def _may_be_stopped(group: _cgroup.Group) -> bool:
    unit = group.unit or ""
    # A service of the machine with a container in it, as containerd.service, runs all of its containers.
    if not unit.endswith(".service") or group.user_unit or group.container:
        return False
    return not any(fnmatch.fnmatchcase(unit, f"{pattern}.service") for pattern in NEVER)


def call(arguments: List[str], timeout: float) -> str:
    """What systemctl writes.

    :raises RecoveryError: there is none, it failed, or it gave no answer in time
    """
    tool = _command.find(TOOL)
    if tool is None:
        raise RecoveryError(f"there is no {TOOL} on this node")
    answer = _command.run([tool, *arguments], timeout)
    if answer.hung:
        raise RecoveryError(f"{TOOL} {arguments[0]} gave no answer within {timeout:g} s")
    if answer.code != 0:
        raise RecoveryError(f"{TOOL} {arguments[0]} failed with {answer.code}: {answer.message}")
    return answer.output

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop the processes of a training, and prove that they are gone.

A process is known by its number and its start time, so that one that was given the same number is never signalled. The
order matters. A systemd service that runs nothing else is stopped by systemd, which would start it again otherwise.
Launchers that start a trainer again are frozen first. Trainers are asked next, once: a second SIGTERM would interrupt
the emergency checkpoint that they write on the first. Workers come last, since a trainer that loses one fails, and they
are killed rather than asked, since a forked one has the handler of its trainer and would write over that checkpoint; of
them, and of launchers, the deepest in the tree come first. This util is private to the collection.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _cgroup, _pidfd, _proc, _systemd
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import (
    LAUNCHER,
    WORKER,
    Sighting,
    TrainingProcess,
    classify,
)

POLL = 0.05
# How often trainers that appear during a stop are stopped too.
ROUNDS = 3
# How long a launcher that was missed is given to show itself.
SETTLE = 0.3
# How long workers and wrappers are given to notice that their trainer is gone; most take a moment.
NOTICE = 3.0
# Launchers keep nothing that is worth a longer wait, once their trainer is gone.
LAUNCHER_GRACE = 5.0

NOT_PERMITTED = "this user may not signal it"
UNINTERRUPTIBLE = "it is in uninterruptible sleep, which SIGKILL does not end"
FROZEN = "its control group is frozen, and SIGKILL does not end it before that is thawed"
KILLED = "it has not ended since SIGKILL"
RESPAWNED = "it was started again during the stop"

NAMED = 5
# By what stands most in the way.
NEXT_STEPS = {
    UNINTERRUPTIBLE: "Reboot the node, then run this again.",
    FROZEN: "Thaw it (echo THAWED > {thaw}), or reboot the node, then run this again.",
    NOT_PERMITTED: "Run the task with become: true, or as the user of that process.",
    RESPAWNED: "Find out what starts it, which is often its parent, and stop that first.",
    KILLED: "Look at it on the node, then run this again.",
}


@dataclass(frozen=True)
class Stopped:
    """A process that is proven gone.

    ``signal`` is the last one that it was sent, None where it ended without one, as workers do with their trainer, and
    the processes of a service with systemd.
    ``seconds`` count from its first signal, None in a prediction.
    """

    process: TrainingProcess
    signal: Optional[str]
    seconds: Optional[float]

    def as_dict(self) -> Dict[str, Any]:
        return {**self.process.as_dict(), "signal": self.signal, "seconds": self.seconds}


@dataclass(frozen=True)
class Survivor:
    """A process that is still there, and why. One that is ``unkillable`` ends with a reboot only."""

    process: TrainingProcess
    state: str
    wchan: Optional[str]
    unkillable: bool
    reason: str

    def as_dict(self) -> Dict[str, Any]:
        more = {"state": self.state, "wchan": self.wchan, "unkillable": self.unkillable, "reason": self.reason}
        return {**self.process.as_dict(), **more}


@dataclass(frozen=True)
class StopResult:
    """Who was stopped, who was not, which services systemd was told to stop, and whether anything was done."""

    stopped: Tuple[Stopped, ...] = ()
    survivors: Tuple[Survivor, ...] = ()
    signalled: bool = False
    units: Tuple[_systemd.UnitStop, ...] = ()


@dataclass
class _Target:
    """One process during a stop."""

    process: TrainingProcess
    depth: int
    begun: float
    first: Optional[float] = None
    last: Optional[str] = None
    gone: Optional[float] = None
    refused: bool = False
    by_systemd: bool = False
    seen: Optional[_proc.ProcStat] = field(default=None, repr=False)

    def look(self) -> bool:
        """Whether it is still there."""
        if self.gone is None:
            self.seen = _proc.is_same(self.process.pid, self.process.start_ticks)
            if self.seen is None:
                self.gone = time.monotonic()
        return self.gone is None


def stop(
    processes: Sequence[TrainingProcess],
    grace: float = 30.0,
    kill_wait: float = 5.0,
    find: Optional[Callable[[], Sequence[TrainingProcess]]] = None,
) -> StopResult:
    """Stop processes, and those that ``find`` finds afterwards, for a bounded number of rounds.

    :param grace: seconds between SIGTERM and SIGKILL
    :param kill_wait: seconds after SIGKILL until a process counts as a survivor
    :param find: looks for the processes anew
    """
    targets: Dict[Tuple[int, int], _Target] = {}
    units: List[_systemd.UnitStop] = []
    found = list(processes)
    for _turn in range(ROUNDS):
        fresh = [process for process in found if process.alive and _key(process) not in targets]
        if not fresh:
            break
        now = time.monotonic()
        targets.update({_key(process): _Target(process, _depth(process, fresh), now) for process in fresh})
        current = [targets[_key(process)] for process in fresh]
        units += _stop_units(current)
        _round(current, grace, kill_wait)
        if find is None:
            found = []
            break
        time.sleep(SETTLE)
        found = list(find())
    late = [_Target(process, 0, 0.0) for process in found if process.alive and _key(process) not in targets]
    survivors = [_survivor(target) for target in targets.values() if target.look()]
    survivors += [_survivor(target, RESPAWNED) for target in late if target.look()]
    gone = [target for target in targets.values() if target.gone is not None]
    return StopResult(
        tuple(_stopped(target) for target in gone),
        tuple(survivors),
        any(target.last for target in targets.values()) or any(unit.problem is None for unit in units),
        tuple(units),
    )


def plan(processes: Iterable[TrainingProcess]) -> StopResult:
    """What a stop would do; nothing is signalled."""
    stopped, survivors = [], []
    processes = list(processes)
    units = _units([process.pid for process in processes if process.alive])
    by_systemd = {pid for pids in units.values() for pid in pids}
    for process in processes:
        target = _Target(process, 0, 0.0)
        if not process.alive or not target.look():
            continue
        try:
            os.kill(process.pid, 0)
        except PermissionError:
            survivors.append(_survivor(target, NOT_PERMITTED))
        except ProcessLookupError:
            continue
        else:
            stopped.append(Stopped(process, None if process.pid in by_systemd else "SIGTERM", None))
    asked = tuple(_systemd.UnitStop(unit, pids) for unit, pids in units.items())
    return StopResult(tuple(stopped), tuple(survivors), bool(stopped), asked)


def failure(config: str, result: StopResult, seen: Sighting) -> Optional[str]:
    """Why the stop is no proof that nothing of the config runs, and what to do next; None when it is one.

    :param seen: what is seen after the stop
    """
    if result.survivors:
        names = "; ".join(
            f"pid {one.process.pid} (state {one.state}, waits in {one.wchan or 'unknown'}): {one.reason}"
            for one in result.survivors[:NAMED]
        )
        reasons = {one.reason for one in result.survivors}
        reason = next(reason for reason in NEXT_STEPS if reason in reasons)
        step = _next_step(reason, next(one.process for one in result.survivors if one.reason == reason))
        count = len(result.survivors)
        those = "1 process of {} is" if count == 1 else f"{count} processes of {{}} are"
        return f"{those.format(config)} still there: {names}. {step}"
    late = [process for process in seen.processes if process.alive]
    if late:
        return f"Process {late[0].pid} of {config} was started just after the stop. {_next_step(RESPAWNED, late[0])}"
    doubts = seen.doubts()
    if doubts:
        return (
            f"It is not proven that no process of {config} is left: {doubts}. Run the task with become: true; "
            "reboot the node when a process stays in uninterruptible sleep; end one that hides what it runs by hand."
        )
    return None


def _next_step(reason: str, process: TrainingProcess) -> str:
    """What to do about a process that is still there, or there again."""
    if reason == FROZEN:
        return NEXT_STEPS[reason].format(thaw=_cgroup.frozen_by(process.pid) or "its freezer.state")
    if reason == RESPAWNED and process.container:
        return f"Its container starts it again: stop {process.container}, then run this again."
    if reason == RESPAWNED and (process.unit or "").endswith(".service"):
        return f"{process.unit} may start it again: stop that with systemctl, then run this again."
    return NEXT_STEPS[reason]


def _units(pids: Sequence[int]) -> Dict[str, List[int]]:
    """The services that are stopped by systemd, with their processes; only root may tell it to."""
    if os.geteuid() != 0:
        return {}
    return _systemd.find_units(pids, lambda pid: classify(_proc.read_cmdline(pid) or ()) is not None)


def _stop_units(targets: Sequence[_Target]) -> List[_systemd.UnitStop]:
    """Tell systemd to stop the services of processes; those of a service that it does not stop are signalled."""
    asked = []
    for unit, pids in _units([target.process.pid for target in targets]).items():
        if not any(target.process.pid in pids and target.look() for target in targets):
            continue
        asked.append(_systemd.stop_unit(unit, pids))
        for target in targets:
            if target.process.pid in pids and asked[-1].problem is None:
                target.by_systemd = True
                target.first = time.monotonic()
    return asked


def _round(targets: List[_Target], grace: float, kill_wait: float) -> None:
    parents = {target.process.ppid for target in targets}
    targets = sorted(targets, key=lambda target: -target.depth)
    frozen = [target for target in targets if target.process.respawns and not target.by_systemd]
    wrappers = [target for target in targets if target not in frozen and _waits(target.process, parents)]
    workers = [target for target in targets if _is_copy(target, targets)]
    leaders = [target for target in targets if target not in frozen + wrappers + workers]
    try:
        for target in frozen:
            _send(target, signal.SIGSTOP)
        for target in workers:
            # A trainer that ends waits for its workers, and would wait for ever for one that is stopped.
            _send(target, signal.SIGCONT)
        for target in leaders:
            asked = (signal.SIGTERM,) if not target.by_systemd else ()
            for number in (signal.SIGCONT, *asked, signal.SIGCONT):
                _send(target, number)
        _wait(leaders, grace)
        _kill(leaders, kill_wait)
        _wait([target for target in wrappers + workers if not target.process.orphan], min(grace, NOTICE))
        _kill(workers, kill_wait)
        for target in frozen + wrappers:
            # SIGTERM is pending when a frozen launcher goes on, so it starts nothing any more.
            asked = (signal.SIGTERM,) if not target.by_systemd else ()
            for number in (*asked, signal.SIGCONT):
                _send(target, number)
        _wait(frozen + wrappers, min(grace, LAUNCHER_GRACE))
        _kill(frozen + wrappers, kill_wait)
    finally:
        for target in frozen:
            _send(target, signal.SIGCONT)


def _waits(process: TrainingProcess, parents: Iterable[int]) -> bool:
    """Whether a process is a wrapper that waits for its program, rather than one that becomes it in a moment."""
    return process.role == LAUNCHER and process.pid in parents


def _is_copy(target: _Target, targets: Iterable[_Target]) -> bool:
    """Whether a process is certainly a worker.

    An orphan that is alone may be a trainer that went into the background.
    """
    process = target.process
    if process.role != WORKER or not process.orphan:
        return process.role == WORKER
    groups = [other.process.pgrp for other in targets if other.process.orphan]
    return groups.count(process.pgrp) > 1


def _kill(targets: Sequence[_Target], kill_wait: float) -> None:
    left = [target for target in targets if target.look()]
    for target in left:
        _send(target, signal.SIGKILL)
    _wait(left, kill_wait)


def _wait(targets: Sequence[_Target], seconds: float) -> None:
    """Wait until the processes that could be signalled are gone."""
    deadline = time.monotonic() + seconds
    # All are looked at each time, so that each one's end is noted when it comes.
    while [target for target in targets if not target.refused and target.look()]:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(POLL, left))


def _send(target: _Target, number: int) -> None:
    """Signal exactly this process, unless it is gone or may not be signalled."""
    pid = target.process.pid
    if pid <= 1 or pid == os.getpid():
        raise RecoveryError(f"Process {pid} is not a trainer; it is never signalled. Nothing was done to it.")
    if target.refused or not target.look():
        return
    try:
        # The handle is held before the identity is checked, so the number cannot change hands in between.
        with _pidfd.opened(pid) as send:
            if not target.look():
                return
            send(number)
    except ProcessLookupError:
        return
    except PermissionError:
        target.refused = True
        return
    if number in (signal.SIGTERM, signal.SIGKILL):
        target.last = signal.Signals(number).name
        target.first = target.first or time.monotonic()


def _stopped(target: _Target) -> Stopped:
    gone = target.gone or target.begun
    return Stopped(target.process, target.last, round(max(0.0, gone - (target.first or target.begun)), 2))


def _survivor(target: _Target, reason: Optional[str] = None) -> Survivor:
    process, stat = target.process, target.seen
    letters = _proc.thread_states(process.pid)
    unkillable = _proc.BLOCKED in letters
    state = _proc.BLOCKED if unkillable else letters[:1] if stat is None or stat.state in _proc.ENDED else stat.state
    if reason is None:
        blocked = FROZEN if unkillable and _cgroup.frozen_by(process.pid) else UNINTERRUPTIBLE
        reason = NOT_PERMITTED if target.refused else blocked if unkillable else KILLED
    return Survivor(process, state or process.state, _proc.read_wchan(process.pid), unkillable, reason)


def _key(process: TrainingProcess) -> Tuple[int, int]:
    return process.pid, process.start_ticks


def _depth(process: TrainingProcess, family: Iterable[TrainingProcess]) -> int:
    """How many ancestors of a process are in its family."""
    parents = {member.pid: member.ppid for member in family}
    depth, pid = 0, process.ppid
    while pid in parents and depth < len(parents):
        depth, pid = depth + 1, parents[pid]
    return depth

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who recovers a config, how far they have come, and how often it has been tried in vain.

A run begins, says which step it is at, and ends. One that does neither for its lease is taken for dead, and so is one
whose controller is known to be gone. This util is private to the collection.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _journal_file, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import clock, span

SCHEMA = 1
TICK = 2.0
SHOWN = 10
RUNNING, DIED, ENDED = "running", "died", "ended"
# The steps at which training has been restarted, or may have been.
RESTARTED = ("restart_training", "monitor")


@dataclass(frozen=True)
class Moment:
    """When something was: by the wall clock, and by a clock that nobody sets, which begins anew with each boot."""

    at: float
    boot: str
    ticks: float

    def since(self, then: Moment) -> float:
        """Seconds from ``then`` to this; a wall clock that was set back makes no time pass."""
        return max(0.0, self.ticks - then.ticks if self.boot and self.boot == then.boot else self.at - then.at)


def this_moment() -> Moment:
    # Linux counts it on while the machine sleeps.
    return Moment(time.time(), _proc.boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))


@dataclass(frozen=True)
class Attempt:
    """One run: times in Unix seconds, the lease in seconds."""

    run: str
    who: Mapping[str, Any]
    begun: float
    seen: Moment
    lease: float
    step: Optional[str] = None
    outcome: Optional[str] = None
    progressed: Optional[bool] = None
    state: str = RUNNING
    counts: bool = True

    def as_dict(self) -> Dict[str, Any]:
        return {
            "run": self.run,
            "who": dict(self.who),
            "begun": self.begun,
            "seen": self.seen.at,
            "step": self.step,
            "outcome": self.outcome,
            "progressed": self.progressed,
            "state": self.state,
        }

    def name(self) -> str:
        """Whose it is, as a person calls it."""
        return f"{self.who.get('user') or 'somebody'}@{self.who.get('host') or 'an unknown controller'}"

    def line(self) -> str:
        """It in one line of a history."""
        how = self.outcome or {RUNNING: "under way", DIED: "died"}.get(self.state, "ended")
        return f"{clock(self.begun)} {self.name()}: {how}{f' (at {self.step})' if self.step else ''}"


@dataclass(frozen=True)
class Limits:
    """How long a run may say nothing, and how often it may be tried in vain within which time, in seconds.

    What began before training last made progress, ``progress_age`` seconds ago, was not in vain.
    """

    lease: float = 1800.0
    attempts: int = 3
    window: float = 21600.0
    progress_age: Optional[float] = None

    def __post_init__(self) -> None:
        for name, value, most in (("lease", self.lease, 86400.0), ("window", self.window, 31536000.0)):
            if not 1 <= value <= most:
                raise RecoveryError(f"{name} is {value:g} s. It must be from 1 to {most:.0f}.")
        if self.progress_age is not None and not self.progress_age >= 0:
            raise RecoveryError(f"progress_age is {self.progress_age:g} s. It must be 0 or more.")
        if not 1 <= self.attempts <= 1000:
            raise RecoveryError(f"max_attempts is {self.attempts}. It must be from 1 to 1000.")


@dataclass(frozen=True)
class Journal:
    """What is known of the runs of a config, the oldest first."""

    path: str
    attempts: Tuple[Attempt, ...] = ()
    damaged: int = 0

    @property
    def running(self) -> Optional[Attempt]:
        return next((attempt for attempt in reversed(self.attempts) if attempt.state == RUNNING), None)

    @property
    def broken_off(self) -> Optional[Attempt]:
        """The last run, where it died: what comes next goes on from there."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.state == DIED else None

    def in_vain(self, window: float, now: float, progress_age: Optional[float] = None) -> List[Attempt]:
        """The runs within the window, after the last that proved progress, that are over.

        One that died before it restarted anything has tried nothing yet, and one that is no recovery never counts.

        :param progress_age: seconds since training was seen to make progress, which one before that was not in vain for
        """
        since = now - window if progress_age is None else now - min(window, progress_age)
        found: List[Attempt] = []
        for attempt in self.attempts:
            tried = attempt.state == ENDED or (attempt.state == DIED and attempt.step in RESTARTED)
            if attempt.progressed:
                found = []
            elif tried and attempt.counts and attempt.begun >= since:
                found.append(attempt)
        return found


@dataclass(frozen=True)
class Decision:
    """Whether a run may begin."""

    journal: Journal
    allowed: bool
    refused: Optional[str] = None
    reason: str = ""
    in_vain: Sequence[Attempt] = field(default=())

    def as_dict(self) -> Dict[str, Any]:
        running, broken = self.journal.running, self.journal.broken_off
        return {
            "allowed": self.allowed,
            "refused": self.refused,
            "reason": self.reason,
            "running": running.as_dict() if running else None,
            "broken_off": broken.as_dict() if broken else None,
            "attempts": [attempt.as_dict() for attempt in self.journal.attempts[-SHOWN:]],
            "in_vain": len(self.in_vain),
            "history": [attempt.line() for attempt in self.journal.attempts[-SHOWN:]],
            "damaged_lines": self.journal.damaged,
            "path": self.journal.path,
        }


def place(directory: str, config: str) -> str:
    """The journal of a config."""
    return os.path.join(os.path.abspath(directory), f"{config}.jsonl")


def look(path: str, now: Moment, gone: Sequence[str] = ()) -> Journal:
    """Read what there is.

    :param gone: runs whose controller is known to be gone
    :raises RecoveryError: the journal cannot be read
    """
    records, damaged = _journal_file.read(path)
    attempts: Dict[str, Attempt] = {}
    for record in records:
        if not _take(record, attempts):
            damaged += 1
    found = [
        replace(attempt, state=DIED)
        if attempt.state == RUNNING and (attempt.run in gone or now.since(attempt.seen) > attempt.lease)
        else attempt
        for attempt in attempts.values()
    ]
    return Journal(path, tuple(found), damaged)


def decide(journal: Journal, config: str, limits: Limits, now: Moment, counts: bool = True) -> Decision:
    """Whether another run of ``config`` may begin, and if not, what to do instead.

    :param counts: whether it is an attempt to recover, of which there may be so many in vain
    """
    running = journal.running
    vain = journal.in_vain(limits.window, now.at, limits.progress_age)
    if running is not None:
        quiet = now.since(running.seen)
        words = (
            f"{config} is being recovered by {running.name()} since {clock(running.begun)}; that run ({running.run}) "
            f"was at {running.step or 'its beginning'} {span(quiet)} ago. Wait for it: -e on_other_run=wait. "
            f"If you know that it is dead, go on in its place: -e takeover={running.run}. "
            f"Without news it counts as dead in {span(max(0.0, running.lease - quiet))}."
        )
        return Decision(journal, False, "running", words, vain)
    if counts and len(vain) >= limits.attempts:
        told = "; ".join(attempt.line() for attempt in vain[-SHOWN:])
        tries = f"{len(vain)} {'recovery' if len(vain) == 1 else 'recoveries'} of {config}"
        words = (
            f"{tries} within {span(limits.window)} brought no progress: {told}. "
            f"Find the cause first: ansible-playbook diagnose.yml -e config={config}. "
            f"To try once more all the same: -e recovery_max_attempts={len(vain) + 1}."
        )
        return Decision(journal, False, "attempts", words, vain)
    return Decision(journal, True, None, "", vain)


def begin(
    path: str,
    config: str,
    run: str,
    who: Mapping[str, Any],
    limits: Limits,
    wait: float = 0.0,
    gone: Sequence[str] = (),
    counts: bool = True,
) -> Decision:
    """Begin a run, unless another one is under way or it has been tried too often.

    :param wait: seconds to wait for another run to end
    :param counts: whether it is an attempt to recover; one that is not is kept apart from others all the same
    :returns: what was decided; where it is allowed, the run has begun
    :raises RecoveryError: the journal cannot be read or written; then nothing has begun
    """
    end = time.monotonic() + wait
    while True:
        with _journal_file.locked(path):
            now = this_moment()
            decision = decide(look(path, now, gone), config, limits, now, counts)
            if decision.allowed:
                facts = {"who": dict(who), "lease": limits.lease, "counts": counts}
                _journal_file.append(path, {**_entry("begun", run, now), **facts})
                return decision
        if decision.refused != "running" or time.monotonic() + TICK > end:
            return decision
        time.sleep(TICK)


def note(path: str, run: str, event: str, lease: float, **facts: Any) -> Optional[str]:
    """Say that a run is at a step, or that it has ended.

    :returns: why it should not go on: another run has taken its place; None where it may
    :raises RecoveryError: the journal cannot be read or written, or has no such run
    """
    with _journal_file.locked(path):
        now = this_moment()
        journal = look(path, now)
        own = next((attempt for attempt in journal.attempts if attempt.run == run), None)
        if own is None:
            raise RecoveryError(f"{path} has no run {run}. Begin it first, or look whether the file was removed.")
        later = journal.attempts[journal.attempts.index(own) + 1 :]
        _journal_file.append(path, {**_entry(event, run, now), **facts, "lease": lease})
    if not later:
        return None
    other = later[-1]
    return f"{other.name()} has taken the place of this run ({run}) with {other.run} since {clock(other.begun)}."


def _entry(event: str, run: str, now: Moment) -> Dict[str, Any]:
    return {"schema": SCHEMA, "event": event, "run": run, "at": now.at, "boot": now.boot, "ticks": now.ticks}


def _take(record: Mapping[str, Any], attempts: Dict[str, Attempt]) -> bool:
    """Add what a record says; False where it says nothing that is understood."""
    run, event = record.get("run"), record.get("event")
    at, ticks, lease = (_number(record.get(name)) for name in ("at", "ticks", "lease"))
    if not isinstance(run, str) or at is None or ticks is None or lease is None:
        return False
    seen = Moment(at, _word(record.get("boot")) or "", ticks)
    if event == "begun":
        # Runs begin one after another, so that whoever was under way was known to be dead.
        for other, attempt in attempts.items():
            if attempt.state == RUNNING:
                attempts[other] = replace(attempt, state=DIED)
        who = record.get("who")
        counts = record.get("counts") is not False
        attempts[run] = Attempt(run, _who(who if isinstance(who, dict) else {}), at, seen, lease, counts=counts)
        return True
    if run not in attempts or event not in ("step", "ended"):
        # Its beginning may be beyond what is read; then nothing depends on it any more.
        return event in ("step", "ended")
    known = replace(attempts[run], seen=seen, lease=lease)
    if event == "step":
        attempts[run] = replace(known, step=_word(record.get("step")) or known.step)
    else:
        attempts[run] = replace(
            known, state=ENDED, outcome=_word(record.get("outcome")), progressed=record.get("progressed") is True
        )
    return True


def _number(value: Any) -> Optional[float]:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
    return float(value) if usable else None


def _who(told: Mapping[str, Any]) -> Dict[str, Any]:
    """What has a name of who it was, in plain words and numbers."""
    return {
        name[:50]: value[:200] if isinstance(value, str) else value
        for name, value in list(told.items())[:20]
        if isinstance(value, str) or (isinstance(value, int) and _number(value) is not None)
    }


def _word(value: Any) -> Optional[str]:
    return value[:200] if isinstance(value, str) and value else None

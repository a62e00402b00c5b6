# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts on a training lock: what each may rest on, and whether the lock may be released. All pure functions.

Whether a lock may be released follows from the verdict alone, by the table ``RELEASABLE``: only proof that nobody holds
it counts, never age. This util is private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import LockId
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_holder import (
    ALIVE,
    CLOCK_TOLERANCE,
    DEAD,
    GONE,
    OTHER,
    REUSED,
    SAME,
    SIMILAR,
    Answer,
)

FILE = "file"
REDIS = "redis"
API = "api"

NOT_TAKEN = "nobody has taken it"

FREE = "free"
HELD_LIVE = "held_live"
HELD_LIVE_FOREIGN = "held_live_foreign"
STALE_DEAD = "stale_dead"
STALE_PID_REUSED = "stale_pid_reused"
STALE_PRIOR_BOOT = "stale_prior_boot"
STALE_EXPIRED = "stale_expired"
ORPHAN_FD = "orphan_fd"
ORPHAN_FILE = "orphan_file"
UNKNOWN = "unknown"

# The one place that says what may be released. In the order of how much each matters: the first found is "the" lock.
RELEASABLE = {
    HELD_LIVE: False,
    ORPHAN_FD: False,
    HELD_LIVE_FOREIGN: False,
    UNKNOWN: False,
    STALE_DEAD: True,
    STALE_PID_REUSED: True,
    STALE_PRIOR_BOOT: True,
    STALE_EXPIRED: True,
    ORPHAN_FILE: True,
    FREE: False,
}
VERDICTS = tuple(RELEASABLE)


@dataclass(frozen=True)
class Facts:
    """What was observed about one lock; all that a verdict may rest on.

    ``host`` compares the host in the record with this one (``same``, ``similar``: short against full name, ``other``);
    ``process`` is ``alive``, ``dead`` or None where it cannot be told; ``kept`` is whether anybody on this node keeps
    the flock, by ``keepers``, None where not every process could be looked into (``unseen`` says why).
    ``taken_before`` is the latest moment at which the lock can have been taken, where that moment is not recorded.
    ``answer`` is what the hosts of the recorded name say of the holder.
    """

    backend: str
    exists: bool
    now: float
    problem: Optional[str] = None
    empty: bool = False
    lock_id: Optional[LockId] = None
    host: Optional[str] = None
    process: Optional[str] = None
    process_detail: str = ""
    process_start: Optional[float] = None
    has_open: bool = False
    acquired_at: Optional[float] = None
    lifetime: Optional[float] = None
    ttl: Optional[float] = None
    boot_time: Optional[float] = None
    keepers: Tuple[int, ...] = ()
    kept: Optional[bool] = False
    unseen: Optional[str] = None
    taken_before: Optional[float] = None
    answer: Optional[Answer] = None

    @property
    def latest(self) -> Optional[float]:
        """The latest moment at which the lock can have been taken."""
        return self.taken_before if self.acquired_at is None else self.acquired_at

    @property
    def reused(self) -> bool:
        """Whether the process with the recorded number was started after the lock was taken."""
        return (
            self.process == ALIVE
            and self.process_start is not None
            and self.latest is not None
            and self.process_start > self.latest + CLOCK_TOLERANCE
        )

    @property
    def prior_boot(self) -> bool:
        """Whether this host was started after the lock was taken."""
        return self.latest is not None and self.boot_time is not None and self.latest < self.boot_time - CLOCK_TOLERANCE


def judge(facts: Facts) -> Tuple[str, str]:
    """The verdict on a lock, and the reason for it. A pure function.

    Whatever could not be observed makes the verdict ``unknown``, unless what was observed already proves a live holder.
    """
    if not facts.exists:
        return FREE, NOT_TAKEN
    return _judge_file(facts) if facts.backend == FILE else _judge_key(facts)


def _judge_file(facts: Facts) -> Tuple[str, str]:
    if facts.keepers:
        return _judge_kept(facts)
    if facts.problem:
        return UNKNOWN, facts.problem
    if facts.kept is not False:
        return UNKNOWN, f"{facts.unseen or 'who keeps its flock cannot be seen'}, so somebody may hold it"
    left = "nobody keeps its flock"
    if facts.empty:
        return FREE, NOT_TAKEN
    if facts.lock_id is None:
        return UNKNOWN, f"{left}, but its content is no whole record of a holder"
    if facts.host == OTHER:
        return _judge_foreign(facts, "took it on another host, and only there it can be told if it lives")
    if facts.prior_boot:
        return STALE_PRIOR_BOOT, f"the file is left over: {_holder(facts)} took it before this host started, and {left}"
    if facts.process == DEAD:
        return ORPHAN_FILE, f"the file is left over: {_holder(facts)} {_is_gone(facts)}, and {left}"
    if facts.process != ALIVE:
        return UNKNOWN, f"it cannot be told whether {_holder(facts)} lives{_because(facts)}"
    if facts.has_open:
        return UNKNOWN, f"{_holder(facts)} lives and has the file open, but the kernel shows no flock on it"
    if facts.reused:
        return STALE_PID_REUSED, (
            f"the file is left over: {_holder(facts)} is gone, its number now belongs to a process that was started "
            f"{facts.process_start - facts.acquired_at:.0f} s after the lock was taken, and {left}"  # type: ignore[operator]
        )
    if facts.acquired_at is None:
        return (
            UNKNOWN,
            f"a process with the number of {_holder(facts)} lives, and the record has no time to compare with",
        )
    if facts.lifetime is not None and facts.now > facts.acquired_at + facts.lifetime:
        return STALE_EXPIRED, f"{_holder(facts)} lives but has let it go: the lock has expired and {left}"
    return ORPHAN_FILE, f"the file is left over: {_holder(facts)} lives but has let it go, {left}"


def _judge_kept(facts: Facts) -> Tuple[str, str]:
    pids = name_pids(facts.keepers)
    if facts.lock_id is None:
        return HELD_LIVE, f"{pids} keeps its flock, but its record names nobody"
    if facts.host == OTHER:
        return HELD_LIVE, f"{pids} on this host keeps its flock, although the record names {_holder(facts)}"
    if facts.lock_id.pid in facts.keepers:
        return HELD_LIVE, f"{_holder(facts)} lives and keeps its flock"
    if facts.process == DEAD:
        return ORPHAN_FD, f"{_holder(facts)} {_is_gone(facts)}, but {pids} inherited its flock and keeps it"
    if facts.reused or facts.prior_boot:
        return ORPHAN_FD, f"{_holder(facts)} is gone and its number has been reused, but {pids} keeps its flock"
    return HELD_LIVE, f"{pids} keeps its flock; the record names {_holder(facts)}"


def _judge_key(facts: Facts) -> Tuple[str, str]:
    """A lock without a flock, in Redis or known by the service's API: only its record says who holds it."""
    if facts.problem:
        return UNKNOWN, facts.problem
    if facts.lock_id is None:
        what = "value of the key" if facts.backend == REDIS else "answer of get_holder()"
        return UNKNOWN, f"the {what} is no record of a holder"
    if facts.host == SIMILAR:
        return _judge_foreign(facts, "may be on this host under another name or on another host, and may live")
    if facts.host != SAME:
        return _judge_foreign(facts, "is on another host, and only there it can be told if it lives")
    younger = facts.process == ALIVE and (facts.reused or facts.prior_boot)
    if younger and facts.backend == REDIS:
        # How long a key was idle is by the clock of Redis; one that was set would make a live holder look replaced.
        return UNKNOWN, (
            f"{_holder(facts)} seems to be gone and its number used again{_because(facts)}, but only the clock of "
            "Redis says how old the lock is, and that proves nothing"
        )
    if facts.process == DEAD or younger:
        return _judge_gone(facts)
    if facts.process != ALIVE:
        return UNKNOWN, f"it cannot be told whether {_holder(facts)} lives{_because(facts)}"
    return HELD_LIVE, f"{_holder(facts)} lives{_because(facts)}"


def _judge_gone(facts: Facts) -> Tuple[str, str]:
    """The recorded process is no more on this host, unless a host of the same name says otherwise."""
    if facts.answer is not None and not _is_gone_there(facts, facts.answer):
        where = facts.answer.host or "a host of that name"
        return HELD_LIVE_FOREIGN, f"{_holder(facts)} is not on this host, but {where} says: {facts.answer.reason}"
    blocks = f"the {'key' if facts.backend == REDIS else 'lock'} blocks everybody {_until(facts)}"
    if facts.process == DEAD:
        return STALE_DEAD, f"{_holder(facts)} {_is_gone(facts)}, and {blocks}"
    if facts.prior_boot:
        return STALE_PRIOR_BOOT, f"{_holder(facts)} took it before this host started, and {blocks}"
    return STALE_PID_REUSED, (
        f"{_holder(facts)} is gone, its number now belongs to a process that was started after the lock was taken"
        f"{_because(facts)}, and {blocks}"
    )


def _judge_foreign(facts: Facts, otherwise: str) -> Tuple[str, str]:
    """The record names another host: what that one says, and where it was not asked, that it may live."""
    answer = facts.answer
    if answer is None:
        return HELD_LIVE_FOREIGN, f"{_holder(facts)} {otherwise}"
    said = f"{answer.host or answer.hostname or 'its host'} says: {answer.reason or answer.verdict}"
    if not _is_gone_there(facts, answer):
        lives = "lives" if answer.verdict == ALIVE else "may live"
        return HELD_LIVE_FOREIGN, f"{_holder(facts)} {lives}; {said}"
    if facts.backend == FILE and answer.kept is not False:
        return HELD_LIVE_FOREIGN, f"{_holder(facts)} is gone, but somebody there may keep the flock; {said}"
    verdicts = {DEAD: ORPHAN_FILE if facts.backend == FILE else STALE_DEAD, REUSED: STALE_PID_REUSED}
    return verdicts.get(answer.verdict, STALE_PRIOR_BOOT), f"{_holder(facts)} is gone; {said}"


def _is_gone_there(facts: Facts, answer: Answer) -> bool:
    """Whether another host's word is proof; how old a lock in Redis is proves nothing there either."""
    return answer.verdict == DEAD if facts.backend == REDIS else answer.verdict in GONE


def _holder(facts: Facts) -> str:
    return f"process {facts.lock_id.pid} of {facts.lock_id.host}" if facts.lock_id else "its holder"


def _is_gone(facts: Facts) -> str:
    return f"is gone{_because(facts)}"


def _because(facts: Facts) -> str:
    return f" ({facts.process_detail})" if facts.process_detail else ""


def _until(facts: Facts) -> str:
    return "for ever" if facts.ttl is None else f"for another {facts.ttl:.0f} s"


def name_pids(pids: Sequence[int]) -> str:
    named = ", ".join(str(pid) for pid in pids[:10])
    return f"process {named}" if len(pids) == 1 else f"each of the processes {named}"

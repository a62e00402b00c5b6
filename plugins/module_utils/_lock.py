# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds a training lock, whether that holder lives, and whether the lock may be released.

Observing (``_lock_file``, ``_lock_redis``, ``_proc``), judging (``judge``, a pure function from facts to a verdict) and
releasing are three steps. Whether a lock may be released follows from the verdict alone, by the table ``RELEASABLE``:
only proof that nobody holds it counts, never age. This util is private to the collection.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Collection, Dict, Optional, Sequence, Tuple, Union

from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_file, _lock_redis
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import LockFile, LockId
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_redis import RedisLock
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import (
    ENDED,
    boot_time,
    has_live_threads,
    hostname,
    list_pids,
    read_stat,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._redis import (
    RedisAddress,
    RedisUnreachable,
    parse_redis_url,
)

AUTO = "auto"
FILE = "file"
REDIS = "redis"
BACKENDS = (AUTO, FILE, REDIS)

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

ALIVE = "alive"
DEAD = "dead"

SAME = "same"
SIMILAR = "similar"
OTHER = "other"

# Seconds by which the clock may have been corrected between two readings that are compared.
CLOCK_TOLERANCE = 2.0

# Host names that do not tell one node from another.
NAMELESS = ("localhost", "localhost.localdomain")


@dataclass(frozen=True)
class Facts:
    """What was observed about one lock; all that a verdict may rest on.

    ``host`` compares the host in the record with this one (``same``, ``similar``: short against full name, ``other``);
    ``process`` is ``alive``, ``dead`` or None where it cannot be told; ``kept`` is whether anybody on this node keeps
    the flock, by ``keepers``, None where not every process could be looked into (``unseen`` says why).
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

    @property
    def reused(self) -> bool:
        """Whether the process with the recorded number was started after the lock was taken."""
        return (
            self.process == ALIVE
            and self.process_start is not None
            and self.acquired_at is not None
            and self.process_start > self.acquired_at + CLOCK_TOLERANCE
        )

    @property
    def prior_boot(self) -> bool:
        """Whether this host was started after the lock was taken."""
        return (
            self.acquired_at is not None
            and self.boot_time is not None
            and self.acquired_at < self.boot_time - CLOCK_TOLERANCE
        )


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as far as it can be told. Times are unix seconds and seconds."""

    host: Optional[str]
    pid: Optional[int]
    token: Optional[str]
    acquired_at: Optional[float]
    ttl: Optional[float]
    age: Optional[float]
    expires_in: Optional[float]
    alive: Optional[bool]
    holders: Tuple[int, ...]

    def as_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "holders": list(self.holders)}


@dataclass(frozen=True)
class LockState:
    """One lock, judged. ``held`` is what the service would say of it, None where that cannot be told."""

    name: str
    backend: str
    path: Optional[str]
    key: Optional[str]
    server: Optional[str]
    held: Optional[bool]
    holder: Optional[Holder]
    verdict: str
    reason: str
    record: Tuple[str, ...] = ()
    seen: Union[LockFile, RedisLock, None] = None
    address: Optional[RedisAddress] = None

    @property
    def releasable(self) -> bool:
        return RELEASABLE[self.verdict]

    @property
    def token(self) -> Optional[str]:
        return self.holder.token if self.holder else None

    @property
    def place(self) -> str:
        """Where the lock is, for messages."""
        return f"file {self.path}" if self.backend == FILE else f"key {self.key} in Redis at {self.server}"

    def as_dict(self) -> Dict[str, Any]:
        return {
            "name": self.name,
            "backend": self.backend,
            "path": self.path,
            "key": self.key,
            "server": self.server,
            "held": self.held,
            "holder": self.holder.as_dict() if self.holder else None,
            "verdict": self.verdict,
            "releasable": self.releasable,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class LockReport:
    """The lock of a config in every place that was looked into."""

    locks: Tuple[LockState, ...]

    @property
    def lock(self) -> LockState:
        """The one that stands most in the way of a release."""
        return min(self.locks, key=lambda lock: VERDICTS.index(lock.verdict))

    @property
    def taken(self) -> Tuple[LockState, ...]:
        """Those that are not free."""
        return tuple(lock for lock in self.locks if lock.verdict != FREE)

    @property
    def split_brain(self) -> bool:
        """Whether the lock is held in two places at once, so that two processes may each believe that it is theirs."""
        return sum(lock.held is True for lock in self.locks) > 1

    def as_dict(self) -> Dict[str, Any]:
        return {
            "lock": self.lock.as_dict(),
            "locks": [lock.as_dict() for lock in self.locks],
            "split_brain": self.split_brain,
            "record": {lock.backend: list(lock.record) or None for lock in self.locks},
        }


def judge(facts: Facts) -> Tuple[str, str]:
    """The verdict on a lock, and the reason for it. A pure function.

    Whatever could not be observed makes the verdict ``unknown``, unless what was observed already proves a live holder.
    """
    if not facts.exists:
        return FREE, "nobody has taken it"
    return _judge_file(facts) if facts.backend == FILE else _judge_redis(facts)


def _judge_file(facts: Facts) -> Tuple[str, str]:
    if facts.keepers:
        return _judge_kept(facts)
    if facts.problem:
        return UNKNOWN, facts.problem
    if facts.kept is not False:
        return UNKNOWN, f"{facts.unseen or 'who keeps its flock cannot be seen'}, so somebody may hold it"
    left = "nobody keeps its flock"
    if facts.empty:
        return ORPHAN_FILE, f"the file is left over: it is empty and {left}"
    if facts.lock_id is None:
        return UNKNOWN, f"{left}, but its content is no whole record of a holder"
    if facts.host == OTHER:
        return HELD_LIVE_FOREIGN, f"{_holder(facts)} took it on another host, and only there it can be told if it lives"
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
    pids = _pids(facts.keepers)
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


def _judge_redis(facts: Facts) -> Tuple[str, str]:
    if facts.problem:
        return UNKNOWN, facts.problem
    if facts.lock_id is None:
        return UNKNOWN, "the value of the key is no record of a holder"
    if facts.host == SIMILAR:
        return HELD_LIVE_FOREIGN, (
            f"{_holder(facts)} may be on this host under another name or on another host, and may live"
        )
    if facts.host != SAME:
        return HELD_LIVE_FOREIGN, f"{_holder(facts)} is on another host, and only there it can be told if it lives"
    if facts.process == DEAD:
        return STALE_DEAD, f"{_holder(facts)} {_is_gone(facts)}, and the key blocks everybody {_until(facts)}"
    if facts.process != ALIVE:
        return UNKNOWN, f"it cannot be told whether {_holder(facts)} lives{_because(facts)}"
    return HELD_LIVE, f"{_holder(facts)} lives{_because(facts)}"


def _holder(facts: Facts) -> str:
    return f"process {facts.lock_id.pid} of {facts.lock_id.host}" if facts.lock_id else "its holder"


def _is_gone(facts: Facts) -> str:
    return f"is gone{_because(facts)}"


def _because(facts: Facts) -> str:
    return f" ({facts.process_detail})" if facts.process_detail else ""


def _until(facts: Facts) -> str:
    return "for ever" if facts.ttl is None else f"for another {facts.ttl:.0f} s"


def _pids(pids: Sequence[int]) -> str:
    named = ", ".join(str(pid) for pid in pids[:10])
    return f"process {named}" if len(pids) == 1 else f"each of the processes {named}"


def compare_hosts(recorded: str, local: str) -> str:
    """Whether two names mean the same host: ``same``, ``similar`` (one is the other without its domain) or ``other``.

    The service records the host name as it is, so only equal names are the same for certain.
    """
    left, right = recorded.strip().rstrip(".").lower(), local.strip().rstrip(".").lower()
    if left == right:
        return SAME
    if left.split(".")[0] == right.split(".")[0] and "." not in min(left, right, key=len):
        return SIMILAR
    return OTHER


def inspect(
    config: Union[TrainingConfig, str],
    service_path: str,
    backend: str = AUTO,
    path: Optional[str] = None,
    redis_url: Optional[str] = None,
    now: Optional[float] = None,
    assume_gone: Collection[int] = (),
    timeout: float = 5.0,
) -> LockState:
    """The training lock of a config; of several, the one that stands most in the way. See ``inspect_all``."""
    return inspect_all(config, service_path, backend, path, redis_url, now, assume_gone, timeout).lock


def inspect_all(
    config: Union[TrainingConfig, str],
    service_path: str,
    backend: str = AUTO,
    path: Optional[str] = None,
    redis_url: Optional[str] = None,
    now: Optional[float] = None,
    assume_gone: Collection[int] = (),
    timeout: float = 5.0,
) -> LockReport:
    """Look at the training lock of a config in each place where it may be, and change nothing.

    :param backend: ``file``, ``redis``, or ``auto`` for the file, and Redis besides where ``redis_url`` is given
    :param path: another lock file than the service's
    :param assume_gone: processes of this node to be taken for dead, to predict what stopping them leaves
    :param timeout: seconds for all of the conversation with Redis
    :raises RecoveryError: could not look; with ``auto``, a Redis that does not answer is an ``unknown`` lock instead
    """
    name = config.name if isinstance(config, TrainingConfig) else config
    moment = time.time() if now is None else now
    gone = frozenset(assume_gone)
    locks = []
    if backend in (AUTO, FILE):
        lock = _inspect_file(name, path or _lock_file.lock_path(service_path, name), moment, gone)
        if lock.verdict == FREE and not path and not os.path.isdir(os.path.expanduser(service_path)):
            lock = replace(lock, reason=f"{lock.reason}, but then service_path {service_path} is no directory")
        locks.append(lock)
    if backend == REDIS or (backend == AUTO and redis_url):
        if not redis_url:
            raise RecoveryError("redis_url is missing; with backend=redis give redis://[:PASSWORD@]HOST:PORT/DB.")
        locks.append(_inspect_redis(name, parse_redis_url(redis_url), moment, gone, timeout, strict=backend == REDIS))
    if not locks:
        raise RecoveryError(f"backend is {backend!r}, which is none of {', '.join(BACKENDS)}.")
    return LockReport(tuple(locks))


def refusal(report: LockReport, expect_holder: Optional[str] = None, force: bool = False) -> Optional[str]:
    """Why these locks may not be released, or None where they may.

    What is releasable by its verdict needs no permission. Anything else needs both ``force`` and, as ``expect_holder``,
    the token of just that holder, so that nobody breaks a lock without having looked at it. Without ``force``,
    ``expect_holder`` is an expectation: where no lock has that holder, the picture has changed and nothing is released.
    With it, it is a permission for one holder, so that one command can go to many nodes.
    """
    if not report.taken:
        return None
    if expect_holder and not force and expect_holder not in [lock.token for lock in report.taken]:
        return _unexpected(report.lock, expect_holder)
    for lock in report.taken:
        if not lock.releasable and not (force and lock.token is not None and lock.token == expect_holder):
            if expect_holder and lock.token not in (None, expect_holder):
                return _unexpected(lock, expect_holder)
            what = f"Lock {lock.name} ({lock.place}) is {lock.verdict}: {lock.reason}."
            return f"{what} {_who(lock)}Not released. {_way(lock)}"
    return None


def release(lock: LockState, force: bool = False, timeout: float = 5.0) -> Optional[str]:
    """Release a lock if it still is what was observed; ask ``refusal`` first.

    :param force: break it also while somebody keeps it; without effect on a lock that is releasable by its verdict
    :returns: None when it was released, otherwise what has changed meanwhile; then nothing was touched
    :raises RecoveryError: could not act
    """
    if isinstance(lock.seen, LockFile):
        return _lock_file.release(lock.seen, forced=force and not lock.releasable)
    if isinstance(lock.seen, RedisLock) and lock.address is not None and lock.seen.value is not None:
        same = _lock_redis.compare_and_delete(lock.address, lock.seen.key, lock.seen.value, timeout)
        return None if same else "the key is gone or has another holder"
    raise RecoveryError(f"Lock {lock.name} ({lock.place}) was not seen whole, so it cannot be released; look again.")


def released(report: LockReport) -> LockReport:
    """What the report says after all of its locks have been released."""
    verdict, reason = judge(Facts(backend=FILE, exists=False, now=0.0))
    free = {"held": False, "holder": None, "verdict": verdict, "reason": reason, "record": (), "seen": None}
    return LockReport(tuple(replace(lock, **free) for lock in report.locks))


def _unexpected(lock: LockState, expected: str) -> str:
    found = f"is recorded for {lock.token}" if lock.token else "names no holder"
    what = f"Lock {lock.name} ({lock.place}) is {lock.verdict} and {found}, not for the expected {expected}"
    return f"{what}; nothing was released. Look at who holds it now, and give that token if it still is to go."


def _who(lock: LockState) -> str:
    holder = lock.holder
    if holder is None:
        return ""
    age = "" if holder.age is None else f", taken {holder.age:.0f} s ago"
    return f"Holder: host {holder.host}, pid {holder.pid}{age}. "


def _way(lock: LockState) -> str:
    if lock.verdict == ORPHAN_FD or (lock.verdict == HELD_LIVE and lock.backend == FILE):
        way = f"Stop {_pids(lock.holder.holders)} first" if lock.holder else "Stop training first"
    elif lock.verdict == HELD_LIVE:
        way = "Stop training first"
    elif lock.verdict == HELD_LIVE_FOREIGN and lock.holder:
        way = f"Ask on host {lock.holder.host}"
    elif lock.backend == REDIS and lock.held is None:
        way = "Bring Redis back, or leave it aside with backend=file where the service does not use it"
    else:
        way = "Look at it on the node, with become: true where processes of other users are in the way"
    if lock.token is None:
        return f"{way}; it names no holder, so it cannot be forced."
    return f"{way}, or break it all the same with -e expect_holder={lock.token} -e force=true"


def _inspect_file(name: str, path: str, now: float, gone: Collection[int]) -> LockState:
    seen = _lock_file.observe(os.path.abspath(os.path.expanduser(path)))
    keepers = tuple(pid for pid in seen.keepers if pid not in gone)
    lock_id = seen.record.lock_id
    facts = Facts(
        backend=FILE,
        exists=seen.exists,
        now=now,
        problem=seen.problem,
        empty=seen.record.state == _lock_file.EMPTY,
        lock_id=lock_id,
        has_open=bool(lock_id and lock_id.pid in seen.openers),
        acquired_at=seen.record.acquired_at,
        lifetime=seen.record.lifetime,
        boot_time=boot_time() if seen.exists else None,
        keepers=keepers,
        kept=False if seen.kept and not keepers else seen.kept,
        unseen=seen.unseen,
    )
    if lock_id is not None:
        # On a file system of its own, a host that was renamed is still the one that wrote the file.
        host = compare_hosts(lock_id.host, hostname())
        facts = replace(facts, host=SAME if host == SIMILAR else host)
    if lock_id is not None and facts.host == SAME:
        facts = _with_process(facts, lock_id.pid, gone, among=keepers)
    verdict, reason = judge(facts)
    held = None if facts.kept is None or verdict in (UNKNOWN, HELD_LIVE_FOREIGN) else bool(keepers)
    return LockState(
        name=f"training:{name}",
        backend=FILE,
        path=seen.path,
        key=None,
        server=None,
        held=held,
        holder=_describe(facts, verdict),
        verdict=verdict,
        reason=reason,
        record=seen.record.lines,
        seen=seen,
    )


def _inspect_redis(
    name: str, address: RedisAddress, now: float, gone: Collection[int], timeout: float, strict: bool
) -> LockState:
    key = _lock_redis.lock_key(name)
    held: Optional[bool] = None
    try:
        seen = _lock_redis.observe(address, key, timeout)
        held = seen.exists
    except RedisUnreachable as exc:
        if strict:
            raise
        seen = RedisLock(key, address.place, problem=str(exc).rstrip("."))
    text = "" if seen.value is None else seen.value[: _lock_file.MAX_RECORD].decode("utf-8", "replace")
    lock_id = _lock_file.parse_lock_id(text)
    facts = Facts(backend=REDIS, exists=seen.exists, now=now, problem=seen.problem, lock_id=lock_id, ttl=seen.ttl)
    if lock_id is not None:
        host = compare_hosts(lock_id.host, hostname())
        facts = replace(facts, host=OTHER if lock_id.host.lower() in NAMELESS else host)
    if lock_id is not None and facts.host == SAME:
        facts = _with_process(facts, lock_id.pid, gone, among=None)
    verdict, reason = judge(facts)
    return LockState(
        name=f"training:{name}",
        backend=REDIS,
        path=None,
        key=key,
        server=address.place,
        held=held,
        holder=_describe(facts, verdict),
        verdict=verdict,
        reason=reason,
        record=_lock_file.parse_record(text.encode()).lines,
        seen=seen,
        address=address,
    )


def _describe(facts: Facts, verdict: str) -> Optional[Holder]:
    if facts.lock_id is None and not facts.keepers:
        return None
    alive: Optional[bool] = {ALIVE: True, DEAD: False}.get(facts.process or "")
    if facts.lock_id is None:
        alive = True
    elif verdict in (STALE_PID_REUSED, STALE_PRIOR_BOOT, ORPHAN_FD):
        alive = False
    age = None if facts.acquired_at is None else facts.now - facts.acquired_at
    left = facts.ttl
    if facts.backend == FILE and age is not None and facts.lifetime is not None:
        left = facts.lifetime - age
    return Holder(
        host=facts.lock_id.host if facts.lock_id else hostname(),
        pid=facts.lock_id.pid if facts.lock_id else facts.keepers[0],
        token=facts.lock_id.token if facts.lock_id else None,
        acquired_at=facts.acquired_at,
        ttl=facts.lifetime if facts.backend == FILE else facts.ttl,
        age=age,
        expires_in=left,
        alive=alive,
        holders=facts.keepers,
    )


def _with_process(facts: Facts, pid: int, gone: Collection[int], among: Optional[Sequence[int]]) -> Facts:
    """Add what is known of the recorded process.

    :param among: processes of which one may be the recorded one, by the number that it has inside a container; None
        for all
    """
    if pid in gone:
        return replace(facts, process=DEAD, process_detail="it is taken for stopped")
    process, detail, start = _process(pid, facts.now)
    if process == DEAD:
        # A container on this node may share the host name and count its processes from 1.
        inner = _inside_container(pid, list_pids() if among is None else among)
        if inner is not None:
            detail = f"process {inner} has that number inside a container"
            process = None if among is None else ALIVE
    return replace(facts, process=process, process_detail=detail, process_start=start)


def _process(pid: int, now: float) -> Tuple[Optional[str], str, Optional[float]]:
    """Whether a process of this node lives, something to know it by, and when it was started."""
    if not _exists(pid):
        return DEAD, "", None
    owner = _status(pid).get("Tgid", str(pid))
    if owner != str(pid):
        return DEAD, f"its number now belongs to a thread of process {owner}", None
    process = read_stat(pid)
    if process is None:
        # It went just now, or /proc hides it from this user.
        return (ALIVE, "", None) if _exists(pid) else (DEAD, "", None)
    if process.state in ENDED and not has_live_threads(pid):
        return DEAD, "it is a zombie, which holds nothing", None
    name = "".join(char if char.isprintable() else " " for char in process.comm[:32])
    return ALIVE, f"{name}, for {max(0.0, now - process.start_time):.0f} s", process.start_time


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _inside_container(pid: int, candidates: Collection[int]) -> Optional[int]:
    """The one of ``candidates`` that has this number in a PID namespace further in."""
    for candidate in candidates:
        if str(pid) in _status(candidate).get("NSpid", "").split()[1:]:
            return candidate
    return None


def _status(pid: int) -> Dict[str, str]:
    """``/proc/<pid>/status``; unlike the command line it can be read of a process that hangs in the kernel."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            pairs = [line.partition(":") for line in stream]
    except OSError:
        return {}
    return {name: value.strip() for name, _colon, value in pairs}

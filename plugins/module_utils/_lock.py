# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds a training lock, whether that holder lives, and whether the lock may be released.

Observing (``_lock_file``, ``_lock_redis``, ``_lock_api``, ``_lock_holder``), judging (``_lock_verdict``, a pure
function from facts to a verdict) and releasing are three steps. Whether a lock may be released follows from the verdict
alone, by the table ``RELEASABLE``. This util is private to the collection.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Collection, Dict, List, Optional, Sequence, Tuple, Union

from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_file, _lock_holder
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import LockFile
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_holder import (
    ALIVE,
    DEAD,
    NAMELESS,
    OTHER,
    SAME,
    SIMILAR,
    Answer,
    Family,
    compare_hosts,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_verdict import (
    API,
    FILE,
    FREE,
    HELD_LIVE,
    HELD_LIVE_FOREIGN,
    ORPHAN_FD,
    REDIS,
    RELEASABLE,
    STALE_DEAD,
    STALE_PID_REUSED,
    STALE_PRIOR_BOOT,
    UNKNOWN,
    VERDICTS,
    Facts,
    judge,
    name_pids,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import boot_time, hostname

if TYPE_CHECKING:
    from ansible_collections.ringrift.recovery.plugins.module_utils._lock_api import ApiLock, Service
    from ansible_collections.ringrift.recovery.plugins.module_utils._lock_redis import RedisLock
    from ansible_collections.ringrift.recovery.plugins.module_utils._redis import RedisAddress

AUTO = "auto"
BACKENDS = (AUTO, FILE, REDIS, API)

# Findings about all the places together.
SPLIT_BRAIN = "split_brain"
OTHER_BACKEND = "other_backend"
API_UNUSABLE = "api_unusable"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as far as it can be told. Times are unix seconds and seconds.

    ``family`` are the processes of this host that really hold it, whether they are recorded or not.
    """

    host: Optional[str]
    pid: Optional[int]
    token: Optional[str]
    acquired_at: Optional[float]
    ttl: Optional[float]
    age: Optional[float]
    expires_in: Optional[float]
    alive: Optional[bool]
    holders: Tuple[int, ...]
    min_age: Optional[float] = None
    host_match: Optional[str] = None
    family: Family = Family()

    def as_dict(self) -> Dict[str, Any]:
        told = asdict(self)
        told.update((name, list(group)) for name, group in told.pop("family").items())
        return {**told, "holders": list(self.holders)}


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
    seen: Union[LockFile, RedisLock, ApiLock, None] = None
    address: Optional[RedisAddress] = None
    service: Optional[Service] = None

    @property
    def releasable(self) -> bool:
        return RELEASABLE[self.verdict]

    @property
    def token(self) -> Optional[str]:
        return self.holder.token if self.holder else None

    @property
    def place(self) -> str:
        """Where the lock is, for messages."""
        if self.backend == API:
            return f"the API of {self.service.root if self.service else 'the service'}"
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
class Chosen:
    """Which backend the service itself uses, as far as it is known, and from what that follows."""

    backend: str
    reason: str

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LockReport:
    """The lock of a config in every place that was looked into."""

    locks: Tuple[LockState, ...]
    chosen: Optional[Chosen] = None
    api_problem: Optional[str] = None
    node: Dict[str, Any] = field(default_factory=_lock_holder.node)

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
        return len(self._apart) > 1

    @property
    def _apart(self) -> List[LockState]:
        """The held locks, without one that the API only tells once more."""
        held = [lock for lock in self.locks if lock.held is True]
        tokens = [lock.token for lock in held if lock.backend != API]
        return [lock for lock in held if lock.backend != API or lock.token not in tokens]

    @property
    def findings(self) -> Tuple[Dict[str, str], ...]:
        """What is wrong with the places taken together."""
        found = []
        if self.split_brain:
            places = " and in ".join(f"{lock.place} by {lock.token or 'nobody that is named'}" for lock in self._apart)
            found.append((SPLIT_BRAIN, f"It is held in {places} at once, so two trainers may each believe it theirs."))
        chosen = self.chosen.backend if self.chosen else None
        others = [lock for lock in self.taken if lock.verdict != UNKNOWN and chosen not in (None, API, lock.backend)]
        for lock in () if self.split_brain else others:
            message = f"There is a lock in {lock.place}, but the service uses {chosen} and does not look there."
            found.append((OTHER_BACKEND, message))
        if self.api_problem:
            found.append((API_UNUSABLE, self.api_problem))
        return tuple({"code": code, "message": message} for code, message in found)

    def as_dict(self) -> Dict[str, Any]:
        return {
            "lock": self.lock.as_dict(),
            "locks": [lock.as_dict() for lock in self.locks],
            "split_brain": self.split_brain,
            "record": {lock.backend: list(lock.record) or None for lock in self.locks},
            "chosen": self.chosen.as_dict() if self.chosen else None,
            "findings": list(self.findings),
            "node": self.node,
        }


@dataclass(frozen=True)
class Look:
    """What holds for every place that is looked into."""

    name: str
    now: float
    gone: Collection[int]
    timeout: float
    answers: Tuple[Answer, ...]


def inspect(config: Union[TrainingConfig, str], service_path: str, **options: Any) -> LockState:
    """The training lock of a config; of several, the one that stands most in the way. See ``inspect_all``."""
    return inspect_all(config, service_path, **options).lock


def inspect_all(
    config: Union[TrainingConfig, str],
    service_path: str,
    backend: str = AUTO,
    path: Optional[str] = None,
    redis_url: Optional[str] = None,
    now: Optional[float] = None,
    assume_gone: Collection[int] = (),
    timeout: float = 5.0,
    service: Optional[Service] = None,
    answers: Sequence[Answer] = (),
) -> LockReport:
    """Look at the training lock of a config in each place where it may be, and change nothing.

    :param backend: ``file``, ``redis``, ``api`` for what the service's API selects, or ``auto`` for all that are known:
        the file, Redis where ``redis_url`` is given or the API selects it, and the API's lock where nothing else tells
    :param path: another lock file than the service's
    :param assume_gone: processes of this node to be taken for dead, to predict what stopping them leaves
    :param timeout: seconds for all of the conversation with Redis
    :param service: how to ask the service's API; None to leave it alone
    :param answers: what other hosts say of holders that are recorded for them
    :raises RecoveryError: could not look; with ``auto``, a Redis that does not answer is an ``unknown`` lock instead
    """
    config_name = config.name if isinstance(config, TrainingConfig) else config
    if backend not in BACKENDS:
        raise RecoveryError(f"backend is {backend!r}, which is none of {', '.join(BACKENDS)}.")
    if backend == REDIS and not redis_url:
        raise RecoveryError("redis_url is missing; with backend=redis give redis://[:PASSWORD@]HOST:PORT/DB.")
    if backend == API and service is None:
        raise RecoveryError("backend is 'api', but the service's API may not be asked; give python.")
    moment = time.time() if now is None else now
    look = Look(f"training:{config_name}", moment, frozenset(assume_gone), timeout, tuple(answers))
    api, problem = None, None
    if service is not None and (backend == API or (backend == AUTO and not path)):
        api, problem = _ask_api(service, look, config_name, strict=backend == API)
    selected = None if api is None else _selected(api)
    locks = []
    if backend in (AUTO, FILE) or (backend == API and selected == FILE):
        own = api.path if api is not None else None
        lock = _inspect_file(look, path or own or _lock_file.lock_path(service_path, config_name))
        if lock.verdict == FREE and not path and not os.path.isdir(os.path.expanduser(service_path)):
            lock = replace(lock, reason=f"{lock.reason}, but then service_path {service_path} is no directory")
        locks.append(lock)
    url = redis_url or (api.redis_url if api is not None and selected == REDIS else None)
    if url and (backend in (AUTO, REDIS) or selected == REDIS):
        # Imported where it is needed: on a node everything is compiled anew at every look.
        from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_redis
        from ansible_collections.ringrift.recovery.plugins.module_utils._redis import parse_redis_url

        key = api.key if api is not None and api.key else _lock_redis.lock_key(config_name)
        locks.append(_inspect_redis(look, parse_redis_url(url), key, strict=backend == REDIS))
    if api is not None and selected not in (FILE, REDIS):
        locks.append(_inspect_api(look, service, api))
    if not locks:
        raise RecoveryError(f"The service's API selects {selected} but does not say where; give redis_url.")
    return LockReport(tuple(locks), _choose(backend, selected, api, problem, locks), _finding(problem))


def _ask_api(
    service: Service, look: Look, config_name: str, strict: bool
) -> Tuple[Optional[ApiLock], Optional[RecoveryError]]:
    """What the API says, or why it cannot be asked."""
    # Imported where it is needed: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_api

    if not strict:
        missing = _lock_api.unavailable(service)
        if missing:
            return None, RecoveryError(missing)
    try:
        return _lock_api.ask(service, look.name, config_name), None
    except _lock_api.ApiUnusable as exc:
        if strict:
            raise
        return None, exc


def _finding(problem: Optional[RecoveryError]) -> Optional[str]:
    """An API that is there and does not work is a finding; one that is not there is none."""
    if problem is None:
        return None
    # Imported where it is needed: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils._lock_api import ApiUnusable

    return str(problem) if isinstance(problem, ApiUnusable) else None


def _selected(api: ApiLock) -> Optional[str]:
    """Where the service keeps its locks, as its API tells."""
    # Imported where it is needed: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils._lock_api import RUNBOOK

    return API if api.shape == RUNBOOK else api.backend


def _choose(
    backend: str,
    selected: Optional[str],
    api: Optional[ApiLock],
    problem: Optional[RecoveryError],
    locks: Sequence[LockState],
) -> Chosen:
    """Which backend the service uses, and why that is believed."""
    if backend in (FILE, REDIS):
        return Chosen(backend, f"backend={backend} was given")
    if api is not None and selected is not None:
        which = "training_lock() has get_holder() and force_release()" if selected == API else f"it selects {selected}"
        whole = ", and takes no config: it is one lock for all of them" if api.whole_service else ""
        return Chosen(selected, f"the service's own API was asked: {which}{whole}")
    unasked = f"the service's API was not asked ({str(problem).rstrip('.')})" if problem else "the API was not asked"
    redis = next((lock for lock in locks if lock.backend == REDIS), None)
    if redis is None:
        return Chosen(FILE, f"{unasked}, and no redis_url is given")
    if redis.held is None:
        return Chosen(FILE, f"{unasked}; Redis does not answer from here, and then the service takes the file")
    return Chosen(REDIS, f"{unasked}; Redis answers, and then the service takes it")


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
    # Imported where it is needed: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_api, _lock_redis

    if isinstance(lock.seen, _lock_api.ApiLock) and lock.service is not None and lock.seen.holder is not None:
        return _lock_api.force_release(lock.service, lock.name, lock.name.partition(":")[2], lock.seen)
    if isinstance(lock.seen, _lock_redis.RedisLock) and lock.address is not None and lock.seen.value is not None:
        same = _lock_redis.compare_and_delete(lock.address, lock.seen.key, lock.seen.value, timeout)
        return None if same else "the key is gone or has another holder"
    raise RecoveryError(f"Lock {lock.name} ({lock.place}) was not seen whole, so it cannot be released; look again.")


def released(report: LockReport) -> LockReport:
    """What the report says after all of its locks have been released."""
    verdict, reason = judge(Facts(backend=FILE, exists=False, now=0.0))
    free = (
        replace(lock, held=False, holder=None, verdict=verdict, reason=reason, record=(), seen=None)
        for lock in report.locks
    )
    return replace(report, locks=tuple(free))


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
        way = f"Stop {name_pids(lock.holder.holders)} first" if lock.holder else "Stop training first"
    elif lock.verdict == HELD_LIVE:
        way = "Stop training first"
    elif lock.verdict == HELD_LIVE_FOREIGN and lock.holder:
        way = f"Ask on host {lock.holder.host}"
    elif lock.backend == REDIS and getattr(lock.seen, "replica", False):
        way = "Give the address of its master"
    elif lock.backend == REDIS and lock.held is None:
        way = "Bring Redis back, or leave it aside with backend=file where the service does not use it"
    else:
        way = "Look at it on the node, with become: true where processes of other users are in the way"
    if lock.token is None:
        return f"{way}; it names no holder, so it cannot be forced."
    return f"{way}, or break it all the same with -e expect_holder={lock.token} -e force=true"


def _inspect_file(look: Look, path: str) -> LockState:
    seen = _lock_file.observe(os.path.abspath(os.path.expanduser(path)))
    keepers = tuple(pid for pid in seen.keepers if pid not in look.gone)
    lock_id = seen.record.lock_id
    facts = Facts(
        backend=FILE,
        exists=seen.exists,
        now=look.now,
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
    facts = _with_holder(facts, look, among=keepers)
    verdict, reason = judge(facts)
    held = None if facts.kept is None or verdict in (UNKNOWN, HELD_LIVE_FOREIGN) else bool(keepers)
    return LockState(
        name=look.name,
        backend=FILE,
        path=seen.path,
        key=None,
        server=None,
        held=held,
        holder=_describe(facts, verdict, look.gone),
        verdict=verdict,
        reason=reason,
        record=seen.record.lines,
        seen=seen,
    )


def _inspect_redis(look: Look, address: RedisAddress, key: str, strict: bool) -> LockState:
    # Imported where it is needed: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_redis
    from ansible_collections.ringrift.recovery.plugins.module_utils._redis import RedisUnreachable

    held: Optional[bool] = None
    try:
        seen = _lock_redis.observe(address, key, look.timeout)
        held = None if seen.replica else seen.exists
    except RedisUnreachable as exc:
        if strict:
            raise
        seen = _lock_redis.RedisLock(key, address.place, problem=str(exc).rstrip("."))
    text = "" if seen.value is None else seen.value[: _lock_file.MAX_RECORD].decode("utf-8", "replace")
    facts = Facts(
        backend=REDIS,
        exists=seen.exists,
        now=look.now,
        problem=seen.problem,
        lock_id=_lock_file.parse_lock_id(text),
        ttl=seen.ttl,
        boot_time=boot_time() if seen.exists else None,
        taken_before=None if seen.min_age is None else time.time() - seen.min_age,
    )
    facts = _with_holder(_with_host(facts), look, among=None)
    verdict, reason = judge(facts)
    holder = _describe(facts, verdict, look.gone)
    return LockState(
        name=look.name,
        backend=REDIS,
        path=None,
        key=key,
        server=address.place,
        held=held,
        holder=replace(holder, min_age=seen.min_age) if holder else None,
        verdict=verdict,
        reason=reason,
        record=_lock_file.parse_record(text.encode()).lines,
        seen=seen,
        address=address,
    )


def _inspect_api(look: Look, service: Optional[Service], seen: ApiLock) -> LockState:
    # Imported where it is needed: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils._lock_api import RUNBOOK

    problem = None
    if seen.shape != RUNBOOK:
        problem = f"the service keeps it in {seen.backend}, which cannot be looked at from outside of the service"
    elif seen.holder is None and seen.exists:
        problem = "is_locked() says that it is held, but get_holder() names nobody"
    facts = Facts(
        backend=API,
        exists=seen.exists,
        now=look.now,
        problem=problem,
        lock_id=seen.lock_id,
        acquired_at=seen.acquired_at,
        boot_time=boot_time() if seen.exists else None,
    )
    facts = _with_holder(_with_host(facts), look, among=None)
    verdict, reason = judge(facts)
    holder = _describe(facts, verdict, look.gone)
    if holder is None and seen.token is not None:
        holder = Holder(None, None, seen.token, seen.acquired_at, None, None, None, None, ())
    return LockState(
        name=look.name,
        backend=API,
        path=None,
        key=None,
        server=None,
        held=None if problem else seen.exists,
        holder=holder,
        verdict=verdict,
        reason=reason,
        record=seen.lines,
        seen=seen,
        service=service,
    )


def _with_host(facts: Facts) -> Facts:
    """Add whether the recorded host is this one, for a lock that may come from anywhere."""
    if facts.lock_id is None:
        return facts
    host = compare_hosts(facts.lock_id.host, hostname())
    return replace(facts, host=OTHER if facts.lock_id.host.lower() in NAMELESS else host)


def _with_holder(facts: Facts, look: Look, among: Optional[Sequence[int]]) -> Facts:
    """Add what is known of the recorded process, here and on the hosts that were asked."""
    lock_id = facts.lock_id
    if lock_id is None:
        return facts
    answer = _lock_holder.weigh(lock_id.token, lock_id.host, look.answers, file=facts.backend == FILE)
    facts = replace(facts, answer=answer)
    if facts.host != SAME:
        return facts
    vital = _lock_holder.vital_signs(lock_id.pid, look.now, look.gone, among)
    return replace(facts, process=vital.process, process_detail=vital.detail, process_start=vital.start)


def _describe(facts: Facts, verdict: str, gone: Collection[int] = ()) -> Optional[Holder]:
    if facts.lock_id is None and not facts.keepers:
        return None
    alive: Optional[bool] = {ALIVE: True, DEAD: False}.get(facts.process or "")
    if facts.lock_id is None:
        alive = True
    elif verdict in (STALE_DEAD, STALE_PID_REUSED, STALE_PRIOR_BOOT, ORPHAN_FD) or _said_gone(facts, verdict):
        alive = False
    age = None if facts.acquired_at is None else facts.now - facts.acquired_at
    left = facts.ttl
    if facts.backend == FILE and age is not None and facts.lifetime is not None:
        left = facts.lifetime - age
    recorded = (facts.lock_id.pid,) if facts.lock_id and verdict == HELD_LIVE else ()
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
        host_match=facts.host,
        family=_lock_holder.family(facts.keepers or recorded, gone),
    )


def _said_gone(facts: Facts, verdict: str) -> bool:
    return facts.answer is not None and RELEASABLE[verdict]

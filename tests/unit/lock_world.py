# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A world of real processes that take, renew, inherit, lose and release a training lock, and a rule that cleans up.

An interleaving is a short random schedule, which follows from a seed and a number. Its steps are done by processes that
take the lock with the service's own code (``lab/service``), on a real file or in a real Redis, while a rule releases
locks before, after or during them, from a process of its own. What is true is kept by the world itself: which processes
share a lock that was granted, and who removed which file. After every step the kernel is asked whether that is right.

Worlds are processes that import nothing but the standard library, and stand in a PID namespace of their own where that
is allowed: there a number can really be used again. ``python tests/unit/lock_world.py --help`` repeats interleavings.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import gc
import io
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CONFIG = "hex8_2p"
NAME = f"training:{CONFIG}"
EXPIRE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], 1)"
KEY = f"lock:{NAME}"
LIFETIME = 3600

FILE = "file"
REDIS = "redis"
BACKENDS = (FILE, REDIS)

OURS = "ours"
CLEANUP = "cleanup"
TAKEOVER = "takeover"
PID_EXISTS = "pid_exists"
OLDER = "older"
RULES = {
    OURS: "ours",
    CLEANUP: "the service's `cleanup_stale_locks()`",
    TAKEOVER: "the service's acquire and release",
    PID_EXISTS: "pid exists",
    OLDER: "older than 30 min",
}
OLD = 1800

# At most 16, for each has a database of its own in Redis. They mostly wait for something.
WORLDS = 10
DIRECTING = threading.Lock()

# Whoever has not answered by then is stuck; it is killed and reported.
DEADLINE = 15.0
# A process of another host has a number that no process of this one has.
FAR_AWAY = "far-away:9999999"

# The first slot of those that take the lock while something else happens.
RIVAL = 10

AFTER = "after"
RACE = "race"

# How often each thing happens.
OPS = {
    "acquire": 6,
    "heartbeat": 2,
    "kill": 5,
    "zombie": 2,
    "fork": 4,
    "kill_child": 2,
    "expire": 4,
    "release": 2,
    "drop": 2,
    "reuse": 3,
    "reboot": 1,
    "torn": 2,
}
# While these happen somebody else may take the lock.
RIVALLED = ("acquire", "heartbeat", "kill", "zombie", "fork", "kill_child", "release", "drop")
# Where a process of the service may be interrupted, and where the rule may; where it matters most, twice as often.
POINTS = ("opened", "locked", "truncated", "unlink", "unlink")
RULE_POINTS = {
    FILE: ("decided", "opened", "locked", "truncated", "unlink", "unlink"),
    REDIS: ("asked", "asked", "decided", "unlink"),
}
PAUSES = (0.0005, 0.005, 0.015, 0.03)


# Redis counts how long a key has been left alone; this makes it longer.
SET_IDLE = """
local value, left = redis.call('dump', KEYS[1]), redis.call('pttl', KEYS[1])
if redis.call('get', KEYS[1]) == ARGV[2] then
  redis.call('restore', KEYS[1], math.max(left, 0), value, 'REPLACE', 'IDLETIME', ARGV[1])
end
"""


class Step(NamedTuple):
    """One thing that happens. Whatever does not apply becomes the nearest thing that does.

    ``rule`` says whether the rule runs afterwards or meanwhile; ``delay`` and ``rule_delay`` shift the two, and with
    ``rival`` somebody else tries to take the lock meanwhile, so many seconds after the beginning.
    """

    op: str
    who: int
    rule: str = ""
    rules: int = 1
    delay: float = 0.0
    rule_delay: float = 0.0
    pause: Tuple[str, float] = ("", 0.0)
    rule_pause: Tuple[str, float] = ("", 0.0)
    lifetime: int = LIFETIME
    seconds: int = 0
    foreign: bool = False
    chance: float = 0.0
    rival: float = -1.0


def schedule(seed: int, backend: str, number: int) -> List[Step]:
    """The steps of an interleaving; nothing else than the arguments decides them."""
    rng = random.Random(f"{seed}/{backend}/{number}")
    slots, ops, weights = rng.randint(2, 4), list(OPS), list(OPS.values())
    steps = []
    for position in range(rng.randint(6, 12)):
        when = rng.choices(["", AFTER, RACE], [35, 25, 40])[0] if position else rng.choices(["", RACE], [9, 1])[0]
        delays = [rng.uniform(0, rng.choice([0.004, 0.03])), 0.0]
        rng.shuffle(delays)
        steps.append(
            Step(
                op=rng.choices(ops, weights)[0] if position else "acquire",
                who=rng.randrange(slots),
                rule=when,
                rules=1 + (when == RACE and rng.random() < 0.25),
                delay=delays[0] if when == RACE else 0.0,
                rule_delay=delays[1] if when == RACE else 0.0,
                pause=(rng.choice(POINTS), rng.choice(PAUSES)) if rng.random() < 0.4 else ("", 0.0),
                rule_pause=(rng.choice(RULE_POINTS[backend]), rng.choice(PAUSES)) if rng.random() < 0.4 else ("", 0.0),
                # A lifetime of 0 has expired at once, without a look at any clock.
                lifetime=LIFETIME if backend == REDIS else rng.choice([LIFETIME] * 3 + [0]),
                seconds=rng.choice([10, 2000, 4000, 100_000, 10_000_000]),
                foreign=rng.random() < 0.08,
                chance=rng.random(),
                rival=rng.uniform(0, 0.02) if when == RACE and rng.random() < 0.3 else -1.0,
            )
        )
    return steps


class Grant:
    """A lock that a process was told it has, and the processes that have it.

    On a file those that share the open file; in Redis the one that believes in it. ``lost`` is who took it from them.
    """

    def __init__(self, token: str, pid: int, handle: Optional[int]) -> None:
        self.token = token
        self.handle = handle
        self.holders = {pid}
        self.lost = ""
        self.doubled = False


class Actor:
    """A process of the service, as the world sees it."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.line = line
        self.grant: Optional[Grant] = None


class Stuck(Exception):
    """A process did not answer in time, or the world is not as it was thought to be."""


@dataclass
class Outcome:
    """What came of one interleaving.

    ``wrong``: locks taken from a live holder by the rule; ``double``: of those, how often somebody else then held the
    lock besides; ``left``: whether a lock that the table calls releasable is left when all are dead; ``kept``: whether
    one is left of which that cannot be proved; ``blocked``: how often nobody could take the lock after its release;
    ``displaced``: locks that the service itself or their time took from a live holder.
    """

    number: int
    steps: int = 0
    released: int = 0
    wrong: int = 0
    double: int = 0
    left: int = 0
    kept: int = 0
    blocked: int = 0
    displaced: int = 0
    ops: Dict[str, int] = field(default_factory=dict)
    verdicts: Dict[str, int] = field(default_factory=dict)
    kept_as: str = ""
    error: str = ""
    trace: List[str] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        return bool(self.wrong or self.double or self.left or self.blocked or self.error)


@dataclass
class Tally:
    """The sum of many outcomes."""

    rule: str
    backend: str
    seed: int
    interleavings: int = 0
    steps: int = 0
    released: int = 0
    wrong: int = 0
    double: int = 0
    left: int = 0
    kept: int = 0
    blocked: int = 0
    displaced: int = 0
    seconds: float = 0.0
    ops: Dict[str, int] = field(default_factory=dict)
    verdicts: Dict[str, int] = field(default_factory=dict)
    kept_as: Dict[str, int] = field(default_factory=dict)
    failures: List[Outcome] = field(default_factory=list)
    problems: List[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.interleavings += 1
        for name in ("steps", "released", "wrong", "double", "left", "kept", "blocked", "displaced"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        for total, part in ((self.ops, outcome.ops), (self.verdicts, outcome.verdicts)):
            for name, count in part.items():
                total[name] = total.get(name, 0) + count
        if outcome.kept_as:
            self.kept_as[outcome.kept_as] = self.kept_as.get(outcome.kept_as, 0) + 1
        if outcome.error:
            self.problems.append(f"number {outcome.number}: {outcome.error}")
        if outcome.bad and len(self.failures) < 20:
            self.failures.append(outcome)

    def story(self) -> str:
        """The first failures, step by step, with the command that repeats each."""
        lines = [f"seed {self.seed}", *self.problems[:5]]
        for outcome in self.failures[:3]:
            lines.append(repeat(self.rule, self.backend, self.seed, outcome.number))
            lines.extend(f"    {line}" for line in outcome.trace)
        return "\n".join(lines)


def repeat(rule: str, backend: str, seed: int, number: int) -> str:
    """The command that repeats one interleaving; its races may need more than one run to end the same way."""
    return (
        f"python tests/unit/lock_world.py --rule {rule} --backend {backend} --seed {seed} --number {number} --times 50"
    )


class World:
    """The processes, the lock, and what is true of them."""

    def __init__(self, rule: str, backend: str, folder: pathlib.Path, redis_url: str) -> None:
        self.rule, self.backend, self.folder, self.redis_url = rule, backend, folder, redis_url
        self.path = folder / "data" / "locks" / f"training_{CONFIG}.lock"
        self.path.parent.mkdir(parents=True)
        (folder / "graves").mkdir()
        self.log = os.open(folder / "removals", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        # Every process ends when the world does, for then nobody holds the other end any more.
        self.leash, self.leash_end = os.pipe()
        ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        self.engine = _import_engine()
        self.service = _import_service(folder, redis_url)
        self.redis = self.service.redis.Redis.from_url(redis_url) if backend == REDIS else None
        gc.collect()
        gc.freeze()
        self.rules: List[Actor] = []
        self.actors: Dict[int, Actor] = {}
        self.children: Dict[int, List[int]] = {}
        self.zombies: List[int] = []
        self.grants: List[Grant] = []
        self.outcome = Outcome(-1)
        self.gone: List[Tuple[Grant, str]] = []
        self.expired: Set[str] = set()
        self.deleted: Set[str] = set()
        for number in (0, 1):
            self.rules.append(self._spawn(f"rule{number}", _obey_as_rule))

    # --- one interleaving ---

    def play(self, number: int, steps: Sequence[Step], keep: bool = False) -> Outcome:
        """Go through a schedule, kill everybody, let the rule run once more, and see what is left."""
        self.outcome = Outcome(number)
        try:
            for step in steps:
                self._step(step)
            self._kill_everybody()
            self._note("everybody is dead", self._settle([self._ask(self.rules[0], {"op": "rule"})]))
            self._take_stock()
        except Exception as problem:
            self.outcome.error = str(problem) if isinstance(problem, Stuck) else f"{problem!r} {traceback.format_exc()}"
        self._clean()
        if not self.outcome.bad and not keep:
            self.outcome.trace = []
        return self.outcome

    def _step(self, step: Step) -> None:
        self.outcome.steps += 1
        self.expired.clear()
        self.deleted.clear()
        rules = self.rules[: step.rules] if step.rule else []
        # Only the first of two is interrupted, so that the other one can do something meanwhile.
        pauses = (step.rule_pause, ("", 0.0))
        if step.rule == RACE:
            for actor, pause in zip(rules, pauses):
                self._tell(actor, {"op": "rule", "delay": step.rule_delay, "pause": pause})
            rival = self._begin_rival(step)
            time.sleep(step.delay)
        what = self._do(step)
        if step.rule == RACE and rival is not None:
            what += self._end_rival(rival)
        if step.rule == AFTER:
            self._tell(rules[0], {"op": "rule", "pause": step.rule_pause})
        replies = [self._hear(actor) for actor in rules]
        text = self._settle(replies)
        timing = f" {step.delay * 1000:.1f}/{step.rule_delay * 1000:.1f} ms" if step.rule == RACE else ""
        stops = "".join(
            f", {who} stops at {at} for {1000 * seconds:g} ms"
            for who, (at, seconds) in (("actor", step.pause), ("rule", step.rule_pause))
            if at
        )
        self._note(f"{what}{f' [rule {step.rule}{timing}{stops}]' if step.rule else ''}", text)
        if any(reply["released"] for reply in replies) and not any(self._holds(grant) for grant in self.grants):
            self._let_somebody_take_it(sequential=step.rule == AFTER)

    def _note(self, what: str, result: str) -> None:
        self.outcome.trace.append(f"{what}: {result}" if result else what)

    def _let_somebody_take_it(self, sequential: bool) -> None:
        """After a release the next one takes the lock; nobody else may hold it then."""
        slot = next(slot for slot in range(9) if slot not in self.actors or not self.actors[slot].grant)
        taken = self._acquire(slot, Step("acquire", slot))
        if sequential and not self.actors[slot].grant:
            self.outcome.blocked += 1
        self._note(f"then {taken}", self._settle([]))

    # --- what can happen ---

    def _do(self, step: Step) -> str:
        op = step.op
        if op == "torn" and self.backend == REDIS:
            op = "kill"
        holder = self._holder(step.who)
        if op == "kill_child" and not self._living_children():
            op = "kill"
        if op == "acquire" and step.who in self.actors and self.actors[step.who].grant:
            op = "heartbeat"
        if op in ("heartbeat", "kill", "zombie", "fork", "release", "drop") and holder is None:
            op = "acquire"
        self.outcome.ops[op] = self.outcome.ops.get(op, 0) + 1
        return getattr(self, f"_{op}")(step.who if holder is None or op in ("acquire", "torn") else holder, step)

    def _acquire(self, slot: int, step: Step) -> str:
        actor = self.actors.get(slot) or self._bear(slot)
        if actor.grant:
            return self._heartbeat(slot, step)
        command = {"op": "acquire", "lifetime": step.lifetime, "pause": step.pause, "foreign": step.foreign}
        reply = self._ask(actor, command)
        if reply["ok"]:
            self._grant(actor, reply)
        far = " as far-away" if step.foreign else ""
        return f"{actor.pid} acquires{far} for {step.lifetime} s: {'yes' if reply['ok'] else 'no'}"

    def _begin_rival(self, step: Step) -> Optional[int]:
        # What is written into the file by its path would overwrite what somebody else writes meanwhile.
        if step.rival < 0 or (self.backend == FILE and step.op not in RIVALLED):
            return None
        slot = next(slot for slot in range(RIVAL, 99) if slot not in self.actors or not self.actors[slot].grant)
        actor = self.actors.get(slot) or self._bear(slot)
        pause = (POINTS[int(step.chance * len(POINTS))], PAUSES[int(step.chance * 1000) % len(PAUSES)])
        command = {"op": "acquire", "lifetime": LIFETIME, "pause": pause, "foreign": False, "delay": step.rival}
        self._tell(actor, command)
        return slot

    def _end_rival(self, slot: int) -> str:
        actor = self.actors.get(slot)
        if actor is None:
            return ", and so is who was about to acquire"
        reply = self._hear(actor)
        if reply.get("ok"):
            self._grant(actor, reply)
        return f", meanwhile {actor.pid} acquires: {'yes' if reply.get('ok') else 'no'}"

    def _grant(self, actor: Actor, reply: Dict[str, Any]) -> None:
        actor.grant = Grant(reply["token"], actor.pid, reply["handle"])
        self.grants.append(actor.grant)

    def _heartbeat(self, slot: int, step: Step) -> str:
        self._ask(self.actors[slot], {"op": "heartbeat", "pause": step.pause})
        return f"{self.actors[slot].pid} beats"

    def _release(self, slot: int, step: Step) -> str:
        actor = self.actors[slot]
        # For its children too: it unlocks the open file that they share.
        grant, actor.grant = actor.grant, None
        reply = self._ask(actor, {"op": "release", "pause": step.pause})
        if reply["lost"] and not grant.lost:
            self.gone.append((grant, reply["lost"]))
        self.grants.remove(grant)
        return f"{actor.pid} releases"

    def _drop(self, slot: int, _step: Step) -> str:
        """It closes the file without a word, or forgets the key; a child that shares the file keeps the lock."""
        actor = self.actors[slot]
        grant, actor.grant = actor.grant, None
        reply = self._ask(actor, {"op": "drop"})
        grant.holders.discard(actor.pid)
        if reply["lost"] and not grant.lost and not grant.holders:
            self.gone.append((grant, reply["lost"]))
        return f"{actor.pid} drops it"

    def _fork(self, slot: int, _step: Step) -> str:
        actor = self.actors[slot]
        child = self._ask(actor, {"op": "fork"})["child"]
        self.children.setdefault(actor.pid, []).append(child)
        if actor.grant and self.backend == FILE:
            actor.grant.holders.add(child)
        return f"{actor.pid} forks {child}"

    def _kill(self, slot: int, _step: Step) -> str:
        pid = self._end(slot)
        return f"{pid} is killed"

    def _zombie(self, slot: int, _step: Step) -> str:
        pid = self._end(slot, reap=False)
        return f"{pid} is killed and stays a zombie"

    def _kill_child(self, _slot: int, step: Step) -> str:
        children = self._living_children()
        pid = children[int(step.chance * len(children))]
        self._bury_child(pid)
        return f"child {pid} is killed"

    def _torn(self, slot: int, step: Step) -> str:
        """It is killed while it takes the lock, between two of its steps."""
        slot = next(free for free in range(9) if free not in self.actors or not self.actors[free].grant)
        actor = self.actors.get(slot) or self._bear(slot)
        point = ("opened", "locked", "truncated")[int(step.chance * 3)]
        self._tell(actor, {"op": "acquire", "lifetime": LIFETIME, "pause": (point, 60.0), "foreign": False})
        # It answers only where somebody else has the lock.
        select.select([actor.line], [], [], 0.003 + step.chance * 0.01)
        self._end(slot)
        return f"{actor.pid} is killed when it has {point}"

    def _expire(self, _slot: int, step: Step) -> str:
        if self.backend == FILE:
            return self._shift(step.seconds)
        if step.seconds < 3600:
            self.redis.expire(KEY, 60)
            return f"the key is near its end, {self._shift(step.seconds)}"
        token = self._value()
        if not token:
            return "there is no key to expire"
        # Before it is gone, for the one who believes in it may be asked meanwhile.
        self.expired.add(token)
        # This key and no other: by now the rule may have deleted it, and somebody else may have taken the lock.
        self.redis.eval(EXPIRE, 1, KEY, token)
        self._wait(lambda: self._value() != token, "the key to expire")
        return "the key expires"

    def _reuse(self, slot: int, step: Step) -> str:
        """The recorded process is gone, and a new one has its number."""
        if slot in self.actors:
            self._end(slot)
        recorded = self._record()
        parts = recorded.split(":")
        if len(parts) != 3 or not parts[1].isdigit() or recorded.startswith(FAR_AWAY):
            return "nobody's number can be used again"
        pid, how = int(parts[1]), ""
        if pid in self._pids() or pid in self._living_children():
            return f"{pid} is still in use"
        if pid in self.zombies:
            self._reap(pid)
        if step.chance < 0.8:
            how = f" ({self._shift(step.seconds)})"
        slot = next(free for free in range(9) if free not in self.actors)
        actor = self._bear(slot, pid)
        if actor.pid != pid:
            # Here no number can be chosen, so the record is made to name the new one.
            renamed = f"{parts[0]}:{actor.pid}:{parts[2]}"
            self._rewrite(recorded, renamed)
            for grant in self.grants:
                grant.token = renamed if grant.token == recorded else grant.token
            how += " (by the record)"
        return f"{pid} is used again by {actor.pid}{how}"

    def _reboot(self, _slot: int, _step: Step) -> str:
        self._kill_everybody()
        self._shift(int(time.clock_gettime(time.CLOCK_BOOTTIME)) + 10)
        return "the host restarts"

    def _shift(self, seconds: int) -> str:
        """Let time pass: what is recorded becomes older."""
        if self.backend == REDIS:
            # A key whose holder lives cannot have been left alone for longer than that one lives.
            value = self._value()
            if any(f":{pid}:" in value for pid in self._pids()):
                return "time passes"
            self.redis.eval(SET_IDLE, 1, KEY, seconds, value)
            return f"{seconds} s pass"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            handle = os.open(self.path, os.O_RDWR)
            try:
                lines = os.pread(handle, 4096, 0).decode().split("\n")
                lines[1] = f"{float(lines[1]) - seconds:.7f}"
                data = "\n".join(lines).encode()
                os.pwrite(handle, data, 0)
                os.ftruncate(handle, len(data))
            finally:
                os.close(handle)
            return f"{seconds} s pass"
        return "time passes"

    def _rewrite(self, old: str, new: str) -> None:
        if self.backend == REDIS:
            if self._value() == old:
                self.redis._call("SET", KEY, new, "XX", "KEEPTTL")
            return
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self.path, os.O_RDWR)
            try:
                data = os.pread(handle, 4096, 0).decode()
                if data.startswith(old):
                    data = new + data[len(old) :]
                    os.pwrite(handle, data.encode(), 0)
                    os.ftruncate(handle, len(data))
            finally:
                os.close(handle)

    # --- what is true ---

    def _holder(self, preferred: int) -> Optional[int]:
        """The slot of an actor that has been granted the lock, rather the preferred one, rather a present one."""
        granted = [slot for slot, actor in self.actors.items() if actor.grant]
        granted.sort(key=lambda slot: (slot != preferred, bool(self.actors[slot].grant.lost)))
        return granted[0] if granted else None

    @staticmethod
    def _holds(grant: Grant) -> bool:
        return bool(grant.holders) and not grant.lost

    def _settle(self, replies: List[Dict[str, Any]]) -> str:
        """Compare what is true with what was; everything stands still now."""
        for reply in replies:
            self.outcome.released += reply["released"]
            for verdict in reply["verdicts"]:
                self.outcome.verdicts[verdict] = self.outcome.verdicts.get(verdict, 0) + 1
            self.deleted.update(reply["deleted"])
            if reply["error"]:
                raise Stuck(f"the rule failed: {reply['error']}")
        self.grants = [grant for grant in self.grants if grant.holders]
        news = [reply["said"] for reply in replies]
        for grant, culprit in self._lost():
            grant.lost = culprit
            if culprit.startswith("rule"):
                self.outcome.wrong += 1
                news.append(f"WRONG: {grant.token} was taken from its live holder {sorted(grant.holders)}")
            else:
                self.outcome.displaced += 1
                news.append(f"({grant.token} is lost by {culprit})")
        if any(self._holds(grant) for grant in self.grants):
            for grant in self.grants:
                if grant.lost.startswith("rule") and not grant.doubled:
                    grant.doubled = True
                    self.outcome.double += 1
                    news.append(f"DOUBLE: {grant.token} and another one hold it")
        if self.backend == FILE:
            self._compare_with_kernel()
        return "; ".join(news)

    def _lost(self) -> List[Tuple[Grant, str]]:
        """The grants that are no longer what others see, and who has taken them away from their holders."""
        found, self.gone = self.gone, []
        for grant in self.grants:
            sign = "" if grant.lost else self._is_lost(grant)
            if sign:
                found.append((grant, sign))
        if self.backend == REDIS:
            by_time = self.expired - self.deleted
            return [(grant, "its time" if grant.token in by_time else "rule") for grant, _sign in found]
        # The number of a file is used again only when all have closed it, so its last removal was the one.
        entries = self._removals()
        removals = {inode: who for who, inode in entries}
        if found:
            self._note("files removed so far", ", ".join(f"{inode} by {who}" for who, inode in entries[-5:]))
        return [(grant, removals.get(sign, "rule, or somebody unknown")) for grant, sign in found]

    def _is_lost(self, grant: Grant) -> str:
        """Nothing, or, where others do not see the lock that this is, the number of its file or its token."""
        if self.backend == REDIS:
            return "" if self._value() == grant.token else grant.token
        status = os.stat(f"/proc/{min(grant.holders)}/fd/{grant.handle}")
        return "" if (status.st_dev, status.st_ino) == self._place() else str(status.st_ino)

    def _compare_with_kernel(self) -> None:
        """The kernel refuses a flock exactly when the world says that somebody holds the lock."""
        held = any(self._holds(grant) for grant in self.grants)
        refused = False
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            handle = None
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                refused = True
            data = os.pread(handle, 4096, 0).decode()
            os.close(handle)
            for grant in self.grants:
                if self._holds(grant) and not data.startswith(grant.token):
                    self.outcome.wrong += 1
                    self._note("WRONG", f"the record of {grant.token} is now {data!r}")
        if refused != held:
            raise Stuck(f"held {held} by the books, {refused} by the kernel; {self.outcome.trace[-3:]}")

    def _take_stock(self) -> None:
        state = self.engine.inspect(CONFIG, str(self.folder), backend=self.backend, redis_url=self.redis_url or None)
        if state.releasable:
            self.outcome.left = 1
            self._note("LEFT", f"{state.verdict}: {state.reason}")
        elif state.verdict != self.engine.FREE:
            self.outcome.kept = 1
            self.outcome.kept_as = state.verdict

    def _removals(self) -> List[Tuple[str, str]]:
        """Who has removed which file, in order; that of one who was killed over it lies in the graves still."""
        size = os.fstat(self.log).st_size
        entries = []
        for line in os.pread(self.log, size, 0).decode().splitlines():
            who, inode = line.split()
            entries.append((who, inode))
        for grave in sorted(os.scandir(self.folder / "graves"), key=lambda entry: entry.name):
            entries.append((grave.name.split(".")[0], str(grave.inode())))
            os.unlink(grave.path)
        return entries

    def _place(self) -> Optional[Tuple[int, int]]:
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _record(self) -> str:
        if self.backend == REDIS:
            return self._value()
        try:
            return self.path.read_text().split("\n")[0]
        except FileNotFoundError:
            return ""

    def _value(self) -> str:
        return self.redis._call("GET", KEY) or ""

    # --- processes ---

    def _bear(self, slot: int, pid: int = 0) -> Actor:
        """A new process of the service, with this number if it can be had."""
        if os.getpid() != 1:
            # The numbers of the whole machine are not ours: others would be given what somebody is about to kill.
            pid = 0
        for attempt in range(3):
            if pid:
                try:
                    with open("/proc/sys/kernel/ns_last_pid", "w") as stream:
                        stream.write(str(pid - 1))
                except OSError:
                    pid = 0
            actor = self._spawn("service", _obey_as_service)
            if pid in (0, actor.pid) or attempt == 2:
                break
            self._stop(actor.pid)
            actor.line.close()
        self.actors[slot] = actor
        return actor

    def _spawn(self, who: str, obey: Callable[[World, socket.socket], None]) -> Actor:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid:
            theirs.close()
            return Actor(pid, ours)
        try:
            keep = sorted({theirs.fileno(), self.leash, self.log})
            for low, high in zip([2, *keep], [*keep, 256]):
                os.closerange(low + 1, high)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            gc.disable()
            _hook(self, who)
            obey(self, theirs)
        finally:
            os._exit(3)

    def _tell(self, actor: Actor, command: Dict[str, Any]) -> None:
        try:
            actor.line.send(json.dumps(command).encode())
        except OSError as exc:
            raise Stuck(f"process {actor.pid} is gone: {exc}") from exc

    def _hear(self, actor: Actor) -> Dict[str, Any]:
        if not select.select([actor.line], [], [], DEADLINE)[0]:
            raise Stuck(f"process {actor.pid} has not answered within {DEADLINE:g} s")
        data = actor.line.recv(1 << 16)
        if not data:
            raise Stuck(f"process {actor.pid} has ended without an answer")
        return json.loads(data)

    def _ask(self, actor: Actor, command: Dict[str, Any]) -> Dict[str, Any]:
        self._tell(actor, command)
        reply = self._hear(actor)
        if reply.get("error"):
            raise Stuck(f"process {actor.pid} failed: {reply['error']}")
        return reply

    def _pids(self) -> List[int]:
        return [actor.pid for actor in self.actors.values()]

    def _living_children(self) -> List[int]:
        return sorted({pid for pids in self.children.values() for pid in pids})

    def _end(self, slot: int, reap: bool = True) -> int:
        """Kill an actor with SIGKILL; its children live on."""
        actor = self.actors.pop(slot)
        self._leave(actor.pid)
        self._stop(actor.pid, reap)
        actor.line.close()
        return actor.pid

    def _leave(self, pid: int) -> None:
        """The last one of a grant is about to be killed: what has been taken away from it before still counts."""
        for grant in self.grants:
            sign = self._is_lost(grant) if grant.holders == {pid} and not grant.lost else ""
            if sign:
                self.gone.append((grant, sign))
            grant.holders.discard(pid)

    def _bury_child(self, pid: int) -> None:
        self._leave(pid)
        self._stop(pid)
        for pids in self.children.values():
            if pid in pids:
                pids.remove(pid)

    def _stop(self, pid: int, reap: bool = True) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if not reap:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            self.zombies.append(pid)
            return
        self._wait(lambda: self._is_gone(pid), f"process {pid} to end")

    @staticmethod
    def _is_gone(pid: int) -> bool:
        # A child of a child is reaped by its parent, or by the world once that is dead.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _reap(self, pid: int) -> None:
        self.zombies.remove(pid)
        os.waitpid(pid, 0)

    @staticmethod
    def _wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                raise Stuck(f"waited for {what} in vain")
            time.sleep(0.0003)

    def _kill_everybody(self) -> None:
        for slot in list(self.actors):
            self._end(slot)
        for pid in self._living_children():
            self._bury_child(pid)
        for pid in list(self.zombies):
            self._reap(pid)

    def _clean(self) -> None:
        """Begin anew; a rule that is stuck is replaced."""
        with contextlib.suppress(Stuck):
            self._kill_everybody()
        if self.outcome.error:
            for number, actor in enumerate(self.rules):
                self._stop(actor.pid)
                actor.line.close()
                self.rules[number] = self._spawn(f"rule{number}", _obey_as_rule)
        self.actors, self.children, self.grants, self.gone = {}, {}, [], []
        if self.backend == REDIS:
            self.redis._call("DEL", KEY)
        self._removals()
        os.ftruncate(self.log, 0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


# --- what the processes do ---


def _hook(world: World, who: str) -> None:
    """Make a process tell which file it removes, and stop where the schedule says so.

    The file is moved away first, which is one step as well; so it is known for certain which one it was.
    """
    unlink, rename, ftruncate, flock = os.unlink, os.rename, os.ftruncate, fcntl.flock
    stops: Dict[str, float] = {}
    world.stops = stops
    count = iter(range(1 << 60))

    def stop(point: str) -> None:
        if point in stops:
            time.sleep(stops.pop(point))

    def bury(path: Any, *args: Any, **kwargs: Any) -> None:
        if os.fspath(path) != str(world.path):
            unlink(path, *args, **kwargs)
            return
        stop("unlink")
        grave = f"{world.folder}/graves/{who}.{os.getpid()}.{next(count)}"
        rename(path, grave)
        os.write(world.log, f"{who} {os.stat(grave).st_ino}\n".encode())
        unlink(grave)

    def move(source: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        ours = os.fspath(source) == str(world.path)
        if ours:
            stop("unlink")
        rename(source, target, *args, **kwargs)
        if ours:
            os.write(world.log, f"{who} {os.stat(target).st_ino}\n".encode())

    def lock(handle: int, kind: int) -> None:
        if kind & fcntl.LOCK_EX:
            stop("opened")
        flock(handle, kind)
        if kind & fcntl.LOCK_EX:
            stop("locked")

    def cut(handle: int, length: int) -> None:
        ftruncate(handle, length)
        stop("truncated")

    os.unlink = os.remove = bury  # type: ignore[assignment]
    os.rename = os.replace = move  # type: ignore[assignment]
    os.ftruncate, fcntl.flock = cut, lock  # type: ignore[assignment]
    bound = getattr(pathlib, "_NormalAccessor", None)  # Up to Python 3.10 paths keep the functions of the first import.
    if bound is not None:
        bound.unlink, bound.rename, bound.replace = staticmethod(bury), staticmethod(move), staticmethod(move)


def _commands(world: World, line: socket.socket) -> Iterator[Dict[str, Any]]:
    while True:
        if world.leash in select.select([line, world.leash], [], [])[0]:
            os._exit(0)
        command = json.loads(line.recv(1 << 16))
        if command.get("delay"):
            time.sleep(command["delay"])
        world.stops.clear()
        point, seconds = command.get("pause", ("", 0.0))
        if point:
            world.stops[point] = seconds
        yield command


def _obey_as_service(world: World, line: socket.socket) -> None:
    lock: Any = None
    for command in _commands(world, line):
        reply: Dict[str, Any] = {}
        try:
            if command["op"] == "acquire":
                lock = world.service.DistributedLock(NAME, command["lifetime"], use_redis=world.backend == REDIS)
                if command["foreign"]:
                    lock._lock_id = f"{FAR_AWAY}:{lock._lock_id[-8:]}"
                ok = lock.acquire(blocking=False)
                reply = {"ok": ok, "token": lock._lock_id, "handle": lock._file_fd}
            elif command["op"] == "heartbeat":
                lock.heartbeat()
            elif command["op"] == "release":
                reply = {"lost": _has_lost(world, lock)}
                lock.release()
            elif command["op"] == "drop":
                reply = {"lost": _has_lost(world, lock)}
                if lock._file_fd is not None:
                    os.close(lock._file_fd)
                lock = None
            elif command["op"] == "fork":
                child = os.fork()
                if not child:
                    line.close()
                    os.read(world.leash, 1)
                    os._exit(0)
                reply = {"child": child}
        except Exception as exc:
            reply = {"error": repr(exc)}
        line.send(json.dumps(reply).encode())


def _has_lost(world: World, lock: Any) -> str:
    grant = Grant(lock._lock_id, os.getpid(), lock._file_fd)
    return world._is_lost(grant)


def _obey_as_rule(world: World, line: socket.socket) -> None:
    _stop_between_questions(world)
    rule = {OURS: _ours, CLEANUP: _cleanup, TAKEOVER: _takeover, PID_EXISTS: _pid_exists, OLDER: _older}[world.rule]
    for _command in _commands(world, line):
        reply = {"released": 0, "verdicts": [], "deleted": [], "said": "", "error": ""}
        try:
            rule(world, reply)
        except Exception as exc:
            reply["error"] = repr(exc)
        line.send(json.dumps(reply).encode())


def _stop_between_questions(world: World) -> None:
    from ansible_collections.ringrift.recovery.plugins.module_utils._redis import RedisClient

    command = RedisClient.command

    def slow(client: Any, *words: Any) -> Any:
        if words[0] == "GET" and "asked" in world.stops:
            time.sleep(world.stops.pop("asked"))
        return command(client, *words)

    RedisClient.command = slow  # type: ignore[method-assign]


def _ours(world: World, reply: Dict[str, Any]) -> None:
    url = world.redis_url or None
    report = world.engine.inspect_all(CONFIG, str(world.folder), backend=world.backend, redis_url=url)
    reply["verdicts"] = [report.lock.verdict]
    reply["said"] = f"ours: {report.lock.verdict}"
    if world.engine.refusal(report):
        return
    if "decided" in world.stops:
        time.sleep(world.stops.pop("decided"))
    for state in report.taken:
        changed = world.engine.release(state)
        reply["said"] += f", {changed or 'released'}"
        if changed is None:
            reply["released"] += 1
            reply["deleted"].append(state.token)


def _cleanup(world: World, reply: Dict[str, Any]) -> None:
    stats = world.service.cleanup_stale_locks(lock_dir=world.path.parent)
    reply["released"] = sum(count for name, count in stats.items() if name.startswith("removed"))
    reply["said"] = f"{stats}"


def _takeover(world: World, reply: Dict[str, Any]) -> None:
    """What the watchdog's "force release" comes to: it acquires, and releases if that succeeds."""
    there = world.path.exists() if world.backend == FILE else False
    lock = world.service.DistributedLock(NAME, LIFETIME, use_redis=world.backend == REDIS)
    if lock.acquire(blocking=False):
        lock.release()
        reply["released"] = int(there)
    reply["said"] = f"acquired: {bool(reply['released'])}"


def _pid_exists(world: World, reply: Dict[str, Any]) -> None:
    """As restic and borg do: a lock of this host whose process does not exist is stale."""

    def stale(holder: str, _age: float) -> bool:
        host, _colon, rest = holder.partition(":")
        pid = rest.partition(":")[0]
        if host != socket.gethostname() or not pid.isdigit():
            return False
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    _judge_by(world, reply, stale)


def _older(world: World, reply: Dict[str, Any]) -> None:
    _judge_by(world, reply, lambda _holder, age: age > OLD)


def _judge_by(world: World, reply: Dict[str, Any], stale: Callable[[str, float], bool]) -> None:
    if world.backend == REDIS:
        holder = world.redis._call("GET", KEY)
        left = world.redis._call("PTTL", KEY)
        if holder and stale(holder, LIFETIME - left / 1000):
            if "unlink" in world.stops:
                time.sleep(world.stops.pop("unlink"))
            # The same as DEL; it tells what was deleted.
            script = "local v = redis.call('get', KEYS[1]); redis.call('del', KEYS[1]); return v"
            deleted = world.redis.eval(script, 1, KEY)
            reply["deleted"] = [deleted] if deleted else []
            reply["released"] = len(reply["deleted"])
    else:
        try:
            holder, since = world.path.read_text().split("\n")[:2]
            if stale(holder, time.time() - float(since)):
                os.unlink(world.path)
                reply["released"] = 1
        except (FileNotFoundError, ValueError):
            pass
    reply["said"] = f"removed: {bool(reply['released'])}"


# --- worlds ---


def _import_engine() -> Any:
    sys.path.insert(0, str(ROOT / "playbooks" / "collections"))
    from ansible_collections.ringrift.recovery.plugins.module_utils import _lock

    return _lock


def _import_service(folder: pathlib.Path, redis_url: str) -> Any:
    os.environ.update(AI_SERVICE_DATA_DIR=str(folder / "data"), LAB_REDIS="1", REDIS_URL=redis_url)
    sys.path.insert(0, str(ROOT / "lab" / "service"))
    with contextlib.redirect_stdout(io.StringIO()):
        from app.coordination import distributed_lock
    return distributed_lock


def room() -> List[str]:
    """The beginning of a command that runs in a PID namespace of its own; empty where that is not allowed."""
    unshare = shutil.which("unshare")
    for more in ([], ["--user", "--map-root-user"]):
        command = [unshare or "", *more, "--pid", "--fork", "--mount-proc", "--kill-child"]
        if unshare and subprocess.run([*command, "true"], capture_output=True, timeout=20, check=False).returncode == 0:
            return command
    return []


def run(rule: str, backend: str, count: int, seed: int, redis_url: str = "", worlds: int = WORLDS) -> Tally:
    """Play the interleavings from 0 to ``count`` in several worlds at a time, one of them in no namespace."""
    tally = Tally(rule, backend, seed)
    begun, inside, numbers = time.monotonic(), room(), iter(range(count))
    with tempfile.TemporaryDirectory(prefix="ringrift-locks-") as folder:
        threads = []
        for world in range(worlds):
            what = json.dumps([rule, backend, seed, f"{folder}/{world}", f"{redis_url}/{world}"])
            # Only root can look into every process outside.
            prefix = [] if world == 1 and os.geteuid() == 0 else inside
            command = [*prefix, sys.executable, "-I", "-S", __file__, "--world", what]
            threads.append(threading.Thread(target=_direct, args=(command, numbers, tally, 60 + count * 0.5)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tally.seconds = time.monotonic() - begun
    if tally.interleavings != count:
        tally.problems.append(f"{tally.interleavings} of {count} interleavings were played")
    return tally


def _direct(command: List[str], numbers: Iterator[int], tally: Tally, seconds: float) -> None:
    """Give numbers to a world as long as there are any, and kill it when its time is up."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        )
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                while True:
                    with DIRECTING:
                        number = next(numbers, None)
                    if number is None:
                        break
                    process.stdin.write(f"{number}\n")
                    line = process.stdout.readline()
                    if not line:
                        break
                    with DIRECTING:
                        tally.add(Outcome(**json.loads(line)))
            status = process.wait(DEADLINE)
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        if status:
            errors.seek(0)
            with DIRECTING:
                tally.problems.append(f"a world ended with {status}: {errors.read()[-1000:]}")


@contextlib.contextmanager
def redis_server() -> Iterator[Optional[str]]:
    """A Redis of its own on loopback, as a URL without a database; None where redis-server is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ringrift-redis-") as folder:
        for _attempt in range(5):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
            process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
            try:
                if _answers(process, port):
                    yield f"redis://127.0.0.1:{port}"
                    return
            finally:
                process.kill()
                process.wait(DEADLINE)
    raise Stuck("redis-server does not come up")


def _answers(process: subprocess.Popen, port: int) -> bool:
    """Whether the server comes up; it does not where somebody else was faster to take the port."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as link:
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")
        time.sleep(0.02)
    return False


def _be_world(what: str) -> None:
    rule, backend, seed, folder, redis_url = json.loads(what)
    world = World(rule, backend, pathlib.Path(folder), redis_url if backend == REDIS else "")
    for line in sys.stdin:
        outcome = world.play(int(line), schedule(seed, backend, int(line)))
        print(json.dumps(asdict(outcome)), flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="lock_world.py", description="Repeat interleavings, and tell each step.")
    parser.add_argument("--rule", choices=list(RULES), default=OURS)
    parser.add_argument("--backend", choices=BACKENDS, default=FILE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--world", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.world:
        _be_world(options.world)
        return 0
    inside = room()
    if inside and os.getpid() != 1:
        return subprocess.run([*inside, sys.executable, "-I", "-S", __file__, *arguments], check=False).returncode
    with redis_server() if options.backend == REDIS else contextlib.nullcontext("") as url:
        if url is None:
            print("redis-server is not installed", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="ringrift-locks-") as folder:
            world = World(options.rule, options.backend, pathlib.Path(folder) / "0", url)
            steps = schedule(options.seed, options.backend, options.number)
            for time_number in range(options.times):
                outcome = world.play(options.number, steps, keep=True)
                if outcome.bad or time_number == options.times - 1:
                    break
    print("\n".join([*outcome.trace, outcome.error]).rstrip())
    print(f"run {time_number + 1}: {'bad' if outcome.bad else 'good'}")
    return int(outcome.bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training jobs of the P2P orchestrator: what to ask, what the answers mean. This util is private to the collection.

Nothing here sends a byte. ``converse`` is a generator that yields batches of requests and is given the answers;
``run`` drives it with a function that can send. It runs on the controller, the only place where jmespath is needed.
"""

from __future__ import annotations

import math
import sys
import urllib.parse
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Generator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig, parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer, Request, check_url, join_host
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_profiles import (
    AUTHORIZATION,
    AUTO,
    UNKNOWN,
    load_profiles,
    render,
    render_path,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_view import (
    TEXT_LIMIT,
    Cooldown,
    Job,
    Leader,
    View,
    as_count,
    as_moment,
    as_number,
    as_text,
    check_expressions,
    config_of,
    listed,
    many,
    search,
)

ARGUMENT_SPEC: Dict[str, Any] = {
    "config": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["query", "dispatched", "withdrawn", "cleared"], "default": "query"},
    "url": {"type": "str", "default": "http://localhost:8770"},
    "profile": {"type": "str", "default": "auto"},
    "profiles": {"type": "dict", "default": {}},
    "token": {"type": "str", "no_log": True},
    "timeout": {"type": "float", "default": 5},
    "batch_size": {"type": "int"},
    "epochs": {"type": "int"},
    "priority": {"type": "int", "default": 90},
    "job_timeout": {"type": "int", "default": 15000},
    "extra": {"type": "dict", "default": {}},
    "force": {"type": "bool", "default": False},
    "cooldown": {"type": "int"},
    "assume_cleared": {"type": "list", "elements": "str", "default": []},
}

COOLDOWN = 300
ROUNDS = 50
STUCK_ROUNDS = 3
# How often list and count are read again until they agree.
COUNT_LOOKS = 4
SENDS_AT_ONCE = 200
JOBS_LIMIT = 200
IDENTITY = ("config", "board", "players", "force")


@dataclass(frozen=True)
class Options:
    """What the task asked for, checked."""

    config: TrainingConfig
    state: str
    url: str
    profile: str
    profiles: Mapping[str, Mapping[str, Any]]
    batch_size: Optional[int] = None
    epochs: Optional[int] = None
    priority: int = 90
    job_timeout: int = 15000
    extra: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    cooldown: Optional[int] = None
    assume_cleared: Tuple[str, ...] = ()
    check_mode: bool = False

    @classmethod
    def from_params(cls, params: Mapping[str, Any], check_mode: bool) -> Options:
        """Check the parameters of a task.

        :raises RecoveryError: one of them cannot be used
        """
        config = parse_config(params["config"])
        own = params["profiles"] or {}
        profiles = load_profiles(own)
        for name in own:
            check_expressions(name, profiles[name])
        profile = params["profile"]
        if profile != AUTO and profile not in profiles:
            raise RecoveryError(f"profile is {profile!r}; known are {AUTO}, {', '.join(profiles)}.")
        for name in ("batch_size", "epochs", "job_timeout"):
            if params[name] is not None and params[name] < 1:
                raise RecoveryError(f"{name} is {params[name]}; it must be at least 1.")
        if params["cooldown"] is not None and params["cooldown"] < 0:
            raise RecoveryError(f"cooldown is {params['cooldown']} s; it must not be below 0.")
        return cls(
            config=config,
            state=params["state"],
            url=check_url(params["url"]),
            profile=profile,
            profiles=profiles,
            batch_size=params["batch_size"],
            epochs=params["epochs"],
            priority=params["priority"],
            job_timeout=params["job_timeout"],
            extra=params["extra"] or {},
            force=params["force"],
            cooldown=params["cooldown"],
            assume_cleared=tuple(params["assume_cleared"] or ()) if check_mode else (),
            check_mode=check_mode,
        )


@dataclass(frozen=True)
class Batch:
    """Requests that go to one base URL, in order; the token goes into each of those headers."""

    url: str
    requests: Tuple[Request, ...]
    token_headers: Tuple[str, ...] = (AUTHORIZATION,)


@dataclass(frozen=True)
class Reply:
    """One answer for each request of a batch, and the clock of the node that sent them."""

    answers: Tuple[Answer, ...]
    now: float


@dataclass(frozen=True)
class Send:
    """A request that changes something, before or after it was sent."""

    method: str
    base: str
    path: str
    body: Any
    sent: bool = False

    @property
    def line(self) -> str:
        return f"{self.method} {self.base}{self.path}"

    def as_dict(self) -> Dict[str, Any]:
        return {"method": self.method, "url": f"{self.base}{self.path}", "body": self.body, "sent": self.sent}


class _Refused(Exception):
    """The state that was asked for cannot be had; the message says why and what to do."""


Steps = Generator[Batch, Reply, None]


def run(options: Options, send: Callable[[Batch], Reply]) -> Dict[str, Any]:
    """Drive the conversation to its end with a function that sends a batch, and return the result.

    A RecoveryError of that function ends it; the result then tells what was done before.
    """
    steps = converse(options)
    try:
        batch = next(steps)
        while True:
            try:
                reply = send(batch)
            except RecoveryError as exc:
                batch = steps.throw(exc)
            else:
                batch = steps.send(reply)
    except StopIteration as stop:
        result: Dict[str, Any] = stop.value
        return result


def converse(options: Options) -> Generator[Batch, Reply, Dict[str, Any]]:
    """Yield batches, take replies, and return the result: the keys that the module documents, and ``diff``."""
    conversation = _Conversation(options)
    return (yield from conversation.steps())


class _Conversation:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.profile: Mapping[str, Any] = {}
        self.answers: Dict[str, Answer] = {}
        self.asked: List[str] = []
        self.now = 0.0
        self.leader_hint: Optional[str] = None
        self.count_ahead = False
        self.before: Optional[Tuple[Job, ...]] = None
        self.view = View()
        self.changed = False
        self.message = ""
        self.dispatched: Optional[Dict[str, Any]] = None
        self.cleared: List[Dict[str, Any]] = []
        self.requests: List[Dict[str, Any]] = []
        self.notes: List[str] = []

    def steps(self) -> Generator[Batch, Reply, Dict[str, Any]]:
        failed = False
        try:
            yield from getattr(self, f"_{self.options.state}")()
        except (_Refused, RecoveryError) as exc:
            failed, self.message = True, str(exc)
        return self._result(failed)

    # The states

    def _query(self) -> Steps:
        yield from self._look()
        view, config = self.view, self.options.config.name
        if not view.reachable or view.profile == UNKNOWN:
            self.message = view.reason or ""
        elif view.missing:
            self.message = f"Not everything about {config} could be read: {'; '.join(view.missing)}."
        else:
            self.message = f"{many(len(view.jobs), 'training job')} of {config}, {len(view.active)} active."

    def _dispatched(self) -> Steps:
        config = self.options.config.name
        for again in (True, False):
            yield from self._look()
            self._require_orchestrator("dispatched")
            if self.view.active:
                self.message = f"{config} is already active, nothing was dispatched: {listed(self.view.active)}."
                return
            self._require_clear_view("dispatched")
            self._require_no_cooldown()
            send = self._prepare(self.profile["dispatch"], self._values())
            if self.options.check_mode:
                self._predict_dispatch(send)
                return
            earlier = {(job.kind, job.id) for job in self.view.jobs}
            ((send, answer),) = yield from self._write([send])
            if again and self._moved(answer):
                continue
            self._judge_dispatch(send, answer, earlier)
            yield from self._give_way(earlier)
            return

    def _withdrawn(self) -> Steps:
        yield from self._cleared()

    def _cleared(self) -> Steps:
        config, force, state = self.options.config.name, self.options.force, self.options.state
        look, moved = True, False
        left, stuck = sys.maxsize, 0
        for _round in range(ROUNDS):
            if look:
                yield from self._look()
                self._require_orchestrator(state)
                self._require_clear_view(state)
            plan = self._plan_clear()
            if not plan:
                break
            size = sum(len(jobs) for _send, _entry, jobs in plan)
            left, stuck = size, 0 if size < left else stuck + 1
            if stuck == STUCK_ROUNDS:
                raise _Refused(self._come_back_text())
            if self.options.check_mode:
                self._predict_clear(plan)
                return
            pairs = yield from self._write([send for send, _entry, _jobs in plan[:SENDS_AT_ONCE]])
            look = not moved and any(self._moved(answer) for _send, answer in pairs)
            moved = moved or look
            progress = self._judge_clear(plan, pairs)
            if look:
                continue
            if self.view.missing and not force:
                raise _Refused(
                    f"Cleared {many(len(self.cleared), 'job')} of {config}, but whether one is still active is "
                    f"unknown: {'; '.join(self.view.missing)}. Run again."
                )
            if not progress:
                still = f"still active: {listed(self.view.active)}"
                send, answer = pairs[0]
                raise _Refused(self._refusal_text(send, answer, plan[0][1], still))
        else:
            raise _Refused(self._come_back_text())
        word = "Cleared" if state == "cleared" else "Withdrew"
        nothing = "active" if state == "cleared" else "waiting for a worker or with one"
        count = len(self.cleared)
        self.message = f"{word} {many(count, 'job')} of {config}." if count else f"No job of {config} is {nothing}."

    def _come_back_text(self) -> str:
        return (
            f"Jobs of {self.options.config.name} come back after they were {self.options.state}: "
            f"{listed(self.view.active)}. A worker puts them back into the queue: stop its trainers first, then run "
            "again."
        )

    # Looking

    def _look(self) -> Steps:
        for _look in range(COUNT_LOOKS):
            yield from self._look_once()
            if not self.count_ahead:
                return

    def _look_once(self) -> Steps:
        options = self.options
        self.count_ahead = False
        self.answers, self.asked = {}, []
        first = [read for profile in self._candidates() for read in profile["reads"] if not read.get("instead_of")]
        yield from self._ask(options.url, first)
        heard = [answer for answer in self.answers.values() if answer.status is not None]
        if not heard:
            errors = sorted({answer.error or "no answer" for answer in self.answers.values()})
            reason = f"The P2P orchestrator at {options.url} cannot be reached from the node: {', '.join(errors)}."
            self.view = View(profile=UNKNOWN if options.profile == AUTO else options.profile, reason=reason)
            self.profile = {}
            return
        name = self._recognise()
        if name is None:
            self.view = View(reachable=True, reason=self._stranger())
            self.profile = {}
            return
        self.profile = options.profiles[name]
        self.asked = [read["name"] for read in self.profile["reads"] if not read.get("instead_of")]
        leader = self._find_leader()
        if leader.url != options.url:
            at_leader = [read for read in self.profile["reads"] if read["name"] in self.asked and _at_leader(read)]
            for read in at_leader:
                self.answers.pop(self._target(read), None)
            if leader.url is not None:
                yield from self._ask(leader.url, at_leader)
        yield from self._ask_stand_ins(leader)
        self._understand(name, leader)

    def _ask(
        self, url: str, reads: Sequence[Mapping[str, Any]], first: Sequence[Request] = ()
    ) -> Generator[Batch, Reply, Tuple[Answer, ...]]:
        targets = list(dict.fromkeys(self._target(read) for read in reads))
        if not targets and not first:
            return ()
        requests = (*first, *(Request(target, "GET", target) for target in targets))
        reply = yield Batch(url, requests, self._token_headers())
        self.now = reply.now
        self.answers.update(zip(targets, reply.answers[len(first) :]))
        return reply.answers[: len(first)]

    def _token_headers(self) -> Tuple[str, ...]:
        """That of the profile; before it is known, those of all that it may be."""
        profiles = [self.profile] if self.profile else self._candidates()
        return tuple(dict.fromkeys(profile.get("token_header") or AUTHORIZATION for profile in profiles))

    def _candidates(self) -> List[Mapping[str, Any]]:
        options = self.options
        if options.profile != AUTO:
            return [options.profiles[options.profile]]
        return [profile for profile in options.profiles.values() if profile.get("detect")]

    def _ask_stand_ins(self, leader: Leader) -> Steps:
        while True:
            wanted = []
            for read in self.profile["reads"]:
                targets = [self._read(name) for name in read.get("instead_of") or ()]
                waiting = read["name"] not in self.asked and all(target["name"] in self.asked for target in targets)
                if not targets or not waiting or all(self._fault(target) is None for target in targets):
                    continue
                self.asked.append(read["name"])
                if _at_leader(read) and leader.url is None:
                    continue
                if read.get("side_effect") and (self.options.check_mode or self.options.state == "query"):
                    self._note(f"GET {read['path']} was not asked, because {read['side_effect']}.")
                    continue
                if read.get("side_effect"):
                    base = leader.url if _at_leader(read) and leader.url else self.options.url
                    self.requests.append(Send("GET", base, read["path"], None, sent=True).as_dict())
                    self._note(f"GET {read['path']} was asked for want of another answer; {read['side_effect']}.")
                wanted.append(read)
            if not wanted:
                return
            for place in (True, False):
                reads = [read for read in wanted if _at_leader(read) is place]
                yield from self._ask((leader.url if place else None) or self.options.url, reads)

    def _recognise(self) -> Optional[str]:
        if self.options.profile != AUTO:
            return self.options.profile
        for name, profile in self.options.profiles.items():
            if profile.get("detect") and search(profile["detect"], self._documents(profile)) is True:
                return name
        return None

    def _stranger(self) -> str:
        seen = []
        for target, answer in self.answers.items():
            what = answer.error or f"HTTP {answer.status}"
            if answer.ok:
                keys = sorted(str(key)[:40] for key in answer.body) if isinstance(answer.body, dict) else []
                what = f"keys {', '.join(keys[:8])}" if keys else "no JSON object"
            seen.append(f"{target}: {what}")
        return (
            f"What answers at {self.options.url} is none of the known interfaces ({', '.join(self.options.profiles)}): "
            f"{'; '.join(seen)[:TEXT_LIMIT]}. Name one as profile, or check the port."
        )

    def _find_leader(self) -> Leader:
        expressions = self.profile.get("leader")
        if not expressions:
            return Leader(url=self.options.url)
        documents = self._documents(self.profile)
        node = as_text(search(expressions.get("node"), documents))
        leader = self.leader_hint or as_text(search(expressions.get("id"), documents))
        says = search(expressions.get("is_leader"), documents)
        is_leader = leader is not None and leader == node if self.leader_hint or not isinstance(says, bool) else says
        if is_leader:
            return Leader(id=leader or node, is_leader=True, url=self.options.url)
        peers = search(expressions.get("peers"), documents)
        for peer in peers if isinstance(peers, list) and leader is not None else ():
            if isinstance(peer, dict) and as_text(peer.get("id")) == leader:
                url = join_host(peer.get("host"), peer.get("port"), peer.get("scheme") or "http")
                return Leader(id=leader, is_leader=False, url=url)
        return Leader(id=leader, is_leader=False)

    def _understand(self, name: str, leader: Leader) -> None:
        documents = self._documents(self.profile)
        missing = []
        for read in self.profile["reads"]:
            if read.get("required", True) and not read.get("instead_of") and not self._covered(read):
                at_lost_leader = _at_leader(read) and leader.url is None
                lost = f"no leader is known ({leader.id or 'none named'})" if at_lost_leader else self._fault(read)
                missing.append(f"GET {read['path']}: {lost}")
        rows, faults = self._rows(documents, whole=not missing)
        missing.extend(faults)
        ours = [job for job in rows if job.config == self.options.config.name]
        others = [job for job in rows if job.config != self.options.config.name]
        counted = self.profile.get("counted")
        if counted and not missing:
            number = as_number(search(counted["value"], documents)) or 0
            kind = counted["kind"]
            shown = sum(1 for job in ours if job.kind == kind and self._unfinished(job.status))
            # The list and the count are two answers: a job that came in between is in the count alone.
            self.count_ahead = number > shown
            if self.count_ahead:
                missing.append(f"it counts {number:g} active jobs of the kind {kind} and lists {shown}")
        ours.sort(key=lambda job: (not job.active, -(job.completed_at or job.created_at or 0.0), job.id))
        self.view = View(
            reachable=True,
            profile=name,
            reason="; ".join(missing) or None,
            leader=leader if self.profile.get("leader") else Leader(),
            jobs=tuple(ours),
            others=tuple(others),
            missing=tuple(missing),
            cooldown=self._cooldown(documents, ours),
        )
        if self.before is None:
            self.before = self.view.active

    def _unfinished(self, status: Optional[str]) -> bool:
        return (status or "").lower() not in {state.lower() for state in self.profile.get("finished") or ()}

    def _rows(self, documents: Mapping[str, Any], whole: bool) -> Tuple[List[Job], List[str]]:
        jobs: Dict[Tuple[str, str], Job] = {}
        faults = []
        for entry in self.profile["jobs"]:
            kind = str(entry["kind"])
            rows = search(entry["items"], documents)
            # Nothing at all is no empty list; where an answer is missing, that has been said.
            if not isinstance(rows, list) and (whole or rows is not None):
                faults.append(f"the jobs of the kind {kind} are not a list")
            nameless = 0
            for row in rows if isinstance(rows, list) else ():
                job = self._job(kind, row)
                if job is None:
                    nameless += 1
                else:
                    jobs.setdefault((kind, job.id), job)
            if nameless:
                faults.append(f"{many(nameless, 'job')} of the kind {kind} without a usable id")
        return list(jobs.values()), faults

    def _job(self, kind: str, row: Any) -> Optional[Job]:
        raw = row.get("id") if isinstance(row, dict) else None
        identity = as_text(raw)
        if identity is None or len(str(raw)) > TEXT_LIMIT:
            return None
        status = as_text(row.get("status"))
        return Job(
            id=identity,
            kind=kind,
            type=as_text(row.get("type")),
            status=status,
            node=as_text(row.get("node")),
            config=config_of(row, identity),
            active=self._unfinished(status) and identity not in self.options.assume_cleared,
            created_at=as_moment(row.get("created_at")),
            started_at=as_moment(row.get("started_at")),
            completed_at=as_moment(row.get("completed_at")),
            batch_size=as_count(row.get("batch_size")),
            raw_id=raw,
        )

    def _cooldown(self, documents: Mapping[str, Any], jobs: Sequence[Job]) -> Cooldown:
        entry = self.profile.get("cooldown") or {}
        blocks = bool(entry.get("blocks_dispatch"))
        seconds: Any = self.options.cooldown
        if seconds is None and entry.get("seconds"):
            seconds = as_number(search(entry["seconds"], documents))
        seconds = float(COOLDOWN if seconds is None else seconds)
        asked = self.profile.get("last_training_time") or {}
        if not asked:
            return Cooldown(seconds=seconds, blocks_dispatch=blocks)
        last = as_moment(search(asked["value"], {**documents, "jobs": [job.as_dict() for job in jobs]}))
        if last is None:
            return Cooldown(seconds=seconds, blocks_dispatch=blocks)
        # A time in the future is a clock that differs; it never blocks for longer than the cooldown itself.
        remaining = min(max(0.0, last + seconds - self.now), seconds)
        return Cooldown(
            active=remaining > 0,
            seconds=seconds,
            last_training_time=last,
            ends_at=self.now + remaining if last > self.now else last + seconds,
            remaining=round(remaining, 3),
            source=str(asked.get("source") or asked["value"]),
            blocks_dispatch=blocks,
        )

    # Reads: their answers, and what is wrong with them

    def _read(self, name: str) -> Mapping[str, Any]:
        return next(read for read in self.profile["reads"] if read["name"] == name)

    def _target(self, read: Mapping[str, Any]) -> str:
        query = render(read.get("query") or {}, self._values())
        return render_path(read["path"], self._values()) + (f"?{urllib.parse.urlencode(query)}" if query else "")

    def _documents(self, profile: Mapping[str, Any]) -> Dict[str, Any]:
        documents = {}
        for read in profile["reads"]:
            answer = self.answers.get(self._target(read))
            documents[read["name"]] = answer.body if answer is not None and answer.ok else None
        return documents

    def _fault(self, read: Mapping[str, Any]) -> Optional[str]:
        answer = self.answers.get(self._target(read))
        if answer is None:
            return "not asked"
        if not answer.ok:
            return _outcome(answer)
        if read.get("valid") and search(read["valid"], answer.body) is not True:
            return "the answer is not what it should be"
        if read.get("cut") and search(read["cut"], answer.body) is True:
            return "the answer does not list everything"
        return None

    def _covered(self, read: Mapping[str, Any]) -> bool:
        if self._fault(read) is None:
            return True
        stand_ins = [other for other in self.profile["reads"] if read["name"] in (other.get("instead_of") or ())]
        return bool(stand_ins) and all(self._covered(other) for other in stand_ins)

    # Requirements

    def _require_orchestrator(self, state: str) -> None:
        view, config = self.view, self.options.config.name
        if not view.reachable:
            raise _Refused(
                f"{view.reason} Start it, or give the address of the coordinator's orchestrator as url; "
                f"nothing of {config} was {state}."
            )
        if view.profile == UNKNOWN:
            raise _Refused(f"{view.reason} Nothing of {config} was {state}.")
        if self.profile.get("leader") and view.leader.url is None:
            unread = [read for read in self.profile["reads"] if not _at_leader(read) and self._fault(read)]
            if unread:
                raise _Refused(
                    f"GET {self.options.url}{unread[0]['path']}: {self._fault(unread[0])}, so the leader is unknown; "
                    f"nothing of {config} was {state}. Look at the orchestrator's log, then run again."
                )
            if view.leader.id is None:
                raise _Refused(
                    f"The orchestrator at {self.options.url} knows no leader, and only a leader keeps training jobs. "
                    f"Wait for the election, or start the coordinator's orchestrator; nothing of {config} was {state}."
                )
            raise _Refused(
                f"The orchestrator at {self.options.url} names {view.leader.id} as leader but no address of it. "
                f"Give that node's address as url; nothing of {config} was {state}."
            )

    def _require_clear_view(self, state: str) -> None:
        view, config, force = self.view, self.options.config.name, self.options.force
        if force:
            return
        if view.missing:
            raise _Refused(
                f"Whether a job of {config} is active is unknown: {'; '.join(view.missing)}. Nothing was {state}. "
                "Repair that, or accept the risk with -e force=true."
            )
        unclear = [job for job in view.others if job.active and job.config is None]
        if state == "dispatched" and unclear:
            raise _Refused(
                f"Active jobs do not say which config they train: {listed(unclear)}. Nothing was dispatched, because "
                f"one of them may be {config}. Clear them, or dispatch all the same with -e force=true."
            )

    def _require_no_cooldown(self) -> None:
        cooldown = self.view.cooldown
        if cooldown.active and cooldown.blocks_dispatch and not self.options.force:
            raise _Refused(
                f"The cooldown of {cooldown.seconds:g} s after the last training is active for another "
                f"{math.ceil(cooldown.remaining or 0)} s; nothing of {self.options.config.name} was dispatched. "
                "Wait that long, or dispatch all the same with -e force=true."
            )

    # Writing

    def _values(self) -> Dict[str, Any]:
        options = self.options
        return {
            "config": options.config.name,
            "board": options.config.board,
            "players": options.config.players,
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "priority": options.priority,
            "job_timeout": options.job_timeout,
            "force": options.force,
        }

    def _prepare(self, entry: Mapping[str, Any], values: Mapping[str, Any]) -> Send:
        body = render(entry.get("body"), values)
        if "extra_into" in entry and self.options.extra:
            template, place = entry.get("body"), body
            for key in entry["extra_into"]:
                template, place = (part.get(key) if isinstance(part, dict) else None for part in (template, place))
            if not isinstance(template, dict) or not isinstance(place, dict):
                raise RecoveryError(
                    f"The profile {self.view.profile} has no mapping at {entry['extra_into']} for extra."
                )
            fixed = [key for key, item in template.items() if isinstance(item, dict) and item.get("$") in IDENTITY]
            refused = sorted(key for key in self.options.extra if key in fixed)
            if refused:
                raise RecoveryError(f"extra sets {', '.join(refused)}, which config and force decide; take that out.")
            place.update(self.options.extra)
        base = self.view.leader.url if entry.get("at") == "leader" and self.profile.get("leader") else None
        path = render_path(entry["path"], values)
        return Send(entry.get("method", "POST"), base or self.options.url, path, body)

    def _write(self, sends: Sequence[Send]) -> Generator[Batch, Reply, List[Tuple[Send, Answer]]]:
        """Send requests and, behind them in the same batch where that can be, the reads that show their effect."""
        done: List[Tuple[Send, Answer]] = []
        leader = self.view.leader if self.profile.get("leader") else Leader(url=self.options.url)
        reads = [read for read in self.profile["reads"] if not read.get("instead_of")]
        places: Dict[str, List[Mapping[str, Any]]] = {}
        for read in reads:
            place = leader.url if _at_leader(read) and leader.url else self.options.url
            places.setdefault(place, []).append(read)
        bases = list(dict.fromkeys(send.base for send in sends))
        for base in bases:
            group = [replace(send, sent=True) for send in sends if send.base == base]
            self.requests.extend(send.as_dict() for send in group)
            posts = [Request(send.path, send.method, send.path, send.body) for send in group]
            answers = yield from self._ask(base, places.pop(base, []) if base == bases[-1] else [], posts)
            done.extend(zip(group, answers))
        for place, rest in places.items():
            yield from self._ask(place, rest)
        self.asked = [read["name"] for read in reads]
        yield from self._ask_stand_ins(leader)
        self._understand(self.view.profile, leader)
        if self.count_ahead:
            yield from self._look()
        return done

    def _moved(self, answer: Answer) -> bool:
        """Whether the answer names another leader to ask."""
        if not self.profile.get("leader") or answer.error is not None:
            return False
        leader = as_text(search((self._refusal(answer) or {}).get("leader"), _facts(answer)))
        if leader is None or leader == self.leader_hint:
            return False
        self.leader_hint = leader
        return True

    def _refusal(self, answer: Answer) -> Optional[Mapping[str, Any]]:
        refusals: Sequence[Mapping[str, Any]] = self.profile.get("refusals") or ()
        for refusal in refusals:
            if _true(search(refusal["when"], _facts(answer))):
                return refusal
        return None

    def _refusal_text(self, send: Send, answer: Answer, entry: Mapping[str, Any], what: str) -> str:
        outcome = _outcome(answer)
        told = as_text(search(entry.get("error"), _facts(answer)))
        because = f", {told}" if told and told not in outcome else ""
        say = (self._refusal(answer) or {}).get("say", "Look at the orchestrator's log, then run again.")
        return f"{send.line}: {outcome}{because}; {what}. {say}"

    def _judge_dispatch(self, send: Send, answer: Answer, earlier: Any) -> None:
        config, entry, facts = self.options.config.name, self.profile["dispatch"], _facts(answer)
        fresh = [job for job in self.view.active if (job.kind, job.id) not in earlier]
        if answer.error is None and _true(search(entry["success"], facts)):
            identity = as_text(search(entry.get("job_id"), facts))
            found = next((job for job in self.view.jobs if job.id == identity), None)
            if found is None:
                self._note(f"Job {identity or 'without an id'} was accepted but is not in the orchestrator's list yet.")
        elif fresh and (answer.error is not None or (answer.status or 0) >= 500):
            found, identity = fresh[0], fresh[0].id
            self._note(f"{send.line}: {_outcome(answer)}; the new job was found by reading again.")
        elif answer.error is not None:
            raise _Refused(
                f"{send.line}: {_outcome(answer)}, and no new job of {config} is listed; whether it was accepted is "
                "unknown. Run again: an active job is looked for first, so none is dispatched twice."
            )
        else:
            raise _Refused(self._refusal_text(send, answer, entry, f"nothing of {config} was dispatched"))
        if len(fresh) > 1:
            self._note(f"More than one job of {config} became active at the same time: {listed(fresh)}.")
        node = as_text(search(entry.get("node"), facts)) or (found.node if found else None)
        body = answer.body if isinstance(answer.body, (dict, list)) else as_text(answer.body)
        self.changed = True
        self.dispatched = {"job_id": identity, "node": node, "request": send.as_dict(), "answer": body}
        self.message = f"{config} was dispatched as job {identity or 'without an id'}."

    def _give_way(self, earlier: Any) -> Steps:
        """Withdraw the job that was just dispatched where somebody else's came before it; both see the same order."""
        ours = next((job for job in self.view.active if job.id == (self.dispatched or {}).get("job_id")), None)
        if ours is None or ours.created_at is None:
            return
        others = [job for job in self.view.active if (job.kind, job.id) not in earlier and job != ours]
        first = [job for job in others if job.created_at is not None and _order(job) < _order(ours)]
        jobs: Sequence[Mapping[str, Any]] = self.profile["jobs"]
        entry = next((entry for entry in jobs if entry["kind"] == ours.kind), {})
        clear = entry.get("clear")
        if not first or not clear or clear.get("scope", "job") != "job":
            return
        config = self.options.config.name
        sent = self._prepare(clear, {**self._values(), "id": ours.raw_id})
        ((sent, answer),) = yield from self._write([sent])
        gone = ours.id not in {job.id for job in self.view.active} and not self.view.missing
        if not gone and (answer.error is not None or not _true(search(clear["success"], _facts(answer)))):
            still = f"{config} has two active jobs, {first[0]} and {ours}, which came at the same time"
            raise _Refused(self._refusal_text(sent, answer, clear, still))
        self.changed, self.dispatched = False, None
        self.message = (
            f"{config} is already active, nothing was dispatched: {first[0]} came at the same time, so {ours.id} was "
            "withdrawn."
        )

    def _predict_dispatch(self, send: Send) -> None:
        self.requests.append(send.as_dict())
        self.changed = True
        self.dispatched = {"job_id": None, "node": None, "request": send.as_dict(), "answer": None}
        self.message = f"{self.options.config.name} would be dispatched: {send.line}."

    def _plan_clear(self) -> List[Tuple[Send, Mapping[str, Any], Tuple[Job, ...]]]:
        """Each request with its entry in the profile and the jobs that it clears."""
        plan: List[Tuple[Send, Mapping[str, Any], Tuple[Job, ...]]] = []
        for entry in self.profile["jobs"]:
            jobs = tuple(job for job in self.view.active if job.kind == entry["kind"])
            clear, withdraws = entry.get("clear"), self.options.state == "withdrawn"
            if not jobs or (withdraws and not entry.get("withdraw", True)):
                continue
            if not clear:
                raise _Refused(f"The profile {self.view.profile} has no request that clears {listed(jobs)}.")
            if clear.get("scope", "job") == "all":
                bystanders = self._bystanders(entry["kind"])
                if bystanders and withdraws:
                    self._note(f"{bystanders} Nothing was withdrawn.")
                    continue
                if bystanders:
                    raise _Refused(
                        f"{bystanders} Nothing was cleared. Let them finish, or clear them too with -e force=true."
                    )
                plan.append((self._prepare(clear, self._values()), clear, jobs))
                continue
            for job in jobs:
                plan.append((self._prepare(clear, {**self._values(), "id": job.raw_id}), clear, (job,)))
        return plan

    def _bystanders(self, kind: str) -> Optional[str]:
        """Who else would be cleared, in words; None with force and when there is nobody."""
        others = [job for job in self.view.others if job.active and job.kind == kind]
        if self.options.force or not others:
            return None
        return (
            "This orchestrator clears all training jobs at once, and others are active besides "
            f"{self.options.config.name}: {listed(others)}."
        )

    def _judge_clear(self, plan: Any, pairs: Sequence[Tuple[Send, Answer]]) -> bool:
        """Note what was cleared; whether anything moved at all."""
        active = {(job.kind, job.id) for job in self.view.active}
        seen = {(item["kind"], item["id"]) for item in self.cleared}
        progress = False
        for (_plan, entry, jobs), (send, answer) in zip(plan, pairs):
            accepted = answer.error is None and _true(search(entry["success"], _facts(answer)))
            for job in jobs:
                gone = (job.kind, job.id) not in active and not self.view.missing
                # Without an answer the list decides; it was read after the request.
                if accepted or (gone and answer.error is not None):
                    progress = self.changed = True
                    if (job.kind, job.id) not in seen:
                        self.cleared.append(_cleared(job, send))
                else:
                    progress = progress or gone
        return progress

    def _predict_clear(self, plan: Any) -> None:
        self.changed = True
        for send, _entry, jobs in plan:
            self.requests.append(send.as_dict())
            self.cleared.extend(_cleared(job, send) for job in jobs)
        gone = {job for _send, _entry, jobs in plan for job in jobs}
        jobs = tuple(replace(job, active=job.active and job not in gone) for job in self.view.jobs)
        self.view = replace(self.view, jobs=jobs)
        word = "clear" if self.options.state == "cleared" else "withdraw"
        self.message = f"Would {word} {many(len(self.cleared), 'job')} of {self.options.config.name}."

    # The result

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _result(self, failed: bool) -> Dict[str, Any]:
        view = self.view
        if len(view.jobs) > JOBS_LIMIT:
            self._note(f"jobs has the first {JOBS_LIMIT} of {len(view.jobs)} jobs, active ones first.")
        result = {
            "changed": self.changed,
            "failed": failed,
            "msg": self.message,
            "reachable": view.reachable,
            "profile": view.profile,
            "reason": view.reason,
            "complete": view.complete,
            "leader": view.leader.as_dict(),
            "jobs": view.known(view.jobs[:JOBS_LIMIT]),
            "active": view.known(view.active),
            "cooldown": view.cooldown.as_dict(),
            "dispatched": self.dispatched,
            "cleared": self.cleared,
            "requests": self.requests,
            "notes": self.notes,
        }
        if self.options.state != "query":
            after: Dict[str, Any] = {job.id: job.status for job in view.active}
            if self.dispatched is not None and self.dispatched["job_id"] not in after:
                after[self.dispatched["job_id"] or "new"] = self.dispatched["request"]
            result["diff"] = {
                "before": {"active": {job.id: job.status for job in self.before or ()}},
                "after": {"active": after},
            }
        return result


def _order(job: Job) -> Tuple[float, str]:
    return (job.created_at or 0.0, job.id)


def _cleared(job: Job, send: Send) -> Dict[str, Any]:
    return {"id": job.id, "kind": job.kind, "was": job.status, "request": send.as_dict()}


def _facts(answer: Answer) -> Dict[str, Any]:
    return {"status": answer.status, "body": answer.body}


def _outcome(answer: Answer) -> str:
    if answer.status is None:
        return answer.error or "no answer"
    told = answer.error
    if told is None and isinstance(answer.body, dict):
        told = as_text(answer.body.get("error"))
    elif told is None and isinstance(answer.body, str):
        told = as_text(answer.body.strip())
    return f"HTTP {answer.status}" + (f" ({told})" if told else "")


def _at_leader(read: Mapping[str, Any]) -> bool:
    return bool(read.get("at", "node") == "leader")


def _true(value: Any) -> bool:
    return value is not None and value is not False

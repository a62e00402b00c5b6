# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runbook's section "Prevention", point by point: what was looked at, what was done, and what is left for a person.

Pure functions over what the tasks of the role registered. What could not be looked at is a finding of its own and never
counts as well. This util is private to the collection.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _disk, _event_wiring, _gpu_memory_fit
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._finding import CRITICAL, INFO, WARNING
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows, text, texts, whole
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import visible

OK, APPLIED, PLANNED = "ok", "applied", "would_be_applied"
NEEDS_YOU, NOT_SEEN = "needs_you", "not_seen"
# From what an operator has to look at to what they need not.
STATES = (NOT_SEEN, NEEDS_YOU, PLANNED, APPLIED, OK)
WORDS = {state: state.replace("_", " ") for state in STATES}

# Of the runbook's list the first four; the lock rule and the timer are ours.
NODE, DAEMONS, BATCH_SIZE, DISK, CHECKPOINTS, LOCK, TIMER = (
    *("node", "daemons", "batch_size", "disk", "checkpoints", "lock"),
    "timer",
)
TITLES = {
    NODE: "the node",
    DAEMONS: "1. health daemons",
    BATCH_SIZE: "2. batch size",
    DISK: "3. disk space",
    CHECKPOINTS: "4. checkpoint cleanup",
    LOCK: "5. lock clean-up",
    TIMER: "6. regular diagnosis",
}
SETTING = "ringrift_batch_size"
# A training makes few files; so few that are left will not last.
FEW_INODES = 1000
# More of them are in the report.
MOST_SHOWN = 50
# What Ansible begins the words with of a host that it cannot reach.
TASK_FAILED = "Task failed: "
AGAIN = "run this again when nothing is in its way"

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One line of the list on one host. ``cause`` is stable, ``next`` is what a person can do; both never None."""

    cause: str
    host: str
    state: str
    detail: str
    next: str = ""
    severity: str = INFO

    def as_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "detail": visible(self.detail), "next": visible(self.next)}


@dataclass(frozen=True)
class Run:
    """What all points share. ``blocked`` says why nothing may be changed beside a recovery; None where it may."""

    config: str
    check_mode: bool
    blocked: Optional[str]

    def did(self, cause: str, host: str, words: str) -> Point:
        """What was changed or, in a dry run, would be; the latter is not yet as it should be."""
        if self.check_mode:
            return Point(cause, host, PLANNED, words, "run this without --check", WARNING)
        return Point(cause, host, APPLIED, words)

    def command(self, words: str) -> str:
        return f"ansible-playbook {words.split()[0]} -e config={self.config}{''.join(words.partition(' ')[1:])}"


def prevention(nodes: Mapping[str, Values], coordinator: str, config: str, **about: Any) -> Dict[str, Any]:
    """Every point on every host, as plain data.

    :param nodes: the variables of each node of the play; only what the role registered is taken from them
    :param about: further keys of the report; ``check_mode`` is read too
    """
    first: Values = next(iter(nodes.values()), {})
    run = Run(config, bool(about.get("check_mode")), blocked(first.get("prevent_journal"), coordinator))
    found = [_daemons(run, coordinator, first)]
    for name, node in nodes.items():
        found.extend(_node(run, name, node))
    if _asked(first.get("prevent_coordinator_lock")):
        found.append(_lock(run, coordinator, first["prevent_coordinator_lock"]))
    if _asked(first.get("prevent_timer_manager")):
        found.append(_timer(run, first))
    order = list(TITLES)
    found.sort(key=lambda point: (order.index(point.cause), STATES.index(point.state)))
    counts = {state: sum(point.state == state for point in found) for state in STATES}
    shown = [point.as_dict() for point in found]
    return {"schema": 1, "config": config, "coordinator": coordinator, **about, "counts": counts, "findings": shown}


def prevention_lines(report: Mapping[str, Any]) -> List[str]:
    """A short list: what is well is counted, everything else has a line, and below it the next step."""
    counts = part(report, "counts")
    told = ", ".join(f"{counts[state]} {WORDS[state]}" for state in STATES if counts.get(state))
    lines = [f"{report['config']}: prevention: {told or 'nothing was looked at'}"]
    points = rows(report["findings"])
    bad = [point for point in points if point["state"] != OK]
    shown = bad[:MOST_SHOWN]
    width = max((len(str(point["host"])) for point in shown), default=0)
    for cause, title in TITLES.items():
        well = [str(point["host"]) for point in points if point["cause"] == cause and point["state"] == OK]
        if well:
            lines.append(f"{title:<22}  ok on {', '.join(well) if len(well) <= 3 else f'{len(well)} hosts'}")
        for point in shown:
            if point["cause"] == cause:
                state = WORDS[point["state"]]
                lines.append(f"{title:<22}  {point['host']:<{width}}  {state:<16}  {point['detail']}")
                lines.extend([f"{'':<22}  next: {point['next']}"] if point["next"] else [])
    if len(bad) > len(shown):
        lines.append(f"and {len(bad) - len(shown)} more in the report")
    return lines


def blocked(journal: Any, coordinator: str) -> Optional[str]:
    """Why nothing may be changed that a recovery of the same config may be at; None where none is under way."""
    known = part(journal, "journal")
    if not known:
        return f"whether a recovery is under way is not known: the journal on {coordinator} was not seen"
    if known.get("running") is None:
        return None
    who = part(known, "running", "who")
    step = text(part(known, "running").get("step")) or "its beginning"
    whose = f"{who.get('user') or 'somebody'}@{who.get('host') or 'an unknown controller'}"
    return f"a recovery of this config by {whose} is under way, at {step}"


def _daemons(run: Run, host: str, first: Values) -> Point:
    seen, restarted = part(first, "prevent_daemons"), first.get("fix_events")
    known = part(seen, "daemons")
    if not known:
        return _unseen(DAEMONS, host, _reason(first.get("prevent_daemons")), f"bring {host} back, then run this again")
    wiring = part(seen, "wiring")
    states = part(known, "daemons")
    faults = [f"{name} is {states.get(name) or 'not there'}" for name in texts(known.get("down"))]
    if wiring.get("verdict") == "unwired":
        # A healthy orchestrator has nobody for TRAINING_FAILED.
        missing = [name for name in texts(wiring.get("missing")) if name in _event_wiring.NEEDED]
        faults.append(f"nobody listens to {', '.join(missing)}")
    if not faults:
        if not (known.get("reachable") is True and known.get("running") is True and known.get("down") == []):
            why = f"the daemons at {known.get('url')} are not known: {known.get('reason')}"
            then = f"look at the service there, or {run.command('fix.yml -e cause=daemons_down')}"
            return _unseen(DAEMONS, host, why, then)
        unknown = wiring.get("reason") if wiring.get("verdict") == "unknown" else None
        more = f"; who listens is not known ({unknown})" if unknown else ""
        return Point(DAEMONS, host, OK, f"event_router, feedback_loop and data_pipeline run{more}")
    told = ", ".join(faults)
    if _asked(restarted) and isinstance(restarted, Mapping):
        if restarted.get("changed") and not _failed(restarted):
            done = f"{told}; {'they would be' if run.check_mode else 'they were'} restarted (by {restarted.get('via')})"
            return run.did(DAEMONS, host, done)
        if not _failed(restarted):
            return Point(DAEMONS, host, OK, f"{told} at first; all of them run now")
        return Point(DAEMONS, host, NEEDS_YOU, f"{told}; not restarted: {_reason(restarted)}", AGAIN, CRITICAL)
    why = f"left alone, because {run.blocked}" if run.blocked else "nothing was restarted"
    return Point(DAEMONS, host, NEEDS_YOU, f"{told}; {why}", AGAIN, CRITICAL)


def _node(run: Run, name: str, node: Values) -> Iterator[Point]:
    """What concerns one node; one line where nothing of it could be seen."""
    looked = part(node, "prevent_gpu")
    if "errors" not in looked:
        then = f"bring it back, or leave it out: -e exclude={name}"
        yield _unseen(NODE, name, _reason(node.get("prevent_gpu")), then)
        return
    yield _batch_size(name, looked, node.get(SETTING, 512))
    yield _room(run, name, node)
    yield _checkpoints(run, name, node.get("fix_pruned"))
    yield _lock(run, name, node.get("prevent_lock"))


def _batch_size(host: str, seen: Values, setting: Any) -> Point:
    gpus = rows(part(seen, "gpu").get("gpus"))
    if not gpus:
        why = part(seen, "errors").get("gpu") or part(seen, "gpu").get("reason") or "no GPU was seen"
        return _unseen(BATCH_SIZE, host, f"the GPU's memory is not known: {why}", "look at it with gpu_status")
    facts = _gpu_memory_fit.facts_of({"hosts": {host: {"gpu": seen["gpu"], "progress": part(seen, "progress")}}})
    divided = any(gpu.get("mig_mode") for gpu in gpus)
    if facts.memory_total is None and not divided:
        return _unseen(BATCH_SIZE, host, "a GPU does not tell its memory", "look at it with gpu_status")
    allowed, _table, memory = _gpu_memory_fit.row(facts.memory_total)
    try:
        usual = _gpu_memory_fit.fit(_gpu_memory_fit.Facts(facts.memory_total), None, setting).batch_size
    except RecoveryError as exc:
        return Point(BATCH_SIZE, host, NEEDS_YOU, f"{SETTING}: {exc}", f"set {SETTING}: {allowed}", WARNING)
    if usual > allowed:
        words = f"{SETTING} is {usual}, and {memory} allows {allowed}"
        then = f"set {SETTING}: {allowed} for {host} in the inventory"
        return Point(BATCH_SIZE, host, NEEDS_YOU, words, then, WARNING)
    if facts.last is not None and facts.last > allowed:
        words = f"the trainer that runs has {facts.last} ({facts.last_from}), and {memory} allows {allowed}"
        return Point(BATCH_SIZE, host, NEEDS_YOU, words, f"it takes {SETTING} ({usual}) at its next restart", WARNING)
    if part(seen, "errors").get("progress"):
        why = f"what a trainer that runs has is not known: {part(seen, 'errors')['progress']}"
        return _unseen(BATCH_SIZE, host, why, "look at it with training_progress")
    return Point(BATCH_SIZE, host, OK, f"{SETTING} is {usual}, and {memory} allows {allowed}")


def _room(run: Run, host: str, node: Values) -> Point:
    seen, after = part(node, "prevent_room", "disk"), part(node, "prevent_room_after", "disk")
    if not seen:
        why = part(node, "prevent_room", "errors").get("disk") or _reason(node.get("prevent_room"))
        return _unseen(DISK, host, why, "look at the mount and at the kernel log")
    lacks = _lacks(seen)
    if lacks is None:
        return Point(DISK, host, OK, str(seen.get("reason")))
    if after and _lacks(after) is None:
        return Point(DISK, host, APPLIED, f"{lacks[0]}; the checkpoint cleanup has made room: {after.get('reason')}")
    if run.check_mode and _enough(seen, part(node, "fix_pruned")):
        return run.did(DISK, host, f"{lacks[0]}; the checkpoint cleanup would make room")
    words, severity = _lacks(after) or lacks if after else lacks
    return Point(DISK, host, NEEDS_YOU, words, "make room there; the checkpoint cleanup does not make enough", severity)


def _lacks(disk: Values) -> Optional[Tuple[str, str]]:
    """What is wrong with the room, and how bad it is; None where nothing is."""
    if disk.get("verdict") != _disk.OK:
        return str(disk.get("reason")), CRITICAL if disk.get("verdict") == _disk.FULL else WARNING
    for found in _deciding(disk):
        left = whole(found.get("free_inodes"))
        if left is not None and left < FEW_INODES:
            return f"{found.get('path')} has {left} inodes left for further files", WARNING
    return None


def _enough(disk: Values, pruned: Values) -> bool:
    """Whether what would be pruned makes the room that is needed; where it is not on one file system, nobody knows."""
    freed, needed = whole(pruned.get("freed_bytes")) or 0, whole(disk.get("needed"))
    short = [found for found in _deciding(disk) if needed is None or (whole(found.get("free")) or 0) < needed]
    return (
        len(short) == 1
        and _disk.CHECKPOINTS in texts(short[0].get("uses"))
        and not short[0].get("read_only")
        and needed is not None
        and (whole(short[0].get("free")) or 0) + freed >= needed
    )


def _deciding(disk: Values) -> List[Mapping[str, Any]]:
    return [found for found in rows(disk.get("filesystems")) if set(texts(found.get("uses"))) & set(_disk.DECIDING)]


def _checkpoints(run: Run, host: str, result: Any) -> Point:
    if not _asked(result) or not isinstance(result, Mapping):
        return _unseen(CHECKPOINTS, host, f"not looked at, because {run.blocked or 'the run ended before it'}", AGAIN)
    if "kept" not in result:
        return _unseen(CHECKPOINTS, host, _reason(result), "look at the checkpoints there")
    gone, kept = len(rows(result.get("pruned"))), len(rows(result["kept"]))
    would = "would be" if run.check_mode else "were"
    words = (
        f"{gone} of {gone + kept} files {would} removed, {kept} stay" if gone else f"{kept} files, none of them beyond"
    )
    if rows(result.get("failed_files")):
        why = f"{words}; {_reason(result)}"
        return Point(CHECKPOINTS, host, NEEDS_YOU, why, "remove them by hand, or run with become", WARNING)
    if any(entry.get("reason") == "may_be_open" for entry in rows(result["kept"])):
        return _unseen(CHECKPOINTS, host, f"{words}; {result.get('unseen')}", "run with become")
    if result.get("changed"):
        return run.did(CHECKPOINTS, host, words)
    if any(group.get("newest_verified") is None for group in rows(result.get("groups"))):
        then = run.command("fix.yml -e cause=checkpoint_corrupt")
        return Point(CHECKPOINTS, host, NEEDS_YOU, _reason(result), then, WARNING)
    return Point(CHECKPOINTS, host, OK, words)


def _lock(run: Run, host: str, result: Any) -> Point:
    lock = part(result, "lock")
    if not lock:
        return _unseen(LOCK, host, _reason(result), "look at the lock there with training_lock")
    verdict, why, place = lock.get("verdict"), lock.get("reason"), lock.get("path") or lock.get("key")
    words = f"{place}: {why}"
    if result.get("changed") and not _failed(result):
        return run.did(LOCK, host, f"{words}; {'would be' if run.check_mode else 'was'} released")
    if verdict in ("free", "held_live"):
        return Point(LOCK, host, OK, words)
    if verdict == "unknown":
        return _unseen(LOCK, host, words, "run with become, or look there")
    if lock.get("releasable"):
        left = run.blocked or _reason(result)
        return Point(LOCK, host, NEEDS_YOU, f"{words}; not released: {left}", AGAIN, WARNING)
    return Point(LOCK, host, NEEDS_YOU, f"{words}; left alone", run.command("fix.yml -e cause=lock_held"), WARNING)


def _timer(run: Run, first: Values) -> Point:
    manager = part(first, "prevent_timer_manager")
    if manager.get("rc") != 0:
        why = str(manager.get("stderr") or manager.get("msg") or "no answer").strip()
        words = f"no systemd runs here that could keep a timer ({why}); nothing was installed or removed"
        by_hand = f"let cron run {run.command('diagnose.yml')}"
        return Point(TIMER, "localhost", NEEDS_YOU, words, by_hand, WARNING)
    steps = [first.get(name) for name in ("prevent_timer_stopped", "prevent_timer_files", "prevent_timer_started")]
    told = [step for step in steps if _asked(step) and isinstance(step, Mapping)]
    for step in told:
        if _failed(step):
            return Point(TIMER, "localhost", NEEDS_YOU, _reason(step), "mend that, then run this again", WARNING)
    if any(step.get("changed") for step in told):
        return run.did(
            TIMER, "localhost", f"the timer and its service {'would change' if run.check_mode else 'changed'}"
        )
    return Point(TIMER, "localhost", OK, "the timer and its service are as they should be")


def _unseen(cause: str, host: str, why: Any, then: str) -> Point:
    return Point(cause, host, NOT_SEEN, str(why), then, CRITICAL)


def _asked(result: Any) -> bool:
    """Whether a task ran at all."""
    return isinstance(result, Mapping) and not result.get("skipped")


def _failed(result: Values) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def _reason(result: Any) -> str:
    """What a task that could not do its work says."""
    words = text(part(result).get("msg")) or "no answer"
    return words[len(TASK_FAILED) :] if words.startswith(TASK_FAILED) else words

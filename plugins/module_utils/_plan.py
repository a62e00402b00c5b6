# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan is what a dry run predicted, and the world that it rests on. This util is private to the collection.

A recovery computes what it does from what it sees and from its options. So it does exactly what a plan says as long as
both are the same, and a plan whose world has changed since is not carried out.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils import _verdict
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows

SCHEMA = 1
NOTHING = "none"
MAX_SHOWN = 200


def make_plan(run: Mapping[str, Any], evidence: Mapping[str, Any], options: Mapping[str, Any]) -> Dict[str, Any]:
    """The plan that a dry run has made.

    :param run: what ``run_report`` returned
    :param options: what the operator asked for, as texts by name; what is empty was not given
    """
    return {
        "schema": SCHEMA,
        "plan": True,
        "config": evidence.get("config"),
        "at": evidence.get("at"),
        "options": _given(options),
        "world": world(evidence),
        "nodes": run.get("nodes", {}),
        "fleet": run.get("fleet", {}),
    }


def read_plan(content: Optional[str], path: str) -> Dict[str, Any]:
    """A plan that was saved; ``content`` is None where the file could not be read.

    :raises RecoveryError: it is none
    """
    advice = "Make one: full_recovery.yml --check -e plan_file=FILE."
    if content is None:
        raise RecoveryError(f"{path} cannot be read: it does not exist, or is not yours to read. {advice}")
    try:
        plan = json.loads(content)
    except (TypeError, ValueError, RecursionError) as exc:
        raise RecoveryError(f"{path} is no plan, it is not JSON: {exc}. {advice}") from exc
    if not isinstance(plan, dict) or plan.get("plan") is not True or not isinstance(plan.get("world"), dict):
        raise RecoveryError(f"{path} is no plan of a recovery. {advice}")
    if plan.get("schema") != SCHEMA:
        raise RecoveryError(f"{path} is of schema {plan.get('schema')!r}; this version reads {SCHEMA}. {advice}")
    return plan


def differences(plan: Mapping[str, Any], evidence: Mapping[str, Any], options: Mapping[str, Any]) -> List[str]:
    """What is not as the plan says, in words; empty where the plan can be carried out."""
    if plan.get("config") != evidence.get("config"):
        return [f"it is a plan for {plan.get('config')}, and not for {evidence.get('config')}"]
    found = _compare("the option ", part(plan, "options"), _given(options))
    then, now = part(plan, "world"), world(evidence)
    for place in sorted({*then, *now}, key=str):
        if place not in then:
            found.append(f"{place} is in this run and was not in the plan's")
        elif place not in now:
            found.append(f"{place} was in the plan's run and is not in this one")
        else:
            found += _compare(f"{place}: ", part(then, place), now[place])
    return found


def world(evidence: Mapping[str, Any]) -> Dict[str, Dict[str, str]]:
    """What a recovery decides by, as words by place and aspect: of each node, and of the coordinator and its queue."""
    coordinator = part(evidence, "coordinator")
    p2p = part(coordinator, "p2p")
    places = {str(name): _node(part(evidence, "hosts", name)) for name in part(evidence, "hosts")}
    places["the coordinator"] = {
        **_node(part(coordinator, "node")),
        "orchestrator": _words(
            [p2p.get("profile"), part(p2p, "leader").get("id"), None if p2p.get("complete") is True else "not all seen"]
        ),
        "jobs": _words(sorted(str(job.get("id")) for job in rows(p2p.get("active")))),
    }
    # The batch size, a fresh export and the restart of daemons follow from what was found, whatever it rests on.
    found = _verdict.verdict(evidence).as_dict()["findings"]
    causes = sorted({f"{entry['cause']} on {entry['host'] or 'no node alone'}" for entry in found})
    places["the fleet"] = {"findings": _words(causes)}
    return places


def _node(node: Mapping[str, Any]) -> Dict[str, str]:
    processes = rows(part(node, "processes").get("processes"))
    locks = [lock for lock in rows(node.get("locks")) if lock.get("held") is not False]
    return {
        "processes": _words(sorted(f"{p.get('role')} pid {p.get('pid')} of {p.get('start_time')}" for p in processes)),
        "locks": _words(
            f"{lock.get('backend')} {lock.get('verdict')} {part(lock, 'holder').get('token')}" for lock in locks
        ),
        "training file": _words([_file(part(node, "data"))] if node.get("data") else []),
        "checkpoints": _words(_file(found) for found in rows(node.get("checkpoints"))),
        "not seen": _words(sorted(str(name) for name in part(node, "errors")) or [node.get("msg")]),
    }


def _file(found: Mapping[str, Any]) -> str:
    state = {True: "good", False: "bad"}.get(found.get("valid"), "unknown")  # type: ignore[arg-type]
    return f"{found.get('path')} of {found.get('size')} bytes at {found.get('mtime')} ({state})"


def _words(parts: Any) -> str:
    return ", ".join(str(entry) for entry in parts if entry is not None) or NOTHING


def _given(options: Mapping[str, Any]) -> Dict[str, str]:
    return {str(name): str(value) for name, value in options.items() if value not in (None, "", [], ())}


def _compare(place: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> List[str]:
    return [
        f"{place}{name} was {_short(then.get(name, NOTHING))}, and is {_short(now.get(name, NOTHING))}"
        for name in sorted({*then, *now}, key=str)
        if then.get(name, NOTHING) != now.get(name, NOTHING)
    ]


def _short(words: Any) -> str:
    text = str(words)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"

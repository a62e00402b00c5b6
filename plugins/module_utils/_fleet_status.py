# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes that the orchestrator knows, out of its ``GET /status``. This util is private to the collection.

Whatever a peer says about itself stands in that answer, so that nothing in it is believed before its type, length and
shape are checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer, Request, parse, send
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_view import as_moment, as_number, as_text, many

# Without alive_only=false the silent peers are left out, and they are those that a recovery has to ask for.
PATH = "/status?alive_only=false&no_cache=true"
# About 3 kB a peer, which stands in it twice.
BYTES_LIMIT = 64 * 1024 * 1024
NODES_LIMIT = 10000
NAME_LIMIT = 300
LIST_LIMIT = 32
LISTED = 5

# What moves from second to second is left to those who look at the node.
TEXTS = ("role", "host", "tailscale_ip", "gpu_name", "version")
NUMBERS = (
    "memory_gb",
    "disk_percent",
    "disk_free_gb",
    "selfplay_jobs",
    "training_jobs",
    "errors_last_hour",
    "oom_events",
)
FLAGS = ("has_gpu", "retired", "nat_blocked", "leader_eligible")
MOMENTS = ("last_heartbeat", "last_oom_time", "retired_at")
KEPT = (*TEXTS, *NUMBERS, *FLAGS, *MOMENTS, "node_id", "is_alive", "seconds_since_heartbeat", "capabilities")


class NoStatusError(RecoveryError):
    """No orchestrator gave a whole answer; what is wrong with the options themselves is another error."""


@dataclass(frozen=True)
class Peer:
    """A node as the orchestrator has it; ``age`` are the seconds since it was heard of, None where nothing says so."""

    name: str
    answered: bool
    alive: Optional[bool]
    age: Optional[float]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """Who answered, who leads, and all nodes by name."""

    node: str
    leader: Optional[str]
    peers: Mapping[str, Peer]
    page: Mapping[str, Any]


def fetch(urls: List[str], token: Optional[str], timeout: float) -> Tuple[str, Status]:
    """The status from the first URL that gives a whole one, and that URL.

    :param timeout: seconds for each URL
    :raises NoStatusError: none of them does; the message has the reason of each
    :raises RecoveryError: the token or the timeout cannot be used
    """
    reasons = []
    for url in urls:
        request = Request("status", "GET", PATH)
        (answer,) = send(url, [request], token, timeout, timeout, limit=BYTES_LIMIT, reader=bytes)
        try:
            return url, read_answer(answer, url, token)
        except RecoveryError as exc:
            reasons.append(str(exc))
    raise NoStatusError(" ".join(reasons))


def read_answer(answer: Answer, url: str, token: Optional[str]) -> Status:
    """The status in what came back; ``answer.body`` are the bytes.

    :raises RecoveryError: it is not the whole status of an orchestrator
    """
    whom = f"The orchestrator at {url}"
    raw = answer.body if isinstance(answer.body, bytes) else b""
    if answer.status is None:
        raise RecoveryError(f"{whom} gave no answer: {answer.error}. Start it, or give the url of another node.")
    if answer.error is not None:
        raise RecoveryError(f"{whom} gave no whole answer: {answer.error}. Ask it again, or give another url.")
    if not answer.ok:
        raise RecoveryError(f"{whom} answered HTTP {answer.status}{_told(raw, token)}. {_next_step(answer.status)}")
    text = raw.decode("utf-8", errors="replace").strip()
    if not text:
        raise RecoveryError(f"{whom} answered with nothing. Ask it again, or give the url of another node.")
    if text.startswith("<"):
        raise RecoveryError(f"{whom} answered with HTML: something else listens there, or a proxy. Check the url.")
    try:
        page = parse(text, unique=True)
    except (ValueError, RecursionError) as exc:
        said = "it is nested too deep" if isinstance(exc, RecursionError) else str(exc)[:NAME_LIMIT]
        raise RecoveryError(f"{whom} did not answer with JSON: {said}. Check the url.") from exc
    try:
        return read_page(page)
    except RecoveryError as exc:
        raise RecoveryError(f"{whom} answered, but {exc}") from exc


def _told(raw: bytes, token: Optional[str]) -> str:
    # A server may send back what it was sent, so that the token is looked for.
    try:
        body = json.loads(raw.decode("utf-8", errors="replace"))
        told = as_text(body.get("error")) if isinstance(body, dict) else None
    except (ValueError, RecursionError):
        return ""
    if not told:
        return ""
    return f" ({told.replace(token, '***') if token else told})"


def _next_step(status: int) -> str:
    if status in (401, 403):
        return "Set token, or RINGRIFT_CLUSTER_AUTH_TOKEN in the environment, to the one of the cluster."
    if 300 <= status < 400:
        return "Redirects are not followed; give the url that it leads to."
    if status == 404:
        return "Something else listens there; the orchestrator's port is 8770 unless it was told another."
    return "See its log, or give the url of another node."


def read_page(page: Any) -> Status:
    """The status out of parsed JSON, or out of the ``page`` of an earlier one.

    :raises RecoveryError: it is not the status of an orchestrator; the message goes on after "answered, but"
    """
    check = "Check the url and the version of the service."
    if not isinstance(page, Mapping):
        raise RecoveryError(f"its status is {_kind(page)} and not an object. {check}")
    for key in ("self", "peers"):
        if not isinstance(page.get(key), Mapping):
            raise RecoveryError(f"{key} in its status is {_kind(page.get(key))} and not an object. {check}")
    everyone = page.get("all_peers") or {}
    if not isinstance(everyone, Mapping):
        raise RecoveryError(f"all_peers in its status is {_kind(everyone)} and not an object. {check}")
    node = as_text(page.get("node_id")) or as_text(page["self"].get("node_id"))
    if node is None:
        raise RecoveryError(f"its status does not say which node it is (node_id). {check}")
    rows: Dict[str, Mapping[str, Any]] = {}
    for key, rest in ((name, rows_of[name]) for rows_of in (everyone, page["peers"]) for name in rows_of):
        if not isinstance(key, str) or not key.strip() or len(key) > NAME_LIMIT:
            raise RecoveryError(f"it has a peer with the name {str(key)[:60]!r}, which no node has. {check}")
        if not isinstance(rest, Mapping):
            raise RecoveryError(f"its peer {key!r} is {_kind(rest)} and not an object. {check}")
        rows[key] = {**rows.get(key, {}), **rest}
    if len(rows) > NODES_LIMIT:
        raise RecoveryError(f"it lists {len(rows)} peers, and more than {NODES_LIMIT} are not believed. {check}")
    rows.pop(node, None)
    rows = _by_identity(rows, node)
    peers = {node: _peer(node, page["self"], answered=True)}
    peers.update((name, _peer(name, row, answered=False)) for name, row in rows.items())
    leader = as_text(page.get("effective_leader_id")) or as_text(page.get("leader_id"))
    kept = {
        "node_id": node,
        "leader_id": leader,
        "self": _reduced(page["self"]),
        "peers": {name: _reduced(row) for name, row in rows.items()},
    }
    return Status(node, leader, peers, kept)


def _by_identity(rows: Mapping[str, Mapping[str, Any]], node: str) -> Dict[str, Mapping[str, Any]]:
    # A peer can stand in it under its address; under two names one machine would be stopped, counted and started twice.
    names: Dict[str, List[str]] = {node: [node]}
    found: Dict[str, Mapping[str, Any]] = {}
    for name, row in rows.items():
        identity = (as_text(row.get("node_id")) or "").strip() or name
        names.setdefault(identity, []).append(name)
        found[identity] = row
    for identity, twice in names.items():
        if len(twice) > 1:
            raise RecoveryError(
                f"it lists the node {identity!r} {len(twice)} times, as {_names(twice)}. "
                "Restart the orchestrator that has it twice, or ask another node."
            )
    return found


def _peer(name: str, row: Mapping[str, Any], answered: bool) -> Peer:
    facts: Dict[str, Any] = {key: as_text(row.get(key)) for key in TEXTS}
    facts.update((key, whole(as_number(row.get(key)))) for key in NUMBERS)
    facts.update((key, row[key] if isinstance(row.get(key), bool) else None) for key in FLAGS)
    facts.update((key, as_moment(row.get(key))) for key in MOMENTS)
    listed = row.get("capabilities")
    able = [as_text(item) for item in listed[:LIST_LIMIT]] if isinstance(listed, list) else []
    facts["capabilities"] = [item for item in able if item]
    alive = row.get("is_alive")
    # Who answers is alive, and was heard of just now.
    return Peer(
        name=name,
        answered=answered,
        alive=True if answered else alive if isinstance(alive, bool) else None,
        age=0.0 if answered else as_number(row.get("seconds_since_heartbeat")),
        facts=facts,
    )


def _reduced(row: Mapping[str, Any]) -> Dict[str, Any]:
    """What is read, and nothing else: for a cache, where it is read by the same rules again."""
    return {key: row[key] for key in KEPT if key in row}


def whole(number: Optional[float]) -> Any:
    """80 for 80.0, and whatever else as it is."""
    return int(number) if number is not None and number == int(number) else number


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names = {"dict": "an object", "list": "a list", "str": "a text", "bool": "a truth value"}
    return names.get(type(value).__name__, "a number")


def _names(names: List[str]) -> str:
    more = f" and {many(len(names) - LISTED, 'further name')}" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + more

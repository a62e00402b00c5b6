# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The orchestrator's HTTP interfaces as data. This util is private to the collection.

A profile is plain data, so that an operator can write one in inventory:

``detect``
    JMESPath over the answers by read name; true when this is the interface that answered. ``auto`` leaves a profile
    without it out, and does not send its reads.
``reads``
    List of ``{name, path, query, at, required, valid, cut, instead_of, side_effect}``. ``at`` is ``node`` (the URL that
    was given; the default) or ``leader``. ``valid`` is JMESPath over the answer, true when it is what it should be, and
    ``cut`` the same, true when it does not list everything. ``instead_of`` names the reads that this one stands in for
    when one of them did not answer or was cut. A read with a ``side_effect`` (its text says which) is sent neither in
    check mode nor for ``info``.
``leader``
    JMESPath over the answers: ``node`` (the node that answered), ``id`` (the leader), ``is_leader``, and ``peers``, a
    list of ``{id, scheme, host, port}``. Without it every request goes to the URL that was given.
``jobs``
    List of ``{kind, items, clear, withdraw}``. ``items`` is JMESPath over the answers, a list of ``{id, type, status,
    node, config or board and players, created_at, started_at, completed_at, batch_size}``. The first row of a kind and
    id wins.
    ``withdraw`` is false for mere records, of which no worker takes a job.
``finished``
    The states of a job that is over. Every other state counts as active, also one that nobody has heard of.
``counted``
    ``{kind, value}``: JMESPath over the answers, how many active jobs of the kind the orchestrator counts for the
    config.
``last_training_time``
    ``{value, source}``: JMESPath over the answers and ``jobs``, those of the config; and where that is, in words.
``cooldown``
    ``seconds`` (JMESPath) and ``blocks_dispatch``.
``dispatch``, and ``clear`` of each entry in ``jobs``
    ``{method, path, at, body, extra_into, scope, success, job_id, node, error}``. The expressions are JMESPath over
    ``{status, body}``. ``scope`` is ``job`` (one request for each job; the default) or ``all`` (one clears all).
``refusals``
    List of ``{when, say, leader}``: JMESPath over ``{status, body}``, and the next step in words. With ``leader``
    (JMESPath, the leader's id) the leader is looked up and asked instead, once.
``token_header``
    The header that carries the token: ``Authorization`` (the default), as ``Bearer <token>``, or another one, which
    carries the token alone.

In a ``path`` ``{config}``, ``{board}`` and ``{players}`` stand for these, and in that of ``clear`` also ``{id}``.
In ``query`` and ``body`` a mapping ``{$: name}`` stands for the typed value of that name (``config``, ``board``,
``players``, ``epochs``, ``batch_size``, ``priority``, ``job_timeout``, ``force``, ``id``). It is left out when the
value is null, or equals ``omit`` when the mapping has one.
"""

from __future__ import annotations

import copy
import re
import urllib.parse
from typing import Any, Dict, Iterator, Mapping, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import HEADER, METHODS, PATH

UNKNOWN = "unknown"
AUTO = "auto"

# What each key holds.
TEXT, FLAG, EXPRESSION, TEXTS, TEMPLATE, ANY = (
    *("text", "true or false", "JMESPath", "a list of texts", "a template"),
    "anything",
)
PROFILE_KEYS = {
    **{"description": TEXT, "detect": EXPRESSION, "reads": ANY, "leader": ANY, "jobs": ANY, "finished": TEXTS},
    **{"counted": ANY, "last_training_time": ANY, "cooldown": ANY, "dispatch": ANY, "refusals": ANY},
    "token_header": TEXT,
}
READ_KEYS = {
    **{"name": TEXT, "method": TEXT, "path": TEXT, "query": TEMPLATE, "at": TEXT, "required": FLAG},
    **{"valid": EXPRESSION, "cut": EXPRESSION, "instead_of": TEXTS, "side_effect": TEXT},
}
SEND_KEYS = {
    **{"method": TEXT, "path": TEXT, "at": TEXT, "body": TEMPLATE, "extra_into": TEXTS, "scope": TEXT},
    **{"success": EXPRESSION, "job_id": EXPRESSION, "node": EXPRESSION, "error": EXPRESSION},
}
JOB_KEYS = {"kind": TEXT, "items": EXPRESSION, "clear": ANY, "withdraw": FLAG}
REFUSAL_KEYS = {"when": EXPRESSION, "say": TEXT, "leader": EXPRESSION}
PART_KEYS = {
    "leader": {"node": EXPRESSION, "id": EXPRESSION, "is_leader": EXPRESSION, "peers": EXPRESSION},
    "counted": {"kind": TEXT, "value": EXPRESSION},
    "last_training_time": {"value": EXPRESSION, "source": TEXT},
    "cooldown": {"seconds": EXPRESSION, "blocks_dispatch": FLAG},
}
NEEDED = {"leader": ("id",), "counted": ("kind", "value"), "last_training_time": ("value",), "cooldown": ()}
VALUES = ("config", "board", "players", "epochs", "batch_size", "priority", "job_timeout", "force")
# What a path may hold, since it is never left out.
PATH_VALUES = ("config", "board", "players", "id")
SCOPES = ("job", "all")
AUTHORIZATION = "Authorization"

_IN_PATH = re.compile(r"\{([^{}]*)\}")
PLACES = ("node", "leader")

_FINISHED = [
    "aborted",
    "cancelled",
    "canceled",
    "cleared",
    "complete",
    "completed",
    "done",
    "error",
    "expired",
    "failed",
    "finished",
    "killed",
    "stopped",
    "success",
    "succeeded",
    "timed_out",
    "timeout",
]

_LEADER = {
    "node": "status.node_id",
    "id": "not_null(status.effective_leader_id, status.leader_id)",
    "is_leader": "not_null(status.is_leader, status.role == 'leader')",
    "peers": "[values(not_null(status.all_peers, `{}`)), values(not_null(status.peers, `{}`))][]"
    ".{id: node_id, scheme: scheme, host: host, port: port}",
}

_UNAUTHORIZED = {
    "when": "status == `401`",
    "say": "The orchestrator wants the cluster's token (RINGRIFT_CLUSTER_AUTH_TOKEN on its node): give the right one "
    "as token.",
}

RUNBOOK: Dict[str, Any] = {
    "description": "The endpoints as the runbook prints them.",
    "detect": "type(status) == 'object' && type(status.jobs) == 'array'",
    "reads": [{"name": "status", "path": "/status", "valid": "type(jobs) == 'array'"}],
    "leader": None,
    "jobs": [
        {
            "kind": "job",
            "items": "status.jobs[?type && contains(to_string(type), 'training')].{id: id, type: type, status: status, "
            "node: node_id, config: not_null(config, config_key), board: board_type, players: num_players, "
            "created_at: created_at, started_at: started_at, completed_at: completed_at, batch_size: batch_size}",
            "clear": {
                "method": "POST",
                "path": "/clear_training_state",
                "body": None,
                "scope": "all",
                "success": "status >= `200` && status < `300` && body.success != `false` && !(body.error)",
                "error": "not_null(body.error, body.message)",
            },
        }
    ],
    "finished": _FINISHED,
    "last_training_time": {"value": "status.last_training_time", "source": "last_training_time in GET /status"},
    "cooldown": {"seconds": None, "blocks_dispatch": True},
    "dispatch": {
        "method": "POST",
        "path": "/dispatch_training",
        "body": {
            "config": {"$": "config"},
            "force": {"$": "force", "omit": False},
            "batch_size": {"$": "batch_size"},
            "epochs": {"$": "epochs"},
        },
        "extra_into": [],
        "success": "status >= `200` && status < `300` && type(body) == 'object' && body.success != `false` "
        "&& !(body.error)",
        "job_id": "not_null(body.job_id, body.id, body.work_id, body.job.id)",
        "node": "not_null(body.node_id, body.worker, body.node)",
        "error": "not_null(body.error, body.message)",
    },
    "refusals": [
        {
            # The service asks for the token before it looks for the endpoint.
            "when": "status == `401`",
            "say": f"{_UNAUTHORIZED['say']} It says the same of an endpoint that it does not have, as the real service "
            "of this one: use profile=auto.",
        },
        {
            "when": "status == `404`",
            "say": "This orchestrator does not have the endpoint that the runbook prints: use profile=ringrift or "
            "profile=auto.",
        },
    ],
}

_WORK_ROW = (
    "[?work_type == 'training'].{id: work_id, type: work_type, status: status, node: claimed_by, "
    "board: config.board_type, players: config.num_players, created_at: created_at, started_at: started_at, "
    "completed_at: completed_at, batch_size: config.batch_size}"
)

RINGRIFT: Dict[str, Any] = {
    "description": "The endpoints of the real service: training records and the work queue, both kept by the leader.",
    "detect": "type(status) == 'object' && (type(status.local_jobs) == 'object' "
    "|| contains(keys(status), 'leader_id')) && records.success == `true`",
    "reads": [
        {"name": "status", "path": "/status", "valid": "type(@) == 'object'"},
        {
            "name": "records",
            "path": "/training/status",
            "at": "leader",
            "valid": "success == `true` && type(jobs) == 'array'",
        },
        # One answer is one moment: an item that changes its state between two reads is not missed.
        {
            "name": "items",
            "path": "/work/history",
            "query": {"limit": 2000},
            "at": "leader",
            "valid": "type(history) == 'array'",
            "cut": "count >= limit",
        },
        {
            "name": "counts",
            "path": "/work/metrics",
            "query": {"config": {"$": "config"}, "work_type": "training"},
            "at": "leader",
            "required": False,
            "valid": "type(by_config) == 'object' && type(by_work_type) == 'object'",
        },
        {
            "name": "pending",
            "path": "/work/history",
            "query": {"status": "pending", "limit": 2000},
            "at": "leader",
            "instead_of": ["items"],
            "valid": "type(history) == 'array'",
            "cut": "count >= limit",
        },
        {
            "name": "claimed",
            "path": "/work/history",
            "query": {"status": "claimed", "limit": 2000},
            "at": "leader",
            "instead_of": ["items"],
            "valid": "type(history) == 'array'",
            "cut": "count >= limit",
        },
        {
            "name": "running",
            "path": "/work/history",
            "query": {"status": "running", "limit": 2000},
            "at": "leader",
            "instead_of": ["items"],
            "valid": "type(history) == 'array'",
            "cut": "count >= limit",
        },
        {
            "name": "queue",
            "path": "/work/status",
            "at": "leader",
            "instead_of": ["pending", "claimed", "running"],
            "valid": "type(pending) == 'array' && type(running) == 'array'",
            # It lists ten pending items at most, whatever their number.
            "cut": "by_status.pending > length(pending)",
            "side_effect": "it returns work items past their timeout to the queue",
        },
    ],
    "leader": _LEADER,
    "jobs": [
        {
            "kind": "record",
            "withdraw": False,
            # CMA-ES tunes heuristic weights; it neither trains nor overwrites the model of the config.
            "items": "records.jobs[?job_type != 'cmaes'].{id: job_id, type: job_type, status: status, "
            "node: worker_node, board: board_type, players: num_players, created_at: created_at, "
            "started_at: started_at, completed_at: completed_at, batch_size: batch_size}",
            "clear": {
                "method": "POST",
                "path": "/training/update",
                "at": "leader",
                "body": {"job_id": {"$": "id"}, "status": "failed"},
                "success": "status == `200` && body.success == `true`",
                "error": "body.error",
            },
        },
        {
            "kind": "work",
            "items": "[items.history, pending.history, claimed.history, running.history, queue.pending, queue.running]"
            "[] | " + _WORK_ROW,
            "clear": {
                "method": "POST",
                "path": "/work/cancel",
                "at": "leader",
                "body": {"work_id": {"$": "id"}},
                "success": "status == `200` && body.status == 'cancelled'",
                "error": "not_null(body.error, body.status)",
            },
        },
    ],
    "finished": _FINISHED,
    "counted": {
        "kind": "work",
        # More than one config means that the filters of the query were not understood.
        "value": "length(keys(not_null(counts.by_config, `{}`))) <= `1` && "
        "sum(not_null(counts.by_work_type.training.[pending, claimed, running], `[0]`))",
    },
    "last_training_time": {
        "value": "max(jobs[?status == 'completed' && completed_at].completed_at)",
        "source": "completed jobs of the config in GET /training/status and GET /work/history",
    },
    "cooldown": {"seconds": "records.thresholds.cooldown_seconds", "blocks_dispatch": False},
    "dispatch": {
        "method": "POST",
        "path": "/work/add",
        "at": "leader",
        "body": {
            "work_type": "training",
            "priority": {"$": "priority"},
            "config": {
                "board_type": {"$": "board"},
                "num_players": {"$": "players"},
                "epochs": {"$": "epochs"},
                "batch_size": {"$": "batch_size"},
            },
            "timeout_seconds": {"$": "job_timeout"},
            "force": {"$": "force", "omit": False},
        },
        "extra_into": ["config"],
        "success": "status == `200` && body.status == 'added' && body.success != `false` "
        "&& type(body.work_id) == 'string'",
        "job_id": "body.work_id",
        "node": None,
        "error": "not_null(body.error, body.status)",
    },
    "refusals": [
        _UNAUTHORIZED,
        {
            "when": "body.code == 'NOT_LEADER' || body.error == 'Only leader can dispatch training jobs'",
            "leader": "not_null(body.leader_id, body.details.leader_id)",
            "say": "Leadership moved or is disputed: look at leader_id in /status of every node, then run again.",
        },
        {
            "when": "body.code == 'BACKPRESSURE'",
            "say": "The work queue is full: let it drain, or cancel items that nobody wants (POST /work/cancel); "
            "-e force=true adds the item all the same.",
        },
        {
            "when": "body.error == 'leader_unknown'",
            "say": "There is no leader: wait for the election, or look at the coordinator's orchestrator.",
        },
        {
            "when": "body.code == 'WORK_QUEUE_UNAVAILABLE'",
            "say": "The work queue is not open: look at data/work_queue.db and the disk of the leader.",
        },
        {
            "when": "status == `404`",
            "say": "This orchestrator does not have that endpoint: use profile=auto.",
        },
    ],
}

BUILT_IN: Dict[str, Dict[str, Any]] = {"runbook": RUNBOOK, "ringrift": RINGRIFT}


def load_profiles(own: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """All profiles by name: the operator's own ones first, then the built-in ones, which an own one can replace.

    A profile with ``extends: <name>`` takes the keys that it does not have from the built-in profile of that name.

    :raises RecoveryError: one of them is not a profile
    """
    profiles: Dict[str, Dict[str, Any]] = {}
    for name, given in own.items():
        if name in (AUTO, UNKNOWN):
            raise RecoveryError(f"A profile cannot be called {name}; that name has a meaning of its own.")
        if not isinstance(given, Mapping):
            raise RecoveryError(f"The profile {name} is {type(given).__name__}, not a mapping.")
        profile = dict(given)
        base = profile.pop("extends", None)
        if base is not None and base not in BUILT_IN:
            raise RecoveryError(f"The profile {name} extends {base!r}; only {' and '.join(BUILT_IN)} can be extended.")
        profiles[name] = {**copy.deepcopy(BUILT_IN.get(base, {})), **profile}
    for name, profile in BUILT_IN.items():
        profiles.setdefault(name, copy.deepcopy(profile))
    for name, profile in profiles.items():
        _check(name, profile)
    return profiles


def expressions_of(profile: Mapping[str, Any]) -> Iterator[Tuple[str, str]]:
    """All JMESPath of a profile that was checked, and where it stands."""
    for where, part, known in _parts(profile):
        for key, kind in known.items():
            if kind == EXPRESSION and part.get(key) is not None:
                yield f"{key} of {where}" if where else key, part[key]


def _parts(profile: Mapping[str, Any]) -> Iterator[Tuple[str, Mapping[str, Any], Mapping[str, str]]]:
    yield "", profile, PROFILE_KEYS
    for read in profile["reads"]:
        yield f"the read {read['name']}", read, READ_KEYS
    for key, known in PART_KEYS.items():
        if profile.get(key) is not None:
            yield key, profile[key], known
    for job in profile["jobs"]:
        yield f"the jobs of the kind {job['kind']}", job, JOB_KEYS
        if job.get("clear") is not None:
            yield f"clear of {job['kind']}", job["clear"], SEND_KEYS
    yield "dispatch", profile["dispatch"], SEND_KEYS
    for refusal in profile.get("refusals") or ():
        yield "a refusal", refusal, REFUSAL_KEYS


def _check(name: str, profile: Mapping[str, Any]) -> None:
    _check_keys(f"The profile {name}", profile, PROFILE_KEYS, ("reads", "jobs", "dispatch"))
    _check_reads(name, profile["reads"])
    kinds = []
    for job in _mappings(name, "jobs", profile["jobs"]):
        _check_keys(f"An entry in jobs of the profile {name}", job, JOB_KEYS, ("kind", "items"))
        kinds.append(job["kind"])
        if job.get("clear") is not None:
            _check_send(f"clear of {job['kind']} in the profile {name}", job["clear"], (*VALUES, "id"))
    _check_send(f"dispatch of the profile {name}", profile["dispatch"], VALUES)
    for key, known in PART_KEYS.items():
        if profile.get(key) is not None:
            _check_keys(f"{key} of the profile {name}", profile[key], known, NEEDED[key])
    if profile.get("counted") and profile["counted"]["kind"] not in kinds:
        raise RecoveryError(
            f"counted of the profile {name} is of the kind {profile['counted']['kind']}, which is not in jobs."
        )
    for refusal in _mappings(name, "refusals", profile.get("refusals") or []):
        _check_keys(f"A refusal of the profile {name}", refusal, REFUSAL_KEYS, ("when", "say"))
    header = profile.get("token_header")
    if header is not None and HEADER.match(header) is None:
        raise RecoveryError(f"token_header of the profile {name} is {header!r}, which no HTTP header is called.")


def _check_reads(name: str, reads: Any) -> None:
    names = []
    for read in _mappings(name, "reads", reads):
        _check_keys(f"A read of the profile {name}", read, READ_KEYS, ("name", "path"))
        what = f"The read {read['name']} of the profile {name}"
        if read.get("method", "GET") != "GET":
            raise RecoveryError(f"{what} has the method {read['method']}, not GET.")
        if read["name"] in names:
            raise RecoveryError(f"{what} is there twice; give each read a name of its own.")
        _check_request(what, read, VALUES)
        names.append(read["name"])
    for read in reads:
        if not set(read.get("instead_of") or ()) <= set(names):
            raise RecoveryError(f"The read {read['name']} of the profile {name} stands in for an unknown read.")


def _check_send(what: str, send: Any, values: Sequence[str]) -> None:
    _check_keys(what, send, SEND_KEYS, ("path", "success"))
    if send.get("method", "POST") not in METHODS:
        raise RecoveryError(f"{what} has the method {send['method']}; use one of {', '.join(METHODS)}.")
    if send.get("scope", "job") not in SCOPES:
        raise RecoveryError(f"{what} has the scope {send['scope']}; use {' or '.join(SCOPES)}.")
    _check_request(what, send, values)


def _check_request(what: str, part: Mapping[str, Any], values: Sequence[str]) -> None:
    if PATH.match(part["path"]) is None:
        raise RecoveryError(f"{what} has the path {part['path']!r}; it begins with a slash and has no spaces.")
    for found in _IN_PATH.findall(part["path"]):
        if found not in values or found not in PATH_VALUES:
            allowed = ", ".join(value for value in PATH_VALUES if value in values)
            raise RecoveryError(f"{what} has {{{found}}} in its path; use one of {allowed}.")
    if part.get("at", "node") not in PLACES:
        raise RecoveryError(f"{what} is at {part['at']!r}; use node or leader.")
    for key in ("query", "body"):
        _check_template(f"{key} of {what[0].lower()}{what[1:]}", part.get(key), values)


def _check_template(what: str, template: Any, values: Sequence[str]) -> None:
    if isinstance(template, list):
        for item in template:
            _check_template(what, item, values)
    if not isinstance(template, Mapping):
        return
    if "$" not in template:
        for item in template.values():
            _check_template(what, item, values)
        return
    if template["$"] not in values or not set(template) <= {"$", "omit"}:
        raise RecoveryError(
            f"{what} has the placeholder {dict(template)}; give {{$: NAME}}, and omit: VALUE where you like; names are "
            f"{', '.join(values)}."
        )


def _mappings(name: str, key: str, value: Any) -> Any:
    if not isinstance(value, list):
        raise RecoveryError(f"{key} of the profile {name} is {type(value).__name__}, not a list.")
    return value


def _check_keys(what: str, value: Any, known: Mapping[str, str], required: Sequence[str]) -> None:
    if not isinstance(value, Mapping):
        raise RecoveryError(f"{what} is {type(value).__name__}, not a mapping.")
    missing = [key for key in required if value.get(key) is None]
    unknown = [str(key) for key in value if key not in known]
    if unknown:
        raise RecoveryError(f"{what} has keys that mean nothing: {', '.join(unknown)}; known are {', '.join(known)}.")
    if missing:
        raise RecoveryError(f"{what} lacks {', '.join(missing)}.")
    for key, item in value.items():
        if item is not None and not _is(known[key], item):
            raise RecoveryError(f"{what} has {key}: {str(item)[:80]!r}, which is not {known[key]}.")


def _is(kind: str, value: Any) -> bool:
    if kind in (TEXT, EXPRESSION):
        return isinstance(value, str) and bool(value)
    if kind == FLAG:
        return isinstance(value, bool)
    if kind == TEXTS:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return True


def render(template: Any, values: Mapping[str, Any]) -> Any:
    """Fill the placeholders of a template with typed values.

    :raises RecoveryError: a placeholder names no value
    """
    if isinstance(template, Mapping):
        filled = {}
        for key, item in template.items():
            if isinstance(item, Mapping) and "$" in item:
                value = _value(item, values)
                if value is None or ("omit" in item and value == item["omit"]):
                    continue
                filled[key] = value
            else:
                filled[key] = render(item, values)
        return filled
    if isinstance(template, list):
        return [
            _value(item, values) if isinstance(item, Mapping) and "$" in item else render(item, values)
            for item in template
        ]
    return template


def render_path(path: str, values: Mapping[str, Any]) -> str:
    """Fill the names in a path; a value stays one part of it, whatever it is."""

    def fill(match: re.Match[str]) -> str:
        value = urllib.parse.quote(str(values[match.group(1)]), safe="")
        # One that is only dots would mean another place.
        return value if value.strip(".") else value.replace(".", "%2E")

    return _IN_PATH.sub(fill, path)


def _value(placeholder: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    name = placeholder["$"]
    if name not in values:
        raise RecoveryError(
            f"The placeholder {name!r} of a profile names no value; known are {', '.join(sorted(values))}."
        )
    return values[name]

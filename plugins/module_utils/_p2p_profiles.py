# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The orchestrator's HTTP interfaces as data. This util is private to the collection.

A profile is plain data, so that an operator can write one in inventory:

``detect``
    JMESPath over the answers by read name; true when this is the interface that answered.
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

In ``query`` and ``body`` a mapping ``{$: name}`` stands for the typed value of that name (``config``, ``board``,
``players``, ``epochs``, ``batch_size``, ``priority``, ``job_timeout``, ``force``, ``id``). It is left out when the
value is null, or equals ``omit`` when the mapping has one.
"""

from __future__ import annotations

import copy
from typing import Any, Dict, Mapping

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

UNKNOWN = "unknown"
AUTO = "auto"

PROFILE_KEYS = (
    "description",
    "detect",
    "reads",
    "leader",
    "jobs",
    "finished",
    "counted",
    "last_training_time",
    "cooldown",
    "dispatch",
    "refusals",
)
READ_KEYS = ("name", "method", "path", "query", "at", "required", "valid", "cut", "instead_of", "side_effect")
SEND_KEYS = ("method", "path", "at", "body", "extra_into", "scope", "success", "job_id", "node", "error")
JOB_KEYS = ("kind", "items", "clear", "withdraw")
PART_KEYS = {
    "leader": ("node", "id", "is_leader", "peers"),
    "counted": ("kind", "value"),
    "last_training_time": ("value", "source"),
    "cooldown": ("seconds", "blocks_dispatch"),
}
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
        _UNAUTHORIZED,
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


def _check(name: str, profile: Mapping[str, Any]) -> None:
    _check_keys(f"The profile {name}", profile, PROFILE_KEYS, ("reads", "jobs", "dispatch"))
    names = set()
    for read in _mappings(name, "reads", profile["reads"]):
        _check_keys(f"A read of the profile {name}", read, READ_KEYS, ("name", "path"))
        if read.get("method", "GET") != "GET":
            raise RecoveryError(
                f"The read {read['name']} of the profile {name} has the method {read['method']}, not GET."
            )
        if read.get("at", "node") not in PLACES:
            raise RecoveryError(
                f"The read {read['name']} of the profile {name} is at {read['at']!r}; use node or leader."
            )
        names.add(read["name"])
    for read in profile["reads"]:
        if not set(read.get("instead_of") or ()) <= names:
            raise RecoveryError(f"The read {read['name']} of the profile {name} stands in for an unknown read.")
    for job in _mappings(name, "jobs", profile["jobs"]):
        _check_keys(f"An entry in jobs of the profile {name}", job, JOB_KEYS, ("kind", "items"))
        if job.get("clear") is not None:
            _check_keys(f"clear of {job['kind']} in the profile {name}", job["clear"], SEND_KEYS, ("path", "success"))
    _check_keys(f"dispatch of the profile {name}", profile["dispatch"], SEND_KEYS, ("path", "success"))
    for key, known in PART_KEYS.items():
        if profile.get(key) is not None:
            _check_keys(f"{key} of the profile {name}", profile[key], known, ())
    for refusal in _mappings(name, "refusals", profile.get("refusals") or []):
        _check_keys(f"A refusal of the profile {name}", refusal, ("when", "say", "leader"), ("when", "say"))


def _mappings(name: str, key: str, value: Any) -> Any:
    if not isinstance(value, list):
        raise RecoveryError(f"{key} of the profile {name} is {type(value).__name__}, not a list.")
    return value


def _check_keys(what: str, value: Any, known: Any, required: Any) -> None:
    if not isinstance(value, Mapping):
        raise RecoveryError(f"{what} is {type(value).__name__}, not a mapping.")
    missing = [key for key in required if value.get(key) is None]
    unknown = [str(key) for key in value if key not in known]
    if missing:
        raise RecoveryError(f"{what} lacks {', '.join(missing)}.")
    if unknown:
        raise RecoveryError(f"{what} has keys that mean nothing: {', '.join(unknown)}; known are {', '.join(known)}.")


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


def _value(placeholder: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    name = placeholder["$"]
    if name not in values:
        raise RecoveryError(
            f"The placeholder {name!r} of a profile names no value; known are {', '.join(sorted(values))}."
        )
    return values[name]

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes of the orchestrator, as far as somebody asked them. Part of the stand-in, see `app`.

Kept from the real one: the token is asked for before the route is looked up, so that an unknown POST is 401 and not
404; a refusal is often HTTP 200 with `success: false`; unknown keys of a body are ignored and defaults apply.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from scripts.p2p import client
from scripts.p2p.state import THRESHOLDS, Orchestrator
from scripts.p2p.status_page import subscriptions
from scripts.p2p.work_queue import ITEM_TIMEOUT, Backpressure

BODY_LIMIT = 1 << 20
# How long the answer to a restart has to leave.
RESTART_SECONDS = 2.0
# What a fault asks of every answer.
ANSWERS = "data/lab/p2p_answers.json"
SLOW_SECONDS = 60.0
# A restart of the service starts its daemons anew.
DAEMONS_DOWN = "data/lab/daemons_down.json"
CONFIG = re.compile(r"\A([a-z][a-z0-9]*)_([2-4])p\Z")

logger = logging.getLogger("p2p_orchestrator")


@dataclass
class Ask:
    """A request."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    names: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises ValueError as json does."""
        body = json.loads(self.raw.decode("utf-8", errors="replace"))
        if not isinstance(body, dict):
            raise ValueError("JSON object expected")
        return body


Reply = tuple[int, Any]
Handler = Callable[[Orchestrator, Ask], Reply]


def problem(text: str, status: int, code: str | None = None, details: dict[str, Any] | None = None) -> Reply:
    """The shape of most errors of the work queue."""
    body: dict[str, Any] = {"error": text, "status": status, "timestamp": time.time()}
    if code:
        body["code"] = code
    if details is not None:
        body.update(details=details, **details)
    return status, body


def not_leader(me: Orchestrator) -> Reply:
    return problem("Not leader - forward to leader", 403, "NOT_LEADER", {"leader_id": me.leader_id})


def proxied(me: Orchestrator, ask: Ask) -> Reply:
    """What the leader answers to a request that came to a follower."""
    if me.leader_id is None:
        return 503, {"success": False, "error": "leader_unknown", "leader_id": None}
    try:
        body = None if ask.method == "GET" else json.loads(ask.raw or b"{}")
        return client.call(me.leader_url() + ask.path, body, me.token)
    except (OSError, ValueError) as error:
        return 502, {"success": False, "error": "leader_proxy_failed", "detail": str(error)[:200]}


# Status


def get_status(me: Orchestrator, ask: Ask) -> Reply:
    return 200, me.status(alive_only=ask.query.get("alive_only", "true").lower() != "false")


def get_health(me: Orchestrator, ask: Ask) -> Reply:
    return 200, me.health()


def get_gpu_health(me: Orchestrator, ask: Ask) -> Reply:
    return 500, {"error": "'P2POrchestrator' object has no attribute '_get_gpu_metrics'"}


def get_subscriptions(me: Orchestrator, ask: Ask) -> Reply:
    return 200, subscriptions(me.node_id, me.unwired())


def get_game_counts(me: Orchestrator, ask: Ask) -> Reply:
    return 200, {"game_counts": {}, "node_id": me.node_id, "source": "cluster_aware", "count": 0}


def get_raft_status(me: Orchestrator, ask: Ask) -> Reply:
    return 200, {
        "node_id": me.node_id,
        "raft_enabled": True,
        "pysyncobj_available": False,
        "raft_initialized": False,
        "consensus_mode": "hybrid",
        "config": {"bind_port": 4321},
        "work_queue": {"available": False},
        "job_assignments": {"available": False},
        "cluster_health": "disabled",
        "timestamp": time.time(),
    }


def raft_lock(me: Orchestrator, ask: Ask) -> Reply:
    details = {"acquired": False, "lock_name": ask.names[0]}
    return problem("Raft not enabled or not initialized", 503, "RAFT_UNAVAILABLE", details)


def heartbeat(me: Orchestrator, ask: Ask) -> Reply:
    me.heard(str(ask.json().get("node_id", "")))
    return 200, {"success": True, "node_id": me.node_id, "leader_id": me.leader_id}


# Training records


def get_training_status(me: Orchestrator, ask: Ask) -> Reply:
    return 200, {"success": True, "jobs": me.records(), "thresholds": dict(THRESHOLDS)}


def training_start(me: Orchestrator, ask: Ask) -> Reply:
    try:
        body = ask.json()
        if not me.is_leader:
            return 200, {"success": False, "error": "Only leader can dispatch training jobs"}
        kind, board = str(body.get("job_type", "nnue")), str(body.get("board_type", "square8"))
        record = me.start_record(kind, board, int(body.get("num_players", 2)))
    except (TypeError, ValueError) as error:
        return 200, {"success": False, "error": str(error)}
    if record is None:
        return 200, {"success": False, "error": "No suitable worker available"}
    return 200, {"success": True, "job_id": record["job_id"], "worker": record["worker_node"]}


def training_update(me: Orchestrator, ask: Ask) -> Reply:
    try:
        body = ask.json()
    except ValueError as error:
        return 200, {"success": False, "error": str(error)}
    if me.finish_record(body.get("job_id"), body):
        return 200, {"success": True}
    return 200, {"success": False, "error": f"Job {body.get('job_id')} not found"}


def nnue_start(me: Orchestrator, ask: Ask) -> Reply:
    return me.start_nnue(ask.json())


def get_training_metrics(me: Orchestrator, ask: Ask) -> Reply:
    return 200, {"configs": {}, "latest_training": None}


def get_training_progress(me: Orchestrator, ask: Ask) -> Reply:
    return 200, {"success": False, "error": "Training database not found: data/training_coordination.db"}


def get_api_training_status(me: Orchestrator, ask: Ask) -> Reply:
    zeros = ("uptime_seconds", "current_cycle", "total_games_generated", "total_training_runs", "total_tournaments")
    daemon = {"running": False, "pid": None, "last_cycle_at": "", **dict.fromkeys(zeros, 0)}
    daemon.update(total_auto_promotions=0, last_auto_promote_time=0, consecutive_failures=0)
    return 200, {
        "success": True,
        "daemon": daemon,
        "nnue": {"state": "idle", "models": [], "model_details": {}, "per_config_state": {}, "last_gate_result": None},
        "cmaes": {"state": "idle", "profiles": [], "profile_count": 0, "per_config_state": {}, "generations": 0},
        "promotion": {"runtime_overrides": {}, "recent_promotions": []},
        "timestamp": time.time(),
    }


# Jobs


def get_api_jobs(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader and ask.query.get("local") != "1" and me.leader_id:
        return proxied(me, ask)
    jobs = []
    for record in me.records():
        names = ("job_id", "job_type", "status", "created_at", "board_type", "num_players")
        jobs.append(
            {**{name: record[name] for name in names}, "assigned_to": record["worker_node"], "category": "training"}
        )
    for name, key in (("type", "job_type"), ("status", "status")):
        if name in ask.query:
            jobs = [job for job in jobs if job[key] == ask.query[name]]
    jobs.sort(key=lambda job: -job["created_at"])
    return 200, {"success": True, "jobs": jobs[: int(ask.query.get("limit", 100))], "total": len(jobs)}


def get_api_job(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader and me.leader_id:
        return proxied(me, ask)
    for record in me.records():
        if record["job_id"] == ask.names[0]:
            names = ("job_id", "job_type", "status", "board_type", "num_players", "created_at", "started_at")
            job = {name: record[name] for name in (*names, "completed_at", "output_model_path", "error_message")}
            job.update(assigned_worker=record["worker_node"], category="training")
            return 200, {"success": True, "job": job}
    return 404, {"success": False, "error": f"Job {ask.names[0]} not found"}


def submit_api_job(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader:
        if ask.query.get("local") == "1":
            error = "Not the leader. Please submit to leader node."
            return 400, {"success": False, "error": error, "leader_id": me.leader_id}
        return proxied(me, ask)
    body = ask.json()
    kind, board = str(body.get("job_type", "nnue")), str(body.get("board_type", "square8"))
    record = me.start_record(kind, board, int(body.get("num_players", 2)))
    if record is None:
        return 400, {"success": False, "error": "No suitable worker available"}
    names = ("job_id", "job_type", "status")
    return 200, {"success": True, **{name: record[name] for name in names}, "message": "Job submitted"}


def cancel_api_job(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader:
        return proxied(me, ask)
    for record in me.records():
        if record["job_id"] == ask.names[0]:
            if record["status"] not in ("pending", "queued"):
                return 400, {"success": False, "error": f"Cannot cancel job in status: {record['status']}"}
            me.change_record(record["job_id"], status="cancelled")
            return 200, {"success": True, "job_id": record["job_id"], "status": "cancelled"}
    return 404, {"success": False, "error": f"Job {ask.names[0]} not found"}


def stop_job(me: Orchestrator, ask: Ask) -> Reply:
    return 404, {"success": False, "error": "Job not found"}


def kill_job(me: Orchestrator, ask: Ask) -> Reply:
    # The real one runs pkill -9 when it is given a type; this one never does.
    return 200, {"success": False, "killed": 0, "reason": ask.json().get("reason", "unknown")}


def reset_node_jobs(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader:
        return 403, {"error": "This endpoint is only available on the cluster leader"}
    node = ask.json().get("node_id")
    if node not in me.peers:
        names = sorted(me.peers)
        error = f"Node {node!r} not found in peer registry"
        return 404, {"error": error, "available_nodes": names, "total_nodes": len(names)}
    return 200, {"success": True, "node_id": node}


def admin_restart(me: Orchestrator, ask: Ask) -> Reply:
    token = os.environ.get("RINGRIFT_ADMIN_TOKEN")
    if token and not hmac.compare_digest((ask.headers.get("X-Admin-Token") or "").encode(), token.encode()):
        return problem("Unauthorized", 401)

    def again() -> None:
        time.sleep(RESTART_SECONDS)
        (me.root / DAEMONS_DOWN).unlink(missing_ok=True)
        # The same process by number, as the real one; its sockets are closed by it, and what runs goes on.
        os.execv(sys.executable, sys.orig_argv)

    threading.Thread(target=again, daemon=True).start()
    return 200, {"success": True, "message": "Restart scheduled, process will restart in 2 seconds"}


# The work queue


def work_add(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader:
        return not_leader(me)
    body = ask.json()
    kind, priority = body.get("work_type", "selfplay"), body.get("priority", 50)
    try:
        work_id = me.queue.add(
            kind,
            priority,
            body.get("config", {}),
            body.get("timeout_seconds", ITEM_TIMEOUT),
            body.get("depends_on", []),
            bool(body.get("force", False)),
        )
    except Backpressure as error:
        return problem(str(error), 429, "BACKPRESSURE", me.queue.backpressure())
    return 200, {"status": "added", "work_id": work_id, "work_type": kind, "priority": priority}


def get_work_status(me: Orchestrator, ask: Ask) -> Reply:
    late = me.queue.check_timeouts()
    return 200, {
        **me.queue.status(),
        "is_leader": me.is_leader,
        "leader_id": me.leader_id,
        "timed_out_this_check": late,
        "backpressure": me.queue.backpressure(),
    }


def get_work_metrics(me: Orchestrator, ask: Ask) -> Reply:
    return 200, {
        **me.queue.metrics(ask.query.get("config"), ask.query.get("work_type")),
        "is_leader": me.is_leader,
        "leader_id": me.leader_id,
        "backpressure": me.queue.backpressure(),
    }


def get_work_history(me: Orchestrator, ask: Ask) -> Reply:
    limit, status = int(ask.query.get("limit", 50)), ask.query.get("status")
    history = me.queue.history(limit, status)
    return 200, {"history": history, "count": len(history), "limit": limit, "status_filter": status}


def get_work_node(me: Orchestrator, ask: Ask) -> Reply:
    items = me.queue.of_node(ask.names[0])
    return 200, {"node_id": ask.names[0], "work_items": items, "count": len(items)}


def get_work_claim(me: Orchestrator, ask: Ask) -> Reply:
    node = ask.query.get("node_id", "")
    if not node:
        return problem("node_id required", 400)
    if not me.is_leader:
        return not_leader(me)
    me.heard(node)
    capabilities = [name for name in ask.query.get("capabilities", "").split(",") if name]
    item = me.queue.claim(node, capabilities)
    return 200, {"status": "claimed", "work": item} if item else {"status": "no_work_available"}


def get_work_claim_training(me: Orchestrator, ask: Ask) -> Reply:
    return problem("WorkQueue.claim_work() takes from 2 to 3 positional arguments but 4 were given", 500)


def _work_change(word: str, change: Callable[[Orchestrator, dict], bool], otherwise: str) -> Handler:
    def handler(me: Orchestrator, ask: Ask) -> Reply:
        if not me.is_leader:
            return not_leader(me)
        body = ask.json()
        if not body.get("work_id"):
            return problem("work_id required", 400)
        return 200, {"status": word if change(me, body) else otherwise, "work_id": body["work_id"]}

    return handler


work_start = _work_change("started", lambda me, body: me.queue.start(body["work_id"]), "failed")
work_complete = _work_change(
    "completed", lambda me, body: me.queue.complete(body["work_id"], body.get("result") or {}), "failed"
)
work_fail = _work_change(
    "failed", lambda me, body: me.queue.fail(body["work_id"], str(body.get("error", "unknown"))), "not_found"
)
work_cancel = _work_change("cancelled", lambda me, body: me.queue.cancel(body["work_id"]), "failed")


def work_flush(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader:
        return not_leader(me)
    kind = ask.query.get("work_type")
    return 200, {"status": "flushed", "items_flushed": me.queue.flush_stale(kind), "work_type_filter": kind}


def get_dispatch_stats(me: Orchestrator, ask: Ask) -> Reply:
    names = (
        "circuit_breaker",
        "capability",
        "exclusion",
        "target_node",
        "target_node_expired",
        "requires_gpu",
        "policy",
    )
    rejections = {f"rejected_by_{name}": 0 for name in (*names, "already_claimed")}
    items = me.queue.items()
    states = ("pending", "claimed", "running", "completed", "failed")
    return 200, {
        "claim_rejection_stats": {
            "total_claim_attempts": 0,
            **rejections,
            "successful_claims": 0,
            "target_node_rejections": {},
            "last_reset_at": me.started,
            "elapsed_seconds": time.time() - me.started,
        },
        "queue_stats": {
            **{state: sum(1 for item in items if item["status"] == state) for state in states},
            "total_items": len(items),
        },
        "is_leader": me.is_leader,
        "leader_id": me.leader_id,
    }


# The interface of the runbook, which the real one never had


def dispatch_training(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader:
        return not_leader(me)
    body = ask.json()
    match = CONFIG.match(str(body.get("config", "")))
    if match is None:
        return 400, {"success": False, "error": f"Unknown config: {body.get('config')!r}"[:200]}
    remaining = me.cooldown_remaining()
    if remaining > 0 and not body.get("force"):
        error = f"Cooldown active for another {remaining:.0f}s"
        return 200, {"success": False, "error": error, "cooldown_remaining": remaining}
    config = {"board_type": match.group(1), "num_players": int(match.group(2))}
    config.update({name: body[name] for name in ("epochs", "batch_size") if name in body})
    work_id = me.queue.add("training", 90, config, 24 * 3600, [], True)
    return 200, {"success": True, "job_id": f"training_{body['config']}_{work_id}", "config": body["config"]}


def clear_training_state(me: Orchestrator, ask: Ask) -> Reply:
    if not me.is_leader:
        return not_leader(me)
    return 200, {"success": True, "cleared": me.clear_training_state()}


ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", r"/status", get_status),
    ("GET", r"/health", get_health),
    ("GET", r"/health/gpu", get_gpu_health),
    ("GET", r"/subscriptions", get_subscriptions),
    ("GET", r"/game_counts", get_game_counts),
    ("GET", r"/raft/status", get_raft_status),
    ("POST", r"/raft/lock/([^/]+)", raft_lock),
    ("DELETE", r"/raft/lock/([^/]+)", raft_lock),
    ("POST", r"/heartbeat", heartbeat),
    ("GET", r"/training/status", get_training_status),
    ("POST", r"/training/start", training_start),
    ("POST", r"/training/update", training_update),
    ("POST", r"/training/nnue/start", nnue_start),
    ("GET", r"/training/metrics", get_training_metrics),
    ("GET", r"/training/progress", get_training_progress),
    ("GET", r"/api/training/status", get_api_training_status),
    ("GET", r"/api/jobs", get_api_jobs),
    ("POST", r"/api/jobs/submit", submit_api_job),
    ("POST", r"/api/jobs/([^/]+)/cancel", cancel_api_job),
    ("GET", r"/api/jobs/([^/]+)", get_api_job),
    ("POST", r"/stop_job", stop_job),
    ("POST", r"/job/kill", kill_job),
    ("POST", r"/admin/reset_node_jobs", reset_node_jobs),
    ("POST", r"/admin/restart", admin_restart),
    ("POST", r"/work/add", work_add),
    ("GET", r"/work/status", get_work_status),
    ("GET", r"/work/metrics", get_work_metrics),
    ("GET", r"/work/history", get_work_history),
    ("GET", r"/work/node/([^/]+)", get_work_node),
    ("GET", r"/work/claim", get_work_claim),
    ("GET", r"/work/claim_training", get_work_claim_training),
    ("POST", r"/work/start", work_start),
    ("POST", r"/work/complete", work_complete),
    ("POST", r"/work/fail", work_fail),
    ("POST", r"/work/cancel", work_cancel),
    ("POST", r"/work/flush_stale", work_flush),
    ("GET", r"/dispatch/stats", get_dispatch_stats),
]
RUNBOOK_ROUTES: list[tuple[str, str, Handler]] = [
    ("POST", r"/dispatch_training", dispatch_training),
    ("POST", r"/clear_training_state", clear_training_state),
]


class RequestHandler(BaseHTTPRequestHandler):
    """One connection. The server carries the orchestrator as an attribute."""

    protocol_version = "HTTP/1.1"
    server_version = "ai-service-stand-in"
    timeout = 30

    def _authorized(self) -> bool:
        token = self.server.orchestrator.token
        if not token or self.command in ("GET", "HEAD", "OPTIONS"):
            return True
        given = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("X-RingRift-Auth", "")
        return hmac.compare_digest(given.encode(), token.encode())

    def _answer(self) -> None:
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= BODY_LIMIT:
            self.close_connection = True
            self._write(413, "413: Request Entity Too Large")
            return
        raw = self.rfile.read(length)
        if not self._authorized():
            self._write(401, {"error": "unauthorized"})
            return
        if self.command not in ("GET", "HEAD"):
            logger.info("%s %s %s", self.command, self.path, raw[:500].decode("utf-8", errors="replace"))
        self._write(*(self._broken() or self._dispatch(raw)))

    def _broken(self) -> Reply | None:
        """What is answered instead, where a fault asks for it."""
        try:
            how = json.loads((self.server.orchestrator.root / ANSWERS).read_text()).get("how")
        except (OSError, ValueError, AttributeError):
            return None
        if how == "slow":
            time.sleep(SLOW_SECONDS)
        if how == "error":
            return problem("database is locked", 500)
        if how == "garbage":
            return 200, "<html><body>502 Bad Gateway {{ 7 * 7 }}</body></html>"
        if how == "refuse" and self.command == "POST":
            return 200, {"success": False, "error": "Cluster is in maintenance"}
        return None

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def _dispatch(self, raw: bytes) -> Reply:
        orchestrator = self.server.orchestrator
        parts = urlsplit(self.path)
        routes = ROUTES + (RUNBOOK_ROUTES if orchestrator.api == "runbook" else [])
        known = False
        for method, pattern, handler in routes:
            match = re.fullmatch(pattern, parts.path)
            if match is None:
                continue
            known = True
            if method != self.command:
                continue
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            ask = Ask(self.command, self.path, query, raw, match.groups(), self.headers)
            try:
                return handler(orchestrator, ask)
            except json.JSONDecodeError:
                return problem("Invalid JSON body", 400)
            except Exception as error:
                logger.error("Error in %s %s: %s", self.command, parts.path, error)
                return problem(str(error), 500)
        return (405, "405: Method Not Allowed") if known else (404, "404: Not Found")

    def _write(self, status: int, payload: Any) -> None:
        text = isinstance(payload, str)
        data = payload.encode() if text else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{'text/plain' if text else 'application/json'}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils import _p2p, _p2p_view
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import send
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p import ARGUMENT_SPEC, Options, Reply, run
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_profiles import (
    BUILT_IN,
    load_profiles,
    render,
    render_path,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_view import (
    as_moment,
    check_expressions,
    config_of,
    search,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.p2p_servers import Scripted, StandIn, free_port, wait_for

TRAINING = {"success": True, "jobs": [], "thresholds": {"cooldown_seconds": 1800.0}}
STATUS = {"node_id": "coord", "leader_id": "coord", "role": "leader", "is_leader": True, "local_jobs": {}, "peers": {}}
KEYS = {
    "changed",
    "failed",
    "msg",
    "reachable",
    "profile",
    "reason",
    "complete",
    "leader",
    "jobs",
    "active",
    "cooldown",
    "dispatched",
    "cleared",
    "requests",
    "notes",
}


def ask(url, state="query", check=False, timeout=2.0, clock=time.time, sent=None, **params):
    """The whole conversation over real HTTP, as the action plugin has it."""
    defaults = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
    options = Options.from_params({**defaults, "config": "hex8_2p", "url": url, "state": state, **params}, check)

    def deliver(batch):
        if sent is not None:
            sent.append(batch)
        more = {"token": params.get("token"), "token_headers": batch.token_headers}
        answers = send(batch.url, batch.requests, timeout=timeout, dry_run=check, **more)
        return Reply(answers, clock())

    result = run(options, deliver)
    assert set(result) - {"diff"} == KEYS
    json.dumps(result, allow_nan=False)
    return result


def item(work_id="w1", status="pending", config="hex8_2p", **more):
    board, players = config.rsplit("_", 1)
    base = {"work_id": work_id, "work_type": "training", "priority": 50, "status": status, "claimed_by": ""}
    base.update(config={"board_type": board, "num_players": int(players[0])}, created_at=1000.0, claimed_at=0.0)
    return {**base, "started_at": 0.0, "completed_at": 0.0, "attempts": 0, "error": "", "result": {}, **more}


def record(job_id, status="running", config="hex8_2p", **more):
    board, players = config.rsplit("_", 1)
    base = {"job_id": job_id, "job_type": "nnue", "status": status, "worker_node": "h100"}
    return {**base, "board_type": board, "num_players": int(players[0]), "created_at": 5.0, "completed_at": 0.0, **more}


class Leader(Scripted):
    """Scripted answers of a leader that keeps records and items; a test changes what it likes."""

    def __init__(self, items=(), records=(), **status):
        self.items, self.records = list(items), list(records)
        super().__init__()
        self.answers = {
            ("GET", "/status"): lambda body: (200, {**STATUS, **status}),
            ("GET", "/training/status"): lambda body: (200, {**TRAINING, "jobs": self.records}),
            ("GET", "/work/history"): lambda body: (
                200,
                {"history": self.items, "count": len(self.items), "limit": 2000},
            ),
            ("POST", "/work/add"): self.add,
            ("POST", "/work/cancel"): self.cancel,
            ("POST", "/training/update"): self.update,
        }

    def add(self, body):
        self.items.append(item("new", **{"config": f"{body['config']['board_type']}_{body['config']['num_players']}p"}))
        return 200, {"status": "added", "work_id": "new", "work_type": "training", "priority": 90}

    def cancel(self, body):
        for row in self.items:
            if row["work_id"] == body["work_id"]:
                row["status"] = "cancelled"
        return 200, {"status": "cancelled", "work_id": body["work_id"]}

    def update(self, body):
        for row in self.records:
            if row["job_id"] == body["job_id"]:
                row["status"] = body["status"]
        return 200, {"success": True}


class Runbook(Scripted):
    """What the runbook thinks of an orchestrator."""

    def __init__(self, jobs=(), last=None):
        self.jobs, self.last = list(jobs), last
        super().__init__()
        self.answers = {
            ("GET", "/status"): lambda body: (200, {"jobs": self.jobs, "last_training_time": self.last}),
            ("POST", "/dispatch_training"): self.dispatch,
            ("POST", "/clear_training_state"): self.clear,
        }

    def dispatch(self, body):
        self.jobs.append({"id": "training_hex8_2p_9", "type": "training", "status": "pending", "node_id": "h100"})
        return 200, {"success": True, "job_id": "training_hex8_2p_9"}

    def clear(self, body):
        self.jobs.clear()
        return 200, {"success": True}


@pytest.fixture
def serve():
    servers = []

    def start(kind, *arguments, **options):
        servers.append(kind(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def job(job_id="training_hex8_2p_1", status="running", **more):
    return {"id": job_id, "type": "training", "status": status, "node_id": "h100", **more}


# Finding out what answers


def test_runbook_is_found_by_its_list_of_jobs(serve):
    result = ask(serve(Runbook, [job(), {"id": 7, "type": "selfplay", "status": "running"}]).url)
    assert (result["profile"], result["reachable"], result["complete"]) == ("runbook", True, True)
    assert [(row["id"], row["active"], row["config"]) for row in result["jobs"]] == [
        ("training_hex8_2p_1", True, "hex8_2p")
    ]
    assert result["leader"] == {"id": None, "is_leader": None, "url": None}


def test_ringrift_is_found_by_its_leader_and_records(serve):
    server = serve(
        Leader, [item("w1", "running", claimed_by="h100"), item("w2", config="hex8_3p")], [record("r1", "failed")]
    )
    result = ask(server.url)
    assert (result["profile"], result["leader"]) == ("ringrift", {"id": "coord", "is_leader": True, "url": server.url})
    assert [(row["kind"], row["id"], row["active"], row["node"]) for row in result["jobs"]] == [
        ("work", "w1", True, "h100"),
        ("record", "r1", False, "h100"),
    ]
    assert result["msg"] == "2 training jobs of hex8_2p, 1 active."


def test_one_batch_is_enough_for_a_leader(serve):
    sent = []
    ask(serve(Leader).url, sent=sent)
    assert len(sent) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"hello": "world"}),
        (200, "<html>captive portal</html>"),
        (200, []),
        (200, "null"),
        (500, {"error": "boom"}),
        (404, "404: Not Found"),
        (401, {"error": "unauthorized"}),
        b"garbage\r\n",
    ],
)
def test_strangers_are_unknown_with_a_reason(serve, answer):
    server = serve(Scripted, {("GET", "/status"): answer})
    result = ask(server.url)
    assert (result["profile"], result["jobs"], result["active"], result["failed"]) == ("unknown", None, None, False)
    assert server.url in result["reason"]
    for state in ("dispatched", "cleared"):
        refused = ask(server.url, state)
        assert refused["failed"]
        assert not refused["changed"]
    assert server.sent() == []


def test_local_jobs_without_a_training_status_is_unknown(serve):
    assert ask(serve(Scripted, {("GET", "/status"): (200, STATUS)}).url)["profile"] == "unknown"


def test_unreachable_is_a_finding_and_no_job_is_counted():
    url = f"http://127.0.0.1:{free_port()}"
    result = ask(url)
    assert (result["reachable"], result["failed"], result["jobs"], result["active"]) == (False, False, None, None)
    assert result["reason"] == f"The P2P orchestrator at {url} cannot be reached from the node: connection refused."
    assert result["cooldown"]["active"] is None
    for state in ("dispatched", "cleared"):
        refused = ask(url, state)
        assert refused["failed"]
        assert "connection refused" in refused["msg"]
        assert f"nothing of hex8_2p was {state}" in refused["msg"]


def test_a_slow_server_costs_its_timeout(serve):
    server = serve(Scripted, {("GET", "/status"): "silence", ("GET", "/training/status"): "drip"})
    started = time.monotonic()
    result = ask(server.url, timeout=0.4)
    assert time.monotonic() - started < 2
    assert "no whole answer within 0.4 s" in result["reason"]


def test_a_named_profile_does_not_take_silence_for_health(serve):
    result = ask(serve(Leader).url, profile="runbook")
    assert (result["profile"], result["complete"], result["jobs"]) == ("runbook", False, None)
    assert "the answer is not what it should be" in result["reason"]


# Jobs


@pytest.mark.parametrize("status", ["pending", "queued", "claimed", "running", "zombie", "", None, 5, ["x"]])
def test_a_state_that_is_not_over_is_active(serve, status):
    result = ask(serve(Leader, [item(status=status)]).url)
    assert len(result["active"]) == 1


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "timeout", "FAILED"])
def test_a_state_that_is_over_is_not(serve, status):
    result = ask(serve(Leader, [item(status=status)]).url)
    assert (result["active"], len(result["jobs"])) == ([], 1)


def test_other_work_and_other_configs_are_left_out(serve):
    rows = [item("a", work_type="selfplay"), item("b", config="hex8_4p"), item("c", config="square8_2p")]
    result = ask(serve(Leader, rows, [record("d", config="hex8_3p"), record("e", job_type="cmaes")]).url)
    assert result["jobs"] == []


@pytest.mark.parametrize("rows", [["text", None, 5, []], [{"work_type": "training", "status": "pending"}]])
def test_rows_without_an_id_make_the_view_incomplete(serve, rows):
    result = ask(serve(Leader, rows).url, "dispatched")
    trained = isinstance(rows[0], dict)
    assert result["failed"] is trained
    assert result["complete"] is not trained


ONE_PENDING = {
    "by_config": {"hex8_2p": {"pending": 1, "running": 0, "claimed": 0}},
    "by_work_type": {"training": {"pending": 1, "running": 0, "claimed": 0}},
}


def test_a_job_that_comes_between_the_list_and_the_count_is_found(serve):
    """Another controller dispatches while we read; the next look has both."""
    server = serve(Leader)

    def metrics(body):
        if not server.items:
            server.items.append(item("theirs"))
        return 200, ONE_PENDING

    server.answers["GET", "/work/metrics"] = metrics
    result = ask(server.url, "dispatched")
    assert not result["failed"], result["msg"]
    assert [job["id"] for job in result["active"]] == ["theirs"]
    assert not result["changed"]


def test_a_count_above_the_list_keeps_from_dispatching(serve):
    server = serve(Leader)
    server.answers["GET", "/work/metrics"] = (200, ONE_PENDING)
    result = ask(server.url, "dispatched")
    assert "it counts 1 active jobs of the kind work and lists 0" in result["msg"]
    assert server.sent() == []
    assert ask(server.url, "dispatched", force=True)["changed"]


def test_counts_of_more_than_the_config_are_not_compared(serve):
    server = serve(Leader)
    rows = {"pending": 3, "running": 0, "claimed": 0}
    by_config = {"hex8_2p": rows, "hex8_3p": rows}
    server.answers["GET", "/work/metrics"] = (200, {"by_config": by_config, "by_work_type": {"training": rows}})
    assert ask(server.url)["complete"]


def test_a_cut_history_is_asked_again_by_state(serve):
    server = serve(Leader)
    server.answers["GET", "/work/history"] = lambda body: (200, {"history": [], "count": 2000, "limit": 2000})
    for state, rows in (("pending", [item("w9")]), ("claimed", []), ("running", [])):
        answer = (200, {"history": rows, "count": len(rows), "limit": 2000})
        server.answers["GET", f"/work/history?status={state}&limit=2000"] = answer
    result = ask(server.url)
    assert (result["complete"], [row["id"] for row in result["active"]]) == (True, ["w9"])


@pytest.mark.parametrize(
    ("state", "check", "asked"),
    [("query", False, 0), ("dispatched", True, 0), ("cleared", True, 0), ("cleared", False, 1)],
)
def test_the_read_with_a_side_effect_is_the_last_resort(serve, state, check, asked):
    server = serve(Leader)
    server.answers["GET", "/work/history"] = (500, {"error": "disk I/O error"})
    server.answers["GET", "/work/status"] = (200, {"pending": [], "running": [], "by_status": {}, "by_type": {}})
    result = ask(server.url, state, check)
    assert len([path for _m, path, _h, _b in server.seen if path == "/work/status"]) == asked
    assert result["complete"] is bool(asked)
    assert any("it returns work items past their timeout to the queue" in note for note in result["notes"])
    assert [request["url"] for request in result["requests"]] == [f"{server.url}/work/status"] * asked


# Leaders


def follower(leader_port=None, leader="coord", **more):
    peers = {"coord": {"node_id": "coord", "host": "127.0.0.1", "port": leader_port}} if leader_port else {}
    return {"node_id": "h100", "role": "follower", "is_leader": False, "leader_id": leader, "peers": peers, **more}


def test_the_leader_is_followed(serve):
    leader = serve(Leader, [item("w1", "running")])
    near = serve(Leader, **follower(leader.port))
    result = ask(near.url)
    assert result["leader"] == {"id": "coord", "is_leader": False, "url": leader.url}
    assert [row["id"] for row in result["active"]] == ["w1"]
    cleared = ask(near.url, "cleared", token="s3cret")
    assert cleared["requests"][0]["url"] == f"{leader.url}/work/cancel"
    dispatched = ask(near.url, "dispatched", token="s3cret")
    assert dispatched["dispatched"]["job_id"] == "new"
    assert near.sent() == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (follower(leader=None), "knows no leader"),
        (follower(), "names coord as leader but no address"),
        (follower(peers={"coord": {"node_id": "coord", "host": "evil/../host", "port": 1}}), "no address"),
        (follower(peers={"coord": {"node_id": "coord", "host": "h", "port": "8770"}}), "no address"),
        (follower(peers={"coord": {"node_id": "coord", "host": "h", "port": 1, "scheme": "file"}}), "no address"),
        (follower(peers=["coord"]), "no address"),
    ],
)
def test_without_a_leader_nothing_is_known(serve, status, words):
    server = serve(Leader, **status)
    info = ask(server.url)
    assert (info["failed"], info["jobs"], info["complete"]) == (False, None, False)
    assert info["reason"]
    for state in ("dispatched", "cleared"):
        result = ask(server.url, state)
        assert result["failed"]
        assert words in result["msg"]
    assert server.sent() == []


def test_a_dead_leader_is_incomplete(serve):
    result = ask(serve(Leader, **follower(free_port())).url)
    assert (result["jobs"], result["complete"], result["leader"]["id"]) == (None, False, "coord")
    assert "connection refused" in result["reason"]


@pytest.mark.parametrize("state", ["dispatched", "cleared"])
def test_a_refusal_that_names_the_leader_is_followed_once(serve, state):
    leader = serve(Leader, [item("w1")] if state == "cleared" else [])
    refusal = {"error": "Not leader - forward to leader", "code": "NOT_LEADER", "leader_id": "coord"}
    peers = follower(leader.port)["peers"]
    # It still believes that it leads itself: its status is cached.
    near = serve(Leader, [item("w1")] if state == "cleared" else [], node_id="h100", leader_id="h100", peers=peers)
    for path in ("/work/add", "/work/cancel"):
        near.answers["POST", path] = (403, refusal)
    result = ask(near.url, state)
    assert (result["failed"], result["changed"]) == (False, True)
    assert len(near.sent()) == len(leader.sent()) == 1
    assert [request["sent"] for request in result["requests"]] == [True, True]


def test_a_leader_that_says_that_it_is_none_is_not_asked_for_ever(serve):
    server = serve(Leader, [item("w1")])
    refusal = (403, {"error": "Not leader - forward to leader", "code": "NOT_LEADER", "leader_id": "coord"})
    server.answers["POST", "/work/add"] = server.answers["POST", "/work/cancel"] = refusal
    result = ask(server.url, "cleared")
    assert result["failed"]
    assert "Leadership moved or is disputed" in result["msg"]
    assert len(server.sent()) == 2


# Dispatching


def test_dispatch_sends_typed_values_to_the_work_queue(serve):
    server = serve(Leader)
    options = {"batch_size": 256, "epochs": 50, "extra": {"learning_rate": 0.001}, "job_timeout": 60}
    result = ask(server.url, "dispatched", **options)
    config = {"board_type": "hex8", "num_players": 2, "epochs": 50, "batch_size": 256, "learning_rate": 0.001}
    body = {"work_type": "training", "priority": 90, "config": config, "timeout_seconds": 60}
    assert server.sent() == [("/work/add", body)]
    request = {"method": "POST", "url": f"{server.url}/work/add", "body": body, "sent": True}
    assert result["requests"] == [request]
    assert (result["changed"], result["dispatched"]["job_id"], result["dispatched"]["request"]) == (
        True,
        "new",
        request,
    )
    assert [row["id"] for row in result["active"]] == ["new"]
    assert result["diff"] == {"before": {"active": {}}, "after": {"active": {"new": "pending"}}}


def test_dispatch_is_idempotent_and_force_never_makes_two(serve):
    server = serve(Leader, [item("w1", "running", claimed_by="h100")])
    for force in (False, True):
        result = ask(server.url, "dispatched", force=force)
        assert (result["changed"], result["dispatched"], result["failed"]) == (False, None, False)
        assert "w1 (running on h100)" in result["msg"]
    assert server.sent() == []


def test_four_runs(serve):
    server = serve(Leader)
    runs = [ask(server.url, "dispatched", check=check)["changed"] for check in (True, False, True, False)]
    assert runs == [True, True, False, False]
    runs = [ask(server.url, "cleared", check=check)["changed"] for check in (True, False, True, False)]
    assert runs == [True, True, False, False]


@pytest.mark.parametrize("kind", [Leader, Runbook])
@pytest.mark.parametrize("state", ["dispatched", "cleared"])
def test_check_mode_predicts_what_is_then_sent(serve, kind, state):
    rows = [] if state == "dispatched" else [item("w1"), item("w2", "running")] if kind is Leader else [job()]
    server = serve(kind, rows)
    predicted = ask(server.url, state, check=True)
    assert server.sent() == []
    real = ask(server.url, state)
    bare = [{**request, "sent": True} for request in predicted["requests"]]
    assert bare == real["requests"]
    assert [row["id"] for row in predicted["cleared"]] == [row["id"] for row in real["cleared"]]
    assert predicted["changed"] == real["changed"] is True
    if state == "cleared":
        assert (predicted["active"], predicted["diff"]) == (real["active"], real["diff"])


def test_assume_cleared_counts_in_check_mode_only(serve):
    server = serve(Leader, [item("w1", "running")])
    assert ask(server.url, "dispatched", check=True, assume_cleared=["w1"])["changed"]
    assert not ask(server.url, "dispatched", check=True, assume_cleared=["other"])["changed"]
    assert not ask(server.url, "dispatched", assume_cleared=["w1"])["changed"]
    assert server.sent() == []


def test_of_two_that_came_at_once_the_first_stays(serve):
    server = serve(Leader)

    def add_after(body):
        server.items.append(item("theirs", created_at=999.0))
        return server.add(body)

    server.answers["POST", "/work/add"] = add_after
    result = ask(server.url, "dispatched")
    assert (result["failed"], result["changed"], result["dispatched"]) == (False, False, None)
    assert "theirs (pending) came at the same time, so new was withdrawn" in result["msg"]
    assert [path for path, _body in server.sent()] == ["/work/add", "/work/cancel"]
    assert [row["id"] for row in result["active"]] == ["theirs"]


def test_a_job_that_cannot_be_withdrawn_beside_an_earlier_one_is_a_failure(serve):
    server = serve(Leader)
    server.answers["POST", "/work/add"] = lambda body: (server.items.append(item("a")), server.add(body))[1]
    server.answers["POST", "/work/cancel"] = (500, {"error": "database is locked"})
    result = ask(server.url, "dispatched")
    assert (result["failed"], result["changed"]) == (True, True)
    assert "two active jobs, a (pending) and new (pending)" in result["msg"]


def test_of_two_that_came_at_once_ours_stays_where_it_is_the_first(serve):
    server = serve(Leader)

    def add_before(body):
        answer = server.add(body)
        server.items.append(item("theirs", created_at=1001.0))
        return answer

    server.answers["POST", "/work/add"] = add_before
    result = ask(server.url, "dispatched")
    assert (result["changed"], result["dispatched"]["job_id"]) == (True, "new")
    assert "More than one job" in result["notes"][0]
    assert [path for path, _body in server.sent()] == ["/work/add"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, {"success": False, "error": "No suitable worker available"}), "No suitable worker available"),
        ((200, {"status": "rejected"}), "rejected"),
        ((200, "<html>"), "HTTP 200"),
        ((200, []), "HTTP 200"),
        ((401, {"error": "unauthorized"}), "give the right one as token"),
        ((429, {"error": "[BACKPRESSURE] Queue at hard limit (1000/1000).", "code": "BACKPRESSURE"}), "let it drain"),
        ((503, {"success": False, "error": "leader_unknown", "leader_id": None}), "wait for the election"),
        (
            (403, {"error": "Not leader - forward to leader", "code": "NOT_LEADER", "leader_id": None}),
            "Leadership moved",
        ),
        ((404, "404: Not Found"), "profile=auto"),
        ((500, {"error": "'nope' is not a valid WorkType", "status": 500}), "not a valid WorkType"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "whether it was accepted is unknown"),
    ],
)
def test_refusals_say_what_to_do(serve, answer, words):
    server = serve(Leader)
    server.answers["POST", "/work/add"] = answer
    result = ask(server.url, "dispatched")
    assert (result["failed"], result["changed"], result["dispatched"]) == (True, False, None)
    assert words in result["msg"]
    assert f"POST {server.url}/work/add" in result["msg"]
    assert len(server.sent()) == 1


@pytest.mark.parametrize("late", ["silence", b"", (500, {"error": "database is locked"})])
def test_a_job_that_came_without_an_answer_is_found(serve, late):
    server = serve(Leader)

    def add(body):
        server.add(body)
        return late

    server.answers["POST", "/work/add"] = add
    result = ask(server.url, "dispatched", timeout=0.5)
    assert (result["failed"], result["changed"], result["dispatched"]["job_id"]) == (False, True, "new")
    assert "found by reading again" in result["notes"][0]
    assert len(server.sent()) == 1


def test_an_unreadable_queue_keeps_from_dispatching(serve):
    server = serve(Leader)
    server.answers["GET", "/training/status"] = lambda body: (200, {"success": True, "jobs": "many"})
    result = ask(server.url, "dispatched")
    assert (result["failed"], result["active"]) == (True, None)
    assert "Whether a job of hex8_2p is active is unknown" in result["msg"]
    assert server.sent() == []


def test_extra_cannot_change_the_config(serve):
    server = serve(Leader)
    for extra in ({"board_type": "square8"}, {"num_players": 3}):
        result = ask(server.url, "dispatched", extra=extra)
        assert (result["failed"], "which config and force decide" in result["msg"]) == (True, True)
    assert "which config and force decide" in ask(serve(Runbook).url, "dispatched", extra={"force": True})["msg"]
    assert server.sent() == []


# The runbook's dispatch and its cooldown


def test_runbook_dispatch(serve):
    server = serve(Runbook)
    result = ask(server.url, "dispatched")
    assert server.sent() == [("/dispatch_training", {"config": "hex8_2p"})]
    assert (result["dispatched"]["job_id"], result["dispatched"]["node"]) == ("training_hex8_2p_9", "h100")
    assert not ask(server.url, "dispatched")["changed"]


def test_runbook_dispatch_with_force_and_batch_size(serve):
    server = serve(Runbook)
    ask(server.url, "dispatched", force=True, batch_size=256, extra={"why": "stalled"})
    body = {"config": "hex8_2p", "force": True, "batch_size": 256, "why": "stalled"}
    assert server.sent() == [("/dispatch_training", body)]


@pytest.mark.parametrize("check", [True, False])
def test_an_active_cooldown_keeps_from_dispatching_without_force(serve, check):
    server = serve(Runbook, last=1000.0)
    result = ask(server.url, "dispatched", check=check, clock=lambda: 1100.0)
    assert result["failed"]
    assert "active for another 200 s" in result["msg"]
    assert "-e force=true" in result["msg"]
    assert result["cooldown"] == {
        "active": True,
        "seconds": 300.0,
        "last_training_time": 1000.0,
        "ends_at": 1300.0,
        "remaining": 200.0,
        "source": "last_training_time in GET /status",
        "blocks_dispatch": True,
    }
    assert server.sent() == []
    assert ask(server.url, "dispatched", check=check, force=True, clock=lambda: 1100.0)["changed"]


@pytest.mark.parametrize(
    ("last", "now", "cooldown", "active", "remaining"),
    [
        (1000.0, 1299.5, None, True, 0.5),
        (1000.0, 1300.0, None, False, 0.0),
        (1000.0, 1300.0, 600, True, 300.0),
        (1000.0, 1000.0, 0, False, 0.0),
        (9000.0, 1000.0, None, True, 300.0),
        ("1970-01-01T00:16:40Z", 1100.0, None, True, 200.0),
        ("1000", 1100.0, None, True, 200.0),
        (None, 1100.0, None, None, None),
        (0, 1100.0, None, None, None),
        ("unknown", 1100.0, None, None, None),
        (-5, 1100.0, None, None, None),
        ([], 1100.0, None, None, None),
        (True, 1100.0, None, None, None),
    ],
)
def test_cooldowns(serve, last, now, cooldown, active, remaining):
    result = ask(serve(Runbook, last=last).url, cooldown=cooldown, clock=lambda: now)
    assert (result["cooldown"]["active"], result["cooldown"]["remaining"]) == (active, remaining)


def test_the_cooldown_of_the_real_service_blocks_nothing(serve):
    server = serve(Leader, [item("w1", "completed", completed_at=1000.0)])
    result = ask(server.url, "dispatched", clock=lambda: 1100.0)
    assert (result["changed"], result["cooldown"]["active"], result["cooldown"]["seconds"]) == (True, True, 1800.0)


@pytest.mark.parametrize(
    ("said", "size"), [(512, 512), (None, None), ("512", None), (True, None), (0, None), (5.5, None)]
)
def test_a_job_tells_its_batch_size(serve, said, size):
    work = item("w1", "running")
    work["config"]["batch_size"] = said
    jobs = ask(serve(Leader, [work], [record("r1", batch_size=said)]).url)["jobs"]
    assert [entry["batch_size"] for entry in jobs] == [size, size]
    assert ask(serve(Runbook, [job(batch_size=said)]).url)["jobs"][0]["batch_size"] == size


def test_a_job_without_a_config_may_be_ours(serve):
    server = serve(Runbook, [job("7f3a")])
    result = ask(server.url, "dispatched")
    assert "do not say which config they train: 7f3a" in result["msg"]
    assert ask(server.url, "dispatched", force=True)["changed"]


# Clearing


def test_clear_sends_one_request_for_each_active_record(serve):
    rows = [item("w1"), item("w2", "claimed"), item("w3", "completed"), item("w4", config="hex8_3p")]
    server = serve(Leader, rows, [record("r1"), record("r2", "failed")])
    result = ask(server.url, "cleared")
    assert server.sent() == [
        ("/training/update", {"job_id": "r1", "status": "failed"}),
        ("/work/cancel", {"work_id": "w1"}),
        ("/work/cancel", {"work_id": "w2"}),
    ]
    assert [(row["id"], row["kind"], row["was"]) for row in result["cleared"]] == [
        ("r1", "record", "running"),
        ("w1", "work", "pending"),
        ("w2", "work", "claimed"),
    ]
    assert (result["changed"], result["active"], result["msg"]) == (True, [], "Cleared 3 jobs of hex8_2p.")
    assert server.items[3]["status"] == "pending"
    again = ask(server.url, "cleared")
    assert (again["changed"], again["cleared"], again["msg"]) == (False, [], "No job of hex8_2p is active.")


def test_many_items_are_cleared_in_portions(serve, monkeypatch):
    monkeypatch.setattr(_p2p, "SENDS_AT_ONCE", 10)
    server = serve(Leader, [item(f"w{n}") for n in range(65)])
    sent = []
    result = ask(server.url, "cleared", timeout=10, sent=sent)
    assert (result["failed"], len(result["cleared"]), result["active"], len(server.sent())) == (False, 65, [], 65)
    assert len(sent) == 8


def test_two_hundred_with_success_false_is_a_failure(serve):
    server = serve(Leader, records=[record("r1")])
    server.answers["POST", "/training/update"] = (200, {"success": False, "error": "Job r1 not found"})
    result = ask(server.url, "cleared")
    assert (result["failed"], result["changed"], result["cleared"]) == (True, False, [])
    assert "Job r1 not found" in result["msg"]


def test_a_record_that_went_by_itself_is_no_failure(serve):
    server = serve(Leader, records=[record("r1")])

    def gone(body):
        server.records.clear()
        return 200, {"success": False, "error": "Job r1 not found"}

    server.answers["POST", "/training/update"] = gone
    result = ask(server.url, "cleared")
    assert (result["failed"], result["changed"], result["cleared"], result["active"]) == (False, False, [], [])


def test_what_was_cleared_before_a_failure_is_told(serve):
    server = serve(Leader, [item("w1")], [record("r1")])
    server.answers["POST", "/work/cancel"] = (500, {"error": "database is locked"})
    result = ask(server.url, "cleared")
    assert (result["failed"], result["changed"]) == (True, True)
    assert [row["id"] for row in result["cleared"]] == ["r1"]
    assert "w1" in result["msg"]


def test_an_item_that_comes_back_is_cleared_again_but_not_for_ever(serve):
    server = serve(Leader, [item("w1", "running")])
    times = []

    def cancel(body):
        times.append(body)
        server.items[0]["status"] = "pending" if len(times) < 2 else "cancelled"
        return 200, {"status": "cancelled"}

    server.answers["POST", "/work/cancel"] = cancel
    result = ask(server.url, "cleared")
    assert (result["failed"], len(times), len(result["cleared"])) == (False, 2, 1)
    server.items[0]["status"] = "pending"
    server.answers["POST", "/work/cancel"] = (200, {"status": "cancelled"})
    result = ask(server.url, "cleared")
    assert result["failed"]
    assert "come back after they were cleared" in result["msg"]


def test_a_clear_without_an_answer_is_judged_by_the_list(serve):
    server = serve(Leader, [item("w1")])

    def cancel(body):
        server.cancel(body)
        return "silence"

    server.answers["POST", "/work/cancel"] = cancel
    result = ask(server.url, "cleared", timeout=0.5)
    assert (result["failed"], result["changed"], [row["id"] for row in result["cleared"]]) == (False, True, ["w1"])


def test_runbook_clear(serve):
    server = serve(Runbook, [job(), job("training_hex8_2p_2", "pending"), job("training_hex8_2p_3", "failed")])
    result = ask(server.url, "cleared")
    assert server.sent() == [("/clear_training_state", None)]
    assert [row["id"] for row in result["cleared"]] == ["training_hex8_2p_1", "training_hex8_2p_2"]
    assert not ask(server.url, "cleared")["changed"]


def test_runbook_clear_spares_other_configs(serve):
    server = serve(Runbook, [job(), job("training_square8_2p_1")])
    result = ask(server.url, "cleared")
    assert result["failed"]
    assert "training_square8_2p_1" in result["msg"]
    assert server.sent() == []
    assert ask(server.url, "cleared", force=True)["changed"]


# Withdrawing


def test_withdrawing_leaves_records_alone(serve):
    server = serve(Leader, [item("w1", "running"), item("w2")], [record("r1")])
    predicted = ask(server.url, "withdrawn", check=True)
    assert ([row["id"] for row in predicted["cleared"]], server.sent()) == (["w1", "w2"], [])
    result = ask(server.url, "withdrawn")
    assert server.sent() == [("/work/cancel", {"work_id": "w1"}), ("/work/cancel", {"work_id": "w2"})]
    assert (result["msg"], [row["id"] for row in result["active"]]) == ("Withdrew 2 jobs of hex8_2p.", ["r1"])
    assert predicted["active"] == result["active"]
    again = ask(server.url, "withdrawn")
    assert (again["changed"], again["msg"]) == (False, "No job of hex8_2p is waiting for a worker or with one.")
    assert ask(server.url, "cleared", assume_cleared=["r1"], check=True)["changed"] is False


def test_withdrawing_spares_other_configs_without_a_failure(serve):
    server = serve(Runbook, [job(), job("training_square8_2p_1")])
    result = ask(server.url, "withdrawn")
    assert (result["failed"], result["changed"]) == (False, False)
    assert "training_square8_2p_1" in result["notes"][0]
    assert server.sent() == []
    server.jobs.pop()
    assert ask(server.url, "withdrawn")["changed"]


def test_withdrawing_from_nobody_fails():
    result = ask(f"http://127.0.0.1:{free_port()}", "withdrawn")
    assert (result["failed"], result["reachable"]) == (True, False)
    assert "nothing of hex8_2p was withdrawn" in result["msg"]


# Untrusted answers

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "jobs",
                    "leader_id",
                    "local_jobs",
                    "peers",
                    "success",
                    "history",
                    "id",
                    "job_id",
                    "work_id",
                    "work_type",
                ]
                + [
                    "status",
                    "type",
                    "config",
                    "board_type",
                    "num_players",
                    "host",
                    "port",
                    "node_id",
                    "last_training_time",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(ANYTHING, min_size=6, max_size=6), st.sampled_from(["query", "dispatched", "withdrawn", "cleared"]))
@pytest.mark.parametrize("profile", ["auto", "runbook", "ringrift"])
def test_no_answer_makes_the_engine_stumble(profile, bodies, state):
    from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer

    def deliver(batch):
        rows = [
            Answer(request.name, request.method, request.path, 200, bodies[n % len(bodies)])
            for n, request in enumerate(batch.requests)
        ]
        return Reply(tuple(rows), 1000.0)

    defaults = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
    params = {**defaults, "config": "hex8_2p", "state": state, "profile": profile}
    result = run(Options.from_params(params, False), deliver)
    assert set(result) - {"diff"} == KEYS
    json.dumps(result)
    assert result["failed"] or result["msg"]
    # A job is reported only from a whole view, or as one that is there.
    assert result["complete"] or result["active"] is None or result["active"]


def test_a_node_that_stops_answering_half_way_leaves_what_was_done(serve):
    server = serve(Leader, [item("w1")])
    defaults = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
    options = Options.from_params({**defaults, "config": "hex8_2p", "url": server.url, "state": "cleared"}, False)
    batches = []

    def deliver(batch):
        batches.append(batch)
        if len(batches) == 2:
            raise RecoveryError("The node went away.")
        return Reply(send(batch.url, batch.requests), 0.0)

    result = run(options, deliver)
    assert (result["failed"], result["msg"]) == (True, "The node went away.")
    assert [request["sent"] for request in result["requests"]] == [True]


# Profiles


def test_built_in_profiles_are_whole():
    assert list(load_profiles({})) == ["runbook", "ringrift"]


@pytest.mark.parametrize("path", ["/job/kill", "/restart_stuck_jobs", "/stop_job", "/admin", "/training/start"])
def test_what_kills_processes_or_starts_two_trainers_is_in_no_built_in_profile(path):
    """`/job/kill` is pkill -9, `/restart_stuck_jobs` ends selfplay, `/training/start` starts whatever runs already."""
    assert f'"{path}' not in json.dumps(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_expression_of_the_built_in_profiles_is_jmespath(name):
    check_expressions(name, BUILT_IN[name])


def test_a_profile_of_ones_own(serve):
    own = {
        "gateway": {
            "detect": "status.gateway == 'v2'",
            "reads": [{"name": "status", "path": "/v2/jobs", "valid": "type(jobs) == 'array'"}],
            "jobs": [
                {
                    "kind": "job",
                    "items": "status.jobs[].{id: uid, type: 'training', status: phase, config: name}",
                    "clear": {
                        "method": "DELETE",
                        "path": "/v2/job",
                        "body": {"uid": {"$": "id"}},
                        "success": "status == `204`",
                    },
                }
            ],
            "finished": ["succeeded"],
            "dispatch": {
                "path": "/v2/train",
                "body": {"n": [{"$": "players"}]},
                "success": "status == `202`",
                "job_id": "body.uid",
            },
        }
    }
    jobs = [{"uid": 17, "phase": "running", "name": "hex8_2p"}]

    def delete(body):
        jobs[0]["phase"] = "succeeded"
        return 204, ""

    server = serve(
        Scripted,
        {
            ("GET", "/v2/jobs"): lambda body: (200, {"gateway": "v2", "jobs": jobs}),
            ("DELETE", "/v2/job"): delete,
            ("POST", "/v2/train"): (202, {"uid": "new"}),
        },
    )
    result = ask(server.url, "cleared", profiles=own)
    assert (result["profile"], result["changed"]) == ("gateway", True)
    assert server.sent("DELETE") == [("/v2/job", {"uid": 17})]
    result = ask(server.url, "dispatched", profiles=own)
    assert server.sent() == [("/v2/train", {"n": [2]})]
    assert result["notes"] == ["Job new was accepted but is not in the orchestrator's list yet."]


def test_a_profile_extends_a_built_in_one(serve):
    server = serve(Runbook)
    server.answers["POST", "/api/dispatch_training"] = server.answers.pop(("POST", "/dispatch_training"))
    own = {
        "prefix": {
            "extends": "runbook",
            "dispatch": {**BUILT_IN["runbook"]["dispatch"], "path": "/api/dispatch_training"},
        }
    }
    assert ask(server.url, "dispatched", profile="prefix", profiles=own)["changed"]


READ = {"name": "status", "path": "/status"}
SEND = {"path": "/go", "success": "status == `200`"}


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ({"auto": {}}, "cannot be called auto"),
        ({"x": "text"}, "is str, not a mapping"),
        ({"x": {}}, "lacks reads, jobs, dispatch"),
        ({"x": {"extends": "nothing"}}, "only runbook and ringrift can be extended"),
        ({"x": {"extends": "runbook", "dispach": {}}}, "keys that mean nothing: dispach"),
        ({"x": {"extends": "runbook", "reads": "all"}}, "reads of the profile x is str, not a list"),
        ({"x": {"extends": "runbook", "reads": [{"name": "a"}]}}, "lacks path"),
        ({"x": {"extends": "runbook", "reads": [{"name": "a", "path": "/", "at": "moon"}]}}, "use node or leader"),
        ({"x": {"extends": "runbook", "reads": [{"name": "a", "path": "/", "method": "POST"}]}}, "not GET"),
        ({"x": {"extends": "runbook", "reads": [{"name": "a", "path": "/", "instead_of": ["b"]}]}}, "unknown read"),
        ({"x": {"extends": "runbook", "leader": {"who": "me"}}}, "keys that mean nothing: who"),
        ({"x": {"extends": "runbook", "leader": {"node": "me"}}}, "leader of the profile x lacks id"),
        ({"x": {"extends": "runbook", "reads": [READ, READ]}}, "there twice"),
        ({"x": {"extends": "runbook", "reads": [{**READ, "path": "status"}]}}, "begins with a slash"),
        ({"x": {"extends": "runbook", "reads": [{**READ, "path": "/a b"}]}}, "has no spaces"),
        ({"x": {"extends": "runbook", "reads": [{**READ, "valid": True}]}}, "has valid: 'True', which is not JMESPath"),
        ({"x": {"extends": "runbook", "reads": [{**READ, "required": "no"}]}}, "which is not true or false"),
        ({"x": {"extends": "runbook", "finished": "done"}}, "has finished: 'done', which is not a list of texts"),
        ({"x": {"extends": "runbook", "counted": {"kind": "moon", "value": "a"}}}, "kind moon, which is not in jobs"),
        ({"x": {"extends": "runbook", "dispatch": {**SEND, "method": "FETCH"}}}, "the method FETCH; use one of"),
        ({"x": {"extends": "runbook", "dispatch": {**SEND, "at": "moon"}}}, "use node or leader"),
        ({"x": {"extends": "runbook", "dispatch": {**SEND, "scope": "some"}}}, "the scope some; use job or all"),
        ({"x": {"extends": "runbook", "dispatch": {**SEND, "body": {"n": {"$": "name"}}}}}, "placeholder .*'name'"),
        ({"x": {"extends": "runbook", "dispatch": {**SEND, "body": [{"n": {"$": "id"}}]}}}, "placeholder .*'id'"),
        ({"x": {"extends": "runbook", "dispatch": {**SEND, "body": {"n": {"$": "epochs", "as": 1}}}}}, "placeholder"),
        ({"x": {"extends": "runbook", "dispatch": {**SEND, "path": "/{id}"}}}, "use one of config, board, players"),
        ({"x": {"extends": "runbook", "reads": [{**READ, "path": "/{epochs}"}]}}, "has {epochs} in its path"),
        ({"x": {"extends": "runbook", "token_header": "X Auth"}}, "no HTTP header is called"),
    ],
)
def test_what_is_no_profile_is_refused(profiles, words):
    with pytest.raises(RecoveryError, match=words):
        load_profiles(profiles)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"detect": "jobs[?"}, "detect in the profile x is 'jobs[?', which is not JMESPath"),
        ({"dispatch": {**SEND, "success": "status = `200`"}}, "success of dispatch in the profile x"),
        ({"dispatch": {**SEND, "job_id": "first(body.ids)"}}, "there is no function first()"),
        ({"jobs": [{"kind": "job", "items": "jobs[?contains(type)]"}]}, "contains() takes 2, and is given 1"),
        ({"refusals": [{"when": "status ==", "say": "no"}]}, "when of a refusal in the profile x"),
    ],
)
def test_what_is_no_jmespath_is_refused_before_anything_is_sent(serve, part, words):
    server = serve(Runbook)
    with pytest.raises(RecoveryError) as caught:
        ask(server.url, "dispatched", profiles={"x": {"extends": "runbook", **part}})
    assert words in str(caught.value)
    assert server.seen == []


def test_an_answer_without_the_list_is_no_empty_list(serve):
    """A profile without `valid`: the interface has changed, and that must not look like no job."""
    server = serve(Scripted, {("GET", "/v2/jobs"): (200, {"tasks": []}), ("POST", "/go"): (200, {})})
    own = {"x": {"reads": [{"name": "jobs", "path": "/v2/jobs"}], "dispatch": SEND}}
    own["x"]["jobs"] = [{"kind": "job", "items": "jobs.jobs[].{id: uid}"}]
    info = ask(server.url, profile="x", profiles=own)
    assert (info["complete"], info["active"]) == (False, None)
    assert "the jobs of the kind job are not a list" in info["reason"]
    assert ask(server.url, "dispatched", profile="x", profiles=own)["failed"]
    assert server.sent() == []


@pytest.mark.parametrize("answer", [{"api": "gateway/v3", "trainings": []}, {"items": "many"}, [], "<html>"])
def test_an_answer_of_another_shape_than_the_example_profile_expects(serve, root, answer):
    own = yaml.safe_load((root / "inventory/group_vars/coordinator.yml").read_text())["ringrift_p2p_profiles"]
    server = serve(Scripted, {("GET", "/v2/trainings"): (200, answer)})
    info = ask(server.url, profile="gateway", profiles=own)
    assert (info["jobs"], info["complete"], info["failed"]) == (None, False, False)
    assert info["reason"] == "GET /v2/trainings: the answer is not what it should be"
    assert ask(server.url, "dispatched", profile="gateway", profiles=own)["failed"]
    assert server.sent() == []


def test_states_of_ones_own_are_read_in_any_case(serve):
    server = serve(Runbook, [job(status="Succeeded")])
    own = {"x": {"extends": "runbook", "finished": ["SUCCEEDED"]}}
    assert ask(server.url, profile="x", profiles=own)["active"] == []


def test_the_token_goes_into_the_header_of_the_profile(serve):
    server = serve(Runbook)
    own = {"x": {"extends": "runbook", "token_header": "X-RingRift-Auth", "detect": "status.mine"}}
    ask(server.url, "dispatched", profile="x", profiles=own, token="s3cret")
    sent = [{name.lower(): value for name, value in headers.items()} for _m, _p, headers, _b in server.seen]
    assert {headers.get("x-ringrift-auth") for headers in sent} == {"s3cret"}
    assert not [headers for headers in sent if "authorization" in headers]
    # Before the profile is found either may be asked for; afterwards it is the one of the profile.
    server.seen.clear()
    ask(server.url, "cleared", profiles=own, token="s3cret")
    first, last = ({name.lower() for name in server.seen[at][2]} for at in (0, -1))
    assert {"authorization", "x-ringrift-auth"} <= first
    assert ("authorization" in last, "x-ringrift-auth" in last) == (True, False)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"config": "hex8; rm -rf /"}, "is not <board>_<players>p"),
        ({"profile": "moon"}, "known are auto, runbook, ringrift"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"epochs": -1}, "epochs is -1"),
        ({"cooldown": -1}, "cooldown is -1 s"),
        ({"url": "localhost"}, "such as http://localhost:8770"),
    ],
)
def test_options_are_checked_before_anything_is_sent(params, words):
    with pytest.raises(RecoveryError, match=words):
        ask(**{"url": "http://localhost", **params})


@pytest.mark.parametrize(
    ("value", "path"), [("a b", "/j/a%20b/x"), ("..", "/j/%2E%2E/x"), ("a/../b", "/j/a%2F..%2Fb/x"), (7, "/j/7/x")]
)
def test_a_value_stays_one_part_of_a_path(value, path):
    assert render_path("/j/{id}/x", {"id": value}) == path


def test_a_profile_without_detect_is_not_asked_by_auto(serve):
    server = serve(Runbook)
    own = {"x": {"extends": "runbook", "detect": None, "reads": [{"name": "status", "path": "/v2/x"}]}}
    assert ask(server.url, profiles=own)["profile"] == "runbook"
    assert "/v2/x" not in {path for _method, path, _headers, _body in server.seen}


def test_placeholders_keep_their_types():
    values = {"a": 5, "b": None, "c": False, "d": [1]}
    template = {
        "a": {"$": "a"},
        "b": {"$": "b"},
        "c": {"$": "c", "omit": False},
        "d": [{"$": "d"}, "x"],
        "e": {"f": {"$": "c"}},
    }
    assert render(template, values) == {"a": 5, "d": [[1], "x"], "e": {"f": False}}
    with pytest.raises(RecoveryError, match="names no value"):
        render({"a": {"$": "z"}}, values)


@pytest.mark.parametrize(
    ("row", "identity", "config"),
    [
        ({"config": "hex8_2p"}, "x", "hex8_2p"),
        ({"board": "hex8", "players": 3}, "x", "hex8_3p"),
        ({"board": "hex8", "players": "3"}, "x", None),
        ({}, "nnue_hex8_2p_1795470468", "hex8_2p"),
        ({}, "hex8_2p", "hex8_2p"),
        ({}, "hex8_2player", None),
        ({}, "7f3a", None),
        ({"config": ""}, "train-square19_4p-1", "square19_4p"),
    ],
)
def test_configs_of_jobs(row, identity, config):
    assert config_of(row, identity) == config


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1795470464.5, 1795470464.5),
        (1795470464500, 1795470464.5),
        ("1795470464.5", 1795470464.5),
        ("2026-11-23T21:47:44+00:00", 1795470464.0),
        ("2026-11-23T21:47:44", 1795470464.0),
        ("2026-11-23T23:47:44+02:00", 1795470464.0),
        (0.0, None),
        (None, None),
        (True, None),
        (10**400, None),
        ("nan", None),
        ("never", None),
        ({}, None),
    ],
)
def test_moments(value, seconds):
    assert as_moment(value) == seconds


def test_a_missing_jmespath_is_named(monkeypatch):
    monkeypatch.setattr(_p2p_view.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(RecoveryError, match="python -m pip install jmespath"):
        search("a", {})


def test_the_engine_is_imported_without_jmespath():
    code = (
        "import sys; sys.path.insert(0, 'playbooks/collections'); "
        "from ansible_collections.ringrift.recovery.plugins.module_utils import _p2p; print('jmespath' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "False"


# The lab's orchestrator, which the captures of the real one are compared with


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A leader and a follower with a token; the follower has no data, so that its work fails."""
    base = tmp_path_factory.mktemp("cluster")
    ports = {"coord": free_port(), "h100": free_port()}
    peers = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    shared = {"peers": peers, "leader": "coord"}
    environment = {"RINGRIFT_CLUSTER_AUTH_TOKEN": "s3cret", "LAB_CLAIM_SECONDS": "600"}
    nodes = [StandIn(base / name, name, port=port, **shared, **environment) for name, port in ports.items()]
    for node in nodes:
        node.ready()
    wait_for(lambda: nodes[1].get("/status")[1]["leader_id"] == "coord", what="the follower hears the leader")
    yield nodes
    for node in nodes:
        node.stop()


def test_a_dispatch_and_a_clear_on_the_stand_in(cluster):
    leader, near = cluster
    assert "give the right one as token" in ask(leader.url, "dispatched")["msg"]
    assert "give the right one as token" in ask(leader.url, "dispatched", token="wrong")["msg"]
    dispatched = ask(leader.url, "dispatched", token="s3cret", batch_size=256)
    assert (dispatched["changed"], dispatched["profile"]) == (True, "ringrift")
    assert not ask(leader.url, "dispatched", token="s3cret")["changed"]
    info = ask(near.url)
    assert info["leader"] == {"id": "coord", "is_leader": False, "url": leader.url}
    assert [row["id"] for row in info["active"]] == [dispatched["dispatched"]["job_id"]]
    seeds = [record("nnue_hex8_2p_1"), record("nnue_hex8_3p_1", config="hex8_3p")]
    (leader.root / "data" / "lab").mkdir(parents=True)
    (leader.root / "data" / "lab" / "p2p_records.json").write_text(json.dumps(seeds))
    cleared = ask(near.url, "cleared", token="s3cret")
    assert {row["kind"] for row in cleared["cleared"]} == {"record", "work"}
    assert not ask(near.url, "cleared", token="s3cret")["changed"]
    assert [row["active"] for row in ask(leader.url, config="hex8_3p")["jobs"]] == [True]


@pytest.mark.parametrize("header", ["Authorization", "X-RingRift-Auth"])
def test_both_headers_of_the_service_on_the_stand_in(cluster, header):
    own = {"x": {"extends": "ringrift", "token_header": header}}
    result = ask(cluster[0].url, "cleared", profile="x", profiles=own, token="s3cret", config="hex8_4p")
    assert result["failed"] is False
    result = ask(cluster[0].url, "dispatched", profile="x", profiles=own, token="s3cret", config="hex8_4p")
    assert result["changed"]
    assert ask(cluster[0].url, "cleared", profile="x", profiles=own, token="s3cret", config="hex8_4p")["changed"]


def test_the_runbooks_endpoint_on_the_stand_in_is_401_and_with_the_token_404(cluster):
    """The service asks for the token before it looks for the endpoint, so that 401 does not tell that it is there."""
    options = {"profile": "runbook", "force": True}
    refused = ask(cluster[0].url, "dispatched", **options)["msg"]
    assert "HTTP 401" in refused
    assert "It says the same of an endpoint that it does not have" in refused
    assert "use profile=ringrift" in ask(cluster[0].url, "dispatched", token="s3cret", **options)["msg"]


def test_many_at_once_make_one_job_on_the_stand_in(cluster):
    results = []
    options = {"token": "s3cret", "config": "hexagonal_3p", "timeout": 10}
    threads = [
        threading.Thread(target=lambda: results.append(ask(cluster[0].url, "dispatched", **options))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [result["msg"] for result in results if result["failed"]] == []
    (kept,) = ask(cluster[0].url, config="hexagonal_3p")["active"]
    assert [result["dispatched"]["job_id"] for result in results if result["changed"]] == [kept["id"]]
    assert ask(cluster[0].url, "cleared", **options)["changed"]


def test_a_full_queue_on_the_stand_in(cluster):
    leader = cluster[0]
    import sqlite3

    with sqlite3.connect(leader.root / "data" / "work_queue.db") as database:
        rows = [(f"s{n}", "selfplay", "{}", time.time()) for n in range(1000)]
        database.executemany(
            "INSERT INTO work_items (work_id, work_type, config, created_at) VALUES (?, ?, ?, ?)", rows
        )
    result = ask(leader.url, "dispatched", token="s3cret", config="square8_2p", timeout=10)
    assert result["failed"]
    assert "Queue at hard limit (1000/1000)" in result["msg"]
    assert ask(leader.url, "dispatched", token="s3cret", config="square8_2p", force=True, timeout=10)["changed"]
    # More than ten are pending: the status would hide ours, the history does not.
    assert not ask(leader.url, "dispatched", token="s3cret", config="square8_2p", timeout=10)["changed"]

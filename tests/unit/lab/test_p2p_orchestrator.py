# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The orchestrator of the lab against captures of the real one: status codes, content types, keys and types."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sqlite3
import time

import pytest

from tests.unit.p2p_servers import StandIn, free_port, wait_for

TOKEN = "s3cret"
NUMBER = (int, float)

# Keyed by what the cluster holds, not by the interface.
OPEN = {"peers", "all_peers", "game_counts", "all_subscriptions", "config", "result", "by_status", "by_type"}


def differences(real, ours, where="answer"):
    """Where keys or types differ. A list is as its first entry; null and an empty container tell nothing."""
    if real is None or ours is None or real in ({}, []) or ours in ({}, []):
        return []
    if isinstance(real, dict) and isinstance(ours, dict):
        if where.rsplit(".", 1)[-1] in OPEN:
            return []
        found = [
            f"{where}: {side} {sorted(keys)}"
            for side, keys in (("lacks", real.keys() - ours), ("adds", ours.keys() - real))
            if keys
        ]
        return found + [
            text for key in real.keys() & ours.keys() for text in differences(real[key], ours[key], f"{where}.{key}")
        ]
    if isinstance(real, list) and isinstance(ours, list):
        return differences(real[0], ours[0], f"{where}[0]")
    if isinstance(real, bool) or isinstance(ours, bool):
        return [] if type(real) is type(ours) else [f"{where}: {ours!r} instead of {real!r}"]
    if isinstance(real, NUMBER) and isinstance(ours, NUMBER) or type(real) is type(ours):
        return []
    return [f"{where}: {ours!r} instead of {real!r}"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("orchestrators")


def stop_after(*nodes):
    for node in nodes:
        node.ready()
    yield nodes[0] if len(nodes) == 1 else nodes
    for node in nodes:
        node.stop()


@pytest.fixture(scope="module")
def leader(base):
    """Alone, with a GPU, like the real one in the captures of the same name."""
    node = StandIn(base / "leader", RINGRIFT_IS_COORDINATOR="true", LAB_HAS_GPU="1")
    games = node.root / "data" / "games"
    games.mkdir(parents=True)
    (games / "canonical_hex8_2p.db").touch()
    yield from stop_after(node)


@pytest.fixture(scope="module")
def bare_leader(base):
    yield from stop_after(StandIn(base / "bare", RINGRIFT_IS_COORDINATOR="true"))


@pytest.fixture(scope="module")
def follower(base):
    """With a token, and without a leader."""
    yield from stop_after(StandIn(base / "follower", RINGRIFT_CLUSTER_AUTH_TOKEN=TOKEN))


def compare(node, real, name, path=None, body=None):
    """Ask what the capture asked, and say what differs."""
    capture = json.loads((real / "http" / f"{name}.json").read_text())
    request = capture["request"]
    sent = request["body"] if body is None else body
    status, kind, answer = node.ask(request["method"], path or request["path"], sent, headers=request["headers"])
    assert (status, kind) == (capture["http_status"], capture["content_type"]), answer
    if kind.startswith("text/plain"):
        assert answer == capture["response"]
    assert differences(capture["response"], answer) == []
    return capture["response"], answer


FOLLOWER = [
    "head_follower_api_cancel",
    "head_follower_api_jobs",
    "head_follower_api_jobs_local",
    "head_follower_api_jobs_submit",
    "head_follower_api_jobs_submit_local",
    "head_follower_dispatch_auth",
    "head_follower_dispatch_noauth",
    "head_follower_health",
    "head_follower_raft_lock",
    "head_follower_raft_status",
    "head_follower_reset_node_jobs",
    "head_follower_start_auth",
    "head_follower_start_auth_xhdr",
    "head_follower_start_badauth",
    "head_follower_start_noauth",
    "head_follower_training_status",
    "head_follower_training_update",
    "head_follower_work_add",
    "head_follower_work_status",
]

LEADER = [
    "dec28_leader_gpu_health",
    "head_leader_gpu_api_training_status",
    "head_leader_gpu_clear_training_state",
    "head_leader_gpu_dispatch_stats",
    "head_leader_gpu_dispatch_training",
    "head_leader_gpu_game_counts",
    "head_leader_gpu_gpu_health",
    "head_leader_gpu_health",
    "head_leader_gpu_job_kill_by_id",
    "head_leader_gpu_jobs_route",
    "head_leader_gpu_peers_route",
    "head_leader_gpu_r_bad_json",
    "head_leader_gpu_r_start_unknown_type",
    "head_leader_gpu_status",
    "head_leader_gpu_stop_job",
    "head_leader_gpu_training_metrics",
    "head_leader_gpu_training_progress",
    "head_leader_gpu_training_trigger",
    "head_leader_gpu_training_trigger_decision",
    "head_leader_gpu_training_update_unknown",
    "head_leader_gpu_work_add_bad",
    "head_leader_gpu_work_claim_training",
    "head_leader_gpu_work_flush",
    "head_leader_raft_status",
]

BARE = [
    "head_leader_nogpu_api_cancel",
    "head_leader_nogpu_api_jobs",
    "head_leader_nogpu_api_jobs_local",
    "head_leader_nogpu_api_jobs_submit",
    "head_leader_nogpu_health",
    "head_leader_nogpu_reset_node_jobs",
    "head_leader_nogpu_training_start",
    "head_leader_nogpu_training_status",
    "head_leader_nogpu_work_status",
    "head_leader_nogpu_work_add",
    "head_leader_with_manual_trainer_api_jobs",
]


@pytest.mark.parametrize("name", FOLLOWER)
def test_a_follower_answers_as_the_real_one(follower, real, name):
    compare(follower, real, name)


@pytest.mark.parametrize("name", LEADER)
def test_a_leader_answers_as_the_real_one(leader, real, name):
    compare(leader, real, name)


@pytest.mark.parametrize("name", BARE)
def test_a_leader_without_a_gpu_answers_as_the_real_one(bare_leader, real, name):
    compare(bare_leader, real, name)


@pytest.mark.parametrize(
    "name", ["head_follower_training_status", "head_follower_api_cancel", "head_follower_start_badauth"]
)
def test_refusals_say_the_same_words(follower, real, name):
    theirs, ours = compare(follower, real, name)
    for key in ("success", "error", "jobs", "thresholds"):
        assert ours.get(key) == theirs.get(key)


def test_the_status_has_every_key_of_the_real_one_and_the_same_types_at_the_top(leader, real):
    theirs = json.loads((real / "http" / "head_leader_gpu_status.json").read_text())["response"]
    ours = leader.get("/status")[1]
    assert list(ours) == list(theirs)
    assert list(ours["self"]) == list(theirs["self"])
    assert ours["local_jobs"] == {}
    assert {key for key in theirs if type(theirs[key]) is not type(ours[key])} <= {"training_jobs", "alive_peers"}


def test_the_subscriptions_have_the_shape_of_the_real_ones(leader, real):
    theirs, ours = compare(leader, real, "head_leader_gpu_subscriptions")
    for event in ("TRAINING_STARTED", "TRAINING_COMPLETED"):
        assert ours["all_subscriptions"][event] == theirs["all_subscriptions"][event]
    assert ours["critical_events"] == theirs["critical_events"]
    assert ours["feedback_loop_health"] == "6 missing"
    path = leader.root / "data" / "lab" / "p2p_unwired.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('["TRAINING_COMPLETED"]')
    assert "TRAINING_COMPLETED" not in leader.get("/subscriptions")[1]["all_subscriptions"]
    path.unlink()


def test_the_work_queue_goes_through_its_states_as_the_real_one(base, real):
    node = StandIn(base / "queue", RINGRIFT_IS_COORDINATOR="true").ready()
    try:
        first = compare(node, real, "head_leader_w_add")[1]["work_id"]
        second = compare(node, real, "head_leader_w_add_dup")[1]["work_id"]
        assert first != second
        assert compare(node, real, "head_leader_w_claim")[1]["work"]["work_id"] == first
        compare(node, real, "head_leader_w_claim2")
        compare(node, real, "head_leader_w_start", body=json.dumps({"work_id": first}))
        compare(node, real, "head_leader_w_node")
        compare(node, real, "head_leader_w_fail", body=json.dumps({"work_id": first, "error": "oom"}))
        compare(node, real, "head_leader_w_status")
        again = compare(node, real, "head_leader_w_claim3")[1]["work"]
        assert (again["work_id"], again["attempts"], again["error"]) == (first, 2, "oom")
        compare(node, real, "head_leader_w_status_after_timeout")
        compare(node, real, "head_leader_w_start", body=json.dumps({"work_id": first}))
        compare(node, real, "head_leader_w_complete", body=json.dumps({"work_id": first, "result": {}}))
        compare(node, real, "head_leader_w_history")
        compare(node, real, "head_leader_gpu_work_history")
        compare(node, real, "head_leader_w_metrics")
        for name in ("head_leader_gpu_work_cancel", "head_leader_gpu_work_cancel_again"):
            answer = compare(node, real, name, body=json.dumps({"work_id": second}))[1]
            assert answer == {"status": "cancelled", "work_id": second}
    finally:
        node.stop()


def test_training_records_live_and_die_as_the_real_ones(leader, real):
    job = compare(leader, real, "head_leader_gpu_training_start_1")[1]["job_id"]
    assert job.startswith("nnue_hex8_2p_")
    compare(leader, real, "head_leader_gpu_training_start_dup")
    compare(leader, real, "head_leader_gpu_training_status")
    compare(leader, real, "head_leader_gpu_api_jobs")
    compare(leader, real, "head_leader_gpu_api_job_get", path=f"/api/jobs/{job}")
    # The trainer does not know the flags that it is given, or is not there at all: it dies at once.
    path = f"/api/jobs/{job}"
    wait_for(lambda: leader.get(path)[1]["job"]["status"] == "failed", what="the record fails")
    compare(leader, real, "head_leader_gpu_api_job_cancel_running", path=f"/api/jobs/{job}/cancel")
    body = json.dumps({"job_id": job, "status": "failed"})
    compare(leader, real, "head_leader_gpu_r_update_failed", body=body)
    defaults = compare(leader, real, "head_leader_gpu_r_trainstart_noargs")[1]["job_id"]
    assert defaults.startswith("nnue_square8_2p_")
    # Nobody has games of square8, which is success all the same.
    assert leader.get(f"/api/jobs/{defaults}")[1]["job"]["status"] == "failed"
    assert leader.get("/status")[1]["training_jobs"] == 0


def test_the_isolated_health_port(base, real):
    port = free_port()
    node = StandIn(base / "health", arguments=("--isolated-health-port", str(port))).ready()
    try:
        node.url = f"http://127.0.0.1:{port}"
        compare(node, real, "head_follower_isolated_health", path="/health")
        compare(node, real, "head_follower_isolated_root", path="/")
    finally:
        node.stop()


# What the captures do not show


def test_unknown_methods_and_bodies(leader):
    assert leader.ask("DELETE", "/status")[0] == 405
    assert leader.ask("POST", "/work/add", "notjson")[:1] == (400,)
    assert leader.post("/work/cancel", {})[1]["error"] == "work_id required"
    assert leader.get("/work/claim")[1]["error"] == "node_id required"


def test_a_status_shows_ten_pending_items_and_the_history_all(base):
    node = StandIn(base / "pending", RINGRIFT_IS_COORDINATOR="true").ready()
    try:
        for _n in range(12):
            node.post("/work/add", {"work_type": "training", "config": {"board_type": "hex8", "num_players": 2}})
        status = node.get("/work/status")[1]
        assert (len(status["pending"]), status["by_status"]) == (10, {"pending": 12})
        assert node.get("/work/history?status=pending&limit=2000")[1]["count"] == 12
    finally:
        node.stop()


def test_the_status_returns_late_items_and_a_failure_brings_a_cancelled_one_back(base):
    node = StandIn(base / "late", RINGRIFT_IS_COORDINATOR="true").ready()
    try:
        body = {"work_type": "training", "config": {"board_type": "hex8", "num_players": 2}, "timeout_seconds": 0.05}
        work = node.post("/work/add", body)[1]["work_id"]
        node.get("/work/claim?node_id=h100&capabilities=training")
        time.sleep(0.1)
        assert node.get("/work/history?status=claimed")[1]["count"] == 1
        assert node.get("/work/status")[1]["timed_out_this_check"] == [work]
        assert node.get("/work/history?status=pending")[1]["count"] == 1
        node.post("/work/cancel", {"work_id": work})
        node.post("/work/fail", {"work_id": work, "error": "killed"})
        assert node.get("/work/history?status=pending")[1]["count"] == 1
    finally:
        node.stop()


def test_a_second_orchestrator_on_the_port_leaves_quietly(leader, base):
    other = StandIn(base / "second", port=leader.port)
    assert other.process.wait(10) == 0
    assert "an orchestrator answers there" in other.log.read_text()


# The interface of the runbook


def test_the_runbook_api(base):
    node = StandIn(base / "runbook", LAB_API="runbook", RINGRIFT_IS_COORDINATOR="true").ready()
    try:
        status = node.get("/status")[1]
        assert (status["jobs"], status["last_training_time"]) == ([], None)
        assert node.post("/dispatch_training", {"config": "nonsense"})[0] == 400
        dispatched = node.post("/dispatch_training", {"config": "hex8_2p"})[1]
        assert dispatched["success"]
        (job,) = node.get("/status")[1]["jobs"]
        assert job == {
            "id": dispatched["job_id"],
            "type": "training",
            "status": "pending",
            "node_id": None,
            "config": "hex8_2p",
        }
        assert node.post("/clear_training_state", "")[1] == {"success": True, "cleared": 1}
        assert [row["status"] for row in node.get("/status")[1]["jobs"]] == ["cancelled"]
        with sqlite3.connect(node.root / "data" / "work_queue.db") as database:
            database.execute("UPDATE work_items SET status = 'completed', completed_at = ?", (time.time(),))
        refused = node.post("/dispatch_training", {"config": "hex8_2p"})[1]
        assert (refused["success"], refused["cooldown_remaining"] > 290) == (False, True)
        assert node.post("/dispatch_training", {"config": "hex8_2p", "force": True})[1]["success"]
    finally:
        node.stop()


# Followers and their trainers

LAUNCHER = """
import os, sys
command = sys.argv[sys.argv.index("--") + 1:]
os.execvp(command[0], command)
"""
TRAINER = """
import json, os, sys, time
json.dump({"pid": os.getpid(), "argv": sys.argv[1:]}, open("started.tmp", "w"))
os.rename("started.tmp", "started.json")
while not os.path.exists("finish"):
    time.sleep(0.02)
print("TRAINING_SUMMARY: loss=0.1 samples=0 games=0 epochs=2" if open("finish").read() == "well" else "no memory")
raise SystemExit(0 if open("finish").read() == "well" else 1)
"""


@pytest.fixture
def pair(tmp_path):
    """A leader, and a follower whose trainer is told how to end."""
    ports = {"coord": free_port(), "h100": free_port()}
    peers = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    coordinator = StandIn(tmp_path / "coord", "coord", "coord", peers, ports["coord"], RINGRIFT_IS_COORDINATOR="true")
    worker = StandIn(tmp_path / "h100", "h100", "coord", peers, ports["h100"], LAB_CLAIM_SECONDS="0.05")
    for package, module, text in (("coordination", "training_launcher", LAUNCHER), ("training", "train", TRAINER)):
        directory = worker.root / "app" / package
        directory.mkdir(parents=True)
        (directory / f"{module}.py").write_text(text)
    data = worker.root / "data" / "training"
    data.mkdir(parents=True)
    (data / "hex8_2p.npz").write_bytes(b"x" * 2000)
    (worker.root / "models").mkdir()
    (worker.root / "models" / "canonical_hex8_2p.pth").touch()
    yield from stop_after(coordinator, worker)
    started = worker.root / "started.json"
    if started.exists():
        (worker.root / "finish").write_text("well")


def add(coordinator, **config):
    values = {"board_type": "hex8", "num_players": 2, "epochs": 2, "batch_size": 256, **config}
    return coordinator.post("/work/add", {"work_type": "training", "config": values})[1]["work_id"]


def state(coordinator, work):
    history = coordinator.get("/work/history?limit=1000")[1]["history"]
    return next(row for row in history if row["work_id"] == work)


def started(worker):
    path = worker.root / "started.json"
    wait_for(path.exists, what="the trainer starts")
    found = json.loads(path.read_text())
    path.unlink()
    return found


def test_a_follower_claims_trains_and_reports(pair):
    coordinator, worker = pair
    work = add(coordinator)
    trainer = started(worker)
    assert trainer["argv"] == [
        "--board-type", "hex8", "--num-players", "2", "--epochs", "2", "--batch-size", "256",
        "--save-path", "models/candidate_hex8_2p.pth", "--allow-stale-data", "--max-data-age-hours", "48",
        "--data-path", "data/training/hex8_2p.npz", "--init-weights", "models/canonical_hex8_2p.pth",
    ]  # fmt: skip
    wait_for(lambda: state(coordinator, work)["status"] == "running", what="the item runs")
    assert state(coordinator, work)["claimed_by"] == "h100"
    parent = pathlib.Path(f"/proc/{trainer['pid']}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == worker.process.pid
    peer = coordinator.get("/status")[1]["peers"]["h100"]
    assert (peer["host"], peer["port"], peer["is_alive"]) == ("127.0.0.1", worker.port, True)
    assert worker.get("/status")[1]["leader_id"] == "coord"
    assert worker.get("/training/status")[1]["jobs"] == []
    assert worker.post("/work/add", {"work_type": "training"})[1]["leader_id"] == "coord"
    (worker.root / "finish").write_text("well")
    wait_for(lambda: state(coordinator, work)["status"] == "completed", what="the item completes")
    assert "TRAINING_SUMMARY:" in (worker.root / "logs" / "training.log").read_text()


def test_a_failed_training_is_tried_three_times(pair):
    coordinator, worker = pair
    (worker.root / "finish").write_text("badly")
    work = add(coordinator)
    wait_for(lambda: state(coordinator, work)["status"] == "failed", what="the item fails")
    row = state(coordinator, work)
    assert (row["attempts"], row["error"]) == (3, "exit 1: no memory")


def test_without_data_nothing_is_trained(pair):
    coordinator, _worker = pair
    work = add(coordinator, num_players=3)
    wait_for(lambda: state(coordinator, work)["status"] == "failed", what="the item fails")
    assert state(coordinator, work)["error"] == "no_training_data:hex8_3p"


def test_a_trainer_outlives_its_orchestrator_and_is_reaped_by_the_next(pair):
    coordinator, worker = pair
    work = add(coordinator)
    pid = started(worker)["pid"]
    worker.stop()
    # SIGTERM of the orchestrator is for nobody else.
    time.sleep(0.2)
    os.kill(pid, 0)
    assert state(coordinator, work)["status"] in ("claimed", "running")
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    successor = StandIn(worker.root, "h100", "coord", {"coord": coordinator.url}, worker.port).ready()
    try:
        if stat[1] != "1":
            os.kill(pid, signal.SIGTERM)
            pytest.skip("orphans do not go to pid 1 here")
        wait_for(lambda: not alive(pid), what="the orphan is reaped")
        assert f"Killed orphan PID {pid}" in successor.log.read_text()
    finally:
        successor.stop()


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All probes of a node together, beside real trainers and on an empty node."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import types

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _node_evidence
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._node_evidence import (
    PROBES,
    TRAINING_NODE,
    EvidenceRequest,
    collect,
)

from tests.unit.training_processes import as_nobody, tree_of, wait_for

HEX = parse_config("hex8_2p")
TABLE = "CREATE TABLE events (event_id INTEGER PRIMARY KEY, event_type, payload, source, hostname, created_at)"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", str(tmp_path / "elsewhere"))
    with tree_of(tmp_path / "service") as tree:
        (tree.root / "logs").mkdir()
        yield tree


def see(tree, *probes, deadline=20.0, **more):
    more.setdefault("nvidia_smi", "no-such-tool")
    request = EvidenceRequest(HEX, str(tree.root), probes or TRAINING_NODE, within=str(tree.root), **more)
    return collect(request, deadline)


def write_event(folder, kind, at=None, **payload):
    folder.mkdir(exist_ok=True)
    with sqlite3.connect(folder / "events.db") as connection:
        if not connection.execute("PRAGMA table_info(events)").fetchall():
            connection.execute(TABLE)
        values = json.dumps({"config": "hex8_2p", **payload})
        row = (kind, values, "train", socket.gethostname(), time.time() if at is None else at)
        connection.execute("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?)", row)
    connection.close()


def test_every_probe_has_a_method():
    assert all(callable(getattr(_node_evidence._Look, name)) for name in PROBES)


def test_an_empty_node(tmp_path):
    request = EvidenceRequest(HEX, str(tmp_path / "nowhere"), nvidia_smi="no-such-tool", within=str(tmp_path))
    seen = collect(request, 20)
    assert seen["errors"] == {}
    assert set(seen) == {*TRAINING_NODE, "errors", "unseen", "seconds"}
    assert (seen["processes"], seen["checkpoints"]) == ({"processes": [], "window": 0.0, "doubts": None}, [])
    assert (seen["data"]["exists"], seen["log"]["exists"]) == (False, False)
    # Nothing but what has to be waited for takes its time.
    assert seen["seconds"]["processes"] < 5
    json.dumps(seen)


def test_a_trainer_is_watched_and_its_events_are_found(tree, tmp_path, monkeypatch):
    coordination = tmp_path / "of-the-trainer"
    write_event(coordination, "TRAINING_STARTED", total_epochs=9, start_epoch=0)
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", str(coordination))
    started = tree.train()
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", str(tmp_path / "elsewhere"))
    seen = see(tree)
    assert seen["errors"] == {}
    (process,) = seen["processes"]["processes"]
    assert (process["pid"], process["moving"], seen["processes"]["window"]) == (started.pid, False, 0.5)
    # The trainer's environment names another place than that of whoever looks.
    assert (seen["events"]["database"], seen["events"]["state"]) == (str(coordination / "events.db"), "running")
    assert see(tree, "events", coordination_dir=str(tmp_path / "empty"))["events"]["exists"] is False


def model(tree):
    """Not whole in any way; what counts is how deep it is looked at."""
    path = tree.root / "models/canonical_hex8_2p.pth"
    path.write_bytes(b"PK")
    return path


def test_a_run_that_died_asks_for_every_byte(tree, tmp_path):
    model(tree)
    # A quick look finds this damage too, so the reason is what tells.
    write_event(tmp_path / "c", "TRAINING_STARTED", total_epochs=9, start_epoch=0)
    (seen,) = see(tree, "checkpoints", coordination_dir=str(tmp_path / "c"))["checkpoints"]
    assert seen["examined_because"] == "the last training of hex8_2p did not report its end"
    write_event(tmp_path / "c", "TRAINING_FAILED", error="x")
    (seen,) = see(tree, "checkpoints", coordination_dir=str(tmp_path / "c"))["checkpoints"]
    assert seen["examined_because"] == "the events say that the last training failed"


def test_a_log_that_tells_of_a_checkpoint_asks_for_every_byte(tree, tmp_path):
    model(tree)
    (tree.root / "logs/training.log").write_text("RuntimeError: failed reading zip archive: it is gone\n")
    (seen,) = see(tree, "checkpoints", coordination_dir=str(tmp_path))["checkpoints"]
    assert seen["examined_because"] == "the log says checkpoint_invalid"


def test_a_stalled_trainer_asks_for_every_byte_and_one_that_starts_does_not(tree, tmp_path):
    model(tree)
    tree.train()
    write_event(tmp_path / "c", "TRAINING_STARTED", total_epochs=9, start_epoch=0)
    options = {"coordination_dir": str(tmp_path / "c")}
    seen = see(tree, "checkpoints", "progress", **options)
    assert seen["progress"]["verdict"] == "starting"
    assert seen["checkpoints"][0]["examined_because"].startswith("a quick look found")
    seen = see(tree, "checkpoints", "progress", stall_after=0.01, **options)
    assert seen["progress"]["verdict"] == "stalled"
    assert seen["checkpoints"][0]["examined_because"] == "the training is stalled"


def test_what_cannot_be_seen_asks_for_every_byte(tree, tmp_path):
    model(tree)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/events.db").write_bytes(b"no database at all" * 100)
    seen = see(tree, "checkpoints", "events", coordination_dir=str(tmp_path / "c"))
    assert "events.db" in seen["errors"]["events"]
    assert seen["checkpoints"][0]["examined_because"] == "whether hex8_2p was trained here could not be seen"


def test_a_cursor_tells_whether_training_moved(tree, tmp_path):
    write_event(tmp_path / "c", "training_progress", epoch=1, total_epochs=9, train_loss=1.0)
    first = see(tree, "progress", coordination_dir=str(tmp_path / "c"))["progress"]
    assert first["progressed"] is None
    write_event(tmp_path / "c", "training_progress", epoch=2, total_epochs=9, train_loss=0.9)
    again = see(tree, "progress", coordination_dir=str(tmp_path / "c"), after=first["cursor"])["progress"]
    assert (again["progressed"], again["proof"][0]["source"]) == (True, "events")


@pytest.mark.parametrize(
    ("options", "deadline", "words"),
    [
        ({"after": {"x": 1}}, 20, "after is no cursor"),
        ({}, 0, "timeout is 0 s"),
        ({}, float("nan"), "timeout is nan s"),
        ({}, 3601, "timeout is 3601 s"),
    ],
)
def test_bad_input_is_refused(tree, options, deadline, words):
    with pytest.raises(RecoveryError, match=words):
        see(tree, "host", deadline=deadline, **options)


def test_one_that_sleeps_for_ever_hides_nothing(tree, monkeypatch):
    monkeypatch.setattr(_node_evidence._Look, "data", lambda _look: time.sleep(60))
    begun = time.monotonic()
    seen = see(tree, deadline=3)
    assert time.monotonic() - begun < 6
    assert seen["errors"] == {"data": "no answer within 3 s"}
    assert set(TRAINING_NODE) - {"data"} <= set(seen)


def test_a_log_that_hangs_does_not_keep_the_checkpoints(tree, monkeypatch):
    model(tree)
    monkeypatch.setattr(_node_evidence._Look, "_read_log", lambda _look: time.sleep(60))
    seen = see(tree, "log", "checkpoints", "host", deadline=4)
    assert seen["errors"] == {"log": "no answer within 4 s"}
    assert seen["checkpoints"][0]["examined_because"].endswith("could not be seen")


def test_pipes_in_place_of_files_are_not_waited_for(tree):
    for name in ("logs/training.log", "models/canonical_hex8_2p.pth"):
        os.mkfifo(tree.root / name)
    (tree.root / "data/training/hex8_2p.npz").unlink()
    os.mkfifo(tree.root / "data/training/hex8_2p.npz")
    begun = time.monotonic()
    seen = see(tree, "log", "data", "checkpoints", deadline=15)
    assert time.monotonic() - begun < 8
    assert "it is not a regular file" in seen["errors"]["log"]
    assert seen["checkpoints"][0]["valid"] is None
    assert seen.get("data", {}).get("valid") is not True


def test_a_kernel_log_may_be_given(tree, tmp_path):
    from inspect import signature

    from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_events

    if "path" not in signature(_kernel_events.collect).parameters:
        pytest.skip("kernel_events does not read a file")
    log = tmp_path / "kernel.log"
    log.write_text("<3>Out of memory: Killed process 7 (python3) total-vm:9kB, anon-rss:5kB\n")
    seen = see(tree, "kernel", kernel_log=str(log))
    assert seen["errors"] == {}
    assert str(log) in json.dumps(seen["kernel"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_is_told_what_it_could_not_see(tree, tmp_path):
    tree.train()
    for folder in (tree.root, *tree.root.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    secret = tree.root / "logs/training.log"
    secret.write_text("x\n")
    secret.chmod(0o600)

    def look():
        return json.dumps(see(tree, "progress", "processes", "log", "host", coordination_dir=str(tmp_path))).encode()

    seen = json.loads(as_nobody(look))
    assert seen["host"]["root"] is False
    told = {entry["probe"]: entry for entry in seen["unseen"]}
    assert {"progress", "processes", "log"} <= set(told)
    # Of several trainings of others on this machine only the first is named.
    assert "cannot be seen" in told["processes"]["what"] or "hidepid" in told["processes"]["what"]
    assert "become" in told["log"]["hint"]
    assert see(tree, "progress", "processes", coordination_dir=str(tmp_path))["unseen"] == []


def test_only_what_is_needed_is_imported(root, tmp_path):
    """On a node all of it is compiled anew at every look."""
    script = f"""
import sys
sys.path[:0] = [{str(root / "playbooks/collections")!r}]
from ansible_collections.ringrift.recovery.plugins.module_utils import _config, _node_evidence
request = _node_evidence.EvidenceRequest(_config.parse_config("hex8_2p"), {str(tmp_path)!r}, nvidia_smi="no-such-tool")
look = _node_evidence._Look(request, 20)
for name in _node_evidence.TRAINING_NODE:
    getattr(look, name)()
print(*sorted(name.rpartition(".")[2] for name in sys.modules if ".recovery.plugins." in name), *sys.modules)
"""
    # Without what this interpreter's site-packages import at every start.
    argv = [sys.executable, "-S", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    loaded = set(done.stdout.split())
    assert {"_training_progress", "_lock", "_gpu", "_kernel_events"} <= loaded
    assert not loaded & {
        *("_checkpoint", "_npz", "_zip", "_pickle", "_games", "_gpu_smi", "_gpu_nvml", "_lock_api", "_lock_redis"),
        *("_redis", "_training_start", "ssl", "statistics", "xml.etree.ElementTree"),
    }


def test_the_wait_is_over_when_all_have_answered(tree):
    begun = time.monotonic()
    see(tree, "host", "memory", deadline=600)
    assert time.monotonic() - begun < 10


def test_nothing_is_left_running(tree):
    before = {int(pid) for pid in os.listdir("/proc") if pid.isdigit()}
    see(tree, "host", "kernel", "gpu")

    def children():
        return [
            pid
            for pid in os.listdir("/proc")
            if pid.isdigit() and int(pid) not in before and _parent(pid) == os.getpid()
        ]

    wait_for(lambda: children() == [])


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return int(stream.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


@pytest.fixture(params=["forked", "in_threads"])
def manner(request, monkeypatch):
    """Probes run in a process of their own, but under mitogen in threads of this one."""
    if request.param == "in_threads":
        monkeypatch.setitem(sys.modules, "mitogen", types.ModuleType("mitogen"))


@pytest.mark.usefixtures("manner")
def test_the_files_of_a_node_that_has_some(tree):
    (tree.root / "data/training").mkdir(parents=True, exist_ok=True)
    (tree.root / "data/training/hex8_2p.npz").write_bytes(b"PK")
    model(tree)
    seen = see(tree, "data", "checkpoints", "games", "triggers")
    assert seen["errors"] == {}
    assert (seen["data"]["exists"], seen["data"]["valid"]) == (True, False)
    assert [checkpoint["valid"] for checkpoint in seen["checkpoints"]] == [False]
    assert seen["games"]["games"] == 0
    json.dumps(seen)


@pytest.mark.usefixtures("manner")
def test_services_that_do_not_answer_are_told(tree):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        seen = see(tree, "daemons", "wiring", health_url=url, p2p_url=url)
    assert seen["errors"] == {}
    assert (seen["daemons"]["reachable"], seen["wiring"]["reachable"]) == (False, False)


@pytest.mark.usefixtures("manner")
def test_a_trainer_is_asked_where_it_writes(tree, tmp_path, monkeypatch):
    coordination = tmp_path / "of-the-trainer"
    write_event(coordination, "TRAINING_STARTED", total_epochs=9, start_epoch=0)
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", str(coordination))
    tree.train()
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", str(tmp_path / "elsewhere"))
    seen = see(tree, "events", "log", "processes")
    assert (seen["errors"], seen["events"]["database"]) == ({}, str(coordination / "events.db"))

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _training_events
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_events import read_events
from hypothesis import given, settings
from hypothesis import strategies as st

HEX = parse_config("hex8_2p")
TABLE = """
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY AUTOINCREMENT, event_type TEXT NOT NULL, payload TEXT NOT NULL DEFAULT '{}',
    source TEXT NOT NULL DEFAULT '', hostname TEXT NOT NULL DEFAULT '', created_at REAL NOT NULL,
    INDEX_event_type TEXT GENERATED ALWAYS AS (event_type) STORED)
"""
START = ("TRAINING_STARTED", {"total_epochs": 50, "start_epoch": 0, "config": "hex8_2p"})


def progress(epoch, **more):
    return ("training_progress", {"epoch": epoch, "total_epochs": 50, "train_loss": 1.5, "config": "hex8_2p", **more})


@pytest.fixture
def log(tmp_path):
    """Appends events to an event log of the service's making."""
    path = tmp_path / "events.db"
    connection = sqlite3.connect(path)
    connection.execute(TABLE)
    connection.commit()

    class Log:
        def __init__(self):
            self.path, self.connection, self.at = path, connection, 1_766_963_700.0

        def add(self, *events, hostname="node-1", source="train"):
            for kind, payload in events:
                self.at += 1
                text = payload if isinstance(payload, str) else json.dumps(payload)
                connection.execute(
                    "INSERT INTO events (event_type, payload, source, hostname, created_at) VALUES (?, ?, ?, ?, ?)",
                    (kind, text, source, hostname, self.at),
                )
            connection.commit()
            return self

        def read(self, **options):
            return read_events(HEX, path=str(path), **options)

    yield Log()
    connection.close()


def test_a_run(log):
    log.add(START, progress(1), ("daemon_started", {}), progress(2, val_loss=4.5))
    seen = log.read()
    assert (seen.state, seen.last_event_id) == ("running", 4)
    assert seen.counts() == {"started": 1, "progress": 2, "completed": 0, "failed": 0}
    assert seen.last("TRAINING_PROGRESS").as_dict() == {
        "event_id": 4,
        "at": 1_766_963_704.0,
        "hostname": "node-1",
        "source": "train",
        "epoch": 2,
        "total_epochs": 50,
        "loss": 1.5,
        "val_loss": 4.5,
        "finite": True,
    }
    assert seen.last("TRAINING_STARTED").as_dict()["total_epochs"] == 50
    assert seen.problems == ()


def test_ends(log):
    log.add(START, ("TRAINING_FAILED", {"config_key": "hex8_2p", "error": "x" * 1000, "node_id": "node-1"}))
    seen = log.read()
    assert seen.state == "failed"
    assert seen.last("TRAINING_FAILED").as_dict()["error"] == "x" * 500
    log.add(("TRAINING_COMPLETED", {"config": "hex8_2p", "epochs_completed": 3, "checkpoint_path": "c.pth"}))
    seen = log.read()
    assert seen.state == "completed"
    assert seen.last("TRAINING_COMPLETED").as_dict()["epochs"] == 3


def test_others_are_left_out(log):
    log.add(progress(7, config="square8_2p"), ("training_progress", {"epoch": 8}), ("training_progress", "[]"))
    log.add(progress(9), hostname="node-2")
    assert log.read().last("TRAINING_PROGRESS").epoch == 9
    seen = log.read(hostname="node-1")
    assert (seen.state, seen.events, seen.last_event_id) == ("none", (), 4)
    assert [problem.code for problem in seen.problems] == ["events_unreadable"]


def test_a_config_by_its_parts(log):
    log.add(("training_progress", {"epoch": 4, "board_type": "hex8", "num_players": 2}))
    assert log.read().last("TRAINING_PROGRESS").epoch == 4


def test_the_start_that_the_trainer_reports_counts(log):
    log.add(START, ("TRAINING_STARTED", {"config_key": "hex8_2p", "node_name": "n", "job_id": "nnue_hex8_2p_1"}))
    assert log.read().last("TRAINING_STARTED").event_id == 1
    assert log.read().counts()["started"] == 2


def test_the_repr_of_an_older_service(log):
    log.add(
        (
            "DataEvent(event_type=<DataEventType.TRAINING_STARTED: 'training_started'>, payload={'total_epochs': 1, "
            "'start_epoch': 0, 'config': 'hex8_2p', 'path': '/srv/m.pth'}, timestamp=1795471620.5, source='train')",
            {},
        ),
        (
            "DataEvent(event_type=<DataEventType.TRAINING_PROGRESS: 'training_progress'>, payload={'epoch': 1, "
            "'total_epochs': 1, 'train_loss': nan, 'val_loss': 7.8, 'ok': True, 'none': None, 'lr': 1e-06, "
            "'config': 'hex8_2p'}, timestamp=1795471623.9, source='train')",
            {},
        ),
        (
            "DataEvent(event_type=<DataEventType.TRAINING_FAILED: 'training_failed'>, payload={'config': 'hex8_2p', "
            "'error': \"it's 'config': 'square8_2p', too\"}, timestamp=1795471662.6, source='train_finally')",
            {},
        ),
        source="",
    )
    seen = log.read()
    assert [event.kind for event in seen.events] == ["TRAINING_STARTED", "TRAINING_PROGRESS", "TRAINING_FAILED"]
    assert [event.source for event in seen.events] == ["train", "train", "train_finally"]
    assert seen.events[1].payload["lr"] == 1e-06
    assert seen.events[1].as_dict()["loss"] is None
    assert seen.events[1].finite is False
    assert seen.events[2].text("error") == "it's 'config': 'square8_2p', too"
    assert seen.problems == ()


FAILED = "DataEvent(event_type=<DataEventType.TRAINING_FAILED: 'training_failed'>, payload={'config': "
END = "}, timestamp=1.0, source='x')"


@pytest.mark.parametrize(
    "name",
    [
        FAILED + "'hex8_2p'",
        FAILED + "__import__('os')" + END,
        FAILED + "'hex8_2p', 'x': {}" + END,
        FAILED + "'hex8_2p'" + " " * 20000,
    ],
)
def test_a_repr_that_is_not_understood(log, name):
    seen = log.add((name, {})).read()
    assert seen.events == ()
    assert [problem.code for problem in seen.problems] == ["events_unreadable"]


def test_odd_values(log):
    log.add(
        ("training_progress", '{"config": "hex8_2p", "epoch": NaN, "train_loss": Infinity}'),
        ("training_progress", '{"config": "hex8_2p", "epoch": 1e300}'),
        ("training_progress", '{"config": "hex8_2p", "epoch": true, "val_loss": "4"}'),
        ("training_progress", "[" * 100_000),
        ("training_progress", '{"config": "hex8_2p", "epoch": ' + "9" * 5000 + "}"),
        ("training_progress", b"\xff\xfe".decode("latin-1")),
    )
    log.connection.execute(
        "INSERT INTO events (event_type, payload, hostname, created_at) VALUES (?, ?, ?, ?)",
        ("training_progress", '{"config": "hex8_2p", "epoch": 5}', b"\xff\xfe", "yesterday"),
    )
    log.connection.commit()
    seen = log.read()
    assert [event.epoch for event in seen.events[:3]] == [None, None, None]
    assert (seen.events[-1].epoch, seen.events[-1].at) == (5, None)
    json.dumps(seen.as_dict(), allow_nan=False)


def test_missing(tmp_path):
    seen = read_events(HEX, coordination_dir=str(tmp_path / "none"))
    assert (seen.exists, seen.state, seen.last_event_id) == (False, "none", None)
    assert seen.as_dict()["database"] == str(tmp_path / "none" / "events.db")


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\0" * 500, b"no database at all"])
def test_damaged(tmp_path, content):
    (tmp_path / "events.db").write_bytes(content)
    with pytest.raises(RecoveryError, match=r"damaged|not an SQLite database|no event log|cannot be read"):
        read_events(HEX, coordination_dir=str(tmp_path))


def test_damaged_pages(log):
    log.add(*[progress(number, filler="x" * 500) for number in range(200)])
    log.connection.close()
    with open(log.path, "r+b") as stream:
        stream.seek(8192)
        stream.write(os.urandom(4096 * 8))
    with pytest.raises(RecoveryError, match=r"events\.db is damaged"):
        log.read()


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "events.db")
    with pytest.raises(RecoveryError, match="not a regular file"):
        read_events(HEX, coordination_dir=str(tmp_path))


def test_locked(log, monkeypatch):
    monkeypatch.setattr(_training_events, "BUSY", 0.1)
    log.add(START)
    log.connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RecoveryError, match="is locked"):
        log.read()
    log.connection.rollback()
    assert log.read().state == "running"


def test_a_deadline(log):
    log.add(*[progress(number) for number in range(3000)])
    with pytest.raises(RecoveryError, match="gave no answer"):
        log.read(timeout=1e-9)
    with pytest.raises(RecoveryError, match="timeout is 0"):
        log.read(timeout=0)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_is_created_beside_the_database(log, tmp_path):
    log.connection.execute("PRAGMA journal_mode=WAL")
    log.add(START)
    log.connection.close()
    before = files(tmp_path)
    assert set(before) == {"events.db"}
    assert log.read().state == "running"
    assert files(tmp_path) == before


def test_a_writer_at_work(log, tmp_path):
    log.connection.execute("PRAGMA journal_mode=WAL")
    log.add(START, progress(1))
    before = files(tmp_path)
    assert set(before) == {"events.db", "events.db-wal", "events.db-shm"}
    assert log.read().last("TRAINING_PROGRESS").epoch == 1
    assert set(files(tmp_path)) == set(before)
    log.add(progress(2))
    assert log.read().last("TRAINING_PROGRESS").epoch == 2


def test_a_writer_that_was_killed(tmp_path):
    script = (
        "import sqlite3, sys, time\n"
        "c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode=WAL')\n"
        f"c.execute('''{TABLE}''')\n"
        "c.execute('INSERT INTO events (event_type, payload, created_at) VALUES (?, ?, 5.0)',"
        ' (\'training_progress\', \'{"epoch": 3, "config": "hex8_2p"}\'))\n'
        "c.commit(); print('ready', flush=True); time.sleep(60)\n"
    )
    argv = [sys.executable, "-I", "-c", script, str(tmp_path / "events.db")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        os.kill(writer.pid, signal.SIGKILL)
    before = files(tmp_path)
    assert set(before) == {"events.db", "events.db-wal", "events.db-shm"}
    assert read_events(HEX, coordination_dir=str(tmp_path)).last("TRAINING_PROGRESS").epoch == 3
    assert set(files(tmp_path)) == set(before)
    (tmp_path / "events.db-shm").unlink()
    with pytest.raises(RecoveryError, match=r"\d+ bytes of the write-ahead log"):
        read_events(HEX, coordination_dir=str(tmp_path))
    assert set(files(tmp_path)) == set(before) - {"events.db-shm"}


def test_where_the_service_looks(monkeypatch):
    candidates = _training_events.candidates
    assert candidates({}, 0) == ["/tmp/ringrift_coordination"]
    assert candidates({}, 1000) == ["/tmp/ringrift_coordination_1000"]
    everything = {"RINGRIFT_COORDINATION_DIR": "here", "XDG_RUNTIME_DIR": "/run/user/5"}
    assert candidates(everything, 5, "/srv") == ["/srv/here"]
    del everything["RINGRIFT_COORDINATION_DIR"]
    assert candidates(everything, 5) == ["/run/user/5/ringrift_coordination", "/tmp/ringrift_coordination_5"]


def test_the_newest_of_several_logs(tmp_path, monkeypatch):
    first, second = tmp_path / "a" / "events.db", tmp_path / "b" / "events.db"
    monkeypatch.setattr(_training_events, "candidates", lambda: [str(first.parent), str(second.parent)])
    assert _training_events.find_database() == (str(first), (str(first), str(second)))
    for number, path in enumerate((first, second)):
        path.parent.mkdir()
        path.touch()
        os.utime(path, (1000, 1000 + number))
    assert _training_events.find_database()[0] == str(second)
    wal = pathlib.Path(f"{first}-wal")
    wal.touch()
    assert _training_events.find_database()[0] == str(first)
    assert _training_events.find_database(coordination_dir=str(second.parent))[0] == str(second)


def test_the_real_event_log(real):
    path = str(real / "events.db")
    seen = read_events(HEX, path=path)
    assert seen.counts() == {"started": 18, "progress": 7, "completed": 3, "failed": 3}
    assert (seen.state, seen.last_event_id, seen.problems) == ("completed", 279, ())
    assert seen.last("TRAINING_PROGRESS").as_dict()["epoch"] == 1
    assert seen.last("TRAINING_STARTED").event_id == 253
    assert seen.last("TRAINING_FAILED").as_dict()["error"] == "oom"
    assert read_events(parse_config("square8_2p"), path=path).last("TRAINING_PROGRESS").epoch == 3
    captured = json.loads((real / "cross_process_training_events.json").read_text())
    kinds = {"TRAINING_STARTED", "TRAINING_PROGRESS", "TRAINING_COMPLETED", "TRAINING_FAILED"}
    numbers = [
        event["event_id"]
        for event in captured
        if event["event_type"].upper() in kinds
        and "hex8_2p" in (event["payload"].get("config"), event["payload"].get("config_key"))
    ]
    assert set(numbers) <= {event.event_id for event in seen.events}
    assert not list(pathlib.Path(path).parent.glob("events.db-*"))


simple = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats() | st.text(max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.from_regex(r"\A[a-z_][a-z0-9_]{0,10}\Z"), simple, max_size=6))
def test_a_repr_gives_its_values_back(payload):
    text = (
        "DataEvent(event_type=<DataEventType.TRAINING_PROGRESS: 'training_progress'>, "
        f"payload={payload!r}, timestamp=1795471623.9, source='train')"
    )
    kind, values, source = _training_events._from_repr(text, "")
    assert (kind, source) == ("TRAINING_PROGRESS", "train")
    assert set(values) == set(payload)
    for name, value in payload.items():
        if not isinstance(value, str):
            assert values[name] == value or value != value


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200) | st.binary(max_size=50) | st.none() | st.floats())
def test_garbage(name, payload):
    for kind in (name, "training_progress", "DataEvent(event_type=<DataEventType.TRAINING_X: 'x'>, payload={" + name):
        event, _readable = _training_events._event((1, kind, payload, name, None, payload), HEX)
        assert event is None or event.kind in _training_events.KINDS


def test_no_pattern_takes_long():
    head = "DataEvent(event_type=<DataEventType.TRAINING_X: 'x'>, payload={"
    begun = time.monotonic()
    for tail in ("'a': '" + "\\" * 16000, "'a': 1, " * 2000, "}, timestamp=1, source='" + "\\'" * 8000, "'a': " * 3000):
        _training_events._from_repr((head + tail)[:16000], "")
    assert time.monotonic() - begun < 1

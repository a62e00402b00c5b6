# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the service's triggers, read from databases as the service, a crash and bad luck leave them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_triggers import DATABASE, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.faults._triggers import SCHEMA

HEX = parse_config("hex8_2p")
KEYS = {
    *("database", "exists", "training_in_progress", "paused", "intensity", "last_training_time"),
    *("consecutive_failures", "problems"),
}


@pytest.fixture
def database(tmp_path):
    path = tmp_path / DATABASE
    path.parent.mkdir(parents=True)
    return path


def make(path, schema=SCHEMA, journal="delete", **values):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute(schema)
    if values:
        values = {"config_key": "hex8_2p", **values}
        marks = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO config_state ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    connection.commit()
    return connection


def files(path):
    return {name: os.stat(path.parent / name).st_mtime_ns for name in os.listdir(path.parent)}


def test_no_database_is_a_finding(tmp_path):
    seen = read(HEX, str(tmp_path)).as_dict()
    assert set(seen) == KEYS
    assert (seen["exists"], seen["paused"], seen["training_in_progress"]) == (False, None, None)
    assert seen["database"] == str(tmp_path / "data/coordination/training_trigger_state.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_state_is_read_and_nothing_is_left_behind(database, tmp_path, journal):
    values = {"last_training_time": 1.7e9, "training_in_progress": 1, "training_intensity": "paused"}
    make(database, journal=journal, consecutive_failures=3, **values).close()
    before = files(database)
    seen = read(HEX, str(tmp_path)).as_dict()
    assert seen == {
        "database": str(database),
        "exists": True,
        "training_in_progress": True,
        "paused": True,
        "intensity": "paused",
        "last_training_time": 1.7e9,
        "consecutive_failures": 3,
        "problems": [],
    }
    assert files(database) == before


def test_what_a_writer_has_not_moved_over_yet_is_read(database, tmp_path):
    writer = make(database, journal="wal", training_intensity="normal")
    try:
        writer.execute("UPDATE config_state SET training_intensity = 'paused'")
        writer.commit()
        seen = read(HEX, str(tmp_path))
        assert (seen.paused, seen.training_in_progress, seen.problems) == (True, False, ())
    finally:
        writer.close()


def test_the_log_of_a_writer_that_was_killed_is_named(database, tmp_path):
    pid = os.fork()
    if not pid:
        _left_open = make(database, journal="wal", training_intensity="normal")
        os._exit(0)
    os.waitpid(pid, 0)
    os.unlink(f"{database}-shm")
    database.write_bytes(b"")
    make(database, journal="delete", training_intensity="normal").close()
    with open(database, "r+b") as stream:
        # As the header of a database with a write-ahead log.
        stream.seek(18)
        stream.write(b"\x02\x02")
    with open(f"{database}-wal", "wb") as stream:
        stream.write(b"\0" * 100)
    seen = read(HEX, str(tmp_path))
    assert [problem.code for problem in seen.problems] == ["log_not_read"]


def test_another_config_tells_nothing(database, tmp_path):
    make(database, config_key="square8_2p", training_intensity="paused").close()
    seen = read(HEX, str(tmp_path))
    assert (seen.exists, seen.paused, seen.training_in_progress) == (True, None, None)
    assert [problem.code for problem in seen.problems] == ["config_not_listed"]


def test_a_config_that_was_never_trained_has_no_time_and_no_problem(database, tmp_path):
    make(database, last_training_time=0).close()
    seen = read(HEX, str(tmp_path))
    assert (seen.last_training_time, seen.paused, seen.problems) == (None, False, ())


def test_a_table_of_an_older_service_lacks_columns(database, tmp_path):
    make(database, "CREATE TABLE config_state (config_key TEXT, last_training_time REAL)", last_training_time=5).close()
    seen = read(HEX, str(tmp_path))
    assert (seen.last_training_time, seen.paused, seen.training_in_progress) == (5.0, None, None)
    (problem,) = seen.problems
    assert problem.code == "state_unreadable"


@pytest.mark.parametrize(
    "content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 5000], ids=["garbage", "damaged"]
)
def test_garbage_is_an_error(database, tmp_path, content):
    database.write_bytes(content)
    with pytest.raises(RecoveryError, match="training_trigger_state.db"):
        read(HEX, str(tmp_path))


def test_another_database_is_an_error(database, tmp_path):
    make(database, "CREATE TABLE other (x)").close()
    with pytest.raises(RecoveryError, match="has no table config_state"):
        read(HEX, str(tmp_path))


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_what_is_no_file_is_an_error_and_never_waited_for(database, tmp_path, kind):
    if kind == "directory":
        database.mkdir()
    elif kind == "fifo":
        os.mkfifo(database)
    else:
        database.symlink_to("nowhere")
    begun = time.monotonic()
    with pytest.raises(RecoveryError):
        read(HEX, str(tmp_path))
    assert time.monotonic() - begun < 2


def test_a_locked_database_costs_its_timeout(database, tmp_path):
    holder = make(database, training_intensity="normal")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        begun = time.monotonic()
        with pytest.raises(RecoveryError, match="locked|no answer"):
            read(HEX, str(tmp_path), timeout=0.3)
        assert time.monotonic() - begun < 2
    finally:
        holder.close()


def test_a_view_without_an_end_costs_its_timeout(database, tmp_path):
    endless = (
        "CREATE VIEW config_state AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS config_key, i AS training_in_progress FROM n"
    )
    make(database, endless).close()
    with pytest.raises(RecoveryError, match="no answer within"):
        read(HEX, str(tmp_path), timeout=0.3)


@given(
    running=st.none() | st.integers(-5, 5) | st.text(max_size=5) | st.binary(max_size=5) | st.floats(),
    intensity=st.none() | st.integers(-5, 5) | st.text(max_size=100) | st.binary(max_size=50) | st.just("PAUSED "),
    moment=st.none() | st.floats() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    failures=st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.floats(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_breaks_it(database, tmp_path, running, intensity, moment, failures):
    database.unlink(missing_ok=True)
    intensity = intensity.encode("utf-8", "replace").decode() if isinstance(intensity, str) else intensity
    make(
        database,
        training_in_progress=running,
        training_intensity=intensity,
        last_training_time=moment,
        consecutive_failures=failures,
    ).close()
    seen = read(HEX, str(tmp_path))
    if isinstance(running, str):
        # The column is one of numbers, so the text of a number becomes that number.
        with contextlib.suppress(ValueError):
            running = float(running)
    assert seen.training_in_progress in (None, bool(running))
    if seen.training_in_progress is None:
        assert seen.problems
    if isinstance(intensity, str) and intensity.strip().lower() == "paused":
        assert seen.paused is True
    else:
        assert not seen.paused


@pytest.mark.parametrize("timeout", [0.0, -1.0, 3601.0, float("nan")])
def test_a_timeout_that_makes_no_sense(tmp_path, timeout):
    with pytest.raises(RecoveryError, match="more than 0 and at most 3600"):
        read(HEX, str(tmp_path), timeout)


def test_a_database_that_cannot_be_opened_is_told(database, tmp_path):
    database.symlink_to(database)
    with pytest.raises(RecoveryError, match=r"training_trigger_state\.db"):
        read(HEX, str(tmp_path))

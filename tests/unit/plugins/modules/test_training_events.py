# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import sqlite3

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import training_events

KINDS = ("TRAINING_STARTED", "training_progress", "TRAINING_COMPLETED", "TRAINING_FAILED")


@pytest.fixture
def run(tmp_path, capsys):
    def call(**options):
        options = {"config": "hex8_2p", "coordination_dir": str(tmp_path), **options}
        with patch_module_args(options), pytest.raises(SystemExit) as stopped:
            training_events.main()
        return stopped.value.code, json.loads(capsys.readouterr().out)

    return call


def check_documented(result, documented):
    assert set(result) - {"changed", "invocation"} == set(documented)
    for name, value in result.items():
        below = documented.get(name, {}).get("contains")
        for entry in (value if isinstance(value, list) else [value]) if below else []:
            if isinstance(entry, dict):
                check_documented(entry, below)


def test_every_kind_of_event(run, tmp_path):
    with sqlite3.connect(tmp_path / "events.db") as connection:
        connection.execute(
            "CREATE TABLE events (event_id INTEGER PRIMARY KEY, event_type, payload, source, hostname, created_at)"
        )
        for kind in KINDS:
            payload = json.dumps({"config": "hex8_2p", "epoch": 3, "total_epochs": 50, "error": "oom"})
            connection.execute("INSERT INTO events VALUES (NULL, ?, ?, 'train', 'node-1', 5.0)", (kind, payload))
        connection.execute("INSERT INTO events VALUES (NULL, 'training_failed', '{', '', '', 6.0)")
    connection.close()
    for check in (False, True):
        code, result = run(_ansible_check_mode=check)
        assert (code, result["changed"], result["state"]) == (0, False, "failed")
        assert result["last"]["progress"]["epoch"] == 3
        assert result["last"]["failed"]["error"] == "oom"
        assert [problem["code"] for problem in result["problems"]] == ["events_unreadable"]
        check_documented(result, yaml.safe_load(training_events.RETURN))


def test_no_event_log_is_a_finding(run, tmp_path):
    code, result = run()
    assert (code, result["exists"], result["state"]) == (0, False, "none")
    assert result["searched"] == [str(tmp_path / "events.db")]
    check_documented(result, yaml.safe_load(training_events.RETURN))


def test_failures(run, tmp_path):
    (tmp_path / "events.db").write_text("no database")
    code, result = run()
    assert (code, result["failed"]) == (1, True)
    assert "not an SQLite database" in result["msg"]
    assert "config is 'hex8'" in run(config="hex8")[1]["msg"]
    assert "mutually exclusive" in run(path="/x")[1]["msg"]

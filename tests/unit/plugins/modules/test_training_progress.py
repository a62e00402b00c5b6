# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import find_trainers
from ansible_collections.ringrift.recovery.plugins.modules import training_progress

DEADLINE = 20
ARGV = [sys.executable, "-m", "app.training.train", "--board-type", "hex8", "--num-players", "2"]


@pytest.fixture
def run(tmp_path, capsys):
    def call(**options):
        where = {"service_path": str(tmp_path), "within": str(tmp_path), "coordination_dir": str(tmp_path)}
        with patch_module_args({"config": "hex8_2p", **where, **options}), pytest.raises(SystemExit) as stopped:
            training_progress.main()
        return stopped.value.code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def trainer(tmp_path):
    (tmp_path / "app/training").mkdir(parents=True)
    (tmp_path / "app/training/train.py").write_text("import time\ntime.sleep(300)\n")
    with subprocess.Popen(ARGV, cwd=tmp_path) as process:
        end = time.monotonic() + DEADLINE
        while process.pid not in [found.pid for found in find_trainers(None, str(tmp_path))]:
            assert time.monotonic() < end
            time.sleep(0.02)
        yield process
        process.kill()


def finish(folder, epoch):
    with sqlite3.connect(folder / "events.db") as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS events "
            "(event_id INTEGER PRIMARY KEY, event_type, payload, source, hostname, created_at)"
        )
        payload = json.dumps({"config": "hex8_2p", "epoch": epoch, "total_epochs": 50})
        row = ("training_progress", payload, socket.gethostname(), time.time())
        connection.execute("INSERT INTO events VALUES (NULL, ?, ?, 'train', ?, ?)", row)
    connection.close()


def check_documented(result, documented):
    assert set(result) - {"changed", "invocation"} == set(documented)
    for name, value in result.items():
        below = documented.get(name, {}).get("contains")
        for entry in (value if isinstance(value, list) else [value]) if below else []:
            if isinstance(entry, dict):
                check_documented(entry, below)


def test_proof(run, trainer, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with zipfile.ZipFile(tmp_path / "checkpoints/checkpoint_epoch_1.pth", "w") as container:
        container.writestr("nothing", "")
    finish(tmp_path, 2)
    documented = yaml.safe_load(training_progress.RETURN)
    code, begin = run()
    assert (code, begin["changed"], begin["verdict"], begin["progressed"]) == (0, False, "progressing", None)
    check_documented(begin, documented)
    for check in (False, True):
        code, result = run(after=begin["cursor"], _ansible_check_mode=check)
        assert (code, result["progressed"], result["proof"]) == (0, False, [])
        check_documented(result, documented)
    finish(tmp_path, 3)
    code, result = run(after=begin["cursor"])
    assert (code, result["progressed"]) == (0, True)
    assert [proof["source"] for proof in result["proof"]] == ["events"]
    assert result["last"]["epoch"] == 3
    check_documented(result, documented)


def test_nothing_runs(run):
    code, result = run(stall_after=5)
    assert (code, result["verdict"], result["running"]) == (0, "not_running", False)
    check_documented(result, yaml.safe_load(training_progress.RETURN))


def test_the_home_of_the_service_need_not_exist(run, tmp_path):
    assert run(service_path=str(tmp_path / "none"))[1]["verdict"] == "not_running"


def test_a_damaged_event_log_is_a_problem(run, tmp_path):
    (tmp_path / "events.db").write_text("no database")
    code, result = run()
    assert (code, [problem["code"] for problem in result["problems"]]) == (0, ["events_unreadable"])


def test_failures(run):
    assert "config is 'hex8_5p'" in run(config="hex8_5p")[1]["msg"]
    code, result = run(after={"color": "red"})
    assert (code, result["failed"]) == (1, True)
    assert "no cursor of an earlier look" in result["msg"]


def test_nothing_is_written(run, tmp_path):
    finish(tmp_path, 1)
    before = sorted(os.listdir(tmp_path))
    run()
    assert sorted(os.listdir(tmp_path)) == before

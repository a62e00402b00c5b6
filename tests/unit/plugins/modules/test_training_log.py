# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import training_log


@pytest.fixture
def run(tmp_path, capsys):
    def call(**options):
        with patch_module_args({"service_path": str(tmp_path), **options}), pytest.raises(SystemExit) as stopped:
            training_log.main()
        return stopped.value.code, json.loads(capsys.readouterr().out)

    return call


def check_documented(result, documented):
    assert set(result) - {"changed", "invocation"} == set(documented)
    for name, value in result.items():
        below = documented.get(name, {}).get("contains")
        for entry in (value if isinstance(value, list) else [value]) if below else []:
            if isinstance(entry, dict):
                check_documented(entry, below)


def test_the_log_of_the_service(run, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "training.log").write_text(
        "INFO:app.training.train:Epoch [3/3], Train Loss: 4.4, Val Loss: 6.7, Policy Acc: 0.0%\n"
        "TRAINING_SUMMARY: loss=6.7000 samples=0 games=0 epochs=3\n"
        "WARNING:app.training.train:CUDA error in batch 3: CUDA out of memory.\n"
    )
    for check in (False, True):
        code, result = run(_ansible_check_mode=check, lines=1)
        assert (code, result["changed"], result["exists"]) == (0, False, True)
        assert result["log_path"] == str(tmp_path / "logs" / "training.log")
        assert result["progress"]["epoch"] == 3
        assert result["summary"]["epochs"] == 3
        assert [finding["code"] for finding in result["findings"]] == ["cuda_oom"]
        assert len(result["lines"]) == 1
        check_documented(result, yaml.safe_load(training_log.RETURN))


def test_no_log_is_a_finding(run):
    code, result = run()
    assert (code, result["exists"], result["progress"], result["findings"]) == (0, False, None, [])
    check_documented(result, yaml.safe_load(training_log.RETURN))


def test_another_log(run, tmp_path):
    (tmp_path / "other.log").write_text("hello\n")
    assert run(path=str(tmp_path / "other.log"))[1]["lines"] == ["hello"]
    assert run(path="other.log")[1]["lines"] == ["hello"]


def test_what_cannot_be_read_is_a_failure(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, result = run(path="pipe")
    assert (code, result["failed"]) == (1, True)
    assert "not a regular file" in result["msg"]
    assert run(lines=-1)[1]["failed"] is True

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module lock_holder, with real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from typing import Any, Dict

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_holder import parse_answers
from ansible_collections.ringrift.recovery.plugins.modules import lock_holder


@pytest.fixture
def call(capsys) -> Any:
    def run(check: bool = False, failed: bool = False, **args: Any) -> Dict[str, Any]:
        with patch_module_args({**args, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            lock_holder.main()
        result = json.loads(capsys.readouterr().out)
        assert result.get("failed", False) is failed, result
        return result

    return run


def token(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:0ef85993"


def gone_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait(10)
    return process.pid


def test_answers(call):
    me, gone = token(os.getpid()), token(gone_pid())
    results = [call(check=check, token=me) for check in (True, False)]
    assert [(result["verdict"], result["changed"]) for result in results] == [("alive", False)] * 2
    assert results[0]["process"]["pid"] == os.getpid()
    assert results[0]["token"] == me
    assert call(token=gone)["verdict"] == "dead"
    assert call(token="another-host:1:0ef85993")["verdict"] == "unknown"


def test_when_the_lock_was_taken(call):
    me = token(os.getpid())
    assert call(token=me, acquired_at=time.time())["verdict"] == "alive"
    assert call(token=me, min_age=0.0)["verdict"] == "alive"
    long_ago = {"reused", "prior_boot"}
    assert call(token=me, acquired_at=time.time() - 86400)["verdict"] in long_ago
    assert call(token=me, min_age=86400.0)["verdict"] in long_ago
    assert "mutually exclusive" in call(failed=True, token=me, acquired_at=1.0, min_age=1.0)["msg"]


def test_a_prediction_is_for_check_mode_only(call):
    me = token(os.getpid())
    assert call(check=True, token=me, assume_gone=[os.getpid()])["verdict"] == "dead"
    assert call(check=False, token=me, assume_gone=[os.getpid()])["verdict"] == "alive"


def test_what_is_no_token(call):
    assert "host:pid:8hex" in call(failed=True, token="somebody")["msg"]


def test_the_answer_is_what_training_lock_takes(call):
    answer = parse_answers([call(token=token(gone_pid()))])[0]
    assert (answer.verdict, answer.hostname, answer.kept) == ("dead", socket.gethostname(), None)


def test_the_documentation_names_every_key(call):
    documented = yaml.safe_load(lock_holder.RETURN)
    result = call(token=token(os.getpid()))
    assert set(documented) == set(result) - {"changed", "invocation"}
    assert set(documented["process"]["contains"]) == set(result["process"])

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils import _process_stop
from ansible_collections.ringrift.recovery.plugins.module_utils._process_stop import (
    UNINTERRUPTIBLE,
    StopResult,
    Survivor,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._systemd import UnitStop
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import Sighting, Unidentified
from ansible_collections.ringrift.recovery.plugins.modules import training_process

from tests.unit.training_processes import tree_of, wait_for

RETURNED = yaml.safe_load(training_process.RETURN)
ALWAYS = {"changed", *RETURNED}


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.fixture
def run(capsys, tree, monkeypatch):
    monkeypatch.setattr(_process_stop, "SETTLE", 0.1)
    # Ansible remembers the warnings of a whole process, so the module's own are caught here.
    warnings = []
    monkeypatch.setattr(training_process.AnsibleModule, "warn", lambda _module, text: warnings.append(text))

    def call(**params):
        # Other trainers may run on this machine; without this they would be stopped.
        params = {"config": "hex8_2p", "within": str(tree.root), "service_path": str(tree.root), "grace": 5, **params}
        warnings.clear()
        with patch_module_args(params), pytest.raises(SystemExit):
            training_process.main()
        result = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        call.warnings = str(warnings)
        return result

    return call


def pids(rows):
    return sorted(row["pid"] for row in rows)


def test_check_run_check_run(run, tree):
    started = tree.train(mode="workers=2")
    wait_for(lambda: len(tree.look().processes) == 3)
    family = tree.pids()
    check, done, check_again, again = (
        run(state="stopped", _ansible_check_mode=mode, _ansible_diff=True) for mode in (True, False, True, False)
    )
    assert [one["changed"] for one in (check, done, check_again, again)] == [True, True, False, False]
    assert pids(check["stopped"]) == pids(done["stopped"]) == pids(check["processes"]) == sorted(family)
    assert [one["running"] for one in (check, done, check_again, again)] == [0, 0, 0, 0]
    assert check["diff"] == done["diff"]
    assert check["diff"]["after"] == ""
    assert check["diff"]["before"].startswith(f"{started.pid} ")
    assert len(check["diff"]["before"].splitlines()) == 3
    assert {one["signal"] for one in check["stopped"]} == {"SIGTERM"}
    assert {row["pid"]: row["signal"] for row in done["stopped"]}[started.pid] == "SIGTERM"
    assert again["processes"] == again["stopped"] == again["survivors"] == []
    assert set(check) - {"diff"} == set(done) - {"diff"} == ALWAYS


NVIDIA_SMI = """#!/bin/sh
# A stand-in: lists what the file beside it names, and lives.
while read -r pid; do
    [ -d "/proc/$pid" ] && grep -qv ') Z' "/proc/$pid/stat" && echo "$pid, python, 61024"
done < "$0.pids"
exit 0
"""


@pytest.fixture
def gpu(tmp_path):
    path = tmp_path / "nvidia-smi"

    def lists(*pids, text=NVIDIA_SMI):
        path.write_text(text)
        path.chmod(0o755)
        (tmp_path / "nvidia-smi.pids").write_text("".join(f"{pid}\n" for pid in pids))
        return str(path)

    return lists


def test_check_run_check_run_with_proof_of_lock_and_gpu(run, tree, gpu):
    (tree.root / "data/locks").mkdir()
    lock = tree.root / "data/locks/training_hex8_2p.lock"
    lock.touch()
    started = tree.train(mode=f"open={lock}")
    options = {"state": "stopped", "gpu": True, "evidence": True, "nvidia_smi": gpu(started.pid)}
    assert run(gpu=True, nvidia_smi=options["nvidia_smi"])["processes"][0]["gpu_memory"] == 61024.0
    check, done, check_again, again = (run(_ansible_check_mode=mode, **options) for mode in (True, False, True, False))
    assert [one["changed"] for one in (check, done, check_again, again)] == [True, True, False, False]
    # The prediction is what came true.
    assert check["proof"] == done["proof"] == check_again["proof"] == again["proof"]
    assert (done["proof"]["gone"], done["proof"]["flock_free"], done["proof"]["gpu_free"]) == (True, True, True)
    assert [one["pid"] for one in check["evidence"]] == [one["pid"] for one in done["evidence"]] == [started.pid]
    assert again["evidence"] == []
    assert set(check) == set(done) == ALWAYS


def test_a_lock_that_a_helper_keeps_fails_the_module(run, tree):
    (tree.root / "data/locks").mkdir()
    lock = tree.root / "data/locks/training_hex8_2p.lock"
    lock.touch()
    started = tree.train(mode=f"helper open={lock}")
    (helper,) = [pid for pid in tree.pids() if pid != started.pid]
    for check in (True, False):
        result = run(state="stopped", _ansible_check_mode=check)
        assert result["failed"]
        assert f"process {helper}, which one of them has started, still keeps the flock on {lock}" in result["msg"]
        assert result["proof"]["flock_keepers"] == [helper]
        assert pids(result["stopped"]) == [started.pid]


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, ""), ("#!/bin/sh\necho 'No devices were found'\nexit 6\n", "no GPU was found")],
    ids=["no tool", "no answer"],
)
def test_a_gpu_that_is_not_known_is_no_obstacle(run, tree, gpu, tmp_path, text, said):
    tree.train()
    tool = gpu(text=text) if text else str(tmp_path / "none")
    result = run(state="stopped", gpu=True, nvidia_smi=tool)
    assert "failed" not in result
    assert (result["proof"]["gpu_free"], result["processes"][0]["gpu_memory"]) == (None, None)
    assert said in run.warnings
    assert bool(run.warnings.strip("[]")) is bool(text)


def test_a_title_that_hides_a_trainer_fails_the_stop(run, tree):
    started = tree.train("--run-name", "0" * 200, mode="title=ringrift:+training+hex8_2p")
    result = run(state="stopped")
    assert result["failed"]
    assert pids(result["unidentified"]) == [started.pid]
    assert "end one that hides what it runs by hand" in result["msg"]
    assert (result["proof"]["gone"], started.poll()) == (None, None)


def test_check_mode_signals_nobody(run, tree):
    started = tree.train(mode="emergency=0")
    run(state="stopped", _ansible_check_mode=True)
    assert started.poll() is None
    assert list(tree.root.glob("emergency.*")) == []


def test_query(run, tree):
    assert run()["running"] == 0
    started = tree.train()
    unknown = tree.train("--board-type", "hex8")
    other = tree.train("--board-type", "hex8", "--num-players", "4")
    result = run(_ansible_diff=True)
    assert set(result) == ALWAYS
    assert (result["changed"], result["running"], result["unseen"]) == (False, 1, None)
    assert pids(result["processes"]) == [started.pid]
    assert pids(result["unknown"]) == [unknown.pid]
    assert result["unknown"][0]["config"] is None
    assert f"pid {unknown.pid}" in run.warnings
    assert f"pid {other.pid}" not in run.warnings
    assert [one.poll() for one in (started, unknown, other)] == [None] * 3


def test_every_returned_key_is_documented(run, tree):
    tree.train()
    done = run(state="stopped")
    process = set(RETURNED["processes"]["contains"])
    assert set(done["processes"][0]) == process
    assert set(done["stopped"][0]) == process | set(RETURNED["stopped"]["contains"])
    tree.train()
    (found,) = tree.look().processes
    survivor = Survivor(found, "D", None, True, UNINTERRUPTIBLE).as_dict()
    assert set(survivor) == process | set(RETURNED["survivors"]["contains"])
    doubt = Unidentified(1, "a", "D", None, "b").as_dict()
    assert set(doubt) == set(RETURNED["unidentified"]["contains"])
    assert set(done["proof"]) == set(RETURNED["proof"]["contains"])
    assert set(UnitStop("a.service", [1]).as_dict()) == set(RETURNED["units"]["contains"])
    (evidence,) = run(evidence=True)["evidence"]
    assert set(evidence) == set(RETURNED["evidence"]["contains"])


def test_unknown_is_not_ours_unless_told_so(run, tree):
    unknown = tree.train("--epochs", "3")
    result = run(state="stopped")
    assert (result["changed"], pids(result["unknown"]), unknown.poll()) == (False, [unknown.pid], None)
    assert run(include_unknown=True)["running"] == 1
    result = run(state="stopped", include_unknown=True)
    assert (result["changed"], pids(result["stopped"]), result["unknown"]) == (True, [unknown.pid], [])


def test_what_an_earlier_step_would_have_stopped(run, tree):
    started = tree.train()
    for state in ("query", "stopped"):
        result = run(state=state, assume_gone=[started.pid], _ansible_check_mode=True)
        assert (result["running"], result["processes"], result["changed"]) == (0, [], False)
    # In a real run it is looked at.
    assert run(assume_gone=[started.pid])["running"] == 1


def test_survivors_fail_the_module(run, tree, monkeypatch):
    tree.train()
    (found,) = tree.look().processes
    outcome = StopResult((), (Survivor(found, "D", "uvm_va_space_destroy", True, UNINTERRUPTIBLE),), True)
    monkeypatch.setattr(training_process, "stop", lambda *args, **more: outcome)
    result = run(state="stopped", _ansible_diff=True)
    assert result["failed"]
    assert f"pid {found.pid} (state D, waits in uvm_va_space_destroy)" in result["msg"]
    assert "Reboot the node" in result["msg"]
    assert set(result) >= ALWAYS
    assert (result["stopped"], pids(result["survivors"]), result["running"]) == ([], [found.pid], 1)
    assert result["diff"]["after"] == result["diff"]["before"]


def test_one_that_appears_after_the_stop_fails_the_module(run, tree, monkeypatch):
    started = tree.train()
    monkeypatch.setattr(training_process, "stop", lambda *args, **more: StopResult())
    result = run(state="stopped")
    assert result["failed"]
    assert f"Process {started.pid} of hex8_2p was started just after the stop" in result["msg"]
    assert result["running"] == 1


@pytest.mark.parametrize("check", [True, False])
def test_what_cannot_be_identified_fails_the_stop_and_not_the_query(run, monkeypatch, check):
    doubt = Unidentified(4711, "python3", "D", "nfs4_wait", "its command line cannot be read")
    monkeypatch.setattr(training_process, "look", lambda *args: Sighting((), unidentified=(doubt,)))
    result = run(state="stopped", _ansible_check_mode=check)
    assert result["failed"]
    assert "pid 4711 (python3): its command line cannot be read" in result["msg"]
    assert result["unidentified"] == [doubt.as_dict()]
    assert "failed" not in run()
    assert run()["unidentified"] == [doubt.as_dict()]


@pytest.mark.parametrize("config", ["hex8", "hex8_5p", "hex8_2p; rm -rf /", "../hex8_2p", ""])
def test_a_config_that_is_none(run, tree, config):
    started = tree.train()
    result = run(state="stopped", config=config)
    assert result["failed"]
    assert "hex8_2p or square8_3p" in result["msg"]
    assert started.poll() is None


def test_options_are_those_that_are_documented():
    documented = set(yaml.safe_load(training_process.DOCUMENTATION)["options"])
    assert documented == {
        "state", "grace", "within", "include_unknown", "gpu", "nvidia_smi", "evidence", "assume_gone",
    }  # fmt: skip
    assert os.access(training_process.__file__, os.R_OK)

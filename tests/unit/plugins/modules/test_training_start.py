# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import read_stat
from ansible_collections.ringrift.recovery.plugins.modules import training_start

from tests.unit.training_processes import tree_of, wait_for

RETURNED = yaml.safe_load(training_start.RETURN)
ALWAYS = {"changed", *(key for key, value in RETURNED.items() if value["returned"] == "always")}


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.fixture
def run(capsys, tree, monkeypatch):
    keepers = []
    # Ansible remembers the warnings of a whole process, so the module's own are caught here.
    warnings = []
    monkeypatch.setattr(training_start.AnsibleModule, "warn", lambda _module, text: warnings.append(text))

    def call(mode="", **params):
        # Other trainers may run on this machine; without this they would count.
        place = {"service_path": str(tree.root), "within": str(tree.root)}
        params = {"config": "hex8_2p", "wait": 0, "environment": {"MODE": mode}, **place, **params}
        with patch_module_args(params), pytest.raises(SystemExit):
            training_start.main()
        result = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        keepers.append(result.get("keeper_pid"))
        return result

    call.warnings = warnings
    yield call
    tree.end()
    for pid in filter(None, keepers):
        wait_for(lambda pid=pid: not (read_stat(pid) and read_stat(pid).alive), "the end of the keeper")


def files(root: pathlib.Path) -> dict:
    return {str(path): path.lstat().st_mtime_ns for path in [root, *root.rglob("*")]}


def test_check_run_check_run(run, tree):
    before = files(tree.root)
    check = run(_ansible_check_mode=True, _ansible_diff=True)
    assert files(tree.root) == before
    assert tree.look().processes == ()
    done = run(_ansible_diff=True)
    check_again, again = run(_ansible_check_mode=True), run()
    assert [one["changed"] for one in (check, done, check_again, again)] == [True, True, False, False]
    assert check["cmdline"] == done["cmdline"] == again["cmdline"]
    assert check["diff"] == done["diff"]
    assert done["diff"] == {"before": "", "after": " ".join(done["cmdline"]) + "\n"}
    assert (check["pid"], check["keeper_pid"], check["start_time"]) == (None, None, None)
    assert check["log"] == done["log"] == again["log"] == str(tree.root / "logs/training.log")
    (found,) = tree.look().processes
    assert [one["pid"] for one in (done, check_again, again)] == [found.pid] * 3
    assert (done["start_ticks"], done["keeper_pid"]) == (found.start_ticks, found.ppid)
    assert again["keeper_pid"] is None
    for result in (check, done, check_again, again):
        assert set(result) - {"diff"} == ALWAYS


def test_the_restart_after_a_predicted_stop(run, tree):
    running = tree.train()
    check = run(assume_gone=[running.pid], _ansible_check_mode=True)
    assert (check["changed"], check["pid"]) == (True, None)
    # In a real run it is looked at.
    assert (run(assume_gone=[running.pid])["pid"], run()["changed"]) == (running.pid, False)


def test_what_an_earlier_step_puts_in_place_may_be_missing_in_a_prediction(run, tree):
    (tree.root / "data/training/hex8_2p.npz").unlink()
    check = run(_ansible_check_mode=True, init_weights="models/checkpoint_hex8_2p.pth")
    assert check["changed"]
    assert str(run.warnings).count("unless an earlier step puts it in place") == 2
    done = run()
    assert done["failed"]
    assert "hex8_2p.npz cannot be read" in done["msg"]
    assert not (tree.root / "logs").exists()
    (tree.root / "venv/bin/python").unlink()
    check = run(_ansible_check_mode=True)
    assert check["failed"]
    assert "venv/bin/python, the interpreter of the service, does not exist" in check["msg"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"resume": "a.pth"}, "Use init_weights instead"),
        ({"resume": "a.pth", "init_weights": "b.pth"}, "mutually exclusive"),
        ({"save_path": "models/canonical_hex8_2p.pth"}, "allow_canonical: true"),
        ({"extra_args": ["--save-path=x"]}, "--save-path has an option of its own"),
        ({"config": "hex8_9p"}, "hex8_9p"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"service_path": "/nonexistent"}, "is not the service's directory"),
    ],
)
def test_what_is_refused(run, tree, check, params, words):
    result = run(**params, _ansible_check_mode=check)
    assert result["failed"]
    assert words in result["msg"]
    assert not (tree.root / "logs").exists()


def test_one_that_dies_at_once(run):
    result = run("fail=1", wait=5)
    assert result["failed"]
    assert "exit code 1" in result["msg"]
    assert result["rc"] == 1
    assert result["log_tail"] == "line before\nValueError: TRAINING BLOCKED\n"
    assert set(result) == {*ALWAYS, "rc", "log_tail", "failed", "msg"}


def test_one_that_is_done_at_once(run):
    result = run("seconds=0.05", wait=5)
    assert (result["changed"], result["rc"], result["log_tail"]) == (True, 0, "ready\n")
    assert not result.get("failed")


def test_options_reach_the_trainer(run, tree):
    (tree.root / "models/w.pth").write_bytes(b"x")
    result = run(
        batch_size=256,
        epochs=3,
        checkpoint_dir="checkpoints/hex8_2p",
        checkpoint_interval=1,
        init_weights="models/w.pth",
        allow_stale_data=False,
        extra_args=["--no-auto-tune-batch-size"],
        environment={"MODE": "name=seen", "CUDA_VISIBLE_DEVICES": "1"},
        log="logs/other.log",
    )
    words = " ".join(result["cmdline"])
    assert "--batch-size 256 --epochs 3" in words
    assert "--checkpoint-dir checkpoints/hex8_2p --checkpoint-interval 1 --init-weights models/w.pth" in words
    assert words.endswith("models/w.pth --no-auto-tune-batch-size")
    wait_for(lambda: read_stat(result["pid"]).comm == "seen")
    assert result["log"].endswith("logs/other.log")
    with open(f"/proc/{result['pid']}/environ", "rb") as stream:
        assert b"CUDA_VISIBLE_DEVICES=1" in stream.read().split(b"\0")
    assert os.readlink(f"/proc/{result['pid']}/fd/2") == result["log"]

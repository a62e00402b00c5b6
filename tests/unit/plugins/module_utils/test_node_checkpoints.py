# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib.util
import os
import time

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _node_checkpoints
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._node_checkpoints import (
    AUTO,
    FULL,
    QUICK,
    Facts,
    look,
    reason_for_full,
)

from lab import seed
from tests.unit.training_processes import as_nobody

_spec = importlib.util.spec_from_file_location("lab_torch_zip", seed.SERVICE / "app/training/torch_zip.py")
torch_zip = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(torch_zip)

HEX = parse_config("hex8_2p")
HEALTHY = Facts("progressing", True, "running", (), (), True)
IDLE = Facts("not_running", False, "none", (), (), False)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (HEALTHY, None),
        (Facts("starting", True, "none", (), (), False), None),
        (Facts("unknown", True, None, (), (), None), None),
        (IDLE, None),
        # The log of a run that moves on, with the end of the one before it.
        (Facts("progressing", True, "running", ("training_failed",), (), True), None),
        (Facts("progressing", True, "running", ("cuda_oom", "nan"), ("cuda_oom", "nan"), True), None),
        (Facts("progressing", True, "running", ("weights_not_loaded",), (), True), "the log says weights_not_loaded"),
        (Facts("starting", True, "running", ("checkpoint_invalid",), (), True), "the log says checkpoint_invalid"),
        (Facts("not_running", False, "none", ("training_failed",), ("training_failed",)), "the log says training_fail"),
        (Facts("not_running", False, "failed", (), (), True), "the last training failed"),
        (Facts("stalled", True, "running", (), (), True), "the training is stalled"),
        (Facts("not_running", False, "running", (), (), True), "did not report its end"),
        (
            Facts("not_running", False, "completed", (), (), True),
            "no trainer of hex8_2p runs, and there was one before",
        ),
        (Facts("not_running", False, "none", (), (), True), "no trainer of hex8_2p runs, and there was"),
        (Facts("not_running", False, None, (), (), None), "whether hex8_2p was trained here could not be seen"),
        (Facts("unknown", None, "none", (), (), False), "whether a trainer of hex8_2p runs could not be seen"),
        (Facts(), "could not be seen"),
    ],
)
def test_reason(facts, words):
    reason = reason_for_full(HEX, facts)
    assert reason is None if words is None else words in reason


def save(path, age=0.0, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"weight": np.ones((64, 64), np.float32)}
    torch_zip.save({"epoch": 5, "model_state_dict": state, "loss": 1.5, **more}, path)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def flip(path):
    """Change one byte of a tensor, which nothing but a look at every byte can see."""
    data = bytearray(path.read_bytes())
    at = data.index(np.ones(16, np.float32).tobytes()) + 6
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def service(tmp_path):
    save(tmp_path / "models/canonical_hex8_2p.pth")
    save(tmp_path / "models/canonical_square8_2p.pth")
    for age in (10, 20, 30):
        save(tmp_path / f"checkpoints/checkpoint_epoch_{40 - age}.pth", age)
    return tmp_path


def see(service, depth=AUTO, facts=HEALTHY, seconds=30.0):
    return look(HEX, str(service), depth, lambda: facts, seconds)


def test_the_model_and_the_two_newest_quickly(service):
    seen = see(service)
    names = ["canonical_hex8_2p.pth", "checkpoint_epoch_30.pth", "checkpoint_epoch_20.pth"]
    assert [os.path.basename(one["path"]) for one in seen] == names
    assert [(one["valid"], one["depth"], "examined_because" in one) for one in seen] == [(True, QUICK, False)] * 3


def test_every_byte_where_there_is_reason(service):
    flip(service / "models/canonical_hex8_2p.pth")
    assert see(service)[0]["valid"] is True
    canonical, newest, _older = see(service, facts=Facts("not_running", False, "completed", (), (), True))
    assert (canonical["valid"], canonical["depth"]) == (False, FULL)
    assert canonical["examined_because"] == "no trainer of hex8_2p runs, and there was one before"
    assert (newest["valid"], newest["depth"]) == (True, FULL)


def test_depth_may_be_given(service):
    flip(service / "models/canonical_hex8_2p.pth")
    assert [one["examined_because"] for one in see(service, FULL)] == ["checkpoint_depth is full"] * 3
    assert see(service, FULL)[0]["valid"] is False
    assert see(service, QUICK, Facts("stalled", True))[0]["depth"] == QUICK


def test_only_the_one_that_a_quick_look_suspects(service):
    path = service / "checkpoints/checkpoint_epoch_30.pth"
    path.write_bytes(path.read_bytes()[:-2000])
    canonical, newest, older = see(service)
    assert (canonical["depth"], older["depth"]) == (QUICK, QUICK)
    assert (newest["valid"], newest["depth"]) == (False, FULL)
    assert newest["examined_because"].startswith("a quick look found ")


def test_without_a_file_nothing_is_asked(tmp_path):
    def facts():
        raise AssertionError

    assert look(HEX, str(tmp_path), AUTO, facts, 5) == []


def test_no_time_for_every_byte(service, monkeypatch):
    verify = _node_checkpoints._verify

    def slow(path, depth):
        time.sleep(0.5 if depth == FULL else 0)
        return verify(path, depth)

    # A small file may be done before anybody has waited.
    monkeypatch.setattr(_node_checkpoints, "_verify", slow)
    seen = see(service, FULL, seconds=0)
    assert [(one["valid"], one["depth"], "examined_because" in one) for one in seen] == [(True, QUICK, False)] * 3
    problem = seen[0]["problems"][-1]
    assert (problem["code"], problem["severity"]) == ("not_examined_in_full", "warning")
    assert "no answer within 0 s" in problem["message"]


def test_one_that_hangs_does_not_take_the_others_along(service, monkeypatch):
    verify = _node_checkpoints._verify

    def hang(path, depth):
        if depth == FULL and "canonical" in path:
            time.sleep(30)
        return verify(path, depth)

    monkeypatch.setattr(_node_checkpoints, "_verify", hang)
    begun = time.monotonic()
    canonical, newest, _older = see(service, FULL, seconds=0.5)
    assert time.monotonic() - begun < 5
    assert (canonical["valid"], canonical["depth"]) == (True, QUICK)
    assert newest["valid"] is True


def test_what_is_no_file_is_not_valid(service):
    (service / "checkpoints/checkpoint_folder.pth").mkdir()
    os.mkfifo(service / "checkpoints/checkpoint_pipe.pth")
    (service / "checkpoints/checkpoint_gone.pth").symlink_to("nowhere")
    begun = time.monotonic()
    seen = see(service)
    assert time.monotonic() - begun < 5
    assert [one["valid"] for one in seen] == [True, None, False]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_one_that_may_not_be_read_is_unknown(service):
    (service / "models/canonical_hex8_2p.pth").chmod(0o600)
    for folder in (service, *service.parents):
        if os.stat(folder).st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    said = as_nobody(lambda: repr([(one["valid"], one["depth"], one["problems"]) for one in see(service)]).encode())
    assert said.startswith(b"[(None, None, [{'code': 'unreadable', ")
    assert b"with become" in said
    assert said.count(b"(True, 'quick', [])") == 2

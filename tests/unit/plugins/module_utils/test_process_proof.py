# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of a training, with real processes, locks and a stand-in for nvidia-smi."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _process_gpu, _process_proof
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import lock_path
from ansible_collections.ringrift.recovery.plugins.module_utils._process_gpu import GpuMemory, free_of
from ansible_collections.ringrift.recovery.plugins.module_utils._process_proof import failure, prove, tree_of
from ansible_collections.ringrift.recovery.plugins.module_utils._process_stop import StopResult, plan, stop
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import Sighting, Unidentified

from tests.unit import training_processes
from tests.unit.training_processes import holding, wait_for

TAKE = "handle = os.open(path, os.O_RDWR); fcntl.flock(handle, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"


@pytest.fixture
def tree(tmp_path):
    with training_processes.tree_of(tmp_path / "service") as tree:
        (tree.root / "data/locks").mkdir()
        (tree.root / "data/locks/training_hex8_2p.lock").write_text("h:1:00000000\n")
        yield tree


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(_process_proof, "GPU_SETTLE", 0.3)
    monkeypatch.setattr(_process_proof, "GPU_POLL", 0.05)


def lock_of(tree):
    return lock_path(str(tree.root), "hex8_2p")


def stop_and_prove(tree, gpu_before=None, gpu_look=None):
    processes = tree.look().processes
    family = tree_of(processes)
    result = stop(processes, 3.0, 3.0)
    proof = prove(family, result, tree.look(), lock_of(tree), gpu_before, gpu_look or (lambda: GpuMemory()))
    return proof, failure(proof, family, lock_of(tree)), family


def tool(tmp_path, text, code=0):
    path = tmp_path / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_everything_is_free(tree):
    tree.train(mode=f"open={lock_of(tree)}")
    before = GpuMemory({tree.started[0].pid: 61000.0})
    proof, message, _family = stop_and_prove(tree, before)
    assert (proof.gone, proof.flock_free, proof.gpu_free, proof.unseen, message) == (True, True, True, (), None)
    assert (proof.as_dict()["flock_keepers"], proof.as_dict()["gpu_pids"]) == ([], [])


def test_nothing_to_stop(tree):
    proof, message, family = stop_and_prove(tree)
    assert (proof.gone, proof.flock_free, proof.gpu_free, message, family) == (True, True, None, None, {})


def test_a_program_that_a_trainer_started_still_keeps_its_lock(tree):
    started = tree.train(mode=f"helper open={lock_of(tree)}")
    (helper,) = [pid for pid in tree.pids() if pid != started.pid]
    proof, message, family = stop_and_prove(tree)
    assert set(family) == {started.pid, helper}
    assert (proof.gone, proof.flock_free, proof.flock_keepers) == (True, False, (helper,))
    assert f"process {helper}, which one of them has started, still keeps the flock" in message
    assert f"(kill {helper})" in message


def test_the_lock_of_somebody_else_is_not_ours(tree):
    tree.train()
    with holding(tree.root / "data/locks/training_hex8_2p.lock", TAKE) as other:
        proof, message, _family = stop_and_prove(tree)
    assert (proof.flock_free, proof.flock_keepers, message) == (True, (other.pid,), None)


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_lock_that_is_none(tree, kind):
    path = tree.root / "data/locks/training_hex8_2p.lock"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    proof, message, _family = stop_and_prove(tree)
    assert (proof.flock_free, message) == ((True, None) if kind == "missing" else (None, None))
    assert bool(proof.unseen) is (kind == "directory")


def test_doubts_prove_nothing(tree):
    doubt = Unidentified(7, "python3", "D", "nfs", "its command line cannot be read")
    proof = prove({}, StopResult(), Sighting((), unidentified=(doubt,)), lock_of(tree))
    assert (proof.gone, "pid 7 (python3)" in proof.unseen[0]) == (None, True)


def test_a_prediction(tree):
    started = tree.train(mode=f"open={lock_of(tree)}")
    processes = tree.look().processes
    result = plan(processes)
    before = GpuMemory({started.pid: 100.0})
    proof = prove(
        tree_of(processes), result, Sighting(()), lock_of(tree), before, assumed={started.pid}, gpu_look=lambda: 1 / 0
    )
    assert (proof.gone, proof.flock_free, proof.gpu_free, proof.flock_keepers) == (True, True, True, ())


def test_gpu_memory_that_is_still_listed(tree):
    started = tree.train()
    held = GpuMemory({started.pid: 61000.0})
    proof, message, _family = stop_and_prove(tree, held, lambda: held)
    assert (proof.gone, proof.gpu_free, proof.gpu_pids) == (True, False, (started.pid,))
    assert f"still lists memory of process {started.pid}" in message
    assert "reset the GPU or reboot" in message


def test_a_driver_that_takes_a_moment(tree):
    started = tree.train()
    answers = [GpuMemory({started.pid: 1.0}), GpuMemory({started.pid: 1.0}), GpuMemory()]
    proof, message, _family = stop_and_prove(tree, answers[0], lambda: answers.pop(0))
    assert (proof.gpu_free, message, answers) == (True, None, [])


def test_a_driver_that_hangs_is_unknown_and_never_free(tree, tmp_path):
    tree.train()
    path = tool(tmp_path, "sleep 60")
    proof, message, _family = stop_and_prove(tree, GpuMemory(), lambda: _process_gpu.look(path, 0.3))
    assert (proof.gpu_free, message) == (None, None)
    assert "no answer" in proof.unseen[0]


def test_a_list_in_a_container_proves_something_only_where_it_had_them():
    inside = GpuMemory(inside=True)
    assert free_of([7], inside, inside) is None
    assert free_of([7], GpuMemory({7: 1.0}, inside=True), inside) is True
    assert free_of([7], GpuMemory(), GpuMemory()) is True
    assert free_of([7], GpuMemory(), GpuMemory(problem="x")) is None
    assert (inside.of(7), GpuMemory().of(7), GpuMemory({7: None}).of(7)) == (None, 0.0, None)


def test_the_list_of_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setattr(_process_gpu, "in_container", lambda: False)
    rows = "11, /usr/bin/python3, 100\\n11, python, 50\\n12, a, b, c, 7\\n13, python, [N/A]\\nnot a row\\n"
    found = _process_gpu.look(tool(tmp_path, f"printf '{rows}'"))
    assert found == GpuMemory({11: 150.0, 12: 7.0, 13: None})
    monkeypatch.setattr(_process_gpu, "in_container", lambda: True)
    # What the machine calls 12 is something else here.
    assert _process_gpu.look(tool(tmp_path, f"printf '{rows}'")).held == {11: 150.0, 13: None}


def test_no_tool_and_one_that_fails(tmp_path):
    missing = _process_gpu.look(str(tmp_path / "none"))
    assert (missing.absent, missing.of(1)) == (True, None)
    failing = _process_gpu.look(tool(tmp_path, "echo 'No devices were found'", 6))
    assert (failing.absent, "no GPU was found" in failing.problem) == (False, True)


def test_what_a_trainer_has_started_belongs_to_it(tree):
    started = tree.train(mode="workers=2")
    wait_for(lambda: len(tree.look().processes) == 3)
    (trainer, *_workers) = tree.look().processes
    family = tree_of([trainer])
    assert (len(family), started.pid in family, os.getpid() in family) == (3, True, False)

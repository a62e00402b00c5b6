# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of live processes: py-spy where it is installed, stand-ins for one that hangs or fails, and /proc."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _proc, _process_evidence
from ansible_collections.ringrift.recovery.plugins.module_utils._process_evidence import PROC, PY_SPY, collect

from tests.unit.training_processes import as_nobody, tree_of, wait_for

HANGS = "#!/bin/sh\ntrap '' TERM\nsleep 60 & echo $! > {folder}/child\nwait\n"
FAILS = "#!/bin/sh\necho 'Error: Permission Denied: Try running again with elevated permissions' >&2\nexit 1\n"
SAYS = "#!/bin/sh\nprintf 'Thread %s (idle)\\n' \"$4\"\n"
FLOODS = "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\n"


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.fixture(autouse=True)
def _no_py_spy(monkeypatch):
    """One that this machine may have is found only where a test says so."""
    monkeypatch.setenv("PATH", os.pathsep.join(path for path in ("/usr/bin", "/bin")))


def put(tree, text):
    """A stand-in for py-spy beside the interpreter of the service."""
    folder = tree.root / "venv/bin"
    tool = folder / PY_SPY
    tool.write_text(text.format(folder=folder) if "{folder}" in text else text)
    tool.chmod(0o755)
    return [str(folder)]


def test_from_proc_without_py_spy(tree):
    started = tree.train(mode="ignore workers=1")
    wait_for(lambda: len(tree.look().processes) == 2)
    trainer, worker = collect(tree.look().processes)
    assert (trainer.pid, trainer.role, trainer.source, trainer.problem) == (started.pid, "trainer", PROC, None)
    assert worker.role == "worker"
    assert trainer.wchan == _proc.read_wchan(started.pid)
    assert 0 <= trainer.cpu_percent < 50
    lines = trainer.text.splitlines()
    assert "State:\tS (sleeping)" in lines
    assert f"open files: {len(os.listdir(f'/proc/{started.pid}/fd'))}" in lines
    assert any(line.startswith(f"thread {started.pid} (") for line in lines)
    # It says that SIGTERM is ignored: bit 14.
    ignored = next(line.split()[1] for line in lines if line.startswith("SigIgn:"))
    assert int(ignored, 16) >> 14 & 1
    if os.geteuid() == 0 and pathlib.Path(f"/proc/{started.pid}/stack").read_text():
        assert "kernel stack:" in lines
    # Nothing of its arguments, environment or files.
    assert "--board-type" not in trainer.text
    assert set(trainer.as_dict()) == set(worker.as_dict())


def test_one_that_computes_is_told_from_one_that_waits(tree):
    tree.train(mode="workers=1")
    tree.run([sys.executable, "-S", "-c", "print('ready', flush=True)\nwhile True: pass"])
    busy = tree.started[-1]
    (process,) = [one for one in tree.look().processes if one.role == "trainer"]
    stat = _proc.read_stat(busy.pid)
    other = dataclasses.replace(process, pid=busy.pid, start_ticks=stat.start_ticks)
    waits, computes = sorted(collect([process, other]), key=lambda one: one.pid == busy.pid)
    assert computes.cpu_percent > waits.cpu_percent


def test_py_spy_beside_the_interpreter_or_on_path(tree, monkeypatch):
    started = tree.train()
    folders = put(tree, SAYS)
    (found,) = collect(tree.look().processes, folders)
    assert (found.source, found.text, found.problem) == (PY_SPY, f"Thread {started.pid} (idle)\n", None)
    (found,) = collect(tree.look().processes)
    assert found.source == PROC
    monkeypatch.setenv("PATH", f"{folders[0]}:{os.environ['PATH']}")
    (found,) = collect(tree.look().processes)
    assert found.source == PY_SPY


def test_a_py_spy_that_hangs_is_killed_with_what_it_started(tree):
    tree.train()
    begun = time.monotonic()
    (found,) = collect(tree.look().processes, put(tree, HANGS), each=0.5)
    assert time.monotonic() - begun < 4
    assert (found.source, "gave no answer within 0.5 s" in found.problem) == (PROC, True)
    assert "State:" in found.text
    child = int((tree.root / "venv/bin/child").read_text())
    wait_for(lambda: (_proc.read_stat(child) is None) or not _proc.read_stat(child).alive)


def test_all_together_have_a_deadline_too(tree):
    for _ in range(3):
        tree.train()
    begun = time.monotonic()
    found = collect(tree.look().processes, put(tree, HANGS), each=0.5, total=0.6)
    assert time.monotonic() - begun < 5
    assert [one.source for one in found] == [PROC] * 3
    assert found[-1].problem == "there was no time left for py-spy"


def test_one_that_fails_says_why(tree):
    tree.train()
    (found,) = collect(tree.look().processes, put(tree, FAILS))
    assert found.source == PROC
    assert "failed with 1: Error: Permission Denied" in found.problem


def test_what_it_writes_is_bounded(tree):
    tree.train()
    (found,) = collect(tree.look().processes, put(tree, FLOODS))
    assert (len(found.text), found.truncated) == (_process_evidence.MAX_CHARACTERS, True)


def test_root_does_not_run_what_another_user_may_have_written(tree):
    tree.train()
    folders = put(tree, SAYS)
    os.chmod(tree.root / "venv/bin" / PY_SPY, 0o777)
    (found,) = collect(tree.look().processes, folders)
    assert (found.source, "may be changed by another user" in found.problem) == (PROC, True)


def test_one_in_uninterruptible_sleep_is_left_to_proc(tree):
    started = tree.train(mode="blocked")
    wait_for(lambda: tree.state(started.pid) == "D")
    found = next(one for one in collect(tree.look().processes, put(tree, SAYS)) if one.pid == started.pid)
    assert (found.source, found.state) == (PROC, "D")
    assert "uninterruptible sleep" in found.problem


def test_at_most_eight_and_trainers_first(tree):
    tree.train(mode="workers=12")
    wait_for(lambda: len(tree.look().processes) == 13)
    found = collect(tree.look().processes)
    assert [one.role for one in found] == ["trainer"] + ["worker"] * 7


def test_nothing_for_none_and_for_one_that_is_gone(tree):
    assert collect([]) == []
    started = tree.train()
    processes = tree.look().processes
    started.kill()
    started.wait()
    (found,) = collect(processes)
    assert (found.cpu_percent, found.source) == (None, PROC)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_can_see(tree):
    tree.train()
    processes = tree.look().processes

    def attempt() -> bytes:
        (found,) = collect(processes)
        return found.text.encode()

    text = as_nobody(attempt).decode()
    assert "open files: not seen" in text
    assert "kernel stack" not in text


PY_SPY_HERE = os.environ.get("PY_SPY") or shutil.which(PY_SPY)


@pytest.mark.skipif(not PY_SPY_HERE, reason="py-spy is not installed; pip install py-spy, or name it in PY_SPY")
def test_the_real_py_spy_names_the_function(tree, monkeypatch):
    folder = os.path.dirname(PY_SPY_HERE)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    started = tree.train(mode="emergency=1")
    (found,) = collect(tree.look().processes)
    assert (found.source, found.problem) == (PY_SPY, None)
    assert "<module> (app/training/train.py:" in found.text or "<module> (train.py:" in found.text, found.text
    # It was not paused for it.
    assert tree.state(started.pid) == "S"

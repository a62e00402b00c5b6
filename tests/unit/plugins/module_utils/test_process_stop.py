# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stop, with real processes that behave well and badly."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _proc, _process_stop
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._process_stop import (
    FROZEN,
    KILLED,
    NOT_PERMITTED,
    RESPAWNED,
    UNINTERRUPTIBLE,
    StopResult,
    Survivor,
    failure,
    plan,
    stop,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import Sighting, Unidentified, look

from tests.unit.training_processes import ARGUMENTS, DEADLINE, HEX8, as_nobody, cgroup, tree_of, wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    # What starts a trainer again here does so at once.
    monkeypatch.setattr(_process_stop, "SETTLE", 0.1)


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


def processes(tree):
    return tree.look().processes


def stop_all(tree, grace=5.0, kill_wait=5.0):
    return stop(processes(tree), grace, kill_wait, lambda: processes(tree))


def signals(result):
    return {one.process.pid: one.signal for one in result.stopped}


def test_one_that_obeys(tree):
    started = tree.train()
    result = stop_all(tree)
    assert signals(result) == {started.pid: "SIGTERM"}
    assert result.survivors == ()
    assert result.signalled
    (stopped,) = result.stopped
    assert 0 <= stopped.seconds < 2
    assert started.wait(DEADLINE) == -signal.SIGTERM
    data = stopped.as_dict()
    assert json.loads(json.dumps(data)) == data
    assert (data["pid"], data["signal"], data["role"]) == (started.pid, "SIGTERM", "trainer")


def test_nothing_to_stop(tree):
    assert stop_all(tree) == StopResult()
    assert plan(processes(tree)) == StopResult()


def test_one_that_ignores_sigterm_is_killed_after_the_grace(tree):
    started = tree.train(mode="ignore")
    begun = time.monotonic()
    result = stop_all(tree, grace=0.4)
    assert signals(result) == {started.pid: "SIGKILL"}
    assert 0.4 <= result.stopped[0].seconds <= time.monotonic() - begun
    assert started.wait(DEADLINE) == -signal.SIGKILL


def test_the_emergency_checkpoint_is_waited_for_and_asked_for_once(tree):
    started = tree.train(mode="emergency=0.5 workers=2")
    result = stop_all(tree)
    assert signals(result)[started.pid] == "SIGTERM"
    assert started.wait(DEADLINE) == 143
    # A second signal, or one to the workers, which have the same handler, would have begun another.
    assert [path.read_text() for path in tree.root.glob("emergency.*")] == ["begun saved "]
    assert len(result.stopped) == 3
    assert sorted(filter(None, signals(result).values())) == ["SIGTERM"]


def test_a_stopped_one_goes_on_to_obey(tree):
    started = tree.train(mode="stop")
    wait_for(lambda: tree.state(started.pid) == "T")
    assert signals(stop_all(tree)) == {started.pid: "SIGTERM"}


def test_a_stopped_one_that_ignores_sigterm(tree):
    started = tree.train(mode="stop ignore")
    wait_for(lambda: tree.state(started.pid) == "T")
    assert signals(stop_all(tree, grace=0.1)) == {started.pid: "SIGKILL"}


def test_a_stopped_worker_does_not_hold_up_the_rest(tree):
    tree.train(mode="workers=1")
    wait_for(lambda: len(processes(tree)) == 2)
    worker = processes(tree)[1]
    os.kill(worker.pid, signal.SIGSTOP)
    wait_for(lambda: tree.state(worker.pid) == "T")
    assert len(stop_all(tree).stopped) == 2
    assert tree.pids() == []


def test_a_zombie_counts_as_gone(tree):
    started = tree.train(mode="workers=1 zombie")
    wait_for(lambda: [one.state for one in processes(tree)].count("Z") == 1)
    # Nobody waits for the trainer while it is stopped, so it becomes one too.
    result = stop_all(tree)
    assert tree.state(started.pid) == "Z"
    assert len(result.stopped) == 2
    assert result.survivors == ()
    assert stop_all(tree) == StopResult()


def test_one_whose_leader_has_ended(tree):
    started = tree.train(mode="leaderless")
    wait_for(lambda: tree.state(started.pid) == "Z")
    assert list(signals(stop_all(tree, grace=1.0))) == [started.pid]
    assert not _proc.has_live_threads(started.pid)


def test_workers_that_outlive_their_trainer(tree):
    started = tree.train(mode="workers=3 orphans ignore")
    result = stop_all(tree, grace=0.3)
    assert signals(result)[started.pid] == "SIGKILL"
    assert sorted(signals(result).values()) == ["SIGKILL"] * 4
    assert tree.pids() == []


@pytest.mark.parametrize(("count", "signal_name"), [(1, "SIGTERM"), (2, "SIGKILL")])
def test_orphans(tree, count, signal_name):
    # One alone may be a trainer that went into the background, with a checkpoint to write.
    started = tree.train(mode=f"workers={count} orphans")
    started.kill()
    started.wait()
    assert list(signals(stop_all(tree)).values()) == [signal_name] * count
    assert tree.pids() == []


def test_a_worker_never_writes_the_checkpoint_of_its_trainer(tree):
    tree.train(mode="emergency=0.05 workers=2 orphans")
    result = stop_all(tree, grace=1.0)
    assert [path.read_text() for path in tree.root.glob("emergency.*")] == ["begun saved "]
    assert sorted(signals(result).values()) == ["SIGKILL", "SIGKILL", "SIGTERM"]


@pytest.mark.parametrize("launcher_mode", ["", "ignore"])
def test_a_launcher_that_starts_its_trainer_again(tree, launcher_mode):
    argv = [sys.executable, "-S", "bin/torchrun", "--nproc=1", "-m", "app.training.train", *ARGUMENTS]
    launcher = tree.run(argv, launcher_mode=launcher_mode)
    (trainer,) = [one for one in processes(tree) if one.role == "trainer"]
    os.kill(trainer.pid, signal.SIGKILL)
    tree.hear(launcher, b"ready\n")
    assert (tree.root / "respawned").read_text() == "x"
    result = stop_all(tree, grace=0.3)
    assert tree.pids() == []
    assert signals(result)[launcher.pid] == ("SIGKILL" if launcher_mode else "SIGTERM")
    assert result.survivors == ()
    if not launcher_mode:
        # It was frozen when its trainer ended.
        assert (tree.root / "respawned").read_text() == "x"
        assert len(result.stopped) == 2


def test_what_a_shell_starts_again_is_reported(tree):
    line = f"while :; do {sys.executable} -S -m app.training.train {' '.join(ARGUMENTS)}; done"
    shell = tree.run(["bash", "-c", line])
    result = stop_all(tree)
    assert len(result.stopped) == _process_stop.ROUNDS
    (survivor,) = result.survivors
    assert (survivor.reason, survivor.process.ppid) == (RESPAWNED, shell.pid)
    assert "Find out what starts it" in failure("hex8_2p", result, Sighting(()))
    assert shell.poll() is None


def test_a_wrapper_ends_with_its_trainer(tree):
    wrapper = tree.run(["timeout", "60", sys.executable, "-S", "-m", "app.training.train", *ARGUMENTS])
    result = stop_all(tree)
    assert set(signals(result)) >= {wrapper.pid}
    assert len(result.stopped) == 2
    assert tree.pids() == []


def test_another_config_is_left_alone(tree):
    tree.train()
    others = [
        tree.train("--board-type", "hex8", "--num-players", "3", mode="workers=1"),
        tree.train("--epochs", "5"),
        tree.run(["bash", "-c", "sleep 60 # python -m app.training.train"], ready=False),
    ]
    assert len(stop_all(tree).stopped) == 1
    assert [one.poll() for one in others] == [None] * 3


def test_a_number_that_another_process_has_now_is_not_signalled(tree):
    started = tree.train()
    (found,) = processes(tree)
    result = stop([dataclasses.replace(found, start_ticks=found.start_ticks - 1)], 1.0)
    assert (signals(result), result.signalled) == ({started.pid: None}, False)
    assert plan([dataclasses.replace(found, start_ticks=found.start_ticks - 1)]) == StopResult()
    time.sleep(0.1)
    assert started.poll() is None


@pytest.mark.parametrize("pid", [1, os.getpid()], ids=["first", "itself"])
def test_never_itself_nor_the_first_process(tree, pid):
    tree.train()
    (found,) = processes(tree)
    with pytest.raises(RecoveryError, match="never signalled"):
        stop([dataclasses.replace(found, pid=pid)], 1.0)


def test_without_handles_of_processes(tree, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    started = tree.train()
    assert signals(stop_all(tree)) == {started.pid: "SIGTERM"}


def test_one_that_ends_by_itself_meanwhile(tree):
    started = tree.train()
    found = processes(tree)
    started.kill()
    started.wait()
    result = stop(found, 1.0)
    assert (signals(result), result.signalled) == ({started.pid: None}, False)


def test_one_that_appears_during_the_stop(tree):
    tree.train(mode="emergency=0.4")
    found = processes(tree)
    late = []
    timer = threading.Timer(0.1, lambda: late.append(tree.train()))
    timer.start()
    result = stop(found, 5.0, 5.0, lambda: processes(tree))
    timer.join()
    assert signals(result) == {found[0].pid: "SIGTERM", late[0].pid: "SIGTERM"}


def test_a_prediction_sends_nothing(tree):
    started = tree.train(mode="workers=1")
    wait_for(lambda: len(processes(tree)) == 2)
    result = plan(processes(tree))
    assert [(one.signal, one.seconds) for one in result.stopped] == [("SIGTERM", None)] * 2
    assert result.signalled
    assert started.poll() is None
    assert {one.process.pid for one in stop_all(tree).stopped} == {one.process.pid for one in result.stopped}


@needs_root
@pytest.mark.parametrize("function", [plan, lambda found: stop(found, 5.0)])
def test_one_that_may_not_be_signalled(tree, function):
    started = tree.train()
    found = processes(tree)

    def attempt() -> bytes:
        result = function(found)
        rows = [[one.process.pid, one.reason, one.unkillable] for one in result.survivors]
        message = failure("hex8_2p", result, Sighting(()))
        return json.dumps([len(result.stopped), rows, result.signalled, "become: true" in message]).encode()

    begun = time.monotonic()
    assert json.loads(as_nobody(attempt)) == [0, [[started.pid, NOT_PERMITTED, False]], False, True]
    # There is no point in waiting for it.
    assert time.monotonic() - begun < 3
    assert started.poll() is None


def test_one_in_uninterruptible_sleep_is_never_called_stopped(tree, monkeypatch):
    started = tree.train(mode="ignore blocked")
    wait_for(lambda: tree.state(started.pid) == "D")
    found = [one for one in processes(tree) if one.pid == started.pid]
    # A state D that even SIGKILL does not end takes a broken driver; so it is sent something harmless instead.
    monkeypatch.setattr(_process_stop.signal, "SIGKILL", signal.SIGCONT)
    result = stop(found, 0.2, 0.2)
    (survivor,) = result.survivors
    assert (result.stopped, survivor.state, survivor.unkillable, survivor.reason) == ((), "D", True, UNINTERRUPTIBLE)
    assert survivor.wchan
    message = failure("hex8_2p", result, Sighting(()))
    assert f"pid {started.pid} (state D, waits in {survivor.wchan})" in message
    assert message.endswith("Reboot the node, then run this again.")
    monkeypatch.undo()
    assert signals(stop(found, 0.1)) == {started.pid: "SIGKILL"}


def test_one_whose_control_group_is_frozen_is_named_with_the_way_to_thaw_it(tree):
    started = tree.train()
    with cgroup("freezer", "", f"test-{os.getpid()}", started.pid) as folder:
        (folder / "freezer.state").write_text("FROZEN")
        wait_for(lambda: tree.state(started.pid) == "D")
        begun = time.monotonic()
        result = stop_all(tree, grace=0.2, kill_wait=0.2)
        assert time.monotonic() - begun < 5
        (survivor,) = result.survivors
        assert (result.stopped, survivor.state, survivor.unkillable, survivor.reason) == ((), "D", True, FROZEN)
        message = failure("hex8_2p", result, tree.look())
        assert message.startswith(f"1 process of hex8_2p is still there: pid {started.pid} (state D, ")
        assert f"echo THAWED > {folder / 'freezer.state'}), or reboot the node" in message
    # What it was sent takes effect now.
    assert started.wait(DEADLINE) < 0


def test_the_deepest_in_the_tree_come_first(tree, monkeypatch):
    tree.train(mode="workers=1 orphans ignore")
    wait_for(lambda: len(processes(tree)) == 2)
    trainer, worker = processes(tree)
    deeper = dataclasses.replace(worker, pid=worker.pid + 1, ppid=worker.pid, start_ticks=0)
    sent = []
    monkeypatch.setattr(_process_stop, "_send", lambda target, number: sent.append((target.process.pid, number)))
    # All are told at once, so that none notices another's end first.
    monkeypatch.setattr(_process_stop._Target, "look", lambda target: True)
    stop([trainer, worker, deeper], 0.0, 0.0)
    killed = [pid for pid, number in sent if number == signal.SIGKILL]
    assert killed == [trainer.pid, deeper.pid, worker.pid]


def test_the_message_names_the_survivors_and_the_next_step(tree):
    tree.train()
    (found,) = processes(tree)
    survivors = tuple(Survivor(found, "S", None, False, KILLED) for _ in range(9))
    message = failure("hex8_2p", StopResult(survivors=survivors), Sighting(()))
    assert message.startswith(f"9 processes of hex8_2p are still there: pid {found.pid} (state S, waits in unknown): ")
    assert message.count("pid ") == _process_stop.NAMED
    mixed = (*survivors, Survivor(found, "D", "nfs", True, UNINTERRUPTIBLE))
    assert "Reboot" in failure("hex8_2p", StopResult(survivors=mixed), Sighting(()))
    assert failure("hex8_2p", StopResult(), Sighting(())) is None
    assert failure("hex8_2p", StopResult(), Sighting((dataclasses.replace(found, alive=False),))) is None
    assert f"Process {found.pid} of hex8_2p was started just after" in failure(
        "hex8_2p", StopResult(), Sighting((found,))
    )
    doubt = Unidentified(7, "python3", "D", "nfs", "its command line cannot be read")
    assert "pid 7 (python3)" in failure("hex8_2p", StopResult(), Sighting((), unidentified=(doubt,)))
    assert "hidepid" in failure("hex8_2p", StopResult(), Sighting((), unseen="/proc is mounted with hidepid=2"))


def test_nothing_survives_whatever_they_do(tree):
    # Fixed, so that a failure can be repeated.
    rng = random.Random(4711)
    modes = [
        "ignore",
        "stop",
        "workers=2",
        "orphans workers=1",
        "emergency=0.1",
        "name=x",
        "spawn",
        "zombie",
        "blocked",
    ]
    for _ in range(12):
        tree.train(mode=" ".join(rng.sample(modes, rng.randint(0, 3))))
    begun = time.monotonic()
    result = stop_all(tree, grace=0.6)
    assert time.monotonic() - begun < 8
    assert result.survivors == ()
    assert tree.look().running == 0


def test_two_that_stop_the_same(tree):
    started = tree.train(mode="emergency=0.3 workers=1")
    results = []
    threads = [threading.Thread(target=lambda: results.append(stop_all(tree))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert [one.survivors for one in results] == [(), ()]
    assert started.wait(DEADLINE) is not None
    assert tree.pids() == []


def test_a_stop_that_fails_leaves_no_launcher_frozen(tree, monkeypatch):
    argv = [sys.executable, "-S", "bin/torchrun", "--nproc=1", "-m", "app.training.train", *ARGUMENTS]
    launcher = tree.run(argv)
    monkeypatch.setattr(_process_stop, "_wait", lambda targets, seconds: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stop_all(tree)
    wait_for(lambda: tree.state(launcher.pid) == "S")


def test_the_look_of_another_process_finds_the_same(tree):
    started = tree.train()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        assert [one.pid for one in look(HEX8, str(tree.root)).processes] == [started.pid]
        assert len(stop_all(tree).stopped) == 1
        assert bystander.poll() is None
        bystander.kill()

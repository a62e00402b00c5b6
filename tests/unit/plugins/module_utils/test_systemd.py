# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of systemd, with real control groups and a stand-in for systemctl that really stops what is in them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _process_stop, _systemd
from ansible_collections.ringrift.recovery.plugins.module_utils._process_stop import (
    RESPAWNED,
    StopResult,
    Survivor,
    failure,
    plan,
    stop,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import Sighting

from tests.unit.training_processes import ARGUMENTS, DEADLINE, cgroup, tree_of, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may tell systemd to stop a service")

UNIT = f"ringrift-train-{os.getpid()}.service"
# A stand-in for systemctl: "stop" ends what is in the group of a service as systemd does by default (SIGTERM and
# SIGCONT to all), "show" says which process is its main one. It writes down how it was called.
STAND_IN = r"""#!{python} -S
import os, signal, sys, time
folder, here = {folder!r}, {here!r}
with open(here + "/calls", "a") as stream:
    stream.write(" ".join(sys.argv[1:]) + "\n")
mode = open(here + "/mode").read().strip()
if mode == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
if mode == "refuse":
    sys.exit("Failed to stop: Access denied")
if sys.argv[1] == "show":
    print("MainPID=" + open(here + "/main").read())
if sys.argv[1] == "stop":
    for pid in open(folder + "/cgroup.procs").read().split():
        os.kill(int(pid), signal.SIGTERM)
        os.kill(int(pid), signal.SIGCONT)
"""


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.fixture
def service(tree, tmp_path, monkeypatch):
    """A service with processes in it, and the stand-in for systemctl first on PATH."""
    monkeypatch.setattr(_process_stop, "SETTLE", 0.1)
    here = tmp_path / "bin"
    here.mkdir()

    @contextlib.contextmanager
    def make(*pids, name=UNIT, main=0, mode="", parent="system.slice"):
        (here / "mode").write_text(mode)
        (here / "main").write_text(str(main))
        (here / "calls").write_text("")
        with cgroup("name=systemd", parent, name, *pids) as folder:
            tool = here / "systemctl"
            tool.write_text(STAND_IN.format(python=sys.executable, folder=str(folder), here=str(here)))
            tool.chmod(0o755)
            monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
            yield name

    make.calls = lambda: (here / "calls").read_text().splitlines()
    return make


def stop_all(tree, grace=5.0):
    return stop(tree.look().processes, grace, 5.0, lambda: tree.look().processes)


def test_a_service_that_runs_nothing_else_is_stopped_by_systemd_and_asked_once(tree, service):
    started = tree.train(mode="emergency=0.3")
    with service(started.pid) as unit:
        predicted = plan(tree.look().processes)
        assert [(one.name, one.pids, one.problem) for one in predicted.units] == [(unit, [started.pid], None)]
        assert [one.signal for one in predicted.stopped] == [None]
        assert service.calls() == []
        result = stop_all(tree)
    assert [(one.name, one.pids, one.problem) for one in result.units] == [(unit, [started.pid], None)]
    assert service.calls() == [f"stop --no-block --no-ask-password -- {unit}"]
    assert [(one.process.pid, one.process.unit, one.signal) for one in result.stopped] == [(started.pid, unit, None)]
    assert (result.signalled, result.survivors) == (True, ())
    assert started.wait(DEADLINE) == 143
    # One SIGTERM, from systemd; a second would have begun another.
    assert [path.read_text() for path in tree.root.glob("emergency.*")] == ["begun saved "]


def test_one_that_ignores_systemd_is_killed_after_the_grace(tree, service):
    started = tree.train(mode="ignore")
    with service(started.pid):
        result = stop_all(tree, grace=0.3)
    assert [one.signal for one in result.stopped] == ["SIGKILL"]
    assert started.wait(DEADLINE) == -signal.SIGKILL


def test_a_launcher_in_a_service_is_not_frozen(tree, service):
    argv = [sys.executable, "-S", "bin/torchrun", "--nproc=1", "-m", "app.training.train", *ARGUMENTS]
    launcher = tree.run(argv)
    pids = [one.pid for one in tree.look().processes]
    with service(*pids) as unit:
        result = stop_all(tree)
    assert sorted(pids) == result.units[0].pids
    assert (result.units[0].name, result.survivors) == (unit, ())
    assert launcher.wait(DEADLINE) == -signal.SIGTERM


@pytest.mark.parametrize("main", [True, False])
def test_a_service_with_something_else_in_it(tree, service, main):
    started = tree.train()
    other = tree.run(["sleep", "60"], ready=False)
    with service(started.pid, other.pid, main=started.pid if main else other.pid) as unit:
        result = stop_all(tree)
        # Its main process is the trainer, or it is not the trainer's service.
        assert [one.name for one in result.units] == ([unit] if main else [])
        assert [one.signal for one in result.stopped] == ([None] if main else ["SIGTERM"])
        if main:
            wait_for(lambda: other.poll() is not None)
        assert (other.poll() is None) is not main


def test_a_service_with_the_trainer_of_another_config_in_it_is_left_running(tree, service):
    started = tree.train()
    other = tree.train("--board-type", "hex8", "--num-players", "4")
    with service(started.pid, other.pid, main=started.pid):
        result = stop_all(tree)
        assert (result.units, [one.signal for one in result.stopped]) == ((), ["SIGTERM"])
        assert other.poll() is None
        assert not any(call.startswith("stop") for call in service.calls())


@pytest.mark.parametrize(
    "name",
    ["ssh.service", "sshd@1.service", "session-4.scope", "user@1000.service", "ringrift-p2p.service",
     "ringrift-p2p@a.service", "master-loop.service", "ringrift-master-loop.service", "p2p_orchestrator.service",
     "containerd.service", "cron.service", "slurmd.service"],
)  # fmt: skip
def test_services_that_are_never_stopped(tree, service, name):
    started = tree.train()
    with service(started.pid, name=name, main=started.pid, parent=f"test-{os.getpid()}.slice"):
        result = stop_all(tree)
    assert (result.units, [one.signal for one in result.stopped]) == ((), ["SIGTERM"])
    assert service.calls() == []


@pytest.mark.parametrize("parent", ["user.slice/user@1000.service", f"kubepods/pod1/{'a' * 64}"])
def test_services_of_users_and_in_containers_are_left_to_them(tree, service, parent):
    started = tree.train()
    with service(started.pid, main=started.pid, parent=parent):
        assert (stop_all(tree).units, service.calls()) == ((), [])


@pytest.mark.parametrize("mode", ["hang", "refuse"])
def test_when_systemd_does_not_stop_it_the_processes_are_signalled(tree, service, mode, monkeypatch):
    monkeypatch.setattr(_systemd, "TIMEOUT", 0.5)
    monkeypatch.setattr(_systemd.stop_unit, "__defaults__", (0.5,))
    started = tree.train()
    begun = time.monotonic()
    with service(started.pid, mode=mode):
        result = stop_all(tree)
    assert time.monotonic() - begun < 5
    assert [one.signal for one in result.stopped] == ["SIGTERM"]
    assert ("gave no answer within 0.5 s" if mode == "hang" else "Access denied") in result.units[0].problem
    assert started.wait(DEADLINE) == -signal.SIGTERM


def test_without_systemctl(tree, service, monkeypatch):
    started = tree.train()
    with service(started.pid):
        monkeypatch.setattr(_systemd._command, "find", lambda _name: None)
        result = stop_all(tree)
    assert result.units[0].problem == "there is no systemctl on this node"
    assert [one.signal for one in result.stopped] == ["SIGTERM"]
    assert _systemd.main_pid("a.service") is None


def test_the_message_names_what_starts_it_again(tree, service):
    started = tree.train()
    with service(started.pid) as unit:
        (found,) = tree.look().processes
    again = Survivor(found, "S", None, False, RESPAWNED)
    assert f"{unit} may start it again" in failure("hex8_2p", StopResult(survivors=(again,)), Sighting(()))

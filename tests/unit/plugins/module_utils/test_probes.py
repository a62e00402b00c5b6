# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _probes
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._probes import Once, run_probes

from tests.unit.training_processes import cgroup, wait_for


def raises(exc):
    def probe():
        raise exc

    return probe


@pytest.fixture(params=["process", "mitogen"])
def anywhere(request, monkeypatch):
    """In a process of their own, and where Mitogen runs the module: in threads of the one that is there."""
    if request.param == "mitogen":
        monkeypatch.setitem(sys.modules, "mitogen", types.ModuleType("mitogen"))


@pytest.mark.usefixtures("anywhere")
def test_results_and_reasons_by_name():
    results, errors, seconds = run_probes(
        {"good": lambda: {"a": 1}, "refused": raises(RecoveryError("no such file")), "broken": raises(KeyError("x"))}, 5
    )
    assert results == {"good": {"a": 1}}
    assert errors == {"refused": "no such file", "broken": "KeyError: 'x'"}
    assert set(seconds) == {"good", "refused", "broken"}


@pytest.mark.usefixtures("anywhere")
def test_a_hung_probe_costs_its_deadline_and_hides_nothing():
    begun = time.monotonic()
    results, errors, seconds = run_probes({"hung": lambda: time.sleep(30), "good": lambda: 1}, 0.3)
    assert time.monotonic() - begun < 5
    assert results == {"good": 1}
    assert errors == {"hung": "no answer within 0.3 s"}
    assert "hung" not in seconds


@pytest.mark.usefixtures("anywhere")
def test_probes_run_side_by_side():
    barrier = threading.Barrier(3)
    results, errors, _seconds = run_probes({str(i): lambda: barrier.wait(5) >= 0 for i in range(3)}, 10)
    assert errors == {}
    assert results == {"0": True, "1": True, "2": True}


@pytest.mark.usefixtures("anywhere")
def test_answers_of_any_size_come_whole():
    sizes = {str(size): size for size in (0, 1, 65_535, 65_536, 3_000_000)}
    results, errors, _seconds = run_probes({name: (lambda size=size: "\n" * size) for name, size in sizes.items()}, 20)
    assert errors == {}
    assert {name: len(value) for name, value in results.items()} == sizes


@pytest.mark.usefixtures("anywhere")
def test_no_plain_data_is_the_error_of_that_probe():
    results, errors, seconds = run_probes({"bad": lambda: {"x": object()}, "good": lambda: "\udcff"}, 10)
    assert results == {"good": "\udcff"}
    assert errors["bad"].startswith("its answer is no plain data (TypeError: ")
    assert set(seconds) == {"bad", "good"}


def test_a_process_that_dies_is_told_and_what_it_said_is_kept():
    def dies():
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)

    begun = time.monotonic()
    results, errors, _seconds = run_probes({"dies": dies, "waits": lambda: time.sleep(10), "good": lambda: 1}, 30)
    assert time.monotonic() - begun < 8
    assert results == {"good": 1}
    assert errors == dict.fromkeys(("dies", "waits"), "its process ended early by signal 9")


def test_nothing_of_a_hung_probe_is_left(tmp_path):
    def hung():
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    _results, errors, _seconds = run_probes({"hung": hung}, 1)
    assert errors == {"hung": "no answer within 1 s"}
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_process_that_cannot_be_killed_is_left_behind(tmp_path):
    """Frozen by a control group, a process does not even end at SIGKILL, as one that hangs in the kernel."""
    with cgroup("freezer", f"probes-{os.getpid()}", "frozen") as folder:

        def freeze():
            (tmp_path / "pid").write_text(str(os.getpid()))
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            (folder / "freezer.state").write_text("FROZEN")
            time.sleep(60)

        begun = time.monotonic()
        try:
            _results, errors, _seconds = run_probes({"frozen": freeze}, 1)
            assert time.monotonic() - begun < 5
            assert errors == {"frozen": "no answer within 1 s"}
            pid = int((tmp_path / "pid").read_text())
            assert os.path.exists(f"/proc/{pid}")
        finally:
            (folder / "freezer.state").write_text("THAWED")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def test_it_keeps_none_of_the_callers_output_open(tmp_path, monkeypatch):
    """Whoever waits for the end of the output must not wait for a probe that hangs."""
    reader, writer = os.pipe()
    saved = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    monkeypatch.setattr(_probes, "_end", lambda pid, _early: (tmp_path / "pid").write_text(str(pid)) and "")
    try:
        run_probes({"hung": lambda: time.sleep(30)}, 0.2)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert os.read(reader, 1) == b""
    os.close(reader)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class TestOnce:
    def test_one_look_for_all_who_ask(self):
        looks = []
        one = Once(lambda: looks.append(1) or len(looks))
        found = []
        threads = [threading.Thread(target=lambda: found.append(one.get(5))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert found == [1] * 8

    def test_one_that_hangs_costs_the_time_given(self):
        release = threading.Event()
        one = Once(lambda: release.wait(30))
        with pytest.raises(RecoveryError, match="no answer within 0.05 s"):
            one.get(0.05)
        release.set()
        assert one.get(5) is True

    def test_its_error_is_that_of_everybody(self):
        one = Once(raises(ValueError("odd")))
        for _ in range(2):
            with pytest.raises(ValueError, match="odd"):
                one.get(5)


def test_under_mitogen_no_descriptor_is_left_and_a_late_answer_harms_nobody(monkeypatch):
    monkeypatch.setitem(sys.modules, "mitogen", types.ModuleType("mitogen"))
    before = set(os.listdir("/proc/self/fd"))
    go_on = threading.Event()
    _results, errors, _seconds = run_probes({"late": go_on.wait, "good": lambda: 1}, 0.2)
    assert errors == {"late": "no answer within 0.2 s"}
    late = [thread for thread in threading.enumerate() if thread.name.startswith("Thread-") and thread.daemon]
    go_on.set()
    for thread in late:
        thread.join(5)
    run_probes({"good": lambda: 1}, 5)
    # That to which the late one has written.
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes, their marks, and signals to exactly one of them."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

from lab import processes
from lab.nodes import local


def sleeper(**more) -> subprocess.Popen:
    return subprocess.Popen(["sleep", "60"], **more)


def test_a_killed_process_is_gone_when_kill_returns():
    one = sleeper()
    mark = processes.mark_of(one.pid)
    try:
        assert processes.lives(mark)
        assert processes.kill([mark]) == []
        # Still a zombie of this process, and yet not alive.
        assert not processes.lives(mark)
    finally:
        one.kill()
        assert one.wait(10) == -signal.SIGKILL


def test_a_number_that_has_changed_hands_is_left_alone():
    one = sleeper()
    try:
        stale = processes.Mark(one.pid, processes.mark_of(one.pid).start_ticks - 1)
        assert not processes.lives(stale)
        assert not processes.send(stale, signal.SIGKILL)
        assert processes.kill([stale]) == []
        assert one.poll() is None
    finally:
        one.kill()
        one.wait(10)


def test_a_name_with_brackets_and_blanks_does_not_mislead(tmp_path):
    program = tmp_path / "a) R 1 (b"
    program.symlink_to(sys.executable)
    one = subprocess.Popen([str(program), "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert processes.wait_until(lambda: processes.read(one.pid).argv, 5)
        found = processes.read(one.pid)
        assert found.ppid == os.getpid()
        assert found.argv[1:] == ("-c", "input()")
        assert one.pid in processes.children(os.getpid())
    finally:
        one.kill()
        one.communicate(timeout=10)


def test_a_process_that_is_gone_is_none(tmp_path):
    assert processes.read(2**22 + 1) is None
    assert processes.pids(tmp_path / "absent") == []


def test_waiting_ends():
    assert processes.wait_until(lambda: True, 0)
    assert not processes.wait_until(lambda: False, 0.05)


def test_a_process_is_inside_its_directory_and_not_inside_one_of_a_similar_name(tmp_path):
    for name in ("lab", "lab-2"):
        (tmp_path / name / "deep").mkdir(parents=True)
    one = sleeper(cwd=tmp_path / "lab" / "deep")
    try:
        assert local.inside(one.pid, tmp_path / "lab")
        assert local.inside(one.pid, tmp_path / "lab" / "deep")
        assert not local.inside(one.pid, tmp_path / "lab-2")
        (tmp_path / "lab" / "deep").rmdir()
        assert local.inside(one.pid, tmp_path / "lab")
    finally:
        one.kill()
        one.wait(10)


def test_a_process_carries_the_lab_that_started_it():
    one = sleeper(env={**os.environ, "RINGRIFT_LAB": "/var/tmp/x"})
    try:
        # The kernel fills in the environment a moment after the new program was loaded.
        end = time.monotonic() + 10
        while not local.carries(one.pid, pathlib.Path("/var/tmp/x")):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert not local.carries(one.pid, pathlib.Path("/var/tmp/xy"))
    finally:
        one.kill()
        one.wait(10)


def test_ancestors_reach_the_first_process():
    assert {os.getpid(), os.getppid(), 1} <= local.ancestors(os.getpid())


def test_free_ports_are_different():
    ports = local.free_ports(50)
    assert len(set(ports)) == 50

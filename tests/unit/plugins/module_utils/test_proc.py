# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says, compared with real processes, descriptors and locks."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import (
    FLOCK,
    OPEN,
    flock_holders,
    parse_stat,
    read_cmdline,
    read_cmdlines,
    read_stat,
    split_cmdline,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training_processes import as_nobody, holding, tree_of, wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

REST = "S 7 8 9 0 -1 4194368 103 0 0 0 150 50 0 0 20 0 3 0 420208 3133440 416"
LOCKED = """
handle = os.open(path, os.O_RDWR)
fcntl.flock(handle, fcntl.LOCK_{kind})
print(flush=True)
time.sleep(60)
"""
# Leaves a child with the lock that it has taken, and ends.
LEFT_BEHIND = """
handle = os.open(path, os.O_RDWR)
fcntl.flock(handle, fcntl.LOCK_EX)
child = os.fork()
if not child:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""
OPENED = """
handle = os.open(path, os.O_{mode})
print(flush=True)
time.sleep(60)
"""


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "training_hex8_2p.lock"
    path.write_text("h:1:00000000\n")
    return path


def holders(path, pids=None):
    status = os.stat(path)
    return flock_holders(status.st_dev, status.st_ino, pids)


@pytest.mark.parametrize("comm", ["python", "a b", "(sd-pam)", "a) R 1 (b", ")", "x\ny", "", "tmux: server"])
def test_a_name_may_hold_anything(comm):
    stat = parse_stat(f"4711 ({comm}) {REST}")
    assert stat is not None
    assert (stat.pid, stat.comm, stat.state, stat.ppid, stat.pgrp, stat.session) == (4711, comm, "S", 7, 8, 9)
    assert (stat.start_ticks, stat.threads, stat.forked, stat.kernel) == (420208, 3, True, False)
    assert stat.cpu_seconds == 200 / _proc.TICKS


@given(st.text(max_size=15))
def test_whatever_the_name_the_fields_are_right(comm):
    stat = parse_stat(f"4711 ({comm}) {REST}")
    assert stat is not None
    assert (stat.comm, stat.ppid, stat.start_ticks) == (comm, 7, 420208)


@pytest.mark.parametrize(
    "text", ["", "4711", "4711 (python", "4711 (python) S 1 2", f"x (python) {REST}", f"(a) {REST}"]
)
def test_half_a_line_is_none(text):
    assert parse_stat(text) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"python\0-m\0app\0", ["python", "-m", "app"]),
        (b"python\0-c\0\0", ["python", "-c", ""]),
        (b"a title", ["a title"]),
        (b"\xff\xfe\0b\0", ["\ufffd\ufffd", "b"]),
        (b"a\0\0\0", ["a", "", ""]),
    ],
)
def test_split_cmdline(data, words):
    assert split_cmdline(data) == words


def test_start_time_is_when_it_was_started():
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as process:
        after = time.time()
        stat = read_stat(process.pid)
        process.kill()
    assert before - 0.1 <= stat.start_time <= after + 0.1
    assert (stat.ppid, stat.forked, stat.kernel) == (os.getpid(), False, False)


def test_this_process_and_the_kernels_own():
    stat = read_stat(os.getpid())
    assert (stat.ppid, stat.pgrp, stat.session) == (os.getppid(), os.getpgrp(), os.getsid(0))
    assert stat.alive
    assert stat.cpu_seconds > 0
    assert _proc.is_same(os.getpid(), stat.start_ticks)
    assert _proc.is_same(os.getpid(), stat.start_ticks + 1) is None
    assert os.getpid() in _proc.all_stats()
    assert not any(one.kernel for one in _proc.all_stats().values())


def test_all_at_once_is_the_same_as_one_by_one(tree):
    plain, blocked = tree.train(), tree.train(mode="blocked")
    zombie = tree.train(mode="zombie")
    wait_for(lambda: tree.state(blocked.pid) == "D")
    wait_for(lambda: any(stat.ppid == zombie.pid and stat.state == "Z" for stat in _proc.read_all()[0].values()))
    begun = time.monotonic()
    stats, words = _proc.read_all()
    assert time.monotonic() - begun < 5
    for pid in (plain.pid, blocked.pid, zombie.pid):
        assert words[pid] == read_cmdline(pid)
        assert stats[pid].start_ticks == read_stat(pid).start_ticks
    (ended,) = [pid for pid, stat in stats.items() if stat.ppid == zombie.pid and stat.state == "Z"]
    assert ended not in words
    assert not any(stat.kernel for stat in stats.values())


def test_a_fork_has_its_arguments_where_its_parent_has_them(tree):
    started = tree.train(mode="workers=1")
    (worker,) = [pid for pid in tree.pids() if pid != started.pid]
    other = tree.train()
    address = _proc.read_arguments_address(started.pid)
    assert address
    assert _proc.read_arguments_address(worker) == address != _proc.read_arguments_address(other.pid)
    assert _proc.read_arguments_address(2**22 + 1) is None


def test_a_process_that_is_gone_is_none():
    with subprocess.Popen(["true"]) as process:
        pass
    for read in (read_stat, read_cmdline, _proc.read_cwd, _proc.read_exe, _proc.read_uid, _proc.read_wchan):
        assert read(process.pid) is None
    assert _proc.thread_states(process.pid) == ""
    assert not _proc.has_live_threads(process.pid)


def test_a_zombie_is_not_alive_and_says_nothing():
    process = subprocess.Popen(["true"])
    try:
        wait_for(lambda: read_stat(process.pid).state == "Z")
        assert not read_stat(process.pid).alive
        assert read_cmdline(process.pid) is None
    finally:
        process.wait()


def test_a_process_whose_leader_has_ended_lives_in_its_threads(tree):
    process = tree.train(mode="leaderless")
    wait_for(lambda: read_stat(process.pid).state == "Z")
    stat = read_stat(process.pid)
    assert stat.alive
    assert _proc.has_live_threads(process.pid)
    assert _proc.thread_states(process.pid) == "S"
    assert read_cmdline(process.pid)[2:4] == ["-m", "app.training.train"]


def test_the_command_line_of_a_blocked_process_is_read_without_waiting_for_it(tree):
    process = tree.train(mode="blocked")
    wait_for(lambda: tree.state(process.pid) == "D")
    begun = time.monotonic()
    assert read_cmdline(process.pid)[2:4] == ["-m", "app.training.train"]
    assert read_cmdlines([process.pid], deadline=0) == {}
    assert time.monotonic() - begun < 3
    assert _proc.read_wchan(process.pid) is not None


@pytest.mark.parametrize("length", [64 * 1024, 300 * 1024])
def test_a_long_command_line_is_bounded(tree, length):
    words = ["x" * 1023] * (length // 1024)
    process = tree.train("--board-type", "hex8", "--num-players", "2", *words)
    read = read_cmdline(process.pid)
    assert read[2:8] == ["-m", "app.training.train", "--board-type", "hex8", "--num-players", "2"]
    assert len("\0".join(read)) <= _proc.MAX_CMDLINE
    assert (len(read) - 8 == len(words)) is (length < _proc.MAX_CMDLINE)


def test_words_that_are_not_utf8(tree):
    code = b"import time; print('ready', flush=True); time.sleep(60)"
    process = tree.run([os.fsencode(sys.executable), b"-S", b"-c", code, b"\xff"])
    assert read_cmdline(process.pid)[-1] == "\ufffd"


def test_boot_and_host():
    with open("/proc/stat", encoding="ascii") as stream:
        btime = int(re.search(r"^btime (\d+)$", stream.read(), re.MULTILINE).group(1))
    assert abs(_proc.boot_time() - btime) < 2
    assert re.match(r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", _proc.boot_id())
    assert _proc.hostname() == os.uname().nodename


@needs_root
def test_users(tree):
    process = tree.train()
    assert _proc.read_uid(process.pid) == 0
    assert _proc.user_names()[0] == "root"
    assert _proc.hides_processes() is None


def test_nobody_keeps_a_file_that_is_only_there(file):
    assert list(holders(file)) == []
    assert holders(file).keepers == ()


@pytest.mark.parametrize(("kind", "access"), [("EX", "WRITE"), ("SH", "READ")])
def test_who_keeps_a_flock(file, kind, access):
    with holding(file, LOCKED.format(kind=kind)) as process:
        (lock,) = holders(file)
        assert (lock.pid, lock.kind, lock.access, lock.recorded_pid) == (process.pid, FLOCK, access, process.pid)
        assert os.path.samefile(f"/proc/{lock.pid}/fd/{lock.fd}", file)
        assert holders(file).keepers == (process.pid,)
        assert list(holders(file, [os.getpid()])) == []
    assert list(holders(file)) == []


@pytest.mark.parametrize(("mode", "access"), [("RDONLY", "READ"), ("WRONLY", "WRITE"), ("RDWR", "READ_WRITE")])
def test_an_open_file_is_no_lock(file, mode, access):
    with holding(file, OPENED.format(mode=mode)) as process:
        (lock,) = holders(file)
        assert (lock.pid, lock.kind, lock.access) == (process.pid, OPEN, access)
        assert holders(file).keepers == ()


def test_a_record_lock_is_not_a_flock(file):
    with holding(file, LOCKED.replace("flock(handle, fcntl.LOCK_{kind}", "lockf(handle, fcntl.LOCK_EX")):
        (lock,) = holders(file)
        assert lock.kind == "POSIX"
        assert holders(file).keepers == ()


def test_a_child_keeps_the_lock_of_its_dead_parent(file):
    with subprocess.Popen(
        [sys.executable, "-S", "-c", f"import fcntl, os, sys, time\npath = sys.argv[1]\n{LEFT_BEHIND}", str(file)],
        stdout=subprocess.PIPE,
    ) as parent:
        child = int(parent.stdout.readline())
        try:
            assert holders(file).keepers == tuple(sorted((parent.pid, child)))
            parent.kill()
            parent.wait()
            (lock,) = holders(file)
            assert (lock.pid, lock.kind) == (child, FLOCK)
            assert lock.recorded_pid in (parent.pid, 0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_that_only_another_thread_still_has(file):
    code = """
import ctypes, threading
handle = os.open(path, os.O_RDWR)
fcntl.flock(handle, fcntl.LOCK_EX)
threading.Thread(target=time.sleep, args=(60,)).start()
print(flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
"""
    with holding(file, code) as process:
        wait_for(lambda: read_stat(process.pid).state == "Z")
        assert holders(file).keepers == (process.pid,)


def test_a_file_that_was_unlinked_and_one_with_another_name(file, tmp_path):
    os.link(file, tmp_path / "other")
    status = os.stat(file)
    with holding(file, LOCKED.format(kind="EX")) as process:
        assert holders(tmp_path / "other").keepers == (process.pid,)
        file.unlink()
        (tmp_path / "other").unlink()
        assert flock_holders(status.st_dev, status.st_ino).keepers == (process.pid,)
        file.touch()
        assert process.pid not in holders(file).keepers


def test_a_lock_of_this_process(file):
    with open(file, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert holders(file).keepers == (os.getpid(),)
        fcntl.flock(stream, fcntl.LOCK_UN)
        assert [lock.kind for lock in holders(file)] == [OPEN]


@needs_root
def test_processes_of_others_that_cannot_be_looked_into_are_counted(file):
    with holding(file, LOCKED.format(kind="EX")) as process:
        status = os.stat(file)

        def look() -> bytes:
            seen = flock_holders(status.st_dev, status.st_ino, [process.pid])
            return json.dumps([len(seen), list(seen.unreadable)]).encode()

        assert json.loads(as_nobody(look)) == [0, [process.pid]]
        assert process.pid not in holders(file).unreadable

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock file, with real flocks of real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Dict, Iterator, List, Optional

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _lock, _lock_file, _lock_verdict
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import (
    COMPLETE,
    EMPTY,
    FOREIGN,
    PARTIAL,
    LockFile,
    LockId,
    observe,
    parse_lock_id,
    parse_record,
    release,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import ENDED, read_stat
from hypothesis import given, settings
from hypothesis import strategies as st

# Forks processes that take the lock as the service does, on command; it reaps those that end.
NURSERY = r"""
import fcntl, os, signal, socket, sys, time, uuid
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
path = sys.argv[1]

def take(lifetime):
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o755)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(handle, 0)
    token = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    os.write(handle, f"{token}\n{time.time()}\n{lifetime}\n".encode())
    return handle, token

def holder(line):
    commands = line.makefile("r", encoding="ascii")
    def say(text):
        line.sendall(f"{text}\n".encode())
    try:
        handle, token = take(int(commands.readline()))
    except OSError:
        say("busy")
        os._exit(1)
    say(token)
    for command in commands:
        word = command.strip()
        if word == "fork":
            child = os.fork()
            if not child:
                line.close()
                time.sleep(60)
                os._exit(0)
            say(child)
        elif word == "release":
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)
            os.unlink(path)
            say("released")
            os._exit(0)
        elif word == "unlock":
            fcntl.flock(handle, fcntl.LOCK_UN)
            say("unlocked")
    os._exit(0)

for address in sys.stdin:
    pid = os.fork()
    if not pid:
        line = socket.socket(socket.AF_UNIX)
        line.connect(address.strip())
        holder(line)
    print(pid, flush=True)
"""


class Holder:
    """A process that took the lock, or tried to."""

    def __init__(self, pid: int, line: socket.socket, lifetime: int) -> None:
        self.pid = pid
        self.start = start_of(pid)
        # By number, with the start that tells one from a later process of its number.
        self.children: Dict[int, Optional[int]] = {}
        self.line = line
        self.line.settimeout(10)
        self.token = self.tell(str(lifetime))

    @property
    def holds(self) -> bool:
        return self.token != "busy"

    def tell(self, word: str) -> str:
        self.line.sendall(f"{word}\n".encode())
        return self.line.recv(200).decode().strip()

    def fork(self) -> int:
        child = int(self.tell("fork"))
        self.children[child] = start_of(child)
        return child

    def kill(self) -> None:
        end(self.pid)
        self.line.close()


def start_of(pid: int) -> Optional[int]:
    process = read_stat(pid)
    return process.start_ticks if process else None


def end(pid: int) -> None:
    """Kill a process that the test started, and wait until it has let go of everything."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        process = read_stat(pid)
        if process is None or process.state in ENDED:
            return
        time.sleep(0.001)


class Nursery:
    def __init__(self, path: pathlib.Path, room: pathlib.Path) -> None:
        self.path = path
        self.address = str(room / "line")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.address)
        self.listener.listen()
        self.listener.settimeout(10)
        self.holders: List[Holder] = []
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", NURSERY, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="ascii",
        )

    def take(self, lifetime: int = 3600) -> Holder:
        self.process.stdin.write(f"{self.address}\n")
        self.process.stdin.flush()
        line, _peer = self.listener.accept()
        holder = Holder(int(self.process.stdout.readline()), line, lifetime)
        self.holders.append(holder)
        return holder

    def close(self) -> None:
        for holder in self.holders:
            for child, start in holder.children.items():
                # In a long test numbers come again.
                if start is not None and start_of(child) == start:
                    end(child)
            holder.kill()
        self.listener.close()
        self.process.kill()
        self.process.wait(5)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "training_hex8_2p.lock"


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A lock file in a directory that every user may look into."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield pathlib.Path(directory) / "training_hex8_2p.lock"


@pytest.fixture
def nursery(path: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Nursery]:
    room = tmp_path / "room"
    room.mkdir()
    nursery = Nursery(path, room)
    yield nursery
    nursery.close()


def gone_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait(10)
    return process.pid


RECORDS = [
    (b"", EMPTY, None, None, None),
    (b"\n", EMPTY, None, None, None),
    (b"\0" * 41, EMPTY, None, None, None),
    (b"vm:1993:0ef85993\n1795469898.1287193\n3600\n", COMPLETE, "vm:1993:0ef85993", 1795469898.1287193, 3600.0),
    (b"vm:1993:0ef85993\n1795469898\n14400.5\nheartbeat\n", COMPLETE, "vm:1993:0ef85993", 1795469898.0, 14400.5),
    (b"gpu-1.example.com:7:abcdef01\n1.5\n2\n", COMPLETE, "gpu-1.example.com:7:abcdef01", 1.5, 2.0),
    (b"vm:1993:0ef85993\n1795469898.1287193\n36", PARTIAL, "vm:1993:0ef85993", 1795469898.1287193, None),
    (b"vm:1993:0ef85993\n17954698", PARTIAL, "vm:1993:0ef85993", None, None),
    (b"vm:1993:0ef85993\n", PARTIAL, "vm:1993:0ef85993", None, None),
    (b"vm:1993:0ef85993", PARTIAL, "vm:1993:0ef85993", None, None),
    (b"vm:1993:0ef8", PARTIAL, None, None, None),
    (b"vm:1993:", PARTIAL, None, None, None),
    (b"vm:", PARTIAL, None, None, None),
    (b"vm:1993:0ef85993\nnan\ninf\n", PARTIAL, "vm:1993:0ef85993", None, None),
    (b"vm:1993:0ef85993\n-5\n1_000\n", PARTIAL, "vm:1993:0ef85993", None, None),
    (b"vm:0:0ef85993\n1\n1\n", FOREIGN, None, None, None),
    (b"vm:-1:0ef85993\n1\n1\n", FOREIGN, None, None, None),
    (b"vm:1:0EF85993\n1\n1\n", FOREIGN, None, None, None),
    (b"a b:1:0ef85993\n1\n1\n", FOREIGN, None, None, None),
    (b"$(reboot):1:0ef85993\n1\n1\n", FOREIGN, None, None, None),
    (b"root:x:0:0:root:/root:/bin/bash\n", FOREIGN, None, None, None),
    (b"12345\n", FOREIGN, None, None, None),
    (b"\xff\xfe\x00", FOREIGN, None, None, None),
    (b"vm:1993:0ef85993\n1\n2\n" + b"x" * 5000, FOREIGN, None, None, None),
]


@pytest.mark.parametrize(("data", "state", "token", "acquired_at", "lifetime"), RECORDS)
def test_records(data, state, token, acquired_at, lifetime):
    record = parse_record(data)
    assert record.state == state
    assert (record.lock_id.token if record.lock_id else None) == token
    assert (record.acquired_at, record.lifetime) == (acquired_at, lifetime)


@settings(deadline=None)
@given(st.binary(max_size=6000))
def test_any_bytes_make_a_bounded_record(data):
    record = parse_record(data)
    assert len(record.lines) <= _lock_file.MAX_LINES
    assert all(len(line) <= _lock_file.MAX_LINE and line.isprintable() for line in record.lines)


@settings(deadline=None)
@given(st.integers(0, 41))
def test_a_record_that_was_cut_off_never_has_a_wrong_time(length):
    record = parse_record(b"vm:1993:0ef85993\n1795469898.1287193\n3600\n"[:length])
    assert record.acquired_at in (None, 1795469898.1287193)
    assert record.lifetime in (None, 3600.0)
    assert record.lock_id in (None, LockId("vm:1993:0ef85993", "vm", 1993))


@settings(deadline=None)
@given(st.text())
def test_a_lock_id_is_whole_or_none(text):
    lock_id = parse_lock_id(text)
    assert lock_id is None or (lock_id.token == text and lock_id.pid > 0)


def test_the_records_of_the_real_service(real):
    lines = (real / "lock_file_head.txt").read_text().splitlines()
    ids = [number for number, line in enumerate(lines) if parse_lock_id(line)]
    assert len(ids) == 3
    for number in ids:
        record = parse_record("\n".join([*lines[number : number + 3], ""]).encode())
        assert (record.state, record.lifetime, record.lock_id.host) == (COMPLETE, 3600.0, "vm")


def test_where_the_service_keeps_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ubuntu")
    assert _lock_file.lock_path("~/ringrift/ai-service", "hex8_2p") == (
        "/home/ubuntu/ringrift/ai-service/data/locks/training_hex8_2p.lock"
    )


def test_no_file(path, tmp_path):
    assert observe(str(path)) == LockFile(str(path), exists=False)
    (tmp_path / "file").touch()
    assert not observe(str(tmp_path / "file" / "lock")).exists


def test_a_live_holder(path, nursery):
    holder = nursery.take()
    seen = observe(str(path))
    assert (seen.keepers, seen.kept, seen.openers) == ((holder.pid,), True, ())
    assert seen.record.lock_id.token == holder.token
    assert (seen.dev, seen.inode) == (path.stat().st_dev, path.stat().st_ino)
    assert release(seen) == "a process keeps its flock"
    assert path.exists()
    assert not nursery.take().holds


def test_after_kill_9_nobody_keeps_it(path, nursery):
    holder = nursery.take()
    holder.kill()
    seen = observe(str(path))
    assert (seen.exists, seen.keepers, seen.kept) == (True, (), False)
    assert seen.record.lock_id.pid == holder.pid
    assert release(seen) is None
    assert path.read_bytes() == b""
    assert nursery.take().holds


def test_a_forked_child_keeps_it_after_kill_9(path, nursery):
    holder = nursery.take()
    child = holder.fork()
    assert observe(str(path)).keepers == tuple(sorted((holder.pid, child)))
    holder.kill()
    seen = observe(str(path))
    assert (seen.keepers, seen.kept) == ((child,), True)
    assert release(seen) == "a process keeps its flock"
    assert path.exists()
    end(child)
    assert observe(str(path)).kept is False


def test_looking_never_takes_the_lock(path, nursery):
    """While somebody looks all the time, every single acquisition succeeds."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            observe(str(path))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _number in range(30):
            holder = nursery.take()
            assert holder.holds
            assert holder.tell("release") == "released"
    finally:
        stop.set()
        thread.join(10)


def test_an_open_file_without_a_flock_is_seen_and_still_a_lock_afterwards(path, nursery):
    holder = nursery.take()
    holder.tell("unlock")
    seen = observe(str(path))
    assert (seen.keepers, seen.openers, seen.kept) == ((), (holder.pid,), False)
    inode = path.stat().st_ino
    assert release(seen) is None
    # Whoever has the file open and locks it in a moment has a lock that everybody sees.
    assert (path.stat().st_ino, path.read_bytes()) == (inode, b"")


def test_another_file_in_its_place_is_left_alone(path, nursery):
    nursery.take().kill()
    seen = observe(str(path))
    path.rename(path.with_suffix(".old"))
    path.write_bytes(seen.data)
    assert release(seen) == "another file is in its place"
    assert path.exists()


def test_a_changed_record_is_left_alone(path, nursery):
    nursery.take().kill()
    seen = observe(str(path))
    nursery.take().kill()
    assert release(seen) == "its record has changed"
    assert path.exists()


def test_a_file_that_is_gone(path, nursery):
    nursery.take().kill()
    seen = observe(str(path))
    path.unlink()
    assert release(seen) == "the file is gone"


def test_a_file_that_is_replaced_in_the_last_moment_is_left_alone(path, nursery, monkeypatch):
    """The service removes an expired file and makes its own without asking anybody, at any moment."""
    nursery.take(lifetime=0).kill()
    seen = observe(str(path))
    truncate, successor = os.ftruncate, []

    def meanwhile(handle: int, length: int) -> None:
        path.unlink()
        successor.append(nursery.take())
        truncate(handle, length)

    monkeypatch.setattr(_lock_file.os, "ftruncate", meanwhile)
    assert release(seen) is None
    assert path.read_text().startswith(successor[0].token)
    assert not nursery.take().holds


def test_force_leaves_a_file_alone_that_is_replaced_in_the_last_moment(path, nursery, monkeypatch):
    holder = nursery.take()
    seen = observe(str(path))
    successor: List[Holder] = []

    def meanwhile(_seconds: float) -> None:
        path.unlink()
        successor.append(nursery.take())

    monkeypatch.setattr(_lock_file.time, "sleep", meanwhile)
    assert "another process" in release(seen, forced=True)
    assert path.read_text().startswith(successor[0].token)
    assert os.path.exists(f"/proc/{holder.pid}")


def test_by_force_while_somebody_keeps_it(path, nursery):
    holder = nursery.take()
    seen = observe(str(path))
    assert release(seen, forced=True) is None
    assert not path.exists()
    assert nursery.take().holds
    assert os.path.exists(f"/proc/{holder.pid}")


def test_force_still_compares(path, nursery):
    first = nursery.take()
    seen = observe(str(path))
    first.kill()
    second = nursery.take()
    assert release(seen, forced=True) == "its record has changed"
    assert path.read_text().startswith(second.token)


def test_a_record_that_cannot_be_removed_is_put_back(path, nursery, monkeypatch):
    nursery.take()
    seen = observe(str(path))

    def refuse(_path: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_lock_file.os, "unlink", refuse)
    with pytest.raises(RecoveryError, match="become: true"):
        release(seen, forced=True)
    assert path.read_bytes() == seen.data


def test_a_full_disk_leaves_an_empty_file_that_can_be_removed(path):
    path.touch()
    seen = observe(str(path))
    assert (seen.record.state, seen.kept) == (EMPTY, False)
    assert release(seen) is None


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "dangling"])
def test_what_is_no_regular_file_is_left_alone(path, tmp_path, kind):
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if kind == "link":
            (tmp_path / "other").write_text("precious")
        path.symlink_to(tmp_path / "other")
    seen = observe(str(path))
    assert seen.exists
    assert seen.kept is None
    assert "no regular file" in seen.problem
    state = _lock.inspect("hex8_2p", str(tmp_path), path=str(path))
    assert (state.verdict, state.releasable) == (_lock.UNKNOWN, False)


def test_a_file_that_changes_all_the_time(path, monkeypatch):
    pids = iter(range(2, 1000))
    flock_holders = _lock_file.flock_holders

    def meddle(dev: int, inode: int):
        path.write_text(f"vm:{next(pids)}:0ef85993\n1\n1\n")
        return flock_holders(dev, inode)

    path.write_text("vm:1:0ef85993\n1\n1\n")
    monkeypatch.setattr(_lock_file, "flock_holders", meddle)
    seen = observe(str(path))
    assert seen.kept is None
    assert "changed" in seen.problem


# The directory that ansible_collections is in, for other interpreters.
COLLECTIONS = str(pathlib.Path(_lock_file.__file__).parents[5])

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
AS_NOBODY = r"""
import os, sys
sys.path[:0] = sys.argv[2].split(":")
from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_file
os.setgid(65534); os.setuid(65534)
if sys.argv[3] == "namespace":
    _lock_file.INITIAL_PID_NAMESPACE = "pid:[0]"
seen = _lock_file.observe(sys.argv[1])
print(seen.kept, list(seen.keepers), seen.unseen, seen.problem, sep="|")
try:
    print(_lock_file.release(seen))
except Exception as exc:
    print(type(exc).__name__, exc)
"""


def as_nobody(path: pathlib.Path, where: str = "") -> List[str]:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(path), COLLECTIONS, where],
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_root
def test_another_user_learns_from_the_kernels_list_who_keeps_it(public, tmp_path):
    if os.readlink("/proc/self/ns/pid") != _lock_file.INITIAL_PID_NAMESPACE:
        pytest.skip("the kernel's list of locks is not whole inside a PID namespace")
    with contextlib.closing(Nursery(public, tmp_path)) as nursery:
        holder = nursery.take()
        first, second = as_nobody(public)
        assert first == f"True|[{holder.pid}]|None|None"
        assert "become: true" in second
        holder.kill()
        first, second = as_nobody(public)
    assert first == "False|[]|None|None"
    assert "become: true" in second
    assert public.exists()


@needs_root
def test_inside_a_pid_namespace_another_user_cannot_tell(public):
    public.write_text("vm:1:0ef85993\n1\n1\n")
    first, _second = as_nobody(public, "namespace")
    assert first.startswith("None|[]|the open files of ")


@needs_root
def test_a_record_that_another_user_may_not_read(public):
    public.write_text("vm:1:0ef85993\n1\n1\n")
    public.chmod(0o600)
    first, _second = as_nobody(public)
    assert "may not be read" in first


@needs_root
def test_in_a_pid_namespace_of_its_own_the_orphan_is_still_seen(path, tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    script = f"""
import os, signal, subprocess, sys, time
sys.path[:0] = [{COLLECTIONS!r}, {str(pathlib.Path(__file__).parent)!r}]
import pathlib
from test_lock_file import Nursery, end
from ansible_collections.ringrift.recovery.plugins.module_utils import _lock, _lock_file
nursery = Nursery(pathlib.Path({str(path)!r}), pathlib.Path({str(tmp_path)!r}))
holder = nursery.take()
child = holder.fork()
holder.kill()
listed = lambda: [line for line in open("/proc/locks") if str(os.stat({str(path)!r}).st_ino) in line]
deadline = time.monotonic() + 5  # the kernel names the holder until its parent has waited for it
while listed() and time.monotonic() < deadline:
    time.sleep(0.01)
assert not listed()
state = _lock.inspect("hex8_2p", "/nowhere", path={str(path)!r})
print(state.verdict, list(state.holder.holders) == [child], state.held)
nursery.close()
"""
    done = subprocess.run(
        [unshare, "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", script],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    if "unshare" in done.stderr and "ermitted" in done.stderr:
        pytest.skip("this machine allows no PID namespaces")
    assert done.stdout == "orphan_fd True True\n", done.stderr


LISTS = [
    ("", False, set()),
    ("1: FLOCK  ADVISORY  WRITE 1993 fe:00:42 0 EOF\n", True, {1993}),
    ("1: FLOCK  ADVISORY  WRITE 1993 fe:00:420 0 EOF\n", False, set()),
    ("1: FLOCK  ADVISORY  WRITE 1993 00:2f:42 0 EOF\n", None, set()),
    ("1: POSIX  ADVISORY  WRITE 1993 fe:00:42 0 EOF\n", False, set()),
    ("1: FLOCK  ADVISORY  WRITE 1993 fe:00:7 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 5 fe:00:42 0 EOF\n", False, set()),
    ("garbage\n1: FLOCK\n", False, set()),
]


@pytest.mark.parametrize(("text", "kept", "pids"), LISTS)
def test_the_kernels_list(tmp_path, monkeypatch, text, kept, pids):
    monkeypatch.setattr(_lock_file, "INITIAL_PID_NAMESPACE", os.readlink("/proc/self/ns/pid"))
    listing = tmp_path / "locks"
    listing.write_text(text)
    monkeypatch.setattr(_lock_file, "PROC_LOCKS", str(listing))
    assert _lock_file._kernel_list(os.makedev(0xFE, 0), 42) == (kept, pids)
    monkeypatch.setattr(_lock_file, "INITIAL_PID_NAMESPACE", "pid:[0]")
    assert _lock_file._kernel_list(os.makedev(0xFE, 0), 42) == (True if pids else None, pids)


STEPS = 300


@pytest.mark.soak
def test_no_lock_of_a_live_process_is_ever_released(path, nursery, tmp_path):
    """A seeded walk over what can happen to a lock; after every step the lock is released if its verdict allows it."""
    rng = random.Random(20261124)
    holder: Optional[Holder] = None
    last: Optional[Holder] = None
    orphans: List[int] = []
    counts: Dict[str, int] = {}
    for step in range(STEPS):
        kept = ([holder.pid, *holder.children] if holder else []) + orphans
        actions = ["kill", "fork", "release", "rival"] if holder else ["orphan"] if orphans else ["take"]
        action = rng.choice(actions)
        if action == "take":
            holder = last = nursery.take(lifetime=rng.choice([0, 3600]))
            assert holder.holds
        elif action == "rival":
            assert not nursery.take().holds
        elif action == "fork":
            holder.fork()
        elif action == "release":
            # It unlocks for its children too, and removes the file.
            assert holder.tell("release") == "released"
            orphans, holder = [], None
        elif action == "kill":
            orphans, holder = list(holder.children), None
            end(kept[0])
        else:
            end(orphans.pop(rng.randrange(len(orphans))))
        kept = ([holder.pid, *holder.children] if holder else []) + orphans
        state = _lock.inspect("hex8_2p", str(tmp_path), path=str(path))
        assert state.held is bool(kept), (step, action, state)
        assert (state.holder.holders if state.holder else ()) == tuple(sorted(kept)), (step, action, state)
        if state.verdict == _lock_verdict.STALE_EXPIRED:
            # Only where the number of the dead holder is that of another process by now.
            assert start_of(last.pid) != last.start, (step, action, state)
            continue
        counts[state.verdict] = counts.get(state.verdict, 0) + 1
        if state.releasable or rng.random() < 0.2:
            outcome = _lock_file.release(state.seen)
            emptied = path.exists() and not path.stat().st_size
            assert outcome is not None or emptied, (step, action, state, outcome)
            assert not (kept and outcome is None), (step, action, state)
        assert not kept or path.exists(), (step, action, state)
    assert set(counts) == {_lock.HELD_LIVE, _lock.ORPHAN_FD, _lock_verdict.ORPHAN_FILE, _lock.FREE}
    assert counts[_lock_verdict.ORPHAN_FILE] > 20


# Takes the lock again and again, as the service does, and never lets it go otherwise than by dying. It notes what it
# held, and whether the file was still the one that others see.
CONTENDER = r"""
import fcntl, os, random, signal, sys, time, uuid
path, notes, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
note = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
rng = random.Random(seed)

def attempt(choice, pause):
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os._exit(0)
    start = time.monotonic()
    os.ftruncate(handle, 0)
    token = f"{os.uname()[1]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    os.write(handle, f"{token}\n{time.time()}\n3600\n".encode())
    time.sleep(pause)
    if choice == "orphan" and os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(pause)
    status = os.fstat(handle)
    whole = status.st_nlink == 1 and os.stat(path).st_ino == status.st_ino
    os.write(note, f"{start} {time.monotonic()} {whole}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)

for _number in range(rounds):
    choice, pause = rng.choice(["die", "orphan"]), rng.random() * 0.004
    if not os.fork():
        attempt(choice, pause)
    time.sleep(rng.random() * 0.04)
time.sleep(0.05)
"""


@pytest.mark.soak
def test_under_contention_every_holder_keeps_its_file(path, tmp_path, monkeypatch):
    """Processes fight for the lock and die with it, while it is released all the time by the same rules as ever."""
    monkeypatch.setattr(_lock_file, "SETTLE", 0.0)
    notes = tmp_path / "notes"
    contenders = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", CONTENDER, str(path), str(notes), seed, "100000"])
        for seed in "12"
    ]
    released, begun = 0, time.monotonic()
    try:
        # Four seconds are some 400 attempts; a machine that is busy gets the time that it needs.
        while time.monotonic() < begun + 4 or (released < 3 and time.monotonic() < begun + 60):
            state = _lock.inspect("hex8_2p", str(tmp_path), path=str(path))
            if state.releasable and _lock.release(state) is None:
                released += 1
    finally:
        for contender in contenders:
            contender.kill()
            contender.wait(5)
    time.sleep(0.1)  # for those that they have started
    held = [line.split() for line in notes.read_text().splitlines()]
    assert len(held) > 30
    assert released >= 3
    assert [line for line in held if line[2] != "True"] == []
    spans = sorted((float(start), float(stop)) for start, stop, _whole in held)
    assert all(earlier[1] <= later[0] for earlier, later in zip(spans, spans[1:]))


def test_two_who_release_at_once(path, nursery):
    nursery.take().kill()
    seen = observe(str(path))
    outcomes: List[Optional[str]] = []
    threads = [threading.Thread(target=lambda: outcomes.append(release(seen))) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(outcomes) == 4
    assert outcomes.count(None) == 1
    assert path.read_bytes() == b""


def test_our_own_flock_counts_too(path):
    with open(path, "w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert observe(str(path)).keepers == (os.getpid(),)


def test_a_path_that_cannot_be_looked_at(tmp_path):
    with pytest.raises(RecoveryError, match="looked at"):
        _lock.inspect("hex8_2p", str(tmp_path), path=str(tmp_path / ("x" * 300)))


def test_a_link_that_has_taken_its_place_is_not_followed(path, tmp_path):
    path.write_text("vm:1:0ef85993\n1\n1\n")
    seen = observe(str(path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("not a lock")
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(RecoveryError, match="opened for its release"):
        release(seen)
    assert elsewhere.read_text() == "not a lock"

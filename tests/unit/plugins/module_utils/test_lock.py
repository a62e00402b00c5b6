# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on a lock: the table, its properties, and the facts that real processes make."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Iterator, List

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _lock, _lock_file, _lock_holder
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock import (
    LockReport,
    LockState,
    inspect,
    inspect_all,
    refusal,
    release,
    released,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import LockId
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_holder import (
    ALIVE,
    ANSWERS,
    DEAD,
    GONE,
    OTHER,
    PRIOR_BOOT,
    REUSED,
    SAME,
    SIMILAR,
    Answer,
    compare_hosts,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_verdict import (
    API,
    FILE,
    FREE,
    HELD_LIVE,
    HELD_LIVE_FOREIGN,
    ORPHAN_FD,
    ORPHAN_FILE,
    REDIS,
    RELEASABLE,
    STALE_DEAD,
    STALE_EXPIRED,
    STALE_PID_REUSED,
    STALE_PRIOR_BOOT,
    UNKNOWN,
    VERDICTS,
    Facts,
    judge,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._redis import RedisClient, RedisRefused, parse_redis_url
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_800_000_000.0
BOOT = NOW - 100_000
ME = LockId("vm:1993:0ef85993", "vm", 1993)

# A lock file that this host's process 1993 left behind, and a key that it set.
LEFT = Facts(
    backend=FILE,
    exists=True,
    now=NOW,
    lock_id=ME,
    host=SAME,
    process=DEAD,
    acquired_at=NOW - 60,
    lifetime=3600.0,
    boot_time=BOOT,
)
KEY = Facts(backend=REDIS, exists=True, now=NOW, lock_id=ME, host=SAME, process=DEAD, ttl=3000.0)
LIVING = {"process": ALIVE, "process_start": NOW - 90}
KEPT = {"keepers": (1993,), "kept": True}
BLIND = {"kept": None, "unseen": "the open files of 3 processes of other users cannot be seen"}


def said(verdict: str, kept: object = None) -> Answer:
    return Answer(ME.token, verdict, "so it is there", "node-1", "vm", kept)


TABLE = [
    # The lock file.
    (replace(LEFT, exists=False), FREE),
    (LEFT, ORPHAN_FILE),
    (replace(LEFT, empty=True, lock_id=None, host=None, process=None), FREE),
    (replace(LEFT, empty=True, lock_id=None, host=None, process=None, **BLIND), UNKNOWN),
    (replace(LEFT, acquired_at=None, lifetime=None), ORPHAN_FILE),
    (replace(LEFT, lock_id=None, host=None, process=None), UNKNOWN),
    (replace(LEFT, **BLIND), UNKNOWN),
    (replace(LEFT, problem="it may not be read"), UNKNOWN),
    (replace(LEFT, process=None), UNKNOWN),
    (replace(LEFT, host=OTHER, process=None), HELD_LIVE_FOREIGN),
    (replace(LEFT, host=OTHER, process=None, acquired_at=BOOT - 500), HELD_LIVE_FOREIGN),
    (replace(LEFT, host=OTHER, process=None, **BLIND), UNKNOWN),
    (replace(LEFT, acquired_at=BOOT - 500), STALE_PRIOR_BOOT),
    (replace(LEFT, acquired_at=BOOT - 500, **LIVING), STALE_PRIOR_BOOT),
    (replace(LEFT, acquired_at=BOOT - 1), ORPHAN_FILE),
    (replace(LEFT, process=ALIVE, process_start=NOW - 50), STALE_PID_REUSED),
    (replace(LEFT, process=ALIVE, process_start=NOW - 59), ORPHAN_FILE),
    (replace(LEFT, process=ALIVE, process_start=NOW - 50, has_open=True), UNKNOWN),
    (replace(LEFT, **LIVING), ORPHAN_FILE),
    (replace(LEFT, lifetime=30.0, **LIVING), STALE_EXPIRED),
    (replace(LEFT, has_open=True, **LIVING), UNKNOWN),
    (replace(LEFT, acquired_at=None, lifetime=None, **LIVING), UNKNOWN),
    (replace(LEFT, process=ALIVE), ORPHAN_FILE),
    (replace(LEFT, **KEPT, **LIVING), HELD_LIVE),
    (replace(LEFT, lifetime=30.0, **KEPT, **LIVING), HELD_LIVE),
    (replace(LEFT, acquired_at=BOOT - 500, **KEPT, **LIVING), HELD_LIVE),
    (replace(LEFT, acquired_at=NOW + 9999, **KEPT, **LIVING), HELD_LIVE),
    (replace(LEFT, keepers=(2144,), kept=True, **LIVING), HELD_LIVE),
    (replace(LEFT, keepers=(2144,), kept=True, process=None), HELD_LIVE),
    (replace(LEFT, keepers=(2144,), kept=True, host=OTHER, process=None), HELD_LIVE),
    (replace(LEFT, keepers=(2144,), kept=True, lock_id=None, host=None, process=None), HELD_LIVE),
    (replace(LEFT, keepers=(2144,), kept=True, problem="it may not be read"), ORPHAN_FD),
    (replace(LEFT, keepers=(2144,), kept=True), ORPHAN_FD),
    (replace(LEFT, keepers=(2144, 2145), kept=True, acquired_at=BOOT - 500), ORPHAN_FD),
    (replace(LEFT, keepers=(2144,), kept=True, process=ALIVE, process_start=NOW - 50), ORPHAN_FD),
    # The key in Redis.
    (replace(KEY, exists=False), FREE),
    (KEY, STALE_DEAD),
    (replace(KEY, ttl=None), STALE_DEAD),
    (replace(KEY, **LIVING), HELD_LIVE),
    (replace(KEY, process=None), UNKNOWN),
    (replace(KEY, host=OTHER, process=None), HELD_LIVE_FOREIGN),
    (replace(KEY, host=SIMILAR, process=None), HELD_LIVE_FOREIGN),
    (replace(KEY, lock_id=None, host=None, process=None), UNKNOWN),
    (replace(KEY, problem="the key holds no string"), UNKNOWN),
    (replace(KEY, process=ALIVE, process_start=NOW - 90, taken_before=NOW - 91), HELD_LIVE),
    # Its age is by the clock of Redis, which proves nothing.
    (replace(KEY, process=ALIVE, process_start=NOW - 90, taken_before=NOW - 95), UNKNOWN),
    (replace(KEY, process=ALIVE, process_start=NOW - 90, taken_before=BOOT - 5, boot_time=BOOT), UNKNOWN),
    (replace(KEY, process=None, taken_before=BOOT - 5, boot_time=BOOT), UNKNOWN),
    # Another host, which was asked.
    (replace(KEY, host=OTHER, process=None, answer=said(ALIVE)), HELD_LIVE_FOREIGN),
    (replace(KEY, host=OTHER, process=None, answer=said(_lock_holder.UNKNOWN)), HELD_LIVE_FOREIGN),
    (replace(KEY, host=OTHER, process=None, answer=said(DEAD)), STALE_DEAD),
    (replace(KEY, host=SIMILAR, process=None, answer=said(DEAD)), STALE_DEAD),
    # The age of a lock in Redis is by the clock of Redis.
    (replace(KEY, host=OTHER, process=None, answer=said(REUSED)), HELD_LIVE_FOREIGN),
    (replace(KEY, host=OTHER, process=None, answer=said(PRIOR_BOOT)), HELD_LIVE_FOREIGN),
    (replace(KEY, answer=said(REUSED)), HELD_LIVE_FOREIGN),
    (replace(KEY, host=OTHER, process=None, answer=said(DEAD), problem="it is a replica"), UNKNOWN),
    (replace(KEY, answer=said(ALIVE)), HELD_LIVE_FOREIGN),
    (replace(KEY, answer=said(DEAD)), STALE_DEAD),
    (replace(KEY, **LIVING, answer=said(DEAD)), HELD_LIVE),
    (replace(LEFT, host=OTHER, process=None, answer=said(DEAD)), HELD_LIVE_FOREIGN),
    (replace(LEFT, host=OTHER, process=None, answer=said(DEAD, kept=False)), ORPHAN_FILE),
    (replace(LEFT, host=OTHER, process=None, answer=said(REUSED, kept=False)), STALE_PID_REUSED),
    (replace(LEFT, host=OTHER, process=None, answer=said(PRIOR_BOOT, kept=False)), STALE_PRIOR_BOOT),
    (replace(LEFT, host=OTHER, process=None, answer=said(ALIVE, kept=False)), HELD_LIVE_FOREIGN),
    (replace(LEFT, host=OTHER, process=None, answer=said(DEAD, kept=False), keepers=(7,), kept=True), HELD_LIVE),
    (replace(LEFT, host=OTHER, process=None, answer=said(DEAD, kept=False), **BLIND), UNKNOWN),
    # The runbook's API.
    (replace(KEY, backend=API), STALE_DEAD),
    (replace(KEY, backend=API, **LIVING), HELD_LIVE),
    (replace(KEY, backend=API, lock_id=None, host=None, process=None), UNKNOWN),
    (replace(KEY, backend=API, process=ALIVE, process_start=NOW - 50, acquired_at=NOW - 60), STALE_PID_REUSED),
]


@pytest.mark.parametrize(("facts", "verdict"), TABLE)
def test_verdicts(facts, verdict):
    found, reason = judge(facts)
    assert found == verdict
    assert reason
    assert reason[0].islower()
    assert not reason.endswith(".")


def test_the_table_has_every_verdict_and_every_verdict_is_in_the_docs(root):
    assert {verdict for _facts, verdict in TABLE} == set(VERDICTS) == set(RELEASABLE)
    text = (root / "plugins" / "modules" / "training_lock.py").read_text()
    notes = dict(re.findall(r'- "V\((\w+)\): (not releasable|releasable)[,.]', text))
    assert notes == {verdict: "releasable" if may else "not releasable" for verdict, may in RELEASABLE.items()}


def test_the_table_for_operators_says_the_same(root):
    text = (root / "docs" / "locks.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes|no) \| [^|]+ \|$", text, re.MULTILINE))
    assert rows == {verdict: "yes" if may else "no" for verdict, may in RELEASABLE.items()}
    assert list(rows) == list(VERDICTS)[: len(rows)]


def test_what_may_be_released():
    assert {verdict for verdict, may in RELEASABLE.items() if may} == {
        STALE_DEAD,
        STALE_PID_REUSED,
        STALE_PRIOR_BOOT,
        STALE_EXPIRED,
        ORPHAN_FILE,
    }


times = st.none() | st.floats(NOW - 200_000, NOW + 200_000)
any_facts = st.builds(
    Facts,
    backend=st.sampled_from([FILE, REDIS, API]),
    exists=st.booleans(),
    now=st.just(NOW),
    problem=st.sampled_from([None, "it may not be read"]),
    empty=st.booleans(),
    lock_id=st.sampled_from([None, ME]),
    host=st.sampled_from([None, SAME, SIMILAR, OTHER]),
    process=st.sampled_from([None, ALIVE, DEAD]),
    process_start=times,
    has_open=st.booleans(),
    acquired_at=times,
    lifetime=st.none() | st.floats(0, 1e6),
    ttl=st.none() | st.floats(0, 1e6),
    boot_time=st.none() | st.just(BOOT),
    keepers=st.sampled_from([(), (1993,), (2144, 2145)]),
    kept=st.sampled_from([None, False, True]),
    unseen=st.sampled_from([None, "hidden"]),
    taken_before=times,
    answer=st.none() | st.builds(said, st.sampled_from(ANSWERS), st.sampled_from([None, True, False])),
)


@settings(deadline=None)
@given(any_facts)
def test_a_lock_is_releasable_only_when_nobody_can_hold_it(facts):
    verdict, reason = judge(facts)
    assert verdict in RELEASABLE
    assert reason
    left_empty = facts.backend == FILE and facts.empty and facts.kept is False and not facts.problem
    assert (verdict == FREE) == (not facts.exists or (left_empty and not facts.keepers))
    if not RELEASABLE[verdict]:
        return
    assert not facts.problem
    if facts.backend == FILE:
        # The kernel has the last word: nobody keeps the flock, and everybody could be looked into.
        assert not facts.keepers
        assert facts.kept is False
        asked = facts.answer is not None and facts.answer.verdict in GONE and facts.answer.kept is False
        assert facts.empty or (facts.lock_id is not None and (facts.host != OTHER or asked))
    else:
        # There is no flock, so only a process that is proven gone will do: here, or in the words of its own host.
        assert facts.lock_id is not None
        if facts.host == SAME:
            younger = facts.backend != REDIS and facts.process == ALIVE and (facts.reused or facts.prior_boot)
            assert facts.process == DEAD or younger
            assert facts.answer is None or facts.answer.verdict in GONE
        else:
            assert facts.answer is not None
            assert facts.answer.verdict in ((DEAD,) if facts.backend == REDIS else GONE)


@settings(deadline=None)
@given(any_facts)
def test_a_lock_that_is_kept_is_held_whatever_its_record_says(facts):
    if facts.backend == FILE and facts.exists and facts.keepers:
        assert judge(facts)[0] in (HELD_LIVE, ORPHAN_FD)


@settings(deadline=None)
@given(any_facts, st.floats(0, 1e9))
def test_age_alone_never_makes_a_redis_lock_releasable(facts, ttl):
    facts = replace(facts, backend=REDIS)
    assert judge(facts)[0] == judge(replace(facts, ttl=ttl, lifetime=0.0))[0]


@pytest.mark.parametrize(
    ("recorded", "local", "expected"),
    [
        ("vm", "vm", SAME),
        ("VM", "vm", SAME),
        ("vm.", "vm", SAME),
        ("gpu-1.example.com", "gpu-1.example.com", SAME),
        ("gpu-1", "gpu-1.example.com", SIMILAR),
        ("gpu-1.example.com", "gpu-1", SIMILAR),
        ("gpu-1.example.com", "gpu-1.example.org", OTHER),
        ("gpu-1", "gpu-10", OTHER),
        ("gpu-1", "gpu-2", OTHER),
        ("10.0.0.1", "10.0.0.2", OTHER),
    ],
)
def test_host_names(recorded, local, expected):
    assert compare_hosts(recorded, local) == expected


# From here on with real files, processes and servers.


@pytest.fixture
def service(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "data" / "locks").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def path(service: pathlib.Path) -> pathlib.Path:
    return service / "data" / "locks" / "training_hex8_2p.lock"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait(5)


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait(10)
    return process.pid


def record(path: pathlib.Path, pid: int, ago: float = 5.0, host: str = "", lifetime: int = 3600) -> str:
    token = f"{host or socket.gethostname()}:{pid}:0ef85993"
    path.write_text(f"{token}\n{time.time() - ago}\n{lifetime}\n")
    return token


def look(service: pathlib.Path, **options: object) -> LockState:
    return inspect(parse_config("hex8_2p"), str(service), **options)


def test_a_free_lock(service, path):
    state = look(service)
    assert state.as_dict() == {
        "name": "training:hex8_2p",
        "backend": "file",
        "path": str(path),
        "key": None,
        "server": None,
        "held": False,
        "holder": None,
        "verdict": FREE,
        "releasable": False,
        "reason": "nobody has taken it",
    }


def test_a_service_that_is_not_there_is_mentioned(tmp_path):
    state = look(tmp_path / "nowhere")
    assert state.verdict == FREE
    assert "nowhere is no directory" in state.reason


def test_a_dead_holder(service, path, dead):
    token = record(path, dead)
    state = look(service)
    assert (state.verdict, state.held, state.releasable) == (ORPHAN_FILE, False, True)
    holder = state.as_dict()["holder"]
    assert set(holder) == {
        "host",
        "pid",
        "token",
        "acquired_at",
        "ttl",
        "age",
        "expires_in",
        "alive",
        "holders",
        "min_age",
        "host_match",
        "processes",
        "parents",
        "children",
    }
    assert (holder["host"], holder["pid"], holder["token"]) == (socket.gethostname(), dead, token)
    assert (holder["ttl"], holder["alive"], holder["holders"]) == (3600.0, False, [])
    assert 5 <= holder["age"] < 60
    assert holder["age"] + holder["expires_in"] == pytest.approx(3600)
    assert state.record[0] == token
    assert release(state) is None
    assert path.read_bytes() == b""
    assert look(service).verdict == FREE


def test_a_process_that_was_started_after_the_lock_was_taken(service, path, sleeper):
    record(path, sleeper.pid, ago=9)
    state = look(service)
    assert (state.verdict, state.held, state.holder.alive) == (STALE_PID_REUSED, False, False)


def test_a_process_that_has_let_it_go(service, path):
    record(path, os.getpid(), ago=0.0, lifetime=3600)
    assert look(service).verdict == ORPHAN_FILE
    record(path, os.getpid(), ago=0.0, lifetime=1)
    assert look(service, now=time.time() + 5).verdict == STALE_EXPIRED


def test_a_lock_from_before_this_boot(service, path, sleeper, dead):
    for pid in (sleeper.pid, dead):
        record(path, pid, ago=time.time() - _lock.boot_time() + 600)
        assert look(service).verdict == STALE_PRIOR_BOOT


def test_a_live_holder_whose_lock_has_expired(service, path):
    record(path, os.getpid(), ago=0.0, lifetime=1)
    with open(path, "r+", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        state = look(service, now=time.time() + 99)
        assert (state.verdict, state.held, state.holder.holders) == (HELD_LIVE, True, (os.getpid(),))
        assert state.holder.expires_in < 0


@pytest.mark.parametrize("content", ["", "HOST:19", "HOST:PID:0ef85993", "HOST:PID:0ef85993\n17"])
def test_a_holder_that_is_just_writing_its_record(service, path, content):
    path.write_text(content.replace("HOST", socket.gethostname()).replace("PID", str(os.getpid())))
    with open(path, encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        state = look(service)
        assert (state.verdict, state.held, state.holder.holders) == (HELD_LIVE, True, (os.getpid(),))


@pytest.mark.parametrize("content", ["vm:19", "root:x:0:0:root:/root:/bin/bash\n", "precious"])
def test_what_is_no_record_of_a_holder_is_unknown(service, path, content):
    path.write_text(content)
    state = look(service)
    assert (state.verdict, state.held, state.releasable, state.token) == (UNKNOWN, None, False, None)
    message = refusal(LockReport((state,)), "vm:1993:0ef85993", force=True)
    assert "names no holder" in message


def test_another_host(service, path, dead):
    record(path, dead, host="nebius-h100-3")
    state = look(service)
    assert (state.verdict, state.held, state.holder.alive) == (HELD_LIVE_FOREIGN, None, None)
    record(path, dead, host=f"{socket.gethostname()}.example.com")
    assert look(service).verdict == ORPHAN_FILE


def test_processes_to_be_taken_for_dead(service, path, sleeper):
    record(path, os.getpid(), ago=0.0)
    with open(path, "r+", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        child = subprocess.Popen(["sleep", "60"], pass_fds=[stream.fileno()])
        try:
            assert look(service).holder.holders == tuple(sorted((os.getpid(), child.pid)))
            both = look(service, assume_gone=[os.getpid(), child.pid])
            assert (both.verdict, both.releasable, both.held) == (ORPHAN_FILE, True, False)
            assert both.holder.holders == ()
            one = look(service, assume_gone=[os.getpid()])
            assert (one.verdict, one.holder.holders) == (ORPHAN_FD, (child.pid,))
            assert look(service, assume_gone=[child.pid]).verdict == HELD_LIVE
            assert look(service, assume_gone=[sleeper.pid]).verdict == HELD_LIVE
        finally:
            child.kill()
            child.wait(5)


def test_the_number_of_a_dead_process_that_a_thread_has_now(service, path):
    """Trainers have many threads, and those take numbers out of the same range."""
    number: List[int] = []
    stop = threading.Event()

    def run() -> None:
        number.append(threading.get_native_id())
        stop.wait(20)

    thread = threading.Thread(target=run)
    thread.start()
    while not number:
        time.sleep(0.001)
    try:
        process, detail, _start = _lock_holder._process(number[0], time.time())
        assert process == DEAD
        assert f"a thread of process {os.getpid()}" in detail
    finally:
        stop.set()
        thread.join(5)


def test_stopped_is_alive_and_zombie_is_dead(sleeper):
    sleeper.send_signal(signal.SIGSTOP)
    assert _lock_holder._process(sleeper.pid, time.time())[0] == ALIVE
    sleeper.kill()
    deadline = time.monotonic() + 5
    while _lock_holder.read_stat(sleeper.pid).state != "Z" and time.monotonic() < deadline:
        time.sleep(0.001)
    assert _lock_holder._process(sleeper.pid, time.time())[:2] == (DEAD, "it is a zombie, which holds nothing")


FIRST_THREAD_ENDS = r"""
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_alive():
    process = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        deadline = time.monotonic() + 5
        while _lock_holder.read_stat(process.pid).state != "Z" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _lock_holder._process(process.pid, time.time())[0] == ALIVE
    finally:
        process.kill()
        process.wait(5)


@pytest.mark.parametrize("pid", [2**31 - 1, 2**31, 9_999_999_999])
def test_a_number_that_no_process_can_have(pid):
    assert _lock_holder._process(pid, NOW)[0] == DEAD


def test_a_process_of_another_user_is_alive(monkeypatch):
    def forbidden(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(_lock_holder.os, "kill", forbidden)
    monkeypatch.setattr(_lock_holder, "read_stat", lambda _pid: None)
    assert _lock_holder._process(2**31 - 1, NOW)[0] == ALIVE


def with_process(facts: Facts, pid: int, among: object) -> Facts:
    vital = _lock_holder.vital_signs(pid, NOW, (), among)
    return replace(facts, process=vital.process, process_detail=vital.detail, process_start=vital.start)


def test_a_number_inside_a_container(monkeypatch):
    """With the host's network a container has the host's name too, and counts its processes from 1."""
    monkeypatch.setattr(_lock_holder, "_status", lambda pid: {"NSpid": "4242\t7"} if pid == 4242 else {})
    monkeypatch.setattr(_lock_holder, "list_pids", lambda: [1, 4242])
    monkeypatch.setattr(_lock_holder, "_exists", lambda _pid: False)
    outside = with_process(KEY, 7, among=None)
    assert judge(outside)[0] == UNKNOWN
    assert "process 4242 has that number inside a container" in judge(outside)[1]
    kept = replace(LEFT, lock_id=LockId("vm:7:0ef85993", "vm", 7), keepers=(4242,), kept=True)
    assert judge(with_process(kept, 7, among=(4242,)))[0] == HELD_LIVE
    assert judge(with_process(LEFT, 8, among=()))[0] == ORPHAN_FILE


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    words = [
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(tmp_path_factory.mktemp("redis")),
        "--requirepass",
        "s3cret",
    ]
    for _attempt in range(5):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        process = subprocess.Popen([program, "--port", str(port), *words], stdout=subprocess.DEVNULL)
        url = f"redis://:s3cret@127.0.0.1:{port}/0"
        if answers(process, url):
            break
    yield url
    process.kill()
    process.wait(5)


def answers(process: subprocess.Popen, url: str) -> bool:
    """Whether the server comes up; it does not where somebody else was faster to take the port."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ask(url, "PING")
            return True
        except RecoveryError:
            time.sleep(0.02)
    process.kill()
    process.wait(5)
    return False


def ask(url: str, *words: object):
    with RedisClient(parse_redis_url(url)) as client:
        return client.command(*words)


def take(url: str, pid: int, host: str = "") -> str:
    token = f"{host or socket.gethostname()}:{pid}:842da588"
    ask(url, "SET", "lock:training:hex8_2p", token, "EX", 3600)
    return token


def test_redis_and_a_dead_holder(service, redis_url, dead):
    token = take(redis_url, dead)
    state = look(service, backend="redis", redis_url=redis_url)
    assert (state.verdict, state.held, state.releasable, state.holder.alive) == (STALE_DEAD, True, True, False)
    shown = state.as_dict()
    assert (shown["path"], shown["key"]) == (None, "lock:training:hex8_2p")
    assert re.match(r"127\.0\.0\.1:\d+/0\Z", shown["server"])
    assert shown["holder"]["token"] == token
    assert (shown["holder"]["acquired_at"], shown["holder"]["age"]) == (None, None)
    assert 3590 < shown["holder"]["ttl"] == shown["holder"]["expires_in"] <= 3600
    assert "s3cret" not in repr(state)
    assert release(state) is None
    assert ask(redis_url, "EXISTS", "lock:training:hex8_2p") == 0
    assert release(state) == "the key is gone or has another holder"


def test_redis_and_a_live_holder(service, redis_url, sleeper):
    take(redis_url, sleeper.pid)
    state = look(service, backend="redis", redis_url=redis_url)
    assert (state.verdict, state.held, state.holder.alive) == (HELD_LIVE, True, True)
    assert "sleep" in state.reason
    gone = look(service, backend="redis", redis_url=redis_url, assume_gone=[sleeper.pid])
    assert (gone.verdict, gone.releasable) == (STALE_DEAD, True)


@pytest.mark.parametrize("host", ["nebius-h100-3", "localhost", "HOST.example.com"])
def test_redis_and_another_host(service, redis_url, dead, host):
    take(redis_url, dead, host=host.replace("HOST", socket.gethostname()))
    state = look(service, backend="redis", redis_url=redis_url)
    assert (state.verdict, state.held, state.holder.alive) == (HELD_LIVE_FOREIGN, True, None)


def test_redis_on_a_host_without_a_name_of_its_own(service, redis_url, dead, monkeypatch):
    monkeypatch.setattr(_lock, "hostname", lambda: "localhost")
    take(redis_url, dead, host="localhost")
    assert look(service, backend="redis", redis_url=redis_url).verdict == HELD_LIVE_FOREIGN


@pytest.mark.parametrize("value", ["", "x", b"\xff\x00", "vm:0:842da588", "vm:1:842da588 "])
def test_redis_and_a_value_that_is_no_record(service, redis_url, value):
    ask(redis_url, "SET", "lock:training:hex8_2p", value)
    state = look(service, backend="redis", redis_url=redis_url)
    assert (state.verdict, state.held, state.holder) == (UNKNOWN, True, None)


def test_redis_and_a_wrong_password_is_never_a_free_lock(service, redis_url):
    for url in (redis_url.replace("s3cret", "wr0ng"), redis_url.replace(":s3cret@", "")):
        for backend in ("auto", "redis"):
            with pytest.raises(RedisRefused) as caught:
                look(service, backend=backend, redis_url=url)
            assert "wr0ng" not in str(caught.value)


def test_redis_that_does_not_answer(service):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"redis://:s3cret@127.0.0.1:{probe.getsockname()[1]}/0"
        with pytest.raises(RecoveryError, match="cannot be reached"):
            look(service, backend="redis", redis_url=url)
        report = inspect_all("hex8_2p", str(service), redis_url=url)
    assert [lock.verdict for lock in report.locks] == [FREE, UNKNOWN]
    assert (report.lock.verdict, report.lock.held) == (UNKNOWN, None)
    assert "cannot be reached" in report.lock.reason
    assert "names no holder" in refusal(report, force=True)
    with pytest.raises(RecoveryError, match="not seen whole"):
        release(report.lock)


def test_both_backends(service, path, redis_url, sleeper, dead):
    ask(redis_url, "FLUSHALL")
    report = inspect_all("hex8_2p", str(service), redis_url=redis_url)
    assert [lock.verdict for lock in report.locks] == [FREE, FREE]
    assert report.taken == ()

    record(path, dead)
    take(redis_url, sleeper.pid)
    report = inspect_all("hex8_2p", str(service), redis_url=redis_url)
    assert [lock.verdict for lock in report.locks] == [ORPHAN_FILE, HELD_LIVE]
    assert report.lock.backend == REDIS
    assert report.split_brain is False
    assert set(report.as_dict()) == {"lock", "locks", "split_brain", "record", "chosen", "findings", "node"}
    assert set(report.as_dict()["record"]) == {"file", "redis"}

    with open(path, encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        report = inspect_all("hex8_2p", str(service), redis_url=redis_url)
        assert report.split_brain is True
    assert inspect_all("hex8_2p", str(service), backend="file", redis_url=redis_url).locks[0].backend == FILE


def test_a_holder_on_another_host_that_was_asked(service, redis_url):
    token = take(redis_url, 1993, host="nebius-h100-3")
    options = {"backend": "redis", "redis_url": redis_url}
    gone = Answer(token, DEAD, "there is no process 1993", "node-3", "nebius-h100-3")
    state = look(service, **options, answers=[gone])
    assert (state.verdict, state.holder.alive) == (STALE_DEAD, False)
    assert "node-3 says: there is no process 1993" in state.reason
    for answers in ([replace(gone, verdict=ALIVE)], [gone, Answer(token, _lock_holder.UNKNOWN, "it is silent", "b")]):
        assert look(service, **options, answers=answers).verdict == HELD_LIVE_FOREIGN
    assert look(service, **options, answers=[replace(gone, hostname="node-3")]).verdict == HELD_LIVE_FOREIGN
    assert look(service, **options, answers=[replace(gone, token="x:1:0ef85993")]).verdict == HELD_LIVE_FOREIGN
    # The answer is about one acquisition: another one that is there meanwhile is left alone.
    take_again = "nebius-h100-3:1993:11111111"
    ask(redis_url, "SET", "lock:training:hex8_2p", take_again)
    assert release(state) == "the key is gone or has another holder"
    assert look(service, **options, answers=[gone]).verdict == HELD_LIVE_FOREIGN
    ask(redis_url, "FLUSHALL")


def test_redis_and_a_number_that_is_used_again(service, redis_url, sleeper):
    """A key that nobody has touched for long, by the clock of Redis, does not prove that its holder is gone."""
    token = take(redis_url, sleeper.pid)
    dumped = ask(redis_url, "DUMP", "lock:training:hex8_2p")
    for idle, verdicts in ((1, {HELD_LIVE}), (600, {UNKNOWN})):
        ask(redis_url, "DEL", "lock:training:hex8_2p")
        ask(redis_url, "RESTORE", "lock:training:hex8_2p", 3_000_000, dumped, "IDLETIME", idle)
        state = look(service, backend="redis", redis_url=redis_url)
        assert state.verdict in verdicts, state.reason
        assert state.token == token
    assert 590 < state.as_dict()["holder"]["min_age"] <= 600
    assert "only the clock of Redis" in state.reason
    ask(redis_url, "FLUSHALL")


def test_a_replica_is_unknown(service, redis_url, dead):
    take(redis_url, dead)
    ask(redis_url, "REPLICAOF", "127.0.0.1", 1)
    try:
        for backend in ("auto", "redis"):
            report = inspect_all("hex8_2p", str(service), backend=backend, redis_url=redis_url)
            assert (report.lock.verdict, report.lock.held) == (UNKNOWN, None)
            assert "Give the address of its master" in refusal(report)
    finally:
        ask(redis_url, "REPLICAOF", "NO", "ONE")
    ask(redis_url, "FLUSHALL")


def test_what_the_service_uses(service, path, redis_url, dead):
    assert inspect_all("hex8_2p", str(service)).chosen.backend == FILE
    assert inspect_all("hex8_2p", str(service), redis_url=redis_url).chosen.backend == REDIS
    assert inspect_all("hex8_2p", str(service), backend="file").chosen.reason == "backend=file was given"
    record(path, dead)
    report = inspect_all("hex8_2p", str(service), redis_url=redis_url)
    assert [finding["code"] for finding in report.findings] == ["other_backend"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        silent = f"redis://127.0.0.1:{probe.getsockname()[1]}/0"
        assert inspect_all("hex8_2p", str(service), redis_url=silent).chosen.backend == FILE


def test_the_same_lock_told_by_the_api_is_no_split_brain():
    token = "vm:1993:0ef85993"
    file = replace(state_of(HELD_LIVE, token), held=True)
    told = replace(state_of(HELD_LIVE, token, API), held=True)
    other = replace(state_of(HELD_LIVE, "vm:7:0ef85993", API), held=True)
    assert LockReport((file, told)).split_brain is False
    assert LockReport((file, other)).split_brain is True
    finding = LockReport((file, replace(file, backend=REDIS))).findings[0]
    assert finding["code"] == "split_brain"
    assert token in finding["message"]


def test_what_cannot_be_asked(service):
    with pytest.raises(RecoveryError, match="redis_url is missing"):
        look(service, backend="redis")
    with pytest.raises(RecoveryError, match="raft"):
        look(service, backend="raft")


def state_of(verdict: str, token: str = "vm:1993:0ef85993", backend: str = FILE) -> LockState:
    holder = replace(_lock._describe(LEFT, verdict), token=token, holders=(2144,) if verdict == ORPHAN_FD else ())
    return LockState(
        name="training:hex8_2p",
        backend=backend,
        path="/a/lock",
        key=None,
        server=None,
        held=None,
        holder=holder,
        verdict=verdict,
        reason="because",
    )


@pytest.mark.parametrize("verdict", VERDICTS)
def test_who_may_release_what(verdict):
    report = LockReport((state_of(verdict),))
    mine, other = "vm:1993:0ef85993", "vm:1993:aaaaaaaa"
    allowed = {
        (expect, force): refusal(report, expect, force) is None
        for expect in (None, mine, other)
        for force in (False, True)
    }
    if verdict == FREE:
        assert all(allowed.values())
    elif RELEASABLE[verdict]:
        assert allowed == {(expect, force): expect != other or force for expect, force in allowed}
    else:
        assert allowed == {(expect, force): (expect, force) == (mine, True) for expect, force in allowed}


@pytest.mark.parametrize("verdict", [verdict for verdict in VERDICTS if not RELEASABLE[verdict] and verdict != FREE])
def test_a_refusal_names_everything_and_the_way_on(verdict):
    message = refusal(LockReport((state_of(verdict),)), force=True)
    for part in ("training:hex8_2p", "/a/lock", verdict, "because", "vm", "1993", "60 s ago"):
        assert part in message
    assert "-e expect_holder=vm:1993:0ef85993 -e force=true" in message


def test_of_two_locks_the_one_that_needs_it_is_the_one_to_be_named():
    report = LockReport((state_of(ORPHAN_FILE, "vm:1:11111111"), state_of(HELD_LIVE_FOREIGN, "vm:2:22222222", REDIS)))
    assert refusal(report, "vm:2:22222222", force=True) is None
    assert "is recorded for vm:2:22222222" in refusal(report, "vm:1:11111111", force=True)
    assert "is recorded for vm:2:22222222" in refusal(report, "vm:3:33333333", force=True)
    assert "-e expect_holder=vm:2:22222222 -e force=true" in refusal(report, "vm:2:22222222")
    both = LockReport((state_of(HELD_LIVE, "vm:1:11111111"), state_of(HELD_LIVE, "vm:2:22222222", REDIS)))
    assert refusal(both, "vm:1:11111111", force=True) is not None


def test_the_prediction_is_a_free_lock(service, path, dead):
    record(path, dead)
    report = inspect_all("hex8_2p", str(service))
    predicted = released(report).as_dict()
    assert release(report.lock) is None
    assert predicted == inspect_all("hex8_2p", str(service)).as_dict()


def test_force_does_nothing_to_a_lock_that_is_taken_meanwhile(service, path, dead):
    """What was releasable when it was seen is never broken, force or not."""
    record(path, dead)
    state = look(service)
    with open(path, "r+", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert release(state, force=True) == "a process keeps its flock"
    assert path.exists()


def test_the_path_can_be_another_one(tmp_path, dead):
    record(tmp_path / "other.lock", dead)
    state = look(tmp_path, path=str(tmp_path / "other.lock"))
    assert (state.verdict, state.path) == (ORPHAN_FILE, str(tmp_path / "other.lock"))
    assert _lock_file.lock_path(str(tmp_path), "hex8_2p") != state.path

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock in Redis, against a real Redis."""

from __future__ import annotations

import itertools
import random
import shutil
import socket
import subprocess
import threading
import time
from typing import Iterator, List, Set

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _redis
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_redis import (
    RedisLock,
    compare_and_delete,
    lock_key,
    observe,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._redis import (
    RedisAddress,
    RedisClient,
    RedisRefused,
    RedisUnreachable,
)

KEY = "lock:training:hex8_2p"
HOLDER = b"vm:2230:842da588"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[RedisAddress]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    words = ["--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    for _attempt in range(5):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = RedisAddress("127.0.0.1", probe.getsockname()[1])
        process = subprocess.Popen([program, "--port", str(address.port), *words], stdout=subprocess.DEVNULL)
        if answers(process, address):
            break
    yield address
    process.kill()
    process.wait(5)


def answers(process: subprocess.Popen, address: RedisAddress) -> bool:
    """Whether the server comes up; it does not where somebody else was faster to take the port."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ask(address, "PING")
            return True
        except RedisUnreachable:
            time.sleep(0.02)
    process.kill()
    process.wait(5)
    return False


@pytest.fixture(autouse=True)
def _empty(address):
    ask(address, "FLUSHALL")


def ask(address: RedisAddress, *words: object):
    with RedisClient(address) as client:
        return client.command(*words)


def test_the_key_of_the_service():
    assert lock_key("hex8_2p") == KEY


def test_no_key(address):
    assert observe(address, KEY) == RedisLock(KEY, address.place)
    assert not observe(address, KEY).exists


def test_a_key_and_what_is_left_of_it(address):
    ask(address, "SET", KEY, HOLDER, "NX", "EX", 3600)
    seen = observe(address, KEY)
    assert (seen.exists, seen.value, seen.problem) == (True, HOLDER, None)
    assert 3590 < seen.ttl <= 3600


def test_a_key_that_never_expires(address):
    ask(address, "SET", KEY, HOLDER)
    assert observe(address, KEY).ttl is None
    assert observe(address, KEY).exists


def test_an_empty_value_is_a_key_all_the_same(address):
    ask(address, "SET", KEY, "")
    seen = observe(address, KEY)
    assert (seen.exists, seen.value) == (True, b"")


def test_a_key_that_runs_out_between_the_two_questions(address, monkeypatch):
    ask(address, "SET", KEY, HOLDER, "PX", 30)
    command = RedisClient.command

    def slow(self, *words):
        if words[0] == "PTTL":
            time.sleep(0.05)
        return command(self, *words)

    monkeypatch.setattr(RedisClient, "command", slow)
    assert not observe(address, KEY).exists


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("RPUSH", KEY, "x"), "no string"),
        (("SET", KEY, "x" * (_redis.MAX_BULK + 1)), "which is no lock"),
    ],
)
def test_a_key_that_is_no_lock(address, words, problem):
    ask(address, *words)
    seen = observe(address, KEY)
    assert seen.exists
    assert problem in seen.problem


def test_a_server_that_is_gone_is_no_free_lock():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(RedisUnreachable):
            observe(RedisAddress("127.0.0.1", probe.getsockname()[1]), KEY)


def test_a_wrong_password_is_no_free_lock(address):
    ask(address, "CONFIG", "SET", "requirepass", "s3cret")
    try:
        for password in (None, "wrong"):
            with pytest.raises(RedisRefused):
                observe(RedisAddress(address.host, address.port, password=password), KEY)
        with pytest.raises(RedisRefused):
            compare_and_delete(RedisAddress(address.host, address.port, password="wrong"), KEY, HOLDER)
        assert not observe(RedisAddress(address.host, address.port, password="s3cret"), KEY).exists
    finally:
        ask(RedisAddress(address.host, address.port, password="s3cret"), "CONFIG", "SET", "requirepass", "")


def test_only_the_very_holder_is_deleted(address):
    ask(address, "SET", KEY, HOLDER)
    assert compare_and_delete(address, KEY, b"vm:2230:842da589") is False
    assert compare_and_delete(address, KEY, b"") is False
    assert compare_and_delete(address, "lock:training:hex8_3p", HOLDER) is False
    assert ask(address, "GET", KEY) == HOLDER
    assert compare_and_delete(address, KEY, HOLDER) is True
    assert ask(address, "EXISTS", KEY) == 0
    assert compare_and_delete(address, KEY, HOLDER) is False


def test_a_value_of_any_bytes(address):
    ask(address, "SET", KEY, b"\x00\xff'\r\n")
    assert compare_and_delete(address, KEY, observe(address, KEY).value) is True


def test_another_type_is_not_deleted(address):
    ask(address, "RPUSH", KEY, HOLDER)
    with pytest.raises(RedisRefused):
        compare_and_delete(address, KEY, HOLDER)
    assert ask(address, "EXISTS", KEY) == 1


def test_another_database_is_not_touched(address):
    ask(address, "SET", KEY, HOLDER)
    assert compare_and_delete(RedisAddress(address.host, address.port, db=1), KEY, HOLDER) is False
    assert ask(address, "GET", KEY) == HOLDER


def test_a_replica_refuses(address):
    ask(address, "SET", KEY, HOLDER)
    ask(address, "REPLICAOF", "127.0.0.1", 1)
    try:
        with pytest.raises(RedisRefused) as caught:
            compare_and_delete(address, KEY, HOLDER)
        assert caught.value.code == "READONLY"
        assert ask(address, "GET", KEY) == HOLDER
    finally:
        ask(address, "REPLICAOF", "NO", "ONE")


def test_what_a_replica_says_proves_nothing(address):
    ask(address, "REPLICAOF", "127.0.0.1", 1)
    try:
        seen = observe(address, KEY)
        assert (seen.exists, seen.replica, seen.value) == (True, True, None)
        assert "the address of its master" in seen.problem
    finally:
        ask(address, "REPLICAOF", "NO", "ONE")


def test_how_long_nobody_has_touched_the_key(address):
    ask(address, "SET", KEY, HOLDER)
    assert observe(address, KEY).min_age is None
    ask(address, "SET", KEY, HOLDER)
    with RedisClient(address) as client:
        payload = client.command("DUMP", KEY)
        client.command("DEL", KEY)
        client.command("RESTORE", KEY, 0, payload, "IDLETIME", 600)
    assert 590 < observe(address, KEY).min_age <= 600
    # The look itself has touched it.
    assert observe(address, KEY).min_age is None
    ask(address, "DEL", KEY)
    ask(address, "RESTORE", KEY, 0, payload, "IDLETIME", 10**6)
    assert observe(address, KEY).min_age is None


def test_the_age_of_a_lock_is_not_taken_for_that_of_the_next_one(address, monkeypatch):
    """The holder may change between the question for the age and the one for the value."""
    ask(address, "SET", KEY, HOLDER)
    payload = ask(address, "DUMP", KEY)
    ask(address, "DEL", KEY)
    ask(address, "RESTORE", KEY, 0, payload, "IDLETIME", 600)
    command = RedisClient.command

    def late(self, *words):
        if words[0] == "GET":
            command(self, "SET", KEY, "vm:2230:11111111")
        return command(self, *words)

    monkeypatch.setattr(RedisClient, "command", late)
    seen = observe(address, KEY)
    assert (seen.value, seen.min_age) == (b"vm:2230:11111111", None)


def test_a_server_that_counts_uses_tells_no_age(address):
    ask(address, "CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    try:
        ask(address, "SET", KEY, HOLDER)
        seen = observe(address, KEY)
        assert (seen.value, seen.min_age) == (HOLDER, None)
    finally:
        ask(address, "CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_a_user_with_few_rights(address):
    ask(address, "SET", KEY, HOLDER)
    ask(address, "ACL", "SETUSER", "few", "on", ">s3cret", "~lock:*", "+get", "+pttl")
    few = RedisAddress(address.host, address.port, username="few", password="s3cret")
    seen = observe(few, KEY)
    assert (seen.value, seen.min_age, seen.replica) == (HOLDER, None, False)
    with pytest.raises(RedisRefused, match="let this user run"):
        compare_and_delete(few, KEY, HOLDER)
    with pytest.raises(RedisRefused, match="let this user run"):
        observe(few, "other")
    assert ask(address, "GET", KEY) == HOLDER
    ask(address, "ACL", "DELUSER", "few")


@pytest.mark.parametrize(
    ("replies", "code"),
    [
        ([b"-ERR unknown command 'HELLO'", b"-ERR unknown command 'OBJECT'", b"-LOADING it is"], "LOADING"),
        ([b"-ERR unknown command 'HELLO'", b"-ERR unknown command 'OBJECT'", b"-MOVED 1 10.0.0.7:6379"], "MOVED"),
        ([b"-NOAUTH HELLO must be called with the client already authenticated"], "NOAUTH"),
        ([b"-DENIED Redis is running in protected mode"], "DENIED"),
    ],
)
def test_a_server_that_refuses_is_no_free_lock(replies, code):
    def answer() -> None:
        connection, _peer = listener.accept()
        with connection:
            for reply in replies:
                connection.recv(1000)
                connection.sendall(reply + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(RedisRefused) as caught:
            observe(RedisAddress("127.0.0.1", listener.getsockname()[1]), KEY, timeout=5)
        thread.join(5)
    assert caught.value.code == code


def test_an_old_server_is_looked_at_all_the_same():
    replies = [b"-ERR unknown command 'HELLO'", b"-ERR no", b"$16\r\n" + HOLDER, b":5000"]

    def answer() -> None:
        connection, _peer = listener.accept()
        with connection:
            for reply in replies:
                connection.recv(1000)
                connection.sendall(reply + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        address = RedisAddress("127.0.0.1", listener.getsockname()[1])
        assert observe(address, KEY) == RedisLock(KEY, address.place, HOLDER, 5.0)
        thread.join(5)


def test_no_lock_is_deleted_under_a_holder_that_lives(address):
    """Some take the lock and give it up, some die with it, and two release what the dead ones left."""
    ended: Set[bytes] = set()
    stolen: List[bytes] = []
    released: List[bytes] = []
    stop = threading.Event()
    deadline = time.monotonic() + 60

    def contend(name: int) -> None:
        rng = random.Random(name)
        with RedisClient(address, timeout=30) as client:
            # Where threads get little of a processor, the releasers come late: as many rounds as they need.
            for number in itertools.count():
                if number >= 400 and (len(released) > 10 or time.monotonic() > deadline):
                    return
                mine = b"vm:%d:%08x" % (name, number)
                if client.command("SET", KEY, mine, "NX", "EX", 60) != b"OK":
                    continue
                if client.command("GET", KEY) != mine:
                    stolen.append(mine)
                if rng.random() < 0.5:
                    ended.add(mine)
                else:
                    compare_and_delete(address, KEY, mine)

    def release() -> None:
        while not stop.is_set():
            # What was seen may be out of date by the time of the deletion.
            value = observe(address, KEY).value
            if value in ended and compare_and_delete(address, KEY, value):
                released.append(value)

    contenders = [threading.Thread(target=contend, args=(name,)) for name in (2, 3)]
    releasers = [threading.Thread(target=release) for _number in range(2)]
    for thread in [*contenders, *releasers]:
        thread.start()
    for thread in contenders:
        thread.join(90)
    stop.set()
    for thread in releasers:
        thread.join(5)
    assert stolen == []
    assert len(released) > 10
    assert len(released) == len(set(released))

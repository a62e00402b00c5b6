# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a recorded process lives, who belongs to it, and what the answers of several hosts come to."""

from __future__ import annotations

import fcntl
import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Iterator, Tuple

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_holder
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_holder import (
    ALIVE,
    DEAD,
    GONE,
    PRIOR_BOOT,
    REUSED,
    UNKNOWN,
    Answer,
    Question,
    ask,
    family,
    parse_answers,
    weigh,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import boot_id, boot_time, read_stat
from hypothesis import given
from hypothesis import strategies as st

HERE = socket.gethostname()
TOKEN = "vm:1993:0ef85993"


def token(pid: int, host: str = HERE) -> str:
    return f"{host}:{pid}:0ef85993"


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait(10)
    return process.pid


@pytest.fixture
def tree() -> Iterator[Tuple[int, int]]:
    """A process and the child that it has started."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import subprocess; p = subprocess.Popen(['sleep', '60']); "
         "print(p.pid, flush=True); p.wait()"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    child = int(process.stdout.readline())
    yield process.pid, child
    os.kill(child, 9)
    process.wait(5)


def test_a_live_process(tree):
    report = ask(Question(token(tree[0]), time.time()), time.time())
    assert (report.verdict, report.process.pid, report.process.ppid) == (ALIVE, tree[0], os.getpid())
    told = report.as_dict()
    assert (told["hostname"], told["boot_id"]) == (HERE, boot_id())
    assert abs(told["boot_time"] - boot_time()) < 1
    assert told["process"]["start_time"] == pytest.approx(read_stat(tree[0]).start_time, abs=0.5)


def test_a_dead_one(dead):
    report = ask(Question(token(dead)), time.time())
    assert (report.verdict, report.process, report.kept) == (DEAD, None, None)


def test_one_that_is_taken_for_dead(tree):
    assert ask(Question(token(tree[0])), time.time(), gone=[tree[0]]).verdict == DEAD


def test_a_number_that_is_used_again(tree):
    started = read_stat(tree[0]).start_time
    assert ask(Question(token(tree[0]), started - 1), time.time()).verdict == ALIVE
    assert ask(Question(token(tree[0]), started - 30), time.time()).verdict in (REUSED, PRIOR_BOOT)
    assert ask(Question(token(tree[0]), boot_time() - 30), time.time()).verdict == PRIOR_BOOT
    assert ask(Question(token(tree[0]), None), time.time()).verdict == ALIVE


@pytest.mark.parametrize("host", [f"{HERE}.example.com", "another-host", "localhost"])
def test_only_the_recorded_host_can_say(dead, host):
    report = ask(Question(token(dead, host)), time.time())
    assert report.verdict == UNKNOWN
    assert host in report.reason


def test_a_host_without_a_name_of_its_own(dead, monkeypatch):
    monkeypatch.setattr(_lock_holder, "hostname", lambda: "localhost")
    assert ask(Question(token(dead, "localhost")), time.time()).verdict == UNKNOWN


@pytest.mark.parametrize("text", ["", "vm", "vm:0:0ef85993", "vm:1:x", "a b:1:0ef85993"])
def test_what_is_no_token(text):
    with pytest.raises(RecoveryError, match="host:pid:8hex"):
        ask(Question(text), time.time())


def test_the_file_is_looked_at_too(tmp_path: pathlib.Path, dead):
    path = tmp_path / "a.lock"
    question = Question(token(dead), time.time(), str(path))
    assert ask(question, time.time()).verdict == UNKNOWN
    path.write_text(f"{token(dead)}\n{time.time()}\n3600\n")
    report = ask(question, time.time())
    assert (report.verdict, report.kept, report.keepers) == (DEAD, False, ())
    with open(path, encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        report = ask(question, time.time())
        assert (report.verdict, report.kept, report.keepers) == (ALIVE, True, (os.getpid(),))
        assert ask(question, time.time(), gone=[os.getpid()]).verdict == DEAD
    path.write_text(f"{token(dead, 'another')}\n{time.time()}\n3600\n")
    assert (ask(question, time.time()).verdict, ask(question, time.time()).kept) == (UNKNOWN, None)


def test_the_family(tree):
    mine = family([tree[0]])
    assert [one.pid for one in mine.processes] == [tree[0]]
    assert [one.pid for one in mine.parents][0] == os.getpid()
    assert [(one.pid, one.comm) for one in mine.children] == [(tree[1], "sleep")]
    assert len(mine.parents) <= 8
    without = family([tree[0]], gone=[tree[1]])
    assert without.children == ()
    assert family([]) == family([2**31 - 1]) == _lock_holder.Family()


def test_a_large_family_is_bounded(monkeypatch):
    me = read_stat(os.getpid())
    many = {
        number: _lock_holder.ProcStat(**{**vars(me), "pid": number, "ppid": number - 1}) for number in range(1, 200)
    }
    monkeypatch.setattr(_lock_holder, "all_stats", lambda: many)
    found = family([100])
    assert [one.pid for one in found.parents] == list(range(99, 91, -1))
    assert [one.pid for one in found.children] == list(range(101, 133))


GOOD = Answer(TOKEN, DEAD, "there is no process 1993", "node-1", "vm", False)


def test_answers():
    assert weigh(TOKEN, "vm", [], file=False) is None
    assert weigh(TOKEN, "vm", [GOOD], file=True) == GOOD
    assert weigh("vm:1993:11111111", "vm", [GOOD], file=False) is None
    for bad in (
        Answer(TOKEN, ALIVE, "lives", "node-2", "vm"),
        Answer(TOKEN, UNKNOWN, "silent", "node-2"),
        Answer(TOKEN, DEAD, "gone", "node-2", "another"),
        Answer(TOKEN, DEAD, "gone", "node-2", "vm.example.com"),
        Answer(TOKEN, DEAD, "gone", "node-2", ""),
    ):
        assert weigh(TOKEN, "vm", [GOOD, bad], file=False).verdict not in GONE
    assert weigh(TOKEN, "localhost", [Answer(TOKEN, DEAD, "", "", "localhost")], file=False).verdict == UNKNOWN
    for kept in (None, True):
        seen = Answer(TOKEN, DEAD, "gone", "node-1", "vm", kept)
        assert weigh(TOKEN, "vm", [seen], file=True).verdict == UNKNOWN
        assert weigh(TOKEN, "vm", [seen], file=False).verdict == DEAD


any_answer = st.builds(
    Answer,
    token=st.sampled_from([TOKEN, "vm:1993:11111111"]),
    verdict=st.sampled_from(_lock_holder.ANSWERS),
    hostname=st.sampled_from(["vm", "", "another", "VM"]),
    kept=st.sampled_from([None, True, False]),
)


@given(st.lists(any_answer, max_size=4), st.booleans())
def test_one_doubt_is_enough(answers, file):
    verdict = weigh(TOKEN, "vm", answers, file)
    if verdict is not None and verdict.verdict in GONE:
        about = [answer for answer in answers if answer.token == TOKEN]
        assert about
        assert all(answer.verdict in GONE and answer.hostname.lower() == "vm" for answer in about)
        assert not file or all(answer.kept is False for answer in about)


def test_answers_that_are_none():
    with pytest.raises(RecoveryError, match="'gone'"):
        parse_answers([{"token": TOKEN, "verdict": "gone"}])
    with pytest.raises(RecoveryError, match="without a token"):
        parse_answers([{"verdict": "dead"}])
    parsed = parse_answers([{"token": TOKEN, "unreachable": True, "kept": "no"}])
    assert parsed == (Answer(TOKEN, UNKNOWN),)

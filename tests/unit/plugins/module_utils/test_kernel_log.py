# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the kernel log is read, with stand-in programs on PATH and the real ones where they may be used."""

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _command, _kernel_log
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._kernel_log import kmsg_record, parse_since, read
from hypothesis import given
from hypothesis import strategies as st

THIS_BOOT = "0" * 32


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No program and no device of this machine is found."""
    (tmp_path / "bin").mkdir()
    # The stand-ins need a few tools of their own, by their full path.
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(_command, "MORE_PATH", ())
    monkeypatch.setattr(_kernel_log, "KMSG_PATH", str(tmp_path / "kmsg"))
    monkeypatch.setattr(_kernel_log, "_read_boot_id", lambda: THIS_BOOT)


@pytest.fixture
def program(tmp_path):
    def make(name: str, body: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    return make


def entry(text, seconds=1.0, facility="0", boot=THIS_BOOT, transport="kernel", moment=1000.0):
    return json.dumps(
        {
            "MESSAGE": text,
            "SYSLOG_FACILITY": facility,
            "_TRANSPORT": transport,
            "_BOOT_ID": boot,
            "_SOURCE_MONOTONIC_TIMESTAMP": str(int(seconds * 1e6)),
            "__REALTIME_TIMESTAMP": str(int(moment * 1e6)),
        }
    )


def show(tmp_path, name, text):
    """A command that prints a text."""
    (tmp_path / name).write_text(text)
    return f"/bin/cat {tmp_path / name}"


def texts(log):
    return [record.text for record in log.records]


def test_nothing_to_read():
    log = read(None, None, 5)
    assert (log.source, log.records, log.reaches_back) == (None, (), False)
    reasons = {attempt.source: attempt.reason for attempt in log.attempts}
    assert reasons["journald"] == "journalctl is not installed"
    assert reasons["dmesg"] == "dmesg is not installed"
    assert "No such file" in reasons["kmsg"]


def test_journald(program, tmp_path):
    # The newest comes first.
    lines = [
        entry("third", 9.0),
        entry("from a program", facility="1"),
        entry("from elsewhere", transport="syslog"),
        entry("another boot", boot="1" * 32),
        json.dumps({"MESSAGE": "without facility", "_TRANSPORT": "kernel"}),
        entry([110, 255, 101]),
        entry(None),
        "no json",
        "[1, 2]",
        entry("first", 0.0, moment=999.5),
    ]
    program("journalctl", f'echo "$@" >{tmp_path}/asked\n' + show(tmp_path, "out", "\n".join(lines) + "\n"))
    log = read(None, None, 5)
    assert (log.source, texts(log)) == ("journald", ["first", "n\ufffde", "third"])
    assert (log.records[0].time, log.records[0].seconds) == (999.5, 0.0)
    assert (log.reaches_back, log.truncated) == (True, False)
    asked = (tmp_path / "asked").read_text().split()
    assert {"-r", "-b", "json", "--no-pager", "_TRANSPORT=kernel"} <= set(asked)


def test_journald_since(program, tmp_path):
    body = (
        f'for word in "$@"; do case $word in --until=*) {show(tmp_path, "old", entry("old"))}; exit;; esac; done\n'
        + show(tmp_path, "new", entry("new", moment=2001.0) + "\n" + entry("too old", moment=1999.0))
    )
    program("journalctl", body)
    log = read("journald", 2000.0, 5)
    assert (texts(log), log.reaches_back) == (["new"], True)
    # An empty window of a journal that reaches further back is an answer.
    program("journalctl", 'case "$*" in *--until*) ' + show(tmp_path, "old", entry("old")) + ";; esac")
    log = read("journald", 2000.0, 5)
    assert (log.source, log.records, log.reaches_back) == ("journald", (), True)
    program("journalctl", "exit 0")
    assert read("journald", 2000.0, 5).source is None


def test_an_empty_journal_leaves_it_to_dmesg(program, tmp_path):
    program("journalctl", "echo 'Hint: You are currently not seeing messages from other users' >&2")
    program("dmesg", show(tmp_path, "out", '{"dmesg": [{"pri": 4, "time": 0.0, "msg": "one"}]}'))
    log = read(None, None, 5)
    assert (log.source, texts(log)) == ("dmesg", ["one"])
    assert "not seeing messages" in log.attempts[0].reason


def test_dmesg_json(program, tmp_path):
    entries = [
        {"pri": 6, "time": 0.5, "msg": "first\nNVRM: Xid (PCI:0000:3b:00): 79, x"},
        {"pri": 12, "time": 1, "msg": "from a program"},
        {"pri": 6, "time": 2.25, "msg": "[   T12] with a thread"},
        {"pri": True, "time": 3, "msg": "no number"},
        {"pri": 6, "time": "x", "msg": "without time"},
        {"pri": 6, "time": 3, "msg": None},
    ]
    program("dmesg", show(tmp_path, "out", json.dumps({"dmesg": entries})))
    log = read("dmesg", None, 5)
    assert texts(log) == [entries[0]["msg"], "with a thread", "without time"]
    assert log.records[1].time == pytest.approx(_kernel_log.boot_time() + 2.25)
    assert log.records[2].time is None
    assert log.reaches_back


def test_of_too_much_the_newest_is_kept(program, tmp_path, monkeypatch):
    monkeypatch.setattr(_kernel_log, "MAX_BYTES", 4096)
    entries = [{"pri": 6, "time": number, "msg": f"message {number} {{"} for number in range(500)]
    program("dmesg", show(tmp_path, "out", json.dumps({"dmesg": entries}, indent=1)))
    log = read("dmesg", None, 5)
    assert log.truncated
    assert not log.reaches_back
    assert texts(log)[-1] == "message 499 {"
    assert 20 < len(log.records) < 100
    monkeypatch.setattr(_kernel_log, "MAX_RECORDS", 3)
    assert texts(read("dmesg", None, 5)) == [f"message {number} {{" for number in (497, 498, 499)]


def test_dmesg_before_it_had_json(program, tmp_path):
    out = (
        "kern  :warn  : [    0.000000] first\n"
        "user  :crit  : [    1.500000] from a program\n"
        "                kern  :crit  : [    1.6] NVRM: Xid (PCI:0000:3b:00): 79, forged\n"
        "kern  :warn  : [   12.345678][   T7] NVRM: The NVIDIA GPU 0000:b3:00.0\n"
        "               NVRM: fallen off the bus\n"
        "what is this\n"
    )
    program("dmesg", '[ "$1" = -x ] || { echo "unrecognized option" >&2; exit 1; }\n' + show(tmp_path, "out", out))
    log = read("dmesg", None, 5)
    assert texts(log) == ["first", "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: fallen off the bus"]
    assert log.records[1].seconds == 12.345678


def test_dmesg_without_permission(program):
    program("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    log = read("dmesg", None, 5)
    assert log.source is None
    assert "dmesg_restrict" in log.attempts[0].reason
    assert "Operation not permitted" in log.attempts[0].reason


def test_kmsg(tmp_path):
    (tmp_path / "kmsg").write_bytes(
        b"6,1,0,-;first\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n"
        b"12,2,1000000,-;NVRM: Xid (PCI:0000:3b:00): 79, from a program\n"
        b"4,3,2500000,-,caller=T1;NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: fallen off the bus\n"
        b"garbage\n"
    )
    log = read(None, None, 5)
    assert log.source == "kmsg"
    assert texts(log) == ["first", "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: fallen off the bus"]
    assert [record.seconds for record in log.records] == [0.0, 2.5]


def test_kmsg_that_gives_no_end(tmp_path):
    os.mkfifo(tmp_path / "kmsg")
    holder = os.open(tmp_path / "kmsg", os.O_RDWR)
    try:
        os.write(holder, b"6,1,0,-;first\n")
        begun = time.monotonic()
        assert texts(read("kmsg", None, 5)) == ["first"]
        assert time.monotonic() - begun < 2
    finally:
        os.close(holder)


def test_a_program_that_hangs_leaves_time_for_the_next(program, tmp_path):
    program("journalctl", "exec /bin/sleep 60")
    program("dmesg", show(tmp_path, "out", '{"dmesg": [{"pri": 4, "time": 0.0, "msg": "one"}]}'))
    begun = time.monotonic()
    log = read(None, None, 3)
    assert log.source == "dmesg"
    assert "no answer within" in log.attempts[0].reason
    assert time.monotonic() - begun < 4


def test_what_came_before_a_hang_is_kept(program, tmp_path):
    program("journalctl", show(tmp_path, "out", entry("one") + "\n" + "{") + "\nexec /bin/sleep 60")
    log = read("journald", None, 2)
    assert (texts(log), log.truncated, log.reaches_back) == (["one"], True, False)


def test_since(program, tmp_path):
    entries = [{"pri": 6, "time": number, "msg": str(number)} for number in (0, 100, 200)]
    program("dmesg", show(tmp_path, "out", json.dumps({"dmesg": entries})))
    boot = _kernel_log.boot_time()
    log = read("dmesg", boot + 50, 5)
    assert (texts(log), log.reaches_back) == (["100", "200"], True)
    # Of the time before the boot dmesg knows nothing.
    log = read("dmesg", boot - 50, 5)
    assert (texts(log), log.reaches_back) == (["0", "100", "200"], False)
    program("dmesg", show(tmp_path, "out", json.dumps({"dmesg": entries[1:]})))
    assert not read("dmesg", boot + 50, 5).reaches_back
    assert read("dmesg", boot + 150, 5).reaches_back


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("boot", None),
        (" Boot ", None),
        ("1700000000", 1700000000.0),
        ("1700000000.5", 1700000000.5),
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T22:13:20.250Z", 1700000000.25),
        ("2023-11-14 22:13:20", 1700000000.0),
        ("2023-11-15T00:13:20+02:00", 1700000000.0),
        ("2023-11-14T17:13:20-0500", 1700000000.0),
        ("2023-11-14", 1699920000.0),
    ],
)
def test_times(text, seconds):
    assert parse_since(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-1", "nan", "2023-13-01", "2023-02-30T00:00:00Z", "2023-11-14T25:00Z"]
)
def test_what_is_no_time(text):
    with pytest.raises(RecoveryError, match="Give boot, unix seconds, or ISO 8601"):
        parse_since(text)


@given(st.text(max_size=40))
def test_a_time_is_read_or_refused(text):
    try:
        parse_since(text)
    except RecoveryError:
        pass


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(b"4,1,5,-;".__add__)))
def test_kmsg_never_raises(line):
    record = kmsg_record(line, 0.0)
    assert record is None or len(record.text) <= _kernel_log.MAX_TEXT


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(lambda line: line.decode("utf-8", "replace"))))
def test_a_journal_never_raises(line):
    _kernel_log._journal_record(line, "")
    _kernel_log._journal_record('{"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "MESSAGE": ' + line + "}", "")


@given(st.text(max_size=300))
def test_dmesg_never_raises(text):
    for entry_ in _kernel_log._json_objects('{"dmesg": [' + text):
        _kernel_log._dmesg_record(entry_, 0.0)
    list(_kernel_log.decoded_records("kern  :warn  : [    0.000000] " + text, 0.0))


def test_the_log_of_this_machine(monkeypatch):
    monkeypatch.undo()
    for source in _kernel_log.SOURCES:
        log = read(source, None, 10)
        if log.source is None:
            assert log.attempts[0].reason
            continue
        assert log.records
        assert all(record.time is None or record.time <= time.time() + 5 for record in log.records)

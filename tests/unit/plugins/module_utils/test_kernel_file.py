# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel messages from files: every form of a line, the boots in them, and what is no message of the kernel."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_events, _kernel_file, _kernel_log
from hypothesis import given
from hypothesis import strategies as st

XID = "NVRM: Xid (PCI:0000:0a:00): 79, pid=4711, name=python, GPU has fallen off the bus."
NOW = time.time()
BOOT = NOW - 3600


@pytest.fixture(autouse=True)
def an_hour_ago(monkeypatch):
    monkeypatch.setattr(_kernel_log, "boot_time", lambda: BOOT)


@pytest.fixture
def log(tmp_path):
    def make(*lines: str, since=None, timeout: float = 5.0):
        path = tmp_path / "kern.log"
        path.write_text("".join(f"{line}\n" for line in lines))
        return _kernel_file.read(str(path), since, timeout)

    return make


def shown(form: str, moment: float, text: str, seconds=None) -> str:
    """A line in one of the forms, of a moment."""
    stamp = "" if seconds is None else f"[{seconds:12.6f}] "
    local, utc = datetime.datetime.fromtimestamp(moment), datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return {
        "classic": f"{local:%b} {local.day:2d} {local:%H:%M:%S} node-1 kernel: {stamp}{text}",
        "iso": f"{utc:%Y-%m-%dT%H:%M:%S.%f}+00:00 node-1 kernel: {stamp}{text}",
        "short-iso": f"{utc:%Y-%m-%dT%H:%M:%S}+0000 node-1 kernel: {stamp}{text}",
        "zulu": f"{utc:%Y-%m-%dT%H:%M:%S}Z node-1 kernel: {stamp}{text}",
        "iso without zone": f"{local:%Y-%m-%dT%H:%M:%S.%f} node-1 kernel: {stamp}{text}",
        "dmesg -T": f"[{local:%a %b} {local.day:2d} {local:%H:%M:%S %Y}] {text}",
        "dmesg iso": f"{utc:%Y-%m-%dT%H:%M:%S,%f}+00:00 {text}",
        "dmesg": f"[{moment - BOOT:12.6f}] {text}",
        "dmesg -r": f"<3>[{moment - BOOT:12.6f}] {text}",
        "dmesg -x": f"kern  :err   : [{moment - BOOT:12.6f}] {text}",
        "with thread": f"[{moment - BOOT:12.6f}][  T123] {text}",
    }[form]


FORMS = ("classic", "iso", "short-iso", "zulu", "iso without zone", "dmesg -T", "dmesg iso", "dmesg", "dmesg -r",
         "dmesg -x", "with thread")  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(log, form):
    found = log(shown(form, BOOT + 1, "first"), shown(form, NOW - 60, XID))
    assert found.source == "file"
    assert [record.text for record in found.records] == ["first", XID]
    assert found.records[1].time == pytest.approx(NOW - 60, abs=1.01)
    assert found.records[1].this_boot


@pytest.mark.parametrize("form", ["classic", "iso", "short-iso"])
def test_the_stamp_of_the_kernel_is_taken_off(log, form):
    (record,) = log(shown(form, NOW - 60, XID, seconds=3540.5)).records
    assert (record.text, record.seconds) == (XID, 3540.5)


@given(st.sampled_from(FORMS), st.floats(BOOT + 1, NOW))
def test_times_come_back(form, moment):
    record = _kernel_file._line(shown(form, moment, XID), BOOT, NOW)
    assert record is not None
    assert record.text == XID
    assert abs(record.time - moment) <= 1.01


@given(st.text(max_size=300))
def test_no_text_is_too_much(text):
    record = _kernel_file._line(text, BOOT, NOW)
    assert record is None or len(record.text) <= _kernel_log.MAX_TEXT


@given(st.sampled_from(FORMS), st.text(max_size=60), st.integers(0, 80))
def test_damaged_lines_are_no_error(form, junk, at):
    line = shown(form, NOW, XID)
    _kernel_file._line(line[:at] + junk + line[at:], BOOT, NOW)


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 28 05:16:38 node-1 sshd[812]: NVRM: {XID}",
        f"Nov 28 05:16:38 node-1 python kernel: {XID}",
        f"Nov 31 05:16:38 node-1 kernel: {XID}",
        f"Nov 28 25:16:38 node-1 kernel: {XID}",
        f"2026-02-30T05:16:38+00:00 node-1 kernel: {XID}",
        f"2026-11-28T05:16:38+00:00 node-1 rsyslogd: {XID}",
        f"user  :err   : [   12.000000] {XID}",
        f"<11>[   12.000000] {XID}",
        XID,
        f" {XID}",
        "",
    ],
)
def test_what_is_no_message_of_the_kernel_is_passed_over(log, line):
    found = log(line, shown("iso", NOW, "real"))
    assert [record.text for record in found.records] == ["real"]


def test_a_date_without_year_is_the_last_one():
    parts = ("Dec", "31", "23", "59", "59")
    january = datetime.datetime(2027, 1, 1, 0, 10).timestamp()
    assert _kernel_file._of_late(parts, january) == datetime.datetime(2026, 12, 31, 23, 59, 59).timestamp()
    # A clock that is a little behind makes no line a year old.
    december = datetime.datetime(2026, 12, 31, 20, 0).timestamp()
    first = ("Jan", "1", "00", "10", "00")
    assert _kernel_file._of_late(first, december) == datetime.datetime(2027, 1, 1, 0, 10).timestamp()
    leap = ("Feb", "29", "12", "00", "00")
    assert _kernel_file._of_late(leap, january) == datetime.datetime(2024, 2, 29, 12).timestamp()


LINUX = "Linux version 6.8.0-45-generic (buildd@lcy02)"


@pytest.mark.parametrize("form", ["classic", "iso"])
def test_an_earlier_boot_does_not_count(log, form):
    lines = (
        shown(form, BOOT - 7200, LINUX, seconds=0.0),
        shown(form, BOOT - 600, XID, seconds=6600.0),
        shown(form, BOOT, LINUX, seconds=0.0),
        shown(form, BOOT + 30, "now", seconds=30.0),
    )
    found = log(*lines)
    assert [record.text for record in found.records] == [LINUX, "now"]
    assert (found.reaches_back, found.truncated) == (True, False)
    earlier = log(*lines, since=BOOT - 3600)
    assert XID in [record.text for record in earlier.records]
    assert earlier.reaches_back


def test_saved_dmesg_of_two_boots_without_times(log):
    found = log(f"[    0.000000] {LINUX}", f"[   10.000000] {XID}", f"[    0.000000] {LINUX}", "[    5.000000] now")
    assert [record.text for record in found.records] == [LINUX, "now"]


def test_more_seconds_than_the_node_is_up_are_of_another_boot(log):
    found = log(f"[90000.000000] {XID}", "[  100.000000] now")
    assert [record.text for record in found.records] == ["now"]


def test_a_log_that_begins_late_does_not_reach_back(log):
    assert not log(shown("iso", NOW - 60, "late", seconds=3540.0)).reaches_back
    report = _kernel_events.report(log(shown("iso", NOW - 60, "late", seconds=3540.0)))
    assert (report.verdict, report.complete) == ("unknown", False)
    report = _kernel_events.report(log(shown("iso", BOOT - 60, "early"), shown("iso", NOW - 60, "late")))
    assert (report.verdict, report.complete) == ("clean", True)


def test_a_file_of_an_earlier_boot_alone_is_not_of_this_one(log):
    found = log(shown("iso", BOOT - 7200, LINUX, seconds=0.0), shown("iso", BOOT - 600, XID, seconds=6600.0))
    assert found.records == ()


def test_only_the_end_of_a_long_file_is_read(log, monkeypatch):
    monkeypatch.setattr(_kernel_log, "MAX_BYTES", 4000)
    monkeypatch.setattr(_kernel_file, "CHUNK", 333)
    lines = [shown("iso", NOW - 500 + number, f"line {number} ü") for number in range(500)]
    found = log(*lines)
    numbers = [int(record.text.split()[1]) for record in found.records]
    assert numbers == list(range(numbers[0], 500))
    assert 30 < len(numbers) < 80
    assert (found.reaches_back, found.truncated) == (False, True)
    # What was left out is older than what was asked for.
    found = log(*lines, since=NOW - 10.5)
    assert (len(found.records), found.reaches_back, found.truncated) == (10, True, False)


def test_without_time_nothing_is_read_and_nothing_is_known(log):
    found = log(shown("iso", NOW, XID), timeout=0.0)
    assert found.source is None


@pytest.mark.parametrize("make", ["absent", "directory", "pipe", "empty", "binary"])
def test_what_cannot_be_read_has_a_reason(tmp_path, make):
    path = tmp_path / "kern.log"
    if make == "directory":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    elif make != "absent":
        path.write_bytes(b"" if make == "empty" else bytes(range(256)) * 50)
    begun = time.monotonic()
    found = _kernel_file.read(str(path), None, 5.0)
    assert time.monotonic() - begun < 2
    assert (found.source, found.records, found.reaches_back) == (None, (), False)
    assert str(path) in found.attempts[0].reason
    assert _kernel_events.report(found).verdict == "unknown"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "kern.log"
    path.write_text(XID)
    path.chmod(0)
    assert "may not be read by uid" in _kernel_file.read(str(path), None, 5.0).attempts[0].reason


def test_the_real_dmesg_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.undo()
    program = shutil.which("dmesg")
    done = subprocess.run([program or "false"], capture_output=True, text=True, check=False)
    if program is None or done.returncode or not done.stdout.strip():
        pytest.skip("dmesg may not be used here")
    for options in ((), ("-T",), ("-x",), ("-r",), ("--time-format", "iso")):
        saved = subprocess.run([program, *options], capture_output=True, text=True, check=True).stdout
        (tmp_path / "saved").write_text(saved)
        found = _kernel_file.read(str(tmp_path / "saved"), None, 5.0)
        assert found.source == "file", options
        assert found.records, options


def test_events_of_a_file(log):
    found = log(shown("classic", BOOT, LINUX, 0.0), shown("classic", NOW - 9, XID, 3591.0))
    report = _kernel_events.report(found).as_dict()
    assert (report["source"], report["verdict"], report["worst_action"]) == ("file", "error", "reboot")
    assert (report["events"][0]["code"], report["events"][0]["pid"]) == (79, 4711)

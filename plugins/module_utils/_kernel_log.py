# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the kernel log from whatever shows it: journald, dmesg or /dev/kmsg.

Any process with the right to do so may write into the kernel log, but the kernel gives what comes from there another
facility than its own. Only records of the kernel's own facility are read. Time, bytes and lines are bounded, and where
there is too much the newest is kept. This util is private to the collection.
"""

from __future__ import annotations

import calendar
import datetime
import json
import math
import os
import re
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _command, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

JOURNALD = "journald"
DMESG = "dmesg"
KMSG = "kmsg"
SOURCES = (JOURNALD, DMESG, KMSG)
BOOT = "boot"
KMSG_PATH = "/dev/kmsg"

MAX_BYTES = 16 << 20
MAX_RECORDS = 50_000
MAX_TEXT = 2000
MAX_REASON = 300
# What the first source may use of the time, so that one that hangs leaves some for the next.
SHARE = 0.6
# The kernel writes its first line at 0.
FIRST_LINE = 1.0

_FIELDS = "MESSAGE,SYSLOG_FACILITY,_TRANSPORT,_SOURCE_MONOTONIC_TIMESTAMP,_BOOT_ID"
_DECODED = re.compile(
    r"\A(\w{1,10}) {0,8}:(\w{1,10}) {0,8}: \[ {0,12}(\d{1,12})\.(\d{1,9})\](?:\[ {0,12}[TC]\d{1,12}\])? (.*)\Z",
    re.ASCII,
)
_CALLER = re.compile(r"\A\[ {0,12}[TC]\d{1,12}\] ", re.ASCII)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})", re.ASCII)
_EPOCH = re.compile(r"\A\d{1,12}(?:\.\d{1,9})?\Z", re.ASCII)
_DATE = re.compile(
    r"\A(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?\s?(?:(Z)|([+-])(\d\d):?(\d\d))?\Z",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Record:
    """One message of the kernel itself. Times are unix seconds and seconds since boot; None where they are not known.

    Seconds since boot do not count the time that the machine was suspended. ``this_boot`` is False for an earlier boot.
    """

    text: str
    time: Optional[float]
    seconds: Optional[float]
    this_boot: bool = True


@dataclass(frozen=True)
class Attempt:
    """A source that was asked, and why it could not be used; None where it could."""

    source: str
    reason: Optional[str]

    def as_dict(self) -> Dict[str, Any]:
        return {"source": self.source, "reason": self.reason}


@dataclass(frozen=True)
class KernelLog:
    """The records, oldest first, and where they are from. ``source`` is None when the log could not be read at all.

    ``reaches_back`` says whether the log begins no later than what was asked for; ``truncated`` whether a limit of
    time, bytes or lines cut it short.
    """

    source: Optional[str]
    records: Tuple[Record, ...]
    attempts: Tuple[Attempt, ...]
    reaches_back: bool
    truncated: bool


@dataclass(frozen=True)
class _Read:
    """What one source gave."""

    records: Tuple[Record, ...] = ()
    reason: Optional[str] = None
    truncated: bool = False
    # None: to be told from the first record.
    reaches_back: Optional[bool] = None


def parse_since(text: str) -> Optional[float]:
    """``boot`` (None), unix seconds, or ISO 8601, in UTC unless it names a zone.

    :returns: unix seconds
    :raises RecoveryError: it is none of these
    """
    text = text.strip()
    if text.lower() == BOOT:
        return None
    if _EPOCH.match(text):
        return float(text)
    match = _DATE.match(text)
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
        moment = datetime.datetime(year, month, day, hour, minute, second)
        offset = int(match.group(10) or 0) * 3600 + int(match.group(11) or 0) * 60
        seconds = calendar.timegm(moment.timetuple()) + float(f"0.{match.group(7) or 0}")
        return seconds - (-offset if match.group(9) == "-" else offset)
    except ValueError:
        raise RecoveryError(
            f"since is {text[:60]!r}, which is no time. "
            "Give boot, unix seconds, or ISO 8601 such as 2026-03-01T12:00:00Z."
        ) from None


def read(source: Optional[str], since: Optional[float], timeout: float) -> KernelLog:
    """Read the log from one source, or from the first of them that works.

    :param source: None for the first that works
    :param since: unix seconds; None for all since boot
    :param timeout: seconds for all sources together
    """
    end = time.monotonic() + timeout
    readers = {JOURNALD: _read_journald, DMESG: _read_dmesg, KMSG: _read_kmsg}
    wanted = SOURCES if source is None else (source,)
    attempts: List[Attempt] = []
    for position, name in enumerate(wanted):
        left = end - time.monotonic()
        last = position == len(wanted) - 1
        if left <= 0:
            attempts.append(Attempt(name, "no time was left"))
            continue
        found = readers[name](since, left if last else left * SHARE)
        attempts.append(Attempt(name, found.reason))
        if found.reason is None:
            reaches = _reaches_back(found.records, since) if found.reaches_back is None else found.reaches_back
            records = tuple(record for record in found.records if _is_recent(record, since))
            return KernelLog(name, records, tuple(attempts), reaches and not found.truncated, found.truncated)
    return KernelLog(None, (), tuple(attempts), False, False)


def boot_time() -> float:
    """When this machine was started, in unix seconds."""
    match = re.search(r"^btime (\d{1,12})$", _proc.read_text("/proc/stat"), re.MULTILINE)
    return float(match.group(1)) if match else _proc.boot_time()


def _is_recent(record: Record, since: Optional[float]) -> bool:
    if since is None:
        return record.this_boot
    # What has no time may be recent.
    return record.time is None or record.time >= since


def _reaches_back(records: Sequence[Record], since: Optional[float]) -> bool:
    """Whether the oldest record is the first of this boot, or from before what was asked for."""
    first = next((record for record in records if record.seconds is not None), None)
    if first is None or first.seconds is None:
        return False
    if since is not None and first.time is not None and first.time <= since:
        return True
    return first.seconds < FIRST_LINE and (since is None or since >= boot_time())


# journald


def _read_journald(since: Optional[float], timeout: float) -> _Read:
    end = time.monotonic() + timeout
    window = ["-b"] if since is None else [f"--since=@{int(since)}"]
    # The newest first, so that whatever limit is reached leaves out the oldest.
    common = ["-q", "-o", "json", "--no-pager", "-r", f"--output-fields={_FIELDS}"]
    ran = _run("journalctl", [*common, "-n", str(MAX_RECORDS), *window, "_TRANSPORT=kernel"], timeout * 0.8)
    if ran.reason is not None and not ran.output:
        return _Read(reason=ran.reason)
    lines = ran.output.split("\n")
    if ran.truncated:
        lines = lines[:-1]
    this_boot = _read_boot_id()
    records = [record for record in (_journal_record(line, this_boot) for line in lines) if record is not None]
    records.reverse()
    reaches: Optional[bool] = None
    if since is not None:
        older = [*common, "-n", "1", f"--until=@{int(since)}", "_TRANSPORT=kernel"]
        answer = _run("journalctl", older, max(0.1, end - time.monotonic()))
        reaches = _journal_record(answer.output.split("\n")[0], this_boot) is not None
    if not records and not reaches:
        return _Read(reason=ran.reason or ran.hint or "the journal has no messages of the kernel")
    full = len(lines) > MAX_RECORDS
    return _Read(tuple(records), None, ran.truncated or full, reaches)


def _read_boot_id() -> str:
    try:
        return _proc.boot_id().replace("-", "")
    except RecoveryError:
        return ""


def _journal_record(line: str, this_boot: str) -> Optional[Record]:
    """One entry; None unless it is from the kernel itself."""
    entry = _load(line)
    if not isinstance(entry, dict) or entry.get("_TRANSPORT") != "kernel" or entry.get("SYSLOG_FACILITY") != "0":
        return None
    text = entry.get("MESSAGE")
    if isinstance(text, list):
        # What is not UTF-8 comes as numbers.
        text = bytes(byte for byte in text if isinstance(byte, int) and 0 <= byte < 256).decode("utf-8", "replace")
    if not isinstance(text, str):
        return None
    moment = _micros(entry.get("__REALTIME_TIMESTAMP"))
    seconds = _micros(entry.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    return Record(text[:MAX_TEXT], moment, seconds, this_boot in ("", entry.get("_BOOT_ID")))


def _micros(value: Any) -> Optional[float]:
    return int(value) / 1e6 if isinstance(value, str) and re.match(r"\A\d{1,18}\Z", value, re.ASCII) else None


# dmesg


def _read_dmesg(since: Optional[float], timeout: float) -> _Read:
    end = time.monotonic() + timeout
    boot = boot_time()
    ran = _run("dmesg", ["--json"], timeout * SHARE, newest=True)
    if ran.reason is None:
        records = [_dmesg_record(entry, boot) for entry in _json_objects(ran.output)]
    elif ran.ended:
        # Before util-linux 2.38 there is only text; -x names the facility.
        ran = _run("dmesg", ["-x"], max(0.1, end - time.monotonic()), newest=True)
        if ran.reason is not None:
            return _Read(reason=ran.reason)
        records = list(decoded_records(ran.output, boot))
    else:
        return _Read(reason=ran.reason)
    if not records:
        return _Read(reason=ran.hint or "dmesg wrote nothing that could be read")
    own = [record for record in records[-MAX_RECORDS:] if record is not None]
    return _Read(tuple(own), None, ran.truncated or len(records) > MAX_RECORDS)


def _dmesg_record(entry: Any, boot: float) -> Optional[Record]:
    """One object of ``dmesg --json``; None unless it is from the kernel itself."""
    pri, seconds, text = entry.get("pri"), entry.get("time"), entry.get("msg")
    if not isinstance(pri, int) or isinstance(pri, bool) or pri >> 3 != 0 or not isinstance(text, str):
        return None
    known = type(seconds) in (int, float) and math.isfinite(seconds) and 0 <= seconds < 1e12
    return _made_record(text, float(seconds) if known else None, boot)


def _json_objects(text: str) -> Iterable[Dict[str, Any]]:
    """The messages in the output of ``dmesg --json``, also where its beginning is missing."""
    decoder = json.JSONDecoder()
    position = text.find("{")
    while position >= 0:
        try:
            value, after = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            # The outermost object of an output without end, or the rest of a message.
            position = text.find("{", position + 1)
            continue
        entries = value.get("dmesg") if isinstance(value.get("dmesg"), list) else [value]
        yield from (entry for entry in entries if isinstance(entry, dict) and "msg" in entry)
        position = text.find("{", after)


def decoded_records(text: str, boot: float) -> Iterable[Optional[Record]]:
    """The messages in the output of ``dmesg -x``; None for each that is not from the kernel itself.

    The further lines of a message are indented, and so cannot be taken for messages of their own.
    """
    head: Optional[Tuple[bool, float, List[str]]] = None
    for line in text.split("\n"):
        match = _DECODED.match(line)
        if match is None:
            if head is not None and line.startswith(" ") and len(head[2]) < 20:
                head[2].append(line.strip())
            continue
        if head is not None:
            yield _made_record("\n".join(head[2]), head[1], boot) if head[0] else None
        facility, _level, whole, part, message = match.groups()
        head = facility == "kern", float(f"{whole}.{part}"), [message]
    if head is not None:
        yield _made_record("\n".join(head[2]), head[1], boot) if head[0] else None


def _made_record(text: str, seconds: Optional[float], boot: float) -> Record:
    # A kernel may be built to name the thread that wrote.
    text = text[: MAX_TEXT + 40]
    caller = _CALLER.match(text)
    text = text[caller.end() if caller else 0 :]
    return Record(text[:MAX_TEXT], None if seconds is None else boot + seconds, seconds)


# /dev/kmsg


def _read_kmsg(since: Optional[float], timeout: float) -> _Read:
    end = time.monotonic() + timeout
    boot = boot_time()
    try:
        handle = os.open(KMSG_PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        return _Read(reason=_why(KMSG_PATH, exc))
    records: Deque[Record] = deque(maxlen=MAX_RECORDS)
    seen = size = 0
    truncated = False
    try:
        while True:
            if time.monotonic() > end or size > MAX_BYTES:
                truncated = True
                break
            try:
                chunk = os.read(handle, 16384)
            except BrokenPipeError:
                # The kernel has written over the record that was to be read next.
                continue
            except BlockingIOError:
                break
            if not chunk:
                break
            size += len(chunk)
            # A record has one read; a file or a pipe in its place may give several at once.
            for line in chunk.split(b"\n"):
                record = kmsg_record(line, boot)
                if record is not None:
                    seen += 1
                    records.append(record)
    except OSError as exc:
        return _Read(reason=_why(KMSG_PATH, exc))
    finally:
        os.close(handle)
    if not records:
        return _Read(reason=f"{KMSG_PATH} has no messages of the kernel")
    return _Read(tuple(records), None, truncated or seen > MAX_RECORDS)


def kmsg_record(line: bytes, boot: float) -> Optional[Record]:
    """One record of /dev/kmsg; None unless it is from the kernel itself."""
    head, separator, text = line.partition(b";")
    fields = head.split(b",")
    if not separator or len(fields) < 4 or not all(re.match(rb"\A\d{1,18}\Z", field) for field in fields[:3]):
        return None
    if int(fields[0]) >> 3 != 0:
        return None
    # Control characters, and with them newlines, come escaped.
    words = _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), text[: 4 * MAX_TEXT].decode("utf-8", "replace"))
    return _made_record(words, int(fields[2]) / 1e6, boot)


def _load(line: str) -> Any:
    try:
        return json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        return None


def _why(path: str, exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return (
            f"{path} may not be read by uid {os.geteuid()} (kernel.dmesg_restrict, or a container without the right to)"
        )
    return f"{path}: {exc.strerror or exc}"


# Programs


@dataclass(frozen=True)
class _Ran:
    """What a program wrote. ``reason`` is why that is not usable; ``ended`` is False when it was killed or none."""

    output: str
    ended: bool
    reason: Optional[str]
    hint: Optional[str] = None
    truncated: bool = False


def _run(name: str, arguments: Sequence[str], timeout: float, newest: bool = False) -> _Ran:
    """A program of the node and why it failed, in words; ``newest`` keeps the end of too much output."""
    path = _command.find(name)
    if path is None:
        return _Ran("", False, f"{name} is not installed")
    environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    try:
        answer = _command.run([path, *arguments], timeout, environment=environment, most=MAX_BYTES, newest=newest)
    except RecoveryError as exc:
        return _Ran("", False, str(exc))
    words = " ".join(answer.errors.split())[:MAX_REASON] or None
    reason = None
    if answer.hung:
        reason = f"{name} gave no answer within {timeout:.1f} s"
    elif answer.code != 0:
        refused = words is not None and ("ermission" in words or "not permitted" in words)
        why = "no permission (kernel.dmesg_restrict, or a group is missing): " if refused else ""
        reason = f"{name} failed with exit code {answer.code}: {why}{words or 'it wrote nothing'}"[:MAX_REASON]
    return _Ran(answer.output, not answer.hung, reason, words, answer.cut or answer.hung)

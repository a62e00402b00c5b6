# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the kernel log from a file: what syslog keeps of it, or the saved output of dmesg or journalctl.

A file says less than the kernel: classic lines have no year, and nothing tells the boots apart but times and the lines
with which a boot begins. What may be of this boot counts as such. This util is private to the collection.
"""

from __future__ import annotations

import datetime
import os
import re
import stat
import time
from typing import List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_log
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._kernel_log import Attempt, KernelLog, Record

FILE = "file"
CHUNK = 1 << 20
MAX_LINE = 8192
# What a line may be dated before the boot, or after now, and still be of this boot: clocks are set, times are rounded.
SLACK = 2.0
DAY = 86400.0

_PRIORITY = re.compile(r"\A<(\d{1,3})>", re.ASCII)
_DECODED = re.compile(r"\A(\w{1,10}) {0,8}:\w{1,10} {0,8}: (?=\[)", re.ASCII)
_STAMP = re.compile(r"\A\[ {0,12}(\d{1,12})\.(\d{1,9})\](?:\[ {0,12}[TC]\d{1,12}\])? ?", re.ASCII)
_SYSLOG = re.compile(r"\A(?:\S{1,255} )?kernel: ?", re.ASCII)
_CLASSIC = re.compile(r"\A([A-Z][a-z][a-z]) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))? ", re.ASCII)
_CTIME = re.compile(r"\A\[[A-Z][a-z][a-z] ([A-Z][a-z][a-z]) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})\] ?", re.ASCII)
_ISO = re.compile(
    r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:([.,])\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?(?= )", re.ASCII | re.IGNORECASE
)
_ZONE = re.compile(r"(?:Z|[+-]\d\d:?\d\d)\Z", re.IGNORECASE)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# The kernel begins with this, and with it begins a boot.
_BOOT = "Linux version "


def read(path: str, since: Optional[float], timeout: float) -> KernelLog:
    """Read the newest part of a file.

    :param since: unix seconds; None for all since boot
    :param timeout: seconds
    """
    end = time.monotonic() + timeout
    try:
        text, cut = _read_end(path, end)
    except OSError as exc:
        return _unread(_why(path, exc))
    if text is None:
        return _unread(f"{path} is no regular file")
    boot, now = _kernel_log.boot_time(), time.time()
    found = [line for line in (_line(line, boot, now) for line in text.split("\n")) if line is not None]
    if not found:
        return _unread(f"{path} has no messages of the kernel")
    cut = cut or len(found) > _kernel_log.MAX_RECORDS
    records, reaches_back = _dated(found[-_kernel_log.MAX_RECORDS :], boot, now, since)
    return KernelLog(FILE, records, (Attempt(FILE, None),), reaches_back, cut and not reaches_back)


def _unread(reason: str) -> KernelLog:
    return KernelLog(None, (), (Attempt(FILE, reason),), False, False)


def _why(path: str, exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return f"{path} may not be read by uid {os.geteuid()}; often the group adm may"
    return f"{path}: {exc.strerror or exc}"


def _read_end(path: str, end: float) -> Tuple[Optional[str], bool]:
    """The end of a file, whole lines only, and whether the beginning was left out; None where it is no file."""
    # What is no file is not waited for.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            return None, False
        parts: List[bytes] = []
        position = info.st_size
        least = max(0, info.st_size - _kernel_log.MAX_BYTES)
        # Backwards, so that the newest is there when the time is over.
        while position > least and time.monotonic() < end:
            begin = max(least, position - CHUNK)
            parts.append(os.pread(handle, position - begin, begin))
            position = begin
    finally:
        os.close(handle)
    data = b"".join(reversed(parts))
    if position > 0:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace"), position > 0


def _line(line: str, boot: float, now: float) -> Optional[Record]:
    """One line; None unless it is a message of the kernel in one of the known forms."""
    line = line[:MAX_LINE].rstrip("\r")
    priority = _PRIORITY.match(line)
    if priority:
        if int(priority.group(1)) >> 3 != 0:
            return None
        line = line[priority.end() :]
    decoded = _DECODED.match(line)
    if decoded:
        if decoded.group(1) != "kern":
            return None
        line = line[decoded.end() :]
    moment, rest = _moment(line, now)
    if moment is None and _STAMP.match(line) is None:
        return None
    stamp = _STAMP.match(rest)
    seconds = float(f"{stamp.group(1)}.{stamp.group(2)}") if stamp else None
    if moment is None and seconds is not None:
        moment = boot + seconds
    text = rest[stamp.end() :] if stamp else rest
    return Record(text[: _kernel_log.MAX_TEXT], moment, seconds)


def _moment(line: str, now: float) -> Tuple[Optional[float], str]:
    """When the line was written, and what the kernel said; None where no time stands there, or a program wrote it."""
    match = _ISO.match(line)
    if match:
        # With a comma it is from dmesg, which shows nobody but the kernel; all others name host and program.
        return _after(line[match.end() + 1 :], _iso(match.group(0)), match.group(1) == ",")
    match = _CTIME.match(line)
    if match:
        month, day, hour, minute, second, year = match.groups()
        return _after(line[match.end() :], _local(int(year), month, day, hour, minute, second), True)
    match = _CLASSIC.match(line)
    if match:
        return _after(line[match.end() :], _of_late(match.groups()[:5], now), False)
    return None, line


def _after(rest: str, moment: Optional[float], bare: bool) -> Tuple[Optional[float], str]:
    if moment is None:
        return None, ""
    tag = _SYSLOG.match(rest)
    if tag and not bare:
        return moment, rest[tag.end() :]
    return (moment, rest) if bare else (None, "")


def _iso(text: str) -> Optional[float]:
    """ISO 8601; without a zone it is the local time."""
    try:
        if _ZONE.search(text[10:]):
            return _kernel_log.parse_since(text)
        whole = datetime.datetime.strptime(text[:19].upper(), "%Y-%m-%dT%H:%M:%S")
        return whole.timestamp() + float(f"0.{text[20:] or 0}")
    except (RecoveryError, ValueError, OverflowError, OSError):
        return None


def _of_late(parts: Tuple[str, ...], now: float) -> Optional[float]:
    """A time without its year: the last such time, as no log is of the future."""
    try:
        this_year = datetime.datetime.fromtimestamp(now).year
    except (ValueError, OverflowError, OSError):
        return None
    # As far back as the last 29 February may be.
    for year in range(this_year + 1, this_year - 8, -1):
        moment = _local(year, *parts)
        if moment is not None and moment <= now + DAY:
            return moment
    return None


def _local(year: int, month: str, day: str, hour: str, minute: str, second: str) -> Optional[float]:
    try:
        # A leap second counts as the one before.
        clock = (int(hour), int(minute), min(59, int(second)))
        return datetime.datetime(year, _MONTHS.index(month) + 1, int(day), *clock).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _dated(found: List[Record], boot: float, now: float, since: Optional[float]) -> Tuple[Tuple[Record, ...], bool]:
    """The wanted records, marked by their boot, and whether the file begins no later than what was asked for."""
    last_boot = max((at for at, record in enumerate(found) if _begins_boot(record)), default=0)
    records = []
    for at, record in enumerate(found):
        of_before = record.time is not None and record.time < boot - SLACK
        # No message of this boot is older than the boot.
        of_another = record.seconds is not None and record.seconds > now - boot + SLACK
        this_boot = at >= last_boot and not of_before and not of_another
        records.append(Record(record.text, record.time, record.seconds, this_boot))
    start = boot if since is None else since
    first = next((record.time for record in records if record.time is not None), None)
    older = first is not None and first <= start - (SLACK if since is None else 0.0)
    whole = any(_begins_boot(record) and record.this_boot for record in records)
    reaches_back = older or (whole and start >= boot - SLACK)
    wanted = [record for record in records if (record.this_boot if since is None else (record.time or since) >= since)]
    return tuple(wanted), reaches_back


def _begins_boot(record: Record) -> bool:
    return record.text.startswith(_BOOT) and (record.seconds is None or record.seconds < _kernel_log.FIRST_LINE)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes as /proc shows them, and signals that cannot hit a process that reused a number."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import time
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Tuple

PROC = pathlib.Path("/proc")
# Seconds that a process may stay in uninterruptible sleep before it is taken as it is.
SETTLE = 0.3


@dataclass(frozen=True)
class Mark:
    """A process by number and start time, which together are never used twice between two boots."""

    pid: int
    start_ticks: int


@dataclass(frozen=True)
class Process:
    """One process. ``pid`` and ``ppid`` are as its node sees them, ``mark`` is as the machine sees it."""

    pid: int
    ppid: int
    group: int
    state: str
    start_ticks: int
    tty: int
    argv: Tuple[str, ...]
    mark: Mark

    def as_dict(self) -> Dict[str, object]:
        return {"pid": self.pid, "ppid": self.ppid, "start_ticks": self.start_ticks, "argv": list(self.argv)}


def pids(proc: pathlib.Path = PROC) -> List[int]:
    """The process numbers below a mounted proc."""
    try:
        return sorted(int(name) for name in os.listdir(proc) if name.isdigit())
    except OSError:
        return []


def read(pid: int, proc: pathlib.Path = PROC, host_pid: Optional[int] = None) -> Optional[Process]:
    """One process, or None when it is gone."""
    process = _read(pid, proc, host_pid)
    # A trainer that writes to the disk is in uninterruptible sleep for a moment, and has no arguments then.
    end = time.monotonic() + SETTLE
    while process is not None and process.state == "D" and time.monotonic() < end:
        time.sleep(0.005)
        process = _read(pid, proc, host_pid)
    return process


def _read(pid: int, proc: pathlib.Path, host_pid: Optional[int]) -> Optional[Process]:
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
        # The name may hold blanks and brackets; the last bracket ends it.
        fields = stat[stat.rindex(")") + 2 :].split()
        state, start_ticks = fields[0], int(fields[19])
        # The argument list of a process in uninterruptible sleep may block its reader.
        raw = b"" if state == "D" else (proc / str(pid) / "cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return None
    argv = tuple(part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0")) if raw else ()
    mark = Mark(pid if host_pid is None else host_pid, start_ticks)
    return Process(pid, int(fields[1]), int(fields[2]), state, start_ticks, int(fields[4]), argv, mark)


def mark_of(pid: int) -> Optional[Mark]:
    """The mark of a process that lives now."""
    process = read(pid)
    return None if process is None or process.state in "ZX" else process.mark


def lives(mark: Optional[Mark]) -> bool:
    """Whether exactly this process still runs. A zombie does not."""
    return mark is not None and mark_of(mark.pid) == mark


def children(pid: int) -> List[int]:
    """The processes whose parent is ``pid``, in the machine's numbers."""
    found = (read(other) for other in pids())
    return [process.pid for process in found if process is not None and process.ppid == pid]


def link(pid: int, name: str) -> Optional[str]:
    """Where a link of /proc/<pid> leads, for example ``cwd`` or ``ns/pid``."""
    try:
        return os.readlink(PROC / str(pid) / name)
    except OSError:
        return None


def boot_id() -> str:
    """The name of this boot of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def handle(mark: Mark) -> Iterator[Optional[int]]:
    """A pidfd of exactly this process, or None when it is gone."""
    try:
        fd = os.pidfd_open(mark.pid)
    except OSError:
        yield None
        return
    try:
        # The handle is taken first: a number that passes the comparison now cannot change hands any more.
        yield fd if lives(mark) else None
    finally:
        os.close(fd)


def send(mark: Mark, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone."""
    with handle(mark) as fd:
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        return True


def kill(marks: Iterable[Mark], timeout: float = 5.0) -> List[Mark]:
    """Kill processes and wait until they are gone. Returns the ones that are not."""
    end = time.monotonic() + timeout
    left = []
    with contextlib.ExitStack() as stack:
        handles = [(mark, stack.enter_context(handle(mark))) for mark in marks]
        for _mark, fd in handles:
            if fd is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
        for mark, fd in handles:
            if fd is not None and not _ends(fd, end - time.monotonic()):
                left.append(mark)
    return left


def _ends(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def wait_until(condition: Callable[[], object], timeout: float, interval: float = 0.02) -> bool:
    """Call ``condition`` until it is true; False when ``timeout`` seconds have passed without."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(interval)
    return True

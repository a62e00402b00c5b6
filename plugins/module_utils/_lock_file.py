# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A training lock that is a file: look at it without taking it, and remove it if it is still the same.

The service locks ``data/locks/training_<config>.lock`` with ``flock`` and writes three lines into it:
``host:pid:8hex``, the unix time and the lifetime in seconds. Only the kernel's flock excludes anybody; the lines are
information, and they stay behind when the holder is killed. A child that was forked while the lock was held keeps the
flock after the death of its parent. So the kernel is asked, through ``/proc``, who keeps it. This util is private to
the collection.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from dataclasses import dataclass, replace
from typing import Iterator, Optional, Set, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import FLOCK, flock_holders, list_pids

# A record has about 45 bytes. What is much longer is another file, and is never removed.
MAX_RECORD = 4096
MAX_LINES = 8
MAX_LINE = 256
MAX_PROC_LOCKS = 4 * 1024 * 1024

COMPLETE = "complete"
PARTIAL = "partial"
EMPTY = "empty"
FOREIGN = "foreign"

LOCK_ID = re.compile(r"\A([A-Za-z0-9._-]{1,253}):([1-9][0-9]{0,9}):([0-9a-f]{8})\Z")
LOCK_ID_BEGINNING = re.compile(r"\A[A-Za-z0-9._-]{1,253}:([1-9][0-9]{0,9}(:[0-9a-f]{0,8})?)?\Z")
SECONDS = re.compile(r"\A[0-9]{1,12}(\.[0-9]{1,20})?\Z")

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
PROC_LOCKS = "/proc/locks"

LOOKS = 5
# An acquirer of the service that found an expired record removes the file; this lets one that has read it finish.
SETTLE = 0.02


@dataclass(frozen=True)
class LockId:
    """Who took a lock. ``token`` is the whole of ``host:pid:8hex``, which no other acquisition has."""

    token: str
    host: str
    pid: int


@dataclass(frozen=True)
class LockRecord:
    """The lines in a lock file.

    ``state`` is ``complete``, ``partial`` (half-written), ``empty`` or ``foreign`` (another kind of file).
    """

    lines: Tuple[str, ...] = ()
    state: str = EMPTY
    lock_id: Optional[LockId] = None
    acquired_at: Optional[float] = None
    lifetime: Optional[float] = None


@dataclass(frozen=True)
class LockFile:
    """What the file system and the kernel say about a lock file.

    ``keepers`` are the processes that keep the flock, ``openers`` those that have the file open besides. ``kept`` is
    whether anybody keeps it, None where not every process could be looked into; then ``unseen`` says why.
    """

    path: str
    exists: bool
    dev: int = 0
    inode: int = 0
    data: Optional[bytes] = None
    record: LockRecord = LockRecord()
    keepers: Tuple[int, ...] = ()
    openers: Tuple[int, ...] = ()
    kept: Optional[bool] = False
    unseen: Optional[str] = None
    problem: Optional[str] = None


def lock_path(service_path: str, config: str) -> str:
    """Where the service keeps the training lock of ``config``."""
    return os.path.join(os.path.expanduser(service_path), "data", "locks", f"training_{config}.lock")


def parse_lock_id(text: str) -> Optional[LockId]:
    """Read ``host:pid:8hex``; None when it is anything else."""
    match = LOCK_ID.match(text)
    return LockId(text, match.group(1), int(match.group(2))) if match else None


def parse_record(data: bytes) -> LockRecord:
    """Read the lines of a lock file. A line counts only when its end was written."""
    if not data.strip(b"\0 \t\r\n"):
        # Empty after a full disk or a kill between truncation and write, zeros after a power cut.
        return LockRecord()
    lines = data[:MAX_RECORD].decode("utf-8", "replace").split("\n")
    shown = tuple(_printable(line) for line in lines[:MAX_LINES] if line)
    lock_id = parse_lock_id(lines[0].rstrip("\r"))
    if len(data) > MAX_RECORD:
        return LockRecord(shown, FOREIGN)
    if lock_id is None:
        beginning = len(lines) == 1 and LOCK_ID_BEGINNING.match(lines[0])
        return LockRecord(shown, PARTIAL if beginning else FOREIGN)
    acquired_at, lifetime = (_seconds(lines[index]) if len(lines) > index + 1 else None for index in (1, 2))
    whole = acquired_at is not None and lifetime is not None
    return LockRecord(shown, COMPLETE if whole else PARTIAL, lock_id, acquired_at, lifetime)


def observe(path: str) -> LockFile:
    """Look at a lock file. The flock is never taken, not even for a moment: that could make an acquirer fail.

    :raises RecoveryError: the path cannot be looked at
    """
    for _attempt in range(LOOKS):
        seen = _look(path)
        if seen is not None:
            return seen
        time.sleep(0.01)
    problem = f"it changed during each of {LOOKS} looks, so it is being taken and released right now"
    return LockFile(path, exists=True, kept=None, problem=problem)


def release(seen: LockFile, forced: bool = False) -> Optional[str]:
    """Empty the file if it is still the one that was seen and nobody keeps its flock.

    The flock is taken for it, as an acquirer would, so that nobody can take the lock meanwhile. The file itself stays:
    nothing can be unlinked by its path without a moment in which another process may have put its own there, since the
    service does so where it finds an expired record. An empty file that nobody keeps is a free lock to everybody.

    :param forced: remove it also while somebody keeps the flock; the operator has named that holder
    :returns: None when it was released, otherwise why nothing was done
    :raises RecoveryError: it may not be written by this user, or the file system refuses
    """
    try:
        handle = os.open(seen.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return "the file is gone"
    except OSError as exc:
        raise _cannot(seen.path, "opened for its release", exc) from exc
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = True
        except BlockingIOError:
            taken = False
        except OSError as exc:
            raise _cannot(seen.path, "locked", exc) from exc
        if not taken and not forced:
            return "a process keeps its flock"
        return _remove(handle, seen, taken)
    finally:
        os.close(handle)


def _remove(handle: int, seen: LockFile, taken: bool) -> Optional[str]:
    status = os.fstat(handle)
    if (status.st_dev, status.st_ino) != (seen.dev, seen.inode) or not _is_at(seen):
        return "another file is in its place"
    if os.pread(handle, MAX_RECORD + 1, 0) != seen.data:
        return "its record has changed"
    os.ftruncate(handle, 0)
    return None if taken else _unlink(handle, seen)


def _unlink(handle: int, seen: LockFile) -> Optional[str]:
    """Take the file away from a holder that was named, which is the only way to break a flock."""
    try:
        # For an acquirer that found the record expired before it was emptied, and puts its own file here.
        time.sleep(SETTLE)
        if not _is_at(seen):
            return "another process has removed it or put its own in its place"
        os.unlink(seen.path)
    except FileNotFoundError:
        return "another process has removed it"
    except OSError as exc:
        os.pwrite(handle, seen.data or b"", 0)
        raise _cannot(seen.path, "removed", exc) from exc
    return None


def _is_at(seen: LockFile) -> bool:
    try:
        status = os.lstat(seen.path)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == (seen.dev, seen.inode)


def _look(path: str) -> Optional[LockFile]:
    """One look; None when the file changed under it."""
    before = _read(path)
    if before is None or not before.exists or (before.problem and not before.inode):
        return before
    entries = flock_holders(before.dev, before.inode)
    keepers = {entry.pid for entry in entries if entry.kind == FLOCK}
    openers = {entry.pid for entry in entries} - keepers
    unseen = None
    if not keepers:
        unseen = _blind_spot()
        if unseen:
            kept, pids = _kernel_list(before.dev, before.inode)
            keepers |= pids
            unseen = None if kept is not None else unseen
    after = _read(path)
    if after is None or (after.exists, after.dev, after.inode, after.data) != (
        True,
        before.dev,
        before.inode,
        before.data,
    ):
        return None
    return LockFile(
        path,
        exists=True,
        dev=before.dev,
        inode=before.inode,
        data=before.data,
        record=before.record,
        keepers=tuple(sorted(keepers)),
        openers=tuple(sorted(openers)),
        kept=True if keepers else None if unseen else False,
        unseen=unseen,
        problem=before.problem,
    )


def _read(path: str) -> Optional[LockFile]:
    """The file without its holders; None when it changed between two steps."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return LockFile(path, exists=False)
    except OSError as exc:
        raise _cannot(path, "looked at", exc) from exc
    seen = LockFile(path, exists=True, dev=status.st_dev, inode=status.st_ino)
    if not stat.S_ISREG(status.st_mode):
        return LockFile(path, exists=True, kept=None, problem="it is no regular file, so the service did not make it")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            return None
        if exc.errno in (errno.EACCES, errno.EPERM):
            return replace(seen, problem="its record may not be read by this user")
        raise _cannot(path, "read", exc) from exc
    try:
        opened = os.fstat(handle)
        if (opened.st_dev, opened.st_ino) != (status.st_dev, status.st_ino):
            return None
        data = os.read(handle, MAX_RECORD + 1)
    except OSError as exc:
        raise _cannot(path, "read", exc) from exc
    finally:
        os.close(handle)
    return replace(seen, data=data, record=parse_record(data))


def _blind_spot() -> Optional[str]:
    """Why there may be a process whose open files cannot be seen; None when there is none in this PID namespace."""
    if os.geteuid() != 0 and _hides_processes():
        return "/proc hides the processes of other users"
    hidden = 0
    for pid in list_pids():
        try:
            os.listdir(f"/proc/{pid}/fd")
        except PermissionError:
            hidden += 1
        except OSError:
            continue
    return f"the open files of {hidden} processes of other users cannot be seen" if hidden else None


def _hides_processes() -> bool:
    """Whether /proc is mounted with ``hidepid``."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            mounts = [line.split() for line in stream]
    except OSError:
        return True
    proc = [fields for fields in mounts if len(fields) > 4 and fields[4] == "/proc"]
    options = ",".join(proc[-1][5:]) if proc else "hidepid=unknown"
    return any(
        option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off") for option in options.split(",")
    )


def _kernel_list(dev: int, inode: int) -> Tuple[Optional[bool], Set[int]]:
    """Whether the kernel's list of all locks has a flock on the inode, and of which processes.

    Everybody may read ``/proc/locks``, but inside a PID namespace it leaves out locks whose recorded process is not
    visible
    there: then, and where only the inode number fits, the answer is None.
    """
    try:
        whole = os.readlink("/proc/self/ns/pid") == INITIAL_PID_NAMESPACE
        with open(PROC_LOCKS, encoding="utf-8", errors="replace") as stream:
            text = stream.read(MAX_PROC_LOCKS)
    except OSError:
        return None, set()
    if len(text) >= MAX_PROC_LOCKS:
        return None, set()
    place = (f"{os.major(dev):02x}:{os.minor(dev):02x}", str(inode))
    same_inode = [(pid, device) for pid, device, number in _flocks(text) if number == place[1]]
    pids = {pid for pid, device in same_inode if device == place[0]}
    if pids:
        return True, pids
    return (False if whole and not same_inode else None), set()


def _flocks(text: str) -> Iterator[Tuple[int, str, str]]:
    """Process, device and inode of each flock that is held, out of the text of ``/proc/locks``."""
    for line in text.splitlines():
        # "1: FLOCK  ADVISORY  WRITE 1993 fe:00:2564790 0 EOF"; a waiter has "->" after the number.
        fields = line.split()
        if len(fields) < 6 or fields[1] != FLOCK or not fields[4].isdecimal():
            continue
        device, _colon, inode = fields[5].rpartition(":")
        yield int(fields[4]), device, inode


def _cannot(path: str, what: str, exc: OSError) -> RecoveryError:
    way_out = (
        "run the task with become: true or as the user of the service"
        if exc.errno in (errno.EACCES, errno.EPERM)
        else "check the file system that it is on"
    )
    return RecoveryError(f"The lock file {path} cannot be {what} ({exc.strerror or exc}); {way_out}.")


def _seconds(line: str) -> Optional[float]:
    return float(line) if SECONDS.match(line) else None


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in line[:MAX_LINE])

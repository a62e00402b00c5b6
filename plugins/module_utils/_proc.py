# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of processes and of the locks that they hold, read from ``/proc``.

A process that ends while it is read is gone: None, never an error. Nothing here waits on a process in uninterruptible
sleep (state D): reading its command line takes the lock of its memory, which such a process may hold for ever. What
could not be looked into is counted and returned, because unknown never counts as free. This util is private to the
collection.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import IO, Dict, Iterable, Iterator, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

MAX_CMDLINE = 128 * 1024
MAX_TEXT = 64 * 1024
# Python allocates what it may read, so small files are read in small pieces.
CHUNK = 16 * 1024
TICKS = os.sysconf("SC_CLK_TCK")

ENDED = ("Z", "X", "x")
BLOCKED = "D"

# Flags of the kernel's task structure, the same since Linux 2.6.
PF_FORKNOEXEC = 0x00000040
PF_KTHREAD = 0x00200000

FLOCK = "FLOCK"
OPEN = "OPEN"

# How long a process may stay in state D before it counts as blocked; disk reads pass through D all the time.
PATIENCE = 0.1
# How long a helper may take over the command line of a blocked process. Most are readable at once.
HELPER_DEADLINE = 1.0
MAX_HELPERS = 32

# "lock:	1: FLOCK  ADVISORY  WRITE 1993 fe:00:2564790 0 EOF"
LOCK_LINE = re.compile(r"^lock:\s+\d+:\s+([A-Z]+)\s+\S+\s+(\S+)\s+(-?\d+)\s", re.MULTILINE)
INODE_LINE = re.compile(r"^ino:\s+(\d+)$", re.MULTILINE)
FLAGS_LINE = re.compile(r"^flags:\s+([0-7]+)$", re.MULTILINE)
ACCESS_MODES = {os.O_RDONLY: "READ", os.O_WRONLY: "WRITE", os.O_RDWR: "READ_WRITE"}


@dataclass(frozen=True)
class ProcStat:
    """One line of ``/proc/<pid>/stat``.

    ``state`` is the kernel's letter: R running, S sleeping, D uninterruptible sleep, T stopped, t traced, I idle, Z
    zombie, X dead. ``start_ticks`` (clock ticks after boot) identifies the process together with ``pid``;
    ``start_time`` is the same in unix seconds. ``threads`` counts a leader that has ended too. ``forked`` tells that
    the process was forked and never ran a program of its own, as a data loader worker is; ``kernel`` that it is a
    thread of the kernel.
    """

    pid: int
    comm: str
    state: str
    ppid: int
    pgrp: int
    session: int
    start_ticks: int
    start_time: float
    cpu_seconds: float
    threads: int
    forked: bool = False
    kernel: bool = False

    @property
    def alive(self) -> bool:
        """Whether it still does something. A zombie lives on only in other threads."""
        return self.state not in ENDED or self.threads > 1


@dataclass(frozen=True)
class FdLock:
    """A descriptor on a file: ``kind`` is ``OPEN`` for a file that is merely open, otherwise what holds it: ``FLOCK`` …

    ``access`` is ``READ``, ``WRITE`` or ``READ_WRITE``. ``recorded_pid`` is the process that the kernel wrote down when
    the lock was taken; it may be dead, or 0 where it is not visible, while ``pid`` is the one that has the descriptor
    now.
    """

    pid: int
    fd: int
    kind: str
    access: Optional[str] = None
    recorded_pid: Optional[int] = None


@dataclass(frozen=True)
class FdLocks:
    """The descriptors on a file, and the processes whose descriptors could not be seen (``unreadable``)."""

    locks: Tuple[FdLock, ...] = ()
    unreadable: Tuple[int, ...] = ()

    def __iter__(self) -> Iterator[FdLock]:
        return iter(self.locks)

    def __len__(self) -> int:
        return len(self.locks)

    @property
    def keepers(self) -> Tuple[int, ...]:
        """The processes that hold a flock on the file, or share one."""
        return tuple(sorted({lock.pid for lock in self.locks if lock.kind == FLOCK}))


def list_pids() -> List[int]:
    """The processes of this PID namespace, in ascending order.

    :raises RecoveryError: /proc is not there
    """
    try:
        return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError as exc:
        raise RecoveryError(f"/proc cannot be listed ({exc.strerror or exc}); mount it on this node.") from exc


def read_stat(pid: int) -> Optional[ProcStat]:
    """The state of a process; None when it is gone."""
    return parse_stat(_text(f"/proc/{pid}/stat"))


def parse_stat(text: str) -> Optional[ProcStat]:
    """Read a line of ``/proc/<pid>/stat``; None when it is none."""
    # The name may hold blanks, brackets and newlines, so it ends at the last bracket.
    head, _bracket, tail = text.rpartition(")")
    number, bracket, comm = head.partition(" (")
    fields = tail.split()
    try:
        start_ticks, flags = int(fields[19]), int(fields[6])
        return ProcStat(
            pid=int(number),
            comm=comm,
            state=fields[0],
            ppid=int(fields[1]),
            pgrp=int(fields[2]),
            session=int(fields[3]),
            start_ticks=start_ticks,
            start_time=round(boot_time() + start_ticks / TICKS, 2),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS,
            threads=int(fields[17]),
            forked=bool(flags & PF_FORKNOEXEC),
            kernel=bool(flags & PF_KTHREAD),
        )
    except (IndexError, ValueError):
        return None


def all_stats() -> Dict[int, ProcStat]:
    """Every process that can be seen, kernel threads left out."""
    stats = ((pid, read_stat(pid)) for pid in list_pids())
    return {pid: stat for pid, stat in stats if stat is not None and not stat.kernel}


def read_all() -> Tuple[Dict[int, ProcStat], Dict[int, List[str]]]:
    """Every process that can be seen, as :func:`all_stats`, and their argument vectors, as :func:`read_cmdlines`.

    Each is read once, so a number may change hands between the two; compare with :func:`is_same` what matters.
    """
    stats: Dict[int, ProcStat] = {}
    found: Dict[int, bytes] = {}
    blocked = []
    for pid in list_pids():
        stat = read_stat(pid)
        if stat is None or stat.kernel:
            continue
        stats[pid] = stat
        if not _read_unblocked(pid, found, stat):
            blocked.append(pid)
    words = {pid: split_cmdline(data) for pid, data in found.items() if data}
    if blocked:
        words.update(read_cmdlines(blocked))
    return stats, words


def thread_states(pid: int) -> str:
    """The state letter of every thread of a process, ended ones left out, sorted; empty when it is gone."""
    letters = []
    for tid in _names(f"/proc/{pid}/task"):
        stat = parse_stat(_text(f"/proc/{pid}/task/{tid}/stat"))
        if stat is not None and stat.state not in ENDED:
            letters.append(stat.state)
    return "".join(sorted(letters))


def read_cmdline(pid: int) -> Optional[List[str]]:
    """The argument vector, of at most 128 KiB.

    :returns: None when the process is gone, has none (a zombie, a kernel thread), or does not let it be read in time
    """
    return read_cmdlines([pid]).get(pid)


def read_cmdlines(pids: Iterable[int], deadline: float = HELPER_DEADLINE) -> Dict[int, List[str]]:
    """The argument vectors of several processes; those that :func:`read_cmdline` has none of are left out.

    A process in state D is waited for shortly, since most leave it at once. For one that stays there a helper process
    reads, and is left behind when it does not answer; all helpers share one deadline.

    :param deadline: seconds for the helpers; with 0 none is started
    """
    found: Dict[int, bytes] = {}
    blocked = [pid for pid in pids if not _read_unblocked(pid, found)]
    patience = time.monotonic() + PATIENCE
    while blocked and time.monotonic() < patience:
        time.sleep(0.005)
        blocked = [pid for pid in blocked if not _read_unblocked(pid, found)]
    found.update(_read_by_helpers(blocked[:MAX_HELPERS] if deadline > 0 else [], deadline))
    return {pid: split_cmdline(data) for pid, data in found.items() if data}


def split_cmdline(data: bytes) -> List[str]:
    """The words of ``/proc/<pid>/cmdline``; what is not UTF-8 is replaced."""
    text = data.decode("utf-8", "replace")
    # A process that wrote a title over its arguments leaves NULs behind it.
    return (text[:-1] if text.endswith("\0") and text.strip("\0") else text).split("\0")


def _read_unblocked(pid: int, found: Dict[int, bytes], stat: Optional[ProcStat] = None) -> bool:
    """Read the command line unless a thread is in state D; False when it is.

    :param stat: its state, when that was read just now
    """
    stat = stat or read_stat(pid)
    if stat is None or stat.kernel or not stat.alive:
        return True
    if stat.state == BLOCKED or (stat.threads > 1 and BLOCKED in thread_states(pid)):
        return False
    data = _bytes(f"/proc/{pid}/cmdline", MAX_CMDLINE)
    if not data and stat.state in ENDED:
        # The leader has ended and has no memory any more; its other threads have.
        others = (f"/proc/{pid}/task/{tid}/cmdline" for tid in _names(f"/proc/{pid}/task") if tid != str(pid))
        data = next(filter(None, (_bytes(path, MAX_CMDLINE) for path in others)), b"")
    found[pid] = data
    return True


def _read_by_helpers(pids: List[int], seconds: float) -> Dict[int, bytes]:
    helpers: Dict[int, Tuple[int, subprocess.Popen[bytes], IO[bytes]]] = {}
    for pid in pids:
        try:
            helper = subprocess.Popen(  # pylint: disable=ansible-bad-function
                ["cat", f"/proc/{pid}/cmdline"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            break
        if helper.stdout is not None:
            helpers[helper.stdout.fileno()] = (pid, helper, helper.stdout)
    found: Dict[int, bytes] = {}
    waiting = set(helpers)
    deadline = time.monotonic() + seconds
    while waiting:
        ready, _written, _failed = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for handle in ready:
            pid = helpers[handle][0]
            data = os.read(handle, MAX_TEXT)
            found[pid] = (found.get(pid, b"") + data)[:MAX_CMDLINE]
            if not data or len(found[pid]) >= MAX_CMDLINE:
                waiting.discard(handle)
    for handle, (pid, helper, pipe) in helpers.items():
        pipe.close()
        helper.kill()
        if handle in waiting:
            # Not waited for: a helper that is blocked itself ends when its target does.
            found.pop(pid, None)
            helper.poll()
        else:
            helper.wait()
    return found


def read_arguments_address(pid: int) -> Optional[int]:
    """Where in its memory a process has its arguments, the same in a forked child; None when that may not be known."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    address = fields[45] if len(fields) > 45 else ""
    return int(address) or None if address.isdecimal() else None


def read_cwd(pid: int) -> Optional[str]:
    """The working directory; None when the process is gone, or this user may not know."""
    return _link(pid, "cwd")


def read_exe(pid: int) -> Optional[str]:
    """The program file; None when the process is gone or has none, or this user may not know."""
    return _link(pid, "exe")


def read_uid(pid: int) -> Optional[int]:
    """The effective user id; None when the process is gone."""
    # The owner of /proc/<pid> is root for a process that may not be dumped, so the status is read.
    match = re.search(r"^Uid:\s+\d+\s+(\d+)", _text(f"/proc/{pid}/status"), re.MULTILINE)
    return int(match.group(1)) if match else None


def user_names() -> Dict[int, str]:
    """The names of local users. A directory service is not asked: it may be what hangs."""
    names: Dict[int, str] = {}
    for line in _text("/etc/passwd", 1 << 20).splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal():
            names.setdefault(int(fields[2]), fields[0])
    return names


def read_wchan(pid: int) -> Optional[str]:
    """Where in the kernel a process waits; None when it does not, or this user may not know.

    Of several threads the one in uninterruptible sleep counts, otherwise the first.
    """
    tids = _names(f"/proc/{pid}/task")
    blocked = [tid for tid in tids if (_thread(pid, tid) or "") == BLOCKED] if len(tids) > 1 else []
    path = f"/proc/{pid}/task/{blocked[0]}/wchan" if blocked else f"/proc/{pid}/wchan"
    name = _text(path, 256).strip()
    return name if name not in ("", "0") else None


def has_live_threads(pid: int) -> bool:
    """Whether a process lives on although its first thread has ended."""
    return any((_thread(pid, tid) or "Z") not in ENDED for tid in _names(f"/proc/{pid}/task") if tid != str(pid))


def is_same(pid: int, start_ticks: int) -> Optional[ProcStat]:
    """The state of exactly this process; None when it is gone, or has ended and only waits for its parent."""
    stat = read_stat(pid)
    return stat if stat is not None and stat.start_ticks == start_ticks and stat.alive else None


def hides_processes() -> Optional[str]:
    """Why processes of other users are not visible here; None when all of this PID namespace are."""
    if os.geteuid() == 0:
        return None
    mounts = [line.split() for line in _text("/proc/self/mountinfo", 1 << 20).splitlines()]
    proc = [fields for fields in mounts if len(fields) > 4 and fields[4] == "/proc"]
    if not proc:
        return "how /proc is mounted cannot be seen"
    for option in ",".join(proc[-1][5:]).split(","):
        if option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off"):
            return f"/proc is mounted with {option}, which hides the processes of other users"
    return None


def boot_id() -> str:
    """The identity of this boot.

    :raises RecoveryError: the kernel does not tell
    """
    text = _text("/proc/sys/kernel/random/boot_id", 256).strip()
    if not text:
        raise RecoveryError("/proc/sys/kernel/random/boot_id cannot be read; mount /proc on this node.")
    return text


def boot_time() -> float:
    """When this machine was started, in unix seconds, by its present clock."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def hostname() -> str:
    """The name of this node, as the service writes it into its locks."""
    return socket.gethostname()


def flock_holders(dev: int, inode: int, pids: Optional[Iterable[int]] = None) -> FdLocks:
    """Who has a file open, and through which descriptors it is locked.

    The kernel's list of all locks leaves out one whose recorded process is not visible in this PID namespace, such as
    that of a dead parent whose forked child shares the open file; the lock lines in ``/proc/<pid>/fdinfo`` do not. A
    line stands there only for locks of that very open file, so its device, which differs from ``st_dev`` on btrfs and
    overlay file systems, need not be compared.

    :param dev: device of the file (``st_dev``)
    :param inode: inode of the file (``st_ino``)
    :param pids: look into these processes only
    """
    found: List[FdLock] = []
    unreadable: List[int] = []
    for pid in list_pids() if pids is None else pids:
        stat = read_stat(pid)
        if stat is None or stat.kernel:
            continue
        base = _fd_base(stat)
        try:
            descriptors = os.listdir(f"{base}/fd") if base else []
        except PermissionError:
            unreadable.append(pid)
            continue
        except OSError:
            continue
        for name in descriptors:
            try:
                found.extend(_descriptor(pid, base, name, dev, inode))
            except PermissionError:
                unreadable.append(pid)
                break
    return FdLocks(tuple(found), tuple(unreadable))


def _fd_base(stat: ProcStat) -> str:
    """Where the descriptors of a process are: those of an ended leader are with its other threads."""
    base = f"/proc/{stat.pid}"
    if stat.state not in ENDED:
        return base
    live = (tid for tid in _names(f"{base}/task") if (_thread(stat.pid, tid) or "Z") not in ENDED)
    tid = next(live, None)
    return f"{base}/task/{tid}" if tid else ""


def _descriptor(pid: int, base: str, name: str, dev: int, inode: int) -> List[FdLock]:
    """What holds the file through one descriptor; nothing when it is another file.

    :raises PermissionError: this user may not see the descriptor
    """
    try:
        with open(f"{base}/fdinfo/{name}", "rb") as stream:
            text = stream.read(MAX_TEXT).decode("utf-8", "replace")
        number = INODE_LINE.search(text)
        # Compared first: asking a file system that does not answer, as a dead NFS server, would hang.
        if number and int(number.group(1)) != inode:
            return []
        status = os.stat(f"{base}/fd/{name}")
    except PermissionError:
        raise
    except OSError:
        return []
    if (status.st_dev, status.st_ino) != (dev, inode):
        return []
    locks = [FdLock(pid, int(name), kind, access, int(owner)) for kind, access, owner in LOCK_LINE.findall(text)]
    if locks:
        return locks
    flags = FLAGS_LINE.search(text)
    access = ACCESS_MODES.get(int(flags.group(1), 8) & os.O_ACCMODE) if flags else None
    return [FdLock(pid, int(name), OPEN, access)]


def _link(pid: int, name: str) -> Optional[str]:
    """Where a link of a process leads. A leader that has ended has none any more, but its other threads have."""
    for base in (
        f"/proc/{pid}",
        *(f"/proc/{pid}/task/{tid}" for tid in _names(f"/proc/{pid}/task") if tid != str(pid)),
    ):
        try:
            return os.readlink(f"{base}/{name}")
        except PermissionError:
            return None
        except OSError:
            continue
    return None


def _thread(pid: int, tid: str) -> Optional[str]:
    """The state letter of one thread; None when it is gone."""
    stat = parse_stat(_text(f"/proc/{pid}/task/{tid}/stat"))
    return None if stat is None else stat.state


def read_text(path: str) -> str:
    """The beginning of a file below /proc that is never waited for; empty when it cannot be read."""
    return _text(path)


def list_threads(pid: int) -> List[str]:
    """The threads of a process, by number; empty when it is gone."""
    return _names(f"/proc/{pid}/task")


def _names(path: str) -> List[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _text(path: str, limit: int = MAX_TEXT) -> str:
    return _bytes(path, limit).decode("utf-8", "replace")


def _bytes(path: str, limit: int) -> bytes:
    """The beginning of a file; empty when it cannot be read."""
    data = b""
    try:
        # Thousands of small files are read here, and a file object would cost more than the file.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return data
    try:
        while len(data) < limit:
            chunk = os.read(handle, min(limit - len(data), CHUNK))
            if not chunk:
                break
            data += chunk
    except OSError:
        pass
    finally:
        os.close(handle)
    return data


@dataclass(frozen=True)
class OpenFiles:
    """Which of several files are open, by device and inode, and what could not be seen."""

    holders: Dict[Tuple[int, int], Tuple[int, ...]]
    unreadable: Tuple[int, ...] = ()
    hidden: Optional[str] = None

    @property
    def unseen(self) -> Optional[str]:
        """Why a file may be open although no holder is named; None when every process was looked into."""
        if self.hidden is not None:
            return self.hidden
        if not self.unreadable:
            return None
        count = len(self.unreadable)
        return f"uid {os.geteuid()} may not see the open files of {count} process{'es' if count > 1 else ''}"


def open_files(wanted: Dict[Tuple[int, int], str]) -> OpenFiles:
    """Which processes have which of these files open, all looked for in one pass.

    A file is recognised by inode, so that another name of it and one in another mount namespace count, or by path. Only
    a descriptor whose inode fits is asked for its device: one on a dead mount could hang.

    :param wanted: the real path of each file by its device and inode
    :raises RecoveryError: /proc is not there
    """
    places = {path: place for place, path in wanted.items()}
    inodes = {inode for _dev, inode in wanted}
    names = {os.path.basename(path) for path in places}
    holders: Dict[Tuple[int, int], List[int]] = {}
    unreadable: List[int] = []
    for pid in list_pids() if wanted else []:
        stat = read_stat(pid)
        if stat is None or stat.kernel:
            continue
        base = _fd_base(stat)
        try:
            for name in os.listdir(f"{base}/fd") if base else []:
                place = _open_place(base, name, places, inodes, names)
                if place in wanted and pid not in holders.setdefault(place, []):
                    holders[place].append(pid)
        except PermissionError:
            unreadable.append(pid)
        except OSError:
            continue
    return OpenFiles({place: tuple(pids) for place, pids in holders.items()}, tuple(unreadable), hides_processes())


def _open_place(
    base: str, name: str, places: Dict[str, Tuple[int, int]], inodes: Iterable[int], names: Iterable[str]
) -> Optional[Tuple[int, int]]:
    """Device and inode of the file behind a descriptor, if it can be one of those that are looked for.

    :raises PermissionError: this user may not see the descriptor
    """
    try:
        link = os.readlink(f"{base}/fd/{name}")
        if not link.startswith("/") or link in places:
            return places.get(link)
        number = INODE_LINE.search(_text(f"{base}/fdinfo/{name}"))
        # Before Linux 5.14 the inode is not told; then the name decides what is asked.
        if int(number.group(1)) not in inodes if number else os.path.basename(link) not in names:
            return None
        status = os.stat(f"{base}/fd/{name}")
    except PermissionError:
        raise
    except OSError:
        return None
    return status.st_dev, status.st_ino

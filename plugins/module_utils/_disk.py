# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much room the file systems have that a training writes to.

Checkpoints and data decide whether training can go on. A full log or temporary directory is only ``low``: training
goes on without them. This util is private to the collection.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import explain
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._probes import Once

OK = "ok"
LOW = "low"
FULL = "full"

NEEDED = 10 << 30
# The service itself saves no checkpoint beyond either of them.
LEAST = 1 << 30
MOST_USED = 0.95

CHECKPOINTS = "checkpoints"
DATA = "data"
LOGS = "logs"
TMP = "tmp"
DECIDING = (CHECKPOINTS, DATA)


@dataclass(frozen=True)
class Filesystem:
    """A file system, in bytes. ``path`` is the directory that was looked at, ``uses`` what lies on it.

    ``free`` is what an ordinary user may still write. Inodes are None where the file system does not count them.
    """

    path: str
    uses: Tuple[str, ...]
    total: int
    free: int
    used: int
    free_inodes: Optional[int]
    total_inodes: Optional[int]
    read_only: bool
    device: int

    @property
    def share(self) -> float:
        """How much of it is used, without what is kept for root."""
        return self.used / (self.used + self.free) if self.used + self.free > 0 else 1.0

    def as_dict(self) -> Dict[str, Any]:
        shown = {**asdict(self), "uses": list(self.uses)}
        del shown["used"]
        return shown

    def lacks(self) -> Optional[str]:
        """Why nothing more can be written to it; None where something can."""
        if self.read_only:
            return "is mounted read-only"
        if self.free < LEAST:
            return f"has {_size(self.free)} left, and the service needs {_size(LEAST)} to save a checkpoint"
        if self.share >= MOST_USED:
            most = f"{MOST_USED:.0%}"
            return f"is {self.share:.1%} used ({_size(self.free)} left), and the service saves none from {most} on"
        if self.free_inodes == 0:
            return "has no inode left for another file"
        return None


@dataclass(frozen=True)
class Disk:
    """The file systems of a node; ``needed`` are the bytes that training wants to have free."""

    filesystems: Tuple[Filesystem, ...]
    needed: int = NEEDED

    def judge(self) -> Tuple[str, str]:
        """Verdict and reason."""
        lacking = [(found, why) for found in self.filesystems for why in [found.lacks()] if why]
        for found, why in lacking:
            if set(found.uses) & set(DECIDING):
                return FULL, f"{_name(found)} {why}"
        for found in self.filesystems:
            if set(found.uses) & set(DECIDING) and found.free < self.needed:
                return LOW, f"{_name(found)} has {_size(found.free)} left of the {_size(self.needed)} that are needed"
        for found, why in lacking:
            return LOW, f"{_name(found)} {why}"
        least = min(self.filesystems, key=lambda found: found.free)
        return OK, f"the least room is {_size(least.free)}, on {_name(least)}"

    def as_dict(self) -> Dict[str, Any]:
        verdict, reason = self.judge()
        shown = [found.as_dict() for found in self.filesystems]
        return {"filesystems": shown, "needed": self.needed, "verdict": verdict, "reason": reason}


def look(service_path: str, needed: int = NEEDED, seconds: float = 5.0, tmp: Optional[str] = None) -> Disk:
    """See the room below a service directory, and in the temporary directory.

    :param needed: bytes that should be free for checkpoints and data
    :param seconds: for all of it; a dead mount gives no answer at all
    :raises RecoveryError: a file system gave no answer, and no other one is known to be full
    """
    if needed < 0:
        raise RecoveryError(f"disk_needed is {needed}. It must be 0 or more bytes.")
    root = os.path.abspath(os.path.expanduser(service_path))
    places = [(use, os.path.join(root, use)) for use in (CHECKPOINTS, DATA, LOGS)]
    # Not tempfile.gettempdir(), which writes a file to find out.
    places.append((TMP, tmp or os.environ.get("TMPDIR") or "/tmp"))
    looks = [(use, path, Once(partial(examine, path))) for use, path in places]
    return gather(looks, needed, seconds)


def gather(looks: Sequence[Tuple[str, str, Once]], needed: int, seconds: float) -> Disk:
    """Put the answers together, each file system once.

    :raises RecoveryError: see :func:`look`
    """
    found: Dict[int, Filesystem] = {}
    silent: List[str] = []
    end = time.monotonic() + seconds
    for _use, _path, one in looks:
        one.begin()
    for use, path, one in looks:
        try:
            seen = one.get(max(0.0, end - time.monotonic()))
        except RecoveryError as exc:
            silent.append(f"{path}: {exc}")
            continue
        seen = found.get(seen.device, seen)
        found[seen.device] = replace(seen, uses=tuple(dict.fromkeys([*seen.uses, use])))
    disk = Disk(tuple(found.values()), needed)
    if silent and (not found or disk.judge()[0] != FULL):
        raise RecoveryError(f"{'; '.join(silent).rstrip('.')}. Look at the mount and at the kernel log.")
    return disk


def examine(path: str) -> Filesystem:
    """The file system of a directory; of one that does not exist, that of the nearest that does.

    :raises RecoveryError: it cannot be asked
    """
    at = path
    while True:
        try:
            status = os.stat(at)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError
            room = os.statvfs(at)
            break
        except (FileNotFoundError, NotADirectoryError):
            if at == os.path.dirname(at):
                raise RecoveryError(f"{path} cannot be looked at: not even / is there.") from None
            at = os.path.dirname(at)
        except OSError as exc:
            raise explain("look at", at, exc) from exc
    return Filesystem(
        path=at,
        uses=(),
        total=room.f_blocks * room.f_frsize,
        free=room.f_bavail * room.f_frsize,
        used=(room.f_blocks - room.f_bfree) * room.f_frsize,
        free_inodes=room.f_favail if room.f_files else None,
        total_inodes=room.f_files or None,
        read_only=bool(room.f_flag & os.ST_RDONLY),
        device=status.st_dev,
    )


def _name(found: Filesystem) -> str:
    return f"{found.path} ({', '.join(found.uses)})"


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"

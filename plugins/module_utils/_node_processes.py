# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch the processes of a training for a moment: do they compute, where do they wait, what have they open.

Nothing here waits on a process, whatever state it is in. This util is private to the collection.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import TrainingProcess, shorten

WINDOW = 0.5
# A training has a few of them; a broken launcher may have thousands.
MAX_PROCESSES = 64
MAX_DESCRIPTORS = 4096
MAX_FILES = 50
ENDINGS = (".npz", ".pth", ".log")
RUNNING = "R"

_RESIDENT = re.compile(r"\A\d{1,15} (\d{1,15}) ")


@dataclass(frozen=True)
class Watched:
    """One process.

    ``cpu_percent`` is of one core, over the window. ``moving`` tells that it used the processor, or was about to; it is
    None, as the former, where the process ended meanwhile. ``rss`` is in bytes. ``open_files`` are those of interest,
    ``open_file_count`` counts all; None where this user may not see them.
    """

    pid: int
    role: str
    state: str
    wchan: Optional[str]
    cpu_seconds: float
    cpu_percent: Optional[float]
    moving: Optional[bool]
    threads: int
    rss: Optional[int]
    open_files: Tuple[str, ...]
    open_file_count: Optional[int]
    start_time: float
    cmdline: Tuple[str, ...]

    def as_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "open_files": list(self.open_files), "cmdline": list(self.cmdline)}


def watch(processes: Sequence[TrainingProcess], service_path: str, window: float = WINDOW) -> Tuple[Watched, ...]:
    """Watch the live ones among them for ``window`` seconds; without any, this takes no time.

    :param service_path: open files below it are of interest
    """
    alive = [process for process in processes if process.alive][:MAX_PROCESSES]
    if not alive:
        return ()
    root = os.path.realpath(os.path.expanduser(service_path))
    first = [(time.monotonic(), _proc.is_same(process.pid, process.start_ticks)) for process in alive]
    time.sleep(window)
    return tuple(_watched(process, root, *before) for process, before in zip(alive, first))


def _watched(process: TrainingProcess, root: str, since: float, before: Optional[_proc.ProcStat]) -> Watched:
    now = _proc.is_same(process.pid, process.start_ticks)
    seconds = time.monotonic() - since
    percent, moving = None, None
    if before is not None and now is not None and seconds > 0:
        used = max(0.0, now.cpu_seconds - before.cpu_seconds)
        percent = round(used / seconds * 100, 1)
        moving = used > 0 or RUNNING in (before.state, now.state)
    files, count = open_files(process.pid, root) if now is not None else ((), None)
    return Watched(
        pid=process.pid,
        role=process.role,
        state=process.state if now is None else now.state,
        wchan=_proc.read_wchan(process.pid) if now is not None else None,
        cpu_seconds=process.cpu_seconds if now is None else now.cpu_seconds,
        cpu_percent=percent,
        moving=moving,
        threads=process.threads if now is None else now.threads,
        rss=resident(process.pid) if now is not None else None,
        open_files=files,
        open_file_count=count,
        start_time=process.start_time,
        cmdline=tuple(shorten(process.cmdline)),
    )


def open_files(pid: int, root: str) -> Tuple[Tuple[str, ...], Optional[int]]:
    """Paths of the open files below ``root`` or of a kind that a training uses, and how many files are open at all.

    The links are read and never followed, so that a dead mount does not matter.
    """
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return (), None
    found: List[str] = []
    for name in names[:MAX_DESCRIPTORS]:
        try:
            path = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        inside = path == root or path.startswith(root.rstrip("/") + "/")
        # So ends the link to a file that has been removed.
        plain = path[: -len(" (deleted)")] if path.endswith(" (deleted)") else path
        if path.startswith("/") and (inside or plain.endswith(ENDINGS)) and path not in found:
            found.append(path)
    return tuple(sorted(found)[:MAX_FILES]), len(names)


def resident(pid: int) -> Optional[int]:
    """How much memory a process has resident, in bytes; None when it is gone."""
    match = _RESIDENT.match(_proc.read_text(f"/proc/{pid}/statm"))
    return int(match.group(1)) * os.sysconf("SC_PAGE_SIZE") if match else None

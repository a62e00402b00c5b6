# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a training process is doing, kept before it is stopped: its stack, or what /proc says of it.

py-spy is used where the node has it, without pausing the process; else, and for a process in uninterruptible sleep,
/proc is read. Everything has a deadline: a py-spy that hangs is killed with its process group. This util is private to
the collection.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _command, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import (
    LAUNCHER,
    TRAINER,
    WORKER,
    TrainingProcess,
)

PY_SPY = "py-spy"
PROC = "proc"
# Trainers say the most, their workers much the same as each other.
ORDER = (TRAINER, LAUNCHER, WORKER)
MAX_PROCESSES = 8
MAX_THREADS = 64
MAX_CHARACTERS = 20_000
EACH = 5.0
TOTAL = 15.0
STACK_DEADLINE = 1.0
# Between two looks at the processor time.
PAUSE = 0.2

STATUS_LINES = (
    "Name", "State", "Threads", "VmRSS", "VmSwap", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt",
    "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches",
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """One process. ``source`` is ``py-spy`` or ``proc``; ``problem`` says why it is not py-spy although there is one.

    ``cpu_percent`` is of one core, over the time of the look; None where the process ended meanwhile.
    """

    pid: int
    role: str
    state: str
    wchan: Optional[str]
    cpu_percent: Optional[float]
    source: str
    text: str
    truncated: bool
    seconds: float
    problem: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


def collect(
    processes: Iterable[TrainingProcess], folders: Sequence[str] = (), each: float = EACH, total: float = TOTAL
) -> List[Evidence]:
    """Look at the live ones, trainers first, at most eight of them.

    :param folders: where py-spy may be, besides PATH
    :param each: seconds for one process
    :param total: seconds for all together; what is left over then is read from /proc
    """
    alive = sorted(
        (process for process in processes if process.alive), key=lambda one: (ORDER.index(one.role), one.pid)
    )
    chosen = alive[:MAX_PROCESSES]
    begun = time.monotonic()
    first = {process.pid: (time.monotonic(), _proc.is_same(process.pid, process.start_ticks)) for process in chosen}
    dumps = [_dump(process, folders, min(each, begun + total - time.monotonic())) for process in chosen]
    time.sleep(max(0.0, PAUSE - (time.monotonic() - begun)) if chosen else 0.0)
    return [
        Evidence(
            pid=process.pid,
            role=process.role,
            state=process.state,
            wchan=_proc.read_wchan(process.pid),
            cpu_percent=_percent(process, *first[process.pid]),
            source=source,
            text=text[:MAX_CHARACTERS],
            truncated=len(text) > MAX_CHARACTERS,
            seconds=round(seconds, 2),
            problem=problem,
        )
        for process, (source, text, seconds, problem) in zip(chosen, dumps)
    ]


def find_py_spy(process: TrainingProcess, folders: Sequence[str] = ()) -> Tuple[Optional[str], Optional[str]]:
    """A py-spy that this user may trust, and why one that was found is not used."""
    found = _command.find(PY_SPY)
    if found:
        return found, None
    interpreter = process.cmdline[0] if process.cmdline else ""
    beside = [os.path.dirname(interpreter)] if os.path.isabs(interpreter) else []
    problem = None
    for folder in [*beside, *folders]:
        path = os.path.join(folder, PY_SPY)
        if not os.access(path, os.X_OK):
            continue
        if _is_trusted(path):
            return path, None
        problem = f"{path} may be changed by another user, so it was not run"
    return None, problem


def _is_trusted(path: str) -> bool:
    """Whether nobody but this user and root can have written a program: root must not run what a user left there."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _dump(process: TrainingProcess, folders: Sequence[str], seconds: float) -> Tuple[str, str, float, Optional[str]]:
    """Source, text, seconds and problem."""
    begun = time.monotonic()
    tool, problem = find_py_spy(process, folders)
    if tool and _proc.BLOCKED in _proc.thread_states(process.pid):
        tool, problem = None, "it is in uninterruptible sleep, where py-spy would wait too"
    if tool and seconds <= 0:
        tool, problem = None, "there was no time left for py-spy"
    text = ""
    if tool:
        try:
            answer = _command.run([tool, "dump", "--nonblocking", "--pid", str(process.pid)], seconds)
        except RecoveryError:
            problem = f"{tool} could not be started"
        else:
            if answer.hung:
                problem = f"{tool} gave no answer within {seconds:.1f} s and was killed"
            elif answer.code != 0 or not answer.output.strip():
                problem = f"{tool} failed with {answer.code}: {answer.message}"
            else:
                text = answer.output
    source = PY_SPY if text else PROC
    return source, text or _read_proc(process.pid), time.monotonic() - begun, problem


def _read_proc(pid: int) -> str:
    """What /proc says without pausing the process and without the lock of its memory."""
    lines = [
        line for line in _proc.read_text(f"/proc/{pid}/status").splitlines() if line.partition(":")[0] in STATUS_LINES
    ]
    try:
        lines.append(f"open files: {len(os.listdir(f'/proc/{pid}/fd'))}")
    except OSError:
        lines.append("open files: not seen")
    tids = sorted(int(tid) for tid in _proc.list_threads(pid))
    for tid in tids[:MAX_THREADS]:
        folder = f"/proc/{pid}/task/{tid}"
        found = _proc.parse_stat(_proc.read_text(f"{folder}/stat"))
        if found:
            wchan = _proc.read_text(f"{folder}/wchan").strip()
            where = wchan if wchan not in ("", "0") else "-"
            lines.append(
                f"thread {tid} ({found.comm}): {found.state}, in {where}, {found.cpu_seconds:.2f} s of processor"
            )
    if len(tids) > MAX_THREADS:
        lines.append(f"and {len(tids) - MAX_THREADS} more threads")
    return "\n".join(lines + _kernel_stack(pid)) + "\n"


def _kernel_stack(pid: int) -> List[str]:
    """Where the first thread is in the kernel, for root; another process reads it, as that waits for an exec."""
    try:
        answer = _command.run(["cat", f"/proc/{pid}/stack"], STACK_DEADLINE)
    except RecoveryError:
        return []
    return ["kernel stack:", *answer.output.splitlines()[:MAX_THREADS]] if answer.output.strip() else []


def _percent(process: TrainingProcess, since: float, before: Optional[_proc.ProcStat]) -> Optional[float]:
    now = _proc.is_same(process.pid, process.start_ticks)
    seconds = time.monotonic() - since
    if now is None or before is None or seconds <= 0:
        return None
    return round(max(0.0, now.cpu_seconds - before.cpu_seconds) / seconds * 100, 1)

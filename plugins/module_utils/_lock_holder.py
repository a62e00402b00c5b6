# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the process that a lock names lives, asked of the kernel of the host that the lock names.

The question can be put to this host (``ask``), and the answers of other hosts can be weighed (``Answer``). A number
alone proves nothing: it is compared with the start of the process that has it now, and with the start of the host.
This util is private to the collection.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_file
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import (
    ENDED,
    ProcStat,
    all_stats,
    boot_id,
    boot_time,
    has_live_threads,
    hostname,
    list_pids,
    read_stat,
)

ALIVE = "alive"
DEAD = "dead"
REUSED = "reused"
PRIOR_BOOT = "prior_boot"
UNKNOWN = "unknown"

# The answers that prove that the process is no more.
GONE = (DEAD, REUSED, PRIOR_BOOT)
ANSWERS = (ALIVE, *GONE, UNKNOWN)

SAME = "same"
SIMILAR = "similar"
OTHER = "other"

# Seconds by which the clock may have been corrected between two readings that are compared.
CLOCK_TOLERANCE = 2.0

# Host names that do not tell one node from another.
NAMELESS = ("localhost", "localhost.localdomain")

MAX_PARENTS = 8
MAX_CHILDREN = 32


@dataclass(frozen=True)
class Relative:
    """A process in the family of a holder. ``start_time`` is in unix seconds."""

    pid: int
    ppid: int
    comm: str
    state: str
    start_time: float

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Family:
    """The processes that hold a lock, those that they come from, nearest first, and those that come from them."""

    processes: Tuple[Relative, ...] = ()
    parents: Tuple[Relative, ...] = ()
    children: Tuple[Relative, ...] = ()


@dataclass(frozen=True)
class Vital:
    """What is known of the recorded process: ``alive``, ``dead`` or None, something to know it by, and its start."""

    process: Optional[str]
    detail: str = ""
    start: Optional[float] = None


@dataclass(frozen=True)
class Answer:
    """What a host says of the holder of a lock. ``kept`` is for a lock file: whether a process there keeps its flock.

    ``host`` is whom was asked, in the words of the one who asked; ``hostname`` is its own name.
    """

    token: str
    verdict: str
    reason: str = ""
    host: str = ""
    hostname: str = ""
    kept: Optional[bool] = None


@dataclass(frozen=True)
class Question:
    """A lock's holder, as the lock records it.

    ``taken_before`` is the latest moment at which the lock can have been taken; ``path`` is its file, where it is one
    that this host can see too.
    """

    token: str
    taken_before: Optional[float] = None
    path: Optional[str] = None


@dataclass(frozen=True)
class Report:
    """The answer of this host, with what it rests on."""

    token: str
    verdict: str
    reason: str
    node: Dict[str, Any]
    process: Optional[Relative] = None
    kept: Optional[bool] = None
    keepers: Tuple[int, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        return {
            "token": self.token,
            "verdict": self.verdict,
            "reason": self.reason,
            "process": self.process.as_dict() if self.process else None,
            "kept": self.kept,
            "keepers": list(self.keepers),
            **self.node,
            "boot_time": round(boot_time(), 2),
        }


def node() -> Dict[str, Any]:
    """This host and its boot, so that a later look can tell whether it is still the same."""
    return {"hostname": hostname(), "boot_id": boot_id()}


def parse_answers(answers: Sequence[Mapping[str, Any]]) -> Tuple[Answer, ...]:
    """Read the answers of the module ``lock_holder``.

    :raises RecoveryError: one has no token, or a verdict that is none
    """
    parsed = []
    for answer in answers:
        verdict = answer.get("verdict") or UNKNOWN
        if verdict not in ANSWERS:
            raise RecoveryError(f"holder_answers has the verdict {verdict!r}; give one of {', '.join(ANSWERS)}.")
        if not answer.get("token"):
            raise RecoveryError("holder_answers has an answer without a token; give what lock_holder returned.")
        words = {name: str(answer.get(name) or "") for name in ("token", "reason", "host", "hostname")}
        parsed.append(
            Answer(verdict=verdict, kept=answer["kept"] if isinstance(answer.get("kept"), bool) else None, **words)
        )
    return tuple(parsed)


def weigh(token: str, recorded_host: str, answers: Sequence[Answer], file: bool) -> Optional[Answer]:
    """What all the answers about one holder come to, None where nobody was asked.

    Any host that has the recorded name may be the one that is meant, so each of them must say that the process is gone.

    :param file: the lock is a file; then each must have seen it too, and that nobody there keeps its flock
    """
    about = [answer for answer in answers if answer.token == token]
    doubts = [answer for answer in about if answer.verdict not in GONE]
    for answer in sorted(doubts, key=lambda one: one.verdict != ALIVE):
        return answer
    for answer in about:
        where = answer.hostname or answer.host or "a host"
        if compare_hosts(recorded_host, answer.hostname) != SAME or recorded_host.lower() in NAMELESS:
            return Answer(token, UNKNOWN, f"{where} was asked, which is not certain to be {recorded_host}", answer.host)
        if file and answer.kept is not False:
            reason = f"{where} did not say that nobody there keeps the flock of the very same file"
            return Answer(token, UNKNOWN, reason, answer.host, answer.hostname)
    return about[0] if about else None


def ask(question: Question, now: float, gone: Collection[int] = ()) -> Report:
    """Whether the process that a token names lives on this host. Nothing is locked or changed.

    :param gone: processes of this host to be taken for dead
    :raises RecoveryError: the token is none, or the file cannot be looked at
    """
    lock_id = _lock_file.parse_lock_id(question.token)
    if lock_id is None:
        raise RecoveryError(f"token is {question.token[:80]!r}; give host:pid:8hex, as the lock records it.")
    here = node()
    names = compare_hosts(lock_id.host, here["hostname"])
    if lock_id.host.lower() in NAMELESS or names != SAME:
        reason = f"this host is {here['hostname']}, which is not certain to be the {lock_id.host} that is recorded"
        return Report(question.token, UNKNOWN, reason, here)
    vital = vital_signs(lock_id.pid, now, gone, among=None)
    verdict, reason = _judge(lock_id.pid, vital, question.taken_before, boot_time())
    stat = None if vital.process == DEAD else read_stat(lock_id.pid)
    process = _relative(stat) if stat else None
    if question.path is None:
        return Report(question.token, verdict, reason, here, process)
    return _with_file(Report(question.token, verdict, reason, here, process), question.path, gone)


def _judge(pid: int, vital: Vital, taken_before: Optional[float], booted: float) -> Tuple[str, str]:
    because = f" ({vital.detail})" if vital.detail else ""
    if taken_before is not None and taken_before < booted - CLOCK_TOLERANCE:
        return PRIOR_BOOT, f"this host was started {booted - taken_before:.0f} s after the lock was taken"
    if vital.process == DEAD:
        return DEAD, f"there is no process {pid}{because}"
    if vital.process != ALIVE:
        return UNKNOWN, f"it cannot be told whether process {pid} lives{because}"
    if taken_before is not None and vital.start is not None and vital.start > taken_before + CLOCK_TOLERANCE:
        late = vital.start - taken_before
        return REUSED, f"process {pid} was started {late:.0f} s after the lock was taken{because}"
    return ALIVE, f"process {pid} lives{because}"


def _with_file(report: Report, path: str, gone: Collection[int]) -> Report:
    """Add whether anybody on this host keeps the flock; whoever does holds the lock, whether recorded or not."""
    seen = _lock_file.observe(os.path.abspath(os.path.expanduser(path)))
    lock_id = seen.record.lock_id
    if not seen.exists or lock_id is None or lock_id.token != report.token:
        reason = f"{report.reason}; but {path} is not here, or names another holder"
        verdict = report.verdict if report.verdict == ALIVE else UNKNOWN
        return Report(report.token, verdict, reason, report.node, report.process)
    keepers = tuple(pid for pid in seen.keepers if pid not in gone)
    kept = False if seen.kept and not keepers else seen.kept
    verdict, reason = report.verdict, report.reason
    if kept:
        named = ", ".join(str(pid) for pid in keepers[:10])
        verdict, reason = ALIVE, f"process {named} of {report.node['hostname']} keeps the flock of {path}"
    elif kept is None and verdict in GONE:
        verdict, reason = UNKNOWN, f"{reason}; but {seen.unseen or seen.problem or 'who keeps the flock is not seen'}"
    return Report(report.token, verdict, reason, report.node, report.process, kept, keepers)


def family(pids: Sequence[int], gone: Collection[int] = ()) -> Family:
    """Those of ``pids`` that live, with their parents and their descendants, bounded."""
    stats = {pid: stat for pid, stat in all_stats().items() if pid not in gone} if pids else {}
    holders = [pid for pid in pids if pid in stats][:MAX_CHILDREN]
    parents: List[int] = []
    above = stats[holders[0]].ppid if holders else 0
    while above in stats and above not in parents and len(parents) < MAX_PARENTS:
        parents.append(above)
        above = stats[above].ppid
    children: List[int] = []
    level = set(holders)
    while level and len(children) < MAX_CHILDREN:
        level = {pid for pid, stat in stats.items() if stat.ppid in level} - set(holders) - set(children)
        children.extend(sorted(level))
    chosen = (holders, parents, children[:MAX_CHILDREN])
    return Family(*(tuple(_relative(stats[pid]) for pid in group) for group in chosen))


def _relative(stat: ProcStat) -> Relative:
    return Relative(stat.pid, stat.ppid, _printable(stat.comm), stat.state, stat.start_time)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:32])


def vital_signs(pid: int, now: float, gone: Collection[int], among: Optional[Sequence[int]]) -> Vital:
    """What is known of the recorded process of this host.

    :param gone: processes to be taken for dead
    :param among: processes of which one may be the recorded one, by the number that it has inside a container; None
        for all
    """
    if pid in gone:
        return Vital(DEAD, "it is taken for stopped")
    process, detail, start = _process(pid, now)
    if process == DEAD:
        # A container on this node may share the host name and count its processes from 1.
        inner = _inside_container(pid, list_pids() if among is None else among)
        if inner is not None:
            return Vital(None if among is None else ALIVE, f"process {inner} has that number inside a container", start)
    return Vital(process, detail, start)


def compare_hosts(recorded: str, local: str) -> str:
    """Whether two names mean the same host: ``same``, ``similar`` (one is the other without its domain) or ``other``.

    The service records the host name as it is, so only equal names are the same for certain.
    """
    left, right = recorded.strip().rstrip(".").lower(), local.strip().rstrip(".").lower()
    if left == right:
        return SAME
    if left.split(".")[0] == right.split(".")[0] and "." not in min(left, right, key=len):
        return SIMILAR
    return OTHER


def _process(pid: int, now: float) -> Tuple[Optional[str], str, Optional[float]]:
    """Whether a process of this node lives, something to know it by, and when it was started."""
    if not _exists(pid):
        return DEAD, "", None
    owner = _status(pid).get("Tgid", str(pid))
    if owner != str(pid):
        return DEAD, f"its number now belongs to a thread of process {owner}", None
    process = read_stat(pid)
    if process is None:
        # It went just now, or /proc hides it from this user.
        return (ALIVE, "", None) if _exists(pid) else (DEAD, "", None)
    if process.state in ENDED and not has_live_threads(pid):
        return DEAD, "it is a zombie, which holds nothing", None
    return ALIVE, f"{_printable(process.comm)}, for {max(0.0, now - process.start_time):.0f} s", process.start_time


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _inside_container(pid: int, candidates: Collection[int]) -> Optional[int]:
    """The one of ``candidates`` that has this number in a PID namespace further in."""
    for candidate in candidates:
        if str(pid) in _status(candidate).get("NSpid", "").split()[1:]:
            return candidate
    return None


def _status(pid: int) -> Dict[str, str]:
    """``/proc/<pid>/status``; unlike the command line it can be read of a process that hangs in the kernel."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            pairs = [line.partition(":") for line in stream]
    except OSError:
        return {}
    return {name: value.strip() for name, _colon, value in pairs}

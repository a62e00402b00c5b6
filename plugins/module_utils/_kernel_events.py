# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened to a node according to its kernel log: kills for want of memory, XIDs, hung tasks, storage that fails.

A log that could not be read, or that does not reach back far enough, is never taken for one in which nothing happened.
Names in messages are chosen by processes, so every message must begin with what the kernel writes first. This util is
private to the collection.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_log, _xid_lines, _xids
from ansible_collections.ringrift.recovery.plugins.module_utils._kernel_log import KernelLog, Record
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem, as_dicts

INFO = "info"
SEVERITIES = (INFO, WARNING, ERROR)
UNKNOWN = "unknown"
CLEAN = "clean"

OOM_KILL = "oom_kill"
XID = "xid"
SXID = "sxid"
GPU_LOST = "gpu_lost"
HUNG_TASK = "hung_task"
SOFT_LOCKUP = "soft_lockup"
NFS_STALL = "nfs_stall"
FILESYSTEM_ERROR = "filesystem_error"
BLOCK_IO_ERROR = "block_io_error"
NVME_ERROR = "nvme_error"
KINDS = (
    OOM_KILL,
    XID,
    SXID,
    GPU_LOST,
    HUNG_TASK,
    SOFT_LOCKUP,
    NFS_STALL,
    FILESYSTEM_ERROR,
    BLOCK_IO_ERROR,
    NVME_ERROR,
)

MAX_MESSAGE = 500
MAX_WORD = 200
MAX_UNPARSED = 3
# How many records after the first line of a message in several records its end may come.
NEAR = 8


@dataclass
class Event:
    """One thing that happened: the message that says so, and ``fields``, which depend on the kind."""

    kind: str
    record: Record
    severity: str
    action: Optional[str]
    fields: Dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> Dict[str, Any]:
        return {
            "kind": self.kind,
            "time": iso(self.record.time),
            "seconds_since_boot": self.record.seconds,
            "severity": self.severity,
            "message": printable(self.record.text, MAX_MESSAGE),
            "action": self.action,
            **self.fields,
        }


@dataclass(frozen=True)
class Repeat:
    """A rule that was hit: the same place failed ``incidents`` times between ``first`` and ``last`` (unix seconds)."""

    rule: _xids.RepeatRule
    code: int
    bus_id: str
    place: Optional[str]
    incidents: int
    first: Optional[float]
    last: Optional[float]

    def as_dict(self) -> Dict[str, Any]:
        return {
            "rule": self.rule.name,
            "code": self.code,
            "bus_id": self.bus_id,
            "place": self.place,
            "incidents": self.incidents,
            "first": iso(self.first),
            "last": iso(self.last),
            "action": self.rule.action,
            "meaning": self.rule.meaning,
        }


@dataclass(frozen=True)
class Report:
    """Everything that the log says. ``verdict`` is ``unknown`` where nothing was found in a log that is incomplete."""

    verdict: str
    msg: str
    source: Optional[str]
    tried: Tuple[_kernel_log.Attempt, ...]
    events: Tuple[Event, ...]
    summary: Dict[str, int]
    repeats: Tuple[Repeat, ...]
    worst_action: Optional[str]
    gpus: Dict[str, str]
    oldest: Optional[float]
    newest: Optional[float]
    complete: bool
    truncated: bool
    problems: Tuple[Problem, ...]

    def as_dict(self) -> Dict[str, Any]:
        return {
            "verdict": self.verdict,
            "msg": self.msg,
            "source": self.source,
            "tried": [attempt.as_dict() for attempt in self.tried],
            "events": [event.as_dict() for event in self.events],
            "summary": self.summary,
            "repeats": [repeat.as_dict() for repeat in self.repeats],
            "worst_action": self.worst_action,
            "gpus": self.gpus,
            "oldest": iso(self.oldest),
            "newest": iso(self.newest),
            "complete": self.complete,
            "truncated": self.truncated,
            "problems": as_dicts(self.problems),
        }


def collect(
    source: Optional[str],
    since: Optional[float],
    timeout: float,
    kinds: Sequence[str],
    max_events: int,
    path: Optional[str] = None,
) -> Report:
    """Read the kernel log and say what happened.

    :param source: one of journald, dmesg and kmsg; None for the first that works
    :param since: unix seconds; None for all since boot
    :param timeout: seconds for all sources together
    :param kinds: the kinds to report
    :param max_events: how many events to return at most, the newest
    :param path: read this file and no source, as /var/log/kern.log or a saved output of dmesg
    """
    if path is None:
        return report(_kernel_log.read(source, since, timeout), kinds, max_events)
    # On most nodes it is not needed, and would be compiled for nothing.
    from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_file

    return report(_kernel_file.read(path, since, timeout), kinds, max_events)


def report(log: KernelLog, kinds: Sequence[str] = KINDS, max_events: int = 200) -> Report:
    """What a log says, in events of these kinds."""
    if log.source is None:
        why = "; ".join(f"{attempt.source}: {attempt.reason}" for attempt in log.attempts)
        words = f"The kernel log could not be read, so nothing is known of what happened: {why}"
        return Report(
            UNKNOWN,
            words,
            None,
            log.attempts,
            (),
            {},
            (),
            None,
            {},
            None,
            None,
            False,
            False,
            (Problem("no_source", words),),
        )
    scan = Scan()
    for record in log.records:
        scan.add(record)
    events = [event for event in scan.finish() if event.kind in kinds]
    repeats = find_repeats(events)
    problems = _problems(log, scan, events)
    severities = [event.severity for event in events] + [WARNING for _repeat in repeats]
    worst = max(severities, key=SEVERITIES.index, default=INFO)
    complete = log.reaches_back
    verdict = worst if worst != INFO else (CLEAN if complete and not scan.unread else UNKNOWN)
    summary = {kind: sum(event.kind == kind for event in events) for kind in KINDS if kind in kinds}
    times = [record.time for record in log.records if record.time is not None]
    action = worst_action(events, repeats)
    return Report(
        verdict,
        _sentence(log, summary, verdict, action, complete),
        log.source,
        log.attempts,
        tuple(events[-max_events:] if max_events else ()),
        summary,
        tuple(repeats),
        action,
        scan.gpus,
        min(times, default=None),
        max(times, default=None),
        complete,
        log.truncated or len(events) > max_events,
        tuple(problems),
    )


def _problems(log: KernelLog, scan: Scan, events: Sequence[Event]) -> List[Problem]:
    found = []
    if log.truncated:
        found.append(
            Problem("truncated", "The log is longer than what is read; its oldest part was left out.", WARNING)
        )
    elif not log.reaches_back:
        words = "The log does not reach back to the time asked for; what happened before it begins is not known."
        found.append(Problem("log_incomplete", words, WARNING))
    unknown = sorted({event.fields["code"] for event in events if event.kind == XID and not event.fields["known"]})
    if unknown:
        codes = ", ".join(str(code) for code in unknown[:20])
        found.append(
            Problem("unknown_xid", f"XIDs that are in no table, so that their action is not known: {codes}", WARNING)
        )
    if scan.unread:
        shown = "; ".join(printable(text, 120) for text in scan.unread[:MAX_UNPARSED])
        found.append(
            Problem("unparsed_xid", f"{len(scan.unread)} lines look like XIDs and cannot be read: {shown}", WARNING)
        )
    return found


def _sentence(log: KernelLog, summary: Dict[str, int], verdict: str, action: Optional[str], complete: bool) -> str:
    counts = [f"{count} {kind}" for kind, count in summary.items() if count]
    words = f"{len(log.records)} kernel messages from {log.source}: {', '.join(counts) or 'nothing of these kinds'}"
    if action not in (None, _xids.IGNORE):
        words += f"; the most that is asked for is {action}"
    if not complete:
        words += "; the log is not complete" + (", so this proves nothing" if verdict == UNKNOWN else "")
    return words + "."


def worst_action(events: Iterable[Event], repeats: Iterable[Repeat]) -> Optional[str]:
    """The most that the events ask for. None where there is none, or only such of which it is not known.

    When the driver says that a GPU needs nothing any more, what it asked for before is over, but not a replacement.
    """
    needed: Dict[Optional[str], Optional[str]] = {}
    worst = None
    for event in events:
        bus = event.fields.get("bus_id")
        if event.kind == XID and event.fields["code"] == 154 and event.action == _xids.IGNORE:
            over = needed.get(bus) in (_xids.DRAIN, _xids.RESET, _xids.REBOOT)
            needed[bus] = _xids.IGNORE if over else _xids.worse(needed.get(bus), _xids.IGNORE)
        else:
            needed[bus] = _xids.worse(needed.get(bus), event.action)
    for action in [*needed.values(), *(repeat.rule.action for repeat in repeats)]:
        worst = _xids.worse(worst, action)
    return worst


# Repeats


def find_repeats(events: Iterable[Event]) -> List[Repeat]:
    """The repeat rules that are hit. One fault writes several lines within milliseconds, and so counts once."""
    found: List[Repeat] = []
    hits = incidents(events)
    for rule in _xids.REPEAT_RULES:
        places: Dict[Tuple[int, str, Optional[str]], List[Record]] = {}
        for code, bus, units, record in hits:
            if rule.codes is not None and code not in rule.codes:
                continue
            for unit in [None] if rule.unit == "gpu" else sorted(units):
                places.setdefault((code, bus, unit), []).append(record)
        for (code, bus, unit), records in places.items():
            most = _most_within(records, rule.window)
            if len(most) >= rule.count:
                found.append(Repeat(rule, code, bus, unit, len(most), most[0].time, most[-1].time))
    return found


def incidents(events: Iterable[Event]) -> List[Tuple[int, str, Set[str], Record]]:
    """Code, GPU, failing parts and first record of each incident, in order. Cleanup after another error is none."""
    found: List[Tuple[int, str, Set[str], Record]] = []
    open_ones: Dict[Tuple[int, str], Tuple[Optional[float], Set[str]]] = {}
    for event in events:
        if event.kind != XID or event.fields["bus_id"] is None or event.fields["caused_by"] is not None:
            continue
        code, bus = event.fields["code"], event.fields["bus_id"]
        unit, link = event.fields["unit"], event.fields["link"]
        # The parts of the GPU that share a TPC are one place.
        place = unit.rpartition(", SM")[0] if unit else f"link {link}" if link is not None else None
        now = _moment(event.record)
        last, places = open_ones.get((code, bus)) or (None, None)
        if places is None or (now is not None and last is not None and abs(now - last) > _xids.INCIDENT_GAP):
            places = set()
            found.append((code, bus, places, event.record))
        if place is not None:
            places.add(place)
        open_ones[(code, bus)] = (last if now is None else now, places)
    return found


def _moment(record: Record) -> Optional[float]:
    return record.time if record.time is not None else record.seconds


def _most_within(records: Sequence[Record], window: float) -> List[Record]:
    """The largest group that lies within so many seconds."""
    first = last = start = 0
    for end, record in enumerate(records):
        while (_moment(record) or 0.0) - (_moment(records[start]) or 0.0) > window:
            start += 1
        if end - start > last - first:
            first, last = start, end
    return list(records[first : last + 1])


# Lines


class Scan:
    """Goes through the records in order, and puts together what takes several of them."""

    def __init__(self) -> None:
        self.events: List[Event] = []
        self.gpus: Dict[str, str] = {}
        self.unread: List[str] = []
        self._position = 0
        self._losing: Optional[Tuple[int, str]] = None
        self._killing: Optional[Tuple[int, Event]] = None

    def add(self, record: Record) -> None:
        self._position += 1
        text = record.text
        if text.startswith(("NVRM: ", "nvidia-nvswitch")):
            self._add_gpu(record)
            return
        if text.startswith("oom-kill:"):
            self._add_victim(record)
            return
        killed = _KILLED.match(text)
        if killed:
            self._add_kill(record, killed)
            return
        for reader in _READERS:
            event = reader(record)
            if event is not None:
                self.events.append(event)
                return

    def finish(self) -> List[Event]:
        for event in self.events:
            if "bus_id" in event.fields and event.kind in (XID, GPU_LOST):
                event.fields["gpu_uuid"] = self.gpus.get(event.fields["bus_id"])
        return self.events

    def _add_gpu(self, record: Record) -> None:
        line = _xid_lines.parse(record.text)
        if isinstance(line, _xid_lines.IdentityLine):
            self.gpus[line.bus_id] = line.uuid
        elif isinstance(line, _xid_lines.XidLine):
            self.events.append(_xid_event(record, line))
        elif isinstance(line, _xid_lines.SxidLine):
            # The lines with registers repeat what the one with the words says.
            if line.fatal is not None:
                self.events.append(_sxid_event(record, line))
        elif isinstance(line, _xid_lines.LostLine):
            self._add_lost(record, line)
        elif _xid_lines.is_xid(record.text):
            self.unread.append(record.text)

    def _add_lost(self, record: Record, line: _xid_lines.LostLine) -> None:
        if line.part == "begin":
            self._losing = (self._position, line.bus_id or "")
            return
        bus = line.bus_id
        if line.part == "end" and self._losing is not None and self._position - self._losing[0] <= NEAR:
            bus = self._losing[1]
        self._losing = None
        self.events.append(Event(GPU_LOST, record, ERROR, _xids.REBOOT, {"bus_id": bus}))

    def _add_victim(self, record: Record) -> None:
        found = read_victim(record.text)
        event = Event(OOM_KILL, record, ERROR, _xids.RESTART_APP, {**_NO_VICTIM, **found})
        self.events.append(event)
        self._killing = (self._position, event)

    def _add_kill(self, record: Record, killed: re.Match[str]) -> None:
        pid, name, rest = int(killed.group(2)), killed.group(3), killed.group(4)
        memory = {key: _kilobytes(rest, word) for key, word in _MEMORY_WORDS}
        if self._killing is not None and self._position - self._killing[0] <= NEAR:
            event = self._killing[1]
            if event.fields["pid"] == pid:
                # Both lines are of one kill; the second one is what people look for.
                event.record = record
                event.fields.update(memory, process_name=printable(name, MAX_WORD))
                self._killing = None
                return
        prefix = killed.group(1)
        where = None if prefix is None else "cgroup" if prefix.startswith("Memory") else "machine"
        fields = {**_NO_VICTIM, "pid": pid, "process_name": printable(name, MAX_WORD), "constraint": where, **memory}
        self.events.append(Event(OOM_KILL, record, ERROR, _xids.RESTART_APP, fields))


_NO_VICTIM: Dict[str, Any] = {
    "pid": None,
    "process_name": None,
    "uid": None,
    "constraint": None,
    "cgroup": None,
    "task_cgroup": None,
    "total_vm_kb": None,
    "anon_rss_kb": None,
    "file_rss_kb": None,
    "shmem_rss_kb": None,
}
_MEMORY_WORDS = (
    ("total_vm_kb", "total-vm"),
    ("anon_rss_kb", "anon-rss"),
    ("file_rss_kb", "file-rss"),
    ("shmem_rss_kb", "shmem-rss"),
)
_CONSTRAINTS = {"MEMCG": "cgroup", "NONE": "machine", "CPUSET": "cpuset", "MEMORY_POLICY": "memory_policy"}
# The name is as long as it can be, as a process may have put the rest of a line into it.
_KILLED = re.compile(
    r"\A((?:Memory cgroup out|Out) of memory(?: \(oom_kill_allocating_task\))?: )?"
    r"Killed process (\d{1,10}) \((.{0,64})\),? ?((?:UID \d{1,10}, ?)?total-vm:.{0,400})",
    re.ASCII | re.DOTALL,
)
_VICTIM_END = re.compile(r",pid=(\d{1,10}),uid=(\d{1,10})\s*\Z", re.ASCII)


def read_victim(text: str) -> Dict[str, Any]:
    """Victim and control groups of an ``oom-kill:`` line; what it does not say is left out.

    Read from its ends, since names of control groups and processes may hold commas.
    """
    found: Dict[str, Any] = {}
    match = re.match(r"\Aoom-kill:constraint=CONSTRAINT_([A-Z_]{1,30}),", text, re.ASCII)
    if match:
        found["constraint"] = _CONSTRAINTS.get(match.group(1), match.group(1).lower())
    end = _VICTIM_END.search(text[-60:])
    if end:
        found["pid"], found["uid"] = int(end.group(1)), int(end.group(2))
        text = text[: len(text) - len(end.group(0))]
        head, mark, name = text.rpartition(",task=")
        if mark:
            text = head
            found["process_name"] = printable(name, MAX_WORD)
    head, mark, group = text.partition(",task_memcg=")
    if mark:
        found["task_cgroup"] = printable(group, MAX_WORD)
        text = head
    _head, mark, group = text.partition(",oom_memcg=")
    if mark:
        found["cgroup"] = printable(group, MAX_WORD)
    return found


def _kilobytes(text: str, word: str) -> Optional[int]:
    match = re.search(rf"\b{word}:(\d{{1,15}})kB", text, re.ASCII)
    return int(match.group(1)) if match else None


def _xid_event(record: Record, line: _xid_lines.XidLine) -> Event:
    known = _xids.XIDS.get(line.code)
    action = xid_action(line)
    if action is None or action == _xids.RESTART_APP:
        severity = WARNING
    else:
        severity = INFO if action == _xids.IGNORE else ERROR
    fields = {
        "code": line.code,
        "known": known is not None,
        "name": known.name if known else None,
        "meaning": known.meaning if known else None,
        "field_agrees": known.agreed if known else None,
        "bus_id": line.bus_id,
        "gpu_uuid": None,
        "gpu_instance": line.gpu_instance,
        "compute_instance": line.compute_instance,
        "pid": line.pid,
        "process_name": None if line.process_name is None else printable(line.process_name, MAX_WORD),
        "caused_by": line.caused_by,
        "recovery_action": line.recovery_action,
        "unit": line.unit,
        "link": line.link,
        "fatal": line.fatal,
        "subcode": line.subcode,
    }
    return Event(XID, record, severity, action, fields)


def xid_action(line: _xid_lines.XidLine) -> Optional[str]:
    """What to do about one XID: what its own text says, else the table; None where neither says it."""
    if line.code == 154:
        return _xids.RECOVERY_ACTIONS.get((line.recovery_action or "").lower())
    known = _xids.XIDS.get(line.code)
    action = known.action if known else None
    if line.needs_drain:
        action = _xids.worse(action, _xids.DRAIN)
    if line.needs_reset:
        action = _xids.worse(action, _xids.RESET)
    return _xids.IGNORE if line.fatal is False else action


def _sxid_event(record: Record, line: _xid_lines.SxidLine) -> Event:
    fields = {"code": line.code, "switch": line.switch, "bus_id": line.bus_id, "fatal": line.fatal, "link": line.link}
    severity, action = (ERROR, _xids.RESET) if line.fatal else (WARNING, _xids.IGNORE)
    return Event(SXID, record, severity, action, fields)


_HUNG = re.compile(
    r"\AINFO: task (.{1,64}):(\d{1,10})(?: <\w{1,10}>)? (?:is )?blocked (?:in I/O wait )?"
    r"for more than (\d{1,7}) seconds",
    re.ASCII,
)
_LOCKUP = re.compile(
    r"\A(?:watchdog: )?BUG: soft lockup - CPU#(\d{1,5}) stuck for (\d{1,7})s! \[(.{1,64}):(\d{1,10})\]", re.ASCII
)
_NFS = re.compile(r"\Anfs: server (\S{1,200}) (not responding, still trying|not responding, timed out|OK)\b", re.ASCII)
_NFS_STATES = {
    "not responding, still trying": "not_responding",
    "not responding, timed out": "timed_out",
    "OK": "ok",
}
_EXT = re.compile(r"\AEXT(\d)-fs error \(device ([\w.-]{1,60})\)", re.ASCII)
_EXT_READ_ONLY = re.compile(r"\AEXT(\d)-fs \(([\w.-]{1,60})\): Remounting filesystem read-only", re.ASCII)
_JOURNAL = re.compile(r"\AAborting journal on device ([\w.-]{1,60})\.", re.ASCII)
_XFS = re.compile(
    r"\AXFS \(([\w.-]{1,60})\): .{0,200}?(?:[Cc]orruption|metadata I/O error|[Ff]ilesystem has been shut down|"
    r"Log I/O [Ee]rror|[Ss]hutting down filesystem)",
    re.ASCII,
)
_BTRFS = re.compile(r"\ABTRFS(?:: | )(?:error|critical) \(device ([\w.-]{1,60})", re.ASCII)
_FILESYSTEMS = {_EXT: "ext", _EXT_READ_ONLY: "ext", _JOURNAL: "ext4", _XFS: "xfs", _BTRFS: "btrfs"}
_BUFFER_IO = re.compile(r"\ABuffer I/O error on dev(?:ice)? ([\w.-]{1,60}), logical block (\d{1,20})", re.ASCII)
_BLOCK_IO = re.compile(
    r"\A(?:blk_update_request: |print_req_error: )?(?:I/O|critical \w{1,20}|recoverable \w{1,20}) error, "
    r"dev ([\w.-]{1,60}), sector (\d{1,20})",
    re.ASCII,
)
_NVME = re.compile(r"\Anvme (nvme\d{1,5}): (.{1,300})", re.ASCII)
_NVME_BAD = re.compile(
    r"(?:QID \d{1,5} timeout|I/O .{0,80}timeout|controller is down|[Dd]evice not ready|[Rr]emoving after probe failure|"
    r"frozen state error|[Aa]bort status|failed to |[Ii]dentify .{0,40}failed|[Rr]esetting controller due to)",
    re.ASCII,
)


def _read_hung(record: Record) -> Optional[Event]:
    match = _HUNG.match(record.text) if record.text.startswith("INFO: task ") else None
    if match is None:
        return None
    name, pid, seconds = match.groups()
    fields = {"process_name": printable(name, MAX_WORD), "pid": int(pid), "blocked_seconds": int(seconds)}
    return Event(HUNG_TASK, record, WARNING, None, fields)


def _read_lockup(record: Record) -> Optional[Event]:
    match = _LOCKUP.match(record.text) if "soft lockup" in record.text else None
    if match is None:
        return None
    cpu, seconds, name, pid = match.groups()
    fields = {
        "process_name": printable(name, MAX_WORD),
        "pid": int(pid),
        "cpu": int(cpu),
        "blocked_seconds": int(seconds),
    }
    return Event(SOFT_LOCKUP, record, ERROR, None, fields)


def _read_nfs(record: Record) -> Optional[Event]:
    match = _NFS.match(record.text) if record.text.startswith("nfs: ") else None
    if match is None:
        return None
    state = _NFS_STATES[match.group(2)]
    severity = INFO if state == "ok" else WARNING
    return Event(NFS_STALL, record, severity, None, {"server": printable(match.group(1), MAX_WORD), "state": state})


def _read_filesystem(record: Record) -> Optional[Event]:
    text = record.text
    if not text.startswith(("EXT", "XFS", "BTRFS", "Aborting journal")):
        return None
    match = next(filter(None, (pattern.match(text) for pattern in _FILESYSTEMS)), None)
    if match is None:
        return None
    pattern = match.re
    # A journal that is given up is one of ext4.
    name = f"ext{match.group(1)}" if pattern in (_EXT, _EXT_READ_ONLY) else _FILESYSTEMS[pattern]
    device = match.group(match.re.groups)
    read_only = True if pattern is _EXT_READ_ONLY or "forced readonly" in text else None
    return Event(FILESYSTEM_ERROR, record, ERROR, None, {"device": device, "filesystem": name, "read_only": read_only})


def _read_block(record: Record) -> Optional[Event]:
    if " error" not in record.text[:80]:
        return None
    match = _BUFFER_IO.match(record.text) or _BLOCK_IO.match(record.text)
    if match is None:
        return None
    return Event(BLOCK_IO_ERROR, record, ERROR, None, {"device": match.group(1), "sector": int(match.group(2))})


def _read_nvme(record: Record) -> Optional[Event]:
    match = _NVME.match(record.text) if record.text.startswith("nvme nvme") else None
    if match is None or not _NVME_BAD.search(match.group(2)):
        return None
    return Event(NVME_ERROR, record, ERROR, None, {"device": match.group(1)})


_READERS: Tuple[Callable[[Record], Optional[Event]], ...] = (
    _read_hung,
    _read_lockup,
    _read_nfs,
    _read_filesystem,
    _read_block,
    _read_nvme,
)


# Words


def printable(text: str, limit: int) -> str:
    """The text on one line, with everything escaped that a terminal may act upon, and not longer than ``limit``."""
    text = text[:limit]
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return shown[:limit]


def iso(moment: Optional[float]) -> Optional[str]:
    """A time in unix seconds as ISO 8601 in UTC; None where it is none."""
    if moment is None:
        return None
    try:
        when = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")

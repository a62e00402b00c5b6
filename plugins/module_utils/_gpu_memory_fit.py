# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The batch size to restart with, and why: pure functions over what was seen of the nodes.

A size only ever shrinks here: what ran out of GPU memory is halved, and what the tables do not allow is cut to what
they do. What cannot be told counts as small. This util is private to the collection.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import number, part, rows

AUTO = "auto"
RUNBOOK_TABLE, SERVICE_TABLE, HALVED, REQUESTED, DEFAULT = (
    *("runbook_table", "service_table", "halved", "requested"),
    "default",
)
VIAS = ("direct", "p2p")

# GB of a GPU's memory and batch size. The runbook, "Prevention", item 2.
RUNBOOK_ROWS = ((16, 512), (8, 256))
# The service's own: 64 samples, times the factor that its GpuScalingConfig has for the class of the GPU.
SERVICE_ROWS = ((90, 4096), (70, 2048), (30, 1024), (16, 512))
# A GPU reports less than it is sold with: one of 16 GB has from 14.75 to 16 GiB.
NOMINAL = 0.92
# Where the service's own tuning begins and ends.
FLOOR, CEILING = 64, 4096
MOST = 65536
OOM_CODES = ("cuda_oom", "circuit_open")
FIXED = "--no-auto-tune-batch-size"
# A clock is read to the second, and a log is written to after the start of its run.
SLACK = 2.0


@dataclass(frozen=True)
class Facts:
    """What the size depends on. ``memory_total`` is MiB, that of the smallest GPU that may train; None is unknown.

    ``last`` is the size that ran out of memory on ``ran_out``, or else that of the last run; ``last_from`` says who
    told.
    """

    memory_total: Optional[float] = None
    memory_of: Optional[str] = None
    last: Optional[int] = None
    last_from: Optional[str] = None
    ran_out: Optional[str] = None


@dataclass(frozen=True)
class Fit:
    """The size to start with. ``changed`` tells that it is another than ``instead_of``."""

    batch_size: int
    instead_of: int
    changed: bool
    floor_reached: bool
    source: str
    reasons: Tuple[str, ...]
    extra_args: Tuple[str, ...]

    @property
    def message(self) -> str:
        other = f" instead of {self.instead_of}" if self.changed else ""
        why = f": {self.reasons[0]}" if self.reasons else ""
        return f"batch size {self.batch_size}{other}{why}"

    def as_dict(self) -> Dict[str, Any]:
        shown = {**asdict(self), "message": self.message}
        return {**shown, "reasons": list(self.reasons), "extra_args": list(self.extra_args)}


def fit(
    facts: Facts,
    requested: Any = None,
    usual: Any = 512,
    floor: Any = FLOOR,
    auto_tunes: Optional[bool] = None,
    via: str = "direct",
) -> Fit:
    """Choose.

    :param requested: a number, which wins; ``auto``, which also heeds the tables; or nothing: the usual size, unless
        the last run was out of memory
    :param auto_tunes: whether the service tunes the size by itself, unless it is told not to; None is unknown
    :param via: ``direct``, where the trainer can be given arguments, or ``p2p``
    :raises RecoveryError: a value cannot be used
    """
    if via not in VIAS:
        raise RecoveryError(f"via is {via!r}; it must be direct or p2p.")
    usual = _number("usual", usual, MOST, "Set ringrift_batch_size to a number, for example 512.")
    floor = _number("floor", floor, CEILING, "Set it to a power of two, for example 64.")
    if floor != _power(floor):
        raise RecoveryError(f"floor is {floor}; it must be a power of two, for example {_power(floor)}.")
    if requested not in (None, "", AUTO):
        requested = _number("batch_size", requested, MOST, "Give a number, or auto, or leave it out.")
        return _asked(facts, requested, usual, floor, auto_tunes, via)
    if facts.ran_out:
        return _halved(facts, usual, floor, auto_tunes, via)
    return _usual(facts, usual, requested == AUTO, auto_tunes, via)


def row(memory_total: Optional[float]) -> Tuple[int, str, str]:
    """The largest size that the tables allow, which table says so, and for what in words."""
    smallest = RUNBOOK_ROWS[-1]
    if memory_total is None:
        return smallest[1], RUNBOOK_TABLE, "the GPU's memory is not known, so the smallest row of the runbook's table"
    has = f"{memory_total / 1024:.0f} GiB of GPU memory"
    for size, batch in SERVICE_ROWS:
        if memory_total >= size * 1024 * NOMINAL:
            # Both have a row for 16 GB, and it is the same.
            table = RUNBOOK_TABLE if (size, batch) in RUNBOOK_ROWS else SERVICE_TABLE
            return batch, table, has
    least, batch = float(smallest[0]), smallest[1]
    while memory_total < least * 1024 * NOMINAL and batch > 1:
        least, batch = least / 2, batch // 2
    return batch, RUNBOOK_TABLE, has if least == smallest[0] else f"{has}, less than the runbook's table begins with"


def _asked(facts: Facts, requested: int, usual: int, floor: int, auto_tunes: Optional[bool], via: str) -> Fit:
    reasons = ["it was asked for"]
    allowed, _table, memory = row(facts.memory_total)
    if facts.memory_total is not None and requested > allowed:
        reasons.append(f"WARNING: {memory} allows {allowed}")
    if facts.ran_out and facts.last is not None and 2 * requested > facts.last:
        reasons.append(f"WARNING: {_what_ran_out(facts, facts.last)}; -e batch_size=auto takes at most half of that")
    out = facts.ran_out is not None and requested <= floor
    extra, told = _arguments(auto_tunes, via)
    return Fit(requested, usual, requested != usual, out, REQUESTED, (*reasons, *told), extra)


def _halved(facts: Facts, usual: int, floor: int, auto_tunes: Optional[bool], via: str) -> Fit:
    last = usual if facts.last is None else facts.last
    allowed, table, memory = row(facts.memory_total)
    reasons = [_what_ran_out(facts, last)]
    if last <= floor:
        # Never upwards, whatever the floor is.
        batch, source = _power(last), HALVED
    else:
        half = _power(last // 2)
        batch, source = (half, HALVED) if half <= allowed else (allowed, table)
        if source != HALVED:
            reasons.append(f"half of that is {half}, and {memory} allows {allowed}")
        if batch < floor:
            reasons.append(f"not below the floor, which is {floor}")
        batch = max(batch, floor)
    reached = batch <= floor
    if reached:
        again = "there is no smaller size left to try" if last <= floor else "should it run out again"
        reasons.append(
            f"{floor} is the floor; {again}: let the service choose by itself (its --safe-mode, where it has that), "
            "train on another node (-e restart_via=direct -e train_on=NODE), or look with ringrift.recovery.gpu_status "
            "for memory that a process that is gone still keeps"
        )
    else:
        reasons.append(f"to make it last, set ringrift_batch_size: {batch} in the inventory")
    extra, told = _arguments(auto_tunes, via)
    return Fit(batch, last, batch != last, reached, source, (*reasons, *told), extra)


def _usual(facts: Facts, usual: int, auto: bool, auto_tunes: Optional[bool], via: str) -> Fit:
    allowed, table, memory = row(facts.memory_total)
    if not auto:
        known = facts.memory_total is not None and usual > allowed
        warning = (f"WARNING: {memory} allows {allowed}; -e batch_size=auto takes that",) if known else ()
        return Fit(usual, usual, False, False, DEFAULT, ("it is the usual one", *warning), ())
    batch = usual if facts.last is None else facts.last
    reason = "it is the usual one" if facts.last is None else f"the last run had it, says {facts.last_from}"
    source = DEFAULT
    if batch > allowed:
        batch, source, reason = allowed, table, f"{memory} allows {allowed}"
    extra, told = _arguments(auto_tunes, via) if batch != usual else ((), ())
    return Fit(batch, usual, batch != usual, False, source, (reason, *told), extra)


def _arguments(auto_tunes: Optional[bool], via: str) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    """What makes the trainer keep to a size, and what has to be said about it."""
    if auto_tunes is False:
        return (), ()
    if via == "p2p":
        may = "tunes" if auto_tunes else "may tune"
        return (), (
            f"the orchestrator hands on the size and no argument, and the service {may} the size by itself on a GPU: "
            "where [AutoBatchSize] in the log names another one, start it with -e restart_via=direct",
        )
    if auto_tunes:
        return (FIXED,), (f"{FIXED}, because the service would override the size on a GPU",)
    return (), (f"whether this service knows {FIXED} could not be told, so it is not given",)


def _what_ran_out(facts: Facts, last: int) -> str:
    who = "the usual size, the real one is not known" if facts.last is None else facts.last_from
    return f"it ran out of GPU memory with {last} on {facts.ran_out}{f' ({who})' if who else ''}"


def facts_of(evidence: Mapping[str, Any]) -> Facts:
    """What the size depends on, from what was seen of the nodes.

    :param evidence: ``{hosts: {name: node}, p2p, node}``; a node is what the module ``node_evidence`` returns, ``p2p``
        what ``p2p_training`` returns, and ``node`` the one to start on, where that is known
    :raises RecoveryError: it is not of this shape
    """
    hosts, start_on = evidence.get("hosts") or {}, evidence.get("node")
    if not isinstance(hosts, Mapping):
        raise RecoveryError(f"hosts is {_shown(hosts)}; it must map each host to what node_evidence returned.")
    for host, node in hosts.items():
        if not isinstance(node, Mapping):
            raise RecoveryError(f"hosts has {_shown(node)} for {host}; it must be what node_evidence returned there.")
    if start_on and start_on not in hosts:
        raise RecoveryError(f"node is {start_on!r}, and hosts has only {', '.join(map(str, hosts)) or 'none'}.")
    jobs = rows(part(evidence, "p2p").get("jobs"))
    memory, whose = _smallest({start_on: hosts[start_on]} if start_on else hosts)
    out = [host for host, node in hosts.items() if ran_out(node)]
    sizes = [(host, *size) for host, node in hosts.items() for size in _last_sizes(host, node, jobs)]
    if out:
        # The first of a node is the one that counts; of nodes the smallest.
        firsts = {host: (size, who) for host, size, who, _at in reversed(sizes) if host in out}
        host = min(firsts, key=lambda name: firsts[name][0]) if firsts else out[0]
        last, who = firsts.get(host, (None, None))
        return Facts(memory, whose, last, who, host)
    newest = max(sizes, key=lambda entry: entry[3], default=None)
    last, who = (newest[1], f"{newest[2]} of {newest[0]}") if newest else (None, None)
    return Facts(memory, whose, last, who)


def ran_out(node: Mapping[str, Any]) -> bool:
    """Whether the end of a node's training log tells of it; what stands before the last progress is over."""
    return any(
        entry.get("code") in OOM_CODES and entry.get("after_progress") is not False
        for entry in rows(part(node, "log").get("findings"))
    )


def _smallest(hosts: Mapping[str, Mapping[str, Any]]) -> Tuple[Optional[float], Optional[str]]:
    """The memory of the smallest GPU that may train; unknown when that of one of them is."""
    found: List[Tuple[float, str]] = []
    for host, node in hosts.items():
        if not isinstance(node.get("gpu"), Mapping):
            return None, None
        gpus = rows(node["gpu"].get("gpus"))
        pids = {trainer.get("pid") for trainer in _trainers(node)}
        busy = [gpu for gpu in gpus if any(entry.get("pid") in pids for entry in rows(gpu.get("processes")))]
        for gpu in busy or gpus:
            memory: Any = gpu.get("memory_total")
            # A trainer sees a slice of a GPU that is divided, and not the whole.
            if not _is_number(memory) or memory <= 0 or gpu.get("mig_mode"):
                return None, None
            found.append((float(memory), f"GPU {gpu.get('index')} of {host}"))
    return min(found, default=(None, None))


def _last_sizes(
    host: str, node: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]
) -> Iterator[Tuple[int, str, float]]:
    """The sizes that the last run of a node is said to have had, who says so, and of when that is; the best first."""
    log = part(node, "log")
    written = log.get("mtime") if _is_number(log.get("mtime")) else None
    if _is_size(log.get("batch_size")):
        yield log["batch_size"], "its log", written or 0.0
    for trainer in _trainers(node):
        size = size_in(trainer.get("cmdline") or ())
        if size:
            yield size, "its command line", trainer["start_time"] if _is_number(trainer.get("start_time")) else 0.0
    told = [
        (job.get("batch_size"), "its job record", job.get("started_at") or job.get("created_at"))
        for job in jobs
        if job.get("node") == host
    ]
    note = part(log, "start")
    told.append((size_in(note.get("cmdline") or ()), "its command line", note.get("at")))
    yield from _before(told, written)
    if ran_out(node):
        # A job that failed is tried again elsewhere, and its record then names that node.
        yield from _before([(job.get("batch_size"), "a job record", job.get("created_at")) for job in jobs], written)


def _before(told: Sequence[Tuple[Any, str, Any]], written: Optional[float]) -> List[Tuple[int, str, float]]:
    """The sizes of the runs that began before the log was last written to, the newest first."""
    known = [(size, who, at) for size, who, at in told if _is_size(size) and _is_number(at)]
    known = [entry for entry in known if written is None or entry[2] <= written + SLACK]
    return sorted(known, key=lambda entry: entry[2], reverse=True)


def size_in(words: Any) -> Optional[int]:
    """The batch size that a command line asks for."""
    words = [str(word) for word in words] if isinstance(words, (list, tuple)) else []
    for word, after in zip(words, [*words[1:], ""]):
        name, _sign, value = word.partition("=")
        if name == "--batch-size":
            text = value or after
            return int(text) if text.isascii() and text.isdecimal() and _is_size(int(text[:6])) else None
    return None


def _trainers(node: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    return rows(part(node, "progress").get("trainers"))


def _is_number(value: Any) -> bool:
    return number(value) is not None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST


def _number(name: str, value: Any, most: int, advice: str) -> int:
    # From a command line it comes as text.
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise RecoveryError(f"{name} is {_shown(value)}; it must be a whole number from 1 to {most}. {advice}")
    return value


def _power(size: int) -> int:
    """The largest power of two that is not above a number of 1 or more."""
    return 1 << (size.bit_length() - 1)


def _shown(value: Any) -> str:
    return repr(value)[:80]

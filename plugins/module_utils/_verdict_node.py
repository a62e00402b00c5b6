# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one node shows of its trainer, its files, its GPUs and its system, as findings.

This util is private to the collection.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping

from ansible_collections.ringrift.recovery.plugins.module_utils._finding import (
    CRITICAL,
    HIGH,
    LOW,
    MEDIUM,
    WARNING,
    Finding,
    finding,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import duration, number, part, rows, text, texts
from ansible_collections.ringrift.recovery.plugins.module_utils._standing import (
    ALIVE,
    BLOCKED,
    STALLED,
    Standing,
    processes,
)

# Lock verdicts that deserve words of their own: summary, severity, confidence.
LOCK_VERDICTS = {
    "held_live": ("a live process holds the lock and no trainer runs", WARNING, MEDIUM),
    "orphan_file": ("a dead holder left its lock file behind", WARNING, HIGH),
    "orphan_fd": ("the holder is dead, its child keeps the lock", CRITICAL, HIGH),
    "unknown": ("who holds the lock cannot be told", WARNING, LOW),
}

# What the log says, and of which cause that tells.
LOG_CAUSES = {
    "stale_data": ("data_not_ready", "the trainer refuses its data as too old", CRITICAL, HIGH),
    "data_invalid": ("data_not_ready", "the trainer refuses its data", CRITICAL, HIGH),
    "checkpoint_invalid": ("checkpoint_corrupt", "the trainer could not read a checkpoint", CRITICAL, MEDIUM),
    "weights_not_loaded": ("checkpoint_corrupt", "the trainer began without its weights", WARNING, MEDIUM),
    "resume_refused": ("checkpoint_corrupt", "the trainer refuses to go on from its checkpoint", CRITICAL, MEDIUM),
    "disk_full": ("disk_full", "the trainer ran out of disk space", CRITICAL, MEDIUM),
    "nan": ("training_failed", "the loss is not a number any more", CRITICAL, MEDIUM),
    "cuda_error": ("training_failed", "CUDA reports errors", CRITICAL, MEDIUM),
    "nccl_timeout": ("training_failed", "the processes of the training lost each other", CRITICAL, MEDIUM),
}
OUT_OF_MEMORY = ("cuda_oom", "circuit_open")
ENDS = ("traceback", "training_failed")

CLOCK_SKEW = 60.0
# Errors for which a killed program is named by its interpreter or by what PyTorch calls its workers.
TRAINER_NAMES = ("python", "pt_data_worker", "pt_main_thread")


def trainer_findings(config: str, host: str, node: Mapping[str, Any], standing: Standing) -> Iterator[Finding]:
    progress = part(node, "progress")
    for problem in rows(progress.get("problems")):
        if problem.get("code") == "duplicate_trainers":
            said = [str(problem.get("message"))]
            yield finding(config, "duplicate_trainers", host, "more than one trainer runs here", said, WARNING, MEDIUM)
    if standing.state != STALLED:
        return
    watched = {entry.get("pid"): entry for entry in processes(node)}
    facts: List[str] = []
    for trainer in standing.trainers:
        seen = watched.get(trainer.get("pid"), {})
        state = seen.get("state") or trainer.get("state") or "unknown"
        waits = f", waits in {seen['wchan']}" if text(seen.get("wchan")) else ""
        used = number(seen.get("cpu_percent"))
        uses = "" if used is None else f", uses {used:.0f} % of a core"
        facts.append(f"pid {trainer.get('pid')} is in state {state}{waits}{uses}")
    facts.append(standing.reason)
    if any((watched.get(one.get("pid"), {}).get("state") or one.get("state")) == BLOCKED for one in standing.trainers):
        yield finding(config, "process_unkillable", host, "the trainer hangs in the kernel; reboot the node", facts)
    else:
        yield finding(config, "process_hung", host, "the trainer lives and makes no progress", facts)


def lock_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    running = bool(part(node, "progress").get("running"))
    for lock in rows(node.get("locks")):
        state = lock.get("verdict")
        if state == "free" or (state == "held_live" and running):
            continue
        # A file that nobody keeps does not stand in the way of the service; it only tells of a holder that died.
        severity = WARNING if lock.get("held") is False else CRITICAL
        summary, severity, confidence = LOCK_VERDICTS.get(
            str(state), (f"the lock is not free ({state})", severity, HIGH)
        )
        facts = [f"{lock.get('backend')} lock {lock.get('path') or lock.get('key')}: {state}", str(lock.get("reason"))]
        token = text(part(lock, "holder").get("token"))
        facts.append(f"its holder is {token}" if token else "")
        yield finding(config, "lock_held", host, summary, facts, severity, confidence)


def file_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    data = part(node, "data")
    if data and data.get("valid") is not True:
        facts = [str(problem.get("message")) for problem in rows(data.get("problems"))]
        state = "is missing" if data.get("exists") is False else "cannot be trained on"
        yield finding(config, "data_not_ready", host, f"the training file {state}: {data.get('path')}", facts)
    older = False
    for checkpoint in rows(node.get("checkpoints")):
        path = str(checkpoint.get("path"))
        canonical = "canonical" in path.rpartition("/")[2]
        if checkpoint.get("valid") is False:
            facts = [str(problem.get("message")) for problem in rows(checkpoint.get("problems"))]
            facts.append("a newer checkpoint is whole" if older else "")
            severity = WARNING if older else CRITICAL
            yield finding(config, "checkpoint_corrupt", host, f"damaged checkpoint {path}", facts, severity)
        elif checkpoint.get("valid") is True and not canonical:
            # The list begins with the newest, so what comes now is older than one that is whole.
            older = True


def log_findings(config: str, host: str, node: Mapping[str, Any], standing: Standing) -> Iterator[Finding]:
    """What the end of the log says; what stands before the last progress is over."""
    said = [entry for entry in rows(part(node, "log").get("findings")) if entry.get("after_progress") is not False]
    alive = standing.state in ALIVE
    explained = False
    for entry in said:
        code, facts = str(entry.get("code")), [f"{entry.get('count')} times, last: {entry.get('line')}"]
        if code in OUT_OF_MEMORY:
            severity, confidence = (WARNING, MEDIUM) if alive else (CRITICAL, HIGH)
            explained = True
            yield finding(config, "gpu_oom", host, "the training log shows out-of-memory", facts, severity, confidence)
        elif code in LOG_CAUSES:
            cause, summary, severity, confidence = LOG_CAUSES[code]
            explained = explained or severity == CRITICAL
            yield finding(config, cause, host, summary, facts, WARNING if alive else severity, confidence)
        elif code == "host_killed":
            yield finding(config, "host_oom", host, "the log says that a process was killed", facts, WARNING, LOW)
    failed = part(node, "events", "last", "failed")
    ends = [entry for entry in said if entry.get("code") in ENDS]
    if alive or standing.running or not (ends or part(node, "events").get("state") == "failed"):
        return
    facts = [f"log: {entry.get('line')}" for entry in ends]
    if part(node, "events").get("state") == "failed":
        facts.append(f"event: {failed.get('error') or 'TRAINING_FAILED without a reason'}")
    severity, confidence = (WARNING, LOW) if explained else (CRITICAL, MEDIUM)
    yield finding(config, "training_failed", host, "the last trainer ended with an error", facts, severity, confidence)


def system_findings(config: str, host: str, node: Mapping[str, Any], standing: Standing) -> Iterator[Finding]:
    disk, memory, clock = part(node, "disk"), part(node, "memory"), part(node, "host")
    if disk.get("verdict") in ("full", "low"):
        full = disk["verdict"] == "full"
        summary = "the disk is full" if full else "the disk has less room than training needs"
        yield finding(config, "disk_full", host, summary, [str(disk.get("reason"))], CRITICAL if full else WARNING)
    if memory.get("verdict") == "low":
        facts = [str(memory.get("reason"))]
        yield finding(config, "memory_low", host, "the node is nearly out of memory", facts, WARNING, MEDIUM)
    offset = number(clock.get("clock_offset"))
    if offset is not None and abs(offset) > CLOCK_SKEW:
        way = "ahead of" if offset > 0 else "behind"
        summary = f"the clock is {duration(offset)} {way} the controller's"
        facts = ["locks, cooldowns and the age of progress are told by clocks; let NTP set it"]
        yield finding(config, "clock_skew", host, summary, facts, WARNING)
    yield from _kills(config, host, node, standing)


def _kills(config: str, host: str, node: Mapping[str, Any], standing: Standing) -> Iterator[Finding]:
    """Processes that the kernel killed for want of memory, where one of them may have been the trainer."""
    if standing.state in ALIVE:
        return
    started = number(part(node, "events", "last", "started").get("at"))
    booted = number(part(node, "host").get("booted_at"))
    killed = part(node, "log")
    confirmed = any(entry.get("code") == "host_killed" for entry in rows(killed.get("findings")))
    for event in rows(part(node, "kernel").get("events")):
        name = str(event.get("process_name") or "")
        if event.get("kind") != "oom_kill" or not name.startswith(TRAINER_NAMES):
            continue
        moment = _moment(event, booted)
        # A kill before the last start was of an earlier trainer.
        if moment is not None and started is not None and moment < started:
            continue
        facts = [f"{event.get('time')}: {event.get('message')}"]
        summary = f"the kernel killed {name} (pid {event.get('pid')}) for want of memory"
        yield finding(config, "host_oom", host, summary, facts, CRITICAL, HIGH if confirmed else MEDIUM)


def _moment(event: Mapping[str, Any], booted: Any) -> Any:
    """When a kernel event happened, in Unix seconds."""
    since = number(event.get("seconds_since_boot"))
    return booted + since if booted is not None and since is not None else None


def probe_gaps(host: str, node: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """What could not be seen on a node that answers."""
    for probe, why in part(node, "errors").items():
        yield {"host": host, "probe": str(probe), "reason": str(why)}
    progress = part(node, "progress")
    if progress.get("verdict") == "unknown":
        yield {"host": host, "probe": "progress", "reason": str(progress.get("reason"))}
    for probe in ("wiring", "daemons", "gpu"):
        seen = part(node, probe)
        if seen and (seen.get("reachable") is False or seen.get("verdict") == "unknown"):
            said = [str(problem.get("message")) for problem in rows(seen.get("problems"))]
            yield {"host": host, "probe": probe, "reason": str(seen.get("reason") or "; ".join(said) or "no answer")}
    for checkpoint in rows(node.get("checkpoints")):
        if checkpoint.get("valid") is None:
            said = [str(problem.get("message")) for problem in rows(checkpoint.get("problems"))]
            yield {"host": host, "probe": "checkpoints", "reason": "; ".join(said) or str(checkpoint.get("path"))}
    for entry in rows(node.get("unseen")):
        reason = ". ".join(texts([entry.get("what"), entry.get("hint")]))
        yield {"host": host, "probe": str(entry.get("probe")), "reason": reason}

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From evidence to findings: a pure function. This util is private to the collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

CRITICAL = "critical"
WARNING = "warning"
INFO = "info"

SEVERITIES = (CRITICAL, WARNING, INFO)

# Where the runbook speaks of a cause; a cause that it cannot see has no section.
RUNBOOK = {
    "gpu_oom": "1. GPU Out of Memory (OOM)",
    "lock_held": "2. Training Lock Not Released",
    "data_not_ready": "3. Data Pipeline Not Ready",
    "cooldown_active": "4. TrainingCoordinator Cooldown Active",
    "checkpoint_corrupt": "6. Model Checkpoint Corruption",
}

# The smallest playbook that mends a cause; where there is none, a person has to act first.
FIX = {
    "gpu_oom": "restart_training.yml -e batch_size=auto",
    "lock_held": "clear_state.yml",
    "data_not_ready": "prepare_data.yml",
    "cooldown_active": "restart_training.yml -e force=true",
    "checkpoint_corrupt": "restart_training.yml",
    "process_hung": "full_recovery.yml",
    "not_running": "full_recovery.yml",
    "duplicate_trainers": "full_recovery.yml -e force=true",
    "gpu_wedged": "full_recovery.yml",
}

HEALTHY = ("progressing", "starting")

# Lock verdicts that deserve words of their own: summary, severity, confidence.
LOCK_VERDICTS = {
    "held_live": ("a live process holds the lock and no trainer runs", WARNING, "medium"),
    "orphan_file": ("a dead holder left its lock file behind", WARNING, "high"),
    "orphan_fd": ("the holder is dead, its child keeps the lock", CRITICAL, "high"),
    "unknown": ("who holds the lock cannot be told", WARNING, "low"),
}

# Problems of a whole node's GPUs that no single GPU tells of.
GPU_PROBLEMS = {
    "driver_hung": "the GPU driver does not answer",
    "driver_not_loaded": "the GPU driver is not loaded",
    "gpu_lost": "a GPU is lost",
    "gpu_sick": "a GPU is sick",
}


@dataclass(frozen=True)
class Finding:
    """One cause, the host that it was seen on, and the facts that it rests on.

    ``severity`` is ``critical`` (training cannot go on), ``warning`` or ``info``; ``confidence`` is ``high``,
    ``medium`` or ``low``; ``fix`` is the playbook command that mends it, without the ``ansible-playbook`` in front.
    """

    cause: str
    severity: str
    confidence: str
    host: Optional[str]
    summary: str
    evidence: Tuple[str, ...]
    fix: Optional[str]
    runbook: Optional[str]

    def as_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "evidence": list(self.evidence)}


@dataclass(frozen=True)
class Verdict:
    """``stalled`` is True, False, or None where too little could be seen; None never counts as healthy."""

    config: str
    stalled: Optional[bool]
    findings: Tuple[Finding, ...]
    unknown: Tuple[Dict[str, str], ...]

    def as_dict(self) -> Dict[str, Any]:
        return {
            "config": self.config,
            "stalled": self.stalled,
            "findings": [finding.as_dict() for finding in self.findings],
            "unknown": list(self.unknown),
        }


def verdict(evidence: Mapping[str, Any]) -> Verdict:
    """Judge what was seen.

    :param evidence: ``{config, hosts: {name: node}, coordinator: {name, node, p2p}}``; a node is what the module
        ``node_evidence`` returns, or ``{unreachable: true}``, or ``{failed: true, msg}``
    """
    config = evidence["config"]
    hosts = evidence.get("hosts") or {}
    coordinator = evidence.get("coordinator") or {}
    findings: List[Finding] = []
    unknown: List[Dict[str, str]] = []

    for host, node in hosts.items():
        findings.extend(_node_findings(config, host, node))
        unknown.extend(_not_seen(host, node))
    name, node = coordinator.get("name"), coordinator.get("node")
    if name and node is not None:
        findings.extend(_coordinator_node_findings(config, name, node))
        unknown.extend(_not_seen(name, node))
    findings.extend(_p2p_findings(config, name, coordinator.get("p2p")))
    stalled, fleet = _fleet_findings(config, hosts)
    findings.extend(fleet)
    return Verdict(config, stalled, tuple(sorted(findings, key=_rank)), tuple(unknown))


def _rank(finding: Finding) -> Tuple[int, int]:
    return SEVERITIES.index(finding.severity), ("high", "medium", "low").index(finding.confidence)


def _finding(
    config: str,
    cause: str,
    host: Optional[str],
    summary: str,
    facts: Sequence[str],
    severity: str = CRITICAL,
    confidence: str = "high",
) -> Finding:
    playbook = FIX.get(cause)
    fix = None
    if playbook is not None:
        name, _, rest = playbook.partition(" ")
        fix = f"{name} -e config={config} {rest}".rstrip()
    return Finding(cause, severity, confidence, host, summary, tuple(facts), fix, RUNBOOK.get(cause))


def _unusable(node: Mapping[str, Any]) -> Optional[str]:
    if node.get("unreachable"):
        return str(node.get("msg") or "unreachable")
    # A play that goes on after a failure takes the mark off; what the module always returns is then missing.
    if node.get("failed") or "errors" not in node:
        return str(node.get("msg") or "the probe failed")
    return None


def _not_seen(host: str, node: Mapping[str, Any]) -> Iterator[Dict[str, str]]:
    reason = _unusable(node)
    if reason is not None:
        yield {"host": host, "probe": "all", "reason": reason}
        return
    for probe, why in (node.get("errors") or {}).items():
        yield {"host": host, "probe": probe, "reason": why}
    progress = node.get("progress") or {}
    if progress.get("verdict") == "unknown":
        yield {"host": host, "probe": "progress", "reason": str(progress.get("reason"))}


def _node_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    reason = _unusable(node)
    if reason is not None:
        cause = "node_unreachable" if node.get("unreachable") else "probe_failed"
        yield _finding(config, cause, host, "cannot be looked into, so it does not count as stopped", [reason])
        return
    yield from _progress_findings(config, host, node.get("progress") or {})
    yield from _lock_findings(config, host, node)
    yield from _data_findings(config, host, node.get("data"))
    yield from _checkpoint_findings(config, host, node.get("checkpoints") or [])
    yield from _gpu_findings(config, host, node.get("gpu") or {})
    yield from _log_findings(config, host, node)


def _coordinator_node_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    reason = _unusable(node)
    if reason is not None:
        yield _finding(config, "node_unreachable", host, "the coordinator cannot be looked into", [reason])
        return
    yield from _lock_findings(config, host, node)
    yield from _data_findings(config, host, node.get("data"))
    games = node.get("games")
    if games and games.get("enough") is False:
        yield _finding(
            config,
            "data_not_ready",
            host,
            f"only {games['games']} finished games in the replay databases",
            [f"{entry['path']}: {entry['games']} games" for entry in games.get("databases", [])],
            severity=WARNING,
        )


def _progress_findings(config: str, host: str, progress: Mapping[str, Any]) -> Iterator[Finding]:
    for problem in progress.get("problems") or []:
        if problem.get("code") == "duplicate_trainers":
            summary, facts = "more than one trainer runs here", [problem["message"]]
            yield _finding(config, "duplicate_trainers", host, summary, facts, WARNING, "medium")
    if progress.get("verdict") != "stalled":
        return
    trainers = progress.get("trainers") or []
    facts = [f"pid {entry['pid']} is in state {entry.get('state', 'unknown')}" for entry in trainers]
    facts.append(str(progress.get("reason")))
    unkillable = any(entry.get("state") == "D" for entry in trainers)
    if unkillable:
        yield _finding(config, "process_unkillable", host, "the trainer hangs in the kernel; reboot the node", facts)
    else:
        yield _finding(config, "process_hung", host, "the trainer lives and makes no progress", facts)


def _lock_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    running = bool((node.get("progress") or {}).get("running"))
    for lock in node.get("locks") or []:
        state = lock.get("verdict")
        if state == "free" or (state == "held_live" and running):
            continue
        # A file that nobody keeps does not stand in the way of the service; it only tells of a holder that died.
        severity = WARNING if lock.get("held") is False else CRITICAL
        summary, severity, confidence = LOCK_VERDICTS.get(state, (f"the lock is not free ({state})", severity, "high"))
        where = lock.get("path") or lock.get("key")
        facts = [f"{lock.get('backend')} lock {where}: {state}", str(lock.get("reason"))]
        yield _finding(config, "lock_held", host, summary, facts, severity, confidence)


def _data_findings(config: str, host: str, data: Optional[Mapping[str, Any]]) -> Iterator[Finding]:
    if data is None or data.get("valid") is True:
        return
    facts = [problem["message"] for problem in data.get("problems", [])]
    state = "is missing" if data.get("exists") is False else "cannot be trained on"
    yield _finding(config, "data_not_ready", host, f"the training file {state}: {data.get('path')}", facts)


def _checkpoint_findings(config: str, host: str, checkpoints: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    for checkpoint in checkpoints:
        if checkpoint.get("valid") is False:
            facts = [problem["message"] for problem in checkpoint.get("problems", [])]
            yield _finding(config, "checkpoint_corrupt", host, f"damaged checkpoint {checkpoint.get('path')}", facts)


def _gpu_findings(config: str, host: str, gpu: Mapping[str, Any]) -> Iterator[Finding]:
    for entry in gpu.get("gpus") or []:
        facts = [f"GPU {entry.get('index')} {entry.get('name')}: {entry.get('reason')}"]
        if entry.get("verdict") == "wedged":
            yield _finding(config, "gpu_wedged", host, "the GPU is busy with nothing", facts, confidence="medium")
        elif entry.get("verdict") in ("sick", "lost"):
            yield _finding(config, "gpu_sick", host, f"the GPU is {entry['verdict']}", facts)
    for problem in gpu.get("problems") or []:
        if problem.get("code") in GPU_PROBLEMS:
            yield _finding(config, "gpu_sick", host, GPU_PROBLEMS[problem["code"]], [problem["message"]])


def _log_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    running = (node.get("progress") or {}).get("verdict") in HEALTHY
    for entry in (node.get("log") or {}).get("findings") or []:
        # What stands before the last progress is over.
        if entry.get("code") in ("cuda_oom", "circuit_open") and entry.get("after_progress") is not False:
            severity, confidence = (WARNING, "medium") if running else (CRITICAL, "high")
            facts = [f"{entry.get('count')} times, last: {entry.get('line')}"]
            yield _finding(config, "gpu_oom", host, "the training log shows out-of-memory", facts, severity, confidence)


def _p2p_findings(config: str, host: Optional[str], p2p: Optional[Mapping[str, Any]]) -> Iterator[Finding]:
    if p2p is None:
        return
    if p2p.get("failed") or p2p.get("unreachable") or not p2p.get("reachable"):
        facts = [str(p2p.get("reason") or p2p.get("msg") or "no answer")]
        yield _finding(config, "orchestrator_down", host, "the P2P orchestrator does not answer", facts)
        return
    leader = p2p.get("leader") or {}
    if p2p.get("profile") == "ringrift" and not leader.get("id"):
        yield _finding(config, "no_leader", host, "the orchestrators have no leader", ["leader_id is empty"])
    cooldown = p2p.get("cooldown") or {}
    if cooldown.get("active"):
        facts = [f"{cooldown.get('remaining')} s remain", f"source: {cooldown.get('source')}"]
        yield _finding(config, "cooldown_active", host, "a training cooldown is active", facts, WARNING)


def _fleet_findings(config: str, hosts: Mapping[str, Any]) -> Tuple[Optional[bool], List[Finding]]:
    seen = {name: node["progress"] for name, node in hosts.items() if node.get("progress") and not _unusable(node)}
    seen = {name: progress for name, progress in seen.items() if progress.get("verdict") != "unknown"}
    healthy = {name: progress for name, progress in seen.items() if progress.get("verdict") in HEALTHY}
    running = {name: progress for name, progress in seen.items() if progress.get("running")}
    facts = [f"{name}: {progress.get('reason')}" for name, progress in seen.items()]
    findings: List[Finding] = []
    trainers = sum(len(progress.get("trainers") or []) for progress in running.values())
    if len(running) > 1:
        summary = f"{trainers} trainers of {config} run on {', '.join(sorted(running))}"
        findings.append(_finding(config, "duplicate_trainers", None, summary, facts))
    if healthy:
        moving = sorted(name for name, progress in healthy.items() if progress["verdict"] == "progressing")
        names = ", ".join(moving or sorted(healthy))
        summary = f"training moves on {names}" if moving else f"training was just started on {names}, no progress yet"
        findings.append(_finding(config, "not_stalled", None, summary, facts, severity=INFO))
        return False, findings
    if not running and seen:
        whole = len(seen) == len(hosts)
        summary = f"no trainer of {config} runs on any of {len(seen)} nodes"
        if not whole:
            summary += f" that could be seen ({len(hosts) - len(seen)} could not)"
        findings.append(_finding(config, "not_running", None, summary, facts, confidence="high" if whole else "medium"))
    # Training may go on where nothing could be seen.
    return (True if seen and len(seen) == len(hosts) else None), findings

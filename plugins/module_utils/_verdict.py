# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From evidence to findings: a pure function. This util is private to the collection.

A root cause comes before its symptoms, what training rests on before what lies beside it: a critical finding on a node
that has nothing to do with the last run is a warning, and so is most of it while training moves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._finding import (
    CONFIDENCES,
    CRITICAL,
    HIGH,
    INFO,
    MEDIUM,
    SCHEMA,
    SEVERITIES,
    WARNING,
    Finding,
    Verdict,
    finding,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import duration, number, part, text
from ansible_collections.ringrift.recovery.plugins.module_utils._silence import FAILED, silence_of
from ansible_collections.ringrift.recovery.plugins.module_utils._standing import (
    ALIVE,
    BUSY,
    NOT_RUNNING,
    PROGRESSING,
    STALL_AFTER,
    UNKNOWN,
    Standing,
    last_outcome,
    last_sign,
    standing_of,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._verdict_coordinator import (
    game_findings,
    job_nodes,
    orchestrator_findings,
    orchestrator_gap,
    wiring_findings,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._verdict_gpu import gpu_findings
from ansible_collections.ringrift.recovery.plugins.module_utils._verdict_node import (
    file_findings,
    lock_findings,
    log_findings,
    probe_gaps,
    system_findings,
    trainer_findings,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._verdict_rows import node_rows

# Root causes first. While a trainer lives, what it has already loaded cannot be what holds it up.
WHILE_RUNNING = (
    "process_unkillable",
    "gpu_sick",
    "gpu_wedged",
    "disk_full",
    "gpu_oom",
    "process_hung",
    "duplicate_trainers",
    "training_failed",
)
WHILE_NOT_RUNNING = (
    "process_unkillable",
    "node_unreachable",
    "gpu_sick",
    "disk_full",
    "host_oom",
    "gpu_oom",
    "gpu_wedged",
    "checkpoint_corrupt",
    "data_not_ready",
    "lock_held",
    "orchestrator_down",
    "no_leader",
    "training_failed",
    "trigger_blocked",
    "events_not_wired",
    "daemons_down",
    "cooldown_active",
    "probe_failed",
    "not_running",
)
# What may explain that nothing runs, where nothing worse does.
EXPLAINING = ("trigger_blocked", "events_not_wired", "daemons_down", "cooldown_active")
# What stands on one node and concerns the training that ran there.
LOCAL = (
    "checkpoint_corrupt",
    "data_not_ready",
    "disk_full",
    "gpu_oom",
    "gpu_sick",
    "gpu_wedged",
    "host_oom",
    "lock_held",
    "training_failed",
)
# Of more nodes than this not every one has something to say that is worth a line.
FEW = 6
# Training that moves runs into these next.
AHEAD = ("disk_full", "node_unreachable")

HEADLINE = {
    True: "{config}: training is STALLED",
    False: "{config}: training is not stalled",
    None: "{config}: UNKNOWN, too little could be seen; this does not count as healthy",
}


def verdict(evidence: Mapping[str, Any]) -> Verdict:
    """Judge what was seen.

    :param evidence: ``{config, at, stall_after, hosts: {name: node}, coordinator: {name, node, p2p}}``; a node is what
        the module ``node_evidence`` returns, or ``{unreachable: true, msg}``, or ``{failed: true, msg}``
    :raises RecoveryError: it is no evidence, or of a schema that is not known
    """
    config = text(evidence.get("config"))
    if config is None or not isinstance(evidence.get("hosts", {}), Mapping):
        raise RecoveryError("This is no evidence of a diagnosis: it needs config, hosts and coordinator.")
    if evidence.get("schema", SCHEMA) != SCHEMA:
        raise RecoveryError(f"The evidence is of schema {evidence['schema']!r}; this version understands {SCHEMA}.")
    return _Case(config, evidence).judge()


class _Case:
    """The evidence of one fleet."""

    def __init__(self, config: str, evidence: Mapping[str, Any]) -> None:
        self.config = config
        self.at = text(evidence.get("at"))
        stall_after = number(evidence.get("stall_after"))
        self.stall_after = stall_after if stall_after and stall_after > 0 else STALL_AFTER
        hosts = evidence.get("hosts") or {}
        self.hosts = {str(name): part(node) for name, node in hosts.items()}
        coordinator = part(evidence, "coordinator")
        self.leader = text(coordinator.get("name"))
        self.leader_node: Optional[Mapping[str, Any]] = (
            part(coordinator.get("node")) if self.leader and coordinator.get("node") is not None else None
        )
        self.p2p = coordinator.get("p2p")
        self.silent = {name: silence_of(name, node) for name, node in self.hosts.items()}
        self.standings = {
            name: Standing(UNKNOWN, "it shows nothing") if self.silent[name] else standing_of(node, self.stall_after)
            for name, node in self.hosts.items()
        }
        self.seen = {name: standing for name, standing in self.standings.items() if standing.state != UNKNOWN}

    def judge(self) -> Verdict:
        stalled, running, fleet = self._fleet()
        findings = [*fleet]
        for host in self.hosts:
            findings.extend(self._of_node(host))
        findings.extend(self._of_coordinator(running))
        findings = self._weigh(findings, stalled, running)
        ordered = tuple(sorted(findings, key=lambda entry: self._rank(entry, bool(running))))
        gaps = tuple(self._gaps())
        rows = node_rows(self.hosts, self.standings, self.silent, self.leader, self.leader_node, ordered)
        headline = HEADLINE[stalled].format(config=self.config)
        idle = next((entry for entry in ordered if entry.cause == "not_stalled" and running is False), None)
        if idle is not None:
            headline += f": {idle.summary}"
        following = (
            "" if stalled is False else f"ansible-playbook full_recovery.yml -e config={self.config} --check --diff"
        )
        return Verdict(self.config, self.at, stalled, running, headline, ordered, gaps, tuple(rows), following)

    # Findings

    def _of_node(self, host: str) -> Iterator[Finding]:
        node, standing, silence = self.hosts[host], self.standings[host], self.silent[host]
        if silence is not None:
            cause = "probe_failed" if silence.kind == FAILED else "node_unreachable"
            summary = f"{silence.summary}, so it does not count as stopped"
            yield finding(self.config, cause, host, summary, [silence.message, silence.hint])
            return
        yield from trainer_findings(self.config, host, node, standing)
        yield from lock_findings(self.config, host, node)
        yield from file_findings(self.config, host, node)
        yield from gpu_findings(self.config, host, node)
        yield from log_findings(self.config, host, node, standing)
        yield from system_findings(self.config, host, node, standing)

    def _of_coordinator(self, running: Optional[bool]) -> Iterator[Finding]:
        host, node = self.leader, self.leader_node
        if host is not None and node is not None and host not in self.hosts:
            silence = silence_of(host, node)
            if silence is not None:
                summary = f"the coordinator {silence.summary}"
                yield finding(self.config, "node_unreachable", host, summary, [silence.message, silence.hint])
            else:
                yield from lock_findings(self.config, host, node)
                yield from file_findings(self.config, host, node)
                yield from system_findings(self.config, host, node, Standing(NOT_RUNNING, ""))
        if host is not None and node is not None:
            yield from game_findings(self.config, host, node)
            yield from wiring_findings(self.config, host, node, running)
        yield from orchestrator_findings(self.config, host, self.p2p)

    def _fleet(self) -> Tuple[Optional[bool], Optional[bool], List[Finding]]:
        """Whether training is stalled, whether a trainer runs, and what can only be said of the whole fleet."""
        alive = {name: standing for name, standing in self.seen.items() if standing.state in ALIVE}
        running = {name: standing for name, standing in self.seen.items() if standing.running}
        facts = [
            f"{name}: {standing.reason}"
            for name, standing in self.seen.items()
            if standing.running or len(self.seen) < FEW
        ]
        whole = bool(self.seen) and len(self.seen) == len(self.hosts)
        findings: List[Finding] = []
        if len(running) > 1:
            trainers = sum(len(standing.trainers) for standing in running.values())
            summary = f"{trainers} trainers of {self.config} run on {', '.join(sorted(running))}"
            findings.append(finding(self.config, "duplicate_trainers", None, summary, facts))
        if alive:
            findings.append(self._alive(alive, facts))
            return False, True, findings
        if running:
            return (True if whole else None), True, findings
        if not self.seen:
            return None, None, findings
        idle = self._idle_on_purpose() if whole else None
        if idle is not None:
            findings.append(idle)
            return False, False, findings
        summary = f"no trainer of {self.config} runs on any of {len(self.seen)} nodes"
        if not whole:
            summary += f" that could be seen ({len(self.hosts) - len(self.seen)} could not)"
        facts += self._last_run()
        findings.append(finding(self.config, "not_running", None, summary, facts, CRITICAL, HIGH if whole else MEDIUM))
        # Training may go on where nothing could be seen.
        return (True if whole else None), (False if whole else None), findings

    def _alive(self, alive: Mapping[str, Standing], facts: Sequence[str]) -> Finding:
        moving = sorted(name for name, standing in alive.items() if standing.state == PROGRESSING)
        busy = sorted(name for name, standing in alive.items() if standing.state == BUSY)
        names = ", ".join(moving or busy or sorted(alive))
        if moving:
            return finding(self.config, "not_stalled", None, f"training moves on {names}", facts, INFO)
        if busy:
            summary = f"training is slow but works on {names}: {alive[busy[0]].reason}"
            return finding(self.config, "not_stalled", None, summary, facts, INFO, MEDIUM)
        summary = f"training was just started on {names}, no progress yet"
        return finding(self.config, "not_stalled", None, summary, facts, INFO, MEDIUM)

    def _idle_on_purpose(self) -> Optional[Finding]:
        """The pause after a training that ended well."""
        cooldown = part(self.p2p, "cooldown")
        ended = [name for name in self._involved() if last_outcome(self.hosts[name]) == "completed"]
        if cooldown.get("active") is not True or len(ended) != 1:
            return None
        left = duration(number(cooldown.get("remaining")))
        summary = f"idle on purpose: the last training was completed on {ended[0]}, the cooldown ends in {left}"
        return finding(self.config, "not_stalled", None, summary, self._last_run(), INFO)

    def _last_run(self) -> List[str]:
        return [
            f"{name}: its last run is {'not ended, says its event log' if outcome == 'running' else outcome}"
            for name in self._involved()
            for outcome in [last_outcome(self.hosts[name])]
            if outcome in ("running", "completed", "failed") and len(self._involved()) < FEW
        ]

    def _involved(self) -> List[str]:
        """The nodes that the last run concerns: where a trainer lives, else where one was last; all where none was."""
        running = [name for name, standing in self.seen.items() if standing.running]
        if running:
            return running
        jobs = [name for name in job_nodes(self.p2p) if name in self.hosts]
        signs = {name: last_sign(node) for name, node in self.hosts.items()}
        known = {name: sign for name, sign in signs.items() if sign is not None}
        latest = [name for name, sign in known.items() if sign == max(known.values())]
        return list(dict.fromkeys(jobs + latest)) or list(self.hosts)

    # Weight and order

    def _weigh(self, findings: Sequence[Finding], stalled: Optional[bool], running: Optional[bool]) -> List[Finding]:
        involved = set(self._involved())
        weighed: List[Finding] = []
        for entry in findings:
            beside = entry.cause in LOCAL and entry.host in self.hosts and entry.host not in involved
            if entry.severity == CRITICAL and (beside or (stalled is False and entry.cause not in AHEAD)):
                entry = replace(entry, severity=WARNING)
            weighed.append(entry)
        critical = {entry.cause for entry in weighed if entry.severity == CRITICAL}
        if running is False and stalled is not False and critical <= {"not_running"}:
            weighed = [replace(entry, severity=CRITICAL) if entry.cause in EXPLAINING else entry for entry in weighed]
        return list(dict.fromkeys(weighed))

    def _rank(self, entry: Finding, running: bool) -> Tuple[int, int, int, str]:
        order = WHILE_RUNNING if running else WHILE_NOT_RUNNING
        place = order.index(entry.cause) if entry.cause in order else len(order) - (0 if running else 1)
        return SEVERITIES.index(entry.severity), place, CONFIDENCES.index(entry.confidence), entry.host or ""

    def _gaps(self) -> Iterator[Dict[str, str]]:
        reason = orchestrator_gap(self.p2p)
        if reason is not None:
            yield {"host": self.leader or "coordinator", "probe": "p2p", "reason": reason}
        everyone = dict(self.hosts)
        if self.leader is not None and self.leader_node is not None:
            everyone.setdefault(self.leader, self.leader_node)
        for host, node in everyone.items():
            silence = self.silent.get(host) or silence_of(host, node)
            if silence is not None:
                yield {"host": host, "probe": "all", "reason": silence.message}
            else:
                yield from (dict(gap) for gap in probe_gaps(host, node))

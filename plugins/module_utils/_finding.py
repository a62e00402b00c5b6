# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A finding, what is known of its cause, and the verdict that findings make. This util is private to the collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

SCHEMA = 1

CRITICAL = "critical"
WARNING = "warning"
INFO = "info"
SEVERITIES = (CRITICAL, WARNING, INFO)

HIGH = "high"
MEDIUM = "medium"
LOW = "low"
CONFIDENCES = (HIGH, MEDIUM, LOW)

# Where the runbook speaks of a cause; a cause that it cannot see has no section.
RUNBOOK = {
    "gpu_oom": "1. GPU Out of Memory (OOM)",
    "lock_held": "2. Training Lock Not Released",
    "data_not_ready": "3. Data Pipeline Not Ready",
    "cooldown_active": "4. TrainingCoordinator Cooldown Active",
    "events_not_wired": "5. Event System Not Wired",
    "checkpoint_corrupt": "6. Model Checkpoint Corruption",
    "disk_full": "Prevention 3. Monitor disk space",
    "daemons_down": "Prevention 1. Enable health monitoring",
}

# What can be found beside that training moves; each has a page of its own in docs/causes.
CAUSES = (
    "checkpoint_corrupt",
    "clock_skew",
    "cooldown_active",
    "daemons_down",
    "data_not_ready",
    "disk_full",
    "duplicate_trainers",
    "events_not_wired",
    "gpu_memory_leaked",
    "gpu_oom",
    "gpu_sick",
    "gpu_wedged",
    "host_oom",
    "lock_held",
    "memory_low",
    "no_leader",
    "node_unreachable",
    "not_running",
    "orchestrator_down",
    "probe_failed",
    "process_hung",
    "process_unkillable",
    "training_failed",
    "trigger_blocked",
)

# Causes that have a task file of their own in the role `fix`.
QUICK_FIXES = (
    "gpu_oom",
    "lock_held",
    "data_not_ready",
    "cooldown_active",
    "events_not_wired",
    "daemons_down",
    "checkpoint_corrupt",
    "disk_full",
)

# The playbook that mends a cause; where there is none, a person has to act first.
FIX = {
    **{cause: f"fix.yml -e cause={cause}" for cause in QUICK_FIXES},
    "process_hung": "full_recovery.yml",
    "not_running": "full_recovery.yml",
    "training_failed": "full_recovery.yml",
    "host_oom": "full_recovery.yml",
    "duplicate_trainers": "full_recovery.yml -e force=true",
    "gpu_wedged": "full_recovery.yml",
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
    doc: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "evidence": list(self.evidence)}


@dataclass(frozen=True)
class Verdict:
    """``stalled`` is True, False, or None where too little could be seen; None never counts as healthy.

    ``running`` tells in the same way whether a trainer lives, and ``nodes`` has a line for each host.
    """

    config: str
    at: Optional[str]
    stalled: Optional[bool]
    running: Optional[bool]
    headline: str
    findings: Tuple[Finding, ...]
    unknown: Tuple[Dict[str, str], ...]
    nodes: Tuple[Dict[str, Any], ...]
    next: str

    def as_dict(self) -> Dict[str, Any]:
        return {
            "schema": SCHEMA,
            **asdict(self),
            "findings": [finding.as_dict() for finding in self.findings],
            "unknown": list(self.unknown),
            "nodes": list(self.nodes),
        }


def finding(
    config: str,
    cause: str,
    host: Optional[str],
    summary: str,
    facts: Sequence[Optional[str]] = (),
    severity: str = CRITICAL,
    confidence: str = HIGH,
) -> Finding:
    """A finding with what is known of its cause."""
    fix = None
    if cause in FIX:
        playbook, _blank, rest = FIX[cause].partition(" ")
        fix = f"{playbook} -e config={config} {rest}".rstrip()
    known = tuple(fact for fact in facts if fact)
    doc = f"docs/causes/{cause}.md" if cause in CAUSES else None
    return Finding(cause, severity, confidence, host, summary, known, fix, RUNBOOK.get(cause), doc)

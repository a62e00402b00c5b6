# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn evidence into a verdict or a batch size, runs into a report, and these into lines."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._finding import CRITICAL, SEVERITIES, WARNING

# Engines are imported where they are called: a worker that needs one filter loads the files of all of them.

# More of them are in the report; an artifact of a job is no place for thousands.
MOST_FINDINGS = 50

FAIL_ON: Dict[str, Any] = {"never": (), "critical": (CRITICAL,), "warning": (CRITICAL, WARNING)}


def verdict(evidence: Mapping[str, Any]) -> Dict[str, Any]:
    """Judge the evidence of a fleet."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _verdict

    if not isinstance(evidence, Mapping) or "config" not in evidence:
        raise AnsibleFilterError("ringrift.recovery.verdict needs a dictionary with config, hosts and coordinator.")
    try:
        return _verdict.verdict(evidence).as_dict()
    except RecoveryError as exc:
        raise AnsibleFilterError(f"ringrift.recovery.verdict: {exc}") from exc


def saved_evidence(content: str, path: str = "the file") -> Dict[str, Any]:
    """Read evidence that an earlier diagnosis kept."""
    if not content:
        # What a lookup with errors ignored gives.
        raise AnsibleFilterError(
            "ringrift.recovery.saved_evidence needs a file *-evidence.json that a diagnosis has kept in "
            f"ringrift_report_dir, and {path} cannot be read on the controller, or is empty."
        )
    if not isinstance(content, str):
        raise AnsibleFilterError("ringrift.recovery.saved_evidence needs the content of a file.")
    try:
        evidence = json.loads(content)
    except (TypeError, ValueError, RecursionError) as exc:
        raise AnsibleFilterError(
            f"ringrift.recovery.saved_evidence needs the JSON of a file *-evidence.json, and {path} is none: {exc}"
        ) from exc
    if not isinstance(evidence, dict) or not isinstance(evidence.get("hosts"), dict) or "config" not in evidence:
        raise AnsibleFilterError(
            f"ringrift.recovery.saved_evidence needs a file *-evidence.json, and {path} holds no evidence."
        )
    return evidence


def diagnosis_brief(value: Mapping[str, Any]) -> Dict[str, Any]:
    """The part of a verdict that another job needs: without the lines of the nodes, and with a bounded length."""
    if not isinstance(value, Mapping) or "findings" not in value:
        raise AnsibleFilterError("ringrift.recovery.diagnosis_brief needs what ringrift.recovery.verdict returns.")
    brief = {name: entry for name, entry in value.items() if name not in ("nodes", "findings", "unknown")}
    counts = {name: sum(entry["severity"] == name for entry in value["findings"]) for name in SEVERITIES}
    states: Dict[str, int] = {}
    for row in value["nodes"]:
        states[row["state"]] = states.get(row["state"], 0) + 1
    findings = list(value["findings"][:MOST_FINDINGS])
    return {**brief, "findings": findings, "counts": counts, "not_seen": len(value["unknown"]), "states": states}


def fail_on(value: Mapping[str, Any], level: str = "critical") -> List[str]:
    """The findings for which a run is to fail, in words."""
    if not isinstance(value, Mapping) or "findings" not in value:
        raise AnsibleFilterError("ringrift.recovery.fail_on needs what ringrift.recovery.verdict returns.")
    if level not in FAIL_ON:
        raise AnsibleFilterError(f"fail_on is {level!r}. It is one of {', '.join(FAIL_ON)}.")
    counted = FAIL_ON[level]
    told = [
        f"{entry['severity']} {entry['cause']}" + (f" on {entry['host']}" if entry["host"] else "")
        for entry in value["findings"]
        if entry["severity"] in counted
    ]
    # What could not be told does not count as healthy.
    return told + (["too little could be seen"] if counted and value["stalled"] is None else [])


def run_report(nodes: Mapping[str, Any], silent: Sequence[str] = (), **about: Any) -> Dict[str, Any]:
    """Collect what a run did from the variables of its nodes."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _report

    if not isinstance(nodes, Mapping):
        raise AnsibleFilterError("ringrift.recovery.run_report needs a dictionary of node name to its variables.")
    return _report.run_report(nodes, silent, **about)


def report_lines(value: Mapping[str, Any]) -> List[str]:
    """Render the report of a run."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _report

    if not isinstance(value, Mapping) or "nodes" not in value:
        raise AnsibleFilterError("ringrift.recovery.report_lines needs what ringrift.recovery.run_report returns.")
    return _report.report_lines(value)


def gpu_memory_fit(
    evidence: Mapping[str, Any],
    batch_size: Any = None,
    default: Any = 512,
    floor: Any = None,
    auto_tunes: Optional[bool] = None,
    via: str = "direct",
) -> Dict[str, Any]:
    """Choose the batch size to restart with."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu_memory_fit

    if not isinstance(evidence, Mapping):
        raise AnsibleFilterError("ringrift.recovery.gpu_memory_fit needs a dictionary with hosts, p2p and node.")
    try:
        facts = _gpu_memory_fit.facts_of(evidence)
        floor = _gpu_memory_fit.FLOOR if floor is None else floor
        return _gpu_memory_fit.fit(facts, batch_size, default, floor, auto_tunes, via).as_dict()
    except RecoveryError as exc:
        raise AnsibleFilterError(f"ringrift.recovery.gpu_memory_fit: {exc}") from exc


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {
            "verdict": verdict,
            "saved_evidence": saved_evidence,
            "diagnosis_brief": diagnosis_brief,
            "fail_on": fail_on,
            "run_report": run_report,
            "report_lines": report_lines,
            "gpu_memory_fit": gpu_memory_fit,
        }

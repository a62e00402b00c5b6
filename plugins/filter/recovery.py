# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn evidence into a verdict or a batch size, runs into a report, and these into lines."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu_memory_fit, _report, _verdict
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError


def verdict(evidence: Mapping[str, Any]) -> Dict[str, Any]:
    """Judge the evidence of a fleet."""
    if not isinstance(evidence, Mapping) or "config" not in evidence:
        raise AnsibleFilterError("ringrift.recovery.verdict needs a dictionary with config, hosts and coordinator.")
    return _verdict.verdict(evidence).as_dict()


def verdict_lines(value: Mapping[str, Any]) -> List[str]:
    """Render a verdict."""
    if not isinstance(value, Mapping) or "findings" not in value:
        raise AnsibleFilterError("ringrift.recovery.verdict_lines needs what ringrift.recovery.verdict returns.")
    return _report.verdict_lines(value)


def run_report(nodes: Mapping[str, Any], **about: Any) -> Dict[str, Any]:
    """Collect what a run did from the variables of its nodes."""
    if not isinstance(nodes, Mapping):
        raise AnsibleFilterError("ringrift.recovery.run_report needs a dictionary of node name to its variables.")
    return _report.run_report(nodes, **about)


def report_lines(value: Mapping[str, Any]) -> List[str]:
    """Render the report of a run."""
    if not isinstance(value, Mapping) or "nodes" not in value:
        raise AnsibleFilterError("ringrift.recovery.report_lines needs what ringrift.recovery.run_report returns.")
    return _report.report_lines(value)


def gpu_memory_fit(
    evidence: Mapping[str, Any],
    batch_size: Any = None,
    default: Any = 512,
    floor: Any = _gpu_memory_fit.FLOOR,
    auto_tunes: Optional[bool] = None,
    via: str = "direct",
) -> Dict[str, Any]:
    """Choose the batch size to restart with."""
    if not isinstance(evidence, Mapping):
        raise AnsibleFilterError("ringrift.recovery.gpu_memory_fit needs a dictionary with hosts, p2p and node.")
    try:
        facts = _gpu_memory_fit.facts_of(evidence)
        return _gpu_memory_fit.fit(facts, batch_size, default, floor, auto_tunes, via).as_dict()
    except RecoveryError as exc:
        raise AnsibleFilterError(f"ringrift.recovery.gpu_memory_fit: {exc}") from exc


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {
            "verdict": verdict,
            "verdict_lines": verdict_lines,
            "run_report": run_report,
            "report_lines": report_lines,
            "gpu_memory_fit": gpu_memory_fit,
        }

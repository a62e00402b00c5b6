# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line for each node of a diagnosis. This util is private to the collection."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible_collections.ringrift.recovery.plugins.module_utils._finding import SEVERITIES, Finding
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import number, part, rows, text, whole
from ansible_collections.ringrift.recovery.plugins.module_utils._silence import FAILED, Silence, silence_of
from ansible_collections.ringrift.recovery.plugins.module_utils._standing import Standing

GPU_KEYS = ("index", "name", "utilization", "memory_used", "memory_total", "power", "temperature", "verdict")


def node_rows(
    hosts: Mapping[str, Mapping[str, Any]],
    standings: Mapping[str, Standing],
    silent: Mapping[str, Optional[Silence]],
    leader: Optional[str],
    leader_node: Optional[Mapping[str, Any]],
    findings: Sequence[Finding],
) -> List[Dict[str, Any]]:
    """One row for each node, the coordinator first where it does not train."""
    found: Dict[Optional[str], List[Finding]] = {}
    for entry in findings:
        found.setdefault(entry.host, []).append(entry)
    table = [
        _row(host, node, standings[host], silent[host], host == leader, found.get(host, ()))
        for host, node in hosts.items()
    ]
    if leader is not None and leader_node is not None and leader not in hosts:
        table.insert(0, _row(leader, leader_node, None, silence_of(leader, leader_node), True, found.get(leader, ())))
    return table


def _row(
    host: str,
    node: Mapping[str, Any],
    standing: Optional[Standing],
    silence: Optional[Silence],
    coordinator: bool,
    mine: Sequence[Finding],
) -> Dict[str, Any]:
    progress = part(node, "progress")
    last = part(progress, "last")
    trainer = next(iter(standing.trainers), None) if standing else None
    free = [number(entry.get("free")) for entry in rows(part(node, "disk").get("filesystems"))]
    seconds = [number(value) for value in part(node, "seconds").values()]
    return {
        "name": host,
        "coordinator": coordinator,
        "state": _state(standing, silence),
        "trainer": f"pid {trainer.get('pid')} {trainer.get('state')}" if trainer else None,
        "epoch": whole(last.get("epoch")),
        "total_epochs": whole(last.get("total_epochs")),
        "loss": number(last.get("loss")),
        "age": number(last.get("age")),
        "gpu": [{key: entry.get(key) for key in GPU_KEYS} for entry in rows(part(node, "gpu").get("gpus"))],
        "gpu_verdict": text(part(node, "gpu").get("verdict")),
        "disk_free": min((size for size in free if size is not None), default=None),
        "worst": min((entry.severity for entry in mine), key=SEVERITIES.index, default=None),
        "findings": len(mine),
        "seconds": max((size for size in seconds if size is not None), default=None),
    }


def _state(standing: Optional[Standing], silence: Optional[Silence]) -> str:
    if silence is not None:
        return "failed" if silence.kind == FAILED else "unreachable"
    return "not_running" if standing is None else standing.state

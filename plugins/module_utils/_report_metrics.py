# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A diagnosis as a Prometheus textfile. What is not known has no sample. This util is private to the collection."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._plain import rows
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import (
    NODE_STATES,
    integer,
    measure,
    moment,
    severity_of,
    visible,
)

PREFIX = "ringrift_recovery_"
MIB = 1024 * 1024.0
TRAINING_STATES = ("stalled", "not_stalled", "unknown")

Labels = Tuple[Tuple[str, str], ...]

HELP = {
    "diagnosis_timestamp_seconds": "When the diagnosis was made, in Unix seconds.",
    "training_state": "1 for what was found of the training: stalled, not_stalled or unknown. Unknown is not healthy.",
    "findings": "How many findings there are, by cause, severity and host. The host is empty for the whole fleet.",
    "unseen_probes": "How many probes of a node gave no answer.",
    "nodes": "How many nodes were looked at.",
    "node_state": "1 for the state of the node, 0 for every other.",
    "epoch": "The last finished epoch.",
    "epochs_planned": "How many epochs the training is to have.",
    "loss": "The last training loss.",
    "progress_age_seconds": "The time since the last progress.",
    "gpu_utilization_ratio": "GPU utilization, 0 to 1.",
    "gpu_memory_used_bytes": "GPU memory in use.",
    "gpu_memory_total_bytes": "GPU memory.",
    "gpu_power_watts": "Power that the GPU draws.",
    "gpu_temperature_celsius": "Temperature of the GPU.",
    "disk_free_bytes": "Free space of the fullest filesystem that training uses.",
    "probe_seconds": "How long the slowest probe of the node took.",
}
# Metric, key of the node.
OF_NODE = (
    ("epoch", "epoch"),
    ("epochs_planned", "total_epochs"),
    ("loss", "loss"),
    ("progress_age_seconds", "age"),
    ("disk_free_bytes", "disk_free"),
    ("probe_seconds", "seconds"),
)
# Metric, key of the GPU, factor.
OF_GPU = (
    ("gpu_utilization_ratio", "utilization", 0.01),
    ("gpu_memory_used_bytes", "memory_used", MIB),
    ("gpu_memory_total_bytes", "memory_total", MIB),
    ("gpu_power_watts", "power", 1.0),
    ("gpu_temperature_celsius", "temperature", 1.0),
)


def diagnosis_metrics(verdict: Mapping[str, Any]) -> str:
    """Render a verdict in the text format of Prometheus, for the textfile collector of node_exporter."""
    samples = _Samples(visible(verdict.get("config")))
    samples.set("diagnosis_timestamp_seconds", moment(verdict.get("at")))
    stalled = _truth(verdict.get("stalled"))
    state = "unknown" if stalled is None else "stalled" if stalled else "not_stalled"
    samples.one_of("training_state", TRAINING_STATES, state)
    for finding in rows(verdict.get("findings")):
        samples.add(
            "findings",
            cause=visible(finding.get("cause")),
            severity=severity_of(finding.get("severity")),
            host=visible(finding.get("host")),
        )
    for gap in rows(verdict.get("unknown")):
        samples.add("unseen_probes", host=visible(gap.get("host")), probe=visible(gap.get("probe")))
    nodes = rows(verdict.get("nodes"))
    samples.set("nodes", len(nodes))
    for node in nodes:
        _node(samples, node)
    return samples.text()


def _truth(value: Any) -> Optional[bool]:
    return value if isinstance(value, bool) else None


def _node(samples: _Samples, node: Mapping[str, Any]) -> None:
    host = visible(node.get("name"))
    samples.one_of("node_state", NODE_STATES, visible(node.get("state")) or "unknown", host=host)
    for metric, key in OF_NODE:
        samples.set(metric, measure(node.get(key)), host=host)
    for position, gpu in enumerate(rows(node.get("gpu"))):
        index = integer(gpu.get("index"))
        # A GPU that has no index any more must not be taken for another one.
        label = str(index) if index is not None else f"unknown-{position}"
        for metric, key, factor in OF_GPU:
            value = measure(gpu.get(key))
            scaled = None if value is None else round(value * factor, 6)
            samples.set(metric, scaled, host=host, gpu=label, model=visible(gpu.get("name")))


class _Samples:
    """Samples by metric and labels; none comes twice."""

    def __init__(self, config: str) -> None:
        self.config = config
        self.families: Dict[str, Dict[Labels, float]] = {name: {} for name in HELP}

    def _labels(self, labels: Mapping[str, str]) -> Labels:
        return tuple({"config": self.config, **labels}.items())

    def set(self, metric: str, value: Optional[float], **labels: str) -> None:
        if value is not None:
            self.families[metric][self._labels(labels)] = value

    def add(self, metric: str, **labels: str) -> None:
        family, key = self.families[metric], self._labels(labels)
        family[key] = family.get(key, 0) + 1

    def one_of(self, metric: str, states: Tuple[str, ...], state: str, **labels: str) -> None:
        for name in states if state in states else (*states, state):
            self.set(metric, int(name == state), **labels, state=name)

    def text(self) -> str:
        lines: List[str] = []
        for metric, samples in self.families.items():
            if not samples:
                continue
            lines += [f"# HELP {PREFIX}{metric} {HELP[metric]}", f"# TYPE {PREFIX}{metric} gauge"]
            for labels, value in samples.items():
                shown = ",".join(f'{name}="{_escape(label)}"' for name, label in labels)
                lines.append(f"{PREFIX}{metric}{{{shown}}} {_number(value)}")
        return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))

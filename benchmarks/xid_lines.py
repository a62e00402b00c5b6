#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""XID lines: which of them the expressions of other tools and ours read, and what the table says of each code.

Prints Markdown: each shape of a line in every code of the table, lines that people have reported, and the table itself.
The expressions are quoted from the sources that are named beside them; nothing else of those tools runs.
"""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "playbooks/collections"))

from ansible_collections.ringrift.recovery.plugins.module_utils import _xid_lines, _xids  # noqa: E402

CORPUS = ROOT / "tests/unit/plugins/module_utils/xid_corpus.yml"

# Name, expression, group of the code, group of the GPU, and where it is from.
TOOLS: Sequence[Tuple[str, str, int, Optional[int], str]] = (
    (
        "gpud", r"NVRM: Xid \(((?:PCI:)?[0-9a-fA-F:]+)\).*?: (\d+),", 2, 1,
        "leptonai/gpud 4a8de33a, components/accelerator/nvidia/xid/kmsg.go",
    ),
    (
        "NVSentinel",
        r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)(?:, pid=(\d+))?(?:, name=([^,]+))?(?:, Ch ([0-9a-fA-F]+))?",
        2, 1, "NVIDIA/NVSentinel 82c87775, health-monitors/syslog-health-monitor/pkg/xid/parser/csv.go",
    ),
    (
        "gcm", r"NVRM: Xid \([^)]+\): (\d+)", 1, None,
        "facebookresearch/gcm 1b7bde9, gcm/health_checks/checks/check_syslogs.py",
    ),
    (
        "AWS", r".*Xid[^)]*\):\s*([0-9]+).*", 1, None,
        "awslabs/awsome-distributed-ai 95b939cd, 2.gpu-cluster-healthcheck/checks/0-nvidia-smi-check.sh (sed)",
    ),
    (
        "Azure", r"Xid.*: (\d+),", 1, None,
        "Azure/azurehpc-health-checks 0e0a1ac, customTests/azure_gpu_xid.nhc (grep, once for each of its 18 codes)",
    ),
    (
        "imbue", r"NVRM: Xid \(PCI:[\w:]+?\): (\d+)", 1, None,
        "imbue-ai/cluster-health 8f5964a, health_checks/health_checks.py",
    ),
)  # fmt: skip

# A shape, and what a line of it says.
SHAPES: Sequence[Tuple[str, str, Dict[str, Any]]] = (
    ("without process", "NVRM: Xid (PCI:0000:3b:00): {code}, words", {}),
    ("process and name", "NVRM: Xid (PCI:0000:3b:00): {code}, pid=4711, name=python3, words",
     {"pid": 4711, "process_name": "python3"}),
    ("process unknown", "NVRM: Xid (PCI:0000:3b:00): {code}, pid='<unknown>', name=<unknown>, words", {}),
    ("process without name", "NVRM: Xid (PCI:0000:3b:00): {code}, pid=4711, words", {"pid": 4711}),
    ("MIG, GPU instance", "NVRM: Xid (PCI:0000:3b:00 GPU-I:05): {code}, pid=4711, name=python3, words",
     {"pid": 4711, "process_name": "python3", "gpu_instance": 5}),
    ("MIG, compute instance", "NVRM: Xid (PCI:0000:3b:00 GPU-I:05 GPU-CI:01): {code}, pid=4711, name=python3, words",
     {"pid": 4711, "process_name": "python3", "gpu_instance": 5, "compute_instance": 1}),
    ("without `PCI:`", "NVRM: Xid (0000:3b:00): {code}, words", {}),
    ("with function", "NVRM: Xid (PCI:0000:3b:00.0): {code}, words", {}),
    ("nothing after the code", "NVRM: Xid (PCI:0000:3b:00): {code}", {}),
)  # fmt: skip

# Lines that name a code and are no XID: users may choose the names of control groups.
DECOYS = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/NVRM: Xid (PCI:0000:3b:00): 79, x,task_memcg=/x,task=python3,pid=4711,uid=1000",
    "Memory cgroup stats for /NVRM: Xid (PCI:0000:3b:00): 79, x:",
)

Reader = Callable[[str], Tuple[Optional[int], Optional[str]]]


def _ours(line: str) -> Tuple[Optional[int], Optional[str]]:
    found = _xid_lines.parse(line)
    return (found.code, found.bus_id) if isinstance(found, _xid_lines.XidLine) else (None, None)


def _theirs(pattern: str, code: int, bus: Optional[int]) -> Reader:
    compiled = re.compile(pattern)

    def read(line: str) -> Tuple[Optional[int], Optional[str]]:
        match = compiled.search(line)
        return (int(match.group(code)), match.group(bus) if bus else None) if match else (None, None)

    return read


def readers() -> Dict[str, Reader]:
    """Every tool by name, with ours as the last."""
    return {**{name: _theirs(pattern, code, bus) for name, pattern, code, bus, _ in TOOLS}, "ours": _ours}


def corpus() -> List[Dict[str, Any]]:
    """The reported lines, each with its source and what it says."""
    entries = yaml.safe_load(CORPUS.read_text())
    return [{"source": entry["source"], **line} for entry in entries for line in entry["lines"]]


def shape_rows() -> List[Tuple[str, Dict[str, int]]]:
    """For each shape, and for the corpus and the decoys, how many lines each tool reads right."""
    rows = []
    for name, template, _expected in SHAPES:
        lines = [(template.format(code=code), code) for code in _xids.XIDS]
        rows.append(
            (name, {tool: sum(read(text)[0] == code for text, code in lines) for tool, read in readers().items()})
        )
    lines = [(entry["text"], entry["expected"]["code"]) for entry in corpus()]
    rows.append(
        (
            "reported lines",
            {tool: sum(read(text)[0] == code for text, code in lines) for tool, read in readers().items()},
        )
    )
    rows.append(
        ("decoys left out", {tool: sum(read(text)[0] is None for text in DECOYS) for tool, read in readers().items()})
    )
    return rows


def shape_table() -> List[str]:
    """The comparison, in Markdown."""
    tools = list(readers())
    sizes = [len(_xids.XIDS)] * len(SHAPES) + [len(corpus()), len(DECOYS)]
    lines = [f"| lines | of | {' | '.join(tools)} |", f"| --- | --- |{' --- |' * len(tools)}"]
    for (name, counts), size in zip(shape_rows(), sizes):
        lines.append(f"| {name} | {size} | {' | '.join(str(counts[tool]) for tool in tools)} |")
    return lines


def xid_table() -> List[str]:
    """What the collection says of each code, in Markdown."""
    lines = ["| XID | name | meaning | action | agreed | who says what |", "| --- | --- | --- | --- | --- | --- |"]
    for xid in _xids.XIDS.values():
        agreed = "yes" if xid.agreed else "no"
        action = "by its text" if xid.code == 154 else f"`{xid.action}`"
        lines.append(f"| {xid.code} | `{xid.name}` | {xid.meaning} | {action} | {agreed} | {xid.source} |")
    return lines


def main() -> int:
    print("\n".join(shape_table()), end="\n\n")
    for name, pattern, _code, _bus, source in TOOLS:
        print(f"- {name}: `{pattern}` ({source})")
    print()
    print("\n".join(xid_table()))
    sizes = [len(_xids.XIDS)] * len(SHAPES) + [len(corpus()), len(DECOYS)]
    return int(any(counts["ours"] != size for (_name, counts), size in zip(shape_rows(), sizes)))


if __name__ == "__main__":
    sys.exit(main())

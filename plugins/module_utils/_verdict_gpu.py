# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the GPUs of a node show, and what the kernel says of them, as findings.

This util is private to the collection.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping

from ansible_collections.ringrift.recovery.plugins.module_utils._finding import (
    CRITICAL,
    HIGH,
    MEDIUM,
    WARNING,
    Finding,
    finding,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows, text

# Problems of a whole node's GPUs that no single GPU tells of.
GPU_PROBLEMS = {
    "driver_hung": "the GPU driver does not answer",
    "driver_not_loaded": "the GPU driver is not loaded",
    "gpu_lost": "a GPU is lost",
    "gpu_sick": "a GPU is sick",
}
# What NVIDIA says to do about an error, where the GPU itself has to be seen to.
HARDWARE = ("drain", "reset", "reboot", "replace")
MAX_LINES = 5


def gpu_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    gpu = part(node, "gpu")
    sick: List[str] = []
    summary = ""
    for entry in rows(gpu.get("gpus")):
        facts = [f"GPU {entry.get('index')} {entry.get('name')}: {entry.get('reason')}"]
        verdict = entry.get("verdict")
        if verdict == "wedged":
            yield finding(config, "gpu_wedged", host, "the GPU is busy with nothing", facts, CRITICAL, MEDIUM)
        elif verdict in ("sick", "lost"):
            summary = summary or f"the GPU is {verdict}"
            sick += facts
        elif verdict == "leaked_memory":
            yield finding(
                config, "gpu_memory_leaked", host, "GPU memory is taken by no process", facts, WARNING, MEDIUM
            )
    for problem in rows(gpu.get("problems")):
        if problem.get("code") in GPU_PROBLEMS:
            summary = summary or GPU_PROBLEMS[problem["code"]]
            sick.append(str(problem.get("message")))
    worst, lines = _kernel_lines(node)
    if sick or worst in HARDWARE:
        # The driver's own words since boot; the GPU may have been reset since then.
        summary = summary or f"the driver reports an error of the GPU that asks for: {worst}"
        confidence = HIGH if sick else MEDIUM
        yield finding(config, "gpu_sick", host, summary, sick + lines, CRITICAL, confidence)
    elif lines:
        yield finding(
            config, "gpu_sick", host, "the driver reports errors of programs on the GPU", lines, WARNING, MEDIUM
        )


def _kernel_lines(node: Mapping[str, Any]) -> Any:
    """The most that an error of a GPU asks for, and what the kernel said of them."""
    asked: List[str] = []
    lines: List[str] = []
    for event in rows(part(node, "kernel").get("events")):
        action = text(event.get("action"))
        if event.get("kind") not in ("xid", "sxid", "gpu_lost") or action in (None, "ignore"):
            continue
        asked.append(action)
        meaning = f" ({event['meaning']}; {action})" if text(event.get("meaning")) else f" ({action})"
        lines.append(f"{event.get('time')}: {event.get('message')}{meaning}")
    worst = max(asked, key=lambda action: HARDWARE.index(action) if action in HARDWARE else -1, default=None)
    return worst, lines[-MAX_LINES:]

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readings of GPUs through NVML, always in a child: a call that hangs inside the driver can only be left behind there.

This util is private to the collection.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _nvidia_smi
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_nvml_script import SCRIPT
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_types import (
    NVML,
    SETTLE,
    SETTLE_INTERVAL,
    Cells,
    Raw,
    Thresholds,
    word_of,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._nvidia_smi import Cell
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING, Problem

# NVML's error numbers, in the words that nvidia-smi's exit codes have here.
CODES = {
    2: "bad_argument",
    3: "not_available",
    4: "no_permission",
    6: "no_devices",
    8: "power_cable",
    9: "driver_not_loaded",
    10: "interrupt_problem",
    12: "library_missing",
    13: "library_too_old",
    14: "inforom_corrupt",
    15: "gpu_lost",
    18: "driver_mismatch",
}
MISSING = "nvml_missing"


def look(python: str, timeout: float, samples: int, interval: float, thresholds: Thresholds) -> Raw:
    """All readings through this interpreter's nvidia-ml-py."""
    options = {
        "seconds": math.ceil(timeout),
        "samples": samples,
        "interval": interval,
        "busy": thresholds.busy_utilization,
        "power_fraction": thresholds.wedged_power_fraction,
        "settle": SETTLE,
        "settle_interval": SETTLE_INTERVAL,
    }
    answer = _nvidia_smi.run([python, "-c", SCRIPT, json.dumps(options)], timeout)
    raw = Raw(source=python, method=NVML, hung=answer.hung)
    if answer.survivor is not None:
        raw.survivors.append(answer.survivor)
    done = False
    for line in answer.output.splitlines():
        try:
            stage = json.loads(line)
            if isinstance(stage, dict):
                _read(stage, raw)
                done = done or "done" in stage or "missing" in stage or "failed" in stage
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue
    hung = ("driver_hung", (answer.problem or ("", ""))[1].replace("nvidia-smi", "NVML"))
    if answer.hung and not raw.taken and raw.failure is None:
        raw.failure = hung
    elif answer.hung:
        raw.add(Problem(*hung))
    elif not done:
        said = (f"NVML in {python} ended with exit code {answer.code}: {answer.message}", WARNING)
        if raw.taken:
            raw.add(Problem("not_understood", *said))
        else:
            raw.failure = raw.failure or ("not_understood", said[0])
    return raw


def _read(stage: Dict[str, Any], raw: Raw) -> None:
    if "missing" in stage:
        raw.failure = (MISSING, f"{raw.source} has no nvidia-ml-py: {stage['missing']}")
    elif "failed" in stage:
        code: Any = stage.get("code")
        raw.failure = (CODES.get(code, "driver_error"), f"NVML: {stage['failed']} (error {code})")
    elif "rows" in stage:
        _read_first(stage, raw)
    elif "sample" in stage:
        raw.taken.append([_cells(row) for row in stage["sample"]])
        raw.window = float(stage["at"])
    elif "done" in stage:
        raw.cpu = {int(pid): (pair[0], pair[1]) for pid, pair in stage["cpu"].items()}
        for cells in raw.taken[0]:
            for key, value in (stage["activity"].get(word_of(cells, "uuid")) or {}).items():
                cells[key] = Cell(f"{value:.2f}", None)


def _read_first(stage: Dict[str, Any], raw: Raw) -> None:
    raw.taken = [[_cells(row) for row in stage["rows"]]]
    for index, why, _code in stage["gone"]:
        raw.gone.append((f"number {index}", why))
    if not raw.taken[0] and not raw.gone:
        raw.taken = []
        raw.failure = ("no_devices", "NVML: no GPU was found")
        return
    listed: Dict[str, List[Tuple[int, Optional[str], Optional[float]]]] = {}
    for uuid, entries in stage["processes"].items():
        if entries is None:
            raw.unlisted.append(uuid)
        listed[uuid] = [(int(pid), name, memory) for pid, name, memory in entries or ()]
    raw.processes = listed
    raw.mig = stage["mig"]
    raw.nvlink = {uuid: count for uuid, count in stage["nvlink"].items() if count}


def _cells(row: Dict[str, Any]) -> Cells:
    return {key: Cell("" if text is None else str(text), state) for key, (text, state) in row.items()}

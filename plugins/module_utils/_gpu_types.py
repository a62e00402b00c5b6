# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words and shapes of a look at GPUs. This util is private to the collection."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._command import Survivor
from ansible_collections.ringrift.recovery.plugins.module_utils._nvidia_smi import Cell
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import Problem, as_dicts

BUSY = "busy"
IDLE = "idle"
IDLE_WITH_PROCESS = "idle_with_process"
WEDGED = "wedged"
SICK = "sick"
LOST = "lost"
LEAKED = "leaked_memory"
UNKNOWN = "unknown"
NONE = "none"
# The verdict of a node is the first of these that one of its GPUs has.
WORST_FIRST = (LOST, SICK, WEDGED, LEAKED, UNKNOWN, IDLE_WITH_PROCESS, BUSY, IDLE)

AUTO = "auto"
NVML = "nvml"
NVIDIA_SMI = "nvidia_smi"
SOURCES = (AUTO, NVML, NVIDIA_SMI)

CLOCK_REASONS = (
    (0x1, "idle"),
    (0x2, "application_clocks"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
    (0x100, "display_clocks"),
)
THROTTLED = frozenset({"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"})
RECOVERY_ACTIONS = frozenset({"reset", "gpu reset", "reboot", "node reboot", "drain p2p", "drain and reset"})
MAX_PROCESSES = 1000
MAX_NAME = 200
# After the window, for a GPU whose utilization is the trailing average of a process that is gone.
SETTLE = 4
SETTLE_INTERVAL = 0.5

_COHERENT = re.compile(r"\b(GH200|GB\d{2,3})\b", re.I)

Cells = Dict[str, Cell]


@dataclass(frozen=True)
class Thresholds:
    """From where on a GPU counts as busy, wedged or leaking.

    Utilizations and activities are percent, ``wedged_power_fraction`` is a share of the power limit, ``leaked_memory``
    is MiB, ``progress_age`` seconds.
    """

    busy_utilization: float = 5.0
    wedged_utilization: float = 90.0
    wedged_memory_utilization: float = 5.0
    wedged_power_fraction: float = 0.25
    wedged_tensor_activity: float = 1.0
    leaked_memory: float = 1024.0
    progress_age: float = 60.0


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU. ``here`` tells whether it lives in this PID namespace; ``memory_used`` is MiB.

    ``cpu_seconds`` is its CPU time over the window, None where that is not known.
    """

    pid: int
    name: Optional[str]
    memory_used: Optional[float]
    here: bool
    cpu_seconds: Optional[float] = None


@dataclass(frozen=True)
class Gpu:
    """One GPU. Utilizations are percent, memory is MiB, power W, temperature °C, clocks MHz.

    What moves is the median over ``samples`` samples. None means not known, and never 0 or healthy; ``unavailable``
    says for each such reading why. ``coherent`` memory also belongs to the operating system.
    """

    index: Optional[int]
    uuid: Optional[str]
    bus_id: Optional[str]
    name: Optional[str]
    serial: Optional[str] = None
    architecture: Optional[str] = None
    utilization: Optional[float] = None
    utilization_memory: Optional[float] = None
    tensor_activity: Optional[float] = None
    sm_activity: Optional[float] = None
    dram_activity: Optional[float] = None
    memory_used: Optional[float] = None
    memory_total: Optional[float] = None
    memory_reserved: Optional[float] = None
    power: Optional[float] = None
    power_limit: Optional[float] = None
    temperature: Optional[float] = None
    temperature_memory: Optional[float] = None
    clock_sm: Optional[float] = None
    clock_sm_max: Optional[float] = None
    clock_memory: Optional[float] = None
    clock_reasons: Optional[Tuple[str, ...]] = None
    pstate: Optional[str] = None
    persistence_mode: Optional[bool] = None
    compute_mode: Optional[str] = None
    ecc_mode: Optional[bool] = None
    ecc_uncorrected_volatile: Optional[int] = None
    ecc: Dict[str, Any] = field(default_factory=dict)
    remapped_rows: Dict[str, Optional[int]] = field(default_factory=dict)
    remapped_rows_pending: Optional[bool] = None
    remapped_rows_failure: Optional[bool] = None
    retired_pages: Optional[Dict[str, Any]] = None
    nvlink: Optional[Dict[str, Optional[int]]] = None
    pcie: Dict[str, Optional[int]] = field(default_factory=dict)
    mig_mode: Optional[bool] = None
    mig_instances: Tuple[Dict[str, Any], ...] = ()
    recovery_action: Optional[str] = None
    numa_node: Optional[int] = None
    coherent: bool = False
    processes: Optional[Tuple[GpuProcess, ...]] = None
    unavailable: Dict[str, str] = field(default_factory=dict)
    samples: int = 0
    verdict: str = UNKNOWN
    reason: str = ""

    @property
    def label(self) -> str:
        return f"GPU {self.index}" if self.index is not None else f"GPU at {self.bus_id}"

    def as_dict(self) -> Dict[str, Any]:
        listed = None if self.processes is None else [asdict(process) for process in self.processes]
        reasons = None if self.clock_reasons is None else list(self.clock_reasons)
        lists = {"processes": listed, "clock_reasons": reasons, "mig_instances": list(self.mig_instances)}
        return {**asdict(self), **lists}


@dataclass(frozen=True)
class GpuReport:
    """The GPUs of a node. ``window_seconds`` is the time from the first sample to the last."""

    gpus: Tuple[Gpu, ...]
    verdict: str
    driver_version: Optional[str]
    source: Optional[str]
    problems: Tuple[Problem, ...]
    window_seconds: float
    left_behind: Tuple[Survivor, ...] = ()
    method: Optional[str] = None
    nvml: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return {
            "gpus": [gpu.as_dict() for gpu in self.gpus],
            "verdict": self.verdict,
            "driver_version": self.driver_version,
            "source": self.source,
            "method": self.method,
            "nvml": self.nvml,
            "problems": as_dicts(self.problems),
            "left_behind": [asdict(survivor) for survivor in self.left_behind],
            "window_seconds": round(self.window_seconds, 3),
        }


@dataclass
class Raw:
    """What a source saw: one list of rows of cells for each sample, the processes, and what went wrong.

    ``processes`` maps the UUID of a GPU to its processes as (pid, name, MiB); None where they could not be listed.
    ``unlisted`` holds the UUIDs of those GPUs whose processes could not be listed.
    ``cpu`` maps a pid to its CPU seconds before and after the window. ``failure`` is code and words where not a single
    GPU was shown.
    """

    taken: List[List[Cells]] = field(default_factory=list)
    processes: Optional[Dict[str, List[Tuple[int, Optional[str], Optional[float]]]]] = None
    unlisted: List[str] = field(default_factory=list)
    cpu: Dict[int, Tuple[Optional[float], Optional[float]]] = field(default_factory=dict)
    mig: Dict[str, List[Dict[str, Any]]] = field(default_factory=dict)
    nvlink: Dict[str, Dict[str, Optional[int]]] = field(default_factory=dict)
    gone: List[Tuple[str, str]] = field(default_factory=list)
    problems: List[Problem] = field(default_factory=list)
    failure: Optional[Tuple[str, str]] = None
    hung: bool = False
    survivors: List[Survivor] = field(default_factory=list)
    window: float = 0.0
    source: Optional[str] = None
    method: Optional[str] = None

    def add(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def is_coherent(name: Optional[str]) -> bool:
    """Whether the memory of a GPU of this name also belongs to the operating system (Grace Hopper and its kin)."""
    return bool(name and _COHERENT.search(name))


def word_of(cells: Cells, key: str) -> Optional[str]:
    cell = cells.get(key)
    word = cell.word if cell is not None else None
    return word[:MAX_NAME] if word else None


def number_of(cells: Cells, key: str) -> Optional[float]:
    cell = cells.get(key)
    return cell.number if cell is not None else None


def settles(rows: List[Cells], busy: Any, thresholds: Thresholds) -> bool:
    """Whether one of the GPUs claims load, has no process and draws no power: its utilization may trail."""
    for cells in rows:
        load, power, limit = (number_of(cells, key) for key in ("utilization", "power", "power_limit"))
        if load is None or load < thresholds.busy_utilization or (word_of(cells, "uuid") or "") in busy:
            continue
        if power is None or limit is None or power <= thresholds.wedged_power_fraction * limit:
            return True
    return False

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the GPUs of a node do, over a short window: busy, idle, wedged, sick, or not to be told.

Utilization alone is no proof of work: a kernel that waits for ever in a collective shows 100 % at the power of an idle
GPU. And 0 % with memory in use is no proof of a leak where the memory also belongs to the operating system, as on Grace
Hopper. This util is private to the collection.
"""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple, cast

from ansible_collections.ringrift.recovery.plugins.module_utils import _nvidia_smi, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_judge import Scene, ecc_words, judge
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_types import (
    AUTO,
    BUSY,
    CLOCK_REASONS,
    LOST,
    NONE,
    NVIDIA_SMI,
    NVML,
    RECOVERY_ACTIONS,
    SICK,
    SOURCES,
    THROTTLED,
    UNKNOWN,
    WORST_FIRST,
    Cells,
    Gpu,
    GpuProcess,
    GpuReport,
    Raw,
    Thresholds,
    is_coherent,
    number_of,
    word_of,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._nvidia_smi import Cell, NvidiaSmi
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem

TIMEOUT = 10.0
SAMPLES = 3
INTERVAL = 0.5
MAX_SAMPLES = 1000

# Daemons that keep the device open on a healthy node.
KEEPERS = frozenset({"nvidia-persiste", "nv-hostengine", "nv-fabricmanage", "dcgm-exporter", "nvidia-smi", "nvsm_core"})
# The PID namespace of the machine itself has this number on every kernel.
FIRST_PID_NAMESPACE = "pid:[4026531836]"
MEMINFO = "/sys/devices/system/node/node{}/meminfo"

_DEVICE = re.compile(r"\A/dev/nvidia\d+\Z")
_MEMINFO = re.compile(r"(MemUsed|FilePages):\s+(\d{1,15}) kB")


def collect(
    nvidia_smi: str = "nvidia-smi",
    timeout: float = TIMEOUT,
    samples: int = SAMPLES,
    interval: float = INTERVAL,
    thresholds: Optional[Thresholds] = None,
    source: str = AUTO,
    python: Optional[str] = None,
    progress_file: Optional[str] = None,
) -> GpuReport:
    """Look at the GPUs of this node.

    :param nvidia_smi: the tool, by name or by path
    :param timeout: seconds for everything together; samples that would not fit in are left out
    :param samples: how often to look
    :param interval: seconds from one look to the next
    :param source: ``auto``, ``nvml`` or ``nvidia_smi``
    :param python: an interpreter that may have nvidia-ml-py, tried before this one
    :param progress_file: what the trainer writes to while it makes progress
    :raises RecoveryError: the tool is there and cannot be run
    """
    if not 0 < timeout <= 3600:
        raise RecoveryError(f"timeout is {timeout:g} s. It must be more than 0 and at most 3600.")
    if not 1 <= samples <= MAX_SAMPLES or not 0 <= interval <= 3600:
        raise RecoveryError(
            f"samples is {samples} and interval {interval:g} s. Take 1 to {MAX_SAMPLES} samples, 0 to 3600 s apart."
        )
    if source not in SOURCES:
        raise RecoveryError(f"source is {source!r}. Take one of {', '.join(SOURCES)}.")
    thresholds = thresholds or Thresholds()
    end = time.monotonic() + timeout
    before = _modified(progress_file)
    nvml, said = None, None
    if source != NVIDIA_SMI:
        nvml = _ask_nvml(python, end, samples, interval, thresholds)
        said = nvml.failure[1] if nvml.failure else None
    raw = nvml
    if nvml is None or source == AUTO and nvml.failure is not None and not nvml.hung:
        path = _nvidia_smi.find_tool(nvidia_smi)
        if path is not None:
            # Imported where it is needed: on a node everything is compiled anew at every look.
            from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu_smi

            tool = NvidiaSmi(path, max(0.05, end - time.monotonic()))
            raw = _gpu_smi.look(tool, samples, interval, thresholds)
        elif nvml is None or nvml.failure and nvml.failure[0] in ("nvml_missing", "library_missing"):
            words = f"There is no {nvidia_smi} on this node, so no GPU can be seen."
            words += " If it has one, set nvidia_smi to the tool."
            return GpuReport((), NONE, None, None, (Problem("no_driver_tool", words, WARNING),), 0.0, nvml=said)
    # Where the first source gave nothing, the second did, or the answer has been given above.
    return _Report(cast(Raw, raw), thresholds, _scene(progress_file, before)).make(said)


def _ask_nvml(python: Optional[str], end: float, samples: int, interval: float, thresholds: Thresholds) -> Raw:
    """The first interpreter that has nvidia-ml-py."""
    # Imported where it is needed: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu_nvml

    raw = Raw(method=NVML, failure=(_gpu_nvml.MISSING, "there is no interpreter to ask NVML with"))
    lacking = []
    for one in dict.fromkeys(found for found in (python, sys.executable) if found):
        left = end - time.monotonic()
        # A window that NVML cannot end in time would read as a hung driver.
        fitting = samples if interval <= 0 else max(1, min(samples, int((left - 0.7) / interval) + 1))
        try:
            raw = _gpu_nvml.look(one, max(0.05, left), fitting, interval, thresholds)
        except RecoveryError as exc:
            raw.failure = (_gpu_nvml.MISSING, f"{one} could not be started ({exc.__cause__ or exc})")
        if raw.failure is None or raw.failure[0] != _gpu_nvml.MISSING:
            return raw
        lacking.append(raw.failure[1])
    advice = "Install nvidia-ml-py into one of them, set python to one that has it, or ask nvidia-smi."
    raw.failure = (_gpu_nvml.MISSING, f"{'; '.join(lacking)}. {advice}")
    return raw


def _modified(path: Optional[str]) -> Optional[float]:
    try:
        return os.stat(path).st_mtime if path else None
    except OSError:
        return None


def _scene(progress_file: Optional[str], before: Optional[float]) -> Scene:
    after = _modified(progress_file)
    age = None if after is None else max(0.0, time.time() - after)
    moved = None if after is None else after != before
    return Scene(in_container(), device_holders, node_memory, age, moved)


class _Report:
    """From what a source saw to the report."""

    def __init__(self, raw: Raw, thresholds: Thresholds, scene: Scene) -> None:
        self.raw = raw
        self.thresholds = thresholds
        self.scene = scene

    def make(self, nvml: Optional[str]) -> GpuReport:
        raw = self.raw
        for survivor in raw.survivors:
            words = f"Process {survivor.pid} is left behind: the kernel does not release it"
            raw.add(Problem("left_behind", f"{words} (state {survivor.state}, waits in {survivor.wchan})."))
        if raw.failure is not None:
            code, message = raw.failure
            verdict = {"no_devices": NONE, "gpu_lost": LOST}.get(code, UNKNOWN)
            problems = (Problem(code, message), *raw.problems)
            left = tuple(raw.survivors)
            return GpuReport((), verdict, None, raw.source, problems, 0.0, left, raw.method, nvml)
        first = raw.taken[0] if raw.taken else []
        gpus = [self._gpu(number) for number in range(len(first))]
        gpus += [self._lost(bus_id, why) for bus_id, why in raw.gone]
        versions = [word_of(cells, "driver_version") for cells in first]
        return GpuReport(
            tuple(gpus),
            worst([gpu.verdict for gpu in gpus] + ([UNKNOWN] if raw.hung else [])),
            next((version for version in versions if version), None),
            raw.source,
            tuple(raw.problems),
            raw.window,
            tuple(raw.survivors),
            raw.method,
            nvml,
        )

    def _gpu(self, number: int) -> Gpu:
        raw, cells = self.raw, self.raw.taken[0][number]
        uuid = word_of(cells, "uuid")
        series = [cells]
        for later in raw.taken[1:]:
            series.extend(row for row in later if uuid is not None and word_of(row, "uuid") == uuid)
        reasons = [_reasons(row.get("clock_reasons")) for row in series]
        lasting = None
        if reasons[0] is not None:
            # Only what holds all the time: a slowdown may flash when the GPU changes its state.
            lasting = tuple(one for one in reasons[0] if all(other is None or one in other for other in reasons))
        name, numa_node = word_of(cells, "name"), _whole(cells, "numa_node")
        # The name only counts where the driver does not say whether the GPU is a NUMA node.
        coherent = numa_node is not None or word_of(cells, "addressing_mode") == "ATS" or is_coherent(name)
        retired = {
            "single_bit": _whole(cells, "retired_single"),
            "double_bit": _whole(cells, "retired_double"),
            "pending": _flag(cells, "retired_pending"),
        }
        gpu = Gpu(
            index=_whole(cells, "index"),
            uuid=uuid,
            bus_id=word_of(cells, "bus_id"),
            name=name,
            serial=word_of(cells, "serial"),
            architecture=word_of(cells, "architecture"),
            utilization=_median(series, "utilization"),
            utilization_memory=_median(series, "utilization_memory"),
            tensor_activity=number_of(cells, "tensor_activity"),
            sm_activity=number_of(cells, "sm_activity"),
            dram_activity=number_of(cells, "dram_activity"),
            memory_used=_median(series, "memory_used"),
            memory_total=number_of(cells, "memory_total"),
            memory_reserved=number_of(cells, "memory_reserved"),
            power=_median(series, "power"),
            power_limit=number_of(cells, "power_limit"),
            temperature=number_of(cells, "temperature"),
            temperature_memory=number_of(cells, "temperature_memory"),
            clock_sm=number_of(cells, "clock_sm"),
            clock_sm_max=number_of(cells, "clock_sm_max"),
            clock_memory=number_of(cells, "clock_memory"),
            clock_reasons=lasting,
            pstate=word_of(cells, "pstate"),
            persistence_mode=_flag(cells, "persistence_mode"),
            compute_mode=word_of(cells, "compute_mode"),
            ecc_mode=_flag(cells, "ecc_mode"),
            ecc_uncorrected_volatile=_whole(cells, "ecc_uncorrected_volatile"),
            ecc={
                "volatile": {
                    "corrected": _whole(cells, "ecc_volatile_corrected"),
                    "uncorrected": _whole(cells, "ecc_uncorrected_volatile"),
                },
                "aggregate": {
                    "corrected": _whole(cells, "ecc_aggregate_corrected"),
                    "uncorrected": _whole(cells, "ecc_aggregate_uncorrected"),
                },
            },
            remapped_rows={
                "correctable": _whole(cells, "rows_correctable"),
                "uncorrectable": _whole(cells, "rows_uncorrectable"),
            },
            remapped_rows_pending=_flag(cells, "rows_pending"),
            remapped_rows_failure=_flag(cells, "rows_failure"),
            retired_pages=None if all(value is None for value in retired.values()) else retired,
            nvlink=raw.nvlink.get(uuid or ""),
            pcie={key: _whole(cells, f"pcie_{key}") for key in ("generation", "generation_max", "width", "width_max")},
            mig_mode=_flag(cells, "mig_mode"),
            mig_instances=tuple(raw.mig.get(uuid or "", ())),
            recovery_action=word_of(cells, "recovery_action"),
            numa_node=numa_node,
            coherent=coherent,
            processes=self._processes(uuid or ""),
            unavailable={key: cell.state for key, cell in sorted(cells.items()) if cell.state is not None},
            samples=len(series),
        )
        states: Dict[str, Set[Optional[str]]] = {key: {row[key].state for row in series if key in row} for key in cells}
        verdict, reason = judge(gpu, series, states, self.thresholds, self.scene)
        self._warn(gpu, verdict, reason, states)
        return replace(gpu, verdict=verdict, reason=reason)

    def _processes(self, uuid: str) -> Optional[Tuple[GpuProcess, ...]]:
        if self.raw.processes is None or uuid in self.raw.unlisted:
            return None
        found = []
        for pid, name, memory in self.raw.processes.get(uuid, ()):
            before, after = self.raw.cpu.get(pid, (None, None))
            here = _is_here(pid, name)
            spent = None if before is None or after is None or not here else round(after - before, 2)
            found.append(GpuProcess(pid, name, memory, here, spent))
        return tuple(found)

    def _warn(self, gpu: Gpu, verdict: str, reason: str, states: Mapping[str, Set[Optional[str]]]) -> None:
        def add(code: str, message: str, severity: str = WARNING) -> None:
            self.raw.add(Problem(code, f"{gpu.label}: {message}", severity, gpu.uuid or gpu.bus_id))

        if verdict in (LOST, SICK):
            add("gpu_lost" if verdict == LOST else "gpu_sick", reason, ERROR)
        if gpu.remapped_rows_pending:
            add("remap_pending", "rows of its memory wait to be remapped; reset it at the next stop")
        if gpu.ecc_uncorrected_volatile and verdict != SICK:
            add("ecc_uncorrected", ecc_words(gpu))
        throttled = sorted(THROTTLED.intersection(gpu.clock_reasons or ()))
        if throttled:
            add("throttled", f"it is slowed down: {', '.join(throttled)}")
        # An idle GPU lets its link fall to a lower speed, so this only counts at load.
        slow = [
            f"{what} {gpu.pcie[what]} of {gpu.pcie[what + '_max']}"
            for what in ("generation", "width")
            if (gpu.pcie.get(what) or 0) < (gpu.pcie.get(f"{what}_max") or 0) and gpu.pcie.get(what)
        ]
        if slow and verdict == BUSY:
            add("pcie_degraded", f"its PCIe link runs below its best at load: {', '.join(slow)}")
        action = (gpu.recovery_action or "none").lower()
        if action != "none" and action not in RECOVERY_ACTIONS:
            add("recovery_action_unknown", f"the driver names an action that is not known here: {action[:60]!r}")
        broken = sorted(key for key, seen in states.items() if _nvidia_smi.UNKNOWN_ERROR in seen)
        if broken and verdict not in (LOST, SICK):
            add("unknown_error", f"the driver answers [Unknown Error] for {', '.join(broken)}")

    def _lost(self, bus_id: str, why: str) -> Gpu:
        reason = f"the driver has no handle for it: {why}"
        self.raw.add(Problem("gpu_lost", f"GPU at {bus_id}: {reason}", ERROR, bus_id))
        return Gpu(index=None, uuid=None, bus_id=bus_id, name=None, verdict=LOST, reason=reason)


def worst(verdicts: Iterable[str]) -> str:
    """The verdict of a node, from those of its GPUs."""
    found = set(verdicts)
    return next((verdict for verdict in WORST_FIRST if verdict in found), NONE)


def in_container() -> bool:
    """Whether this runs in a PID namespace of its own, from where processes of others cannot be seen."""
    try:
        return os.readlink("/proc/self/ns/pid") != FIRST_PID_NAMESPACE
    except OSError:
        return True


def device_holders() -> Optional[List[int]]:
    """Processes that hold a GPU open, but for the driver's own daemons; None where this user cannot see all."""
    found = []
    for pid in _proc.list_pids():
        stat = _proc.read_stat(pid)
        if stat is None or stat.comm in KEEPERS:
            continue
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except PermissionError:
            return None
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            except OSError:
                continue
            if _DEVICE.match(target):
                found.append(pid)
                break
    return found


def node_memory(node: int) -> Optional[float]:
    """MiB that a NUMA node uses apart from file pages, which the operating system gives back by itself."""
    try:
        found = dict(_MEMINFO.findall(_proc.read_text(MEMINFO.format(node))))
        return round((int(found["MemUsed"]) - int(found["FilePages"])) / 1024, 1)
    except (OSError, KeyError, ValueError):
        return None


def _is_here(pid: int, name: Optional[str]) -> bool:
    stat = _proc.read_stat(pid)
    if stat is None:
        return False
    # In a container the driver may mean a process of the machine, which has the number of another one here.
    if not in_container() or name is None:
        return True
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        program = ""
    argv = _proc.read_cmdline(pid) or [""]
    base = os.path.basename(name)
    return base in (program, os.path.basename(argv[0])) or base[:15] == stat.comm


def _reasons(cell: Optional[Cell]) -> Optional[Tuple[str, ...]]:
    """The names of the bits that are set."""
    word = cell.word if cell is not None else None
    if word is None or not re.match(r"\A0x[0-9a-fA-F]{1,16}\Z", word):
        return None
    bits = int(word, 16)
    return tuple(name for bit, name in CLOCK_REASONS if bits & bit)


def _flag(cells: Cells, key: str) -> Optional[bool]:
    words = {"yes": True, "no": False, "1": True, "0": False, "enabled": True, "disabled": False}
    return words.get((word_of(cells, key) or "").lower())


def _whole(cells: Cells, key: str) -> Optional[int]:
    number = number_of(cells, key)
    return None if number is None else int(number)


def _median(series: Sequence[Cells], key: str) -> Optional[float]:
    # Imported where it is needed: on a node everything is compiled anew at every look.
    import statistics

    values = [value for value in (number_of(row, key) for row in series) if value is not None]
    return round(statistics.median(values), 2) if values else None

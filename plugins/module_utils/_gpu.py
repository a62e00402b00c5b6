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
import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _nvidia_smi, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._nvidia_smi import Answer, Cell, NvidiaSmi
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem, as_dicts

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

TIMEOUT = 10.0
SAMPLES = 3
INTERVAL = 0.5
MAX_SAMPLES = 1000

IDENTITY = {
    "index": ("index",),
    "uuid": ("uuid", "gpu_uuid"),
    "bus_id": ("pci.bus_id", "gpu_bus_id"),
    "name": ("name", "gpu_name"),
    "driver_version": ("driver_version",),
    "memory_total": ("memory.total",),
}
VOLATILE = {
    "utilization": ("utilization.gpu",),
    "utilization_memory": ("utilization.memory",),
    "memory_used": ("memory.used",),
    "power": ("power.draw",),
    "clock_reasons": ("clocks_event_reasons.active", "clocks_throttle_reasons.active"),
}
HEALTH = {
    "power_limit": ("power.limit", "enforced.power.limit"),
    "temperature": ("temperature.gpu",),
    "pstate": ("pstate",),
    "ecc_uncorrected_volatile": ("ecc.errors.uncorrected.volatile.total",),
    "mig_mode": ("mig.mode.current",),
    "recovery_action": ("gpu_recovery_action",),
}
FIELDS = {**IDENTITY, **VOLATILE, **HEALTH}
# For a driver that refuses a query and does not name the field.
FEWEST = {**IDENTITY, "utilization": VOLATILE["utilization"], "memory_used": VOLATILE["memory_used"]}
APPS = ("gpu_uuid", "pid", "process_name", "used_memory")
ROWS = ("gpu_uuid", "remapped_rows.pending", "remapped_rows.failure")

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
THROTTLED = frozenset({"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})
RECOVERY_ACTIONS = frozenset({"reset", "gpu reset", "reboot", "node reboot", "drain p2p", "drain and reset"})
# Daemons that keep the device open on a healthy node.
KEEPERS = frozenset({"nvidia-persiste", "nv-hostengine", "nv-fabricmanage", "dcgm-exporter", "nvidia-smi", "nvsm_core"})
MAX_PROCESSES = 1000
MAX_NAME = 200
# The PID namespace of the machine itself has this number on every kernel.
FIRST_PID_NAMESPACE = "pid:[4026531836]"

_BAD_ARGUMENT = 2
_COHERENT = re.compile(r"\b(GH200|GB\d{2,3})\b", re.I)
_DEVICE = re.compile(r"\A/dev/nvidia\d+\Z")


@dataclass(frozen=True)
class Thresholds:
    """From where on a GPU counts as busy, wedged or leaking.

    Utilizations are percent, ``wedged_power_fraction`` is a share of the power limit, ``leaked_memory`` is MiB.
    """

    busy_utilization: float = 5.0
    wedged_utilization: float = 90.0
    wedged_memory_utilization: float = 5.0
    wedged_power_fraction: float = 0.25
    leaked_memory: float = 1024.0


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU. ``here`` tells whether it is one of this PID namespace; ``memory_used`` is MiB."""

    pid: int
    name: Optional[str]
    memory_used: Optional[float]
    here: bool


@dataclass(frozen=True)
class Gpu:
    """One GPU. Utilizations are percent, memory is MiB, power W, temperature °C; medians over ``samples`` samples.

    None means not known, and never 0 or healthy. ``coherent`` memory also belongs to the operating system.
    """

    index: Optional[int]
    uuid: Optional[str]
    bus_id: Optional[str]
    name: Optional[str]
    utilization: Optional[float] = None
    utilization_memory: Optional[float] = None
    memory_used: Optional[float] = None
    memory_total: Optional[float] = None
    power: Optional[float] = None
    power_limit: Optional[float] = None
    temperature: Optional[float] = None
    pstate: Optional[str] = None
    ecc_uncorrected_volatile: Optional[int] = None
    clock_reasons: Optional[Tuple[str, ...]] = None
    remapped_rows_pending: Optional[bool] = None
    remapped_rows_failure: Optional[bool] = None
    mig_mode: Optional[bool] = None
    recovery_action: Optional[str] = None
    coherent: bool = False
    processes: Optional[Tuple[GpuProcess, ...]] = None
    samples: int = 0
    verdict: str = UNKNOWN
    reason: str = ""

    @property
    def label(self) -> str:
        return f"GPU {self.index}" if self.index is not None else f"GPU at {self.bus_id}"

    def as_dict(self) -> Dict[str, Any]:
        listed = None if self.processes is None else [asdict(process) for process in self.processes]
        reasons = None if self.clock_reasons is None else list(self.clock_reasons)
        return {**asdict(self), "processes": listed, "clock_reasons": reasons}


@dataclass(frozen=True)
class GpuReport:
    """The GPUs of a node. ``window_seconds`` is the time from the first sample to the last."""

    gpus: Tuple[Gpu, ...]
    verdict: str
    driver_version: Optional[str]
    source: Optional[str]
    problems: Tuple[Problem, ...]
    window_seconds: float

    def as_dict(self) -> Dict[str, Any]:
        return {
            "gpus": [gpu.as_dict() for gpu in self.gpus],
            "verdict": self.verdict,
            "driver_version": self.driver_version,
            "source": self.source,
            "problems": as_dicts(self.problems),
            "window_seconds": round(self.window_seconds, 3),
        }


def collect(
    nvidia_smi: str = "nvidia-smi",
    timeout: float = TIMEOUT,
    samples: int = SAMPLES,
    interval: float = INTERVAL,
    thresholds: Optional[Thresholds] = None,
) -> GpuReport:
    """Look at the GPUs of this node.

    :param nvidia_smi: the tool, by name or by path
    :param timeout: seconds for everything together; samples that would not fit in are left out
    :param samples: how often to look
    :param interval: seconds from one look to the next
    :raises RecoveryError: the tool is there and cannot be run
    """
    if not 0 < timeout <= 3600:
        raise RecoveryError(f"timeout is {timeout:g} s. It must be more than 0 and at most 3600.")
    if not 1 <= samples <= MAX_SAMPLES or not 0 <= interval <= 3600:
        raise RecoveryError(
            f"samples is {samples} and interval {interval:g} s. Take 1 to {MAX_SAMPLES} samples, 0 to 3600 s apart."
        )
    path = _nvidia_smi.find_tool(nvidia_smi)
    if path is None:
        missing = Problem("no_driver_tool", f"There is no {nvidia_smi} on this node, so no GPU can be seen.", WARNING)
        return GpuReport((), NONE, None, None, (missing,), 0.0)
    return _Look(NvidiaSmi(path, timeout), thresholds or Thresholds()).report(samples, interval)


class _Look:
    """One look at all GPUs of a node."""

    def __init__(self, tool: NvidiaSmi, thresholds: Thresholds) -> None:
        self.tool = tool
        self.thresholds = thresholds
        self.problems: List[Problem] = []
        self.only: List[str] = []
        self.hung = False
        self.window = 0.0

    def report(self, samples: int, interval: float) -> GpuReport:
        begun = time.monotonic()
        answer, first, asked = self.tool.query(FIELDS)
        if answer.code == _BAD_ARGUMENT and not first:
            answer, first, asked = self.tool.query(FEWEST)
        gone = _nvidia_smi.unreachable(answer)
        listed: List[Tuple[int, str, str, List[str]]] = []
        if gone and not first and not answer.hung:
            # One GPU without a handle hides all others, unless they are asked for by name.
            listed = self.tool.list_gpus()
            if listed:
                _answer, first, asked = self.tool.query(FIELDS, [entry[2] for entry in listed])
        if not first and not gone:
            return self._nothing(answer)
        self._note(answer, quietly=bool(gone) or bool(first) and answer.code == _BAD_ARGUMENT)
        if gone:
            # From here on too, the others must be asked for by name.
            self.only = [uuid for uuid in (_word(cells, "uuid") for cells in first) if uuid]
        apps, remapped, taken = None, {}, [first]
        if first and not self.hung:
            apps = self._processes(first, listed)
        if first and not self.hung:
            remapped = self._remapped()
        if first and not self.hung:
            taken += self._samples(asked, samples, interval, begun)
        gpus = [self._gpu(number, taken, apps, remapped) for number in range(len(first))]
        gpus += [self._lost(bus_id, why) for bus_id, why in gone]
        versions = [cells["driver_version"].word for cells in first if "driver_version" in cells]
        return GpuReport(
            tuple(gpus),
            worst([gpu.verdict for gpu in gpus] + ([UNKNOWN] if self.hung else [])),
            next((version for version in versions if version), None),
            self.tool.path,
            tuple(self.problems),
            self.window,
        )

    def _nothing(self, answer: Answer) -> GpuReport:
        """The tool did not show a single GPU."""
        code, message = answer.problem or ("not_understood", f"nvidia-smi wrote no table: {answer.message}")
        verdicts = {"no_devices": NONE, "gpu_lost": LOST}
        problem = Problem(code, message)
        return GpuReport((), verdicts.get(code, UNKNOWN), None, self.tool.path, (problem,), 0.0)

    def _note(self, answer: Answer, quietly: bool = False) -> None:
        if answer.problem is None or quietly:
            return
        self.hung = self.hung or answer.hung
        problem = Problem(*answer.problem)
        if problem not in self.problems:
            self.problems.append(problem)

    def _processes(
        self, first: Sequence[Mapping[str, Cell]], listed: List[Tuple[int, str, str, List[str]]]
    ) -> Optional[Dict[str, List[GpuProcess]]]:
        """The processes by the UUID of their GPU; None where they could not be listed."""
        if not self.tool.has_time_for(1):
            self.problems.append(Problem("no_time", "There was no time left to list the processes.", WARNING))
            return None
        answer = self.tool.table("--query-compute-apps", APPS, self.only)
        if answer.problem is not None:
            self._note(answer)
            return None
        entries = [_app(line) for line in answer.output.splitlines()[:MAX_PROCESSES]]
        found: Dict[str, List[GpuProcess]] = {}
        owners: Dict[str, str] = {}
        if any(entry and entry[0].startswith("MIG-") for entry in entries):
            for _index, _name, uuid, parts in listed or self.tool.list_gpus():
                owners.update(dict.fromkeys(parts, uuid))
        for entry in entries:
            if entry is None:
                continue
            uuid, process = entry
            found.setdefault(owners.get(uuid, uuid), []).append(process)
        known = {cells["uuid"].text for cells in first if "uuid" in cells}
        for uuid in sorted(set(found) - known):
            pids = ", ".join(str(process.pid) for process in found[uuid])
            self.problems.append(
                Problem("process_unassigned", f"Processes {pids} are on {uuid}, which is no GPU listed here.", WARNING)
            )
        return found

    def _remapped(self) -> Dict[str, Tuple[Optional[bool], Optional[bool]]]:
        """By UUID, whether remapping rows of memory is pending, and whether it has failed, where this is offered."""
        if not self.tool.has_time_for(1):
            return {}
        answer = self.tool.table("--query-remapped-rows", ROWS, self.only)
        if answer.hung:
            self._note(answer)
        found = {}
        for cells in _nvidia_smi.rows(answer.output, ROWS):
            found[cells[ROWS[0]].text] = (_flag(cells[ROWS[1]]), _flag(cells[ROWS[2]]))
        return found

    def _samples(
        self, asked: Mapping[str, str], samples: int, interval: float, begun: float
    ) -> List[List[Dict[str, Cell]]]:
        """The further samples: as many as there is time for."""
        fields = {key: (name,) for key, name in asked.items() if key in VOLATILE or key in ("index", "uuid")}
        taken: List[List[Dict[str, Cell]]] = []
        for number in range(1, samples):
            pause = max(0.0, begun + number * interval - time.monotonic())
            if not self.tool.has_time_for(1, pause):
                break
            time.sleep(pause)
            at = time.monotonic() - begun
            answer, rows, _asked = self.tool.query(fields, self.only)
            if answer.problem is not None and not rows:
                self._note(answer)
                break
            self.window = at
            taken.append(rows)
        return taken

    def _gpu(
        self,
        number: int,
        taken: Sequence[Sequence[Mapping[str, Cell]]],
        apps: Optional[Mapping[str, List[GpuProcess]]],
        remapped: Mapping[str, Tuple[Optional[bool], Optional[bool]]],
    ) -> Gpu:
        cells = taken[0][number]
        uuid = _word(cells, "uuid")
        series = [cells]
        for later in taken[1:]:
            series.extend(row for row in later if uuid is not None and _word(row, "uuid") == uuid)
        pending, failure = remapped.get(uuid or "", (None, None))
        name = _word(cells, "name")
        reasons = [_reasons(row.get("clock_reasons")) for row in series]
        lasting = None
        if reasons[0] is not None:
            # Only what holds all the time: a slowdown may flash when the GPU changes its state.
            lasting = tuple(one for one in reasons[0] if all(other is None or one in other for other in reasons))
        index, ecc = _number(cells, "index"), _number(cells, "ecc_uncorrected_volatile")
        gpu = Gpu(
            index=None if index is None else int(index),
            uuid=uuid,
            bus_id=_word(cells, "bus_id"),
            name=name,
            utilization=_median(series, "utilization"),
            utilization_memory=_median(series, "utilization_memory"),
            memory_used=_median(series, "memory_used"),
            memory_total=_number(cells, "memory_total"),
            power=_median(series, "power"),
            power_limit=_number(cells, "power_limit"),
            temperature=_number(cells, "temperature"),
            pstate=_word(cells, "pstate"),
            ecc_uncorrected_volatile=None if ecc is None else int(ecc),
            clock_reasons=lasting,
            remapped_rows_pending=pending,
            remapped_rows_failure=failure,
            mig_mode={"enabled": True, "disabled": False}.get((_word(cells, "mig_mode") or "").lower()),
            recovery_action=_word(cells, "recovery_action"),
            coherent=is_coherent(name),
            processes=None if apps is None else tuple(apps.get(uuid or "", ())),
            samples=len(series),
        )
        states = {key: {row[key].state for row in series if key in row} for key in cells}
        verdict, reason = judge(gpu, series, states, self.thresholds)
        self._warn(gpu, verdict, reason, states)
        return replace(gpu, verdict=verdict, reason=reason)

    def _warn(self, gpu: Gpu, verdict: str, reason: str, states: Mapping[str, Iterable[Optional[str]]]) -> None:
        def add(code: str, message: str, severity: str = WARNING) -> None:
            self.problems.append(Problem(code, f"{gpu.label}: {message}", severity, gpu.uuid or gpu.bus_id))

        if verdict in (LOST, SICK):
            add("gpu_lost" if verdict == LOST else "gpu_sick", reason, ERROR)
        if gpu.remapped_rows_pending:
            add("remap_pending", "rows of its memory wait to be remapped; reset it at the next stop")
        if gpu.ecc_uncorrected_volatile and verdict != SICK:
            add("ecc_uncorrected", _ecc(gpu))
        throttled = sorted(THROTTLED.intersection(gpu.clock_reasons or ()))
        if throttled:
            add("throttled", f"the hardware slows it down: {', '.join(throttled)}")
        action = (gpu.recovery_action or "none").lower()
        if action != "none" and action not in RECOVERY_ACTIONS:
            add("recovery_action_unknown", f"the driver names an action that is not known here: {action[:60]!r}")
        broken = sorted(key for key, seen in states.items() if _nvidia_smi.UNKNOWN_ERROR in seen)
        if broken and verdict not in (LOST, SICK):
            add("unknown_error", f"the driver answers [Unknown Error] for {', '.join(broken)}")

    def _lost(self, bus_id: str, why: str) -> Gpu:
        reason = f"the driver has no handle for it: {why}"
        self.problems.append(Problem("gpu_lost", f"GPU at {bus_id}: {reason}", ERROR, bus_id))
        return Gpu(index=None, uuid=None, bus_id=bus_id, name=None, verdict=LOST, reason=reason)


def judge(
    gpu: Gpu,
    series: Sequence[Mapping[str, Cell]],
    states: Mapping[str, Iterable[Optional[str]]],
    thresholds: Thresholds,
) -> Tuple[str, str]:
    """Verdict and reason of one GPU, from all its samples."""
    seen = {state for values in states.values() for state in values}
    if _nvidia_smi.LOST in seen:
        return LOST, "the driver says that it is lost; reboot the node"
    trouble = _trouble(gpu, seen, states)
    if trouble is not None:
        return SICK, trouble
    if gpu.utilization is None:
        why = "with MIG on, the driver reports none for the whole GPU" if gpu.mig_mode else "the driver reports none"
        return UNKNOWN, f"its utilization is not known: {why}"
    if is_wedged(gpu, series, thresholds):
        return WEDGED, (
            f"{gpu.utilization:g} % utilization at {gpu.power:g} W of {gpu.power_limit:g} W in all {len(series)} "
            f"samples: a kernel spins or waits and computes nothing"
        )
    if gpu.utilization >= thresholds.busy_utilization:
        power = "its power is not known" if gpu.power is None else f"{gpu.power:g} W"
        return BUSY, f"{gpu.utilization:g} % utilization, {power}"
    if gpu.ecc_uncorrected_volatile:
        return SICK, _ecc(gpu)
    return _judge_idle(gpu, thresholds)


def _trouble(gpu: Gpu, seen: Iterable[Optional[str]], states: Mapping[str, Iterable[Optional[str]]]) -> Optional[str]:
    """Why a GPU cannot be used, whatever it does."""
    action = (gpu.recovery_action or "").lower()
    if action in RECOVERY_ACTIONS:
        return f"the driver asks for: {gpu.recovery_action}"
    if _nvidia_smi.REQUIRES_RESET in seen:
        return "the driver says that it requires a reset"
    if gpu.remapped_rows_failure:
        return "remapping a row of its memory has failed; have it replaced"
    vital = [key for key in ("utilization", "memory_used") if _nvidia_smi.UNKNOWN_ERROR in states.get(key, ())]
    if vital:
        return f"the driver answers [Unknown Error] for {' and '.join(vital)}"
    return None


def _judge_idle(gpu: Gpu, thresholds: Thresholds) -> Tuple[str, str]:
    idle = f"{gpu.utilization:g} % utilization"
    if gpu.processes is None:
        return UNKNOWN, f"{idle}, and the processes on it could not be listed"
    if gpu.processes:
        pids = ", ".join(str(process.pid) for process in gpu.processes[:10])
        return IDLE_WITH_PROCESS, f"{idle}, although processes are on it: {pids}"
    used = gpu.memory_used
    if used is not None and used > thresholds.leaked_memory and not gpu.coherent and not gpu.mig_mode:
        unseen = f"{idle}, {used:g} MiB in use and no process listed"
        if in_container():
            return UNKNOWN, f"{unseen}; processes of another PID namespace cannot be seen from here"
        holders = device_holders()
        if holders is None:
            return UNKNOWN, f"{unseen}; only root can see whether somebody holds the device"
        if holders:
            return IDLE_WITH_PROCESS, f"{unseen}, but a GPU is held open by {', '.join(map(str, holders[:10]))}"
        return LEAKED, f"{unseen}, and nobody holds a GPU open; reset it or reboot the node"
    return IDLE, f"{idle}, no process on it"


def is_wedged(gpu: Gpu, series: Sequence[Mapping[str, Cell]], thresholds: Thresholds) -> bool:
    """Whether a GPU claims to work, in every sample, at the power and the memory traffic of one that does not."""
    if len(series) < 2 or gpu.power_limit is None:
        return False
    limit = thresholds.wedged_power_fraction * gpu.power_limit
    for row in series:
        load, power, traffic = (_number(row, key) for key in ("utilization", "power", "utilization_memory"))
        if load is None or load < thresholds.wedged_utilization or power is None or power > limit:
            return False
        if traffic is not None and traffic > thresholds.wedged_memory_utilization:
            return False
    return True


def is_coherent(name: Optional[str]) -> bool:
    """Whether the memory of a GPU of this name also belongs to the operating system (Grace Hopper and its kin)."""
    return bool(name and _COHERENT.search(name))


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


def _app(line: str) -> Optional[Tuple[str, GpuProcess]]:
    """A line of the process list; the name of a program may hold the separator."""
    parts = line.split(_nvidia_smi.SEPARATOR)
    if len(parts) < len(APPS) or not parts[1].strip().isdigit() or len(parts[1]) > 10:
        return None
    pid, name = int(parts[1]), _nvidia_smi.SEPARATOR.join(parts[2:-1]).strip()
    shown = _nvidia_smi.read_cell(name).word
    memory = _nvidia_smi.read_cell(parts[-1]).number
    return parts[0].strip()[:MAX_NAME], GpuProcess(pid, shown and shown[:MAX_NAME], memory, _is_here(pid, shown))


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


def _ecc(gpu: Gpu) -> str:
    return f"{gpu.ecc_uncorrected_volatile} uncorrected memory errors since the driver was loaded"


def _reasons(cell: Optional[Cell]) -> Optional[Tuple[str, ...]]:
    """The names of the bits that are set."""
    word = cell.word if cell is not None else None
    if word is None or not re.match(r"\A0x[0-9a-fA-F]{1,16}\Z", word):
        return None
    bits = int(word, 16)
    return tuple(name for bit, name in CLOCK_REASONS if bits & bit)


def _flag(cell: Cell) -> Optional[bool]:
    return {"yes": True, "no": False, "1": True, "0": False}.get((cell.word or "").lower())


def _word(cells: Mapping[str, Cell], key: str) -> Optional[str]:
    cell = cells.get(key)
    word = cell.word if cell is not None else None
    return word[:MAX_NAME] if word else None


def _number(cells: Mapping[str, Cell], key: str) -> Optional[float]:
    cell = cells.get(key)
    return cell.number if cell is not None else None


def _median(series: Sequence[Mapping[str, Cell]], key: str) -> Optional[float]:
    values = [value for value in (_number(row, key) for row in series) if value is not None]
    return round(statistics.median(values), 2) if values else None

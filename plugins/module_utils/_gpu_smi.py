# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readings of GPUs through nvidia-smi: all of ``-q -x``, then query fields. This util is private to the collection."""

from __future__ import annotations

import re
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple
from xml.etree import ElementTree

from ansible_collections.ringrift.recovery.plugins.module_utils import _nvidia_smi, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_types import (
    MAX_NAME,
    MAX_PROCESSES,
    NVIDIA_SMI,
    SETTLE,
    SETTLE_INTERVAL,
    Cells,
    Raw,
    Thresholds,
    settles,
    word_of,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._nvidia_smi import Answer, Cell, NvidiaSmi, read_cell
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING, Problem

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
    "power_limit": ("enforced.power.limit", "power.limit"),
    "temperature": ("temperature.gpu",),
    "pstate": ("pstate",),
    "ecc_uncorrected_volatile": ("ecc.errors.uncorrected.volatile.total",),
    "mig_mode": ("mig.mode.current",),
    "recovery_action": ("gpu_recovery_action",),
}
FIELDS = {**IDENTITY, **VOLATILE, **HEALTH}
# For a driver that refuses a query and does not name the field.
FEWEST = {**IDENTITY, "utilization": VOLATILE["utilization"], "memory_used": VOLATILE["memory_used"]}
# Asked one group after the other where -q -x gave nothing, as long as there is time.
MORE: Sequence[Mapping[str, Sequence[str]]] = (
    {
        "serial": ("serial",),
        "memory_reserved": ("memory.reserved",),
        "persistence_mode": ("persistence_mode",),
        "compute_mode": ("compute_mode",),
        "ecc_mode": ("ecc.mode.current",),
    },
    {"clock_sm": ("clocks.sm",), "clock_sm_max": ("clocks.max.sm",), "clock_memory": ("clocks.mem",)},
    {
        "pcie_generation": ("pcie.link.gen.current",),
        "pcie_generation_max": ("pcie.link.gen.max",),
        "pcie_width": ("pcie.link.width.current",),
        "pcie_width_max": ("pcie.link.width.max",),
    },
    {
        "ecc_volatile_corrected": ("ecc.errors.corrected.volatile.total",),
        "ecc_aggregate_corrected": ("ecc.errors.corrected.aggregate.total",),
        "ecc_aggregate_uncorrected": ("ecc.errors.uncorrected.aggregate.total",),
    },
    {
        "temperature_memory": ("temperature.memory",),
        "retired_single": ("retired_pages.single_bit_ecc.count",),
        "retired_double": ("retired_pages.double_bit.count",),
        "retired_pending": ("retired_pages.pending",),
    },
)
APPS = ("gpu_uuid", "pid", "process_name", "used_memory")
ROWS = {
    "rows_correctable": "remapped_rows.correctable",
    "rows_uncorrectable": "remapped_rows.uncorrectable",
    "rows_pending": "remapped_rows.pending",
    "rows_failure": "remapped_rows.failure",
}

# Where each reading stands below <gpu>; the first path that has a value counts.
PATHS = {
    "uuid": ("uuid",),
    "name": ("product_name",),
    "serial": ("serial",),
    "architecture": ("product_architecture",),
    "bus_id": ("pci/pci_bus_id",),
    "memory_total": ("fb_memory_usage/total",),
    "memory_used": ("fb_memory_usage/used",),
    "memory_reserved": ("fb_memory_usage/reserved",),
    "utilization": ("utilization/gpu_util",),
    "utilization_memory": ("utilization/memory_util",),
    "power": (
        "gpu_power_readings/average_power_draw",
        "gpu_power_readings/power_draw",
        "gpu_power_readings/instant_power_draw",
        "power_readings/power_draw",
    ),
    "power_limit": (
        "gpu_power_readings/current_power_limit",
        "gpu_power_readings/power_limit",
        "power_readings/enforced_power_limit",
        "power_readings/power_limit",
    ),
    "temperature": ("temperature/gpu_temp",),
    "temperature_memory": ("temperature/memory_temp",),
    "pstate": ("performance_state",),
    "clock_sm": ("clocks/sm_clock",),
    "clock_sm_max": ("max_clocks/sm_clock",),
    "clock_memory": ("clocks/mem_clock",),
    "persistence_mode": ("persistence_mode",),
    "compute_mode": ("compute_mode",),
    "mig_mode": ("mig_mode/current_mig",),
    "ecc_mode": ("ecc_mode/current_ecc",),
    "rows_correctable": ("remapped_rows/remapped_row_corr",),
    "rows_uncorrectable": ("remapped_rows/remapped_row_unc",),
    "rows_pending": ("remapped_rows/remapped_row_pending",),
    "rows_failure": ("remapped_rows/remapped_row_failure",),
    "retired_single": ("retired_pages/multiple_single_bit_retirement/retired_count",),
    "retired_double": ("retired_pages/double_bit_retirement/retired_count",),
    "retired_pending": ("retired_pages/pending_retirement", "retired_pages/pending_blacklist"),
    "pcie_generation": ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",),
    "pcie_generation_max": ("pci/pci_gpu_link_info/pcie_gen/max_link_gen",),
    "pcie_width": ("pci/pci_gpu_link_info/link_widths/current_link_width",),
    "pcie_width_max": ("pci/pci_gpu_link_info/link_widths/max_link_width",),
    "recovery_action": ("gpu_recovery_action",),
    "addressing_mode": ("addressing_mode",),
}
ECC = {
    "ecc_volatile_corrected": ("volatile", "correctable"),
    "ecc_uncorrected_volatile": ("volatile", "uncorrectable"),
    "ecc_aggregate_corrected": ("aggregate", "correctable"),
    "ecc_aggregate_uncorrected": ("aggregate", "uncorrectable"),
}
REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clocks_setting": 0x100,
}

_BAD_ARGUMENT = 2
_REASON = re.compile(r"\Aclocks_(?:event|throttle)_reason_(\w+)\Z")
_LINK_GPU = re.compile(r"^GPU \d+: .*\(UUID: (GPU-[0-9A-Za-z-]{1,80})\)", re.M)
_LINK = re.compile(r"^\s+Link \d+: (.{1,60})$")


def look(tool: NvidiaSmi, samples: int, interval: float, thresholds: Thresholds) -> Raw:
    """All readings, for as long as the tool has time."""
    return _Smi(tool, thresholds).look(samples, interval)


class _Smi:
    def __init__(self, tool: NvidiaSmi, thresholds: Thresholds) -> None:
        self.tool = tool
        self.thresholds = thresholds
        self.raw = Raw(source=tool.path, method=NVIDIA_SMI)
        self.only: List[str] = []

    def look(self, samples: int, interval: float) -> Raw:
        raw, begun = self.raw, time.monotonic()
        answer = self.tool.call("-q", "-x")
        first = read_xml(answer.output, raw) if answer.code == 0 else []
        whole, asked = bool(first), {key: names[0] for key, names in VOLATILE.items()}
        asked.update(index="index", uuid="uuid")
        if answer.hung:
            self._fail(answer)
            return raw
        listed: List[Tuple[int, str, str, List[str]]] = []
        if not first:
            begun = time.monotonic()
            answer, first, asked = self.tool.query(FIELDS)
            if answer.code == _BAD_ARGUMENT and not first:
                answer, first, asked = self.tool.query(FEWEST)
            raw.gone = _nvidia_smi.unreachable(answer)
            if raw.gone and not first and not answer.hung:
                # One GPU without a handle hides all others, unless they are asked for by name.
                listed = self.tool.list_gpus()
                if listed:
                    _answer, first, asked = self.tool.query(FIELDS, [entry[2] for entry in listed])
            if not first and not raw.gone:
                self._fail(answer)
                return raw
            self._note(answer, quietly=bool(raw.gone) or bool(first) and answer.code == _BAD_ARGUMENT)
            if raw.gone:
                # From here on too, the others must be asked for by name.
                self.only = [uuid for uuid in (word_of(cells, "uuid") for cells in first) if uuid]
        raw.taken = [first]
        if first and not raw.hung and not whole:
            self._processes(first, listed)
        if first and not raw.hung and not whole:
            self._remapped(first)
        pids = [entry[0] for entries in (raw.processes or {}).values() for entry in entries]
        before = {pid: cpu_seconds(pid) for pid in pids}
        if first and not raw.hung:
            self._samples(asked, samples, interval, begun)
        raw.cpu = {pid: (before[pid], cpu_seconds(pid)) for pid in pids}
        if first and not raw.hung and not whole:
            self._more(first)
        if first and not raw.hung and self.tool.has_time_for(1):
            raw.nvlink = read_links(self.tool.call("nvlink", "-s"))
        return raw

    def _fail(self, answer: Answer) -> None:
        """The tool did not show a single GPU."""
        self.raw.failure = answer.problem or ("not_understood", f"nvidia-smi wrote no table: {answer.message}")
        self._note(answer, quietly=True)

    def _note(self, answer: Answer, quietly: bool = False) -> None:
        self.raw.hung = self.raw.hung or answer.hung
        if answer.survivor is not None:
            self.raw.survivors.append(answer.survivor)
        if answer.problem is not None and not quietly:
            self.raw.add(Problem(*answer.problem))

    def _processes(self, first: Sequence[Cells], listed: List[Tuple[int, str, str, List[str]]]) -> None:
        if not self.tool.has_time_for(1):
            self.raw.add(Problem("no_time", "There was no time left to list the processes.", WARNING))
            return
        answer = self.tool.table("--query-compute-apps", APPS, self.only)
        if answer.problem is not None:
            self._note(answer)
            return
        entries = [_app(line) for line in answer.output.splitlines()[:MAX_PROCESSES]]
        found: Dict[str, List[Tuple[int, Optional[str], Optional[float]]]] = {}
        owners: Dict[str, str] = {}
        if any(entry and entry[0].startswith("MIG-") for entry in entries):
            for _index, _name, uuid, parts in listed or self.tool.list_gpus():
                owners.update(dict.fromkeys(parts, uuid))
        for entry in entries:
            if entry is not None:
                found.setdefault(owners.get(entry[0], entry[0]), []).append(entry[1:])
        known = {cells["uuid"].text for cells in first if "uuid" in cells}
        for uuid in sorted(set(found) - known):
            pids = ", ".join(str(process[0]) for process in found[uuid])
            self.raw.add(
                Problem("process_unassigned", f"Processes {pids} are on {uuid}, which is no GPU listed here.", WARNING)
            )
        self.raw.processes = found

    def _remapped(self, first: Sequence[Cells]) -> None:
        if not self.tool.has_time_for(1):
            return
        names = ("gpu_uuid", *ROWS.values())
        answer = self.tool.table("--query-remapped-rows", names, self.only)
        if answer.hung:
            self._note(answer)
        self._merge(first, _nvidia_smi.rows(answer.output, ("uuid", *ROWS)))

    def _more(self, first: Sequence[Cells]) -> None:
        for group in MORE:
            if not self.tool.has_time_for(2):
                return
            answer, rows, _asked = self.tool.query({"uuid": ("uuid",), **group}, self.only)
            if answer.hung:
                self._note(answer)
                return
            self._merge(first, rows)

    @staticmethod
    def _merge(first: Sequence[Cells], rows: Sequence[Cells]) -> None:
        by_uuid = {word_of(row, "uuid"): row for row in rows}
        for cells in first:
            row = by_uuid.get(word_of(cells, "uuid"))
            if row is not None and word_of(cells, "uuid") is not None:
                cells.update({key: cell for key, cell in row.items() if key != "uuid"})

    def _samples(self, asked: Mapping[str, str], samples: int, interval: float, begun: float) -> None:
        """The further samples: as many as there is time for, and some more where utilization may only trail."""
        raw = self.raw
        fields: Dict[str, Tuple[str, ...]]
        fields = {key: (name,) for key, name in asked.items() if key in VOLATILE or key in ("index", "uuid")}
        if "clock_reasons" in fields:
            fields["clock_reasons"] = VOLATILE["clock_reasons"]
        due, number, settled = 0.0, 1, 0
        while True:
            if number < samples:
                due = number * interval
            elif samples > 1 and settled < SETTLE and raw.processes is not None and self._trails():
                due, settled = due + SETTLE_INTERVAL, settled + 1
            else:
                return
            pause = max(0.0, begun + due - time.monotonic())
            if not self.tool.has_time_for(1, pause):
                return
            time.sleep(pause)
            at = time.monotonic() - begun
            answer, rows, _asked = self.tool.query(fields, self.only)
            if answer.problem is not None and not rows:
                self._note(answer)
                return
            raw.window = at
            raw.taken.append(rows)
            number += 1

    def _trails(self) -> bool:
        limits = {word_of(cells, "uuid"): cells.get("power_limit") for cells in self.raw.taken[0]}
        rows = []
        for row in self.raw.taken[-1]:
            limit = limits.get(word_of(row, "uuid"))
            rows.append({**row, "power_limit": limit} if limit is not None else row)
        return settles(rows, self.raw.processes or {}, self.thresholds)


def cpu_seconds(pid: int) -> Optional[float]:
    """CPU time of a process; None when it is not of this node."""
    stat = _proc.read_stat(pid)
    return None if stat is None else stat.cpu_seconds


def read_xml(text: str, raw: Raw) -> List[Cells]:
    """The rows of ``nvidia-smi -q -x``, and into ``raw`` the processes; nothing when it is not understood."""
    # An entity could make a small text huge, or name a file; the tool writes none.
    if "<!ENTITY" in text or "<nvidia_smi_log" not in text:
        return []
    try:
        root = ElementTree.fromstring(text[text.index("<") :])
    except (ElementTree.ParseError, ValueError):
        return []
    rows: List[Cells] = []
    processes: Dict[str, List[Tuple[int, Optional[str], Optional[float]]]] = {}
    for index, gpu in enumerate(root.findall("gpu")):
        firsts = {key: _first(gpu, paths) for key, paths in PATHS.items()}
        cells = {key: cell for key, cell in firsts.items() if cell is not None}
        cells["index"] = Cell(str(index), None)
        version = _first(root, ("driver_version",))
        if version is not None:
            cells["driver_version"] = version
        if "bus_id" not in cells:
            cells["bus_id"] = read_cell(gpu.get("id") or "")
        cells.update(_ecc(gpu))
        reasons = _clock_reasons(gpu)
        if reasons is not None:
            cells["clock_reasons"] = reasons
        uuid = word_of(cells, "uuid")
        if uuid is None or "utilization" not in cells:
            return []
        rows.append(cells)
        listed = gpu.find("processes")
        entries = [] if listed is None else listed.findall("process_info")
        found = [_process(entry) for entry in entries[:MAX_PROCESSES]]
        processes[uuid] = [process for process in found if process is not None]
        raw.mig[uuid] = [_mig(device) for device in gpu.findall("mig_devices/mig_device")]
        said = (listed.text or "").strip() if listed is not None else ""
        if listed is None or said and not entries and read_cell(said).state not in (None, "not_available"):
            processes.clear()
            raw.add(Problem("not_available", f"GPU {index}: its processes could not be listed: {said[:60]}", WARNING))
            return []
    raw.processes = processes if rows else None
    return rows


def read_links(answer: Answer) -> Dict[str, Dict[str, Optional[int]]]:
    """How many NVLinks each GPU has, and how many of them are up; where none is, the tool does not count them."""
    found: Dict[str, Dict[str, Any]] = {}
    uuid = None
    for line in answer.output.splitlines() if answer.code == 0 else ():
        head, link = _LINK_GPU.match(line), _LINK.match(line)
        if head:
            uuid = head.group(1)
        elif link and uuid:
            count = found.setdefault(uuid, {"links": 0, "active": 0})
            count["links"] += 1
            count["active"] += "inactive" not in link.group(1).lower()
        elif uuid and "all links are inactive" in line.lower():
            found[uuid] = {"links": None, "active": 0}
    return found


def _first(element: ElementTree.Element, paths: Sequence[str]) -> Optional[Cell]:
    """The first value; where there is none, the first that says why."""
    found = None
    for path in paths:
        text = element.findtext(path)
        cell = read_cell(text) if text is not None else None
        if cell is not None and cell.state is None:
            width = re.match(r"\A(\d{1,3})x\Z", cell.text)
            return Cell(width.group(1), None) if width else cell
        found = found or cell
    return found


def _ecc(gpu: ElementTree.Element) -> Cells:
    """Sums over the kinds of memory; older drivers name them single and double bit, with a total."""
    found: Cells = {}
    for key, (period, kind) in ECC.items():
        block = gpu.find(f"ecc_errors/{period}")
        if block is None:
            continue
        cells = [read_cell(one.text or "") for one in block if re.search(rf"_{kind}(_|\Z)", one.tag)]
        old = block.find("double_bit/total" if kind == "uncorrectable" else "single_bit/total")
        if old is not None:
            cells = [read_cell(old.text or "")]
        numbers = [cell.number for cell in cells if cell.number is not None]
        if numbers:
            found[key] = Cell(str(int(sum(numbers))), None)
        elif cells:
            found[key] = cells[0]
    return found


def _clock_reasons(gpu: ElementTree.Element) -> Optional[Cell]:
    for name in ("clocks_event_reasons", "clocks_throttle_reasons"):
        block = gpu.find(name)
        if block is None:
            continue
        bits, known = 0, False
        for one in block:
            match = _REASON.match(one.tag)
            known = known or (one.text or "").strip() in ("Active", "Not Active")
            if match and (one.text or "").strip() == "Active":
                bits |= REASONS.get(match.group(1), 0)
        return (
            Cell(f"0x{bits:x}", None) if known else read_cell(block[0].text or "" if len(block) else block.text or "")
        )
    return None


def _process(entry: ElementTree.Element) -> Optional[Tuple[int, Optional[str], Optional[float]]]:
    pid, kind = (entry.findtext("pid") or "").strip(), entry.findtext("type") or "C"
    if not pid.isdecimal() or len(pid) > 10 or "C" not in kind:
        return None
    name = read_cell(entry.findtext("process_name") or "").word
    return int(pid), name and name[:MAX_NAME], read_cell(entry.findtext("used_memory") or "").number


def _mig(device: ElementTree.Element) -> Dict[str, Any]:
    def whole(path: str) -> Optional[int]:
        number = read_cell(device.findtext(path) or "").number
        return None if number is None else int(number)

    return {
        "uuid": read_cell(device.findtext("uuid") or "").word,
        "gpu_instance": whole("gpu_instance_id"),
        "compute_instance": whole("compute_instance_id"),
        "memory_used": read_cell(device.findtext("fb_memory_usage/used") or "").number,
        "memory_total": read_cell(device.findtext("fb_memory_usage/total") or "").number,
    }


def _app(line: str) -> Optional[Tuple[str, int, Optional[str], Optional[float]]]:
    """A line of the process list; the name of a program may hold the separator."""
    parts = line.split(_nvidia_smi.SEPARATOR)
    if len(parts) < len(APPS) or not parts[1].strip().isdecimal() or len(parts[1]) > 10:
        return None
    name = read_cell(_nvidia_smi.SEPARATOR.join(parts[2:-1]).strip()).word
    return parts[0].strip()[:MAX_NAME], int(parts[1]), name and name[:MAX_NAME], read_cell(parts[-1]).number

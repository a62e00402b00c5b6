# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured for each claim: tools, files, and the ratios that have to come out."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Tuple

from _measure import CACHES, COLD, WARM, Result, Tool

SAMPLES = "samples"
CHECKPOINT = "checkpoint"
NPZ = "npz"
DETECTION = "detection"
# The size that the claim about the sample count names, in GB.
SAMPLES_GB = 1.3
MB = 1e6

Results = Dict[str, Dict[Tool, Result]]


@dataclass(frozen=True)
class Subject:
    """One kind of file and the tools that look at it; ``disk`` is its size in multiples of its raw size."""

    claim: str
    title: str
    kind: str
    suffix: str
    disk: float
    tools: Tuple[Tool, ...]


@dataclass(frozen=True)
class Check:
    """One number that a claim stands or falls with: measured on one file, and what it has to be."""

    claim: str
    subject: str
    title: str
    wanted: str
    values: Callable[[Results], Optional[List[float]]]
    holds: Callable[[float], bool]
    form: str = "{:.2f}"
    of_all: Callable[[List[float]], float] = statistics.median


OURS_SAMPLES = Tool("ours: `_npz.inspect(path).samples`", "ours_samples", None)
NUMPY_SAMPLES = Tool('numpy: `len(np.load(path)["features"])`', "numpy_samples", None, needs=("numpy",), memory=1.0)
NUMPY_HEADER = Tool("numpy: header of the member, by hand", "numpy_header", None, needs=("numpy",))

OURS_FULL = Tool("ours: `_checkpoint.verify(path)`, one core", "ours_checkpoint", "verified", 1)
OURS_FULL_2 = Tool("ours: `_checkpoint.verify(path)`, two cores", "ours_checkpoint", "verified", 2)
CRC32 = Tool("bare `zlib.crc32` loop, one core", "crc32", cpus=1)

OURS_NPZ = Tool('ours: `_npz.inspect(path, depth="full")`, one core', "ours_npz", cpus=1)
OURS_NPZ_2 = Tool('ours: `_npz.inspect(path, depth="full")`, two cores', "ours_npz", cpus=2)
UNZIP = Tool("`unzip -t`, one core", "unzip", cpus=1, needs=("unzip",))

SUBJECTS = (
    Subject(
        SAMPLES,
        "Sample count of a training file",
        "npz_single",
        ".npz",
        0.1,
        (OURS_SAMPLES, NUMPY_SAMPLES, NUMPY_HEADER),
    ),
    Subject(
        CHECKPOINT,
        "Verification of a stored checkpoint",
        "checkpoint",
        ".pth",
        1.0,
        (
            OURS_FULL,
            OURS_FULL_2,
            CRC32,
            Tool('ours: `_checkpoint.verify(path, depth="quick")`', "ours_structure"),
            Tool("`torch.load(path, weights_only=True)`", "torch_load", needs=("torch",), memory=1.0),
            Tool("`torch.load(path, weights_only=True, mmap=True)`", "torch_mmap", needs=("torch",)),
            Tool("`zipfile.ZipFile(path).testzip()`, one core", "testzip", cpus=1),
            UNZIP,
            Tool("picklescan", "picklescan", "clean", needs=("picklescan",)),
            Tool("modelscan", "modelscan", "clean", needs=("modelscan",)),
        ),
    ),
    Subject(
        CHECKPOINT,
        "The same tensors as a safetensors file, which has no checksums",
        "safetensors",
        ".safetensors",
        1.0,
        (
            Tool("ours: `_checkpoint.verify(path)`", "ours_checkpoint", "not_recorded"),
            Tool("`safetensors.safe_open(path)`, every shape", "safetensors_header", needs=("safetensors", "numpy")),
            Tool("`safetensors.numpy.load_file(path)`", "safetensors_load", needs=("safetensors", "numpy"), memory=2.0),
        ),
    ),
    Subject(
        NPZ,
        "Full verification of a deflated training file, four arrays of like size",
        "npz_spread",
        ".npz",
        0.1,
        (
            OURS_NPZ,
            OURS_NPZ_2,
            UNZIP,
            Tool("`zipfile.ZipFile(path).testzip()`, one core", "testzip", cpus=1),
            Tool("numpy: load every array", "numpy_all", needs=("numpy",), memory=0.5),
        ),
    ),
    Subject(
        NPZ,
        "Full verification of a deflated training file, one large array",
        "npz_single",
        ".npz",
        0.1,
        tuple(
            Tool(tool.label, tool.action, tool.expected, tool.cpus, tool.needs, tool.memory, (WARM,))
            for tool in (OURS_NPZ, OURS_NPZ_2, UNZIP)
        ),
    ),
)


def _find(results: Results, cache: str, tool: Tool) -> Optional[Result]:
    """The samples of a tool; None when it has none."""
    found = results.get(cache, {})
    for have, result in found.items():
        if (have.action, have.cpus) == (tool.action, tool.cpus):
            return None if result.failure else result
    return None


def _ratio(cache: str, upper: Tool, above: str, lower: Tool, below: str) -> Callable[[Results], Optional[List[float]]]:
    """The ratio of two times in each turn, so that both are of the same moment."""

    def values(results: Results) -> Optional[List[float]]:
        first, second = _find(results, cache, upper), _find(results, cache, lower)
        if first is None or second is None:
            return None
        return [one / other for one, other in zip(first.times(above), second.times(below))]

    return values


def _peak(tool: Tool) -> Callable[[Results], Optional[List[float]]]:
    def values(results: Results) -> Optional[List[float]]:
        found = [result for cache in CACHES if (result := _find(results, cache, tool))]
        return [sample.peak / MB for result in found for sample in result.samples] or None

    return values


def _at_least(limit: float) -> Callable[[float], bool]:
    return lambda value: value >= limit


def _at_most(limit: float) -> Callable[[float], bool]:
    return lambda value: value <= limit


def _below(limit: float) -> Callable[[float], bool]:
    return lambda value: value < limit


def _checks() -> List[Check]:
    checks = []
    faster = "{:.0f}"
    for cache in CACHES:
        for title, above, below in (
            ("whole process against whole process", "process", "process"),
            ("whole process of ours against numpy's call alone", "call", "process"),
            ("call against call", "call", "call"),
        ):
            values = _ratio(cache, NUMPY_SAMPLES, above, OURS_SAMPLES, below)
            checks.append(
                Check(
                    SAMPLES,
                    "npz_single",
                    f"numpy / ours, {cache}, {title}",
                    "at least 100",
                    values,
                    _at_least(100),
                    faster,
                )
            )
    values = _ratio(WARM, NUMPY_SAMPLES, "call", OURS_SAMPLES, "again")
    title = "numpy / ours, warm, call against a further call in the same process"
    checks.append(Check(SAMPLES, "npz_single", title, "at least 100", values, _at_least(100), faster))
    checks.append(
        Check(
            SAMPLES, "npz_single", "peak memory of ours, MB", "below 25", _peak(OURS_SAMPLES), _below(25), "{:.1f}", max
        )
    )
    for cache in CACHES:
        values = _ratio(cache, OURS_FULL, "call", CRC32, "call")
        title = f"ours on one core / bare crc32 loop on one core, {cache}"
        checks.append(Check(CHECKPOINT, "checkpoint", title, "at most 1.15", values, _at_most(1.15)))
        values = _ratio(cache, OURS_FULL_2, "call", CRC32, "call")
        title = f"ours on two cores / bare crc32 loop on one core, {cache}"
        checks.append(Check(CHECKPOINT, "checkpoint", title, "below 1", values, _below(1)))
    for title, tool in (("one core", OURS_FULL), ("two cores", OURS_FULL_2)):
        title = f"peak memory of ours on {title}, MB"
        checks.append(Check(CHECKPOINT, "checkpoint", title, "below 60", _peak(tool), _below(60), "{:.1f}", max))
    for kind, what, caches in (("npz_spread", "four arrays", CACHES), ("npz_single", "one array", (WARM,))):
        for cache in caches:
            values = _ratio(cache, UNZIP, "call", OURS_NPZ, "call")
            title = f"unzip -t / ours on one core, {what}, {cache}"
            checks.append(Check(NPZ, kind, title, "at least 1", values, _at_least(1)))
            if kind == "npz_spread":
                values = _ratio(cache, UNZIP, "call", OURS_NPZ_2, "call")
                title = f"unzip -t / ours on two cores, {what}, {cache}"
                checks.append(Check(NPZ, kind, title, "at least 1.6", values, _at_least(1.6)))
    return checks


CHECKS = tuple(_checks())


def judged(check: Check, results: Results) -> str:
    """What a check comes to on one file, the range of it, and whether the claim holds."""
    values = check.values(results)
    if not values:
        return "not measured"
    value = check.of_all(values)
    low, high = check.form.format(min(values)), check.form.format(max(values))
    verdict = "holds" if check.holds(value) else "**does not hold**"
    return f"{check.form.format(value)} ({low}–{high}) {verdict}"


def independent(smallest: Results, largest: Results) -> List[List[str]]:
    """Whether the cost of the sample count is the same for the smallest and the largest file."""
    rows = []
    for cache, what in ((WARM, "again"), (WARM, "process"), (COLD, "process")):
        low, high = _find(smallest, cache, OURS_SAMPLES), _find(largest, cache, OURS_SAMPLES)
        if low is None or high is None:
            continue
        ratio = high.median(what) / low.median(what)
        name = "a further call" if what == "again" else "the whole process"
        verdict = "holds" if ratio <= 1.5 else "**does not hold**"
        rows.append([f"ours, {cache}, {name}: largest / smallest", "at most 1.5", f"{ratio:.2f} {verdict}"])
    return rows

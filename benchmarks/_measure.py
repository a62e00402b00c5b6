# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs measured calls, each in a process of its own, turn by turn, with the file in the page cache or not."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import mmap
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

HERE = pathlib.Path(__file__).resolve().parent
WARM = "warm"
COLD = "cold"
CACHES = (WARM, COLD)
TIMEOUT = 900
# numpy's matrix library sizes its buffers by these.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@dataclass(frozen=True)
class Tool:
    """A way to look at a file: ``action`` is what ``_child.py`` calls, ``expected`` the answer for a whole file.

    ``cpus`` limits it to that many processors, ``needs`` names modules and programs, ``memory`` is what it takes in
    multiples of the file's raw size, and ``caches`` says in which states of the page cache it is measured.
    """

    label: str
    action: str
    expected: Any = True
    cpus: int = 0
    needs: Tuple[str, ...] = ()
    memory: float = 0.0
    caches: Tuple[str, ...] = CACHES

    def missing(self) -> Optional[str]:
        """Why it cannot run here; None when it can."""
        for need in self.needs:
            if shutil.which(need) is None and importlib.util.find_spec(need) is None:
                return f"{need} is not installed"
        if self.cpus > len(os.sched_getaffinity(0)):
            return f"not {self.cpus} cores"
        return None


@dataclass(frozen=True)
class Sample:
    """One measured call, in seconds and bytes; ``again`` is the median of further calls in the same process."""

    call: float
    process: float
    start: float
    peak: int
    again: Optional[float]


@dataclass(frozen=True)
class Result:
    """All samples of one tool for one file and one state of the cache, or why there are none.

    ``left`` is the largest share of the file that was still in the page cache after it had been dropped.
    """

    samples: Tuple[Sample, ...] = ()
    failure: Optional[str] = None
    left: float = 0.0

    def times(self, what: str = "call") -> List[float]:
        """One time of each sample."""
        return [getattr(sample, what) for sample in self.samples]

    def median(self, what: str = "call") -> float:
        """The median of one time."""
        return statistics.median(self.times(what))

    @property
    def peak(self) -> int:
        """The highest peak memory of all samples, in bytes."""
        return max(sample.peak for sample in self.samples)


class Failed(Exception):
    """A call that ended badly or gave a wrong answer."""


def environment() -> Dict[str, str]:
    """What the measured processes are given."""
    return {name: value for name, value in os.environ.items() if name not in UNSET}


def measure(
    tools: Sequence[Tool], path: str, raw: int, cache: str, repeat: int, say: Callable[[str], None]
) -> Dict[Tool, Result]:
    """Measure every tool ``repeat`` times, in turn, so that what changes on the machine meanwhile meets all of them."""
    failures: Dict[Tool, str] = {}
    samples: Dict[Tool, List[Sample]] = {tool: [] for tool in tools}
    for tool in tools:
        reason = tool.missing() or ("not enough memory" if tool.memory * raw * 1.2 > free_memory() else None)
        if reason:
            failures[tool] = reason
    left = 0.0
    for turn in range(repeat):
        for tool in [*tools[turn % len(tools) :], *tools[: turn % len(tools)]]:
            if tool in failures:
                continue
            if cache == WARM:
                fill_cache(path)
            else:
                drop_cache(path)
                left = max(left, cached(path))
            try:
                samples[tool].append(run(tool, path))
            except Failed as exc:
                failures[tool] = str(exc)
            say(f"{cache} {turn + 1}/{repeat} {tool.label}")
    return {tool: Result(tuple(samples[tool]), failures.get(tool), left) for tool in tools}


def run(tool: Tool, path: str) -> Sample:
    """One call in a process of its own."""
    # Without site-packages where nothing of them is needed: the node's interpreter has none either.
    bare = [] if any(importlib.util.find_spec(need) for need in tool.needs) else ["-S"]
    command = [sys.executable, "-I", *bare, str(HERE / "_child.py"), tool.action, path, str(tool.cpus)]
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as exc:
        raise Failed(f"more than {TIMEOUT} s") from exc
    process = time.perf_counter() - begin
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise Failed(reason[-1][:200])
    facts = json.loads(lines[-1])
    if facts["answer"] != tool.expected:
        raise Failed(f"answered {facts['answer']}, expected {tool.expected}")
    again = facts["again"]
    # The further calls are no part of what the process costs.
    process -= facts["repeating"]
    return Sample(facts["call"], process, process - facts["call"], facts["peak_kib"] * 1024, again)


def free_memory() -> int:
    """Bytes that a process can still get."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def fill_cache(path: str) -> None:
    """Read a file once, so that the page cache has it."""
    buffer = bytearray(1 << 22)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def drop_cache(path: str) -> None:
    """Write a file out and ask the kernel to forget its pages; needs no special rights."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def cached(path: str) -> float:
    """The share of a file that is in the page cache."""
    size = os.path.getsize(path)
    pages = -(-size // mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    present = (ctypes.c_ubyte * pages)()
    with open(path, "rb") as file:
        # A private copy may be written to, which ctypes insists on; nothing is.
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    first = ctypes.c_char.from_buffer(mapped)
    try:
        if libc.mincore(ctypes.addressof(first), size, present):
            raise OSError(ctypes.get_errno(), "mincore failed")
    finally:
        del first
        mapped.close()
    return sum(value & 1 for value in bytes(present)) / pages

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the verification of training files and checkpoints side by side with other tools: see README.md here.

Prints GitHub-flavoured markdown; what is going on goes to standard error. Nothing is asserted about time: every claim
is printed as a ratio of times of the same run, with what it has to be and whether it holds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import pathlib
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from typing import Dict, List, Optional, Sequence, Tuple

import _claims
import _detection
from _claims import CHECKPOINT, CHECKS, DETECTION, MB, NPZ, SAMPLES, SAMPLES_GB, SUBJECTS, Results, Subject
from _measure import CACHES, COLD, HERE, Result, Tool, environment, free_memory, measure

CLAIMS = (SAMPLES, CHECKPOINT, NPZ, DETECTION)
GB = 10**9
SPARE = 1 << 28
DAMAGED = 64 << 20
PACKAGES = ("numpy", "torch", "safetensors", "picklescan", "modelscan")


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for; gives the exit status."""
    options = _options(arguments)
    claims = [claim for claim in CLAIMS if options.only in (None, claim)]
    subjects = [subject for subject in SUBJECTS if subject.claim in claims]
    signal.signal(signal.SIGTERM, _stop)
    if options.folder is not None and not os.path.isdir(options.folder):
        _say(f"--folder {options.folder} is not a folder. Make it, or leave the option out.")
        return 2
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-benchmark-", dir=options.folder))
    try:
        shortage = _shortage(folder, subjects, options.sizes, DETECTION in claims)
        if shortage:
            _say(shortage)
            return 2
        _print_machine(folder, arguments)
        for claim in claims:
            if claim == DETECTION:
                _detect(folder, options)
            else:
                _claim(claim, folder, options)
    finally:
        shutil.rmtree(folder)
    return 0


def _stop(number: int, _frame: object) -> None:
    """End in an orderly way, so that the files are removed."""
    sys.exit(128 + number)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="files.py", description="Measure the verification of files side by side.")
    parser.add_argument("--sizes", type=_sizes, default=[0.1, 1.0, 4.0], metavar="GB,…", help="default 0.1,1,4")
    parser.add_argument("--repeat", type=_positive, default=5, help="repetitions of everything (default 5)")
    parser.add_argument(
        "--flips", type=_positive, default=100, help="bit flips for each checkpoint format (default 100)"
    )
    parser.add_argument("--seed", type=int, default=1, help="for the content of the files and their damage (default 1)")
    parser.add_argument("--only", choices=CLAIMS, help="this part alone")
    parser.add_argument("--folder", help="where to put the files while it runs (default: the system's folder)")
    return parser.parse_args(arguments)


def _sizes(text: str) -> List[float]:
    try:
        sizes = sorted({float(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or not all(0.001 <= size <= 64 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0.1,1,4 of numbers from 0.001 to 64")
    return sizes


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _say(text: str) -> None:
    print(f"files.py: {text}", file=sys.stderr, flush=True)


def _shortage(folder: pathlib.Path, subjects: List[Subject], sizes: List[float], detection: bool) -> Optional[str]:
    """Why there is too little room; None when there is enough. One file exists at a time."""
    files = [size * GB * subject.disk for subject in subjects for size in _sizes_of(subject.claim, sizes)]
    needed = int(max([*files, DAMAGED if detection else 0])) + SPARE
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    return (
        f"{folder.parent} has {free / GB:.1f} GB free, and {needed / GB:.1f} GB are needed. "
        "Give --folder on a larger disk, or smaller --sizes."
    )


def _sizes_of(claim: str, sizes: List[float]) -> List[float]:
    """The sizes for a claim: the sample count is claimed for a size of its own."""
    return sorted({*sizes, SAMPLES_GB}) if claim == SAMPLES and max(sizes) >= SAMPLES_GB else sizes


# What is printed


def _print_machine(folder: pathlib.Path, arguments: Sequence[str]) -> None:
    print("# Measured\n")
    print(f"Command: `{shlex.join(['python', 'benchmarks/files.py', *arguments])}`\n")
    rows = [
        ["processor", f"{_line('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} cores for this run"],
        ["memory", f"{free_memory() / GB:.1f} GB free"],
        ["folder", f"on {_file_system(folder)}"],
        ["system", f"Linux {platform.release()}"],
        ["python", f"{platform.python_version()}, zlib {zlib.ZLIB_RUNTIME_VERSION}"],
        ["compared with", ", ".join([*(f"{name} {_version(name)}" for name in PACKAGES), f"unzip {_unzip_version()}"])],
        ["collection", _revision()],
    ]
    _table([["", "here"], *rows])


def _claim(claim: str, folder: pathlib.Path, options: argparse.Namespace) -> None:
    for number, subject in enumerate(subject for subject in SUBJECTS if subject.claim == claim):
        sizes = _sizes_of(claim, options.sizes)
        measured = {size: _measured(subject, size, folder, options) for size in sizes}
        print(f"## {subject.title}\n" if not number else f"### {subject.title}\n", flush=True)
        for cache in CACHES:
            tools = [tool for tool in subject.tools if cache in tool.caches]
            if tools:
                print(
                    f"{cache.capitalize()} page cache; seconds of the call: median (least–most of {options.repeat}).\n"
                )
                _table(_times(tools, cache, measured))
        _print_left(measured)
        checks = [check for check in CHECKS if (check.claim, check.subject) == (claim, subject.kind)]
        if checks:
            print("Ratios, each of times of the same turn: median (least–most).\n")
            head = ["ratio", "wanted", *(_gb(size) for size in sizes)]
            rows = [[c.title, c.wanted, *(_claims.judged(c, measured[size]) for size in sizes)] for c in checks]
            _table([head, *rows])
        if claim == SAMPLES and len(sizes) > 1:
            print("Independent of the size of the file:\n")
            _table([["growth", "wanted", "measured"], *_claims.independent(measured[sizes[0]], measured[sizes[-1]])])


def _measured(subject: Subject, size: float, folder: pathlib.Path, options: argparse.Namespace) -> Results:
    """Make a file, measure every tool on it, and remove it."""
    path = folder / f"{subject.kind}-{size:g}{subject.suffix}"
    _say(f"making {_gb(size)} of {subject.kind}")
    command = [sys.executable, "-I", str(HERE / "_data.py"), subject.kind, str(path), str(size), str(options.seed)]
    # A process of its own, so that what it needs of memory is free again.
    made = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    samples = int(made.stdout)
    results: Results = {}
    try:
        for cache in CACHES:
            # The number of samples is known only now.
            tools = {_expecting(tool, samples): tool for tool in subject.tools if cache in tool.caches}
            if tools and not results and size == min(options.sizes):
                # Compiles what was never imported and brings libraries into memory; not counted.
                measure(list(tools), str(path), int(size * GB), cache, 1, lambda text: _say(f"not counted: {text}"))
            if tools:
                found = measure(list(tools), str(path), int(size * GB), cache, options.repeat, _say)
                results[cache] = {tools[tool]: result for tool, result in found.items()}
    finally:
        path.unlink()
    return results


def _expecting(tool: Tool, samples: int) -> Tool:
    if tool.expected is not None:
        return tool
    return Tool(tool.label, tool.action, samples, tool.cpus, tool.needs, tool.memory, tool.caches)


def _times(tools: List[Tool], cache: str, measured: Dict[float, Results]) -> List[List[str]]:
    sizes = sorted(measured)
    growth = [f"time ×, {_gb(sizes[0])} to {_gb(sizes[-1])}", "memory ×"] if len(sizes) > 1 else []
    rows = [["tool", *(_gb(size) for size in sizes), "start and imports", "peak memory, MB", *growth]]
    for tool in tools:
        results = [measured[size][cache][tool] for size in sizes]
        good = [result for result in results if not result.failure]
        row = [tool.label, *(_time(result) for result in results)]
        row.append(_seconds(min(result.median("start") for result in good)) if good else "")
        row.append(" / ".join("–" if r.failure else f"{r.peak / MB:.0f}" for r in results) if good else "")
        if growth:
            row += _growth(results[0], results[-1])
        rows.append(row)
        again = [result for result in results if not result.failure and result.samples[0].again is not None]
        if again and cache != COLD and len(again) == len(results):
            row = [
                "ours, a further call in the same process",
                *(_time(result, "again") for result in results),
                "–",
                "–",
            ]
            row += [f"{again[-1].median('again') / again[0].median('again'):.2f}", "–"] if growth else []
            rows.append(row)
    return rows


def _growth(smallest: Result, largest: Result) -> List[str]:
    if smallest.failure or largest.failure:
        return ["–", "–"]
    return [f"{largest.median() / smallest.median():.1f}", f"{largest.peak / smallest.peak:.1f}"]


def _time(result: Result, what: str = "call") -> str:
    if result.failure:
        return result.failure
    times = result.times(what)
    return f"{_seconds(result.median(what))} ({_seconds(min(times))}–{_seconds(max(times))})"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}" if value >= 0.01 else f"{value:.5f}"


def _print_left(measured: Dict[float, Results]) -> None:
    left = [result.left for results in measured.values() for result in results.get(COLD, {}).values()]
    if left:
        print(f"Before a cold call, at most {100 * max(left):.1f} % of the file was in the page cache.\n")


def _detect(folder: pathlib.Path, options: argparse.Namespace) -> None:
    print("## Which tool notices damage\n")
    half = options.flips // 2
    print(
        f"For each format {options.flips} single-bit flips, {half} zeroed pages of 4 KiB and {half} truncations at "
        f"random places, seed {options.seed}.\n",
        flush=True,
    )
    if _detection.missing("loader"):
        print("Not measured: torch is not installed.\n")
        return
    for title, rows in _detection.tables(_detection.detect(folder, options.flips, options.seed, _say)):
        print(f"{title}:\n")
        _table(rows)


def _gb(size: float) -> str:
    return f"{size:g} GB"


def _table(rows: List[List[str]]) -> None:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    print(f"| {' | '.join(head)} |")
    print(f"| {' | '.join('---' for _ in head)} |")
    for row in body:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


# Facts about the machine


def _line(path: str, name: str) -> str:
    try:
        with open(path) as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return platform.machine()


def _file_system(folder: pathlib.Path) -> str:
    best: Tuple[int, str] = (0, "an unknown file system")
    with open("/proc/mounts") as file:
        for line in file:
            _device, mount, kind = line.split()[:3]
            if folder == pathlib.Path(mount) or pathlib.Path(mount) in folder.parents:
                best = max(best, (len(mount), kind))
    kind = best[1]
    return f"{kind}, which is in memory: cold figures are warm ones" if kind in ("tmpfs", "ramfs") else kind


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _unzip_version() -> str:
    if shutil.which("unzip") is None:
        return "(not installed)"
    text = subprocess.run(["unzip", "-v"], capture_output=True, text=True, check=False).stdout
    return text.split(" of ")[0].replace("UnZip", "").strip() or "(unknown)"


def _revision() -> str:
    # Without locks git only reads.
    git = ["git", "--no-optional-locks", "-C", str(HERE.parent)]
    try:
        commit, changes = (
            subprocess.run([*git, *arguments], capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "plugins"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a checkout"
    return f"commit {commit}{', plugins changed since' if changes else ''}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

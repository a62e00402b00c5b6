#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look for trainers costs on a node with many processes, and with ``--cases`` who stops which trainer.

The look is measured on one core against ``ps aux`` and a plain loop over /proc, in turn in the same run. Tables go to
standard output, progress to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "playbooks/collections")]

from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig  # noqa: E402
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import look  # noqa: E402

LIMIT = 0.150
# Processor time is counted in hundredths of a second, so each sample is of several looks.
INNER = 5


@dataclass(frozen=True)
class Sample:
    """Seconds by the clock and of processor."""

    clock: float
    processor: float


HEX8 = TrainingConfig("hex8", 2)
OURS = "ours: `look()`, all of the node"
PS = "`ps aux`"
LOOP = "plain loop: stat, status and cmdline of each"


def plain_loop() -> None:
    """What a script does that looks for words: read everything, split nothing."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        for part in ("stat", "status", "cmdline"):
            with contextlib.suppress(OSError), open(f"/proc/{name}/{part}", "rb") as stream:
                stream.read()


def ps_aux() -> None:
    subprocess.run(["ps", "aux"], stdout=subprocess.DEVNULL, check=True)


TOOLS: Dict[str, Callable[[], object]] = {OURS: lambda: look(HEX8), PS: ps_aux, LOOP: plain_loop}


@contextlib.contextmanager
def sleepers(count: int) -> Iterator[None]:
    """So many more processes on this machine."""
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def processor_time() -> float:
    """Seconds of processor that this process and its ended children have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(counts: Sequence[int], repeat: int) -> Dict[int, Dict[str, List[Sample]]]:
    """What every tool takes for every number of processes, the tools in turn."""
    found: Dict[int, Dict[str, List[Sample]]] = {}
    for count in counts:
        with sleepers(max(0, count - processes())):
            times: Dict[str, List[Sample]] = {name: [] for name in TOOLS}
            for turn in range(repeat + 1):
                for name, tool in TOOLS.items():
                    begun, used = time.perf_counter(), processor_time()
                    for _ in range(INNER):
                        tool()
                    sample = Sample((time.perf_counter() - begun) / INNER, (processor_time() - used) / INNER)
                    # The first turn fills the caches.
                    if turn:
                        times[name].append(sample)
            found[processes()] = times
        print(f"{count} processes measured", file=sys.stderr)
    return found


def processes() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))


def cost_table(found: Dict[int, Dict[str, List[Sample]]], what: str) -> str:
    lines = [f"| processes | {' | '.join(TOOLS)} | ps / ours | loop / ours |", "| --- " * (len(TOOLS) + 3) + "|"]
    for count, samples in found.items():
        times = {name: [getattr(sample, what) for sample in values] for name, values in samples.items()}
        cells = [
            f"{statistics.median(values) * 1000:.1f} ({min(values) * 1000:.1f}–{max(values) * 1000:.1f})"
            for values in times.values()
        ]
        ratios = [statistics.median(b / a for a, b in zip(times[OURS], times[name])) for name in (PS, LOOP)]
        lines.append(f"| {count} | {' | '.join(cells)} | {' | '.join(f'{ratio:.1f}' for ratio in ratios)} |")
    return "\n".join(lines)


def claims(found: Dict[int, Dict[str, List[Sample]]]) -> str:
    medians = {count: statistics.median(one.processor for one in times[OURS]) for count, times in found.items()}
    near = min(medians, key=lambda count: abs(count - 1000))
    least, most = min(medians), max(medians)
    slope = (medians[most] - medians[least]) / (most - least) if most > least else 0.0
    lines = [
        "| claim | wanted | measured |",
        "| --- | --- | --- |",
        f"| processor time of a look at {near} processes | below {LIMIT * 1000:.0f} ms | {medians[near] * 1000:.1f} ms "
        f"{'holds' if medians[near] < LIMIT else '**does not hold**'} |",
    ]
    if most > least:
        few = min((count for count in found if count >= 200), default=least)
        grows = (medians[most] / most) / (medians[few] / few)
        lines.append(
            f"| no faster than linear: time for each of {most} / for each of {few} | at most 1.2 | {grows:.2f} "
            f"({slope * 1e6:.0f} µs for each more) {'holds' if grows <= 1.2 else '**does not hold**'} |"
        )
    return "\n".join(lines)


def print_cases(only: Sequence[str]) -> int:
    """The table of cases; 2 when none can be run here."""
    import _stopping

    reason = _stopping.available()
    if reason:
        print(f"The cases need a PID namespace of their own: {reason}.", file=sys.stderr)
        return 2
    pkill = {_stopping.MODULE: "runbook's pkill, `-m app.training.train`", _stopping.SCRIPT: "the same, `…/train.py`"}
    print(f"| trainer | ours | seconds | {' | '.join(pkill.values())} |\n| --- | --- | --- | --- | --- |")
    harms: Dict[str, str] = {}
    for case in _stopping.CASES:
        if only and not any(word in case.name for word in only):
            continue
        ours = [_stopping.run_case(case, _stopping.OURS, form) for form in pkill]
        theirs = [_stopping.run_case(case, _stopping.PKILL, form) for form in pkill]
        seconds = "–".join(dict.fromkeys(f"{one.seconds:.1f}" for one in sorted(ours, key=lambda one: one.seconds)))
        cells = [said(one, harms) for one in (ours[0], *theirs)]
        print(f"| {case.name} | {cells[0]} | {seconds} | {' | '.join(cells[1:])} |", flush=True)
        if said(ours[1], harms) != cells[0]:
            print(f"{case.name}: as `train.py` ours says {said(ours[1], harms)}", file=sys.stderr)
    print("\n" + "\n".join(f"- Harm {letter}: it ends {harm}." for harm, letter in harms.items()))
    return 0


def said(outcome, harms: Dict[str, str]) -> str:
    """One cell: what the way of stopping could say, and what it has harmed, by a letter that is kept in ``harms``."""
    if outcome.skipped:
        return f"not run: {outcome.skipped}"
    words = outcome.verdict
    if outcome.survivors:
        words += ", named: " + ", ".join(f"state {state} in {wchan}" for _pid, state, wchan, _un in outcome.survivors)
    elif outcome.message:
        words += ", named"
    elif outcome.left:
        words = f"{outcome.left} left, says nothing"
    if outcome.harmed:
        words += f"; **harm {harms.setdefault(', '.join(outcome.harmed), chr(ord('A') + len(harms)))}**"
    return words


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="100,250,500,1000,2000", help="numbers of processes, separated by commas")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--cases", action="store_true", help="the table of who stops which trainer; needs root")
    parser.add_argument("--only", default="", help="words of the cases to run, separated by commas")
    arguments = parser.parse_args()
    if arguments.cases:
        return print_cases([word for word in arguments.only.split(",") if word])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = measure([int(count) for count in arguments.counts.split(",")], arguments.repeat)
    print(
        f"Python {platform.python_version()}, Linux {platform.release()}, one core, {arguments.repeat} repetitions.\n"
    )
    print(f"Processor time in ms: median (least–most).\n\n{cost_table(found, 'processor')}\n")
    print(f"Time by the clock in ms, with whatever else ran (load {os.getloadavg()[0]:.1f}).\n")
    print(f"{cost_table(found, 'clock')}\n\n{claims(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

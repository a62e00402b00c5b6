# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make faults`: play the whole matrix and print its table. What ended as it must, with this code, is not played again.

python -m tests.faults [--only WORDS] [--jobs N] [--every] [--fresh]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from queue import Empty, Queue

from tests.faults.cases import DURING, STATES, During, State
from tests.faults.play import KILLS, Kills, Outcome, play_during, play_state, tasks_of_a_recovery
from tests.faults.stage import Stage
from tests.faults.table import table
from tests.integration.harness import ROOT

FOLDER = ROOT / "build" / "faults"
# Kills one after the other on one lab, so that what one left can be compared with what the one before left.
SPAN = 10


class Results:
    """Those of one state of the code, one line of JSON each, written as they come."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {entry["name"]: entry for entry in map(json.loads, lines)}

    def good(self, name: str) -> bool:
        """Whether a case was played and ended as it must."""
        return name in self.known and not self.known[name]["wrong"]

    def add(self, outcome: Outcome) -> None:
        entry = asdict(outcome)
        output = entry.pop("output")
        with self.lock:
            self.known[outcome.name] = entry
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as stream:
                stream.write(json.dumps(entry) + "\n")
            if outcome.wrong:
                name = "".join(letter if letter.isalnum() else "-" for letter in outcome.name)[:80]
                (self.path.parent / f"{name}.log").write_text(output)
            state = "WRONG" if outcome.wrong else "ok"
            print(f"{state:5} {outcome.seconds:5.0f} s  {outcome.name}: {outcome.first}, {outcome.again}", flush=True)
            for line in outcome.wrong[:8]:
                print(f"      {line}", flush=True)


def code() -> str:
    """A name for the state of what is tested: a hash of its files."""
    digest = hashlib.sha256()
    for folder in ("plugins", "roles", "playbooks", "lab", "tests/faults"):
        paths = (path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yml") and path.is_file())
        for path in sorted(paths):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has these words")
    parser.add_argument("--jobs", type=int, default=2, help="labs at the same time (default: 2)")
    parser.add_argument("--every", action="store_true", help="recover after every kill, also where it left nothing new")
    parser.add_argument("--fresh", action="store_true", help="play all of it again")
    options = parser.parse_args()
    if os.geteuid():
        print("The matrix needs nodes with networks and disks of their own, and so root.", file=sys.stderr)
        return 2
    path = FOLDER / f"{code()}.jsonl"
    if options.fresh:
        path.unlink(missing_ok=True)
    results = Results(path)
    begun = time.monotonic()
    jobs: Queue = Queue()
    # The long ones first, so that no lab is left alone with one at the end.
    for job in (*_spans(results, options), *STATES, *DURING):
        if isinstance(job, Span) or (options.only in job.name and not results.good(job.name)):
            jobs.put(job)
    if jobs.empty() and not any(options.only in name for name in results.known):
        print(f"No case has {options.only!r} in its name; docs/safety.md says what there is.", file=sys.stderr)
        return 2
    stages = [_stage() for _ in range(options.jobs)]
    workers = [
        threading.Thread(target=_work, args=(jobs, results, stage, options.every), daemon=True) for stage in stages
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        print("stopped; what was played is kept, run it again to go on", file=sys.stderr)
        return 130
    finally:
        for stage in stages:
            stage.close()
    print(f"\n{table(list(results.known.values()))}\n\n{time.monotonic() - begun:.0f} s; results in {path}")
    return 1 if any(entry["wrong"] for entry in results.known.values()) else 0


@dataclass(frozen=True)
class Span:
    """Kills that are played one after the other: number and task of each."""

    tasks: tuple[tuple[int, str], ...]


def _spans(results: Results, options: argparse.Namespace) -> list[Span]:
    # Which tasks there are is known by a recovery only, and that takes a while.
    if options.only not in KILLS and any(options.only in case.name for case in (*STATES, *DURING)):
        return []
    with _stage() as stage:
        try:
            tasks = tasks_of_a_recovery(stage)
        except Exception as exc:
            results.add(_not_played(f"{KILLS} 1", exc))
            return []
    # Behind the last task there is nobody to kill.
    names = {number: f"{KILLS} {number}: {task}" for number, task in enumerate(tasks[:-1], 1)}
    wanted = [(n, tasks[n - 1]) for n, name in names.items() if options.only in name and not results.good(name)]
    return [Span(tuple(wanted[start : start + SPAN])) for start in range(0, len(wanted), SPAN)]


def _work(jobs: Queue, results: Results, stage: Stage, every: bool) -> None:
    while True:
        try:
            job: Span | State | During = jobs.get_nowait()
        except Empty:
            return
        if isinstance(job, Span):
            _kill(Kills(stage, every), job, results)
            continue
        play = play_state if isinstance(job, State) else play_during
        try:
            results.add(play(stage, job))
        except Exception as exc:
            # One case that cannot be played must not keep the others from it.
            results.add(_not_played(job.name, exc))


def _kill(kills: Kills, span: Span, results: Results) -> None:
    for number, task in span.tasks:
        try:
            results.add(kills.play(number, task))
        except Exception as exc:
            kills.before = None
            results.add(_not_played(f"{KILLS} {number}: {task}", exc))


def _not_played(name: str, exc: Exception) -> Outcome:
    return Outcome(name, wrong=[f"could not be played: {type(exc).__name__}: {exc}"])


def _stage() -> Stage:
    return Stage(pathlib.Path(tempfile.mkdtemp(prefix="ringrift-faults-", dir="/var/tmp")))


if __name__ == "__main__":
    sys.exit(main())

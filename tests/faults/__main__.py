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
from dataclasses import asdict
from queue import Empty, Queue

from tests.faults.cases import DURING, STATES
from tests.faults.play import KILLS, Kills, Outcome, play_during, play_state
from tests.faults.stage import Stage
from tests.faults.table import table
from tests.integration.harness import ROOT

FOLDER = ROOT / "build" / "faults"


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
    for case in (*STATES, *DURING):
        if options.only in case.name and not results.good(case.name):
            jobs.put(case)
    kills = threading.Thread(target=_kill, args=(results, options), daemon=True)
    workers = [
        threading.Thread(target=_work, args=(jobs, results), daemon=True) for _ in range(max(1, options.jobs - 1))
    ]
    for thread in (kills, *workers):
        thread.start()
        if options.jobs == 1:
            thread.join()
    for thread in (kills, *workers):
        thread.join()
    # Who is done with the kills helps with the rest.
    _work(jobs, results)
    print(f"\n{table(list(results.known.values()))}\n\n{time.monotonic() - begun:.0f} s; results in {path}")
    return 1 if any(entry["wrong"] for entry in results.known.values()) else 0


def _kill(results: Results, options: argparse.Namespace) -> None:
    if not (KILLS.startswith(options.only) or options.only.startswith(KILLS)):
        return
    with _stage() as stage:
        kills = Kills(stage, options.every)
        try:
            tasks = kills.enumerate()
        except Exception as exc:
            results.add(_not_played(f"{KILLS} 1", exc))
            return
        for number, task in enumerate(tasks[:-1], 1):
            name = f"{KILLS} {number}: {task}"
            if options.only in name and not results.good(name):
                try:
                    results.add(kills.play(number, task))
                except Exception as exc:
                    kills.before = None
                    results.add(_not_played(name, exc))


def _work(jobs: Queue, results: Results) -> None:
    with _stage() as stage:
        while True:
            try:
                case = jobs.get_nowait()
            except Empty:
                return
            play = play_state if case in STATES else play_during
            try:
                results.add(play(stage, case))
            except Exception as exc:
                # One case that cannot be played must not keep the others from it.
                results.add(_not_played(case.name, exc))


def _not_played(name: str, exc: Exception) -> Outcome:
    return Outcome(name, wrong=[f"could not be played: {type(exc).__name__}: {exc}"])


def _stage() -> Stage:
    return Stage(pathlib.Path(tempfile.mkdtemp(prefix="ringrift-faults-", dir="/var/tmp")))


if __name__ == "__main__":
    sys.exit(main())

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: break a training cluster in a box, diagnose it, recover it, and show the proof."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAULTS = ("lock", "checkpoint", "data")


class DemoError(Exception):
    """A step of the demo failed; the message says which."""


class Demo:
    """Runs the lab's and the collection's own commands, and nothing else, so that each line can be typed by hand."""

    def __init__(self, directory: pathlib.Path, driver: str | None, config: str) -> None:
        self.directory = directory
        self.driver = driver
        self.config = config
        self.colour = sys.stdout.isatty()
        self.begun = time.monotonic()

    def say(self, title: str) -> None:
        line = f"=== {title} "
        line += "=" * max(0, 100 - len(line))
        print(f"\n\033[1m{line}\033[0m" if self.colour else f"\n{line}", flush=True)

    def run(self, *argv: str, ok: tuple[int, ...] = (0,), timeout: float = 300, show: bool = True) -> str:
        """Run a command from the checkout; print it first, as a person would type it."""
        shown = [os.path.relpath(argv[0], ROOT) if argv[0].startswith(str(ROOT)) else argv[0], *argv[1:]]
        if show:
            print(f"$ {' '.join(shown)}", flush=True)
        environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
        environment["ANSIBLE_FORCE_COLOR"] = "1" if self.colour else "0"
        done = subprocess.run(
            argv, cwd=ROOT, env=environment, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode not in ok:
            raise DemoError(f"{' '.join(shown)} ended with {done.returncode}")
        return done.stdout or ""

    def lab(self, *words: str, show: bool = True) -> str:
        return self.run(sys.executable, "-m", "lab", *words, "--dir", str(self.directory), show=show)

    def status(self) -> dict:
        return json.loads(self.lab("status", "--json", show=False))

    def playbook(self, name: str, *words: str) -> float:
        begun = time.monotonic()
        self.run(
            "ansible-playbook", "-i", str(self.directory / "inventory"), f"playbooks/{name}.yml",
            "-e", f"config={self.config}", *words,
        )  # fmt: skip
        return time.monotonic() - begun

    def story(self) -> None:
        self.say("1. A healthy cluster")
        driver = ("--driver", self.driver) if self.driver else ()
        self.lab("up", "--nodes", "3", "--config", self.config, *driver)
        self.lab("status")

        self.say("2. What is broken")
        self.lab("break", *FAULTS)
        before = last_epoch(self.status())

        self.say("3. The diagnosis")
        self.playbook("diagnose")

        self.say("4. The plan: --check, nothing is written")
        self.playbook("full_recovery", "--check", "--diff")

        self.say("5. The recovery")
        reports = self.directory / "reports"
        seconds = self.playbook("full_recovery", "-e", f"ringrift_report_dir={reports}")

        self.say("6. The proof")
        self.lab("status")
        after = last_epoch(self.status())
        proof = read_proof(reports)
        if after["at"] <= before["at"]:
            raise DemoError("no epoch was trained after the fault")
        print(f"before: {words(before)}, the last epoch before the fault")
        print(f"after:  {words(after)}, trained {after['at'] - before['at']:.0f} s later by the new trainer")
        print("        (the service counts epochs anew when it starts from weights, as it must on hex boards)")
        for line in proof:
            print(f"proof:  {line}")
        print(f"\nThe recovery took {seconds:.0f} s, the whole demo {time.monotonic() - self.begun:.0f} s.", flush=True)


def last_epoch(status: dict) -> dict:
    """The last trained epoch of the lab: when it was trained, where and by whom."""
    seen = [node for node in status["nodes"] if node.get("epoch_at")]
    if not seen:
        raise DemoError("the lab has not trained an epoch")
    node = max(seen, key=lambda entry: entry["epoch_at"])
    pid = node["trainer_pid"] or node["last_trainer_pid"]
    return {"node": node["name"], "epoch": node["epoch"], "at": node["epoch_at"], "pid": pid}


def words(seen: dict) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(seen["at"]))
    return f"epoch {seen['epoch']} at {moment} by pid {seen['pid']} on {seen['node']}"


def read_proof(reports: pathlib.Path) -> list[str]:
    """The proof of progress from the newest report."""
    newest = max(reports.glob("*.json"), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise DemoError(f"the recovery left no report in {reports}")
    report = json.loads(newest.read_text())
    lines = []
    for name, steps in report["nodes"].items():
        for entry in (steps.get("monitor") or {}).get("proof") or []:
            lines.append(f"{name}: {entry['what']}")
    if not lines:
        raise DemoError(f"{newest} holds no proof of progress")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description=__doc__)
    parser.add_argument("--driver", choices=["netns", "local"], help="default: netns as root on Linux, else local")
    parser.add_argument("--config", default="hex8_2p")
    parser.add_argument("--dir", type=pathlib.Path, help="where the lab lives (default: a fresh temporary directory)")
    options = parser.parse_args(argv)
    directory = options.dir or pathlib.Path(tempfile.mkdtemp(prefix="ringrift-demo-", dir="/var/tmp"))
    demo = Demo(directory, options.driver, options.config)
    try:
        demo.story()
        return 0
    except (DemoError, subprocess.TimeoutExpired) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    finally:
        demo.say("7. Everything is put away")
        demo.lab("down")
        if options.dir is None and directory.exists():
            directory.rmdir()


if __name__ == "__main__":
    sys.exit(main())

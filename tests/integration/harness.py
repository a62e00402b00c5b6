# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the lab and the playbooks as a person would, and read back what they did."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = "hex8_2p"
# For a node without a network: connect anew, and give up after 3 s instead of when a kept connection is given up.
QUICK = {
    "ANSIBLE_TIMEOUT": "3",
    "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=no -o ServerAliveInterval=1 -o ServerAliveCountMax=3",
    "ANSIBLE_SSH_CONTROL_PATH": "none",
}
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Play:
    """A finished ansible-playbook run."""

    rc: int
    output: str
    seconds: float

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        return {host: int(changed) for host, _ok, changed, _unreachable, _failed in RECAP.findall(self.output)}

    @property
    def flat(self) -> str:
        """The output with runs of white space folded, for searching in wrapped messages."""
        return re.sub(r"\s+", " ", self.output)


def environment(**extra: str) -> dict[str, str]:
    """The environment of a person at a shell: this interpreter's tools first, no colours."""
    path = f"{pathlib.Path(sys.executable).parent}:/usr/sbin:/sbin:{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "ANSIBLE_NOCOLOR": "1", **extra}


def run(*argv: str, cwd: pathlib.Path = ROOT, timeout: float = 240, **extra: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        argv, cwd=cwd, env=environment(**extra), timeout=timeout, check=False, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


class Unsafe(str):
    """A text that is data and never a template."""


class _Dumper(yaml.SafeDumper):
    """Writes such a text."""


_Dumper.add_representer(Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text)))


def as_awx_hands_on(value: Any) -> str:
    """Extra variables as AWX writes what was typed at a launch: YAML in which each text is tagged as data."""

    def tagged(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: tagged(entry) for name, entry in part.items()}
        if isinstance(part, list):
            return [tagged(entry) for entry in part]
        return Unsafe(part) if isinstance(part, str) else part

    return yaml.dump(tagged(value), Dumper=_Dumper)


class Lab:
    """A lab of its own for the tests, driven through its command line."""

    def __init__(self, directory: pathlib.Path, driver: str) -> None:
        self.directory = directory
        self.driver = driver

    def __call__(self, *words: str, timeout: float = 120) -> str:
        done = run(sys.executable, "-m", "lab", *words, "--dir", str(self.directory), timeout=timeout)
        assert done.returncode == 0, f"lab {' '.join(words)}: {done.stdout}"
        return done.stdout

    @property
    def inventory(self) -> pathlib.Path:
        return self.directory / "inventory"

    def status(self) -> dict:
        return json.loads(self("status", "--json"))

    def snapshot(self) -> dict:
        """The hash of every file and every process of each node."""
        from lab import cluster
        from lab.snapshot import snapshot

        return snapshot(cluster.running(self.directory))

    def trainers(self) -> list[tuple[str, int]]:
        """Node and pid of each trainer that runs."""
        return [(node["name"], node["trainer_pid"]) for node in self.status()["nodes"] if node.get("trainer_pid")]

    def fresh(self, nodes: int = 3, api: str = "ringrift") -> None:
        """A healthy, training lab, whatever was before; each node that a test does without saves time."""
        self("down")
        self("up", "--driver", self.driver, "--config", CONFIG, "--nodes", str(nodes), "--api", api)

    def play(self, name: str, *words: str, config: str = CONFIG, timeout: float = 240, **extra: str) -> Play:
        begun = time.monotonic()
        done = run(
            "ansible-playbook", "-i", str(self.inventory), f"playbooks/{name}.yml", "-e", f"config={config}",
            "-e", f"ringrift_report_dir={self.directory / 'reports'}", *words, timeout=timeout, **extra,
        )  # fmt: skip
        return Play(done.returncode, done.stdout, time.monotonic() - begun)

    def reports(self) -> list[dict]:
        """Those of the runs, the newest last; a diagnosis keeps its own beside them."""
        paths = sorted((self.directory / "reports").glob(f"*-{CONFIG}.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text()) for path in paths]

    def diagnosis(self, kind: str = "diagnosis") -> dict:
        """The newest verdict, or the newest ``evidence``."""
        paths = (self.directory / "reports").glob(f"*-{CONFIG}-{kind}.json")
        return json.loads(max(paths, key=lambda path: path.stat().st_mtime_ns).read_text())

    def journal(self, words: str = "") -> dict:
        """That on the coordinator, after it was told something by a controller that is gone then."""
        done = run(
            "ansible", "coordinator", "-i", str(self.inventory), "-m", "ringrift.recovery.recovery_journal",
            "-a", f"config={CONFIG} {words}", ANSIBLE_CALLBACK_RESULT_FORMAT="json",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout[done.stdout.index("{") :])["journal"]

    def wait_for_trainer(self, deadline: float = 30) -> tuple[str, int]:
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            found = self.trainers()
            if found:
                return found[0]
            time.sleep(0.2)
        raise AssertionError(f"no trainer within {deadline} s")

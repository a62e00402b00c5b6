# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of one's own, broken as a case wants it, and the playbooks played on it with something happening on the way."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Sequence

from lab import cluster, faults
from lab.instance import Instance
from tests.integration.harness import CONFIG, RECAP, ROOT, environment

CALLBACKS = pathlib.Path(__file__).resolve().parent / "callback"
KILLED = -signal.SIGKILL
# A node may be cut off at any time: one attempt to connect, and no connection that is kept for minutes.
SSH = {
    "ANSIBLE_TIMEOUT": "3",
    "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=20s "
    "-o ServerAliveInterval=1 -o ServerAliveCountMax=3",
}


@dataclass(frozen=True)
class Act:
    """What happens when a task begins: the one whose name has these words, or the one of this number.

    ``breaks`` are words for ``lab break``, ``mends`` such for ``lab mend``; ``kills`` the controller. ``later`` is so
    many seconds after the task began.
    """

    task: str = ""
    number: int = 0
    breaks: str = ""
    mends: str = ""
    kills: bool = False
    later: float = 0.0

    def order(self, directory: pathlib.Path) -> dict:
        wish: dict = {"later": self.later}
        wish.update({"number": self.number} if self.number else {"task": self.task})
        if self.kills:
            return {**wish, "kill": True}
        verb, words = ("mend", self.mends) if self.mends else ("break", self.breaks)
        return {**wish, "run": [sys.executable, "-m", "lab", verb, *words.split(), "--dir", str(directory)]}


@dataclass(frozen=True)
class Played:
    """A run of a playbook. ``tasks`` are the names of those that began, ``acts`` what was done meanwhile.

    ``report`` is what it handed on with set_stats.
    """

    rc: int
    output: str
    seconds: float
    tasks: tuple[str, ...]
    acts: tuple[dict, ...]
    report: dict

    @property
    def flat(self) -> str:
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        return sum(int(entry[2]) for entry in RECAP.findall(self.output))


class Stage:
    """Use it as a context: what it started is gone afterwards."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.instance: Instance | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        cluster.down(self.directory, say=_silent)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.instance = None

    def fresh(self, broken: str, nodes: int = 1, api: str = "ringrift", training: bool = True) -> Instance:
        """A new lab in which what the words name is broken."""
        self.close()
        self.instance = cluster.up(self.directory, cluster.Wish("netns", nodes, api, CONFIG, training), say=_silent)
        list(faults.apply(self.instance, faults.parse(broken.split(), self.instance)))
        return self.instance

    def mend(self, words: str) -> None:
        assert self.instance is not None
        list(faults.mend(self.instance, faults.parse(words.split(), self.instance)))

    def begin(self, playbook: str, *words: str, acts: Sequence[Act] = ()) -> Running:
        return Running(self.directory, playbook, words, acts)

    def play(self, playbook: str, *words: str, acts: Sequence[Act] = (), timeout: float = 240.0) -> Played:
        return self.begin(playbook, *words, acts=acts).wait(timeout)


class Running:
    """A playbook that runs in a process group of its own."""

    def __init__(self, directory: pathlib.Path, playbook: str, words: Sequence[str], acts: Sequence[Act]) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="play-", dir=directory))
        self.trace = self.folder / "trace"
        wish = self.folder / "wish.json"
        wish.write_text(json.dumps({"trace": str(self.trace), "acts": [act.order(directory) for act in acts]}))
        self.said = open(self.folder / "output", "w+")
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            ["ansible-playbook", "-i", str(directory / "inventory"), f"playbooks/{playbook}.yml"]
            + ["-e", f"config={CONFIG}", "-e", f"ringrift_report_dir={directory / 'reports'}", *words],
            cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL, stdout=self.said, stderr=subprocess.STDOUT,
            env=environment(
                ANSIBLE_CALLBACK_PLUGINS=str(CALLBACKS), ACT_AT_TASK=str(wish), PYTHONPATH=str(ROOT),
                ANSIBLE_SSH_CONTROL_PATH_DIR=str(directory / "cp"), **SSH,
            ),
        )  # fmt: skip

    def wait(self, timeout: float) -> Played:
        try:
            rc = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            rc = 124
        self.said.seek(0)
        with self.said:
            output = self.said.read()
        told = [json.loads(line) for line in self.trace.read_text().splitlines()] if self.trace.exists() else []
        return Played(
            rc,
            output,
            time.monotonic() - self.begun,
            tuple(entry["task"] for entry in told if "task" in entry),
            tuple(entry for entry in told if "act" in entry),
            next((entry["stats"].get("ringrift_recovery", {}) for entry in told if "stats" in entry), {}),
        )


def _silent(_text: str) -> None:
    """The lab tells what it does; here nobody reads it."""

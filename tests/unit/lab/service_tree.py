# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the stand-in share: seeded service directories, and running what is in them."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from lab import seed

ENVIRONMENT = {
    "LAB_EPOCH_SECONDS": "0.05",
    "LAB_SIGTERM_SECONDS": "0.1",
    "LAB_RETRY_SECONDS": "0.05",
    "LAB_MIN_FREE_GB": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
DEADLINE = 20


@functools.lru_cache(maxsize=None)
def _template(config: str) -> tuple[pathlib.Path, tempfile.TemporaryDirectory]:
    holder = tempfile.TemporaryDirectory()
    return seed.seed_service(pathlib.Path(holder.name, "service"), config), holder


class Service:
    """A service directory of its own."""

    def __init__(self, path: pathlib.Path, config: str = "hex8_2p") -> None:
        self.path = path
        self.board, _, players = config.rpartition("_")
        self.players = players[:-1]
        shutil.copytree(_template(config)[0], path, symlinks=True)

    def environment(self, **more: str) -> dict[str, str]:
        keep = {
            name: value for name, value in os.environ.items() if not name.startswith(("LAB_", "RINGRIFT_", "REDIS"))
        }
        return {**keep, **ENVIRONMENT, "RINGRIFT_COORDINATION_DIR": str(self.path / "data/coordination/events"), **more}

    def argv(self, *argv: str) -> list[str]:
        return [sys.executable, *argv]

    def trainer(self, *argv: str) -> list[str]:
        config = ["--board-type", self.board, "--num-players", self.players]
        return self.argv("-m", "app.training.train", *config, *argv)

    def endless(self, *argv: str) -> list[str]:
        """A trainer that only ends when it is told to."""
        return self.trainer("--epochs", "1000000", "--early-stopping-patience", "0", *argv)

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess:
        return self.call(self.argv(*argv), **env)

    def train(self, *argv: str, **env: str) -> subprocess.CompletedProcess:
        return self.call(self.trainer(*argv), **env)

    def call(self, argv: list[str], **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            argv, cwd=self.path, env=self.environment(**env), capture_output=True, text=True, timeout=DEADLINE
        )

    @contextmanager
    def start(self, argv: list[str], **env: str) -> Iterator[subprocess.Popen]:
        """A process that is running; what is left of it is killed at the end."""
        with open(self.path / "process.log", "w") as log:
            process = subprocess.Popen(argv, cwd=self.path, env=self.environment(**env), stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.kill()
                process.wait(DEADLINE)

    def log(self) -> str:
        return (self.path / "process.log").read_text()

    def lines(self) -> list[str]:
        return self.log().splitlines()

    def events(self) -> list[tuple[str, dict, str]]:
        with closing(sqlite3.connect(self.path / "data/coordination/events/events.db")) as connection:
            rows = connection.execute("SELECT event_type, payload, source FROM events ORDER BY event_id").fetchall()
        return [(kind, json.loads(payload), source) for kind, payload, source in rows]

    def fault(self, **faults: object) -> None:
        path = self.path / "data/lab/train_fault.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(faults))


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE} s for {what}"
        time.sleep(0.02)

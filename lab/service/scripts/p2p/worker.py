# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node does for the queue: claim an item, run its trainer, report. Part of the stand-in, see `app`.

Two differences from the real one. The trainer's output goes to `logs/training.log`, where an operator looks for it,
not into a pipe; success is read from there. And the trainer is started through `app.coordination.training_launcher`,
so that a training takes the training lock. Kept: one report and no second try, so that a leader that is away at that
moment goes on believing that the item runs; and a trainer outlives its orchestrator.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.p2p import client
from scripts.p2p.work_queue import config_key

if TYPE_CHECKING:
    from scripts.p2p.state import Orchestrator

LARGE_BOARDS = ("square19", "hexagonal")
TAIL = 4096

logger = logging.getLogger("p2p_orchestrator")


def python(root: Path) -> str:
    """The interpreter of the service."""
    path = root / "venv" / "bin" / "python"
    return str(path) if path.exists() else sys.executable


def trainer_command(root: Path, config: dict[str, Any]) -> list[str]:
    """The executor's command line. Raises ValueError when the data forbid a training."""
    key = config_key(config)
    data = root / "data" / "training" / f"{key}.npz"
    if not data.exists():
        raise ValueError(f"no_training_data:{key}")
    if data.stat().st_size < 1024:
        raise ValueError(f"npz_too_small:{data.stat().st_size}bytes:{key}")
    command = [python(root), "-m", "app.training.train"]
    command += ["--board-type", str(config.get("board_type")), "--num-players", str(config.get("num_players", 2))]
    command += ["--epochs", str(config.get("epochs", 20)), "--batch-size", str(config.get("batch_size", 512))]
    command += ["--save-path", f"models/candidate_{key}.pth", "--allow-stale-data", "--max-data-age-hours", "48"]
    command += ["--data-path", f"data/training/{key}.npz"]
    if (root / "models" / f"canonical_{key}.pth").exists():
        command += ["--init-weights", f"models/canonical_{key}.pth"]
    launcher = [python(root), "-m", "app.coordination.training_launcher", "--config", key, "--"]
    return launcher + command


class Worker(threading.Thread):
    """The loop of a follower; a leader has none."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        super().__init__(name="worker", daemon=True)
        self.orchestrator = orchestrator
        # A hundred followers ask one leader, on two cores.
        crowd = max(1.0, len(orchestrator.peers) / 10)
        self.interval = float(os.environ.get("LAB_CLAIM_SECONDS") or 0.6) * crowd
        self.heartbeat = crowd
        self.stopping = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        while not self.stopping.wait(self.interval):
            try:
                item = self._claim()
                if item is not None:
                    self._execute(item)
            except OSError as error:
                logger.debug("Leader does not answer: %s", error)
            except Exception:
                logger.exception("Work failed")

    def _beat(self) -> None:
        orchestrator = self.orchestrator
        me, pause = {"node_id": orchestrator.node_id}, 0.1
        while not self.stopping.wait(pause):
            try:
                client.call(f"{orchestrator.leader_url()}/heartbeat", me, orchestrator.token)
                orchestrator.heard(orchestrator.leader_name)
                pause = self.heartbeat
            except OSError:
                # A leader that comes up is found soon, one that stays away is not asked all the time.
                pause = min(self.heartbeat, 2 * pause)

    def _claim(self) -> dict[str, Any] | None:
        orchestrator = self.orchestrator
        url = f"{orchestrator.leader_url()}/work/claim?node_id={orchestrator.node_id}&capabilities=training"
        status, answer = client.call(url)
        orchestrator.heard(orchestrator.leader_name)
        if status != 200 or answer.get("status") != "claimed":
            return None
        return answer["work"]

    def _report(self, path: str, body: dict[str, Any]) -> None:
        try:
            client.call(f"{self.orchestrator.leader_url()}{path}", body, self.orchestrator.token)
        except OSError as error:
            logger.warning("Could not report %s of %s: %s", path, body["work_id"], error)

    def _execute(self, item: dict[str, Any]) -> None:
        work_id, config = item["work_id"], item["config"]
        root = self.orchestrator.root
        try:
            command = trainer_command(root, config)
        except ValueError as error:
            logger.error("Cannot train: %s", error)
            self._report("/work/fail", {"work_id": work_id, "error": str(error)})
            return
        self._report("/work/start", {"work_id": work_id})
        logger.info("Executing training work %s: %s", work_id, config_key(config))
        log = root / "logs" / "training.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
        with open(log, "ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        end = time.monotonic() + (14400 if config.get("board_type") in LARGE_BOARDS else 7200)
        while process.poll() is None:
            if self.stopping.wait(0.1):
                return
            if time.monotonic() > end:
                process.kill()
        said = _tail(log, begin)
        logger.info("Training work %s ended with exit code %s", work_id, process.returncode)
        if process.returncode == 0 and "TRAINING_SUMMARY:" in said:
            self._report("/work/complete", {"work_id": work_id, "result": {"node_id": self.orchestrator.node_id}})
            return
        last = said.strip().splitlines()[-1:] or [""]
        self._report("/work/fail", {"work_id": work_id, "error": f"exit {process.returncode}: {last[0][:200]}"})


def _tail(log: Path, begin: int) -> str:
    try:
        with open(log, "rb") as stream:
            stream.seek(max(begin, log.stat().st_size - TAIL))
            return stream.read(TAIL).decode(errors="replace")
    except OSError:
        return ""

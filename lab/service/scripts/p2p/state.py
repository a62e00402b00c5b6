# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an orchestrator knows: itself, its peers, its leader, its training records. Part of the stand-in, see `app`.

Kept from the real one: training records live in the leader's memory only, `/status` cannot see training, a follower
knows no records, and no start of a training looks for another one.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.p2p import client, worker
from scripts.p2p.status_page import EMPTY_STATUS, NODE, PEER
from scripts.p2p.work_queue import ACTIVE, WorkQueue, config_key

LEASE = 10.0
COOLDOWN = 300.0
SEEDS = "data/lab/p2p_records.json"
UNWIRED = "data/lab/p2p_unwired.json"

THRESHOLDS = {
    "min_games_nnue": 2000,
    "min_games_cmaes": 1000,
    "incremental_games_nnue": 1000,
    "incremental_games_cmaes": 500,
    "cooldown_seconds": 1800.0,
    "auto_nnue_enabled": True,
    "auto_cmaes_enabled": True,
    "cluster_scale_factor": 1.0,
    "data_rate_scale_factor": 1.0,
}

RECORD = {
    "job_id": "",
    "job_type": "nnue",
    "board_type": "square8",
    "num_players": 2,
    "status": "pending",
    "worker_node": "",
    "created_at": 0.0,
    "started_at": 0.0,
    "completed_at": 0.0,
    "epochs": 100,
    "batch_size": 4096,
    "learning_rate": 0.001,
    "data_paths": [],
    "data_games_count": 0,
    "output_model_path": "",
    "error_message": "",
    "final_loss": 0.0,
    "final_accuracy": 0.0,
    "checkpoint_path": "",
    "checkpoint_epoch": 0,
    "checkpoint_loss": 0.0,
    "checkpoint_updated_at": 0.0,
    "resume_from_checkpoint": False,
}


class Orchestrator:
    """The node's own view. Whoever is named as leader leads; elections are not played."""

    def __init__(
        self,
        root: Path,
        node_id: str,
        host: str,
        port: int,
        peers: dict[str, str] | None = None,
        leader: str | None = None,
        token: str | None = None,
        api: str = "ringrift",
        coordinator: bool = False,
    ) -> None:
        self.root, self.node_id, self.host, self.port = root, node_id, host, port
        self.token, self.api, self.coordinator = token, api, coordinator
        self.peers = {name: url.rstrip("/") for name, url in (peers or {}).items() if name != node_id}
        # Followers of a big cluster are heard less often.
        self.lease = max(LEASE, 0.3 * len(self.peers))
        self.leader_name = leader or (node_id if coordinator else None)
        has_gpu = os.environ.get("LAB_HAS_GPU")
        self.has_gpu = not coordinator if has_gpu is None else has_gpu == "1"
        self.started = time.time()
        self.queue = WorkQueue(root / "data" / "work_queue.db")
        self._lock = threading.RLock()
        self._heard: dict[str, float] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._seeded = 0
        # A fresh process wires its events anew.
        (root / UNWIRED).unlink(missing_ok=True)

    # Leadership and peers

    @property
    def is_leader(self) -> bool:
        return self.leader_name == self.node_id

    @property
    def leader_id(self) -> str | None:
        if self.is_leader:
            return self.node_id
        return self.leader_name if self.leader_name and self.alive(self.leader_name) else None

    def leader_url(self) -> str:
        """Where the leader listens. Raises OSError when that is unknown."""
        if self.leader_name not in self.peers:
            raise OSError(f"no address of the leader {self.leader_name}")
        return self.peers[self.leader_name]

    def heard(self, name: str | None) -> None:
        if name:
            with self._lock:
                self._heard[name] = time.time()

    def alive(self, name: str) -> bool:
        if not self.is_leader and name != self.leader_name:
            name = self.leader_name or name
        return time.time() - self._heard.get(name, 0.0) < self.lease

    # What /status and /health show

    def myself(self) -> dict[str, Any]:
        disk = shutil.disk_usage(self.root)
        return {
            **copy.deepcopy(NODE),
            "node_id": self.node_id,
            "host": self.host,
            "port": self.port,
            "role": "leader" if self.is_leader else "follower",
            "last_heartbeat": time.time(),
            "leader_id": self.leader_id or "",
            "cpu_count": os.cpu_count() or 1,
            "cpu_percent": cpu_percent(),
            "memory_percent": memory_percent(),
            "disk_percent": 100.0 * disk.used / disk.total,
            "disk_free_gb": disk.free / 2**30,
            "has_gpu": self.has_gpu,
            "gpu_name": gpu_name(self.node_id) if self.has_gpu else "",
            "memory_gb": memory_gb(),
            "is_cuda_gpu_node": self.has_gpu,
            "is_cpu_only_node": not self.has_gpu,
        }

    def peer(self, name: str) -> dict[str, Any]:
        parts = urlsplit(self.peers[name])
        seen = self._heard.get(name, 0.0)
        has_gpu = name != self.leader_name
        return {
            **copy.deepcopy(NODE),
            **PEER,
            "node_id": name,
            "host": parts.hostname or "",
            "port": parts.port or 80,
            "scheme": parts.scheme,
            "role": "leader" if name == self.leader_name else "follower",
            "last_heartbeat": seen,
            "leader_id": self.leader_id or "",
            "has_gpu": has_gpu,
            "gpu_name": gpu_name(name) if has_gpu else "",
            "is_alive": self.alive(name),
            "seconds_since_heartbeat": time.time() - seen,
        }

    def status(self, alive_only: bool = True) -> dict[str, Any]:
        everyone = {name: self.peer(name) for name in self.peers}
        peers = {name: peer for name, peer in everyone.items() if peer["is_alive"] or not alive_only}
        page = copy.deepcopy(EMPTY_STATUS)
        page.update(
            node_id=self.node_id,
            role="leader" if self.is_leader else "follower",
            leader_id=self.leader_id,
            effective_leader_id=self.leader_id,
            is_leader=self.is_leader,
            self=self.myself(),
            peers=peers,
            all_peers=everyone,
            alive_peers=sum(1 for peer in everyone.values() if peer["is_alive"]),
            work_queue_size=self.queue.count("pending"),
            _cache_time=time.time(),
        )
        page["leader_consensus"].update(consensus_leader=self.leader_id)
        page["network"].update(advertise_host=self.host)
        page["leadership_consistency"].update(
            dict.fromkeys(("is_leader_call", "leader_id_is_self", "role_is_leader"), self.is_leader),
            role=page["role"],
            ulsm_state=page["role"],
            leader_id=self.leader_id,
            ulsm_leader_id=self.leader_id,
            node_id=self.node_id,
        )
        page["event_subscriptions"].update(timestamp=self.started)
        if self.api == "runbook":
            page["jobs"] = self.runbook_jobs()
            page["last_training_time"] = self.last_training_time()
        return page

    def health(self) -> dict[str, Any]:
        me = self.myself()
        leader_seen = 0.0 if self.is_leader else time.time() - self._heard.get(self.leader_name or "", time.time())
        shown = (
            "node_id",
            "role",
            "disk_percent",
            "memory_percent",
            "cpu_percent",
            "gpu_percent",
            "gpu_memory_percent",
        )
        return {
            "healthy": True,
            **{name: me[name] for name in shown},
            "selfplay_jobs": 0,
            "training_jobs": 0,
            "leader_id": self.leader_id,
            "leader_last_seen_seconds": leader_seen if self.leader_id else None,
            "active_peers": sum(1 for name in self.peers if self.alive(name)),
            "total_peers": len(self.peers),
            "uptime_seconds": time.time() - self.started,
            "timestamp": datetime.now().isoformat(),
            "cluster_utilization": {
                "cpu_util": me["cpu_percent"],
                "gpu_util": 0.0,
                "selfplay_rate": 1000,
                "target_range": "60-80%",
                "status": "below",
            },
        }

    # Training records

    def records(self) -> list[dict[str, Any]]:
        """All of them; a file of faults can add some, once for each time that it is written."""
        if not self.is_leader:
            return []
        with self._lock:
            self._seed()
            return [dict(record) for record in self._records.values()]

    def _seed(self) -> None:
        path = self.root / SEEDS
        try:
            written = path.stat().st_mtime_ns
            if written == self._seeded:
                return
            seeds = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        self._seeded = written
        for seed in seeds:
            self._records[seed["job_id"]] = {**RECORD, "created_at": time.time(), **seed}

    def change_record(self, job_id: Any, **values: Any) -> bool:
        with self._lock:
            self._seed()
            if job_id not in self._records:
                return False
            self._records[job_id].update(values)
            return True

    def start_record(self, job_type: str, board: str, players: int) -> dict[str, Any] | None:
        """Dispatch an NNUE training: no look for a running one, and success also when nobody took it."""
        workers = [name for name in self.peers if self.alive(name)] + ([self.node_id] if self.has_gpu else [])
        if job_type not in ("nnue", "cmaes") or not workers:
            return None
        now = time.time()
        record = {
            **RECORD,
            "job_id": f"{job_type}_{board}_{players}p_{int(now)}",
            "job_type": job_type,
            "board_type": board,
            "num_players": players,
            "worker_node": workers[0],
            "created_at": now,
            "status": "queued",
        }
        with self._lock:
            self._records[record["job_id"]] = record
        body = {"job_id": record["job_id"], "board_type": board, "num_players": players}
        try:
            if workers[0] == self.node_id:
                taken = self.start_nnue(body)[1]
            else:
                taken = client.call(f"{self.peers[workers[0]]}/training/nnue/start", body, self.token)[1]
        except OSError as error:
            taken = {"success": False, "error": str(error)}
        if taken.get("success"):
            self.change_record(record["job_id"], status="running", started_at=time.time())
        else:
            failed = "All 1 dispatch attempts failed"
            self.change_record(record["job_id"], status="failed", error_message=failed, completed_at=time.time())
        return record

    def start_nnue(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The worker's side: it passes flags that the trainer does not know, and reads its output for errors only."""
        board, players = str(body.get("board_type", "square8")), int(body.get("num_players", 2))
        databases = sorted((self.root / "data" / "games").glob(f"*{board}*_{players}p*.db"))
        if not databases:
            return 400, {"success": False, "error": f"No selfplay DBs found for {board} {players}p"}
        command = [worker.python(self.root), "-m", "scripts.train_nnue"]
        for database in databases:
            command += ["--db", str(database)]
        command += ["--board-type", board, "--num-players", str(players)]
        command += ["--epochs", str(body.get("epochs", 100)), "--batch-size", str(body.get("batch_size", 4096))]
        command += ["--save-path", f"models/canonical_{board}_{players}p.pth"]
        command += ["--sampling-weights", "victory_type", "--policy-label-smoothing", "0.05"]
        process = subprocess.Popen(
            command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self._await_nnue, args=(body.get("job_id"), process), daemon=True).start()
        return 200, {"success": True, "pid": process.pid}

    def _await_nnue(self, job_id: Any, process: subprocess.Popen) -> None:
        said = process.communicate()[0].decode(errors="replace")
        over = {"completed": True} if process.returncode == 0 else {"error": said[:500] or f"exit {process.returncode}"}
        if self.is_leader:
            self.finish_record(job_id, over)
            return
        try:
            client.call(f"{self.leader_url()}/training/update", {"job_id": job_id, **over}, self.token)
        except OSError:
            pass

    def finish_record(self, job_id: Any, body: dict[str, Any]) -> bool:
        """What `/training/update` does: any word is taken as the state."""
        values: dict[str, Any] = {}
        if body.get("status"):
            values["status"] = body["status"]
        if body.get("completed"):
            values.update(status="completed", completed_at=time.time())
        if body.get("error"):
            values.update(status="failed", error_message=body["error"], completed_at=time.time())
        for name in ("output_model_path", "final_loss", "checkpoint_path", "checkpoint_epoch", "checkpoint_loss"):
            if body.get(name):
                values[name] = body[name]
        return self.change_record(job_id, **values)

    # The interface of the runbook, on the same queue and records

    def runbook_jobs(self) -> list[dict[str, Any]]:
        jobs = []
        for record in self.records():
            key = config_key(record)
            jobs.append((record["job_id"], record["status"], record["worker_node"], key))
        for item in self.queue.items() if self.is_leader else ():
            if item["work_type"] == "training":
                key = config_key(item["config"])
                jobs.append((f"training_{key}_{item['work_id']}", item["status"], item["claimed_by"], key))
        names = ("id", "status", "node_id", "config")
        return [{**dict(zip(names, (job[0], job[1], job[2] or None, job[3]))), "type": "training"} for job in jobs]

    def last_training_time(self) -> float | None:
        ended = [record["completed_at"] for record in self.records() if record["status"] == "completed"]
        for item in self.queue.items() if self.is_leader else ():
            if item["work_type"] == "training" and item["status"] == "completed":
                ended.append(item["completed_at"])
        return max(ended, default=None)

    def cooldown_remaining(self) -> float:
        seconds = float(os.environ.get("LAB_COOLDOWN_SECONDS") or COOLDOWN)
        return max(0.0, (self.last_training_time() or 0.0) + seconds - time.time())

    def clear_training_state(self) -> int:
        cleared = 0
        for record in self.records():
            if record["status"] in (*ACTIVE, "queued"):
                cleared += self.change_record(record["job_id"], status="failed", error_message="cleared")
        for item in self.queue.items():
            if item["work_type"] == "training" and item["status"] in ACTIVE:
                cleared += self.queue.cancel(item["work_id"])
        return cleared

    def unwired(self) -> list[str]:
        """Events whose subscribers a fault took away; a restart of the orchestrator brings them back."""
        try:
            return [str(name) for name in json.loads((self.root / UNWIRED).read_text())]
        except (OSError, ValueError):
            return []


def gpu_name(node: str) -> str:
    return "NVIDIA GH200 480GB" if "gh200" in node else "NVIDIA H100 80GB HBM3"


def cpu_percent() -> float:
    return min(100.0, 100.0 * os.getloadavg()[0] / (os.cpu_count() or 1))


def _memory() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}


def memory_percent() -> float:
    memory = _memory()
    return round(100.0 * (1 - memory["MemAvailable"] / memory["MemTotal"]), 1)


def memory_gb() -> int:
    return _memory()["MemTotal"] // 2**20

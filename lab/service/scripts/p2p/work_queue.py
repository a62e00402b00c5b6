# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work queue in `data/work_queue.db`. Part of the stand-in, see `app`.

Kept from the real one: adding looks for no duplicate; asking for the status has a side effect and lists ten pending
items at most; a failed item goes back to pending until its attempts are used up, even when it was cancelled
meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

WORK_TYPES = (
    "training",
    "selfplay",
    "gpu_cmaes",
    "cpu_cmaes",
    "tournament",
    "gauntlet",
    "validation",
    "data_merge",
    "data_sync",
)
ITEM_TIMEOUT = 5400.0
SOFT_LIMIT, HARD_LIMIT, RECOVERY = 500, 1000, 200
PENDING_SHOWN = 10
ACTIVE = ("pending", "claimed", "running")

COLUMNS = (
    "work_id",
    "work_type",
    "priority",
    "config",
    "created_at",
    "claimed_at",
    "started_at",
    "completed_at",
    "status",
    "claimed_by",
    "attempts",
    "max_attempts",
    "timeout_seconds",
    "result",
    "error",
    "depends_on",
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS work_items (
    work_id TEXT PRIMARY KEY,
    work_type TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 50,
    config TEXT NOT NULL DEFAULT '{}',
    created_at REAL NOT NULL,
    claimed_at REAL NOT NULL DEFAULT 0.0,
    started_at REAL NOT NULL DEFAULT 0.0,
    completed_at REAL NOT NULL DEFAULT 0.0,
    status TEXT NOT NULL DEFAULT 'pending',
    claimed_by TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL DEFAULT 3,
    timeout_seconds REAL NOT NULL DEFAULT 5400.0,
    result TEXT NOT NULL DEFAULT '{}',
    error TEXT NOT NULL DEFAULT '',
    depends_on TEXT NOT NULL DEFAULT '[]'
);
CREATE INDEX IF NOT EXISTS idx_work_items_status ON work_items(status);
CREATE TABLE IF NOT EXISTS work_stats (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
HISTORY_COLUMNS = (
    "work_id",
    "work_type",
    "priority",
    "config",
    "created_at",
    "claimed_at",
    "started_at",
    "completed_at",
    "status",
    "claimed_by",
    "attempts",
    "error",
    "result",
)


class Backpressure(RuntimeError):
    """The queue is full."""


def config_key(config: dict[str, Any]) -> str:
    """`hex8_2p` out of the config of an item."""
    board = config.get("board_type", "unknown")
    return "unknown" if board == "unknown" else f"{board}_{config.get('num_players', 0)}p"


class WorkQueue:
    """Items by id, in SQLite, so that they survive a restart."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.RLock()
        with self._lock, closing(self._connect()) as connection, connection:
            connection.executescript(SCHEMA)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5)
        connection.row_factory = sqlite3.Row
        return connection

    def _rows(self, where: str = "1", values: tuple = ()) -> list[dict[str, Any]]:
        with self._lock, closing(self._connect()) as connection:
            rows = connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM work_items WHERE {where} ORDER BY rowid", values
            ).fetchall()
        return [self._item(row) for row in rows]

    @staticmethod
    def _item(row: sqlite3.Row) -> dict[str, Any]:
        item = dict(row)
        for name in ("config", "result", "depends_on"):
            item[name] = json.loads(item[name])
        return item

    def _change(self, statement: str, values: tuple) -> int:
        with self._lock, closing(self._connect()) as connection, connection:
            return connection.execute(statement, values).rowcount

    def _count(self, key: str) -> None:
        self._change(
            "INSERT INTO work_stats VALUES (?, 1) ON CONFLICT(key) DO UPDATE SET value = value + 1", (f"total_{key}",)
        )

    def add(self, work_type: str, priority: int, config: dict, timeout: float, depends_on: list, force: bool) -> str:
        """The id of the new item. Raises ValueError for an unknown type and Backpressure when the queue is full."""
        if work_type not in WORK_TYPES:
            raise ValueError(f"{work_type!r} is not a valid WorkType")
        work_id = uuid.uuid4().hex[:8]
        pending = self.count("pending")
        if pending >= HARD_LIMIT and not force:
            raise Backpressure(
                f"[BACKPRESSURE] Queue at hard limit ({pending}/{HARD_LIMIT}). Work item {work_id} rejected. "
                "Wait for queue to drain or use force=True."
            )
        self._change(
            "INSERT INTO work_items (work_id, work_type, priority, config, created_at, timeout_seconds, depends_on) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (work_id, work_type, priority, json.dumps(config), time.time(), timeout, json.dumps(depends_on)),
        )
        self._count("added")
        return work_id

    def count(self, status: str) -> int:
        with self._lock, closing(self._connect()) as connection:
            return connection.execute("SELECT COUNT(*) FROM work_items WHERE status = ?", (status,)).fetchone()[0]

    def items(self) -> list[dict[str, Any]]:
        return self._rows()

    def claim(self, node: str, capabilities: list[str]) -> dict[str, Any] | None:
        """The most urgent item that the node may have; never a second one of the same config and type."""
        with self._lock:
            items = self._rows("status IN ('pending', 'claimed', 'running', 'completed')")
            done = {item["work_id"] for item in items if item["status"] == "completed"}
            mine = {
                (config_key(item["config"]), item["work_type"])
                for item in items
                if item["status"] in ("claimed", "running") and item["claimed_by"] == node
            }
            waiting = [item for item in items if item["status"] == "pending"]
            for item in sorted(waiting, key=lambda item: -item["priority"]):
                if capabilities and item["work_type"] not in capabilities:
                    continue
                if (config_key(item["config"]), item["work_type"]) in mine or not set(item["depends_on"]) <= done:
                    continue
                if item["attempts"] >= item["max_attempts"] or item["config"].get("target_node", node) != node:
                    continue
                self._change(
                    "UPDATE work_items SET status = 'claimed', claimed_by = ?, claimed_at = ?, attempts = attempts + 1 "
                    "WHERE work_id = ?",
                    (node, time.time(), item["work_id"]),
                )
                return self._rows("work_id = ?", (item["work_id"],))[0]
        return None

    def start(self, work_id: str) -> bool:
        statement = "UPDATE work_items SET status = 'running', started_at = ? WHERE work_id = ? AND status = 'claimed'"
        return self._change(statement, (time.time(), work_id)) > 0

    def complete(self, work_id: str, result: dict[str, Any]) -> bool:
        done = self._change(
            "UPDATE work_items SET status = 'completed', completed_at = ?, result = ? "
            "WHERE work_id = ? AND status IN ('claimed', 'running')",
            (time.time(), json.dumps(result), work_id),
        )
        if done:
            self._count("completed")
        return done > 0

    def fail(self, work_id: str, error: str) -> bool:
        """Back to pending, or failed when the attempts are used up; whatever the state was."""
        with self._lock:
            found = self._rows("work_id = ?", (work_id,))
            if not found:
                return False
            if found[0]["attempts"] < found[0]["max_attempts"]:
                statement = (
                    "UPDATE work_items SET status = 'pending', claimed_by = '', claimed_at = 0.0, error = ? "
                    "WHERE work_id = ?"
                )
                return self._change(statement, (error, work_id)) > 0
            self._count("failed")
            statement = "UPDATE work_items SET status = 'failed', completed_at = ?, error = ? WHERE work_id = ?"
            return self._change(statement, (time.time(), error, work_id)) > 0

    def cancel(self, work_id: str) -> bool:
        statement = (
            "UPDATE work_items SET status = 'cancelled', completed_at = ? "
            "WHERE work_id = ? AND status NOT IN ('completed', 'failed')"
        )
        return self._change(statement, (time.time(), work_id)) > 0

    def flush_stale(self, work_type: str | None) -> int:
        statement = (
            "UPDATE work_items SET status = 'cancelled' WHERE status IN ('failed', 'timeout') AND work_type LIKE ?"
        )
        return self._change(statement, (work_type or "%",))

    def check_timeouts(self) -> list[str]:
        """Return items past their timeout to the queue; the side effect of asking for the status."""
        late = []
        with self._lock:
            for item in self._rows("status IN ('claimed', 'running') AND claimed_at > 0"):
                if time.time() - item["claimed_at"] <= item["timeout_seconds"]:
                    continue
                late.append(item["work_id"])
                if item["attempts"] < item["max_attempts"]:
                    statement = (
                        "UPDATE work_items SET status = 'pending', claimed_by = '', claimed_at = 0.0, "
                        "error = 'timeout' WHERE work_id = ?"
                    )
                    self._change(statement, (item["work_id"],))
                else:
                    self._count("timeout")
                    statement = "UPDATE work_items SET status = 'timeout', completed_at = ? WHERE work_id = ?"
                    self._change(statement, (time.time(), item["work_id"]))
        return late

    def history(self, limit: int, status: str | None) -> list[dict[str, Any]]:
        with self._lock, closing(self._connect()) as connection:
            rows = connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM work_items WHERE ? IS NULL OR status = ? "
                "ORDER BY completed_at DESC, created_at DESC LIMIT ?",
                (status, status, limit),
            ).fetchall()
        items = [self._item(row) for row in rows]
        return [{name: item[name] for name in HISTORY_COLUMNS} for item in items]

    def of_node(self, node: str) -> list[dict[str, Any]]:
        return self._rows("claimed_by = ? AND status IN ('claimed', 'running')", (node,))

    def status(self) -> dict[str, Any]:
        items = self.items()
        pending = [item for item in items if item["status"] == "pending"]
        return {
            "total_items": len(items),
            "by_status": _tally(item["status"] for item in items),
            "by_type": _tally(item["work_type"] for item in items),
            "pending": pending[:PENDING_SHOWN],
            "running": [item for item in items if item["status"] in ("claimed", "running")],
            "stats": self.stats(),
        }

    def stats(self) -> dict[str, int]:
        with self._lock, closing(self._connect()) as connection:
            found = dict(connection.execute("SELECT key, value FROM work_stats").fetchall())
        return {f"total_{key}": found.get(f"total_{key}", 0) for key in ("added", "completed", "failed", "timeout")}

    def backpressure(self) -> dict[str, Any]:
        pending = self.count("pending")
        return {
            "active": pending >= SOFT_LIMIT,
            "pending_count": pending,
            "soft_limit": SOFT_LIMIT,
            "hard_limit": HARD_LIMIT,
            "recovery_threshold": RECOVERY,
            "utilization_pct": round(100.0 * pending / HARD_LIMIT, 1),
            "stats": {"activations": 0, "rejections": 0, "last_activation_at": 0.0, "last_rejection_at": 0.0},
        }

    def metrics(self, config: str | None, work_type: str | None) -> dict[str, Any]:
        totals = {"pending": 0, "running": 0, "claimed": 0}
        by_config: dict[str, dict[str, int]] = {}
        by_type: dict[str, dict[str, int]] = {}
        for item in self.items():
            key = config_key(item["config"])
            if config not in (None, key) or work_type not in (None, item["work_type"]):
                continue
            of_config = by_config.setdefault(key, dict.fromkeys(totals, 0))
            of_type = by_type.setdefault(item["work_type"], dict.fromkeys(totals, 0))
            for place in (totals, of_config, of_type):
                if item["status"] in place:
                    place[item["status"]] += 1
        return {
            "total_pending": totals["pending"],
            "total_running": totals["running"],
            "total_claimed": totals["claimed"],
            "by_config": by_config,
            "by_work_type": by_type,
        }


def _tally(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts

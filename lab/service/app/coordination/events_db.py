# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event log between processes: `events.db` in the coordination directory. Part of the stand-in, see `app`."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
                event_id INTEGER PRIMARY KEY AUTOINCREMENT,
                event_type TEXT NOT NULL,
                payload TEXT NOT NULL DEFAULT '{}',
                source TEXT NOT NULL DEFAULT '',
                hostname TEXT NOT NULL DEFAULT '',
                created_at REAL NOT NULL,
                INDEX_event_type TEXT GENERATED ALWAYS AS (event_type) STORED
            );
CREATE TABLE IF NOT EXISTS subscribers (
                subscriber_id TEXT PRIMARY KEY,
                process_name TEXT NOT NULL,
                hostname TEXT NOT NULL,
                pid INTEGER NOT NULL,
                subscribed_types TEXT NOT NULL DEFAULT '[]',
                last_poll_at REAL NOT NULL,
                created_at REAL NOT NULL
            );
CREATE TABLE IF NOT EXISTS acks (
                subscriber_id TEXT NOT NULL,
                event_id INTEGER NOT NULL,
                acked_at REAL NOT NULL,
                PRIMARY KEY (subscriber_id, event_id),
                FOREIGN KEY (subscriber_id) REFERENCES subscribers(subscriber_id) ON DELETE CASCADE,
                FOREIGN KEY (event_id) REFERENCES events(event_id) ON DELETE CASCADE
            );
CREATE INDEX IF NOT EXISTS idx_events_type ON events(event_type);
CREATE INDEX IF NOT EXISTS idx_events_created ON events(created_at);
CREATE INDEX IF NOT EXISTS idx_acks_subscriber ON acks(subscriber_id);
CREATE INDEX IF NOT EXISTS idx_acks_event ON acks(event_id);
"""


def coordination_dir() -> Path:
    """Where the event log is, in the service's order."""
    if os.environ.get("RINGRIFT_COORDINATION_DIR"):
        return Path(os.environ["RINGRIFT_COORDINATION_DIR"])
    if os.environ.get("XDG_RUNTIME_DIR"):
        return Path(os.environ["XDG_RUNTIME_DIR"], "ringrift_coordination")
    suffix = f"_{os.getuid()}" if os.getuid() else ""
    return Path(f"/tmp/ringrift_coordination{suffix}")


def connect(path: str | os.PathLike[str] | None = None) -> sqlite3.Connection:
    """Open the log, and make it where there is none yet."""
    path = Path(path) if path else coordination_dir() / "events.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(SCHEMA)
    return connection


def publish(
    event_type: str, payload: dict, source: str = "", created_at: float | None = None, path: str | None = None
) -> int:
    """Append an event; gives its number."""
    row = (event_type, json.dumps(payload), source, socket.gethostname(), created_at or time.time())
    with closing(connect(path)) as connection, connection:
        return connection.execute(
            "INSERT INTO events (event_type, payload, source, hostname, created_at) VALUES (?, ?, ?, ?, ?)", row
        ).lastrowid


def subscribe(process_name: str, types: list[str] | None = None, subscriber_id: str | None = None) -> str:
    """Enter this process as a subscriber; gives the subscriber's id."""
    host, now = socket.gethostname(), time.time()
    subscriber_id = subscriber_id or f"{host}:{os.getpid()}:{process_name}"
    row = (subscriber_id, process_name, host, os.getpid(), json.dumps(types or []), now, now)
    with closing(connect()) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO subscribers VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return subscriber_id

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what the service keeps of its automatic trainings, and touch nothing.

Its trigger daemon starts no training of a config that is paused, or whose last one is said to run still; a crash leaves
that mark behind. Dispatch by hand does not ask here. This util is private to the collection.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING, Problem, as_dicts
from ansible_collections.ringrift.recovery.plugins.module_utils._sqlite import (
    connect,
    explain,
    fingerprint,
    how_to_open,
    led_astray,
)

DATABASE = os.path.join("data", "coordination", "training_trigger_state.db")
TABLE = "config_state"
KEY = "config_key"
COLUMNS = ("training_in_progress", "training_intensity", "last_training_time", "consecutive_failures")
PAUSED = "paused"

TIMEOUT = 5.0
BUSY = 2.0
ATTEMPTS = 3
MAX_TEXT = 64


@dataclass(frozen=True)
class TrainingTriggers:
    """What holds back, or does not, automatic training of a config. What is not known is None."""

    path: str
    exists: bool
    training_in_progress: Optional[bool] = None
    intensity: Optional[str] = None
    last_training_time: Optional[float] = None
    consecutive_failures: Optional[int] = None
    problems: Tuple[Problem, ...] = ()

    @property
    def paused(self) -> Optional[bool]:
        return None if self.intensity is None else self.intensity.strip().lower() == PAUSED

    def as_dict(self) -> Dict[str, Any]:
        return {
            "database": self.path,
            "exists": self.exists,
            "training_in_progress": self.training_in_progress,
            "paused": self.paused,
            "intensity": self.intensity,
            "last_training_time": self.last_training_time,
            "consecutive_failures": self.consecutive_failures,
            "problems": as_dicts(self.problems),
        }


def read(config: TrainingConfig, service_path: str, timeout: float = TIMEOUT) -> TrainingTriggers:
    """Read the state of a config. A database that does not exist is a finding, not a failure.

    :param service_path: the directory of the service
    :param timeout: seconds for everything together
    :raises RecoveryError: the database is there and cannot be read, or is damaged
    """
    if not 0 < timeout <= 3600:
        raise RecoveryError(f"timeout is {timeout:g} s. It must be more than 0 and at most 3600.")
    path = os.path.join(os.path.abspath(os.path.expanduser(service_path)), DATABASE)
    if not os.path.lexists(path):
        return TrainingTriggers(path, False)
    end = time.monotonic() + timeout
    try:
        values, problems = _look(path, config, end)
    except sqlite3.Error as exc:
        raise RecoveryError(explain(path, exc, timeout, end, BUSY)) from exc
    except OSError as exc:
        raise RecoveryError(
            f"Could not read {path}: {exc.strerror or exc}. This runs as uid {os.geteuid()}; "
            "run it as the user of the service, or with become."
        ) from exc
    return _understand(path, values, problems)


def _look(path: str, config: TrainingConfig, end: float) -> Tuple[Optional[Dict[str, Any]], List[Problem]]:
    """The columns of the config, None where it is not in the table, and what was not seen."""
    for _attempt in range(ATTEMPTS):
        before = fingerprint(path)
        options, unseen = how_to_open(path)
        try:
            values = _query(path, config, options, end)
        except sqlite3.DatabaseError as exc:
            if led_astray(path, options, before, exc):
                continue
            raise
        if "immutable" not in options or before == fingerprint(path):
            words = f"{unseen} bytes of the write-ahead log of {path} were not read."
            return values, [Problem("log_not_read", words, WARNING)] if unseen else []
    raise RecoveryError(f"{path} changes faster than it can be read. Try again.")


def _query(path: str, config: TrainingConfig, options: str, end: float) -> Optional[Dict[str, Any]]:
    connection = connect(path, options, end, BUSY)
    try:
        present = {row[1] for row in connection.execute(f"PRAGMA table_info({TABLE})")}
        if KEY not in present:
            raise RecoveryError(
                f"{path} does not hold the state of the service's triggers: it has no table {TABLE} with {KEY}. "
                "See what made it, and move it aside."
            )
        columns = [name for name in COLUMNS if name in present]
        # Text is cut by SQLite, so that a huge value is never taken into memory.
        wanted = ", ".join(f"CASE typeof({name}) WHEN 'text' THEN substr({name}, 1, {MAX_TEXT + 1}) "
                           f"WHEN 'blob' THEN NULL ELSE {name} END" for name in columns)  # fmt: skip
        query = f"SELECT {wanted or 'NULL'} FROM {TABLE} WHERE {KEY} = ? LIMIT 1"
        row = connection.execute(query, (config.name,)).fetchone()
        return None if row is None else dict(zip(columns, row))
    finally:
        connection.close()


def _understand(path: str, values: Optional[Dict[str, Any]], problems: List[Problem]) -> TrainingTriggers:
    if values is None:
        words = "The triggers of the service have not met this config yet."
        return TrainingTriggers(path, True, problems=(*problems, Problem("config_not_listed", words, WARNING)))
    running = values.get("training_in_progress")
    failures = values.get("consecutive_failures")
    intensity = values.get("training_intensity")
    moment = values.get("last_training_time")
    read_values: Dict[str, Any] = {
        "training_in_progress": bool(running) if running in (0, 1) else None,
        "consecutive_failures": failures if isinstance(failures, int) and 0 <= failures < 10**9 else None,
        "training_intensity": _text(intensity),
        "last_training_time": _moment(moment),
    }
    # A config that was never trained has the time 0.
    never = isinstance(moment, (int, float)) and moment == 0
    unread = [name for name, value in read_values.items() if value is None and not (never and name.startswith("last"))]
    if unread:
        words = f"{TABLE} says nothing that can be understood of {', '.join(sorted(unread))}."
        problems = [*problems, Problem("state_unreadable", words, WARNING)]
    return TrainingTriggers(
        path,
        True,
        training_in_progress=read_values["training_in_progress"],
        intensity=read_values["training_intensity"],
        last_training_time=read_values["last_training_time"],
        consecutive_failures=read_values["consecutive_failures"],
        problems=tuple(problems),
    )


def _text(value: Any) -> Optional[str]:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        return None
    return "".join(char if char.isprintable() else "\ufffd" for char in value)


def _moment(value: Any) -> Optional[float]:
    whole = isinstance(value, (int, float)) and math.isfinite(value) and 0 < value < 1e11
    return float(value) if whole else None

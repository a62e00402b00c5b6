# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the service's event log ``events.db``: which training started, moved, completed or failed, and when.

It is the only source outside the trainer that has both an epoch and a time. Two generations of the service write it
differently: with names of mixed case and JSON, or with the ``repr`` of a Python object in place of the name. The latter
is taken apart by patterns and is never evaluated. Nothing is created beside the database. This util is private to the
collection.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

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

DATABASE = "events.db"
FOLDER = "ringrift_coordination"
TIMEOUT = 5.0
BUSY = 2.0
ATTEMPTS = 3
# How many steps of its machine SQLite takes between two looks at the clock.
# The newest events of training that are looked at, of all configs together.
MAX_EVENTS = 20_000
MAX_TYPE = 16_384
MAX_PAYLOAD = 65_536
MAX_TEXT = 500
COLUMNS = ("event_id", "event_type", "payload", "source", "hostname", "created_at")

STARTED = "TRAINING_STARTED"
PROGRESS = "TRAINING_PROGRESS"
COMPLETED = "TRAINING_COMPLETED"
FAILED = "TRAINING_FAILED"
KINDS = {STARTED: "started", PROGRESS: "progress", COMPLETED: "completed", FAILED: "failed"}

RUNNING = "running"
NONE = "none"

_SELECT = (
    f"SELECT event_id, substr(event_type, 1, {MAX_TYPE + 1}), substr(payload, 1, {MAX_PAYLOAD + 1}), "
    "substr(source, 1, 200), substr(hostname, 1, 255), created_at FROM events "
    "WHERE upper(event_type) IN (?, ?, ?, ?) "
    "OR event_type LIKE 'DataEvent(event!_type=<DataEventType.TRAINING!_%' ESCAPE '!' "
    f"ORDER BY event_id DESC LIMIT {MAX_EVENTS}"
)
_REPR = re.compile(
    r"\ADataEvent\(event_type=<DataEventType\.([A-Z][A-Z0-9_]{0,63}): '[a-z][a-z0-9_]{0,63}'>, payload=\{", re.A
)
_REPR_END = re.compile(
    r"\}, timestamp=\d{1,12}(?:\.\d{1,12})?, source=(?:'((?:[^'\\]|\\.){0,200})'|\"[^\"]{0,200}\")\)\Z"
)
_KEY = re.compile(r"'([A-Za-z_][A-Za-z0-9_]{0,63})': ", re.A)
_STRING = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.S)
_LITERAL = re.compile(r"(?:(None)|(True|False)|(-?(?:nan|inf))|(-?\d{1,18}(?:\.\d{1,24})?(?:e[-+]?\d{1,3})?))(?=[,}])")


@dataclass(frozen=True)
class Event:
    """One event of a training. ``at`` is Unix seconds; losses that are not finite are None, and ``finite`` False."""

    kind: str
    event_id: int
    at: Optional[float]
    hostname: str
    source: str
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def number(self, *names: str) -> Optional[float]:
        """The first of these values that is a finite number."""
        for name in names:
            value = self.payload.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
        return None

    def whole(self, *names: str) -> Optional[int]:
        value = self.number(*names)
        return int(value) if value is not None and value == int(value) and abs(value) < 10**9 else None

    def text(self, *names: str) -> Optional[str]:
        for name in names:
            value = self.payload.get(name)
            if isinstance(value, str) and value:
                return value[:MAX_TEXT]
        return None

    @property
    def epoch(self) -> Optional[int]:
        return self.whole("epoch")

    @property
    def finite(self) -> bool:
        """Whether no loss is ``nan`` or ``inf``."""
        values = [self.payload.get(name) for name in ("train_loss", "val_loss")]
        return all(not isinstance(value, float) or math.isfinite(value) for value in values)

    @property
    def by_trainer(self) -> bool:
        """Whether the trainer itself reports its start, and not somebody who has asked for it."""
        return "total_epochs" in self.payload

    def as_dict(self) -> Dict[str, Any]:
        shown: Dict[str, Any] = {
            "event_id": self.event_id,
            "at": self.at,
            "hostname": self.hostname,
            "source": self.source,
        }
        if self.kind == STARTED:
            shown.update(total_epochs=self.whole("total_epochs"), start_epoch=self.whole("start_epoch"))
            shown.update(job_id=self.text("job_id"), node=self.text("node_name", "node_id"))
        elif self.kind == PROGRESS:
            shown.update(epoch=self.epoch, total_epochs=self.whole("total_epochs"))
            shown.update(loss=self.number("train_loss", "loss"), val_loss=self.number("val_loss"), finite=self.finite)
        elif self.kind == COMPLETED:
            shown.update(epochs=self.whole("epochs_completed", "epochs"))
            shown.update(loss=self.number("final_train_loss", "train_loss"))
            shown.update(val_loss=self.number("best_val_loss", "final_val_loss", "val_loss"))
            shown.update(checkpoint_path=self.text("checkpoint_path"), model_path=self.text("model_path"))
            shown.update(node=self.text("node_name", "node_id"))
        else:
            shown.update(error=self.text("error", "error_details"), epochs=self.whole("epochs_completed"))
            shown.update(node=self.text("node_name", "node_id"))
        return shown


@dataclass(frozen=True)
class EventLog:
    """What the event log says of one config; ``events`` are its newest, oldest first."""

    path: str
    exists: bool
    config: str
    searched: Tuple[str, ...] = ()
    events: Tuple[Event, ...] = ()
    last_event_id: Optional[int] = None
    problems: Tuple[Problem, ...] = ()

    def last(self, kind: str) -> Optional[Event]:
        """The newest event of a kind; of starts, the newest that the trainer itself reported, if there is one."""
        found = [event for event in self.events if event.kind == kind]
        if kind == STARTED:
            found = [event for event in found if event.by_trainer] or found
        return found[-1] if found else None

    def counts(self) -> Dict[str, int]:
        return {name: sum(event.kind == kind for event in self.events) for kind, name in KINDS.items()}

    @property
    def state(self) -> str:
        """What the newest event says, ``none`` where there is none. A trainer that was killed stays ``running``."""
        if not self.events:
            return NONE
        kind = self.events[-1].kind
        return RUNNING if kind in (STARTED, PROGRESS) else KINDS[kind]

    def as_dict(self) -> Dict[str, Any]:
        newest = {name: self.last(kind) for kind, name in KINDS.items()}
        return {
            # Not "path", "started" or "failed": at the top of a result they mean something else to Ansible.
            "database": self.path,
            "exists": self.exists,
            "searched": list(self.searched),
            "config": self.config,
            "state": self.state,
            "last": {name: None if event is None else event.as_dict() for name, event in newest.items()},
            "counts": self.counts(),
            "last_event_id": self.last_event_id,
            "problems": as_dicts(self.problems),
        }


def candidates(
    environment: Optional[Mapping[str, str]] = None, uid: Optional[int] = None, cwd: Optional[str] = None
) -> List[str]:
    """Where a process of the service looks for its coordination directory, in its order.

    :param environment: of that process; by default that of this one, as are its user and working directory
    """
    environment = os.environ if environment is None else environment
    uid = os.getuid() if uid is None else uid
    if environment.get("RINGRIFT_COORDINATION_DIR"):
        return [os.path.abspath(os.path.join(cwd or "", environment["RINGRIFT_COORDINATION_DIR"]))]
    found = []
    if environment.get("XDG_RUNTIME_DIR"):
        found.append(os.path.join(environment["XDG_RUNTIME_DIR"], FOLDER))
    found.append(os.path.join("/tmp", f"{FOLDER}_{uid}" if uid else FOLDER))
    return found


def find_database(coordination_dir: Optional[str] = None, path: Optional[str] = None) -> Tuple[str, Tuple[str, ...]]:
    """The event log, and all places where it could be.

    A login has another environment than the service may have had, so of several logs the newest counts.
    """
    if path is not None:
        full = os.path.abspath(os.path.expanduser(path))
        return full, (full,)
    folders = [os.path.abspath(os.path.expanduser(coordination_dir))] if coordination_dir else candidates()
    paths = [os.path.join(folder, DATABASE) for folder in folders]
    written = [(when, name) for name in paths for when in [_written(name)] if when is not None]
    return (max(written)[1] if written else paths[0]), tuple(paths)


def _written(path: str) -> Optional[float]:
    times = []
    for name in (path, f"{path}-wal"):
        try:
            times.append(os.stat(name).st_mtime)
        except OSError:
            continue
    return max(times) if times else None


def read_events(
    config: TrainingConfig,
    coordination_dir: Optional[str] = None,
    path: Optional[str] = None,
    hostname: Optional[str] = None,
    timeout: float = TIMEOUT,
) -> EventLog:
    """Read what the event log says of a config. One that does not exist is a finding, not a failure.

    :param coordination_dir: the directory of the log; by default, where the service itself looks
    :param path: the log, instead
    :param hostname: leave out what another host wrote; a shared directory mixes them
    :param timeout: seconds for everything together
    :raises RecoveryError: the log is there and cannot be read, or is damaged
    """
    if not 0 < timeout <= 3600:
        raise RecoveryError(f"timeout is {timeout:g} s. It must be more than 0 and at most 3600.")
    found, searched = find_database(coordination_dir, path)
    if not os.path.lexists(found):
        return EventLog(found, False, config.name, searched)
    end = time.monotonic() + timeout
    try:
        rows, last, problems = _rows(found, end)
    except sqlite3.Error as exc:
        raise RecoveryError(explain(found, exc, timeout, end, BUSY)) from exc
    except OSError as exc:
        raise RecoveryError(
            f"Could not read {found}: {exc.strerror or exc}. This runs as uid {os.geteuid()}; "
            f"run it as the user of the service, or with become."
        ) from exc
    events, unread = [], 0
    for row in rows:
        event, readable = _event(row, config)
        unread += not readable
        if event is not None and (hostname is None or event.hostname in ("", hostname)):
            events.append(event)
    if unread:
        problems.append(Problem("events_unreadable", f"{unread} events of training could not be understood.", WARNING))
    if len(rows) == MAX_EVENTS:
        problems.append(Problem("events_not_counted", f"Only the newest {MAX_EVENTS} events were read.", WARNING))
    events.sort(key=lambda event: event.event_id)
    return EventLog(found, True, config.name, searched, tuple(events), last, tuple(problems))


def _rows(path: str, end: float) -> Tuple[List[Tuple[Any, ...]], Optional[int], List[Problem]]:
    """The newest events of training, the number of the newest event of all, and what was not seen."""
    for _attempt in range(ATTEMPTS):
        before = fingerprint(path)
        options, unseen = how_to_open(path)
        unread = f"{unseen} bytes of the write-ahead log of {path} were not read." if unseen else None
        try:
            rows, last = _query(path, options, end)
        except sqlite3.DatabaseError as exc:
            if led_astray(path, options, before, exc):
                continue
            raise
        except RecoveryError as exc:
            raise exc if unread is None else RecoveryError(f"{exc} {unread}") from exc
        if "immutable" not in options or before == fingerprint(path):
            return rows, last, [] if unread is None else [Problem("log_not_read", unread, WARNING)]
    raise RecoveryError(f"{path} changes faster than it can be read. Try again.")


def _query(path: str, options: str, end: float) -> Tuple[List[Tuple[Any, ...]], Optional[int]]:
    connection = connect(path, options, end, BUSY)
    try:
        present = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        if not set(COLUMNS) <= present:
            missing = ", ".join(sorted(set(COLUMNS) - present))
            raise RecoveryError(f"{path} is no event log of the service: its table events lacks {missing}.")
        # One transaction, so that both answers are of the same moment.
        connection.execute("BEGIN")
        last = connection.execute("SELECT MAX(event_id) FROM events").fetchone()[0]
        rows = connection.execute(_SELECT, tuple(KINDS)).fetchall()
        return rows, last if isinstance(last, int) else None
    finally:
        connection.close()


def _event(row: Tuple[Any, ...], config: TrainingConfig) -> Tuple[Optional[Event], bool]:
    """The event, if it is one of the config, and whether it could be understood."""
    number, name, payload, source, hostname, created = row
    if not isinstance(number, int) or not isinstance(name, str):
        return None, False
    kind: Optional[str] = name.upper()
    if kind in KINDS:
        values = _from_json(payload)
    else:
        kind, values, source = _from_repr(name, source)
        if kind is not None and kind not in KINDS:
            return None, True
    if kind is None or values is None:
        return None, False
    if not _is_of(values, config):
        return None, True
    at = float(created) if isinstance(created, (int, float)) and math.isfinite(created) else None
    return Event(kind, number, at, _text(hostname), _text(source), values), True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_of(values: Mapping[str, Any], config: TrainingConfig) -> bool:
    name = values.get("config") or values.get("config_key")
    if name is not None:
        return bool(name == config.name)
    return (values.get("board_type"), values.get("num_players")) == (config.board, config.players)


def _from_json(payload: Any) -> Optional[Dict[str, Any]]:
    if not isinstance(payload, str) or len(payload) > MAX_PAYLOAD:
        return None
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _from_repr(text: str, source: Any) -> Tuple[Optional[str], Optional[Dict[str, Any]], Any]:
    """Kind, payload and source out of the ``repr`` that stands in place of the name; None where it is not one."""
    head = _REPR.match(text) if len(text) <= MAX_TYPE else None
    if head is None:
        return None, None, source
    values: Dict[str, Any] = {}
    position = head.end()
    for key, value, after in _pairs(text, position):
        values[key], position = value, after
    end = _REPR_END.match(text, position)
    if end is None:
        return None, None, source
    return head.group(1), values, source or end.group(1)


def _pairs(text: str, position: int) -> Iterator[Tuple[str, Any, int]]:
    """Keys and simple values of a dictionary's ``repr``; it ends before the first that is anything else."""
    while True:
        key = _KEY.match(text, position)
        if key is None:
            return
        string = _STRING.match(text, key.end())
        match = string or _LITERAL.match(text, key.end())
        if match is None:
            return
        if string is not None:
            inner = string.group(1) if string.group(1) is not None else string.group(2)
            value: Any = re.sub(r"\\(.)", r"\1", inner, flags=re.S)
        elif match.group(1):
            value = None
        elif match.group(2):
            value = match.group(2) == "True"
        else:
            number = match.group(3) or match.group(4)
            value = int(number) if re.match(r"\A-?\d+\Z", number) else float(number)
        position = match.end()
        if text.startswith(", ", position):
            position += 2
        yield key.group(1), value, position

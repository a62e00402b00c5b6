# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the finished games of a config in the replay databases, and touch nothing.

A database with a write-ahead log needs care: even a read-only connection creates the files ``-wal`` and ``-shm`` beside
it where they are missing. It is then opened as immutable, which creates nothing and takes no lock. A database that
cannot be counted has no number, never 0. This util is private to the collection.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import stat
import time
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._sqlite import (
    connect,
    fingerprint,
    how_to_open,
    led_astray,
)

# Boards under the other names that older databases use.
ALIASES = {"hexagonal": ("hexagonal", "hex"), "square8": ("square8", "sq8"), "square19": ("square19", "sq19")}
# Where the service looks, relative to its directory; {config}, {board} and {players} are filled in.
PATTERNS = (
    "data/games/selfplay.db",
    "data/games/jsonl_aggregated.db",
    "data/games/{board}_*.db",
    "data/games/canonical_*.db",
    "data/games/*_synced.db",
    "data/games/tournament_{board}_{players}*.db",
    "data/games/gauntlet_{config}.db",
    "data/games/baseline_calibration_{config}.db",
    "data/games/synced/**/*.db",
    "data/games/fetched/**/*.db",
    "data/games/owc_imports/*.db",
    "data/games/s3_downloads/**/*.db",
    "data/games/cluster_sync/**/*.db",
    "data/selfplay/canonical_{config}.db",
    "data/selfplay/canonical_{board}.db",
    "data/selfplay/unified_*/games.db",
    "data/selfplay/slurm_{config}*/games.db",
    "data/selfplay/*/{board}_{players}*/games.db",
    "data/selfplay/*/{board}_{players}*/*/games.db",
    "data/selfplay/*/*/{board}_{players}*/games.db",
    "data/training/*/harvested_games.db",
)
MIN_GAMES = 50
DEADLINE = 30.0
DATABASE_DEADLINE = 10.0
BUSY = 2.0
MAX_DATABASES = 2000
LISTED = 200
MAX_PROBLEM = 300
# How many steps of its machine SQLite takes between two looks at the clock.
GAME_COLUMNS = {"winner", "board_type", "num_players"}
MOVE_COLUMNS = ({"move_json"}, {"move_type", "position_q", "position_r"})


@dataclass(frozen=True)
class Database:
    """One database: its finished games of the config, None where they could not be counted, and what is wrong."""

    path: str
    games: Optional[int]
    problem: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class GameCount:
    """All databases of a node. ``games`` counts a game once for each database that holds it."""

    config: str
    service_path: str
    min_games: int
    databases: Tuple[Database, ...]
    incomplete: Optional[str] = None

    @property
    def games(self) -> int:
        """Finished games in the databases that could be counted."""
        return sum(database.games or 0 for database in self.databases)

    @property
    def uncounted(self) -> int:
        """Databases that could not be counted."""
        return sum(database.games is None for database in self.databases)

    @property
    def enough(self) -> Optional[bool]:
        """Whether there are enough games; None where those that were counted are not, and some were not counted."""
        if self.games >= self.min_games:
            return True
        return None if self.uncounted or self.incomplete else False

    def as_dict(self) -> Dict[str, Any]:
        ordered = sorted(self.databases, key=lambda found: (found.games is not None, -(found.games or 0), found.path))
        return {
            "config": self.config,
            "service_path": self.service_path,
            "games": self.games,
            "min_games": self.min_games,
            "enough": self.enough,
            "databases": [database.as_dict() for database in ordered[:LISTED]],
            "databases_found": len(self.databases),
            "uncounted": self.uncounted,
            "incomplete": self.incomplete,
        }


def count_games(
    config: TrainingConfig,
    service_path: str,
    patterns: Optional[Sequence[str]] = None,
    min_games: int = MIN_GAMES,
    deadline: float = DEADLINE,
) -> GameCount:
    """Count the finished games of a config in every database that matches a pattern.

    :param deadline: seconds for all of it; what is left then is uncounted, and ``incomplete`` says so
    :raises MissingFileError: ``service_path`` is not a directory
    """
    root = os.path.abspath(os.path.expanduser(service_path))
    if not os.path.isdir(root):
        raise MissingFileError(f"{root} is not a directory. Set service_path to the ai-service directory of the node.")
    end = time.monotonic() + deadline
    databases: List[Database] = []
    incomplete = None
    for path in find_databases(config, root, PATTERNS if patterns is None else patterns):
        if len(databases) >= MAX_DATABASES:
            incomplete = f"there are more than {MAX_DATABASES} databases; the rest was not looked into"
            break
        left = end - time.monotonic()
        if left <= 0:
            incomplete = f"the {deadline:g} seconds were over before every database was looked into"
            break
        databases.append(count_in(path, config, min(left, DATABASE_DEADLINE)))
    return GameCount(config.name, root, min_games, tuple(databases), incomplete)


def find_databases(config: TrainingConfig, root: str, patterns: Sequence[str]) -> Iterator[str]:
    """Files that match, each once however many patterns and links lead to it."""
    seen: Set[Tuple[int, int]] = set()
    for pattern in patterns:
        for name, value in (("config", config.name), ("board", config.board), ("players", str(config.players))):
            pattern = pattern.replace("{" + name + "}", value)
        full = os.path.join(glob.escape(root), os.path.expanduser(pattern))
        for path in sorted(glob.iglob(full, recursive=True)):
            try:
                status = os.stat(path)
            except OSError:
                continue  # it went away, or is a link that leads nowhere
            identity = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode) and identity not in seen:
                seen.add(identity)
                yield path


def count_in(path: str, config: TrainingConfig, deadline: float = DATABASE_DEADLINE) -> Database:
    """Count the finished games of a config in one database, within ``deadline`` seconds."""
    end = time.monotonic() + deadline
    try:
        for _attempt in range(3):
            before = fingerprint(path)
            options, unseen = how_to_open(path)
            try:
                games, problem = _query(path, options, config, end)
            except sqlite3.DatabaseError as exc:
                if led_astray(path, options, before, exc):
                    continue
                raise
            # An immutable database is read without locks, so a writer that came by may have led us astray.
            if "immutable" not in options or before == fingerprint(path):
                break
        else:
            return Database(path, None, "it changes faster than it can be read")
    except sqlite3.Error as exc:
        return Database(path, None, _reason(exc, deadline, end))
    except OSError as exc:
        return Database(path, None, f"it cannot be read: {exc.strerror or exc}"[:MAX_PROBLEM])
    except RecoveryError as exc:
        return Database(path, None, str(exc)[:MAX_PROBLEM])
    if unseen and problem is None:
        problem = f"{unseen} bytes of its write-ahead log were not read, so this is the least that it holds"
    return Database(path, games, problem)


def _query(path: str, options: str, config: TrainingConfig, end: float) -> Tuple[int, Optional[str]]:
    connection = connect(path, options, end, BUSY)
    try:
        unusable = _unusable(connection)
        if unusable is not None:
            return 0, unusable
        boards = ALIASES.get(config.board, (config.board,))
        marks = ", ".join("?" * len(boards))
        rows = connection.execute(
            f"SELECT COUNT(*) FROM games WHERE winner IS NOT NULL AND board_type IN ({marks}) AND num_players = ?",
            (*boards, config.players),
        )
        games = int(rows.fetchone()[0])
        damage = _damage(connection)
        if damage is not None:
            raise sqlite3.DatabaseError(f"malformed: {damage}")
        return games, None
    finally:
        connection.close()


def _damage(connection: sqlite3.Connection) -> Optional[str]:
    """What is wrong with the table that was counted; None also where there was no time to see."""
    if sqlite3.sqlite_version_info < (3, 33):
        return None  # it would check every table, moves included, which takes long
    try:
        answer = str(connection.execute("PRAGMA quick_check(games)").fetchone()[0])
    except sqlite3.OperationalError as exc:
        if "interrupted" in str(exc):
            return None
        raise
    return None if answer == "ok" else " ".join(answer.split())


def _unusable(connection: sqlite3.Connection) -> Optional[str]:
    """Why the exporter could use nothing in it."""
    games = _columns(connection, "games")
    if not games:
        return "it has no table games, so the exporter cannot use it"
    if not games >= GAME_COLUMNS:
        return f"its table games has no {', '.join(sorted(GAME_COLUMNS - games))}, so the exporter cannot use it"
    moves = _columns(connection, "game_moves")
    if not moves:
        return "it has no table game_moves, so the exporter cannot use it"
    if not any(moves >= needed for needed in MOVE_COLUMNS):
        return "its table game_moves has neither move_json nor positions, so the exporter cannot use it"
    return None


def _columns(connection: sqlite3.Connection, table: str) -> Set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _reason(exc: sqlite3.Error, deadline: float, end: float) -> str:
    text = str(exc)
    if "interrupted" in text or time.monotonic() > end:
        return f"it gave no answer within {deadline:g} seconds"
    if "locked" in text or "busy" in text:
        return f"it is locked by another process for more than {BUSY:g} seconds"
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return f"it is damaged: {text}"[:MAX_PROBLEM]
    return f"it cannot be read: {text}"[:MAX_PROBLEM]

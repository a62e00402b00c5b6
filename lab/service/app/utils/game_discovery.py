# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the game databases of a config. Part of the stand-in, see `app`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from app.utils.paths import AI_SERVICE_ROOT, DATA_DIR

ALIASES = {"hexagonal": ("hexagonal", "hex"), "square8": ("square8", "sq8"), "square19": ("square19", "sq19")}

# Pattern under the data directory, and whether such a file may hold games of several configs.
PATTERNS = (
    ("games/selfplay.db", True),
    ("games/jsonl_aggregated.db", True),
    ("games/{config}.db", False),
    ("games/tournament_{config}.db", False),
    ("games/gauntlet_{config}.db", False),
    ("games/baseline_calibration_{config}.db", False),
    ("games/canonical_*.db", True),
    ("games/*_synced.db", True),
    ("games/synced/**/*.db", True),
    ("games/fetched/**/*.db", True),
    ("games/owc_imports/**/*.db", True),
    ("games/s3_downloads/**/*.db", True),
    ("games/cluster_sync/**/*.db", True),
    ("selfplay/canonical_{config}.db", False),
    ("selfplay/unified_*/games.db", True),
    ("selfplay/p2p/{config}*/*/games.db", False),
    ("selfplay/p2p_gpu/{config}*/*/games.db", False),
    ("selfplay/gumbel/{config}/*/games.db", False),
    ("selfplay/*/{config}/*/games.db", False),
    ("training/*/harvested_games.db", True),
)


def aliases(board_type: str) -> tuple[str, ...]:
    """The names under which a board stands in the databases."""
    return ALIASES.get(board_type, (board_type,))


def open_readonly(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open a database that must exist, for reading."""
    return sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True, timeout=10)


@dataclass
class DatabaseInfo:
    """A database that has games of the config."""

    path: Path
    board_type: str
    num_players: int
    game_count: int
    is_central: bool = False
    newest_game: float | None = None


class GameDiscovery:
    """Looks where the service puts game databases."""

    def __init__(self, root_path: str | os.PathLike[str] | None = None) -> None:
        self.root_path = Path(root_path) if root_path else AI_SERVICE_ROOT
        self._data = self.root_path / "data" if root_path else DATA_DIR

    def find_databases_for_config(self, board_type: str, num_players: int) -> list[DatabaseInfo]:
        """The databases with finished games of a config; a game that was copied about is counted in each."""
        found: dict[Path, DatabaseInfo] = {}
        for path, is_central in self._candidates(f"{board_type}_{num_players}p"):
            if path in found:
                continue
            count, newest = _count(path, board_type, num_players)
            if count:
                found[path] = DatabaseInfo(path, board_type, num_players, count, is_central, newest)
        return list(found.values())

    def count_games(self, board_type: str, num_players: int) -> int:
        return sum(info.game_count for info in self.find_databases_for_config(board_type, num_players))

    def _candidates(self, config: str) -> Iterator[tuple[Path, bool]]:
        for pattern, is_central in PATTERNS:
            for path in sorted(self._data.glob(pattern.format(config=config))):
                yield path, is_central


def _count(path: Path, board_type: str, num_players: int) -> tuple[int, float | None]:
    names = aliases(board_type)
    query = (
        "SELECT COUNT(*), MAX(COALESCE(completed_at, created_at)) FROM games WHERE winner IS NOT NULL "
        f"AND board_type IN ({','.join('?' * len(names))}) AND num_players = ?"
    )
    try:
        with closing(open_readonly(path)) as connection:
            columns = {row[1] for row in connection.execute("PRAGMA table_info(game_moves)")}
            if not columns & {"move_json"} and not columns >= {"move_type", "position_q", "position_r"}:
                return 0, None
            count, newest = connection.execute(query, (*names, num_players)).fetchone()
    except (OSError, sqlite3.Error):
        return 0, None
    try:
        ended = datetime.fromisoformat(newest)
        return count, (ended if ended.tzinfo else ended.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError):
        return count, None

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases of games for tests."""

from __future__ import annotations

import pathlib
import sqlite3

GAMES = "CREATE TABLE games (game_id TEXT PRIMARY KEY, board_type TEXT, num_players INTEGER, winner INTEGER)"
MOVES = "CREATE TABLE game_moves (game_id TEXT, move_json TEXT)"
OLD_MOVES = "CREATE TABLE game_moves (game_id TEXT, move_type TEXT, position_q INTEGER, position_r INTEGER)"


def make(path: pathlib.Path, rows=(("hex8", 2, 1, 60),), schema=(GAMES, MOVES), wal: bool = False) -> pathlib.Path:
    """A database with so many games of (board, players, winner, number)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    if wal:
        database.execute("PRAGMA journal_mode=WAL")
    for statement in schema:
        database.execute(statement)
    index = 0
    for board, players, winner, number in rows:
        for _game in range(number):
            database.execute("INSERT INTO games VALUES (?, ?, ?, ?)", (f"g{index}", board, players, winner))
            index += 1
    database.commit()
    database.close()
    return path

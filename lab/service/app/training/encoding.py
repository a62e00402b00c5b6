# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples from recorded games. Part of the stand-in, see `app`.

One sample per move. The planes are made from the moves alone: where pieces were put and where they stand, the last
move, the board and the side to move, for the present and three earlier positions. No rule of the game is applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.training.boards import Board
from app.training.data_quality import checksums_text
from app.utils.game_discovery import aliases, open_readonly

HISTORY = 3
PHASES = ("ring_placement", "movement", "capture", "line_processing", "territory_processing")
VICTORIES = {"last_player_standing": "lps", "ring_elimination": "elimination", "territory": "territory"}


@dataclass
class Game:
    """A finished game and its moves."""

    game_id: str
    winner: int
    quality: float
    victory: str
    finished: str
    moves: list[dict]


def read_games(
    path: str | Path, board: Board, players: int, min_moves: int, limit: int | None = None
) -> Iterator[Game]:
    """The finished games of a config in a database, oldest first."""
    names = aliases(board.name)
    query = (
        "SELECT game_id, winner, COALESCE(quality_score, 0.5), COALESCE(termination_reason, ''), "
        "COALESCE(completed_at, created_at) FROM games WHERE winner IS NOT NULL "
        f"AND board_type IN ({','.join('?' * len(names))}) AND num_players = ? ORDER BY created_at, game_id"
    )
    given = 0
    with closing(open_readonly(path)) as connection:
        for game_id, winner, quality, reason, finished in connection.execute(query, (*names, players)).fetchall():
            if limit is not None and given >= limit:
                return
            rows = connection.execute(
                "SELECT player, phase, move_json FROM game_moves WHERE game_id = ? ORDER BY move_number", (game_id,)
            ).fetchall()
            if len(rows) < min_moves:
                continue
            moves = [{**json.loads(text), "player": player, "phase": phase} for player, phase, text in rows]
            given += 1
            yield Game(game_id, winner, quality, VICTORIES.get(reason, reason or "unknown"), finished, moves)


def _frames(game: Game, board: Board, planes: int) -> np.ndarray:
    """The position before each move, as `planes` planes each."""
    size = board.size
    flat = np.zeros((planes, size * size), np.float32)
    shape = np.arange(size) - size // 2
    if board.hexagonal:
        flat[planes - 2] = (np.abs(shape[:, None] + shape[None, :]) <= size // 2).ravel()
    else:
        flat[planes - 2] = 1
    frames = np.empty((len(game.moves), planes, size * size), np.float32)
    for number, move in enumerate(game.moves):
        player = (int(move["player"]) - 1) % 4
        flat[planes - 1] = flat[planes - 2] * (player % 2)
        frames[number] = flat
        origin, target = board.cell(move.get("from")), board.cell(move.get("to"))
        if board.policy_index(move) == board.max_policy_index:
            continue
        flat[4:6] = 0
        if origin is not None:
            flat[player, origin] = 0
            flat[4, origin] = 1
        if target is not None:
            flat[player, target] = 1
            flat[5, target] = 1
            flat[6 + player % 2, target] = min(1.0, flat[6 + player % 2, target] + 0.2)
    return frames.reshape(len(game.moves), planes, size, size)


def encode(games: list[Game], board: Board, players: int, channels: int) -> dict[str, np.ndarray]:
    """All arrays that both kinds of export have."""
    planes = channels // (HISTORY + 1)
    moves = [(game, number, move) for game in games for number, move in enumerate(game.moves)]
    count = len(moves)
    features = np.zeros((count, HISTORY + 1, planes, board.size, board.size), np.float32)
    start = 0
    for game in games:
        frames = _frames(game, board, planes)
        for age in range(HISTORY + 1):
            length = len(frames) - age
            if length > 0:
                features[start + age : start + len(frames), age] = frames[:length]
        start += len(frames)

    scalars = np.zeros((count, 20), np.float32)
    values_mp = np.zeros((count, 4), np.float32)
    values = np.empty(count, np.float32)
    for row, (game, number, move) in enumerate(moves):
        if move["phase"] in PHASES:
            scalars[row, PHASES.index(move["phase"])] = 1
        scalars[row, 5:7] = max(0.0, 1 - number / 100)
        scalars[row, 9] = 1
        scalars[row, 10] = min(1.0, number / 200)
        values_mp[row, :players] = -1
        values_mp[row, game.winner - 1] = 1
        values[row] = 1 if game.winner == move["player"] else -1

    def objects(items: list) -> np.ndarray:
        array = np.empty(count, object)
        array[:] = items
        return array

    return {
        "features": features.reshape(count, channels, board.size, board.size),
        "globals": scalars,
        "values": values,
        "values_mp": values_mp,
        "policy_indices": objects([board.policy_index(move) for _, _, move in moves])[:, None],
        "policy_values": objects([1.0] * count)[:, None],
        "move_numbers": np.asarray([number for _, number, _ in moves], np.int32),
        "total_game_moves": np.asarray([len(game.moves) for game, _, _ in moves], np.int32),
        "phases": objects([move["phase"] for _, _, move in moves]),
        "num_players": np.full(count, players, np.int32),
        "player_numbers": np.asarray([move["player"] for _, _, move in moves], np.int32),
        "game_ids": objects([game.game_id for game, _, _ in moves]),
        "move_types": objects([move["type"] for _, _, move in moves]),
        "victory_types": objects([game.victory for game, _, _ in moves]),
        "quality_score": np.asarray([game.quality for game, _, _ in moves], np.float32),
        "board_type": np.asarray(board.name),
        "board_size": np.asarray(board.size),
        "history_length": np.asarray(HISTORY),
        "feature_version": np.asarray(2),
        "policy_encoding": np.asarray("board_aware"),
        "encoder_version": np.asarray("v3"),
        "in_channels": np.asarray(channels),
        "export_version": np.asarray("2.1"),
    }


# Names and order of the members, as each kind of export writes them.
PARALLEL = [
    "features",
    "globals",
    "values",
    "values_mp",
    "policy_indices",
    "policy_values",
    "move_numbers",
    "total_game_moves",
    "phases",
    "num_players",
    "player_numbers",
    "game_ids",
    "move_types",
    "board_type",
    "board_size",
    "history_length",
    "feature_version",
    "policy_encoding",
    "encoder_version",
    "in_channels",
    "export_version",
]
SINGLE = [
    "features",
    "globals",
    "values",
    "policy_indices",
    "policy_values",
    "board_type",
    "board_size",
    "history_length",
    "feature_version",
    "policy_encoding",
    "move_numbers",
    "total_game_moves",
    "phases",
    "victory_types",
    "engine_modes",
    "move_types",
    "opponent_elo",
    "generator_elo",
    "quality_score",
    "opponent_types",
    "encoder_type",
    "encoder_version",
    "in_channels",
    "policy_size",
    "max_policy_index",
    "policies_normalized",
    "export_version",
    "values_mp",
    "num_players",
    "spatial_size",
    "metadata",
]
PARALLEL_CHANNELS, SINGLE_CHANNELS = 40, 64


def parallel_arrays(games: list[Game], board: Board, players: int) -> dict[str, np.ndarray]:
    """What the parallel export writes."""
    arrays = encode(games, board, players, PARALLEL_CHANNELS)
    return {name: arrays[name] for name in PARALLEL}


def single_arrays(games: list[Game], board: Board, players: int, exported_at: str) -> dict[str, np.ndarray]:
    """What the single-threaded export writes."""
    arrays = encode(games, board, players, SINGLE_CHANNELS)
    count = len(arrays["values"])
    unknown = np.empty(count, object)
    unknown[:] = "unknown"
    metadata = {
        "export_time": exported_at,
        "newest_game_time": max(game.finished for game in games),
        "game_count": len(games),
        "sample_count": count,
    }
    arrays |= {
        "engine_modes": unknown,
        "opponent_types": unknown,
        "opponent_elo": np.full(count, 1500, np.float32),
        "generator_elo": np.full(count, 1500, np.float32),
        "encoder_type": np.asarray("hex_v3" if board.hexagonal else "square"),
        "policy_size": np.asarray(board.policy_size),
        "max_policy_index": np.asarray(board.max_policy_index),
        "policies_normalized": np.asarray(True),
        "spatial_size": np.asarray(board.size),
        "metadata": np.asarray(metadata, dtype=object),
    }
    ordered = {name: arrays[name] for name in SINGLE}
    return {**ordered, "data_checksums": checksums_text(ordered)}

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill a service directory: the stand-in's tree, a virtual environment, games, training data and a canonical model.

    install_service(path)                        the tree of lab/service and the directories it works in
    make_venv(path)                              venv/bin/python, which sees the numpy of this interpreter
    make_games(db, "hex8_2p", games=60, seed=1)  a game database
    make_npz(path, "hex8_2p")                    data/training/<config>.npz, written by the service's own exporter
    make_canonical(path, "hex8_2p")              models/canonical_<config>.pth with its sidecar
    seed_service(path, "hex8_2p")                all of it

The same seed gives the same games and the same weights. Two seconds at most.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import time
import uuid
from contextlib import closing
from datetime import datetime, timedelta, timezone

import numpy as np

SERVICE = pathlib.Path(__file__).resolve().parent / "service"
DIRECTORIES = ("data/coordination", "data/games", "data/locks", "data/training", "checkpoints", "logs", "models")

# What the real service's recorder makes; version 18.
GAMES_SCHEMA = """\
CREATE TABLE games (
    game_id TEXT PRIMARY KEY,
    board_type TEXT NOT NULL,
    num_players INTEGER NOT NULL,
    rng_seed INTEGER,
    created_at TEXT NOT NULL,
    completed_at TEXT,
    game_status TEXT NOT NULL,
    winner INTEGER,
    termination_reason TEXT,
    total_moves INTEGER NOT NULL,
    total_turns INTEGER NOT NULL,
    duration_ms INTEGER,
    source TEXT,
    schema_version INTEGER NOT NULL,
    time_control_type TEXT DEFAULT 'none',
    initial_time_ms INTEGER,
    time_increment_ms INTEGER,
    metadata_json TEXT,
    quality_score REAL,
    quality_category TEXT,
    engine_mode TEXT,
    parity_status TEXT DEFAULT 'pending',
    parity_checked_at TEXT,
    parity_divergence_move INTEGER,
    opponent_type TEXT,
    opponent_model_id TEXT
);
CREATE TABLE game_moves (
    game_id TEXT NOT NULL,
    move_number INTEGER NOT NULL,
    turn_number INTEGER NOT NULL,
    player INTEGER NOT NULL,
    phase TEXT NOT NULL,
    move_type TEXT NOT NULL,
    move_json TEXT NOT NULL,
    timestamp TEXT,
    think_time_ms INTEGER,
    time_remaining_ms INTEGER,
    engine_eval REAL,
    engine_eval_type TEXT,
    engine_depth INTEGER,
    engine_nodes INTEGER,
    engine_pv TEXT,
    engine_time_ms INTEGER,
    move_probs TEXT,
    search_stats_json TEXT,
    heuristic_features BLOB,
    PRIMARY KEY (game_id, move_number),
    FOREIGN KEY (game_id) REFERENCES games(game_id) ON DELETE CASCADE
);
"""
SCHEMA_VERSION = 18

# The steps of a turn, as recorded: phase and type of move.
TURN = (
    ("ring_placement", "place_ring"),
    ("movement", "move_stack"),
    ("line_processing", "no_line_action"),
    ("territory_processing", "no_territory_action"),
)
DETAILS = """
    captureTarget capturedStacks captureChain overtakenRings placedOnStack placementCount stackMoved minimumDistance
    actualDistance markerLeft lineIndex formedLines collapsedMarkers claimedTerritory disconnectedRegions recoveryOption
    recoveryMode collapsePositions extractionStacks eliminatedRings eliminationContext
"""
NO_DETAILS = dict.fromkeys(re.findall(r"\w+", DETAILS))
RADII = {"hex8": 4, "hexagonal": 12}
EDGES = {"square8": 8, "square19": 19}
HEX_DIRECTIONS = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
SQUARE_DIRECTIONS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


def split_config(config: str) -> tuple[str, int]:
    """Board and players of a config, for instance ("hex8", 2)."""
    board, _, players = config.rpartition("_")
    if board not in {**RADII, **EDGES} or players not in ("2p", "3p", "4p"):
        raise ValueError(f"{config!r} is no config of the lab; say for instance hex8_2p")
    return board, int(players[0])


def install_service(service: str | os.PathLike[str]) -> pathlib.Path:
    """Copy the stand-in's tree to a service directory, over what is there, and make the directories it works in."""
    service = pathlib.Path(service)
    shutil.copytree(SERVICE, service, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for name in DIRECTORIES:
        (service / name).mkdir(parents=True, exist_ok=True)
    return service


def make_venv(service: str | os.PathLike[str], python: str = sys.executable) -> pathlib.Path:
    """Make venv/bin/python in a service directory, without pip; it sees this interpreter's packages by a .pth file."""
    venv = pathlib.Path(service) / "venv"
    base = pathlib.Path(getattr(sys, "_base_executable", python) if python == sys.executable else python).resolve()
    packages = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (venv / "bin").mkdir(exist_ok=True)
    (venv / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {sysconfig.get_python_version()}\n"
    )
    (packages / "lab.pth").write_text(f"{pathlib.Path(np.__file__).resolve().parents[1]}\n")
    for name in ("python", "python3"):
        link = venv / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(base)
    return venv / "bin" / "python"


def make_games(
    path: str | os.PathLike[str], config: str, games: int = 60, seed: int = 1, now: float | None = None, moves: int = 10
) -> int:
    """Write a database of finished games, about `moves` moves each, the last of which ended at `now`.

    Gives the number of moves, which is the number of samples that an export makes of them. Games are added to a
    database that exists. Seed and `now` make the content.
    """
    board, players = split_config(config)
    draw = random.Random(f"{config}/{seed}")
    end = datetime.fromtimestamp(time.time() if now is None else now, timezone.utc).replace(tzinfo=None)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    exists = path.exists()
    total = 0
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        if not exists:
            connection.executescript(GAMES_SCHEMA)
        for number in range(games):
            start = end - timedelta(seconds=60 * (games - number))
            total += _add_game(connection, draw, board, players, start, draw.randint(moves - 2, moves + 2))
    return total


def _add_game(
    connection: sqlite3.Connection, draw: random.Random, board: str, players: int, start: datetime, length: int
) -> int:
    length = max(length, 5)
    game_id = str(uuid.UUID(int=draw.getrandbits(128), version=4))
    seconds = draw.uniform(20, 50)
    rows, origin = [], (0, 0)
    for number in range(length):
        turn = number // len(TURN)
        phase, kind = TURN[number % len(TURN)]
        move = {"id": "simulated", "type": kind, "player": turn % players + 1, "from": None, "to": _point(None)}
        details = dict(NO_DETAILS)
        if kind == "place_ring":
            origin = _cell(draw, board)
            move["to"] = _point(origin, board)
            details |= {"placedOnStack": False, "placementCount": draw.randint(1, 3)}
        elif kind == "move_stack":
            move["from"] = _point(origin, board)
            move["to"] = _point(_step(draw, board, origin), board)
        else:
            move["id"] = f"{kind.replace('_', '-')}-{number + 1}"
        stamp = (start + timedelta(seconds=seconds * number / length)).isoformat()
        move |= {**details, "timestamp": stamp, "thinkTime": 0, "moveNumber": number + 1, "phase": phase}
        text = json.dumps(move, separators=(",", ":"))
        rows.append((game_id, number, turn, turn % players + 1, phase, kind, text, stamp, 0))
    quality = round(draw.uniform(0.7, 0.9), 4)
    metadata = {
        "board_type": board,
        "difficulty": None,
        "engine": "heuristic",
        "engine_mode": "heuristic-only",
        "model_elo": None,
        "num_players": players,
        "source": "selfplay",
    }
    game = {
        "game_id": game_id,
        "board_type": board,
        "num_players": players,
        "created_at": start.isoformat(),
        "completed_at": (start + timedelta(seconds=seconds)).isoformat(),
        "game_status": "completed",
        "winner": draw.randint(1, players),
        "termination_reason": draw.choice(["last_player_standing", "territory"]),
        "total_moves": length,
        "total_turns": -(-length // len(TURN)),
        "duration_ms": int(seconds * 1000),
        "source": "selfplay",
        "schema_version": SCHEMA_VERSION,
        "metadata_json": json.dumps(metadata),
        "quality_score": quality,
        "quality_category": "excellent" if quality >= 0.85 else "good",
        "engine_mode": "heuristic-only",
    }
    connection.execute(
        f"INSERT INTO games ({', '.join(game)}) VALUES ({', '.join('?' * len(game))})", tuple(game.values())
    )
    connection.executemany(
        "INSERT INTO game_moves (game_id, move_number, turn_number, player, phase, move_type, move_json, timestamp, "
        "think_time_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    return length


def _on_board(board: str, x: int, y: int) -> bool:
    if board in RADII:
        return max(abs(x), abs(y), abs(x + y)) <= RADII[board]
    return 0 <= x < EDGES[board] and 0 <= y < EDGES[board]


def _cell(draw: random.Random, board: str) -> tuple[int, int]:
    low, high = (-RADII[board], RADII[board]) if board in RADII else (0, EDGES[board] - 1)
    while True:
        x, y = draw.randint(low, high), draw.randint(low, high)
        if _on_board(board, x, y):
            return x, y


def _step(draw: random.Random, board: str, origin: tuple[int, int]) -> tuple[int, int]:
    """A cell in a straight line from the origin."""
    directions = HEX_DIRECTIONS if board in RADII else SQUARE_DIRECTIONS
    reachable = [
        (origin[0] + dx * far, origin[1] + dy * far)
        for dx, dy in directions
        for far in range(1, 5)
        if _on_board(board, origin[0] + dx * far, origin[1] + dy * far)
    ]
    return draw.choice(reachable)


def _point(cell: tuple[int, int] | None, board: str = "") -> dict:
    x, y = cell or (0, 0)
    return {"x": x, "y": y, "z": -x - y if board in RADII else None}


def _run(service: pathlib.Path, *argv: str) -> None:
    """Run the service's own code in its directory."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["RINGRIFT_COORDINATION_DIR"] = str(service / "data" / "coordination" / "seed")
    result = subprocess.run(
        [sys.executable, *argv], cwd=service, env=environment, capture_output=True, text=True, timeout=60
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(argv[:2])} in {service} exited with {result.returncode}: {result.stderr[-800:]}")
    shutil.rmtree(service / "data" / "coordination" / "seed", ignore_errors=True)


def make_npz(service: str | os.PathLike[str], config: str, mode: int = 0o644) -> pathlib.Path:
    """Export data/training/<config>.npz from the databases in a service directory."""
    board, players = split_config(config)
    service = pathlib.Path(service).resolve()
    output = service / "data" / "training" / f"{config}.npz"
    output.unlink(missing_ok=True)
    _run(
        service,
        "scripts/export_replay_dataset.py",
        "--use-discovery",
        "--skip-remote-check",
        "--allow-noncanonical",
        "--single-threaded",
        *("--board-type", board, "--num-players", str(players), "--output", str(output)),
    )
    if not output.exists():
        raise RuntimeError(f"{service} has no games of {config} to export; make them first")
    output.chmod(mode)
    output.with_name(output.name + ".lock").unlink(missing_ok=True)
    return output


MAKE_CANONICAL = """\
import sys
from app.training import boards, checkpointing, model
name, players, channels, seed, path = sys.argv[1:]
board = boards.BOARDS[name]
network = model.Network(board, int(channels), board.max_policy_index + 1, int(players), int(seed))
info = {"epoch": 1, "samples_seen": 480, "val_loss": 5.0, "train_loss": 5.0}
checkpointing.save_model(network, path, info)
"""


def make_canonical(service: str | os.PathLike[str], config: str, seed: int = 1, channels: int = 64) -> pathlib.Path:
    """Write models/canonical_<config>.pth and its sidecar, with weights that the seed gives."""
    board, players = split_config(config)
    service = pathlib.Path(service).resolve()
    path = service / "models" / f"canonical_{config}.pth"
    _run(service, "-c", MAKE_CANONICAL, board, str(players), str(channels), str(seed), str(path))
    return path


def seed_service(
    service: str | os.PathLike[str], config: str = "hex8_2p", games: int = 60, seed: int = 1, now: float | None = None
) -> pathlib.Path:
    """Install the stand-in and give it all that a trainer of the config needs."""
    service = install_service(service)
    make_venv(service)
    database = service / "data" / "games" / f"{config}.db"
    make_games(database, config, games, seed, now)
    make_npz(service, config)
    make_canonical(service, config, seed)
    # A writer that is the last one takes the write-ahead log away.
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return service

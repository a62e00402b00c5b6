#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export training samples from game databases to an NPZ. Part of the stand-in, see `app`.

Measured on the real one, and kept: the parallel mode (the default) writes its output in place and exits with the number
of samples, of which a shell sees the lowest eight bits; the single-threaded mode moves the old output away first,
writes beside and renames (mode 0600), and exits 0 also when it exported nothing. So the exit code says nothing: look at
the file.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import app  # noqa: E402, F401, I001  (first: it sets the number of threads)
import numpy as np  # noqa: E402
from app.coordination.event_router import get_router  # noqa: E402
from app.training.boards import BOARDS, Board  # noqa: E402
from app.training.canonical_sources import enforce_canonical_sources  # noqa: E402
from app.training.encoding import Game, parallel_arrays, read_games, single_arrays  # noqa: E402
from app.utils.game_discovery import GameDiscovery, aliases, open_readonly  # noqa: E402
from app.utils.paths import DATA_DIR  # noqa: E402

logger = logging.getLogger("scripts.export_replay_dataset")

MIN_MOVES = 5
SWITCHES = [
    "use-discovery",
    "skip-remote-check",
    "append",
    "require-completed",
    "no-rank-aware-values",
    "exclude-recovery",
    "board-aware-encoding",
    "legacy-max-n-encoding",
    "no-require-moves",
    "use-cache",
    "force-export",
    "single-threaded",
    "allow-noncanonical",
    "allow-pending-gate",
    "no-strict",
    "include-heuristics",
    "full-heuristics",
    "quality-weighted",
    "include-gauntlet",
    "include-tournaments",
    "include-human",
    "include-remote",
    "include-s3",
    "include-owc",
]
OPTIONS = {
    "history-length": int,
    "feature-version": int,
    "sample-every": int,
    "max-games": int,
    "max-samples": int,
    "min-moves": int,
    "max-moves": int,
    "max-move-index": int,
    "min-elo": float,
    "min-quality": float,
    "workers": int,
    "parity-fixtures-dir": str,
    "canonical-model": str,
    "registry": str,
    "sources": str,
    "exclude-sources": str,
    "fetch-target-dir": str,
}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="export_replay_dataset.py", description="Export training samples to NPZ")
    parser.add_argument("--db", action="append", dest="databases", default=[])
    parser.add_argument("--board-type", required=True, choices=list(BOARDS))
    parser.add_argument("--num-players", required=True, type=int, choices=[2, 3, 4])
    parser.add_argument("--output", required=True)
    parser.add_argument("--encoder-version", default="default", choices=["default", "v2", "v3"])
    parser.add_argument("--quality-tier", choices=["bootstrap", "standard", "quality", "ultimate"])
    for name in SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    for name, kind in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind)
    return parser.parse_args(argv)


def discover(board: Board, players: int, given: list[str]) -> list[str]:
    """The given databases and those that discovery finds."""
    print(f"[DISCOVERY] Finding databases for {board.name} {players}p...")
    found = list(given)
    for info in GameDiscovery().find_databases_for_config(board.name, players):
        if str(info.path) not in found:
            found.append(str(info.path))
            print(f"  Found: {info.path} ({info.game_count:,} games)")
    if found:
        print(f"[DISCOVERY] Total: {len(found)} databases")
    else:
        print("[DISCOVERY] No databases found for this configuration")
    return found


def count_games(path: str, board: Board, players: int) -> tuple[int, int]:
    """Finished games of the config in a database, and how many of them have too few moves."""
    names = aliases(board.name)
    query = (
        "SELECT COUNT(*), COALESCE(SUM(n < ?), 0) FROM (SELECT (SELECT COUNT(*) FROM game_moves m WHERE m.game_id = "
        "g.game_id) AS n FROM games g WHERE winner IS NOT NULL AND num_players = ? "
        f"AND board_type IN ({','.join('?' * len(names))}))"
    )
    with closing(open_readonly(path)) as connection:
        return connection.execute(query, (MIN_MOVES, players, *names)).fetchone()


def select(paths: list[str], board: Board, players: int, strict: bool) -> list[str] | None:
    """The databases that can be exported; None when the export must not go on."""
    print("\n[PRE-EXPORT VALIDATION] Checking databases for move data...")
    chosen, short = [], []
    for path in paths:
        name = os.path.basename(path)
        try:
            games, too_short = count_games(path, board, players)
        except (OSError, sqlite3.Error) as error:
            print(f"  SKIP: {name}\n        {error}")
            continue
        if not games:
            print(f"  SKIP: {name}\n        No games with move data for {board.name} {players}p")
            continue
        print(f"  OK:   {name}")
        chosen.append(path)
        if too_short:
            short.append(f"  {name}: {too_short}/{games} games have insufficient move data (<{MIN_MOVES} moves)")
    if not chosen:
        print("\n[ERROR] No valid databases found for export!")
        print("All databases either have no games or no move data in game_moves table.")
        return None
    print(f"[PRE-EXPORT VALIDATION] {len(chosen)} database(s) passed validation\n")
    if not strict:
        print("[WARNING] Running with --no-strict: Databases with incomplete move data may be included.")
    elif short:
        print("\n[STRICT MODE] FAILED - The following databases have incomplete move data:")
        print("\n".join(short))
        print(f"\nExport BLOCKED. Games without at least {MIN_MOVES} moves are useless for training.")
        return None
    else:
        print(f"[STRICT MODE] All {len(chosen)} database(s) passed strict validation\n")
    return chosen


def collect(paths: list[str], board: Board, args: argparse.Namespace) -> list[Game]:
    """The games of all databases, each once."""
    games: dict[str, Game] = {}
    least = max(MIN_MOVES, args.min_moves or 0)
    for path in paths:
        for game in read_games(path, board, args.num_players, least, args.max_games):
            games.setdefault(game.game_id, game)
    return list(games.values())[: args.max_games]


def pause() -> None:
    """Take longer in the middle of writing, when the lab asks for it."""
    time.sleep(float(os.environ.get("LAB_EXPORT_SECONDS") or 0))


class Cache:
    """What was exported from which state of the databases."""

    def __init__(self, paths: list[str], args: argparse.Namespace) -> None:
        self.file = DATA_DIR / "cache" / "export_cache.json"
        self.key = f"{os.path.abspath(args.output)}|{args.board_type}|{args.num_players}"
        states = [(path, os.stat(path).st_mtime_ns, os.path.getsize(path)) for path in paths]
        self.state = hashlib.sha256(json.dumps(states).encode()).hexdigest()

    def _entries(self) -> dict:
        try:
            return json.loads(self.file.read_text())
        except (OSError, ValueError):
            return {}

    def hit(self) -> bool:
        return self._entries().get(self.key) == self.state

    def record(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps({**self._entries(), self.key: self.state}))


def export_parallel(paths: list[str], board: Board, args: argparse.Namespace, cache: Cache | None) -> int | None:
    """Write in place; gives the number of samples, which becomes the exit code. None when there is nothing to write."""
    print(f"[PARALLEL] Using {args.workers or max(1, (os.cpu_count() or 4) - 1)} worker processes for encoding")
    if cache and not args.force_export and cache.hit() and os.path.exists(args.output):
        logger.info("[CACHE HIT] Skipping export - source DBs unchanged")
        return 0
    games = collect(paths, board, args)
    if not games:
        logger.warning("No games found!")
        return None
    arrays = parallel_arrays(games, board, args.num_players)
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    with open(args.output if args.output.endswith(".npz") else f"{args.output}.npz", "wb") as file:
        pause()
        np.savez_compressed(file, **arrays)
    samples = len(arrays["values"])
    logger.info(f"Exported {samples} samples from {len(games)} games to {args.output}")
    if cache:
        cache.record()
    return samples


def export_single(paths: list[str], board: Board, args: argparse.Namespace, cache: Cache | None) -> None:
    """Move the old output away, write beside, rename. Says on stdout what it did, and only there."""
    print("[SINGLE-THREADED] Using sequential encoding (use --workers N for parallel mode)")
    output = args.output
    if cache and not args.force_export and cache.hit() and os.path.exists(output):
        print(f"[CACHE HIT] Skipping export - source DBs unchanged since last export\n  Output: {output}")
        return
    games = collect(paths, board, args)
    if not games:
        print(f"No samples generated from {len(paths)} database(s)")
        return
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    if os.path.exists(output) and not args.append:
        archived = f"{output}.archived_{time.strftime('%Y%m%d_%H%M%S')}"
        os.rename(output, archived)
        print(f"[export] archived existing output -> {archived}", file=sys.stderr)
    with open(f"{output}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"[EXPORT SKIPPED] Another export is writing to {output}")
            return
        arrays = single_arrays(games, board, args.num_players, datetime.now(timezone.utc).isoformat())
        descriptor, staged = tempfile.mkstemp(suffix=".npz", prefix=".export_", dir=os.path.dirname(output) or ".")
        with os.fdopen(descriptor, "wb") as file:
            pause()
            np.savez_compressed(file, **arrays)
        samples = len(arrays["values"])
        print(f"[NPZ VALIDATION] Passed: {samples} samples, {len(arrays)} arrays")
        os.replace(staged, output)
    print(f"Exported {samples} samples from {len(games)} games to {output}")
    if cache:
        cache.record()
        print(f"[CACHE] Recorded export: {samples} samples")
    get_router().publish_sync(
        "NPZ_EXPORT_COMPLETE",
        {
            "board_type": board.name,
            "num_players": args.num_players,
            "samples_exported": samples,
            "games_exported": len(games),
            "output_path": output,
            "success": True,
            "feature_version": 2,
            "encoder_version": args.encoder_version,
        },
        "export_replay_dataset",
    )
    print(f"[Event] Emitted NPZ_EXPORT_COMPLETE: {board.name}_{args.num_players}p, {samples} samples")


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    args = parse_args(argv)
    board = BOARDS[args.board_type]
    if os.environ.get("RINGRIFT_AUTONOMOUS_MODE", "").lower() in ("1", "true", "yes"):
        print("[AUTONOMOUS] Enabled --allow-noncanonical via RINGRIFT_AUTONOMOUS_MODE")
        args.allow_noncanonical = True
    if os.environ.get("RINGRIFT_ALLOW_PENDING_GATE", "").lower() in ("1", "true", "yes"):
        args.allow_pending_gate = True

    paths = args.databases
    if args.use_discovery:
        paths = discover(board, args.num_players, paths)
        if not paths:
            return 1
        if args.skip_remote_check:
            print("[DISCOVERY] Skipping remote data source check (--skip-remote-check)")
    if not paths:
        raise ValueError("Either --db or --use-discovery must be specified")
    chosen = select(paths, board, args.num_players, not args.no_strict)
    if chosen is None:
        return 1
    if not args.allow_noncanonical:
        registry = Path(args.registry) if args.registry else None
        enforce_canonical_sources(map(Path, chosen), registry, args.allow_pending_gate)

    cache = Cache(chosen, args) if args.use_cache else None
    if not args.single_threaded and args.workers != 1:
        samples = export_parallel(chosen, board, args, cache)
        return 1 if samples is None else samples
    export_single(chosen, board, args, cache)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Train an NNUE: what the orchestrator starts for `/training/start`. Part of the stand-in, see `app`.

Measured on the real one, and kept: it does not know several flags that the orchestrator passes
(`--policy-label-smoothing`, `--sampling-weights`, `--augment-hex-symmetry`, `--auto-promote`, `--auto-promote-games`),
hence dies with exit code 2.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import app  # noqa: E402, F401, I001  (first: it sets the number of threads)
import numpy as np  # noqa: E402
from app.training.boards import BOARDS  # noqa: E402
from app.training.checkpointing import write_atomic  # noqa: E402
from app.training.encoding import encode, read_games  # noqa: E402
from app.utils.paths import MODELS_DIR  # noqa: E402

logger = logging.getLogger("train_nnue")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_nnue.py", description="Train an NNUE evaluation", allow_abbrev=False)
    parser.add_argument("--db", action="append", default=[])
    parser.add_argument("--board-type", choices=list(BOARDS), default="square8")
    parser.add_argument("--num-players", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--early-stopping-patience", type=int, default=15)
    parser.add_argument("--hidden-dim", type=int, default=32)
    parser.add_argument("--max-samples", type=int)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--save-path")
    parser.add_argument("--model-id")
    parser.add_argument("--run-dir")
    parser.add_argument("--allow-noncanonical", action="store_true")
    parser.add_argument("--allow-pending-gate", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO)
    args = parse_args(argv)
    board = BOARDS[args.board_type]
    games = [game for path in args.db for game in read_games(path, board, args.num_players, 5)]
    if not games:
        logger.error("No training samples in %d database(s)", len(args.db))
        return 1
    arrays = encode(games, board, args.num_players, 40)
    inputs = np.hstack([arrays["features"].mean(axis=(2, 3)), arrays["globals"]])
    weights = np.random.default_rng(args.seed).normal(0, 0.1, inputs.shape[1]).astype(np.float32)
    pause = float(os.environ.get("LAB_EPOCH_SECONDS") or 0.6)
    loss = 0.0
    for epoch in range(args.epochs):
        error = np.tanh(inputs @ weights) - arrays["values"]
        weights -= np.float32(args.learning_rate) * (inputs.T @ error / len(error))
        loss = float(np.mean(error**2))
        logger.info("Epoch [%d/%d], Train Loss: %.4f", epoch + 1, args.epochs, loss)
        time.sleep(pause)
    config = f"{board.name}_{args.num_players}p"
    path = args.save_path or str(MODELS_DIR / "nnue" / f"{config}_auto.pt")
    write_atomic({"model_state_dict": {"weight": weights}, "epoch": args.epochs, "val_loss": loss}, path)
    logger.info("Saved %s", path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

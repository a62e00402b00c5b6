# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the trainer looks at before it trains: freshness, structure, content, checksums. Only freshness can stop it.

Part of the stand-in, see `app`.
"""

from __future__ import annotations

import logging
import os
import time
import zipfile

import numpy as np

from app.training.data_quality import checksum_problems
from app.utils.game_discovery import GameDiscovery

logger = logging.getLogger(__name__)

MIN_GAMES = 50
RULE = "=" * 70


def check_freshness(config: str, max_age_hours: float, allow_stale: bool, skip: bool) -> None:
    """Refuse to train when this node has too few games of the config, or none that is young enough."""
    if skip:
        logger.warning(f"\n{RULE}\nFRESHNESS CHECK SKIPPED (--skip-freshness-check)\n{RULE}")
        return
    logger.info(f"[DataFreshness] Checking training data freshness for {config} (max_age={max_age_hours}h)...")
    board, _, players = config.rpartition("_")
    databases = GameDiscovery().find_databases_for_config(board, int(players[:-1]))
    games = sum(database.game_count for database in databases)
    newest = max((database.newest_game or database.path.stat().st_mtime for database in databases), default=None)
    age = float("inf") if newest is None else (time.time() - newest) / 3600
    if games >= MIN_GAMES and age <= max_age_hours:
        logger.info(f"[DataFreshness] ✓ Training data is fresh: {games} games, age={age:.1f}h")
        return
    stale = (
        f"Training data is STALE for {config}:\n  - Data age: {age:.1f} hours\n  - Threshold: {max_age_hours} hours\n"
        f"  - Games available: {games}"
    )
    sync = f"python scripts/run_training_loop.py --sync-only --board-type {board} --num-players {players[:-1]}"
    if not allow_stale:
        raise ValueError(
            f"\n{RULE}\nTRAINING BLOCKED: {stale}\n{RULE}\n\n"
            "Training blocked to prevent learning from stale data.\n\nOPTIONS TO PROCEED:\n\n"
            f"  1. Get fresh data (RECOMMENDED):\n     {sync}\n\n"
            "  2. Allow stale data (NOT RECOMMENDED - may degrade model quality):\n"
            "     Add --allow-stale-data flag to your training command\n\n"
            "  3. Skip freshness check (DANGEROUS - only for debugging):\n"
            "     Add --skip-freshness-check flag to your training command\n\n"
            "  4. Adjust freshness threshold:\n     Add --max-data-age-hours <hours> to allow older data\n"
            f"{RULE}\n"
        )
    logger.warning(f"[DataFreshness] {stale}")
    logger.warning(
        "[DataFreshness] Proceeding with stale data (--allow-stale-data specified). "
        "This may result in suboptimal training."
    )


def read_npz(path: str) -> dict[str, np.ndarray]:
    """All arrays of an NPZ; objects are unpickled, as the real trainer does."""
    with np.load(path, allow_pickle=True) as data:
        return {name: data[name] for name in data.files}


def look_at_data(path: str) -> dict[str, np.ndarray] | None:
    """Log what is wrong with the data, and go on. Gives the arrays when they could be read."""
    if not os.path.exists(path):
        return None
    logger.info("Validating NPZ structure for 1 file(s)...")
    try:
        arrays = read_npz(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        return _report_unreadable(path, str(error))
    samples = len(arrays["features"]) if "features" in arrays and arrays["features"].ndim else 0
    errors = [f"Missing required array: {name}" for name in ("features", "values") if name not in arrays]
    errors += [
        f"Array '{name}' has {len(array)} samples, expected {samples}"
        for name, array in arrays.items()
        if name in ("globals", "values", "policy_indices", "policy_values") and array.ndim and len(array) != samples
    ]
    if errors:
        _report_corrupt(path, errors)
    else:
        logger.info(f"  ✓ {path}: {samples} samples, {len(arrays)} arrays")

    logger.info("Validating data content for 1 file(s)...")
    bad = _bad_samples(arrays.get("features"))
    if bad:
        logger.warning(f"  ✗ {path}: {len(bad)} issues in {len(bad)}/{samples} samples")
        for number in bad[:5]:
            logger.warning(f"    - [nan_features] Sample {number}: features contain NaN or Inf")
        if len(bad) > 5:
            logger.warning(f"    ... and {len(bad) - 5} more issues")
        _proceed_despite("validation issues. Set fail_on_invalid_data=True to enforce data quality.")
    else:
        logger.info(f"  ✓ {path}: {samples} samples OK")

    logger.info("Verifying data checksums...")
    problems = checksum_problems(arrays)
    if problems:
        logger.warning(f"  ✗ {path}: checksum verification failed")
        for problem in problems[:3]:
            logger.warning(f"    - {problem}")
        _proceed_despite("checksum issues. Data may be corrupted - consider re-exporting.")
    else:
        logger.info(f"  ✓ {path}: checksums verified ({len(arrays) - ('data_checksums' in arrays)} arrays)")
    return arrays


def _report_unreadable(path: str, error: str) -> None:
    _report_corrupt(path, [f"Failed to load NPZ: {error}"])
    logger.info("Validating data content for 1 file(s)...")
    logger.warning(f"  ✗ {path}: 1 issues in 0/0 samples")
    logger.warning(f"    - [corrupt_file] Failed to load file: {error}")
    _proceed_despite("validation issues. Set fail_on_invalid_data=True to enforce data quality.")
    logger.info("Verifying data checksums...")
    logger.warning(f"  ✗ {path}: checksum verification failed")
    logger.warning(f"    - Failed to load NPZ: {error}")
    _proceed_despite("checksum issues. Data may be corrupted - consider re-exporting.")


def _report_corrupt(path: str, errors: list[str]) -> None:
    logger.error(f"  ✗ {path}: CORRUPTED")
    for error in errors:
        logger.error(f"    - {error}")
    logger.error(
        f"{RULE}\nWARNING: NPZ files appear CORRUPTED but proceeding anyway.\n"
        f"This will likely produce garbage models.\nSet fail_on_invalid_data=True to prevent this.\n{RULE}"
    )


def _proceed_despite(what: str) -> None:
    logger.warning(f"Proceeding with training despite {what}")


def _bad_samples(features: np.ndarray | None) -> list[int]:
    """The first hundred samples with a number that is none."""
    if features is None or features.dtype.kind != "f" or not features.ndim:
        return []
    sums = features.reshape(len(features), -1).sum(axis=1)
    return np.flatnonzero(~np.isfinite(sums))[:100].tolist()

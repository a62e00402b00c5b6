# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing and reading checkpoints: names, keys, sidecars, and the last one when a signal comes.

Every file is written to `.pth.tmp`, synced and renamed. Part of the stand-in, see `app`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from app.training import torch_zip
from app.training.model import GLOBALS, Adam, Network
from app.utils.torch_utils import safe_load_checkpoint, write_checksum_file

logger = logging.getLogger(__name__)
version_logger = logging.getLogger("app.training.model_versioning")

ARCHITECTURE_VERSION = "v4.0.0"


class EarlyStopping:
    """Counts epochs without a better loss, and keeps the best state."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_loss = float("inf")
        self.counter = 0
        self.best_state: dict | None = None

    def __call__(self, loss: float, network: Network) -> bool:
        if loss < self.best_loss - 0.0001:
            self.best_loss, self.counter, self.best_state = loss, 0, network.state_dict()
        else:
            self.counter += 1
        return 0 < self.patience <= self.counter

    def state(self) -> dict:
        return {"best_loss": self.best_loss, "counter": self.counter, "best_state": self.best_state}


class Schedule:
    """Cosine from the first rate to 1e-6 over the epochs."""

    LEAST = 1e-6

    def __init__(self, optimizer: Adam, epochs: int) -> None:
        self.optimizer = optimizer
        self.base = optimizer.rate
        self.epochs = epochs
        self.last_epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.last_epoch = epoch
        share = min(epoch / max(1, self.epochs - 1), 1.0)
        self.optimizer.rate = round(self.LEAST + (self.base - self.LEAST) * (1 + np.cos(np.pi * share)) / 2, 10)

    def state_dict(self) -> dict:
        inner = {"T_max": self.epochs, "eta_min": self.LEAST, "base_lrs": [self.base], "last_epoch": self.last_epoch}
        return {
            "_milestones": [0],
            "last_epoch": self.last_epoch,
            "_last_lr": [self.optimizer.rate],
            "_schedulers": [inner],
        }


def state_checksum(state: dict[str, np.ndarray]) -> str:
    """SHA-256 over names and tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()


def versioning_metadata(network: Network, state: dict, training_info: dict) -> dict:
    """What a versioned checkpoint says about its network."""
    board = network.board
    config = {
        "in_channels": network.in_channels,
        "global_features": GLOBALS,
        "num_blocks": 13,
        "num_filters": 128,
        "board_size": board.size,
        "policy_size": network.policy_size,
        "num_players": network.num_players,
        "max_distance": board.max_distance,
        "num_directions": len(board.directions),
        "movement_channels": board.movement_channels,
        "num_ring_counts": 3,
        "num_line_dirs": 4,
        "attention_heads": 4,
        "movement_idx_shape": [board.movement_channels, board.size, board.size],
        "feature_version": 2,
        "board_type": board.name,
        "memory_tier": "v4",
    }
    if not board.hexagonal:
        del config["movement_idx_shape"]
    return {
        "architecture_version": ARCHITECTURE_VERSION,
        "model_class": network.model_class,
        "config": config,
        "board_type": "",
        "board_size": 0,
        "num_players": 0,
        "policy_size": 0,
        "training_info": training_info,
        "created_at": datetime.now(timezone.utc).isoformat(),
        "checksum": state_checksum(state),
        "parent_checkpoint": None,
        "memory_tier": "",
    }


def write_atomic(checkpoint: dict, path: str | os.PathLike[str]) -> None:
    """Write beside, sync, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(path.suffix + ".tmp")
    pause = float(os.environ.get("LAB_SAVE_SECONDS") or 0)
    if pause:
        staged.touch()
        time.sleep(pause)
    try:
        torch_zip.save(checkpoint, staged, stem=path.stem)
        staged.rename(path)
    except OSError:
        staged.unlink(missing_ok=True)
        raise


def save_versioned(network: Network, path: str | os.PathLike[str], training_info: dict, **extra: object) -> dict:
    """Write tensors and metadata, and what else is given, with a sidecar; gives the metadata."""
    state = network.state_dict()
    metadata = versioning_metadata(network, state, training_info)
    write_atomic({"model_state_dict": state, **extra, "_versioning_metadata": metadata}, path)
    write_checksum_file(path)
    version_logger.info(
        f"Saved versioned checkpoint to {path}\n  Version: {metadata['architecture_version']}\n"
        f"  Model: {metadata['model_class']}\n  Checksum: {metadata['checksum'][:16]}..."
    )
    return metadata


def save_model(network: Network, path: str | os.PathLike[str], training_info: dict) -> None:
    """Write the model alone, without optimizer and epoch."""
    version_logger.info(f"Model config validated for {network.board.name}_{network.num_players}p before save")
    save_versioned(network, path, training_info)


def save_interval(
    network: Network, optimizer: Adam, schedule: Schedule, stopping: EarlyStopping, epoch: int, loss: float, path: str
) -> None:
    """Write a checkpoint of the running training; a failure is logged and not raised, as it happens behind the loop."""
    checkpoint = {
        "epoch": epoch,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": loss,
        "scheduler_state_dict": schedule.state_dict(),
        "early_stopping": stopping.state(),
    }
    try:
        write_atomic(checkpoint, path)
    except OSError as error:
        logger.error(f"Async checkpoint save failed for {path}: {error}")
    else:
        logger.info(f"Async checkpoint saved: {path} (epoch {epoch}, loss {loss:.4f})")


def save_emergency(
    network: Network, optimizer: Adam, schedule: Schedule, stopping: EarlyStopping, epoch: int, loss: float, path: str
) -> None:
    """Write the checkpoint of the last moment, and what early stopping knows."""
    check_disk(os.path.dirname(path) or ".")
    metadata = save_versioned(
        network,
        path,
        {"epoch": epoch, "loss": loss},
        optimizer_state_dict=optimizer.state_dict(),
        scheduler_state_dict=schedule.state_dict(),
        epoch=epoch,
        loss=loss,
    )
    if stopping.best_state is not None:
        write_atomic(stopping.state(), path.replace(".pth", "_early_stopping.pth"))
    logger.info(
        f"Saved versioned checkpoint to {path} "
        f"(epoch {epoch}, loss {loss:.4f}, version {metadata['architecture_version']})"
    )


def check_disk(directory: str) -> None:
    """Raise OSError when a checkpoint should not be written to this disk."""
    usage = shutil.disk_usage(directory)
    used, free = 100 * usage.used / usage.total, usage.free / 2**30
    if used >= 95 or free < float(os.environ.get("LAB_MIN_FREE_GB") or 1.0):
        raise OSError(
            f"Insufficient disk space to save checkpoint: {used:.1f}% used (limit: 95%), {free:.1f}GB available. "
            f"Path: {directory}"
        )


def load_checkpoint(path: str, network: Network, optimizer: Adam | None, stopping: EarlyStopping | None) -> int:
    """Read a checkpoint of a running training; gives its epoch."""
    checkpoint = safe_load_checkpoint(path, warn_on_unsafe=False)
    network.load_state_dict(checkpoint.get("model_state_dict", checkpoint))
    if optimizer is not None and "optimizer_state_dict" in checkpoint:
        optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    saved = checkpoint.get("early_stopping")
    if stopping is not None and saved:
        stopping.best_loss, stopping.counter = saved["best_loss"], saved["counter"]
        stopping.best_state = saved["best_state"]
    return int(checkpoint.get("epoch", 0))


class GracefulShutdown:
    """On SIGTERM and SIGINT: one last checkpoint, then the signal again."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        logger.info("Graceful shutdown handlers installed")

    def _handle(self, number: int, _frame: object) -> None:
        logger.warning(f"Received {signal.Signals(number).name}, initiating graceful shutdown...")
        logger.info("Saving emergency checkpoint before shutdown...")
        time.sleep(float(os.environ.get("LAB_SIGTERM_SECONDS") or 1.0))
        try:
            self._save()
            logger.info("Emergency checkpoint saved successfully")
        except Exception as error:
            logger.error(f"Failed to save emergency checkpoint: {error}")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

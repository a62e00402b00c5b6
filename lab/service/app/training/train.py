# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trainer: `python -m app.training.train --board-type hex8 --num-players 2 --data-path data/training/hex8_2p.npz`.

It really learns from the NPZ, with a toy of a network. Measured on the real one, and kept: the gates before training
and their messages, the log lines, the events, the files it leaves and when, what a signal does, and the exit codes (0,
1 for any error, 2 for the command line, 143 after an emergency checkpoint, 137). It takes no lock. Part of the
stand-in, see `app`, where its environment variables are listed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import zipfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from app.coordination.event_router import get_router
from app.training import checkpointing, datasets, faults
from app.training.boards import BOARDS
from app.training.model import Adam, Network
from app.training.train_cli import parse_args
from app.training.train_pre_validation import check_freshness, look_at_data, read_npz
from app.utils.paths import AI_SERVICE_ROOT, MODELS_DIR
from app.utils.torch_utils import InvalidCheckpointFormatError, safe_load_checkpoint

logger = logging.getLogger("app.training.train")

MIN_SAMPLES = 100
MIN_BYTES = 1024
AUTO_BATCH = 512
# Samples of a batch that the toy learns from, in a new order each epoch, as a lab stands beside other work.
GLIMPSE = 96
MODEL_ID = "ringrift_v5_sq8_2p_2xh100"
LOAD_ERRORS = (OSError, RuntimeError, ValueError, KeyError)


@dataclass
class Progress:
    """How far the training is."""

    start_epoch: int = 0
    epoch: int = 0
    epochs_completed: int = 0
    best: float = float("inf")
    train_loss: float = 0.0
    val_loss: float = float("inf")
    accuracy: float = 0.0
    averaged: list[Path] = field(default_factory=list)


class Training:
    """One run of the trainer."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.board = BOARDS[args.board_type or "square8"]
        self.config = f"{self.board.name}_{args.num_players}p"
        self.data_path = args.data_path or str(Path("data", "training", f"{self.config}.npz"))
        suffix = f"_{args.model_version}" if args.model_version not in (None, "v5") else ""
        self.save_path = args.save_path or str(MODELS_DIR / f"canonical_{self.config}{suffix}.pth")
        self.epoch_seconds = float(os.environ.get("LAB_EPOCH_SECONDS") or 0.6)
        self.progress = Progress()
        self.started = time.time()

    # Before the loop

    def prepare(self) -> None:
        """Everything that can refuse, in the order of the real trainer."""
        args = self.args
        if args.resume:
            logging.getLogger("app.training.train_cli").info(
                "[TrainCLI] Resuming training - architecture will be auto-detected from checkpoint. "
                "Use --memory-tier to override if needed."
            )
            if self.board.hexagonal:
                raise ValueError(
                    f"Model ID '{MODEL_ID}' contains 'sq8' but board_type is {self.board.name.upper()} which uses "
                    "HexNeuralNet architecture. Use a model ID that reflects the hex board type "
                    "(e.g., 'ringrift_hex_2p')."
                )
        check_freshness(self.config, args.max_data_age_hours, args.allow_stale_data, args.skip_freshness_check)
        arrays = look_at_data(self.data_path)
        try:
            arrays = self.validate(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            logger.error(f"Training data validation failed: {error}")
            raise
        logger.info("Using device: cpu")
        channels = arrays["features"].shape[1]
        logging.getLogger("app.training.train_dataset_inference").info(
            f"Using inferred {'hex' if self.board.hexagonal else 'square'} in_channels={channels} from dataset "
            f"{self.data_path}"
        )
        self.data = datasets.build(arrays, self.data_path)
        seed = 42 if args.seed is None else args.seed
        self.network = Network(self.board, channels, self.data.policy_size, args.num_players, seed)
        self.batch_size = self.choose_batch_size()
        self.load_weights()
        self.optimizer = Adam(self.network, args.learning_rate)
        self.schedule = checkpointing.Schedule(self.optimizer, args.epochs)
        self.stopping = checkpointing.EarlyStopping(args.early_stopping_patience)
        if args.resume and os.path.exists(args.resume):
            epoch = checkpointing.load_checkpoint(args.resume, self.network, self.optimizer, self.stopping)
            self.progress.start_epoch = self.progress.epoch = epoch + 1
            logger.info(f"Resuming training from epoch {self.progress.start_epoch}")
        os.makedirs(args.checkpoint_dir, exist_ok=True)

        order = np.random.default_rng(seed).permutation(len(self.data))
        train_size = int(0.8 * len(self.data))
        self.train_rows, self.val_rows = order[:train_size], order[train_size:]
        logger.info(f"Starting training for {args.epochs} epochs...")
        logger.info(f"Train size: {train_size}, Val size: {len(self.val_rows)}")
        logger.info(f"Checkpoints will be saved to: {args.checkpoint_dir}")

    def validate(self, arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        """The gates that stop the trainer for the data's sake."""
        path = Path(self.data_path)
        if not path.exists():
            raise FileNotFoundError(f"Training data not found: {path}")
        size = path.stat().st_size
        if size < MIN_BYTES:
            raise ValueError(
                f"Training data file too small ({size} bytes): {path}. Likely corrupt or incomplete transfer."
            )
        arrays = read_npz(self.data_path) if arrays is None else arrays
        for name in ("features", "values"):
            if name not in arrays:
                raise ValueError(f"NPZ missing required key: '{name}' in {path}")
        samples = len(arrays["features"])
        if samples < MIN_SAMPLES:
            raise ValueError(
                f"Too few samples in {path}: {samples} (minimum {MIN_SAMPLES}). "
                "Collect more selfplay data before training."
            )
        found = str(arrays.get("board_type", self.board.name)).lower().strip()
        if found != self.board.name:
            raise ValueError(f"Board type mismatch in {path}: file has '{found}', expected '{self.board.name}'")
        logger.info(
            f"Training data validated: {path} ({samples} samples, board_type={self.board.name}, "
            f"num_players={self.args.num_players})"
        )
        return arrays

    def choose_batch_size(self) -> int:
        """What is asked for, unless it is tuned: as on a GPU, where an explicit size is overridden."""
        args = self.args
        asked = args.batch_size or AUTO_BATCH
        if args.safe_mode:
            tuned = 64
        elif args.target_memory_fraction is not None:
            tuned = max(64, int(AUTO_BATCH * min(args.target_memory_fraction, 1.0) / 64) * 64)
        elif args.no_auto_tune_batch_size or not faults.current().get("cuda_oom"):
            return asked
        else:
            tuned = AUTO_BATCH
        logger.info(f"[AutoBatchSize] Auto-tuned batch size: {tuned} (was {asked})")
        return tuned

    def load_weights(self) -> None:
        """First weights: from the save path, else from --init-weights, else from the canonical model."""
        initial = self.args.init_weights
        canonical = MODELS_DIR / f"canonical_{self.config}.pth"
        if initial is None and not os.path.exists(self.save_path) and canonical.exists():
            try:
                matches = _channels(canonical) == self.network.in_channels
            except InvalidCheckpointFormatError as error:
                logger.warning(f"[AutoInitWeights] Could not check canonical model compatibility: {error}.")
                matches = False
            if matches:
                initial = str(canonical)
                logger.info(f"[AutoInitWeights] Using canonical model as starting point: {canonical}")
            else:
                logger.info(
                    f"[AutoInitWeights] Canonical model {canonical} does not match. Training from scratch instead."
                )
        if initial and os.path.exists(initial):
            channels = _channels(initial)
            if channels not in (None, self.network.in_channels):
                versions = {40: "v2", 64: "v3"}
                raise ValueError(
                    f"Encoder mismatch: init_weights={versions.get(channels, channels)}, "
                    f"data={versions.get(self.network.in_channels, self.network.in_channels)}"
                )
            if os.path.exists(self.save_path):
                logger.info(f"Skipping init_weights_path (save_path {self.save_path} exists, resuming instead)")
            else:
                try:
                    checkpointing.load_checkpoint(initial, self.network, None, None)
                    logger.info(f"Loaded initial weights from {initial}")
                except LOAD_ERRORS as error:
                    logger.warning(f"Could not load init weights from {initial}: {error}. Starting fresh.")
        if os.path.exists(self.save_path):
            try:
                checkpointing.load_checkpoint(self.save_path, self.network, None, None)
                logger.info(f"Loaded existing model weights from {self.save_path}")
            except LOAD_ERRORS as error:
                logger.warning(f"Could not load existing weights: {error}. Starting fresh.")

    # The loop

    def run(self) -> None:
        """Train; whatever happens, an event tells of it."""
        workers = int(os.environ.get("RINGRIFT_DATALOADER_WORKERS") or 1)
        loader = datasets.Loader(self.train_rows, self.batch_size, workers)
        if not self.args.disable_graceful_shutdown:
            checkpointing.GracefulShutdown(self.save_emergency)
        self.publish(
            "TRAINING_STARTED",
            {
                "total_epochs": self.args.epochs,
                "start_epoch": self.progress.start_epoch,
                "config": self.config,
                "model_path": str(AI_SERVICE_ROOT / "models" / f"model_{self.args.num_players}p.pth"),
            },
        )
        try:
            self.train(loader)
            checkpoint_path = self.finish()
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            self.publish(
                "TRAINING_FAILED",
                {
                    "config": self.config,
                    "error": str(error),
                    "epochs_completed": self.progress.epochs_completed,
                    "duration_seconds": time.time() - self.started,
                    "best_val_loss": self.progress.best if self.progress.epochs_completed else None,
                },
                "train_finally",
            )
            logger.warning(f"[train] Hardened TRAINING_FAILED emitted for {self.config}: {error}")
            raise
        finally:
            loader.close()
        self.publish("TRAINING_COMPLETED", self.completed(checkpoint_path, hardened=True), "train_finally")
        logger.info(f"[train] Hardened TRAINING_COMPLETED emitted for {self.config}")
        logger.info("Async checkpointer shutdown complete")

    def train(self, loader: datasets.Loader) -> None:
        args, progress = self.args, self.progress
        circuit_open = False
        if faults.current().get("compile"):
            logger.info("Compiling model with torch.compile (mode=max-autotune), this takes a while...")
            faults.work("compile")
        for epoch in range(progress.start_epoch, args.epochs):
            if circuit_open and faults.current().get("cuda_oom"):
                logger.warning(f"Training circuit OPEN - skipping epoch {epoch} (recovering from failures)")
                time.sleep(float(os.environ.get("LAB_RETRY_SECONDS") or 5))
                continue
            self.schedule.set_epoch(epoch)
            circuit_open = not self.train_epoch(loader, epoch)
            if circuit_open:
                continue
            progress.val_loss, progress.accuracy = self.evaluate()
            progress.epoch = epoch
            progress.epochs_completed += 1
            self.report(epoch)
            if (epoch + 1) % args.checkpoint_interval == 0 and not faults.current().get("no_checkpoints"):
                self.save_interval(epoch, f"checkpoint_epoch_{epoch + 1}.pth")
            stop = self.stopping(progress.val_loss, self.network)
            if progress.val_loss < progress.best:
                progress.best = progress.val_loss
                self.save_best(epoch)
            if faults.current().get("finish"):
                break
            if stop:
                logger.info(f"Early stopping triggered at epoch {epoch + 1} (best val loss: {progress.best:.4f})")
                self.save_interval(epoch, f"checkpoint_early_stop_epoch_{epoch + 1}.pth")
                break

    def train_epoch(self, loader: datasets.Loader, epoch: int) -> bool:
        """One pass over the data, no faster than asked for. False when the GPU's memory did not do for one batch."""
        begun = time.monotonic()
        seconds = max(self.epoch_seconds, float(faults.current().get("epoch_seconds", 0)))
        losses = []
        for number, rows in enumerate(loader.epoch(epoch)):
            fault = faults.current()
            if fault.get("hang"):
                faults.hang()
            try:
                faults.check_memory(self.batch_size)
                losses.append(self.train_batch(rows, epoch, number, fault))
            except faults.OutOfMemoryError as error:
                if faults.crashes():
                    raise
                logger.warning(f"CUDA error in batch {number}: {error}")
            due = begun + seconds * (number + 1) / loader.batches
            time.sleep(max(0.0, due - time.monotonic()))
        self.progress.train_loss = float(np.mean(losses)) if losses else 0.0
        return bool(losses)

    def train_batch(self, rows: np.ndarray, epoch: int, number: int, fault: dict) -> float:
        rows = rows[:GLIMPSE]
        features, scalars, values, policies = self.data.batch(rows)
        finite = np.isfinite(features.reshape(len(rows), -1).sum(axis=1))
        if not finite.any():
            raise RuntimeError(
                "min(): Expected reduction dim to be specified for input.numel() == 0. "
                "Specify the reduction dim with the 'dim' argument."
            )
        value_loss, policy_loss, _, gradients = self.network.losses(features, scalars, values, policies)
        loss = value_loss + policy_loss
        if fault.get("error") and self.progress.epochs_completed >= int(fault.get("error_after", 0)):
            raise RuntimeError(str(fault["error"]))
        if fault.get("nan") or not np.isfinite(loss):
            raise RuntimeError(
                f"Model produced NaN/Inf in policy predictions at batch {number}. "
                "Check model weights and learning rate."
            )
        if number % 50 == 0:
            logger.info(
                f"Epoch {epoch + 1}, Batch {number}: Loss={loss:.4f} (Val={value_loss:.4f}, Pol={policy_loss:.4f})"
            )
        self.optimizer.step(gradients)
        return loss

    def evaluate(self) -> tuple[float, float]:
        """Loss and share of right moves on the samples that are not trained on."""
        rows = self.val_rows[:GLIMPSE]
        if faults.current().get("evaluate"):
            logger.info(f"Evaluating on {len(self.val_rows)} validation samples and 400 gauntlet games...")
            faults.work("evaluate")
        value_loss, policy_loss, accuracy, _ = self.network.losses(*self.data.batch(rows), learn=False)
        return value_loss + policy_loss, accuracy

    def report(self, epoch: int) -> None:
        progress = self.progress
        rate = self.optimizer.rate
        logger.info(f"  Current LR: {rate:.6f}")
        logger.info(
            f"Epoch [{epoch + 1}/{self.args.epochs}], Train Loss: {progress.train_loss:.4f}, "
            f"Val Loss: {progress.val_loss:.4f}, Policy Acc: {progress.accuracy:.1%}"
        )
        logging.getLogger("app.training.enhancements.training_facade").info(
            f"Epoch {epoch - progress.start_epoch} enhancements: mean_loss={progress.train_loss:.4f}, "
            "mining_active=False, hard_frac=0.00%, lr_scale=1.000"
        )
        self.publish(
            "training_progress",
            {
                "epoch": epoch + 1,
                "total_epochs": self.args.epochs,
                "train_loss": progress.train_loss,
                "val_loss": progress.val_loss,
                "policy_accuracy": progress.accuracy,
                "lr": rate,
                "config": self.config,
            },
        )

    # What it leaves

    def save_best(self, epoch: int) -> None:
        """The model, a copy of it by time, and a state for the average."""
        progress = self.progress
        info = {
            "epoch": epoch + 1,
            "samples_seen": len(self.train_rows) * (epoch + 1),
            "val_loss": progress.val_loss,
            "train_loss": progress.train_loss,
        }
        checkpointing.save_model(self.network, self.save_path, info)
        logger.info(f"  New best model saved (Val Loss: {progress.val_loss:.4f})")
        averaged = Path(self.args.checkpoint_dir, f"avg_ckpt_{len(progress.averaged)}.pt")
        checkpointing.write_atomic(self.network.state_dict(), averaged)
        progress.averaged.append(averaged)
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        version = f"{self.save_path.removesuffix('.pth')}_{stamp}.pth"
        checkpointing.save_model(self.network, version, {**info, "timestamp": stamp})
        logger.info(f"  Versioned checkpoint saved: {version}")

    def save_interval(self, epoch: int, name: str) -> str:
        path = os.path.join(self.args.checkpoint_dir, name)
        checkpointing.save_interval(
            self.network, self.optimizer, self.schedule, self.stopping, epoch, self.progress.val_loss, path
        )
        return path

    def save_emergency(self) -> None:
        path = os.path.join(self.args.checkpoint_dir, f"checkpoint_emergency_epoch_{self.progress.epoch}.pth")
        checkpointing.save_emergency(
            self.network,
            self.optimizer,
            self.schedule,
            self.stopping,
            self.progress.epoch,
            self.progress.val_loss,
            path,
        )

    def finish(self) -> str:
        """The last checkpoint, the average of the best ones, the summary; gives the checkpoint's path."""
        args, progress = self.args, self.progress
        if not progress.epochs_completed and progress.start_epoch < args.epochs:
            raise RuntimeError("No epoch was completed: every batch failed")
        checkpointing.check_disk(args.checkpoint_dir)
        path = self.save_interval(args.epochs - 1, f"checkpoint_final_epoch_{args.epochs}.pth")
        logger.info("Training completed. Final checkpoint saved.")
        if len(progress.averaged) >= 2:
            logger.info(f"[Checkpoint Averaging] Averaging {len(progress.averaged)} checkpoints...")
            states = [safe_load_checkpoint(averaged) for averaged in progress.averaged]
            self.network.load_state_dict(
                {
                    name: np.mean([state[name] for state in states], axis=0) if array.dtype.kind == "f" else array
                    for name, array in states[0].items()
                }
            )
            info = {"epoch": args.epochs, "averaged_checkpoints": len(states), "checkpoint_averaging": True}
            for target in (f"{self.save_path.removesuffix('.pth')}_averaged.pth", self.save_path):
                checkpointing.save_model(self.network, target, info)
        for averaged in progress.averaged:
            averaged.unlink(missing_ok=True)
        self.publish("TRAINING_COMPLETED", self.completed(path, hardened=False))
        loss = progress.best if progress.epochs_completed else 0.0
        print(f"TRAINING_SUMMARY: loss={loss:.4f} samples=0 games=0 epochs={args.epochs}", flush=True)
        return path

    def completed(self, checkpoint_path: str, hardened: bool) -> dict:
        """The payload of TRAINING_COMPLETED, which is sent twice."""
        progress = self.progress
        head = {
            "epochs_completed": progress.epochs_completed + progress.start_epoch,
            "best_val_loss": progress.best,
            "final_train_loss": progress.train_loss,
            "final_val_loss": progress.val_loss,
            "config": self.config,
            "config_key": self.config,
        }
        tail = {
            "trigger_evaluation": True,
            "model_path": self.save_path,
            "policy_accuracy": progress.accuracy,
            "training_samples": 0,
            "training_games": 0,
        }
        if not hardened:
            return {**head, "checkpoint_path": checkpoint_path, **tail}
        return {
            **head,
            "board_type": self.board.name,
            "num_players": self.args.num_players,
            "duration_seconds": time.time() - self.started,
            "hardened_emit": True,
            **tail,
            "checkpoint_path": checkpoint_path,
        }

    def publish(self, event_type: str, payload: dict, source: str = "train") -> None:
        get_router().publish_sync(event_type, payload, source)


def _channels(path: str | os.PathLike[str]) -> int | None:
    """The input channels that a checkpoint says it has; None when it does not say or cannot be read."""
    try:
        return safe_load_checkpoint(path)["_versioning_metadata"]["config"]["in_channels"]
    except LOAD_ERRORS:
        return None


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    training = Training(parse_args())
    training.prepare()
    training.run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trainer's command line: every flag of the real one. Part of the stand-in, see `app`.

Flags that mean nothing to a small network on a CPU are taken and ignored, so that a command line that the real trainer
refuses is refused here too, and no other.
"""

from __future__ import annotations

import argparse
import os

from app.training.boards import BOARDS

SWITCHES = [
    "auto-tune-batch-size",
    "no-auto-tune-batch-size",
    "safe-mode",
    "track-calibration",
    "use-hot-data-buffer",
    "use-integrated-enhancements",
    "enable-curriculum",
    "enable-augmentation",
    "enable-elo-weighting",
    "enable-auxiliary-tasks",
    "enable-batch-scheduling",
    "enable-background-eval",
    "enable-quality-weighting",
    "filter-empty-policies",
    "init-weights-strict",
    "freeze-policy",
    "multi-player",
    "distributed",
    "scale-lr",
    "find-unused-parameters",
    "disable-circuit-breaker",
    "disable-anomaly-detection",
    "disable-graceful-shutdown",
    "enable-pipeline-auto-trigger",
    "auto-promote",
    "auto-promote-sync",
    "no-auto-promote-sync",
    "gradient-checkpointing",
    "mixed-precision",
    "skip-freshness-check",
    "allow-stale-data",
    "disable-stale-fallback",
    "use-adaptive-intensity",
    "enable-hard-example-mining",
    "enable-outcome-weighted-policy",
    "cmaes-heuristic",
    "curriculum",
    "autonomous",
    "use-cluster-data",
    "skip-cluster-preflight",
]

TEXTS: dict[str, str | None] = {
    "config": None,
    "data-path": None,
    "save-path": None,
    "checkpoint-dir": "checkpoints",
    "resume": None,
    "init-weights": None,
    "memory-tier": None,
    "sampling-weights": "quality_combined",
    "cmaes-tier-id": "sq8_heuristic_baseline_v1",
    "cmaes-base-profile-id": "baseline_v1",
    "curriculum-engine": "descent",
    "curriculum-engine-mix": None,
    "curriculum-output-dir": "curriculum_runs",
    "curriculum-base-model": None,
}

INTEGERS: dict[str, int | None] = {
    "epochs": 50,
    "batch-size": None,
    "hot-buffer-size": 10000,
    "seed": None,
    "feature-version": None,
    "early-stopping-patience": int(os.environ.get("LAB_EARLY_STOPPING_PATIENCE") or 25),
    "checkpoint-interval": int(os.environ.get("LAB_CHECKPOINT_INTERVAL") or 5),
    "warmup-epochs": None,
    "lr-t0": 10,
    "lr-t-mult": 2,
    "num-res-blocks": None,
    "num-filters": None,
    "num-players": 2,
    "local-rank": -1,
    "auto-promote-games": 30,
    "max-sync-failures": 5,
    "cmaes-generations": 20,
    "cmaes-population-size": 16,
    "cmaes-seed": 42,
    "cmaes-games-per-candidate": 50,
    "curriculum-generations": 10,
    "curriculum-games-per-gen": 1000,
    "curriculum-training-epochs": 10,
    "curriculum-eval-games": 100,
    "curriculum-data-retention": 3,
    "curriculum-num-players": 2,
    "cluster-sync-threshold": 5000,
}

NUMBERS: dict[str, float | None] = {
    "target-memory-fraction": None,
    "hot-buffer-mix-ratio": 0.3,
    "quality-weight-blend": 0.5,
    "quality-ranking-weight": 0.1,
    "learning-rate": 0.0005,
    "policy-label-smoothing": 0.0,
    "weight-decay": None,
    "label-smoothing": 0.0,
    "min-quality-score": 0.0,
    "lr-min": None,
    "gradient-clip-max-norm": 1.0,
    "anomaly-spike-threshold": 3.0,
    "anomaly-gradient-threshold": 100.0,
    "max-data-age-hours": 2000.0,
    "max-sync-duration": 2700.0,
    "hard-example-top-k": 0.3,
    "outcome-weight-scale": 0.5,
    "dropout": 0.12,
    "curriculum-promotion-threshold": 0.60,
    "curriculum-engine-ratio": 0.8,
}

CHOICES: dict[str, tuple[str | None, list[str]]] = {
    "board-type": (None, list(BOARDS)),
    "model-version": (
        None,
        ["v2", "v2_lite", "v3", "v3_lite", "v3-flat", "v3-spatial", "v4", "v5", "v5-gnn", "v5-heavy"],
    ),
    "model-type": ("cnn", ["cnn", "gnn", "hybrid"]),
    "lr-scheduler": (None, ["cosine", "step", "plateau", "warmrestart"]),
    "lr-scale-mode": ("linear", ["linear", "sqrt"]),
    "gradient-clip-mode": ("adaptive", ["none", "fixed", "adaptive"]),
    "amp-dtype": ("bfloat16", ["bfloat16", "float16"]),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits 2 on what the real trainer does not know."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train RingRift Neural Network AI")
    for name in SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    for options, kind in ((TEXTS, str), (INTEGERS, int), (NUMBERS, float)):
        for name, default in options.items():
            parser.add_argument(f"--{name}", type=kind, default=default)
    for name, (default, choices) in CHOICES.items():
        parser.add_argument(f"--{name}", default=default, choices=choices)
    parser.add_argument(
        "--augment-hex-symmetry", nargs="?", const="always", default="auto", choices=["auto", "always", "never"]
    )
    return parser.parse_args(argv)

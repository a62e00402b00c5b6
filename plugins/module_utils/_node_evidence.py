# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a diagnosis needs from one node, seen at once. This util is private to the collection."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import (
    _checkpoint,
    _games,
    _gpu,
    _lock,
    _npz,
    _training_log,
    _training_progress,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._probes import run_probes

PROBES = ("progress", "locks", "gpu", "log", "data", "checkpoints", "games")

# The newest checkpoints are those that a restart would begin from; the ones before them only matter when these fail.
NEWEST = 2


@dataclass(frozen=True)
class EvidenceRequest:
    """What to look at on a node. Times are in seconds."""

    config: TrainingConfig
    service_path: str
    probes: Tuple[str, ...] = PROBES
    coordination_dir: Optional[str] = None
    within: Optional[str] = None
    nvidia_smi: str = "nvidia-smi"
    redis_url: Optional[str] = None
    stall_after: float = 1800.0
    min_samples: int = 100
    min_games: int = 50


def collect(request: EvidenceRequest, deadline: float) -> Dict[str, Any]:
    """Run the wanted probes side by side for at most ``deadline`` seconds.

    :returns: one key for each probe that answered, ``errors`` with the reason for each that did not, and ``seconds``
    """
    probes: Dict[str, Callable[[], Any]] = {
        "progress": lambda: _progress(request),
        "locks": lambda: _locks(request),
        "gpu": lambda: _gpus(request, deadline),
        "log": lambda: _training_log.read_log(os.path.join(request.service_path, "logs", "training.log")).as_dict(),
        "data": lambda: _data(request),
        "checkpoints": lambda: _checkpoints(request),
        "games": lambda: _game_counts(request),
    }
    results, errors, seconds = run_probes({name: probes[name] for name in request.probes}, deadline)
    return {**results, "errors": errors, "seconds": seconds}


def _progress(request: EvidenceRequest) -> Dict[str, Any]:
    return _training_progress.look(
        request.config,
        request.service_path,
        coordination_dir=request.coordination_dir,
        within=request.within,
        stall_after=request.stall_after,
    ).as_dict()


def _locks(request: EvidenceRequest) -> List[Dict[str, Any]]:
    report = _lock.inspect_all(request.config, request.service_path, redis_url=request.redis_url)
    return [lock.as_dict() for lock in report.locks]


def _gpus(request: EvidenceRequest, deadline: float) -> Dict[str, Any]:
    # nvidia-ml-py is rather with the service than with the system's interpreter.
    python = os.path.join(request.service_path, "venv", "bin", "python")
    service = python if os.access(python, os.X_OK) else None
    # Its own deadline ends before that of all probes, so that a hung driver is a finding and not just an overrun.
    return _gpu.collect(request.nvidia_smi, timeout=max(1.0, deadline - 2.0), samples=2, python=service).as_dict()


def _data(request: EvidenceRequest) -> Dict[str, Any]:
    path = os.path.join(request.service_path, "data", "training", f"{request.config.name}.npz")
    try:
        report = _npz.inspect(path, config=request.config, min_samples=request.min_samples)
    except MissingFileError as exc:
        problems = [{"code": "missing", "message": str(exc), "severity": "error"}]
        return {"path": path, "exists": False, "valid": False, "problems": problems, "samples": None}
    return {**report.as_dict(), "path": path, "exists": True}


def _checkpoints(request: EvidenceRequest) -> List[Dict[str, Any]]:
    """The canonical model and the newest checkpoints, verified in full: a flipped byte shows nowhere else."""
    canonical = os.path.join(request.service_path, "models", f"canonical_{request.config.name}.pth")
    pattern = os.path.join(glob.escape(request.service_path), "checkpoints", "checkpoint_*.pth")
    newest = sorted(glob.glob(pattern), key=_modified, reverse=True)[:NEWEST]
    reports = []
    for path in [canonical, *newest]:
        try:
            reports.append({**_checkpoint.verify(path, depth="full").as_dict(), "path": path})
        except MissingFileError:
            continue  # a node that never trained has none, and a trainer may have replaced one
    return reports


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _game_counts(request: EvidenceRequest) -> Dict[str, Any]:
    return _games.count_games(request.config, request.service_path, min_games=request.min_games).as_dict()

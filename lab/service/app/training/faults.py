# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that the lab asks of the trainer. Only the stand-in has these, see `app`.

A JSON file, read at the start, before every epoch and before every batch, so that a fault may begin and end while the
trainer runs:

    {"cuda_oom": {"max_batch": 256}}                   batches above the size fail as on a GPU, and are skipped
    {"cuda_oom": {"max_batch": 256, "crash": true}}    ... and end the trainer
    {"hang": "sleep"}                                  stops in the middle of a batch; heeds SIGTERM
    {"hang": "deaf"}                                   ... and does not heed SIGTERM
    {"hang": "spin"}                                   ... and burns a CPU
    {"nan": true}                                      the loss becomes NaN
    {"epoch_seconds": 5}                               an epoch takes at least so long
    {"compile": true}                                  stays in front of the first epoch and burns a CPU
    {"evaluate": true}                                 stays in the evaluation after an epoch and burns a CPU
    {"error": "..."}                                   the next batch ends the trainer with this error
    {"error": "...", "error_after": 1}                 ... after so many epochs of this trainer
    {"no_checkpoints": true}                           trains on and writes no checkpoint
    {"finish": true}                                   the epoch that runs is the last one
"""

from __future__ import annotations

import json
import os
import signal
import time

from app.utils.paths import DATA_DIR


class OutOfMemoryError(RuntimeError):
    """What torch raises when the GPU's memory is used up."""

    __module__ = "torch"


def fault_path() -> str:
    return os.environ.get("LAB_TRAIN_FAULT") or str(DATA_DIR / "lab" / "train_fault.json")


def current() -> dict:
    """The faults asked for now."""
    try:
        with open(fault_path(), encoding="utf-8") as file:
            asked = json.load(file)
    except (OSError, ValueError):
        return {}
    return asked if isinstance(asked, dict) else {}


def hang() -> None:
    """Stay here for as long as the fault asks for it."""
    while kind := current().get("hang"):
        if kind == "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        if kind == "spin":
            burn(0.1)
        else:
            time.sleep(0.1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])


def work(name: str) -> None:
    """Compute for as long as the fault of this name asks for it."""
    while current().get(name):
        burn(0.1)


def burn(seconds: float) -> None:
    """Use a CPU."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def check_memory(batch: int) -> None:
    """Raise what the GPU would."""
    fault = current().get("cuda_oom")
    if isinstance(fault, dict) and batch > int(fault.get("max_batch", 0)):
        raise OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.21 GiB "
            "is free. Including non-PyTorch memory, this process has 77.88 GiB memory in use."
        )


def crashes() -> bool:
    """Whether running out of memory ends the trainer."""
    fault = current().get("cuda_oom")
    return isinstance(fault, dict) and bool(fault.get("crash"))

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums of the arrays in an NPZ. Part of the stand-in, see `app`."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def array_checksum(array: np.ndarray) -> str:
    """SHA-256 over shape, dtype and content; objects count as their text."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
    if array.dtype == object:
        for item in array.flat:
            digest.update(item.tobytes() if isinstance(item, np.ndarray) else str(item).encode())
    else:
        digest.update(array.tobytes())
    return digest.hexdigest()


def checksums_text(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The `data_checksums` array for a set of arrays."""
    return np.asarray(json.dumps({name: array_checksum(arrays[name]) for name in sorted(arrays)}))


def checksum_problems(arrays: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with the arrays, by their own `data_checksums`; nothing when there are none."""
    if "data_checksums" not in arrays:
        return []
    problems = []
    for name, expected in json.loads(str(arrays["data_checksums"])).items():
        if name not in arrays:
            problems.append(f"Missing array: {name}")
            continue
        got = array_checksum(arrays[name])
        if got != expected:
            problems.append(f"Checksum mismatch for {name}: expected {expected[:16]}..., got {got[:16]}...")
    return problems

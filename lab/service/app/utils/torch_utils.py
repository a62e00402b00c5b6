# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading checkpoints and their checksums. Part of the stand-in, see `app`."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from pathlib import Path

from app.training import torch_zip

logger = logging.getLogger(__name__)


class ModelCorruptionError(Exception):
    """The file is not the one that its sidecar was written for."""


class InvalidCheckpointFormatError(Exception):
    """The file does not begin like a checkpoint."""

    def __init__(self, path: str | os.PathLike[str], format_type: str) -> None:
        self.path = path
        super().__init__(
            f"Invalid checkpoint format: {path}. Expected ZIP (PK) or pickle header, got: {format_type[:16]}... "
            "File may be corrupted, truncated, or not a PyTorch checkpoint."
        )


def checkpoint_format(path: str | os.PathLike[str]) -> tuple[bool, str]:
    """Whether a file begins like a checkpoint, and what it begins like."""
    size = os.path.getsize(path)
    if size < 4:
        return False, f"file_too_small:{size}"
    with open(path, "rb") as file:
        header = file.read(4)
    if header[:2] == b"PK":
        return True, "zip"
    if header[:1] == b"\x80":
        return True, "pickle"
    return False, f"invalid_header:{header.hex()}"


def compute_model_checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksum_file(path: str | os.PathLike[str]) -> Path:
    """Write `<path>.sha256`: digest, two spaces, name."""
    path = Path(path)
    sidecar = path.with_name(path.name + ".sha256")
    sidecar.write_text(f"{compute_model_checksum(path)}  {path.name}\n")
    logger.info(f"[ModelIntegrity] Wrote checksum to {sidecar}")
    return sidecar


def safe_load_checkpoint(
    path: str | os.PathLike[str],
    *,
    map_location: str | None = "cpu",
    allow_unsafe: bool = True,
    warn_on_unsafe: bool = True,
    verify_checksum: bool = False,
    strict_checksum: bool = False,
) -> dict:
    """Load a checkpoint, with torch where the caller has imported it, else as arrays of numpy.

    Neither looks at the CRCs, so that a flipped byte in a tensor passes. The real one then falls back to a load that
    runs what is in the pickle; this one never does.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"Checkpoint not found: {path}")
    is_valid, format_type = checkpoint_format(path)
    if not is_valid:
        raise InvalidCheckpointFormatError(path, format_type)
    sidecar = path.with_name(path.name + ".sha256")
    if verify_checksum and sidecar.exists() and sidecar.read_text().split()[:1] != [compute_model_checksum(path)]:
        message = f"Model checksum verification failed for {path}. The model file may be corrupted or tampered with."
        raise RuntimeError(message) if strict_checksum else ModelCorruptionError(message)
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.load(path, map_location=map_location, weights_only=True)
    return torch_zip.load(path)

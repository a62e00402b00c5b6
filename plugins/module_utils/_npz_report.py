# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was found in a training file, as data and in words. This util is private to the collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, Problem, as_dicts, has_errors

QUICK = "quick"
FULL = "full"
DEPTHS = (QUICK, FULL)


@dataclass(frozen=True)
class ArrayInfo:
    """One array: ``size`` is its bytes with header, ``compressed`` its bytes in the file."""

    name: str
    shape: Tuple[int, ...]
    dtype: str
    object: bool
    size: int
    compressed: int

    def as_dict(self) -> Dict[str, Any]:
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "object": self.object,
            "size": self.size,
            "compressed": self.compressed,
        }


@dataclass(frozen=True)
class Checksums:
    """The SHA-256 of each array that the exporter wrote into the file, and what came of them.

    ``skipped`` are arrays that cannot be compared without unpickling or reordering their elements.
    """

    recorded: int
    verified: int
    skipped: Tuple[str, ...]

    def as_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "skipped": list(self.skipped)}


@dataclass(frozen=True)
class ValueScan:
    """Which arrays were looked through for NaN, infinities and nothing but zeros, and which might have some unseen."""

    scanned: Tuple[str, ...]
    not_scanned: Tuple[str, ...]

    def as_dict(self) -> Dict[str, Any]:
        return {"scanned": list(self.scanned), "not_scanned": list(self.not_scanned)}


@dataclass(frozen=True)
class TrainingFile:
    """What a training file holds and what is wrong with it. ``age`` is in seconds, below 0 for a time to come."""

    path: str
    depth: str
    size: int
    mtime: float
    age: float
    samples: Optional[int]
    arrays: Tuple[ArrayInfo, ...]
    scalars: Mapping[str, Any]
    problems: Tuple[Problem, ...]
    metadata: Optional[Mapping[str, Any]] = None
    checksums: Optional[Checksums] = None
    value_scan: Optional[ValueScan] = None
    sha256: Optional[str] = None

    @property
    def valid(self) -> bool:
        """Whether nothing was found that makes it unfit for training, as deep as it was looked into."""
        return not has_errors(self.problems)

    def reasons(self) -> str:
        """What makes it invalid, in one line."""
        messages = [
            f"{problem.member}: {problem.message}" if problem.member else problem.message
            for problem in self.problems
            if problem.severity == ERROR
        ]
        more = f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
        return "; ".join(messages[:3]) + more

    def summary(self) -> str:
        """The result in one sentence."""
        if not self.valid:
            return f"cannot be trained on: {self.reasons()}"
        held = f"{self.samples} samples, {len(self.arrays)} arrays, {self.size} bytes"
        warnings = [problem.code for problem in self.problems]
        noted = f"; warnings: {', '.join(dict.fromkeys(warnings))}" if warnings else ""
        if self.depth == FULL:
            return f"whole: {held}, every byte compared{noted}"
        return f"no damage seen: {held}, but the content was not compared (depth=quick){noted}"

    def as_dict(self) -> Dict[str, Any]:
        return {
            "path": self.path,
            "depth": self.depth,
            "valid": self.valid,
            "problems": as_dicts(self.problems),
            "samples": self.samples,
            "arrays": {info.name: info.as_dict() for info in self.arrays},
            "scalars": dict(self.scalars),
            "metadata": None if self.metadata is None else dict(self.metadata),
            "size": self.size,
            "mtime": self.mtime,
            "age": self.age,
            "checksums": None if self.checksums is None else self.checksums.as_dict(),
            "value_scan": None if self.value_scan is None else self.value_scan.as_dict(),
            "sha256": self.sha256,
        }

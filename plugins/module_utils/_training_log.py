# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the end of a training log: how far the training came, and what went wrong.

The log has no times and may hold several runs, one after the other. So a finding says whether it stands after the last
progress, and progress counts from the start of the last run. Lines are text and nothing else; what is returned of them
is bounded. This util is private to the collection.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Deque, Dict, List, Optional, Pattern, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError, explain, open_regular
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING

MAX_BYTES = 256 * 1024
MOST_BYTES = 16 << 20
LINES = 20
MOST_LINES = 1000
MAX_LINE = 500
MAX_NOTE = 64 * 1024
MAX_WORDS = 100
# No pattern is tried on more of a line than this.
MAX_EXAMINED = 4096

_NUMBER = r"[-+]?(?:\d{1,15}(?:\.\d{1,15})?(?:[eE][-+]?\d{1,3})?|nan|inf)"
_EPOCH = re.compile(
    rf"Epoch \[(\d{{1,9}})/(\d{{1,9}})\], Train Loss: ({_NUMBER}), Val Loss: ({_NUMBER})(.{{0,200}})", re.I
)
_ACCURACY = re.compile(r"Policy Acc: (\d{1,3}(?:\.\d{1,6})?)%")
_BATCH = re.compile(rf"Epoch (\d{{1,9}}), Batch (\d{{1,12}}): Loss=({_NUMBER})", re.I)
_SUMMARY = re.compile(
    rf"\bTRAINING_SUMMARY: loss=({_NUMBER}) samples=(\d{{1,15}}) games=(\d{{1,15}}) epochs=(\d{{1,9}})", re.I
)
# Said before the run is said to start.
_TUNED = re.compile(r"\[AutoBatchSize\] Auto-tuned batch size: (\d{1,5})\b")
_RUN = re.compile(r"Starting training for \d{1,9} epochs")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):")
_EXCEPTION = re.compile(r"\A[A-Za-z_][\w.]{0,200}(?::|\Z)")


@dataclass(frozen=True)
class Meaning:
    """What a line means. Of several that match, only the first counts."""

    code: str
    severity: str
    regex: Pattern[str]


def _means(code: str, severity: str, regex: str) -> Meaning:
    return Meaning(code, severity, re.compile(regex))


MEANINGS = (
    _means("cuda_oom", ERROR, r"(?i:cuda out of memory)|CUDA error: out of memory|\bOutOfMemoryError\b"),
    _means("circuit_open", ERROR, r"Training circuit OPEN"),
    _means("cuda_error", ERROR, r"CUDA error in batch \d|\bCUDA error: |\bCUDNN_STATUS_\w+ERROR"),
    _means("nccl_timeout", ERROR, r"Watchdog caught collective operation timeout|\bNCCL (?:error|timeout)"),
    _means("nan", ERROR, r"\bNaN/Inf\b|(?i:\bLoss[:=] ?[-+]?(?:nan|inf)\b)"),
    _means("stale_data", ERROR, r"TRAINING BLOCKED"),
    _means("data_invalid", ERROR, r"Training data validation failed|Encoder mismatch: "),
    _means("weights_not_loaded", WARNING, r"Could not load (?:existing|init) weights\b"),
    _means("checkpoint_invalid", ERROR, r"Invalid checkpoint format|failed reading zip archive"),
    _means("resume_refused", ERROR, r"Model ID '[^']{0,200}' contains '[^']{0,50}' but board_type is"),
    _means("disk_full", ERROR, r"No space left on device|Insufficient disk space"),
    _means(
        "host_killed",
        ERROR,
        r"\A(?:\S{1,300}: line \d+: +\d+ +)?Killed(?:\s|\Z)|is killed by signal: Killed|\bCannot allocate memory\b",
    ),
    _means("terminated", WARNING, r"Received SIG(?:TERM|INT), initiating graceful shutdown"),
    _means("training_failed", ERROR, r"TRAINING_FAILED emitted"),
)


@dataclass(frozen=True)
class LogFinding:
    """Something that lines of the log say.

    ``line`` is the last of them, and ``after_progress`` tells that it is newer than any progress.
    """

    code: str
    severity: str
    count: int
    line: str
    after_progress: bool


@dataclass(frozen=True)
class LogProgress:
    """How far the last run came: the last epoch that it finished, and the last batch that it told of.

    ``offset`` is where in the file the last such line begins; a loss that is not finite is None, and ``finite`` False.
    """

    epoch: Optional[int] = None
    total_epochs: Optional[int] = None
    loss: Optional[float] = None
    val_loss: Optional[float] = None
    policy_accuracy: Optional[float] = None
    batch_epoch: Optional[int] = None
    batch: Optional[int] = None
    batch_loss: Optional[float] = None
    finite: bool = True
    offset: int = 0

    @property
    def position(self) -> Tuple[int, int]:
        """Epochs finished, and the batch of the one that runs, which is -1 where there is none."""
        done = self.epoch or 0
        if self.batch_epoch is not None and self.batch is not None and self.batch_epoch > done:
            return self.batch_epoch - 1, self.batch
        return done, -1

    def as_dict(self) -> Dict[str, Any]:
        shown = asdict(self)
        del shown["offset"]
        return shown


@dataclass(frozen=True)
class TrainingLog:
    """The end of a log. ``complete`` is where its last whole line ends; a run may still be writing the next.

    ``batch_size`` is what the service tuned it to in the last run; ``start`` is what ``training_start`` noted beside
    the log, ``{at, cmdline}``, and of a run that something else started since then it knows nothing.
    """

    path: str
    exists: bool
    size: Optional[int] = None
    mtime: Optional[float] = None
    inode: Optional[int] = None
    device: Optional[int] = None
    read_bytes: int = 0
    complete: int = 0
    progress: Optional[LogProgress] = None
    lines_since_progress: Optional[int] = None
    summary: Optional[Dict[str, Any]] = None
    batch_size: Optional[int] = None
    start: Optional[Dict[str, Any]] = None
    findings: Tuple[LogFinding, ...] = ()
    lines: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        return {
            "log_path": self.path,
            "exists": self.exists,
            "size": self.size,
            "mtime": self.mtime,
            "inode": self.inode,
            "read_bytes": self.read_bytes,
            "truncated": self.size is not None and self.read_bytes < self.size,
            "progress": None if self.progress is None else self.progress.as_dict(),
            "lines_since_progress": self.lines_since_progress,
            "summary": self.summary,
            "batch_size": self.batch_size,
            "start": self.start,
            "findings": [asdict(finding) for finding in self.findings],
            "lines": list(self.lines),
        }


def read_log(path: str, max_bytes: int = MAX_BYTES, lines: int = LINES) -> TrainingLog:
    """Read the last ``max_bytes`` bytes of a log. One that does not exist is a finding, not a failure.

    :param lines: how many of the last lines to return, each cut at 500 characters
    :raises RecoveryError: the log is there and cannot be read
    """
    if not 1 <= max_bytes <= MOST_BYTES:
        raise RecoveryError(f"max_bytes is {max_bytes}. It must be from 1 to {MOST_BYTES}.")
    if not 0 <= lines <= MOST_LINES:
        raise RecoveryError(f"lines is {lines}. It must be from 0 to {MOST_LINES}.")
    path = os.path.abspath(os.path.expanduser(path))
    try:
        fd = open_regular(path)
    except MissingFileError:
        return TrainingLog(path=path, exists=False)
    try:
        status = os.fstat(fd)
        start = max(0, status.st_size - max_bytes)
        data = _read(fd, path, start, status.st_size - start)
    finally:
        os.close(fd)
    reading = parse(data, start, lines)
    return TrainingLog(
        path=path,
        exists=True,
        size=status.st_size,
        mtime=status.st_mtime,
        inode=status.st_ino,
        device=status.st_dev,
        read_bytes=len(data),
        complete=start + data.rfind(b"\n") + 1,
        progress=reading.progress,
        lines_since_progress=None if reading.progress is None else reading.number - reading.moved_at,
        summary=reading.summary,
        batch_size=reading.batch_size if reading.tuned is None else reading.tuned,
        start=_read_start(f"{path}.start"),
        findings=tuple(reading.found()),
        lines=tuple(reading.last),
    )


def _read_start(path: str) -> Optional[Dict[str, Any]]:
    """What was noted of a start; None where there is no note that can be understood."""
    try:
        fd = open_regular(path)
    except RecoveryError:
        return None
    try:
        noted = json.loads(_read(fd, path, 0, MAX_NOTE))
    except (RecoveryError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)
    at, words = (noted.get("at"), noted.get("cmdline")) if isinstance(noted, dict) else (None, None)
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not isinstance(words, list):
        return None
    return {"at": float(at), "cmdline": [str(word)[:MAX_LINE] for word in words[:MAX_WORDS]]}


def _read(fd: int, path: str, start: int, length: int) -> bytes:
    parts: List[bytes] = []
    while length > 0:
        try:
            part = os.pread(fd, min(length, 1 << 20), start)
        except OSError as exc:
            raise explain("read", path, exc) from exc
        if not part:
            break  # it was truncated meanwhile
        parts.append(part)
        start += len(part)
        length -= len(part)
    return b"".join(parts)


@dataclass
class Reading:
    """What was read so far."""

    progress: Optional[LogProgress] = None
    summary: Optional[Dict[str, Any]] = None
    # The batch size that the last run was tuned to, and one that is said of the run that comes next.
    batch_size: Optional[int] = None
    tuned: Optional[int] = None
    last: Deque[str] = field(default_factory=deque)
    counts: Dict[str, int] = field(default_factory=dict)
    texts: Dict[str, str] = field(default_factory=dict)
    places: Dict[str, int] = field(default_factory=dict)
    in_traceback: bool = False
    number: int = 0
    # The last line that tells of progress, and the last of those whose loss is a number.
    moved_at: int = -1
    progress_at: int = -1

    def found(self) -> List[LogFinding]:
        """The findings, errors first, the newest first among equals."""
        severities = {**{meaning.code: meaning.severity for meaning in MEANINGS}, "traceback": ERROR}
        codes = sorted(self.counts, key=lambda code: (severities[code] != ERROR, -self.places[code]))
        return [
            LogFinding(
                code, severities[code], self.counts[code], self.texts[code], self.places[code] > self.progress_at
            )
            for code in codes
        ]


def parse(data: bytes, start: int = 0, lines: int = LINES) -> Reading:
    """Examine the end of a log, which begins at byte ``start`` of the file.

    The first line is left out where it began before, and progress is only taken from lines that are complete.
    """
    reading = Reading(last=deque(maxlen=lines))
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin)
        complete = end >= 0
        piece = data[begin : end if complete else len(data)]
        if begin > 0 or start == 0 or not complete:
            # A log that was emptied under a writer begins with NULs; a progress bar rewrites its line.
            text = piece.strip(b"\0\r").rpartition(b"\r")[2][:MAX_EXAMINED].decode("utf-8", "replace").rstrip()
            reading.number += 1
            reading.last.append(text[:MAX_LINE])
            _examine(reading, text, start + begin if complete else None)
        if not complete:
            break
        begin = end + 1
    return reading


def _examine(reading: Reading, text: str, offset: Optional[int]) -> None:
    if offset is not None:
        if _RUN.search(text):
            reading.progress, reading.summary = None, None
            reading.batch_size, reading.tuned = reading.tuned, None
        elif _take_progress(reading, text, offset):
            reading.moved_at, reading.summary = reading.number, None
            if reading.progress is not None and reading.progress.finite:
                reading.progress_at = reading.number
    match = _TUNED.search(text)
    if match:
        reading.tuned = int(match.group(1)) or None
    if reading.in_traceback and text and not text[0].isspace():
        # The first line that is not indented is the exception itself.
        if _EXCEPTION.match(text):
            reading.texts["traceback"] = text[:MAX_LINE]
        reading.in_traceback = False
    if _TRACEBACK.search(text):
        reading.in_traceback = True
        _count(reading, "traceback", text)
        return
    for meaning in MEANINGS:
        if meaning.regex.search(text):
            _count(reading, meaning.code, text)
            return


def _count(reading: Reading, code: str, text: str) -> None:
    reading.counts[code] = reading.counts.get(code, 0) + 1
    reading.texts[code] = text[:MAX_LINE]
    reading.places[code] = reading.number


def _take_progress(reading: Reading, text: str, offset: int) -> bool:
    """Note what a line says of progress; whether it is any."""
    match = _EPOCH.search(text)
    if match:
        loss, val_loss = _finite(match.group(3)), _finite(match.group(4))
        accuracy = _ACCURACY.search(match.group(5))
        reading.progress = LogProgress(
            epoch=int(match.group(1)),
            total_epochs=int(match.group(2)),
            loss=loss,
            val_loss=val_loss,
            policy_accuracy=None if accuracy is None else round(float(accuracy.group(1)) / 100, 8),
            finite=loss is not None and val_loss is not None,
            offset=offset,
        )
        return True
    match = _BATCH.search(text)
    if match:
        before, loss = reading.progress or LogProgress(), _finite(match.group(3))
        reading.progress = LogProgress(
            epoch=before.epoch,
            total_epochs=before.total_epochs,
            loss=before.loss,
            val_loss=before.val_loss,
            policy_accuracy=before.policy_accuracy,
            batch_epoch=int(match.group(1)),
            batch=int(match.group(2)),
            batch_loss=loss,
            finite=loss is not None,
            offset=offset,
        )
        return True
    match = _SUMMARY.search(text)
    if match:
        reading.summary = {
            "loss": _finite(match.group(1)),
            "samples": int(match.group(2)),
            "games": int(match.group(3)),
            "epochs": int(match.group(4)),
        }
    return False


def _finite(text: str) -> Optional[float]:
    value = float(text)
    return value if math.isfinite(value) else None

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of a journal: lines of JSON that are only ever appended, under a lock of its own. Private to the collection.

What a killed writer left of a line, and lines that are none, are counted and hide nothing of the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import explain, sync_directory
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

# A run has some ten lines of at most a kilobyte; older ones than the last half mebibyte say nothing of today.
MAX_BYTES = 1 << 19
KEPT_BYTES = 1 << 20
LOCK_SECONDS = 10.0
TICK = 0.05

Record = Dict[str, Any]


def read(path: str) -> Tuple[List[Record], int]:
    """The records of the end of a journal in order, and how many of its lines are none.

    :raises RecoveryError: it is there and cannot be read
    """
    found = [_record(line) for part in (f"{path}.1", path) for line in _tail(part) if line.strip()]
    records = [record for record in found if record is not None]
    return records, len(found) - len(records)


def append(path: str, record: Mapping[str, Any]) -> None:
    """Add a record for good, in a line of its own whatever the last writer left. Call it under ``locked``.

    :raises RecoveryError: it cannot be written; then nothing of it counts
    """
    line = json.dumps(record, sort_keys=True).encode() + b"\n"
    try:
        _rotate(path)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o664)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            written = os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        sync_directory(path)
    except OSError as exc:
        raise explain("write", path, exc) from exc
    if written != len(line):
        raise RecoveryError(f"Could not write {path}: only a part fitted. Make room on the disk.")


@contextlib.contextmanager
def locked(path: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Keep all others from writing. The lock is a file beside the journal, which is never renamed and stays.

    :raises RecoveryError: it cannot be made, or somebody keeps it for more than ``seconds``
    """
    place = f"{path}.lock"
    try:
        os.makedirs(os.path.dirname(path), 0o775, exist_ok=True)
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    except OSError as exc:
        raise explain("write", place, exc) from exc
    try:
        end = time.monotonic() + seconds
        while not _take(handle, place):
            if time.monotonic() >= end:
                raise RecoveryError(
                    f"Somebody keeps {place} locked for more than {seconds:g} s, which should take a moment only. "
                    f"See who: fuser -v {place}"
                )
            time.sleep(TICK)
        yield
    finally:
        os.close(handle)


def _tail(path: str) -> List[bytes]:
    """The last lines of a file; none where there is no file."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - MAX_BYTES))
            lines = stream.read(MAX_BYTES).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise explain("read", path, exc) from exc
    # The first one of a long file is cut.
    return lines[1:] if size > MAX_BYTES else lines


def _take(handle: int, place: str) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        raise explain("lock", place, exc) from exc
    return True


def _record(line: bytes) -> Any:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _rotate(path: str) -> None:
    """Put a long journal aside; the one before it goes."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_size > KEPT_BYTES:
            os.replace(path, f"{path}.1")

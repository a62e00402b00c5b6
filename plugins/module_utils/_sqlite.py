# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a database of the service for reading, and leave nothing behind. This util is private to the collection.

Even a read-only connection makes the files ``-wal`` and ``-shm`` where a database with a write-ahead log lacks them; an
immutable one makes nothing and takes no lock, but must be checked against writers that came by: compare
:func:`fingerprint` before and after.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Optional, Tuple
from urllib.parse import quote

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import open_regular
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

MAGIC = b"SQLite format 3\0"
# Of the two version bytes of the header, either makes SQLite look for a write-ahead log.
WRITE_AHEAD = 2
# How many steps of its virtual machine SQLite may take between two looks at the clock.
STEPS = 10_000


def fingerprint(path: str) -> Tuple[Tuple[int, int], ...]:
    """Size and time of the database and of its journals, which a writer changes."""
    prints = []
    for name in (path, f"{path}-wal", f"{path}-journal"):
        try:
            status = os.stat(name)
            prints.append((status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            prints.append((-1, 0))
    return tuple(prints)


def how_to_open(path: str) -> Tuple[str, int]:
    """Options of the connection, and how many bytes of the write-ahead log it will not see.

    :raises RecoveryError: it is no regular file, or no database
    :raises OSError: it cannot be read
    """
    handle = open_regular(path)
    try:
        head = os.read(handle, 20)
    finally:
        os.close(handle)
    if head and not head.startswith(MAGIC):
        raise RecoveryError(f"{path} is not an SQLite database. Move it aside, or set another path.")
    if WRITE_AHEAD not in head[18:20]:
        return "mode=ro", 0
    log = _size(f"{path}-wal")
    if log is not None and _size(f"{path}-shm") is not None:
        return "mode=ro&readonly_shm=1", 0
    return "mode=ro&immutable=1", log or 0


def connect(path: str, options: str, end: float, busy: float) -> sqlite3.Connection:
    """Connect; every query is interrupted at ``end`` (monotonic seconds), a lock is waited for ``busy`` seconds."""
    patience = max(0.0, min(busy, end - time.monotonic()))
    connection = sqlite3.connect(f"file:{quote(path)}?{options}", uri=True, timeout=patience)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)
    return connection


def led_astray(path: str, options: str, before: Tuple[Tuple[int, int], ...], exc: sqlite3.Error) -> bool:
    """Whether an error comes of a writer that came by since ``before``: it wrote, or took its write-ahead log away."""
    return ("immutable" in options or "unable to open" in str(exc)) and before != fingerprint(path)


def explain(path: str, exc: sqlite3.Error, timeout: float, end: float, busy: float) -> str:
    """What an error of SQLite means for a file, and what to do."""
    text = str(exc)
    if "interrupted" in text or time.monotonic() > end:
        return f"{path} gave no answer within {timeout:g} s. Give it more time, or see who holds it."
    if "locked" in text or "busy" in text:
        return f"{path} is locked by another process for more than {busy:g} s. See who holds it."
    if "malformed" in text or "not a database" in text or "corrupt" in text or "encrypted" in text:
        return f"{path} is damaged: {text}. Stop the service, move the file away, and let the service make a new one."
    return f"{path} cannot be read: {text}. Check that this user may read it and its directory."


def _size(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None

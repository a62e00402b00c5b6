# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make sure that nobody has a file open before it is removed. This util is private to the collection."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterable, Iterator, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_files import FoundFile, Place
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import OpenFiles, open_files

# A look at the open files of all processes is good for so many seconds.
LOOK_AGAIN = 1.0


class Look:
    """The open files of all processes, looked at anew when the last look is too old."""

    def __init__(self) -> None:
        self.unseen: Optional[str] = None
        self._wanted: Dict[Place, str] = {}
        self._seen = OpenFiles({})
        self._time = 0.0

    def at(self, files: Iterable[FoundFile]) -> None:
        self._wanted = {file.place: file.path for file in files}
        self._time = time.monotonic()
        try:
            self._seen = open_files(self._wanted)
            self.unseen = self._seen.unseen
        except RecoveryError as exc:
            self._seen = OpenFiles({})
            self.unseen = str(exc)

    def refresh(self, files: Iterable[FoundFile]) -> None:
        if time.monotonic() - self._time > LOOK_AGAIN:
            self.at(files)

    def held(self, files: Iterable[FoundFile], leases: ExitStack) -> Optional[Tuple[str, str]]:
        """Why a file must stay. Otherwise nobody can open it without waiting for as long as the leases are held."""
        for file in files:
            pids = self._seen.holders.get(file.place, ())
            if pids:
                return ("open", f"process {pids[0]} has {file.name} open")
            free = leases.enter_context(leased(file.path))
            if free is False:
                return ("open", f"a process that cannot be seen from here has {file.name} open")
            if free is None and self.unseen is not None:
                return ("may_be_open", f"{self.unseen}, and the kernel does not tell whether {file.name} is open")
        return None


@contextmanager
def leased(path: str) -> Iterator[Optional[bool]]:
    """Whether no other descriptor or mapping of a file exists, in any namespace and of any user; None when not known.

    The kernel grants a write lease only then, and while it is held nobody can open the file without waiting.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        free: Optional[bool] = True
        try:
            # What tells of somebody who waits is a signal that is ignored by default, unlike the usual SIGIO.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as exc:
            # Other errors mean that this file system has no leases, or this user may not have one on it.
            free = False if exc.errno == errno.EAGAIN else None
        yield free
    finally:
        os.close(fd)

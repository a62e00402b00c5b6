# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signal exactly one process: by a handle (pidfd), which stays with it when its number is given to another one.

The kernel has handles since 5.3, Python since 3.9; before that the system calls are made directly. This util is private
to the collection.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import signal
from typing import Callable, Iterator, Optional

# The same on every architecture.
PIDFD_SEND_SIGNAL = 424
PIDFD_OPEN = 434


@contextlib.contextmanager
def opened(pid: int) -> Iterator[Callable[[int], None]]:
    """What sends a signal to the process that has this number now; by number where there are no handles.

    :raises ProcessLookupError: it is gone
    """
    handle = _open(pid)
    if handle is None:
        yield functools.partial(os.kill, pid)
        return
    try:
        yield functools.partial(_send, handle)
    finally:
        os.close(handle)


def _open(pid: int) -> Optional[int]:
    """A handle of a process; None where the kernel or a sandbox has none.

    :raises ProcessLookupError: it is gone
    """
    try:
        if hasattr(os, "pidfd_open"):
            return os.pidfd_open(pid)
        return _call(PIDFD_OPEN, pid, 0)
    except ProcessLookupError:
        raise
    except OSError:
        return None


def _send(handle: int, number: int) -> None:
    if hasattr(signal, "pidfd_send_signal"):
        signal.pidfd_send_signal(handle, number)
    else:
        _call(PIDFD_SEND_SIGNAL, handle, int(number), None, 0)


def _call(number: int, *arguments: Optional[int]) -> int:
    """A system call.

    :raises OSError: it failed
    """
    try:
        system_call = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError) as exc:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from exc
    system_call.restype = ctypes.c_long
    words = (ctypes.c_void_p(None) if word is None else ctypes.c_long(word) for word in arguments)
    result = system_call(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)

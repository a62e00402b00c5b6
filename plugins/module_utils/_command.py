# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program of the node, and never wait for it longer than a deadline.

A program that is stuck in the kernel, as nvidia-smi is with a stuck driver, is not reached even by SIGKILL. So it runs
in a session of its own, is killed when its time is over, and is left behind when it does not die. What else is in the
session ends with it. What it writes has a bound, and is read as text only. This util is private to the collection.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

# A login without a shell, as Ansible's, may have a shorter PATH than an operator.
MORE_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/bin")
MAX_OUTPUT = 1 << 20
MAX_MESSAGE = 300
# Between two looks whether it has ended although something still holds its output open.
SLICE = 0.05
# Seconds that are granted to see it die.
REAP = 0.2


@dataclass(frozen=True)
class Survivor:
    """A process that SIGKILL did not end, because the kernel does not let go of it. ``wchan`` is where it waits."""

    pid: int
    state: Optional[str]
    wchan: Optional[str]


@dataclass(frozen=True)
class Answer:
    """What one call gave. ``code`` is None when it had to be killed; ``survivor`` is set when that did not help.

    ``cut`` says that it wrote more than what is in ``output``.
    """

    code: Optional[int]
    output: str
    errors: str
    seconds: float
    survivor: Optional[Survivor] = None
    cut: bool = False

    @property
    def hung(self) -> bool:
        return self.code is None

    @property
    def message(self) -> str:
        """The first line that it wrote, to quote."""
        lines = [line.strip() for line in (self.output + "\n" + self.errors).splitlines() if line.strip()]
        return lines[0][:MAX_MESSAGE] if lines else "it wrote nothing"


def find(name: str) -> Optional[str]:
    """The path of a program by its name, also where a login without a shell does not look."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *MORE_PATH]))
    return os.path.abspath(found) if found else None


def run(
    argv: Sequence[str],
    timeout: float,
    *,
    inclusive: bool = False,
    environment: Optional[Mapping[str, str]] = None,
    cwd: Optional[str] = None,
    most: int = MAX_OUTPUT,
    newest: bool = False,
) -> Answer:
    """Run a program for at most ``timeout`` seconds; then its session is killed, and it is not waited for.

    :param inclusive: what it takes to see it die is part of the deadline
    :param environment: all of its environment; that of this process in the locale C where not given
    :param most: bytes of output that are kept; there are that many of its errors too
    :param newest: of more than that the end is kept, not the beginning
    :raises RecoveryError: it cannot be started
    """
    begun = time.monotonic()
    reap = min(REAP, timeout / 10) if inclusive else 0.0
    end = begun + timeout - reap
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"} if environment is None else environment,
        )
    except OSError as exc:
        raise RecoveryError(f"{argv[0]} could not be started: {exc.strerror or exc}.") from exc
    try:
        texts, ended = _read(process, end, most, newest)
    finally:
        survivor = _end(process, end + (reap or REAP))
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    cut = len(texts[0]) > most
    output, errors = (bytes(text[-most:] if newest else text[:most]).decode("utf-8", "replace") for text in texts)
    code = process.returncode if ended else None
    return Answer(code, output, errors, time.monotonic() - begun, survivor, cut)


def _read(process: subprocess.Popen[bytes], end: float, most: int, newest: bool) -> Tuple[List[bytearray], bool]:
    """What it writes until it ends, at least a byte more than is kept where there is more, and whether it has ended."""
    texts = [bytearray(), bytearray()]
    with selectors.DefaultSelector() as selector:
        for text, stream in zip(texts, filter(None, (process.stdout, process.stderr))):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, text)
        while True:
            # Asked before the read, so that nothing which was written before the end is missed.
            ended = _has_ended(process)
            left = end - time.monotonic()
            ready = selector.select(0 if ended else max(0.0, min(SLICE, left)))
            for key, _events in ready:
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                text = key.data
                text.extend(chunk if newest else chunk[: most + 1 - len(text)])
                # In steps, since every one of them moves all of it.
                if newest and len(text) > 2 * most:
                    del text[: -most - 1]
            if (ended and not ready) or left <= 0:
                return texts, ended


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Asked without reaping it, so that its number, which is that of its session too, is not given to another yet."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        # Whoever ignores SIGCHLD has no zombies.
        return True


def _end(process: subprocess.Popen[bytes], end: float) -> Optional[Survivor]:
    """Kill what is left of its session; the process, where it still stands at the end."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    # A moment is always granted: a process that does die takes some milliseconds.
    end = max(end, time.monotonic() + 0.05)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    if process.returncode is not None:
        return None
    stat = _proc.read_stat(process.pid)
    return Survivor(process.pid, stat.state if stat else None, _proc.read_wchan(process.pid))

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run probes side by side, each bounded by one deadline. This util is private to the collection."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, NoReturn, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

PIECE = 1 << 16
# How long a process that was killed may take to end; one that hangs in the kernel takes for ever.
END = 0.5
# After the deadline it ends by itself, should the one that waits for it be gone.
GRACE = 5


class Once:
    """A look that several probes need: taken once, by a thread of its own, when the first of them asks for it."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._begun = False
        self._value: Any = None
        self._error: Optional[Exception] = None

    def begin(self) -> None:
        """Look, without waiting for what is seen."""
        with self._lock:
            if not self._begun:
                self._begun = True
                threading.Thread(target=self._run, daemon=True).start()

    def get(self, seconds: Optional[float] = None) -> Any:
        """What was seen.

        :param seconds: how long to wait for it; None for ever
        :raises RecoveryError: it was not seen by then
        """
        self.begin()
        if not self._done.wait(seconds):
            raise RecoveryError(f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._look()
        except Exception as exc:  # whoever asks gets it
            self._error = exc
        self._done.set()


def run_probes(
    probes: Mapping[str, Callable[[], Any]], deadline: float
) -> Tuple[Dict[str, Any], Dict[str, str], Dict[str, float]]:
    """Call every probe in a thread of its own and wait at most ``deadline`` seconds for all of them together.

    The threads are in a process of their own, which is killed at the end and not waited for: a thread that hangs in the
    kernel, at a driver or a dead mount, keeps its whole process from ending. So what probes return must be plain data.

    :returns: results by name, the reason by name of each probe that could not look, and seconds by name
    :raises RecoveryError: no process could be started
    """
    end = time.monotonic() + deadline
    reader, writer = os.pipe()
    if "mitogen" in sys.modules:
        # It serves imports to the threads of its own process, and to no process that is forked from that.
        answers = _listen_here(probes, reader, writer, end)
        return _told(probes, answers, f"no answer within {deadline:g} s")
    try:
        pid = os.fork()
    except OSError as exc:
        os.close(reader)
        os.close(writer)
        raise RecoveryError(
            f"No process could be started to look at this node: {exc.strerror or exc}. "
            "It is out of memory or of process numbers; end what uses them."
        ) from exc
    if pid == 0:
        _work(probes, writer, deadline)  # pragma: no cover - see there
    os.close(writer)
    early = False
    try:
        answers, early = _listen(reader, len(probes), end)
    finally:
        os.close(reader)
        how = _end(pid, early)
    return _told(probes, answers, f"its process ended early{how}" if early else f"no answer within {deadline:g} s")


def _told(
    probes: Mapping[str, Callable[[], Any]], answers: Mapping[str, Mapping[str, Any]], why: str
) -> Tuple[Dict[str, Any], Dict[str, str], Dict[str, float]]:
    """Results, errors and seconds by name; ``why`` is the error of a probe that gave no answer."""
    failed = {name: answer["error"] for name, answer in answers.items() if "error" in answer}
    failed.update((name, why) for name in probes if name not in answers)
    return (
        {name: answers[name]["result"] for name in probes if "result" in answers.get(name, {})},
        {name: failed[name] for name in probes if name in failed},
        {name: answers[name]["seconds"] for name in probes if name in answers},
    )


def _listen_here(
    probes: Mapping[str, Callable[[], Any]], reader: int, writer: int, end: float
) -> Dict[str, Dict[str, Any]]:
    """The answers of threads of this process. One that hangs stays until the process ends."""
    lock = threading.Lock()
    for name, probe in probes.items():
        threading.Thread(target=_call, args=(name, probe, writer, lock), daemon=True).start()
    try:
        answers, _early = _listen(reader, len(probes), end)
    finally:
        os.close(reader)
    if len(answers) == len(probes):
        # Else the late ones still have it.
        os.close(writer)
    return answers


def _work(
    probes: Mapping[str, Callable[[], Any]], writer: int, deadline: float
) -> NoReturn:  # pragma: no cover - a fork that is killed counts nothing
    """Answer for each probe as soon as it is known, then end."""
    try:
        # A process that hangs must not keep the terminal or the pipes of whoever waits for the module.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(int(deadline) + GRACE)
        lock = threading.Lock()
        threads = []
        for name, probe in probes.items():
            thread = threading.Thread(target=_call, args=(name, probe, writer, lock), daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:
                _answer({"name": name, "error": f"{exc}", "seconds": 0.0}, writer, lock)
            else:
                threads.append(thread)
        for thread in threads:
            thread.join()
    finally:
        os._exit(0)


def _call(name: str, probe: Callable[[], Any], writer: int, lock: threading.Lock) -> None:
    begun = time.monotonic()
    answer: Dict[str, Any] = {"name": name}
    try:
        answer["result"] = probe()
    except RecoveryError as exc:
        answer["error"] = str(exc)
    except Exception as exc:  # a defect in one probe must not hide what the others saw
        answer["error"] = f"{type(exc).__name__}: {exc}"
    answer["seconds"] = round(time.monotonic() - begun, 3)
    try:
        _answer(answer, writer, lock)
    except BrokenPipeError:
        # Too late, and in a process that goes on.
        return
    except (TypeError, ValueError, RecursionError) as exc:
        words = f"its answer is no plain data ({type(exc).__name__}: {exc})"
        _answer({"name": name, "error": words, "seconds": answer["seconds"]}, writer, lock)


def _answer(answer: Mapping[str, Any], writer: int, lock: threading.Lock) -> None:
    line = json.dumps(answer).encode() + b"\n"
    with lock:
        while line:
            line = line[os.write(writer, line) :]


def _listen(reader: int, wanted: int, end: float) -> Tuple[Dict[str, Dict[str, Any]], bool]:
    """The answers that come until ``end``, and whether the process ended before it had given all of them."""
    answers: Dict[str, Dict[str, Any]] = {}
    rest: List[bytes] = []
    waiting = select.poll()
    waiting.register(reader, select.POLLIN)
    while len(answers) < wanted:
        left = end - time.monotonic()
        if left <= 0:
            break
        if not waiting.poll(int(left * 1000) + 1):
            continue
        data = os.read(reader, PIECE)
        if not data:
            return answers, True
        head, newline, tail = data.rpartition(b"\n")
        if newline:
            for line in b"".join([*rest, head]).split(b"\n"):
                answer = json.loads(line)
                answers[answer["name"]] = answer
            rest = []
        rest.append(tail)
    return answers, False


def _end(pid: int, early: bool) -> str:
    """Kill the process, unless it is about to end by itself.

    :returns: by which signal it ended before that, empty where by none
    """
    end = time.monotonic() + END
    ended, status = os.waitpid(pid, os.WNOHANG)
    while early and not ended and time.monotonic() < end:
        time.sleep(0.002)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        return f" by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else ""
    os.kill(pid, signal.SIGKILL)
    while not ended and time.monotonic() < end:
        time.sleep(0.002)
        ended, status = os.waitpid(pid, os.WNOHANG)
    return ""

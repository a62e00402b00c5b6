# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service's exporter, judge it by the file that it wrote, and put that file in place.

The exporter's exit code says nothing: in parallel mode it is the number of samples modulo 256, and single-threaded it
is 0 when nothing was exported. It may also write in place, move an existing file away first, leave a lock, or hang. So
it gets an empty directory of its own beside the destination, and only a file that was verified in full leaves that
directory. Meanwhile it holds the lock that the service's own exporter takes beside the destination, so that neither
replaces what the other has just made. This util is private to the collection.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from types import FrameType
from typing import IO, Any, Dict, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import (
    MissingFileError,
    clean_staged,
    discard,
    explain,
    keep_previous,
    replace_file,
    require_space,
    staged_path,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._games import count_games
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import MIN_SAMPLES, inspect
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_report import FULL, TrainingFile
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import as_dicts

SCRIPT = os.path.join("scripts", "export_replay_dataset.py")
AUTO = "auto"
ALWAYS = "always"
NEVER = "never"
REFRESH = (AUTO, ALWAYS, NEVER)
MODE = 0o644
# The exporter itself refuses to write where less than this would stay free.
MIN_FREE = 2 << 30
TIMEOUT = 1800.0
LOCK_TIMEOUT = 300.0
LOCK_POLL = 0.1
GRACE = 10.0
TAIL = 2000
NONCANONICAL = "Canonical source validation failed"


@dataclass(frozen=True)
class ExportRequest:
    """What to export and how: ``path`` is the training file, ``timeout`` and ``lock_timeout`` are in seconds,
    ``min_free`` in bytes.
    """

    config: TrainingConfig
    service_path: str
    path: Optional[str] = None
    python: Optional[str] = None
    min_samples: int = MIN_SAMPLES
    refresh: str = AUTO
    allow_noncanonical: bool = False
    single_threaded: bool = True
    extra_args: Tuple[str, ...] = ()
    timeout: float = TIMEOUT
    lock_timeout: float = LOCK_TIMEOUT
    min_free: int = MIN_FREE

    @property
    def target(self) -> str:
        """The training file, as an absolute path."""
        path = self.path or os.path.join("data", "training", f"{self.config.name}.npz")
        return os.path.normpath(os.path.join(self.root, os.path.expanduser(path)))

    @property
    def lock(self) -> str:
        """What the service's own exporter locks while it writes to that place."""
        return f"{self.target}.lock"

    @property
    def root(self) -> str:
        """The directory of the service, as an absolute path."""
        return os.path.abspath(os.path.expanduser(self.service_path))

    @property
    def interpreter(self) -> str:
        """The service's own Python, not resolved, since a virtual environment is known by the path of its link."""
        python = self.python or os.path.join("venv", "bin", "python")
        return os.path.join(self.root, os.path.expanduser(python))

    def argv(self, output: str) -> List[str]:
        """The exporter's command line."""
        command = [
            self.interpreter,
            SCRIPT,
            "--use-discovery",
            "--board-type",
            self.config.board,
            "--num-players",
            str(self.config.players),
            "--output",
            output,
            "--skip-remote-check",
        ]
        if self.single_threaded:
            command.append("--single-threaded")
        if self.allow_noncanonical:
            command.append("--allow-noncanonical")
        return [*command, *self.extra_args]


@dataclass(frozen=True)
class Run:
    """How the exporter ended. ``rc`` is negative where a signal ended it, and None where it could not be ended."""

    rc: Optional[int] = None
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    timed_out: bool = False


@dataclass(frozen=True)
class Exported:
    """What was done, or in a dry run would be, and what is in place."""

    changed: bool
    exported: bool
    reason: str
    path: str
    before: Optional[TrainingFile]
    after: Optional[TrainingFile]
    argv: Tuple[str, ...]
    run: Optional[Run] = None
    previous: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        run = self.run or Run()
        after = self.after
        return {
            "changed": self.changed,
            "exported": self.exported,
            "reason": self.reason,
            "path": self.path,
            "valid": None if after is None else after.valid,
            "samples": None if after is None else after.samples,
            "sha256": None if after is None else after.sha256,
            "size": None if after is None else after.size,
            "before": summary(self.before),
            "previous": self.previous,
            "argv": list(self.argv),
            "rc": run.rc,
            "stdout": run.stdout,
            "stderr": run.stderr,
            "seconds": run.seconds,
            "timed_out": run.timed_out,
        }

    def diff(self) -> Dict[str, Any]:
        """The file in place before and after, as data; after a dry run, what would be run."""
        before = _brief(self.before)
        after = _brief(self.after)
        if self.changed and not self.exported:
            after = {"exported by": shlex.join(self.argv), "because": self.reason}
        return {"before_header": self.path, "after_header": self.path, "before": before, "after": after}


class ExportError(RecoveryError):
    """The export failed; ``result`` has what a success would have returned."""

    def __init__(self, message: str, result: Mapping[str, Any]):
        super().__init__(message)
        self.result = dict(result)


def export(request: ExportRequest, dry_run: bool = False, grace: float = GRACE) -> Exported:
    """Export the training file of a config where that is needed.

    :param grace: seconds between asking an exporter that is out of time to end, and ending it

    :raises ExportError: the exporter ran and left no file that can be trained on; the file in place is untouched
    :raises RecoveryError: it could not be run
    """
    _check_request(request)
    before = _look(request)
    reason = _reason(request, before)
    shown_output = os.path.join(
        os.path.dirname(request.target),
        f".{os.path.basename(request.target)}.recovery-<pid>-<random>",
        os.path.basename(request.target),
    )
    wanted = reason not in ("present", NEVER)
    argv = tuple(request.argv(shown_output)) if wanted else ()
    if not wanted:
        return Exported(False, False, reason, request.target, before, before, argv)
    _check_service(request)
    if dry_run:
        _require_games(request)
        previous = None if before is None else f"{request.target}.previous"
        return Exported(True, False, reason, request.target, before, before, argv, previous=previous)
    with _alone(request) as waited:
        if waited:
            # Whoever had the lock may have made the file that is wanted.
            before = _look(request)
            reason = _reason(request, before)
            if reason == "present":
                return Exported(False, False, reason, request.target, before, before, ())
        return _export(request, before, reason, grace)


def _check_request(request: ExportRequest) -> None:
    if request.refresh not in REFRESH:
        raise RecoveryError(f"refresh is {request.refresh!r}; give one of {', '.join(REFRESH)}.")
    if not request.target.endswith(".npz"):
        raise RecoveryError(f"path is {request.target}, but numpy only writes to names that end in .npz. Change it.")
    if request.lock_timeout < 0:
        raise RecoveryError(f"lock_timeout is {request.lock_timeout:g} seconds; give 0 or more.")
    if request.timeout <= 0:
        raise RecoveryError(f"timeout is {request.timeout:g} seconds; give more than 0.")
    for argument in request.extra_args:
        if _means(argument, "--output", 3) or _means(argument, "--append", 4):
            raise RecoveryError(f"extra_args has {argument!r}, which would write around the verification. Remove it.")


def _means(argument: str, flag: str, least: int) -> bool:
    """Whether argparse would take the argument for the flag, of which ``least`` characters are enough."""
    name = argument.split("=", 1)[0]
    return len(name) >= least and flag.startswith(name)


def _check_service(request: ExportRequest) -> None:
    """Everything that would stop the exporter, found before a dry run promises anything."""
    script = os.path.join(request.root, SCRIPT)
    if not os.path.isfile(script):
        raise MissingFileError(f"There is no exporter at {script}. Set service_path to the ai-service directory.")
    if not os.access(request.interpreter, os.X_OK) or os.path.isdir(request.interpreter):
        raise MissingFileError(f"There is no Python at {request.interpreter}. Set python to the service's interpreter.")
    folder = os.path.dirname(request.target)
    if not os.path.isdir(folder):
        raise MissingFileError(f"{folder} is not a directory. Check path and service_path, or create the directory.")
    require_space(request.target, 0, reserve=request.min_free)


def _require_games(request: ExportRequest) -> None:
    """Only the exporter itself could tell more; a dry run at least does not promise what cannot be."""
    count = count_games(request.config, request.root)
    # Which it was given by name need not be where the service looks.
    named = any(_means(argument, "--db", 3) for argument in request.extra_args)
    if count.games or count.uncounted or count.incomplete or named:
        return
    raise RecoveryError(
        f"No database below {request.root} holds a finished game of {request.config.name}, so that an export would "
        "write nothing. Play games first, or copy databases to data/games there."
    )


@contextmanager
def _alone(request: ExportRequest) -> Iterator[bool]:
    """Hold the lock of the service's exporter; whether it had to be waited for. The file stays, as the service's does.

    :raises RecoveryError: somebody has held it all the time, or it may not be opened
    """
    handle = _open_lock(request.lock)
    try:
        deadline = time.monotonic() + request.lock_timeout
        waited = False
        while not _locked(handle):
            if time.monotonic() >= deadline:
                raise RecoveryError(_held(request, handle))
            waited = True
            time.sleep(LOCK_POLL)
        yield waited
    finally:
        os.close(handle)


def _open_lock(path: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
        except FileExistsError:
            return os.open(path, flags)
        # The service opens it for writing, so it must not stay with whoever this runs as.
        folder = os.stat(os.path.dirname(path))
        try:
            os.fchown(handle, folder.st_uid, folder.st_gid)
        except PermissionError:
            pass
    except OSError as exc:
        raise explain("open the export lock", path, exc) from exc
    return handle


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        # On a file system without locks the service's exporter has none either.
        return exc.errno not in (errno.EWOULDBLOCK, errno.EAGAIN)
    return True


def _held(request: ExportRequest, handle: int) -> str:
    status = os.fstat(handle)
    pids = [pid for pid in _proc.flock_holders(status.st_dev, status.st_ino).keepers if pid != os.getpid()]
    who = f" by process {', '.join(map(str, pids))}" if pids else ""
    return (
        f"Another export to {request.target} has held {request.lock}{who} for {request.lock_timeout:g} s; nothing was "
        "exported. Wait for it, or end it where it hangs, then run again; lock_timeout waits longer."
    )


def _look(request: ExportRequest) -> Optional[TrainingFile]:
    try:
        return inspect(
            request.target,
            depth=FULL,
            config=request.config,
            min_samples=request.min_samples,
            checksum=True,
            scan_values=True,
        )
    except MissingFileError:
        return None


def _reason(request: ExportRequest, before: Optional[TrainingFile]) -> str:
    if request.refresh == NEVER:
        return NEVER
    if before is None:
        return "missing"
    if request.refresh == ALWAYS:
        return ALWAYS
    if before.valid:
        return "present"
    errors = {problem.code for problem in before.problems if problem.severity == "error"}
    return next(iter(errors)) if errors in ({"too_few_samples"}, {"wrong_config"}) else "damaged"


def _export(request: ExportRequest, before: Optional[TrainingFile], reason: str, grace: float) -> Exported:
    clean_staged(request.target)
    folder = staged_path(request.target)
    try:
        os.mkdir(folder, 0o700)
    except OSError as exc:
        raise explain("create", folder, exc) from exc
    try:
        output = os.path.join(folder, os.path.basename(request.target))
        argv = request.argv(output)
        run = run_bounded(argv, request.root, request.timeout, grace)
        failed = Exported(False, False, reason, request.target, before, before, tuple(argv), run)
        after = _judge(request, output, failed)
        previous = keep_previous(request.target)
        replace_file(output, request.target, MODE)
    finally:
        discard(folder)
    return Exported(True, True, reason, request.target, before, after, tuple(argv), run, previous)


def _judge(request: ExportRequest, output: str, failed: Exported) -> TrainingFile:
    """The new file, verified in full.

    :raises ExportError: there is none, or none that can be trained on
    """
    try:
        report = inspect(
            output, depth=FULL, config=request.config, min_samples=request.min_samples, checksum=True, scan_values=True
        )
    except MissingFileError:
        reason = "wrote no file"
    except RecoveryError as exc:
        reason = f"wrote a file that cannot be read ({exc})"
    else:
        older = _older(report, failed.before)
        if report.valid and older is None:
            return report
        reason = f"wrote a file that cannot be trained on: {report.reasons()}"
        if report.valid:
            reason = f"wrote a file that is older than the one in place: {older}"
    raise ExportError(_complaint(request, failed.run or Run(), reason), failed.as_dict())


def _older(new: TrainingFile, old: Optional[TrainingFile]) -> Optional[str]:
    """Why a new file would be a step back; None where it is none, or where one of them does not tell or is damaged."""
    if old is None or not old.valid:
        return None
    ends = [(report.metadata or {}).get("newest_game_time") for report in (new, old)]
    moments = [_moment(end) for end in ends]
    if moments[0] is None or moments[1] is None or moments[0] >= moments[1]:
        return None
    return f"its newest game is of {ends[0]}, and that of the one in place of {ends[1]}; a game database may be missing"


def _moment(text: Any) -> Optional[float]:
    """Seconds since the epoch; a time without a zone is UTC, as the service writes it."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _complaint(request: ExportRequest, run: Run, reason: str) -> str:
    ended = f"exit code {run.rc}" if run.rc is not None else "it cannot be killed, so it hangs in the kernel"
    if run.timed_out:
        ended = f"stopped after {request.timeout:g} s; {ended}"
    words = _last_words(run)
    text = f"The exporter for {request.config.name} {reason} ({ended}); {request.target} is untouched."
    if words:
        text += f" Its last words: {words}."
    if NONCANONICAL in run.stdout + run.stderr and not request.allow_noncanonical:
        text += " Set allow_noncanonical to export from databases that are not in the registry."
    elif run.timed_out:
        text += " Give it a longer timeout, or look at what it waits for."
    return text


def _last_words(run: Run) -> str:
    """The last lines that say something, of both streams."""
    said = []
    for name, text in (("standard error", run.stderr), ("standard output", run.stdout)):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            said.append(f"on {name}: {' / '.join(lines[-2:])[-400:]}")
    return "; ".join(said)


def summary(report: Optional[TrainingFile]) -> Optional[Dict[str, Any]]:
    """A training file in few words; None for none."""
    if report is None:
        return None
    return {
        "valid": report.valid,
        "problems": as_dicts(report.problems),
        "samples": report.samples,
        "sha256": report.sha256,
    }


def _brief(report: Optional[TrainingFile]) -> Dict[str, Any]:
    return {} if report is None else {"sha256": report.sha256, "samples": report.samples, "valid": report.valid}


def run_bounded(argv: List[str], cwd: str, timeout: float, grace: float = GRACE) -> Run:
    """Run a command in a session of its own; when ``timeout`` seconds are over, the whole group of processes is ended.

    Of what it prints, the end is kept. Whatever of its group outlives it is killed too.

    :raises RecoveryError: it cannot be started
    """
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"}
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as exc:
        raise explain("run", argv[0], exc) from exc
    tails = [_Tail(process.stdout), _Tail(process.stderr)]
    with _stopped_with_us(process):
        try:
            timed_out = not _ended(process, timeout)
            if timed_out:
                _signal_group(process, signal.SIGTERM)
                _ended(process, grace)
        finally:
            # Only after this is the leader waited for, so that its number cannot have passed to another group.
            _signal_group(process, signal.SIGKILL)
            if _ended(process, grace):
                process.wait()
    for tail in tails:
        tail.join(2.0)
    return Run(
        rc=process.returncode,
        stdout=tails[0].text(),
        stderr=tails[1].text(),
        seconds=round(time.monotonic() - begun, 3),
        timed_out=timed_out,
    )


class _Tail(threading.Thread):
    """Reads a pipe to its end, so that the writer never waits, and keeps the last bytes."""

    def __init__(self, pipe: Optional[IO[bytes]]):
        super().__init__(daemon=True)
        self._pipe = pipe
        self._kept = b""
        self.start()

    def run(self) -> None:
        if self._pipe is None:
            return
        with self._pipe:
            while True:
                data = os.read(self._pipe.fileno(), 1 << 16)
                if not data:
                    return
                self._kept = (self._kept + data)[-4 * TAIL :]

    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")[-TAIL:]


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process ended within so many seconds; its status stays there to be waited for."""
    end = time.monotonic() + seconds
    pause = 0.005
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.1)
    return True


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


@contextmanager
def _stopped_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the exporter when this process is told to end, so that none is left to run on alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: Optional[FrameType]) -> None:
        _signal_group(process, signal.SIGKILL)
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)

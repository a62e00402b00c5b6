# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a trainer that outlives whoever starts it.

When the orchestrator of the service starts, it ends every Python process whose parent is process 1 and whose command
line speaks of training. So the trainer gets a parent: a keeper, whose own command line says nothing of the kind, which
waits for the trainer and notes how it ended. This util is private to the collection.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, Dict, Iterator, List, Mapping, Optional, Tuple, cast

from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import (
    LAUNCHER,
    TRAINER,
    Sighting,
    TrainingProcess,
    look,
)

PROGRAM = "app.training.train"
PROGRAM_FILES = ("app/training/train.py", "app/training/train/__main__.py")
# The trainer's model ID names a square board, and it refuses to resume on these before it reads the checkpoint.
HEX_BOARDS = ("hex8", "hexagonal")
CANONICAL = "canonical_"
# The trainer refuses smaller training files.
MIN_DATA = 1024
MANAGED = (
    *("--board-type", "--num-players", "--data-path", "--batch-size", "--epochs", "--save-path"),
    *("--checkpoint-dir", "--checkpoint-interval", "--init-weights", "--resume"),
)
# Words in a command line that make the orchestrator end an orphan.
REAPED = ("selfplay", "train", "gauntlet", "export_replay", "gpu_parallel_games")

POLL = 0.1
TAIL = 2000
# Logs of earlier runs that are kept.
PREVIOUS = 3
ANSWER = 30.0
ALONE = 15.0
# How long the keeper may take to note the end of a trainer.
NOTE = 2.0

# It reads its job from standard input and answers with the number of the trainer. SIGHUP stays ignored in the trainer,
# as with nohup. SIGTERM is not passed on: whoever ends them all would make the trainer get it twice.
KEEPER = """
import json, os, signal, subprocess, sys, time
job = json.loads(sys.stdin.read())
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda number, frame: None)
null = os.open(os.devnull, os.O_RDWR)
child = None
try:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    child = subprocess.Popen(job["argv"], cwd=job["cwd"], env=job["env"], stdin=null, stdout=log, stderr=log)
    answer = {"pid": child.pid}
    os.close(log)
except (OSError, ValueError) as exc:
    answer = {"error": str(exc)}
try:
    os.write(1, json.dumps(answer).encode() + b"\\n")
except OSError:
    pass
for handle in (0, 1, 2):
    os.dup2(null, handle)
if child:
    code = child.wait()
    note = {"pid": child.pid, "rc": code, "ended": time.time()}
    with open(job["exit"] + ".new", "w") as stream:
        json.dump(note, stream)
    os.replace(job["exit"] + ".new", job["exit"])
"""


@dataclass(frozen=True)
class StartRequest:
    """What to start. Paths are relative to ``service_path`` unless they are absolute."""

    config: TrainingConfig
    service_path: str
    python: Optional[str] = None
    data_path: Optional[str] = None
    batch_size: int = 512
    epochs: int = 50
    save_path: Optional[str] = None
    allow_canonical: bool = False
    checkpoint_dir: Optional[str] = None
    checkpoint_interval: Optional[int] = None
    init_weights: Optional[str] = None
    resume: Optional[str] = None
    allow_stale_data: bool = True
    extra_args: Tuple[str, ...] = ()
    log: str = "logs/training.log"

    def path(self, relative: str) -> str:
        return os.path.normpath(os.path.join(os.path.expanduser(self.service_path), os.path.expanduser(relative)))

    @property
    def interpreter(self) -> str:
        """A name without a slash is looked up in PATH."""
        if self.python and "/" not in self.python:
            return shutil.which(self.python) or self.python
        # Not normalized: a link to the interpreter of a virtual environment must keep its path.
        return os.path.join(os.path.expanduser(self.service_path), os.path.expanduser(self.python or "venv/bin/python"))

    @property
    def data(self) -> str:
        return self.data_path or f"data/training/{self.config.name}.npz"

    @property
    def model(self) -> str:
        return self.save_path or f"models/candidate_{self.config.name}.pth"


@dataclass(frozen=True)
class Started:
    """A trainer that runs, or in a prediction would (``pid`` None then). ``created`` is False for one that ran already.

    ``log`` is None where its output does not go to a file; ``previous_log`` is where an earlier log was moved.
    """

    pid: Optional[int]
    start_ticks: Optional[int]
    start_time: Optional[float]
    cmdline: Tuple[str, ...]
    log: Optional[str]
    created: bool
    keeper_pid: Optional[int] = None
    previous_log: Optional[str] = None


@dataclass(frozen=True)
class Ended:
    """How a trainer ended: ``rc`` is its exit code, negative for a signal, None where the keeper could not note it."""

    rc: Optional[int]
    tail: str


def command(request: StartRequest) -> List[str]:
    """The argument vector of the trainer.

    :raises RecoveryError: the request asks for what the trainer refuses, or for what would lose something
    """
    _refuse(request)
    argv = [request.interpreter, "-m", PROGRAM]
    argv += ["--board-type", request.config.board, "--num-players", str(request.config.players)]
    argv += ["--data-path", request.data, "--batch-size", str(request.batch_size), "--epochs", str(request.epochs)]
    argv += ["--save-path", request.model]
    optional = {
        "--checkpoint-dir": request.checkpoint_dir,
        "--checkpoint-interval": request.checkpoint_interval,
        "--init-weights": request.init_weights,
        "--resume": request.resume,
    }
    for option, value in optional.items():
        argv += [option, str(value)] if value is not None else []
    return argv + ["--allow-stale-data"] * request.allow_stale_data + list(request.extra_args)


def missing(request: StartRequest) -> Tuple[List[str], List[str]]:
    """What a start lacks: what nobody puts in place, and the files that an earlier step may still put there."""
    installed, delivered = [], []
    root = request.path("")
    if not any(os.path.isfile(request.path(name)) for name in PROGRAM_FILES):
        installed.append(f"{root} is not the service's directory: {PROGRAM_FILES[0]} is not in it")
    if not os.path.isfile(request.interpreter) or not os.access(request.interpreter, os.X_OK):
        installed.append(f"{request.interpreter}, the interpreter of the service, does not exist or may not be run")
    for relative in filter(None, (request.data, request.init_weights, request.resume)):
        path = request.path(relative)
        try:
            with open(path, "rb") as stream:
                status = os.fstat(stream.fileno())
        except OSError as exc:
            delivered.append(f"{path} cannot be read ({exc.strerror or exc})")
            continue
        if not stat.S_ISREG(status.st_mode):
            delivered.append(f"{path} is not a file")
        elif relative == request.data and status.st_size < MIN_DATA:
            delivered.append(f"{path} has {status.st_size} bytes, and the trainer refuses less than {MIN_DATA}")
    return installed, delivered


def present(sighting: Sighting) -> Optional[TrainingProcess]:
    """The trainer that runs already, or else its launcher; None when nothing of the config runs.

    :raises RecoveryError: that is not certain, or something is left over that is in the way
    """
    alive = [process for process in sighting.processes if process.alive]
    for role in (TRAINER, LAUNCHER):
        found = next((process for process in alive if process.role == role), None)
        if found:
            return found
    if alive:
        pids = ", ".join(str(process.pid) for process in alive)
        raise RecoveryError(
            f"Workers of a trainer that is gone still run (pid {pids}) and may keep its lock and its GPU memory. "
            "Stop them with ringrift.recovery.training_process, state: stopped. Nothing was started."
        )
    doubts = sighting.doubts()
    if doubts:
        raise RecoveryError(
            f"Whether a trainer runs already cannot be told: {doubts}. Run the task with become: true, or reboot the "
            "node when the process stays in this state. Nothing was started."
        )
    return None


def start(request: StartRequest, environment: Mapping[str, str], within: Optional[str] = None) -> Started:
    """Start the trainer under a keeper, and return as soon as it exists; or return the one that runs already.

    Two starts at the same time are kept apart by a lock on the service's directory.

    :raises RecoveryError: it cannot be started
    """
    argv = command(request)
    lacks = [reason for reasons in missing(request) for reason in reasons]
    if lacks:
        raise RecoveryError(f"{'; '.join(lacks)}. Put it in place first. Nothing was started.")
    with _alone(request.path("")):
        running = present(look(request.config, within))
        if running:
            return existing(running)
        log = request.path(request.log)
        previous = _make_room(log)
        pid, keeper = _spawn(request, argv, environment, log)
        _note_start(f"{log}.start", argv)
    seen = _proc.read_stat(pid)
    ticks, moment = (seen.start_ticks, seen.start_time) if seen else (None, None)
    return Started(pid, ticks, moment, tuple(argv), log, True, keeper, previous)


def existing(process: TrainingProcess) -> Started:
    """A trainer that runs already."""
    try:
        log: Optional[str] = os.readlink(f"/proc/{process.pid}/fd/1")
    except OSError:
        log = None
    # A pipe or a terminal is no log.
    log = log if log and log.startswith("/") and not log.startswith("/dev/") else None
    return Started(process.pid, process.start_ticks, process.start_time, process.cmdline, log, created=False)


def watch(started: Started, seconds: float) -> Optional[Ended]:
    """Watch a new trainer for a while; how it ended, or None when it still lives."""
    deadline = time.monotonic() + seconds
    log = started.log or ""
    pid, ticks = started.pid, started.start_ticks
    while pid is not None and ticks is not None and _proc.is_same(pid, ticks):
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL)
    deadline = time.monotonic() + NOTE
    while True:
        noted = _read_note(f"{log}.exit")
        if noted.get("pid") == pid or time.monotonic() >= deadline:
            code = noted.get("rc") if noted.get("pid") == pid else None
            return Ended(code if isinstance(code, int) else None, _tail(log))
        time.sleep(POLL)


def service_environment(environment: Mapping[str, str], extra: Mapping[str, object]) -> Dict[str, str]:
    """The environment of the trainer: this one without what belongs to Ansible, and what is given besides.

    Its output is unbuffered, so that the log is whole when it dies. A value of None takes a variable away.
    """
    foreign = ("ANSIBLE_", "_ANSIBLE", "PYTHONPATH", "PYTHONHOME")
    merged = {name: value for name, value in environment.items() if not name.startswith(foreign)}
    merged["PYTHONUNBUFFERED"] = "1"
    for name, value in extra.items():
        merged.pop(name, None)
        if value is not None:
            merged[name] = str(value)
    return merged


def keeper_interpreter() -> str:
    """An interpreter for the keeper whose path does not make the orchestrator end it."""
    names = [sys.executable, os.path.realpath(sys.executable or "/proc/self/exe"), "/usr/bin/python3"]
    neutral = (name for name in names if name and not any(word in name.lower() for word in REAPED))
    # The last one is this interpreter too, by another name.
    return next((name for name in neutral if os.access(name, os.X_OK)), "/proc/self/exe")


def _refuse(request: StartRequest) -> None:
    """:raises RecoveryError: see :func:`command`"""
    if request.resume and request.init_weights:
        raise RecoveryError("resume and init_weights cannot be used together; leave one of them out.")
    if request.resume and request.config.board in HEX_BOARDS:
        raise RecoveryError(
            f"resume is {request.resume}, and the trainer cannot resume on {request.config.board}: its model ID names "
            "a square board, so it exits before it reads the checkpoint. Use init_weights instead."
        )
    names = (os.path.basename(request.model), os.path.basename(os.path.realpath(request.path(request.model))))
    if not request.allow_canonical and any(name.startswith(CANONICAL) for name in names):
        raise RecoveryError(
            f"save_path is {request.model}, so the first better epoch would overwrite the canonical model. "
            "Use another name, or allow_canonical: true."
        )
    for word in request.extra_args:
        name = word.partition("=")[0]
        # The trainer also takes the beginning of an option's name for it.
        option = next((managed for managed in MANAGED if name.startswith("--") and managed.startswith(name)), None)
        if option:
            raise RecoveryError(f"extra_args has {word!r}, but {option} has an option of its own here; use that.")
    for name in ("batch_size", "epochs", "checkpoint_interval"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise RecoveryError(f"{name} is {value}; it must be at least 1.")


def _spawn(request: StartRequest, argv: List[str], environment: Mapping[str, str], log: str) -> Tuple[int, int]:
    """Start the keeper, and the trainer with it; their process numbers, the trainer's first."""
    job = {"argv": argv, "cwd": request.path(""), "env": dict(environment), "log": log, "exit": f"{log}.exit"}
    keeper = subprocess.Popen(  # pylint: disable=ansible-bad-function
        [keeper_interpreter(), "-I", "-S", "-c", KEEPER],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with cast(IO[bytes], keeper.stdout) as answers:
        try:
            with cast(IO[bytes], keeper.stdin) as jobs:
                jobs.write(json.dumps(job).encode())
            answer = json.loads(_answer(answers.fileno()) or "null")
        except (OSError, ValueError):
            answer = None
    if not isinstance(answer, dict):
        keeper.kill()
        raise RecoveryError(
            f"The keeper of the trainer gave no answer within {ANSWER:g} s. Look with "
            f"ringrift.recovery.training_process whether a trainer of {request.config.name} runs, then start again."
        )
    if "error" in answer:
        raise RecoveryError(f"{argv[0]} could not be started in {job['cwd']}: {answer['error']}. The log is {log}.")
    return int(answer["pid"]), keeper.pid


def _answer(handle: int) -> bytes:
    """The line that the keeper writes; what it is when the deadline has passed."""
    deadline = time.monotonic() + ANSWER
    said = b""
    while not said.endswith(b"\n"):
        ready, _written, _failed = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(handle, 4096) if ready else b""
        if not data:
            break
        said += data
    return said


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Keep other starts in the same service away.

    :raises RecoveryError: one is under way, or the directory may not be opened
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        message = f"{directory} cannot be opened ({exc.strerror or exc}); run the task as the user of the service."
        raise RecoveryError(message) from exc
    try:
        deadline = time.monotonic() + ALONE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as exc:
                if exc.errno != errno.EWOULDBLOCK:
                    # A network file system without locks; then only the look at the processes protects.
                    break
                if time.monotonic() >= deadline:
                    message = f"Another start in {directory} has not finished for {ALONE:g} s. Run it again."
                    raise RecoveryError(message) from exc
            time.sleep(POLL)
        yield
    finally:
        os.close(handle)


def _make_room(log: str) -> Optional[str]:
    """Keep the log of the run before, and forget how that run ended; where the log was moved to.

    :raises RecoveryError: the log cannot be written
    """
    names = [log, f"{log}.previous", *(f"{log}.previous.{number}" for number in range(2, PREVIOUS + 1))]
    try:
        os.makedirs(os.path.dirname(log), exist_ok=True)
        if os.path.lexists(log) and not os.path.isfile(log):
            raise RecoveryError(f"log is {log}, which is not a regular file. Use another name. Nothing was started.")
        moved = os.path.isfile(log) and os.path.getsize(log) > 0
        for older, newer in reversed(list(zip(names[1:], names)) if moved else []):
            if os.path.lexists(newer):
                os.replace(newer, older)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{log}.exit")
        with open(log, "ab"):
            pass
    except OSError as exc:
        raise RecoveryError(
            f"The log {log} cannot be written ({exc.strerror or exc}); check its directory and its disk. "
            "Nothing was started."
        ) from exc
    return names[1] if moved else None


def _note_start(path: str, argv: List[str]) -> None:
    """Note with what the run of a log was started: one that has died no longer tells."""
    # The trainer runs; that nobody will know with which batch size is no reason to fail.
    with contextlib.suppress(OSError):
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            json.dump({"at": time.time(), "cmdline": argv}, stream)
        os.replace(f"{path}.new", path)


def _read_note(path: str) -> Dict[str, object]:
    try:
        with open(path, encoding="utf-8") as stream:
            noted = json.loads(stream.read(4096))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _tail(path: str) -> str:
    """The last characters of a log."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 4 * TAIL))
            return stream.read(4 * TAIL).decode("utf-8", "replace")[-TAIL:]
    except OSError:
        return ""

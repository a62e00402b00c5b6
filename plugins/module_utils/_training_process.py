# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find trainers by their argument vector.

A trainer is ``python -m app.training.train``, ``python -m scripts.train_nnue`` or ``python …/train.py``, alone, under a
launcher such as torchrun, or behind a wrapper such as ``timeout``. The words must stand where an interpreter takes its
program from: a line that merely contains them, as that of an editor, a shell, grep or ssh does, is none.

Roles. A ``launcher`` starts trainers and does not train. A ``worker`` is a process that a trainer forked and that never
ran a program of its own, as the kernel says, or one whose parent is a trainer of the same config; a worker that has
outlived its trainer is an ``orphan``. Everything else that trains is a ``trainer``. This util is private to the
collection.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, Collection, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _cgroup, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig, parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import ProcStat

TRAINER = "trainer"
WORKER = "worker"
LAUNCHER = "launcher"
ROLES = (LAUNCHER, TRAINER, WORKER)

MODULES = {
    "app.training.train": "train",
    "app.training.train_cli": "train",
    "scripts.train_nnue": "train_nnue",
}
SCRIPTS = {"train.py": "script", "train_nnue.py": "train_nnue"}
# They start a trainer as another process, and again when it ends.
LAUNCHER_PROGRAMS = ("torchrun", "accelerate", "accelerate-launch", "deepspeed")
LAUNCHER_MODULES = (
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands.launch",
    "deepspeed.launcher.runner",
    "deepspeed.launcher.launch",
)
# They run the program inside their own process.
RUNNER_MODULES = ("cProfile", "profile", "pdb", "trace", "runpy", "coverage", "debugpy", "viztracer", "scalene")
# They become the program, or wait for it and end with it. For each, its options that take the next word, and how many
# words of its own stand before the program.
WRAPPERS: Dict[str, Tuple[Tuple[str, ...], int]] = {
    "env": (("-u", "--unset", "-C", "--chdir"), 0),
    "nohup": ((), 0),
    "setsid": ((), 0),
    "nice": (("-n", "--adjustment"), 0),
    "ionice": (("-c", "--class", "-n", "--classdata"), 0),
    "chrt": (("-T", "-P", "-D"), 1),
    "taskset": ((), 1),
    "numactl": (("-i", "-N", "-m", "-C", "-p", "--interleave", "--cpunodebind", "--membind", "--physcpubind"), 0),
    "stdbuf": (("-i", "--input", "-o", "--output", "-e", "--error"), 0),
    "time": (("-f", "--format", "-o", "--output"), 0),
    "timeout": (("-k", "--kill-after", "-s", "--signal"), 1),
    "flock": (("-w", "--wait", "--timeout", "-E", "--conflict-exit-code"), 1),
    "sudo": (
        ("-u", "--user", "-g", "--group", "-h", "--host", "-p", "--prompt", "-C", "-D", "-R", "-r", "-t", "-T"),
        0,
    ),
    "doas": (("-u", "-C"), 0),
    "runuser": (("-u", "--user", "-g", "--group"), 0),
}
MAX_WRAPPED = 8
ASSIGNMENT = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*=")
# How often a process that runs Python and has no command line yet is looked at again.
STARTS = 3

SHOWN_WORDS = 100
SHOWN_CHARACTERS = 300
SHOWN_TITLE = 60

PYTHON = re.compile(r"\A(?:python|pypy)[0-9.]*[a-z]*\Z")
# torch gives its processes names of its own.
PYTHON_NAMES = re.compile(r"\A(?:python|pypy|pt_)")
SHORT_WITH_VALUE = "cmWX"
LONG_WITH_VALUE = ("--check-hash-based-pycs",)
CONFIG_WORD = re.compile(r"(?<![A-Za-z0-9_])[a-z][a-z0-9]*_[2-4]p(?![A-Za-z0-9_])")
MULTIPROCESSING = ("--multiprocessing-fork", "from multiprocessing.")


@dataclass(frozen=True)
class Program:
    """What a command line trains: ``kind`` is ``train``, ``train_nnue`` or ``script``, for a launcher ``launcher``.

    ``respawns`` tells that the launcher may start the trainer again when it ends. ``config`` is None where the
    arguments do not say it.
    """

    kind: str
    role: str
    config: Optional[str]
    respawns: bool = False


@dataclass(frozen=True)
class TrainingProcess:
    """A process of a training. Times are unix seconds; ``cpu_seconds`` is user and system time.

    ``state`` is the letter of the kernel (see :class:`ProcStat`), of a leader that has ended that of its other threads.
    ``alive`` is False for a zombie without live threads. ``orphan`` is a worker whose trainer is gone. ``unit`` is the
    systemd unit, ``container`` the container, that its control group names. ``gpu_memory`` is MiB; None means unknown.
    """

    pid: int
    start_time: float
    start_ticks: int
    cmdline: Tuple[str, ...]
    config: Optional[str]
    kind: str
    role: str
    state: str
    ppid: int
    pgrp: int
    session: int
    uid: Optional[int]
    user: Optional[str]
    cwd: Optional[str]
    cpu_seconds: float
    threads: int
    children: Tuple[int, ...]
    alive: bool = True
    orphan: bool = False
    respawns: bool = False
    unit: Optional[str] = None
    container: Optional[str] = None
    gpu_memory: Optional[float] = None

    def as_dict(self) -> Dict[str, Any]:
        shown = shorten(self.cmdline)
        data = {**asdict(self), "cmdline": shown, "cmdline_truncated": tuple(shown) != self.cmdline}
        data.update(children=list(self.children), started=iso_time(self.start_time))
        del data["respawns"]
        return data


@dataclass(frozen=True)
class Unidentified:
    """A process that may be a trainer, and why that cannot be told."""

    pid: int
    comm: str
    state: str
    wchan: Optional[str]
    reason: str

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Sighting:
    """What was seen of the trainings on a node.

    ``processes`` are of the wanted config, ``unknown`` are trainings whose command line does not say its config, and
    ``unidentified`` processes that may be either. ``unseen`` says why there may be processes that cannot be seen at
    all.
    """

    processes: Tuple[TrainingProcess, ...]
    unknown: Tuple[TrainingProcess, ...] = ()
    unidentified: Tuple[Unidentified, ...] = ()
    unseen: Optional[str] = None

    @property
    def running(self) -> int:
        """How many trainings run: live trainers, and launchers and workers that belong to no live trainer."""
        return running(self.processes)

    def with_unknown(self) -> Sighting:
        """The same, with the unknown counted as those of the wanted config."""
        everyone = sorted(self.processes + self.unknown, key=_order)
        return replace(self, processes=tuple(everyone), unknown=())

    def doubts(self) -> Optional[str]:
        """Why it is not certain that these are all processes of the config; None when it is."""
        if self.unidentified:
            first = self.unidentified[0]
            more = len(self.unidentified) - 1
            return f"pid {first.pid} ({first.comm}): {first.reason}" + (f", and {more} more" if more else "")
        return self.unseen


def classify(argv: Sequence[str]) -> Optional[Program]:
    """What a command line trains; None when it is no trainer."""
    if not argv:
        return None
    inner: Optional[Sequence[str]] = argv
    for _layer in range(MAX_WRAPPED):
        name = os.path.basename(inner[0]) if inner else ""
        if not inner or name not in WRAPPERS:
            break
        inner = _wrapped(inner[1:], *WRAPPERS[name])
    found = _program(inner) if inner else None
    return replace(found, kind=LAUNCHER, role=LAUNCHER) if found and inner is not argv else found


def config_of(arguments: Iterable[str]) -> Optional[str]:
    """The config that ``--board-type`` and ``--num-players`` name; None when they do not name a valid one.

    As for the trainer itself, the last of several counts.
    """
    board, players = "", ""
    words = list(arguments)
    for at, word in enumerate(words):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if not equals:
            value = words[at + 1] if at + 1 < len(words) else ""
        if name == "--board-type":
            board = value
        elif name == "--num-players":
            players = value
    try:
        return parse_config(f"{board}_{int(players[:8])}p").name
    except (RecoveryError, ValueError):
        return None


def find_trainers(config: Optional[TrainingConfig] = None, within: Optional[str] = None) -> List[TrainingProcess]:
    """The processes of a training on this node, launchers first, then trainers, then workers.

    :param config: those of this config only; without it all, also those whose config is not known
    :param within: those only whose working directory is this one or below it
    """
    return list(look(config, within).processes)


def unknown_trainers(within: Optional[str] = None) -> List[TrainingProcess]:
    """The processes of trainings whose command line does not say the config."""
    return [found for found in look(None, within).processes if found.config is None]


def is_alive(process: TrainingProcess) -> bool:
    """Whether a process still did something when it was seen: a zombie lives on only in its other threads."""
    return process.alive


def running(processes: Iterable[TrainingProcess]) -> int:
    """How many trainings run: live trainers, and launchers and workers that belong to no live trainer.

    It is 0 exactly when nothing of them is alive.
    """
    alive = [process for process in processes if process.alive]
    parents = {process.ppid for process in alive}
    alone = [process for process in alive if process.role == LAUNCHER and process.pid not in parents or process.orphan]
    return max(len(alone) + sum(process.role == TRAINER for process in alive), min(len(alive), 1))


def look(
    config: Optional[TrainingConfig] = None,
    within: Optional[str] = None,
    gone: Collection[int] = (),
    service_path: Optional[str] = None,
) -> Sighting:
    """Look at every process of this node.

    Never seen as trainers are this process and its ancestors: an operator may run from a shell whose words would fit.

    :param config: as of :func:`find_trainers`
    :param within: as of :func:`find_trainers`
    :param gone: processes to be taken for gone, to predict what follows after a stop
    :param service_path: where trainers work; one that has hidden its command line is looked for there
    """
    stats, words = _proc.read_all()
    for pid in [*_ancestors(os.getpid(), stats), *gone]:
        stats.pop(pid, None)
    _wait_for_words([pid for pid, stat in stats.items() if stat.alive and pid not in words], words)
    programs = {pid: program for pid, program in ((pid, _identify(pid, words.get(pid))) for pid in stats) if program}
    programs.update(_renamed(stats, words, programs))
    # Only now is it certain that a command line belongs to the process that was seen.
    for pid in [pid for pid in programs if not _is_still(stats[pid])]:
        del stats[pid], programs[pid]
    place = os.path.realpath(within) if within else None
    unidentified = [found for found in (_blocked(stat, words.get(pid), place) for pid, stat in stats.items()) if found]
    for pid, program in sorted(programs.items()):
        cwd = _proc.read_cwd(pid) if place else None
        if place and cwd is None and _proc.is_same(pid, stats[pid].start_ticks):
            if config is None or program.config in (None, config.name):
                reason = f"it trains {program.config or 'something'}, and its working directory cannot be seen"
                unidentified.append(_unidentified(stats[pid], reason))
            del programs[pid]
        elif place and not _is_inside(cwd, place):
            del programs[pid]
    home = place or (os.path.realpath(os.path.expanduser(service_path)) if service_path else None)
    unidentified += [
        doubt
        for pid, stat in stats.items()
        if pid not in programs
        for doubt in [_titled(stat, words.get(pid), config, home, place is not None)]
        if doubt
    ]
    found = _family(stats, words, programs)
    belonging = {process.pid for process in found}
    unidentified = [doubt for doubt in unidentified if doubt.pid not in belonging]
    wanted = [process for process in found if config is None or process.config == config.name]
    unknown = [process for process in found if process.config is None] if config else []
    return Sighting(tuple(wanted), tuple(unknown), tuple(unidentified), _proc.hides_processes())


def shorten(words: Sequence[str]) -> List[str]:
    """A command line that is short enough to be shown."""
    return [word[:SHOWN_CHARACTERS] for word in words[:SHOWN_WORDS]]


def iso_time(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _program(argv: Sequence[str]) -> Optional[Program]:
    """What a command line that is not wrapped trains."""
    name = os.path.basename(argv[0])
    if name in LAUNCHER_PROGRAMS:
        return _launched(argv[1:])
    if not PYTHON.match(name):
        return None
    module, script, rest = python_target(argv[1:])
    base = os.path.basename(script or "")
    if module in LAUNCHER_MODULES or base in LAUNCHER_PROGRAMS:
        return _launched(rest)
    if module in RUNNER_MODULES or base == "coverage":
        return _named(rest, TRAINER)
    kind = MODULES.get(module or "") or SCRIPTS.get(base)
    return Program(kind, TRAINER, config_of(rest)) if kind else None


def _wrapped(words: Sequence[str], valued: Collection[str], operands: int) -> Sequence[str]:
    """The command behind the options and operands of a wrapper."""
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            break
        if word.startswith("-") and word != "-":
            at += word in valued
        elif ASSIGNMENT.match(word):
            continue
        elif operands:
            operands -= 1
        else:
            return words[at - 1 :]
    return words[at + operands :]


def python_target(arguments: Sequence[str]) -> Tuple[Optional[str], Optional[str], Sequence[str]]:
    """The module or the script that an interpreter is told to run, and the arguments of that."""
    at = 0
    while at < len(arguments):
        word = arguments[at]
        at += 1
        if word == "--":
            break
        if word == "-":
            return None, None, ()
        if word.startswith("--"):
            at += word in LONG_WITH_VALUE
            continue
        if not word.startswith("-"):
            return None, word, arguments[at:]
        # Letters may stand together; the first that takes a value takes the rest of the word, or else the next one.
        valued = next((spot for spot, letter in enumerate(word) if letter in SHORT_WITH_VALUE), None)
        if valued is None:
            continue
        letter, value = word[valued], word[valued + 1 :]
        if not value:
            value = arguments[at] if at < len(arguments) else ""
            at += 1
        if letter == "m":
            return value, None, arguments[at:]
        if letter == "c":
            return None, None, ()
    return (None, arguments[at], arguments[at + 1 :]) if at < len(arguments) else (None, None, ())


def _launched(arguments: Sequence[str]) -> Optional[Program]:
    """What a launcher starts; None when that is no trainer."""
    found = _named(arguments, LAUNCHER)
    return found and replace(found, kind=LAUNCHER, respawns=True)


def _named(arguments: Sequence[str], role: str) -> Optional[Program]:
    """The first trainer among the arguments of a program that runs it. The options before it are not known."""
    for at, word in enumerate(arguments):
        module = arguments[at + 1] if word in ("-m", "--module") and at + 1 < len(arguments) else ""
        if module in MODULES:
            return Program(MODULES[module], role, config_of(arguments[at + 2 :]))
        kind = None if word.startswith("-") else SCRIPTS.get(os.path.basename(word))
        if kind:
            return Program(kind, role, config_of(arguments[at + 1 :]))
    return None


def _identify(pid: int, words: Optional[Sequence[str]]) -> Optional[Program]:
    """What a process trains, also when it gave itself another name than that of its interpreter."""
    program = classify(words or ())
    if program or not words:
        return program
    title = _title(words)
    # A title that begins as a command line is one: setproctitle puts all of it into one word.
    words = title.split() if title else words
    if title and not PYTHON.match(os.path.basename(words[0])):
        return None
    if not any(word in MODULES or os.path.basename(word) in SCRIPTS for word in words):
        return None
    exe = _proc.read_exe(pid)
    return classify([exe, *words[1:]]) if exe and PYTHON.match(os.path.basename(exe)) else None


def _title(words: Sequence[str]) -> Optional[str]:
    """What a process wrote over its command line; None when it has an argument vector."""
    return words[0] if " " in words[0] and not any(words[1:]) else None


def _renamed(
    stats: Dict[int, ProcStat], words: Dict[int, List[str]], programs: Dict[int, Program]
) -> Dict[int, Program]:
    """Trainers that wrote a title over their command line, by a worker that was forked before and still has it."""
    found = {}
    for pid, program in programs.items():
        parent = stats.get(stats[pid].ppid)
        if not stats[pid].forked or program.role != TRAINER or parent is None or parent.pid in programs:
            continue
        place = _proc.read_arguments_address(pid)
        # Both have the same memory layout, which no other program has by chance.
        if place and _title(words.get(parent.pid) or [""]) and place == _proc.read_arguments_address(parent.pid):
            found[parent.pid] = program
    return found


def _titled(
    stat: ProcStat,
    words: Optional[Sequence[str]],
    config: Optional[TrainingConfig],
    home: Optional[str],
    only_there: bool,
) -> Optional[Unidentified]:
    """The process, when it runs Python under a title that speaks of training, so that it may be a trainer.

    :param home: where every title that speaks of training counts; elsewhere, unless ``only_there``, one with the config
    """
    title = _title(words) if words else None
    if not title or not _runs_python(stat.pid):
        return None
    named = CONFIG_WORD.findall(title)
    if config is None or (named and config.name not in named) or not (named or "train" in title.lower()):
        return None
    cwd = _proc.read_cwd(stat.pid)
    there = home is not None and (_is_inside(cwd, home) or cwd is None)
    if not there and (only_there or not named):
        return None
    now = _proc.is_same(stat.pid, stat.start_ticks)
    if now is None:
        return None
    return _unidentified(now, f"it runs Python under the title {title[:SHOWN_TITLE]!r} instead of a command line")


def _wait_for_words(pids: Sequence[int], words: Dict[int, List[str]]) -> None:
    """A process that is just starting its program is given the time to get a command line."""
    for _turn in range(STARTS):
        starting = [pid for pid in pids if pid not in words and _runs_python(pid) and not _is_blocked(pid)]
        if not starting:
            break
        time.sleep(0.02)
        words.update(_proc.read_cmdlines(starting, deadline=0))


def _is_still(stat: ProcStat) -> bool:
    """Whether a process that was alive is still there; a zombie has no command line that could be another's."""
    return not stat.alive or _proc.is_same(stat.pid, stat.start_ticks) is not None


def _is_blocked(pid: int) -> bool:
    stat = _proc.read_stat(pid)
    return stat is not None and stat.state == _proc.BLOCKED


def _runs_python(pid: int) -> bool:
    stat = _proc.read_stat(pid)
    if stat is None or not stat.alive or stat.kernel:
        return False
    exe = _proc.read_exe(pid)
    return bool(PYTHON.match(os.path.basename(exe)) if exe else PYTHON_NAMES.match(stat.comm))


def _blocked(stat: ProcStat, words: Optional[Sequence[str]], place: Optional[str]) -> Optional[Unidentified]:
    """The process, when it runs Python and its command line cannot be read, so that it may be a trainer."""
    if words or not stat.alive or not _runs_python(stat.pid):
        return None
    cwd = _proc.read_cwd(stat.pid)
    now = _proc.is_same(stat.pid, stat.start_ticks)
    if now is None or (place and cwd is not None and not _is_inside(cwd, place)):
        return None
    reason = "its command line cannot be read"
    if _proc.BLOCKED in (stat.state, now.state):
        reason = f"it is in uninterruptible sleep, and {reason}"
    return _unidentified(now, reason)


def _unidentified(stat: ProcStat, reason: str) -> Unidentified:
    return Unidentified(stat.pid, stat.comm, stat.state, _proc.read_wchan(stat.pid), reason)


def _family(
    stats: Dict[int, ProcStat], words: Dict[int, List[str]], programs: Dict[int, Program]
) -> List[TrainingProcess]:
    """The processes of all programs, and what belongs to them without saying so."""
    children: Dict[int, List[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.ppid, []).append(stat.pid)
    users = _proc.user_names()
    found: Dict[int, TrainingProcess] = {}
    queue: List[Tuple[int, Optional[TrainingProcess]]]
    queue = [(pid, None) for pid in sorted(programs) if stats[pid].ppid not in programs]
    while queue:
        pid, parent = queue.pop(0)
        stat, program = stats[pid], programs.get(pid)
        role, program = _role(stat, program, parent, words.get(pid))
        if program is None or pid in found or not (pid in programs or _is_still(stat)):
            continue
        uid, group = _proc.read_uid(pid), _cgroup.read(pid)
        found[pid] = TrainingProcess(
            pid=pid,
            start_time=stat.start_time,
            start_ticks=stat.start_ticks,
            cmdline=tuple(words.get(pid) or ()),
            config=program.config,
            kind=program.kind,
            role=role,
            state=_letter(stat),
            ppid=stat.ppid,
            pgrp=stat.pgrp,
            session=stat.session,
            uid=uid,
            user=None if uid is None else users.get(uid, str(uid)),
            cwd=_proc.read_cwd(pid),
            cpu_seconds=stat.cpu_seconds,
            threads=stat.threads,
            children=tuple(sorted(children.get(pid, ()))),
            alive=stat.alive,
            orphan=role == WORKER and not (parent and parent.alive),
            respawns=program.respawns,
            unit=group.unit,
            container=group.container,
        )
        queue += [(child, found[pid]) for child in children.get(pid, ())]
    return sorted(found.values(), key=_order)


def _order(process: TrainingProcess) -> Tuple[int, int]:
    return ROLES.index(process.role), process.pid


def _role(
    stat: ProcStat, program: Optional[Program], parent: Optional[TrainingProcess], words: Optional[Sequence[str]]
) -> Tuple[str, Optional[Program]]:
    """The role of a process, and its program; its program is None when it does not belong to the training."""
    if program is None and parent is not None:
        helper = stat.alive and any(word.startswith(MULTIPROCESSING) for word in words or ())
        zombie = not stat.alive and bool(PYTHON_NAMES.match(stat.comm))
        forked = stat.forked and stat.alive and parent.role != LAUNCHER
        return WORKER, Program(parent.kind, WORKER, parent.config) if helper or zombie or forked else None
    if program is None or program.role == LAUNCHER:
        return LAUNCHER, program
    child = parent is not None and parent.role != LAUNCHER and parent.config == program.config
    return (WORKER if stat.forked or child else TRAINER), program


def _letter(stat: ProcStat) -> str:
    """The state, of a leader that has ended that of a thread that has not."""
    if stat.state not in _proc.ENDED or not stat.alive:
        return stat.state
    letters = _proc.thread_states(stat.pid)
    return _proc.BLOCKED if _proc.BLOCKED in letters else (letters or stat.state)[0]


def _ancestors(pid: int, stats: Dict[int, ProcStat]) -> Iterable[int]:
    """The process and its ancestors."""
    seen = set()
    while pid in stats and pid not in seen:
        seen.add(pid)
        yield pid
        pid = stats[pid].ppid


def _is_inside(path: Optional[str], folder: str) -> bool:
    if path is None:
        return False
    # So ends the link to a directory that has been removed.
    path = path[: -len(" (deleted)")] if path.endswith(" (deleted)") else path
    return path == folder or path.startswith(folder.rstrip("/") + "/")

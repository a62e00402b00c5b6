# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that a training makes progress, or say that it does not.

Progress is a step or an epoch that was finished, or a newer checkpoint that was verified; never just a process that
lives, a log that grows or a GPU that is busy. What an earlier trainer has done is no progress of the one that runs now,
so all of it is compared with that one's start. This util is private to the collection.
"""

from __future__ import annotations

import glob
import heapq
import math
import os
import re
import stat
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem, as_dicts
from ansible_collections.ringrift.recovery.plugins.module_utils._training_events import (
    PROGRESS,
    STARTED,
    Event,
    EventLog,
    candidates,
    read_events,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._training_log import TrainingLog, read_log
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import TRAINER, TrainingProcess
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import look as look_at_processes

if TYPE_CHECKING:
    from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import Checkpoint

PROGRESSING = "progressing"
STARTING = "starting"
STALLED = "stalled"
NOT_RUNNING = "not_running"
UNKNOWN = "unknown"

EVENTS = "events"
LOG = "log"
CHECKPOINT = "checkpoint"

STALL_AFTER = 1800.0
LOG_PATH = "logs/training.log"
# {config} is filled in.
PATTERNS = ("checkpoints/checkpoint_*.pth", "models/candidate_{config}*.pth")
# Written by a trainer that ends, or beside a checkpoint.
NO_PROGRESS = re.compile(r"(?:\Acheckpoint_emergency_|_early_stopping\.pth\Z)")
MAX_FILES = 20_000
# Of several new checkpoints, so many are tried for one that is whole.
MAX_VERIFIED = 3
# A log that says so much since its last progress does not date it any more.
MAX_LINES_SINCE = 100
# Clocks of one node may differ by this much; what is newer still is not from this clock.
MAX_AHEAD = 300.0
MAX_ENVIRONMENT = 1 << 20
STOPPED = ("T", "t")
APPENDS = "appends"


@dataclass(frozen=True)
class Cursor:
    """How far everything was at one moment, to be compared with later. Unix seconds and bytes; None is not known."""

    event_id: Optional[int] = None
    epoch: Optional[int] = None
    log_size: Optional[int] = None
    log_inode: Optional[int] = None
    log_epoch: Optional[int] = None
    log_batch: Optional[int] = None
    checkpoint_mtime: Optional[float] = None
    checkpoint_path: Optional[str] = None
    at: Optional[float] = None


@dataclass(frozen=True)
class Position:
    """Where a training stands. ``epoch`` is the last that was finished, ``batch`` one of the epoch after it."""

    epoch: Optional[int]
    total_epochs: Optional[int]
    batch: Optional[int]
    loss: Optional[float]
    val_loss: Optional[float]
    at: Optional[float]
    source: str
    this_run: bool

    def describe(self) -> str:
        return describe(self.epoch, self.batch, self.total_epochs)

    def as_dict(self, now: float) -> Dict[str, Any]:
        return {**asdict(self), "age": None if self.at is None else round(max(0.0, now - self.at), 3)}


@dataclass(frozen=True)
class CheckpointSeen:
    """The newest checkpoint; ``valid`` is None where it could not be examined."""

    path: str
    mtime: float
    epoch: Optional[int]
    valid: Optional[bool]
    depth: Optional[str]


@dataclass(frozen=True)
class Proof:
    """One piece of evidence that training has moved since the cursor."""

    source: str
    before: str
    after: str
    what: str

    def as_dict(self) -> Dict[str, Any]:
        return {"source": self.source, "from": self.before, "to": self.after, "what": self.what}


@dataclass(frozen=True)
class TrainingProgress:
    """Where the training of a config stands on this node; ``progressed`` is None where no cursor was given."""

    config: str
    now: float
    running: Optional[bool]
    trainers: Tuple[TrainingProcess, ...]
    last: Optional[Position]
    checkpoint: Optional[CheckpointSeen]
    cursor: Cursor
    progressed: Optional[bool]
    proof: Tuple[Proof, ...]
    verdict: str
    reason: str
    problems: Tuple[Problem, ...]

    def as_dict(self) -> Dict[str, Any]:
        return {
            "config": self.config,
            "now": self.now,
            "running": self.running,
            "trainers": [trainer.as_dict() for trainer in self.trainers],
            "last": None if self.last is None else self.last.as_dict(self.now),
            "checkpoint": None if self.checkpoint is None else asdict(self.checkpoint),
            "cursor": asdict(self.cursor),
            "progressed": self.progressed,
            "proof": [proof.as_dict() for proof in self.proof],
            "verdict": self.verdict,
            "reason": self.reason,
            "problems": as_dicts(self.problems),
        }


def look(
    config: TrainingConfig,
    service_path: str,
    coordination_dir: Optional[str] = None,
    log: str = LOG_PATH,
    checkpoint_patterns: Optional[Sequence[str]] = None,
    after: Optional[Mapping[str, Any]] = None,
    stall_after: float = STALL_AFTER,
    within: Optional[str] = None,
    now: Optional[float] = None,
) -> TrainingProgress:
    """See where the training of a config stands, and whether it has moved since ``after``.

    :param service_path: the ``ai-service`` directory; ``log`` and the patterns are relative to it
    :param coordination_dir: the directory of ``events.db``; by default where the trainer that runs writes it
    :param after: the ``cursor`` of an earlier look
    :param stall_after: seconds without progress after which a live trainer is stalled
    :param within: count only trainers that work in this directory or below it
    :param now: this moment in Unix seconds, by the clock of this node
    :raises RecoveryError: an argument cannot be used; what cannot be seen is a problem instead
    """
    if not 0 < stall_after <= 30 * 86400:
        raise RecoveryError(f"stall_after is {stall_after:g} s. It must be more than 0 and at most 30 days.")
    cursor = None if after is None else read_cursor(after)
    view = _View(config, os.path.abspath(os.path.expanduser(service_path)), stall_after, now)
    view.see_processes(within)
    view.see_events(coordination_dir)
    view.see_log(log)
    view.see_checkpoints(PATTERNS if checkpoint_patterns is None else checkpoint_patterns, cursor)
    return view.conclude(cursor)


def read_cursor(values: Mapping[str, Any]) -> Cursor:
    """The cursor of an earlier look, whatever it went through meanwhile.

    :raises RecoveryError: it is none
    """
    unknown = sorted(set(map(str, values)) - set(Cursor.__dataclass_fields__))
    if unknown:
        raise RecoveryError(f"after is no cursor of an earlier look: it has {', '.join(unknown)[:200]}.")
    kinds = {"at": float, "checkpoint_mtime": float, "checkpoint_path": str}
    read: Dict[str, Any] = {}
    for name in Cursor.__dataclass_fields__:
        value = values.get(name)
        try:
            read[name] = None if value in (None, "") else kinds.get(name, int)(value)
            if isinstance(read[name], float) and not math.isfinite(read[name]):
                raise ValueError(value)
        except (TypeError, ValueError, OverflowError) as exc:
            raise RecoveryError(f"after is no cursor of an earlier look: its {name} is {value!r:.100}.") from exc
    if read["at"] is None:
        raise RecoveryError("after is no cursor of an earlier look: it does not say at what time that was.")
    return Cursor(**read)


def describe(epoch: Optional[int], batch: Optional[int] = None, total: Optional[int] = None) -> str:
    """A position in words."""
    if epoch is None and batch is None:
        return "nothing yet"
    done = f"epoch {epoch or 0}" + (f" of {total}" if total is not None else "")
    return done if batch is None else f"{done}, then batch {batch}"


class _View:
    """What is seen of one config at one moment."""

    def __init__(self, config: TrainingConfig, root: str, stall_after: float, now: Optional[float]) -> None:
        self.config = config
        self.root = root
        self.stall_after = stall_after
        self.now = time.time() if now is None else now
        self.problems: List[Problem] = []
        self.running: Optional[bool] = None
        self.trainers: Tuple[TrainingProcess, ...] = ()
        # Why it is not certain that these are all.
        self.doubts: Optional[str] = None
        self.others = False
        self.left_over: Tuple[TrainingProcess, ...] = ()
        self.events: Optional[EventLog] = None
        self.log: Optional[TrainingLog] = None
        # Whether a trainer that runs now writes the log, and whether what the log tells of is that one's progress.
        self.log_is_ours = False
        self.log_is_of_this_run = False
        self.checkpoint: Optional[CheckpointSeen] = None
        self.proving: Optional[CheckpointSeen] = None

    @property
    def start(self) -> Optional[float]:
        """When the first of the trainers that run now was started."""
        return min((trainer.start_time for trainer in self.trainers), default=None)

    def _add(self, code: str, message: str, severity: str = WARNING) -> None:
        self.problems.append(Problem(code, message, severity))

    # Looking

    def see_processes(self, within: Optional[str]) -> None:
        try:
            seen = look_at_processes(None, within)
        except (RecoveryError, OSError) as exc:
            self.doubts = f"the processes of this node could not be listed: {exc}"
            self._add("processes_unreadable", self.doubts, ERROR)
            return
        alive = [process for process in seen.processes if process.alive]
        mine = [process for process in alive if process.config == self.config.name]
        found = [process for process in alive if process.role == TRAINER]
        self.trainers = tuple(process for process in mine if process.role == TRAINER)
        self.left_over = tuple(process for process in mine if process.role != TRAINER)
        nameless = ", ".join(str(process.pid) for process in found if process.config is None)
        self.doubts = seen.doubts()
        if nameless:
            self.doubts = f"trainer {nameless} does not say on its command line of which config it is"
        if self.doubts:
            self._add("processes_in_doubt", f"It is not certain that all trainers were seen: {self.doubts}.")
        self.others = any(process.config != self.config.name for process in found)
        self.running = True if self.trainers else None if self.doubts else False
        if len(self.trainers) > 1:
            pids = ", ".join(str(trainer.pid) for trainer in self.trainers)
            self._add("duplicate_trainers", f"{len(self.trainers)} trainers of {self.config.name} run here: {pids}.")

    def see_events(self, coordination_dir: Optional[str]) -> None:
        folder = coordination_dir or next(filter(None, map(coordination_dir_of, self.trainers)), None)
        try:
            self.events = read_events(self.config, coordination_dir=folder, hostname=_proc.hostname())
        except RecoveryError as exc:
            self._add("events_unreadable", str(exc))

    def see_log(self, log: str) -> None:
        path = os.path.join(self.root, os.path.expanduser(log))
        try:
            self.log = read_log(path, lines=0)
        except RecoveryError as exc:
            self._add("log_unreadable", str(exc))
            return
        start = self.start
        if self.log.mtime is None or start is None:
            return
        writes = [_writes_to(trainer.pid, self.log) for trainer in self.trainers]
        # Behind a pipe it cannot be seen who writes; then a log that was written to since the start is taken for ours.
        maybe = None in writes and not self.others
        self.log_is_ours = self.log.mtime >= start and (True in writes or APPENDS in writes or maybe)
        # A log that was appended to may still end with the progress of the run before. The trainer reports its start
        # after the line at which the log's progress begins anew.
        anew = self.last_start() is not None or (True in writes and APPENDS not in writes)
        self.log_is_of_this_run = self.log_is_ours and anew

    def see_checkpoints(self, patterns: Sequence[str], cursor: Optional[Cursor]) -> None:
        newest = self._newest_checkpoints(patterns)
        for number, (mtime, path) in enumerate(newest):
            proving = cursor is not None and cursor.at is not None and self._is_newer(mtime, path, cursor)
            if number and not proving:
                break
            seen, report = self._verify(path, mtime, "full" if proving else "quick")
            if self.checkpoint is None:
                self.checkpoint = seen
            if proving and seen.valid and report is not None and self._may_be_ours(report):
                self.proving = seen
                break

    def _newest_checkpoints(self, patterns: Sequence[str]) -> List[Tuple[float, str]]:
        return heapq.nlargest(MAX_VERIFIED, self._checkpoints(patterns))

    def _checkpoints(self, patterns: Sequence[str]) -> Iterator[Tuple[float, str]]:
        seen, looked_at = set(), 0
        for pattern in patterns:
            full = os.path.join(
                glob.escape(self.root), os.path.expanduser(pattern.replace("{config}", self.config.name))
            )
            for path in glob.iglob(full):
                looked_at += 1
                if looked_at > MAX_FILES:
                    self._add("too_many_checkpoints", f"Only {MAX_FILES} files that match were looked at.")
                    return
                if path in seen or NO_PROGRESS.search(os.path.basename(path)):
                    continue
                seen.add(path)
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield status.st_mtime, path

    def _is_newer(self, mtime: float, path: str, cursor: Cursor) -> bool:
        """Whether a checkpoint was written after the cursor, by a trainer that runs now if one does."""
        # A file of the future was there before the clock was set back.
        if not max(cursor.at or 0.0, cursor.checkpoint_mtime or 0.0) < mtime <= self.now + MAX_AHEAD:
            return False
        return self.start is None or mtime >= self.start

    def _verify(self, path: str, mtime: float, depth: str) -> Tuple[CheckpointSeen, Optional[Checkpoint]]:
        # It is compiled on every node at every look, and only of use where there is a checkpoint.
        from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify

        try:
            report = verify(path, depth=depth)
        except RecoveryError as exc:
            self._add("checkpoint_unreadable", str(exc))
            return CheckpointSeen(path, mtime, None, None, None), None
        if not report.valid:
            self._add("checkpoint_invalid", f"{path} is {report.summary()}"[:500], ERROR)
        return CheckpointSeen(path, mtime, report.epoch, report.valid, depth), report

    def _may_be_ours(self, report: Checkpoint) -> bool:
        """Whether a checkpoint is of this config; names do not tell, and configs share a directory."""
        if report.board_type is not None and report.board_type != self.config.board:
            return False
        if report.num_players is not None and report.num_players != self.config.players:
            return False
        named = self.config.name in os.path.basename(report.path)
        return named or not self.others or None not in (report.board_type, report.num_players)

    # Concluding

    def is_of_this_run(self, at: Optional[float]) -> bool:
        """Whether something that happened then was done by a trainer that runs now."""
        return at is not None and self.start is not None and self.start <= at <= self.now + MAX_AHEAD

    def conclude(self, cursor: Optional[Cursor]) -> TrainingProgress:
        if self.events is not None:
            self.problems.extend(self.events.problems)
        last = self.position()
        proof = tuple(self.proof(cursor)) if cursor is not None else ()
        verdict, reason = self.judge(last, cursor.at if cursor is not None and proof else None)
        return TrainingProgress(
            config=self.config.name,
            now=self.now,
            running=self.running,
            trainers=self.trainers,
            last=last,
            checkpoint=self.checkpoint,
            cursor=self.cursor(last),
            progressed=None if cursor is None else bool(proof),
            proof=proof,
            verdict=verdict,
            reason=reason,
            problems=tuple(self.problems),
        )

    def position(self) -> Optional[Position]:
        """Where the run that runs now stands, or where the last one stood."""
        event, log = self._event_position(), self._log_position()
        if event is None or log is None:
            return event or log
        if event.this_run != log.this_run:
            return event if event.this_run else log
        if event.this_run:
            further = (log.epoch or 0, -1 if log.batch is None else log.batch) > (event.epoch or 0, -1)
            return log if further else event
        return log if (log.at or 0.0) > (event.at or 0.0) and log.epoch != event.epoch else event

    def _event_position(self) -> Optional[Position]:
        event = self.events.last(PROGRESS) if self.events is not None else None
        if event is None:
            return None
        return Position(
            epoch=event.epoch,
            total_epochs=event.whole("total_epochs"),
            batch=None,
            loss=event.number("train_loss", "loss"),
            val_loss=event.number("val_loss"),
            at=event.at,
            source=EVENTS,
            this_run=self.is_of_this_run(event.at),
        )

    def _log_position(self) -> Optional[Position]:
        log = self.log
        if log is None or log.progress is None:
            return None
        epoch, batch = log.progress.position
        running = batch >= 0
        return Position(
            epoch=epoch,
            total_epochs=log.progress.total_epochs,
            batch=batch if running else None,
            loss=log.progress.batch_loss if running else log.progress.loss,
            val_loss=log.progress.val_loss,
            at=log.mtime if _dates_its_progress(log) else None,
            source=LOG,
            this_run=self.log_is_of_this_run,
        )

    def cursor(self, last: Optional[Position]) -> Cursor:
        log, progress = self.log, self.log.progress if self.log is not None else None
        epoch, batch = progress.position if progress is not None else (None, None)
        return Cursor(
            event_id=self.events.last_event_id if self.events is not None else None,
            epoch=None if last is None else last.epoch,
            log_size=log.complete if log is not None and log.exists else None,
            log_inode=log.inode if log is not None else None,
            log_epoch=epoch,
            log_batch=batch if batch is not None and batch >= 0 else None,
            checkpoint_mtime=None if self.checkpoint is None else self.checkpoint.mtime,
            checkpoint_path=None if self.checkpoint is None else self.checkpoint.path,
            at=self.now,
        )

    def proof(self, cursor: Cursor) -> Iterator[Proof]:
        """What has moved since the cursor."""
        moved = [event for event in self.finished_epochs() if self._is_after(event, cursor)]
        if moved:
            event = moved[-1]
            position = describe(event.epoch, None, event.whole("total_epochs"))
            yield Proof(EVENTS, describe(cursor.epoch), position, f"{position} was finished{_when(event.at)}")
        if self._log_moved(cursor) and self.log is not None and self.log.progress is not None:
            epoch, batch = self.log.progress.position
            position = describe(epoch, batch if batch >= 0 else None, self.log.progress.total_epochs)
            before = describe(cursor.log_epoch, cursor.log_batch)
            yield Proof(LOG, before, position, f"the log has come to {position}")
        if self.proving is not None:
            seen = self.proving
            number = "" if seen.epoch is None else f" of epoch {seen.epoch}"
            what = f"{os.path.basename(seen.path)}{number} was written{_when(seen.mtime)} and is whole"
            yield Proof(CHECKPOINT, cursor.checkpoint_path or "none", seen.path, what)

    def finished_epochs(self) -> List[Event]:
        """The epochs that count: with losses that are numbers, and of the run that runs now, if one does."""
        events = self.events.events if self.events is not None else ()
        return [
            event
            for event in events
            if event.kind == PROGRESS and event.finite and (not self.trainers or self.is_of_this_run(event.at))
        ]

    def _is_after(self, event: Event, cursor: Cursor) -> bool:
        newest = self.events.last_event_id if self.events is not None else None
        if cursor.event_id is not None and newest is not None and newest >= cursor.event_id:
            return event.event_id > cursor.event_id
        # The event log is new, or could not be read before.
        return event.at is not None and cursor.at is not None and cursor.at < event.at <= self.now + MAX_AHEAD

    def _log_moved(self, cursor: Cursor) -> bool:
        log = self.log
        if log is None or log.progress is None or not log.progress.finite or log.mtime is None or log.size is None:
            return False
        since_start = self.log_is_ours and self.start is not None and (cursor.at or 0.0) >= self.start
        if self.trainers and not (self.log_is_of_this_run or since_start):
            return False
        if cursor.log_size is not None and log.inode == cursor.log_inode and log.size >= cursor.log_size:
            return log.progress.offset >= cursor.log_size
        return cursor.at is not None and log.mtime > cursor.at

    def last_progress(self, moved_since: Optional[float] = None) -> Optional[float]:
        """When the run that runs now is known to have made progress last.

        :param moved_since: a time since which progress is proven
        """
        times = [moved_since if self.is_of_this_run(moved_since) else None]
        times += [event.at for event in self.finished_epochs() if self.is_of_this_run(event.at)]
        log = self.log
        if log is not None and self.log_is_of_this_run and log.progress is not None and log.progress.finite:
            times.append(log.mtime if _dates_its_progress(log) else None)
        if self.checkpoint is not None and self.checkpoint.valid and not self.others:
            times.append(self.checkpoint.mtime if self.is_of_this_run(self.checkpoint.mtime) else None)
        return max((at for at in times if at is not None), default=None)

    def judge(self, last: Optional[Position], moved_since: Optional[float] = None) -> Tuple[str, str]:
        """Verdict and reason."""
        name, start = self.config.name, self.start
        if self.running is None:
            return UNKNOWN, f"no trainer of {name} was seen, and that there is none is not certain: {self.doubts}"
        if start is None:
            return NOT_RUNNING, f"no trainer of {name} runs here{self._aftermath(last)}"
        pids = ", ".join(str(trainer.pid) for trainer in self.trainers)
        stopped = [trainer for trainer in self.trainers if trainer.state in STOPPED]
        where = f"; it stands at {last.describe()}" if last is not None and last.this_run else ""
        if len(stopped) == len(self.trainers):
            return STALLED, f"trainer {pids} is stopped by a signal (state {stopped[0].state}){where}"
        at, life = self.last_progress(moved_since), max(0.0, self.now - start)
        doing = f"trainer {pids}{self._states()}"
        if at is not None and self.now - at <= self.stall_after:
            return PROGRESSING, f"{doing} made progress {_seconds(self.now - at)} ago{where}"
        if at is not None:
            return STALLED, f"{doing} has made no progress for {_seconds(self.now - at)}{where}"
        if life <= self.stall_after:
            return STARTING, f"{doing} was started {_seconds(life)} ago and has made no progress yet"
        if not self._would_be_seen():
            return UNKNOWN, (
                f"{doing} was started {_seconds(life)} ago; neither an event log nor a training log nor a checkpoint "
                "tells how far it is"
            )
        if self._may_be_told_by_log():
            return UNKNOWN, f"{doing} writes its log, and it cannot be told whether the progress in there is its own"
        return STALLED, f"{doing} was started {_seconds(life)} ago and has made no progress since"

    def _would_be_seen(self) -> bool:
        """Whether progress, if there were any, could be seen."""
        if self.log_is_ours or self.last_start() is not None:
            return True
        # This one writes neither epochs nor a log.
        silent = all(trainer.kind == "train_nnue" for trainer in self.trainers)
        return self.events is not None and self.events.exists and not silent

    def _may_be_told_by_log(self) -> bool:
        """Whether a log that is still written to tells of progress that may be of this run or of the one before."""
        log = self.log
        if log is None or not self.log_is_ours or self.log_is_of_this_run or log.mtime is None:
            return False
        return log.progress is not None and log.progress.finite and self.now - log.mtime <= self.stall_after

    def last_start(self) -> Optional[Event]:
        """The start of the run that runs now, as it reported it."""
        event = self.events.last(STARTED) if self.events is not None else None
        return event if event is not None and event.by_trainer and self.is_of_this_run(event.at) else None

    def _states(self) -> str:
        states = {trainer.state for trainer in self.trainers} - {"R", "S", "I"}
        return f" (state {', '.join(sorted(states))})" if states else ""

    def _aftermath(self, last: Optional[Position]) -> str:
        """What is known of the run before."""
        text = ""
        if self.left_over:
            pids = ", ".join(str(process.pid) for process in self.left_over)
            text = f", but {self.left_over[0].role} {pids} is left over"
        if self.events is not None and self.events.events:
            event = self.events.events[-1]
            why = f": {event.text('error', 'error_details')}" if event.text("error", "error_details") else ""
            endings = {
                "running": "did not report its end",
                "completed": "completed",
                "failed": f"failed{why[:300]}",
            }
            text += f"; the last one {endings[self.events.state]}{_when(event.at)}"
        if last is not None:
            text += f", it came to {last.describe()}"
        return text


def _dates_its_progress(log: TrainingLog) -> bool:
    """Whether the time of the log is about that of its last progress.

    Lines have no time. A log that goes on with complaints only is written to, although nothing moves.
    """
    if log.lines_since_progress is None or log.lines_since_progress > MAX_LINES_SINCE:
        return False
    return not any(finding.after_progress and finding.severity == ERROR for finding in log.findings)


def _writes_to(pid: int, log: TrainingLog) -> Union[bool, str, None]:
    """Whether a process has its output in this log, ``appends`` behind what was there; None where it cannot be seen."""
    answers: List[Optional[bool]] = []
    for descriptor in (1, 2):
        try:
            status = os.stat(f"/proc/{pid}/fd/{descriptor}")
            if (status.st_dev, status.st_ino) == (log.device, log.inode):
                return APPENDS if _appends(pid, descriptor) else True
        except OSError:
            answers.append(None)
            continue
        # A pipe may end in the log, through tee.
        answers.append(None if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode) else False)
    return None if None in answers else False


def _appends(pid: int, descriptor: int) -> bool:
    with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as stream:
        match = re.search(r"^flags:\s*([0-7]{1,12})$", stream.read(4096), re.M)
    return match is None or bool(int(match.group(1), 8) & os.O_APPEND)


def coordination_dir_of(trainer: TrainingProcess) -> Optional[str]:
    """Where a trainer writes its events, by its own environment; None where that cannot be read."""
    stat_now = _proc.read_stat(trainer.pid)
    # In uninterruptible sleep a process may keep its environment locked, and whoever reads it waits with it.
    if stat_now is None or stat_now.start_ticks != trainer.start_ticks or stat_now.state == "D":
        return None
    try:
        with open(f"/proc/{trainer.pid}/environ", "rb") as stream:
            data = stream.read(MAX_ENVIRONMENT)
    except OSError:
        return None
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    environment = {os.fsdecode(name): os.fsdecode(value) for name, _sign, value in pairs}
    if not environment:
        return None
    return candidates(environment, trainer.uid, trainer.cwd)[0]


def _when(at: Optional[float]) -> str:
    try:
        return "" if at is None else time.strftime(" at %Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    except (ValueError, OverflowError, OSError):
        return ""


def _seconds(value: float) -> str:
    return f"{max(0.0, value):.0f} s"

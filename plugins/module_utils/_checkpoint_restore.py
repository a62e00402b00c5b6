# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the newest verified checkpoint in the place of a damaged or missing one.

First everything is looked at and a plan is made, without writing. Then, under a lock beside the file: the chosen one is
copied beside it and the copy verified, the damaged file gets a second name with a record of why, the copy takes its
place in one step, and the damaged candidates are moved aside. A kill or a full disk at any point leaves the old file or
the new one, and the next run goes on from there. This util is private to the collection.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import itertools
import json
import os
import re
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import (
    ChangedFileError,
    MissingFileError,
    explain,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import (
    QUICK,
    SIDECAR_SUFFIX,
    Checkpoint,
    verify,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_legacy import TORCH_LEGACY
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_zip import TORCH_ZIP
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, Problem, as_dicts, has_errors
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import list_pids
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import shown

MAX_MATCHES = 10_000
MAX_CANDIDATES = 100
MAX_SIDECAR = 4096
LOCK_TIMEOUT = 60.0
LOCK_POLL = 0.1
QUARANTINED = re.compile(r"\.corrupt-\d{8}T\d{6}Z")
# Files that stand beside checkpoints and are none.
NOT_CANDIDATES = (SIDECAR_SUFFIX, ".json", ".lock", ".tmp")
NO_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})

Stamp = Tuple[int, int, int, int]
# What was verified, by the path and by the stamps of the file and of its sidecar.
Seen = Dict[Tuple[str, Optional[Stamp], Optional[Stamp]], Checkpoint]


class NoCandidateError(RecoveryError):
    """Nothing can take the place of the checkpoint; ``candidates`` are those that were looked at."""

    def __init__(self, message: str, candidates: Tuple[Candidate, ...]):
        super().__init__(message)
        self.candidates = candidates


@dataclass(frozen=True)
class RestoreRequest:
    """What is wanted. ``path`` is absolute; the patterns in ``candidates`` are relative to ``root`` or absolute."""

    path: str
    candidates: Tuple[str, ...]
    root: str
    refresh: bool = False
    reason: str = "restore"
    config: Optional[TrainingConfig] = None
    lock_timeout: float = LOCK_TIMEOUT


@dataclass(frozen=True)
class Candidate:
    """A file that could be restored. ``report`` is None where it could not be read."""

    path: str
    report: Optional[Checkpoint]
    problems: Tuple[Problem, ...]

    @property
    def valid(self) -> bool:
        """Whether it can take the place of the checkpoint."""
        return self.report is not None and not has_errors(self.problems)

    @property
    def damaged(self) -> bool:
        """Whether the file itself is bad, and not just unfit here."""
        return self.report is not None and not self.report.valid

    @property
    def epoch(self) -> Optional[int]:
        """The epoch that it is from, where known."""
        return None if self.report is None else self.report.epoch

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {"path": self.path, "valid": self.valid, "epoch": self.epoch, "problems": as_dicts(self.problems)}


@dataclass(frozen=True)
class Quarantined:
    """A damaged file that was moved aside, and why."""

    path: str
    to: str
    reason: str
    sha256: Optional[str]

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {"path": self.path, "to": self.to, "reason": self.reason, "sha256": self.sha256}


@dataclass(frozen=True)
class RestoreResult:
    """What was done, or what would be."""

    restored: bool
    path: str
    before: Optional[Checkpoint]
    after: Checkpoint
    source: Optional[str]
    previous: Optional[str]
    quarantined: Tuple[Quarantined, ...]
    epochs_lost: Optional[int]
    candidates: Tuple[Candidate, ...]
    warnings: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {
            "changed": self.restored,
            "restored": self.restored,
            "msg": self.summary(),
            "checkpoint": self._state(self.after),
            "source": self.source,
            "previous": self.previous,
            "replaced": self._replaced(),
            "quarantined": [entry.as_dict() for entry in self.quarantined],
            "epochs_lost": self.epochs_lost,
            "candidates": [candidate.as_dict() for candidate in self.candidates],
        }

    def summary(self) -> str:
        """What was done, or would be, in one sentence."""
        epoch = "unknown epoch" if self.after.epoch is None else f"epoch {self.after.epoch}"
        if not self.restored:
            return f"{self.path} is whole ({epoch})"
        lost = "" if self.epochs_lost is None else f", {self.epochs_lost} epochs lost"
        return f"{self.path} comes from {self.source} ({epoch}{lost}), {len(self.quarantined)} files quarantined"

    def diff(self) -> Dict[str, Any]:
        """Before and after, for diff mode."""
        before: Dict[str, Any] = {self.path: None if self.before is None else self._difference(self.before)}
        after: Dict[str, Any] = {self.path: self._difference(self.after)}
        for entry in self.quarantined:
            before.setdefault(entry.path, {"sha256": entry.sha256})
            after.setdefault(entry.path, None)
            after[entry.to] = {"sha256": entry.sha256, "reason": entry.reason}
        return {"before": before, "after": after}

    def _state(self, report: Checkpoint) -> Dict[str, Any]:
        return {
            "path": self.path,
            "epoch": report.epoch,
            "sha256": report.sha256,
            "size": report.size,
            "written_at": report.mtime,
            "format": report.format,
        }

    def _replaced(self) -> Optional[Dict[str, Any]]:
        if not self.restored or self.before is None:
            return None
        return {"sha256": self.before.sha256, "epoch": self.before.epoch, "valid": self.before.valid}

    def _difference(self, report: Checkpoint) -> Dict[str, Any]:
        return {"sha256": report.sha256, "epoch": report.epoch, "valid": report.valid}


@dataclass(frozen=True)
class _Plan:
    current: Optional[Checkpoint]
    chosen: Optional[Candidate]
    candidates: Tuple[Candidate, ...]


def restore(request: RestoreRequest, check_mode: bool = False, now: Optional[float] = None) -> RestoreResult:
    """Make sure that ``request.path`` is a verified checkpoint.

    :param now: unix time that goes into the names of quarantined files
    :raises NoCandidateError: it is not, and nothing can take its place; nothing was touched
    :raises RecoveryError: a file cannot be read or written; the checkpoint is the old one or the new one
    """
    moment = time.time() if now is None else now
    seen: Seen = {}
    if check_mode:
        plan = _plan(request, seen, locked=True)
        if plan.chosen is not None:
            _check_writable(request.path, plan.chosen)
        return _predict(request, plan, moment)
    # Another restore may put the file in place just now; under the lock nothing of ours moves.
    with suppress(ChangedFileError):
        plan = _plan(request, seen)
        if plan.chosen is None:
            _tidy(request.path)
            return _predict(request, plan, moment)
    with locked(request.path, request.lock_timeout):
        plan = _plan(request, seen, locked=True)
        if plan.chosen is None:
            return _predict(request, plan, moment)
        return _apply(request, plan, moment)


# Looking


def _plan(request: RestoreRequest, seen: Seen, locked: bool = False) -> _Plan:
    current = _current(request, seen)
    if current is not None and current.valid and not request.refresh:
        return _Plan(current, None, ())
    if current is not None and not current.valid:
        # Another restore has the file open while it puts it in place; the lock makes this one wait for it.
        at_it = os.path.lexists(lock_path(request.path)) and not locked
        writer = None if at_it else writer_of(request.path)
        if writer is not None and (locked or not os.path.lexists(lock_path(request.path))):
            raise RecoveryError(
                f"{request.path} is not whole, but process {writer} is writing it. Wait until it is done, or stop it, "
                "and run this again."
            )
    looked_at: List[Candidate] = []
    more = 0
    network = _network(request, current)
    paths = list(_matches(request))
    good = current if current is not None and current.valid else None
    for number, path in enumerate(paths):
        if good is not None and not any(_newer(later, good) for later in paths[number:]):
            break
        if len(looked_at) >= MAX_CANDIDATES:
            more += 1
            continue
        candidate = _candidate(path, request, network, seen)
        looked_at.append(candidate)
        if candidate.valid:
            same = current is not None and candidate.report is not None and candidate.report.sha256 == current.sha256
            # The first that is whole decides, as where nothing was in place: else two runs in a row would differ.
            kept = same or (good is not None and not _newer(path, good))
            return _Plan(current, None if kept else candidate, tuple(looked_at))
    if current is not None and current.valid:
        return _Plan(current, None, tuple(looked_at))
    raise NoCandidateError(_nothing(request, current, looked_at, more), tuple(looked_at))


def _current(request: RestoreRequest, seen: Seen) -> Optional[Checkpoint]:
    if os.path.isdir(request.path):
        raise RecoveryError(f"Could not restore {request.path}: it is a directory. Check the path.")
    folder = os.path.dirname(request.path)
    if not os.path.isdir(folder):
        raise RecoveryError(f"Could not restore {request.path}: there is no directory {folder}. Check service_path.")
    try:
        return _verify(request.path, seen)
    except MissingFileError:
        return None


def _verify(path: str, seen: Seen) -> Checkpoint:
    """Verify in full, once for as long as neither the file nor its sidecar changes."""
    key = (path, _stamp(path), _stamp(path + SIDECAR_SUFFIX))
    if key[1] is None or key not in seen:
        report = verify(path, checksum=True, scan_values=True)
        seen[key] = report
    return seen[key]


def _stamp(path: str) -> Optional[Stamp]:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _nothing(request: RestoreRequest, current: Optional[Checkpoint], looked_at: List[Candidate], more: int) -> str:
    state = "does not exist" if current is None else current.summary()
    if not looked_at:
        patterns = ", ".join(request.candidates) or "none"
        reason = f"no file under {request.root} matches the candidates ({shown(patterns)})"
    else:
        some = "; ".join(f"{entry.path}: {_reason(entry)}" for entry in looked_at[:5])
        rest = len(looked_at) + more - 5
        reason = f"no candidate verified ({some}{f'; and {rest} more' if rest > 0 else ''})"
    return (
        f"{request.path} {state if current is None else f'is not usable ({state})'}, and {reason}. "
        "Nothing was changed. Copy a good checkpoint to the node and run this again, or start training afresh."
    )


def _reason(candidate: Candidate) -> str:
    for problem in candidate.problems:
        if problem.severity == ERROR:
            return f"{problem.code}: {problem.message}"
    return "unknown"


def _matches(request: RestoreRequest) -> Iterator[str]:
    """Files that match the patterns, in the order in which they are to be tried, each once."""
    done = set()
    own = _place(request.path)
    if own is not None:
        done.add(own)
    for pattern in request.candidates:
        full = os.path.join(glob.escape(request.root), pattern)
        found: List[Tuple[int, str]] = []
        for match in itertools.islice(glob.iglob(full, recursive=True), MAX_MATCHES):
            path = os.path.realpath(match)
            status = _regular(path)
            if status is None or _is_other(path) or (status.st_dev, status.st_ino) in done:
                continue
            done.add((status.st_dev, status.st_ino))
            found.append((status.st_mtime_ns, path))
        yield from _newest_first(found)


def _newest_first(found: List[Tuple[int, str]]) -> Iterator[str]:
    ordered = sorted(found, key=lambda entry: (-entry[0], entry[1]))
    for _mtime, group in itertools.groupby(ordered, key=lambda entry: entry[0]):
        paths = [path for _time, path in group]
        if len(paths) > 1:
            # The epoch decides between files of one moment, such as those of one unpacked archive.
            paths.sort(key=lambda path: -_epoch(path))
        yield from paths


def _epoch(path: str) -> int:
    try:
        epoch = verify(path, depth=QUICK, sidecar=False).epoch
    except RecoveryError:
        epoch = None
    return -1 if epoch is None else epoch


def _place(path: str) -> Optional[Tuple[int, int]]:
    stamp = _stamp(path)
    return None if stamp is None else stamp[:2]


def _place_of_name(path: str) -> Optional[Tuple[int, int]]:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _regular(path: str) -> Optional[os.stat_result]:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _is_other(path: str) -> bool:
    name = os.path.basename(path)
    return name.endswith(NOT_CANDIDATES) or _atomic.is_staged(name) or QUARANTINED.search(name) is not None


def _newer(path: str, current: Checkpoint) -> bool:
    status = _regular(path)
    if status is None:
        return False
    mtime = current.identity[3]
    return status.st_mtime_ns > mtime or (status.st_mtime_ns == mtime and _epoch(path) > (current.epoch or 0))


def _network(request: RestoreRequest, current: Optional[Checkpoint]) -> Optional[str]:
    """The signature of the network that is trained, as far as a file tells: checkpoint names do not, and training of
    several configs may save to one directory.
    """
    if current is not None and current.state_dict is not None and current.model_signature is not None:
        return current.model_signature
    config = request.config
    if config is None:
        return None
    for path in itertools.islice(_matches(request), MAX_CANDIDATES):
        try:
            report = verify(path, depth=QUICK, sidecar=False)
        except RecoveryError:
            continue
        if report.valid and (report.board_type, report.num_players) == (config.board, config.players):
            return report.model_signature
    return None


def _candidate(path: str, request: RestoreRequest, network: Optional[str], seen: Seen) -> Candidate:
    try:
        report = _verify(path, seen)
    except RecoveryError as exc:
        return Candidate(path, None, (Problem("unreadable", shown(str(exc), 500)),))
    writer = None if report.valid else writer_of(path)
    if writer is not None:
        return Candidate(path, None, (Problem("being_written", f"process {writer} is writing it"),))
    return Candidate(path, report, (*report.problems, *_unfit(report, request, network)))


def writer_of(path: str) -> Optional[int]:
    """A process of this node that has a file open for writing, as far as this user may see.

    Names are compared, not files: asking for a file behind a descriptor can hang on a dead mount.
    """
    real = os.path.realpath(path)
    for pid in list_pids():
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for fd in descriptors:
            try:
                if os.readlink(f"/proc/{pid}/fd/{fd}") != real:
                    continue
                with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as stream:
                    flags = re.search(r"^flags:\s*([0-7]+)", stream.read(4096), re.M)
            except OSError:
                continue
            if flags is not None and int(flags.group(1), 8) & os.O_ACCMODE != os.O_RDONLY:
                return pid
    return None


def _unfit(report: Checkpoint, request: RestoreRequest, network: Optional[str]) -> Iterator[Problem]:
    """Why a whole checkpoint cannot be used here."""
    if not report.valid:
        return
    if report.format not in (TORCH_ZIP, TORCH_LEGACY):
        yield Problem("wrong_format", f"training does not resume from a {report.format} file")
    if report.state_dict is None:
        yield Problem("no_model", "there is no model in it")
    if any(problem.code == "nan_values" for problem in report.problems):
        yield Problem("not_finite", "training cannot go on from tensors that hold NaN")
    config = request.config
    if config is not None and (
        report.board_type not in (None, config.board) or report.num_players not in (None, config.players)
    ):
        message = f"it is for {report.board_type} with {report.num_players} players, not for {config.name}"
        yield Problem("other_config", message)
    silent = None in (report.board_type, report.num_players)
    if config is not None and network is None and silent and config.name not in os.path.basename(report.path):
        # Checkpoints of all configs share a directory, and their names do not tell.
        message = f"neither it nor a model of {config.name} on this node says for which config it is"
        yield Problem("config_unknown", message)
    if None not in (network, report.model_signature) and network != report.model_signature:
        yield Problem("different_model", f"its tensors are not those of the model that is trained at {request.path}")


# Acting


def _check_writable(path: str, chosen: Candidate) -> None:
    """Refuse in check mode what would fail in a real run."""
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise explain("write in", folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    _atomic.require_space(path, (chosen.report and chosen.report.size) or 0)


def _predict(request: RestoreRequest, plan: _Plan, moment: float) -> RestoreResult:
    current, chosen = plan.current, plan.chosen
    if chosen is None or chosen.report is None:
        if current is None:
            raise RecoveryError(f"Could not restore {request.path}: it vanished. Run this again.")
        return RestoreResult(False, request.path, current, current, None, None, (), 0, plan.candidates)
    previous = f"{request.path}.previous" if current is not None and current.valid else None
    entries = []
    for path, report in _bad(request, plan):
        entries.append(Quarantined(path, _free_name(path, moment), _why(report), report.sha256))
    lost = _epochs_lost(plan)
    return RestoreResult(
        True, request.path, current, chosen.report, chosen.path, previous, tuple(entries), lost, plan.candidates
    )


def _bad(request: RestoreRequest, plan: _Plan) -> Iterator[Tuple[str, Checkpoint]]:
    if plan.current is not None and not plan.current.valid:
        yield request.path, plan.current
    for candidate in plan.candidates:
        if candidate.damaged and candidate.report is not None:
            yield candidate.path, candidate.report


def _epochs_lost(plan: _Plan) -> Optional[int]:
    """None unless the epochs of the restored file and of every damaged one are known, and there is one to compare."""
    restored = None if plan.chosen is None else plan.chosen.epoch
    seen = [candidate.epoch for candidate in plan.candidates if not candidate.valid and candidate.damaged]
    if plan.current is not None:
        seen.append(plan.current.epoch)
    known = [epoch for epoch in seen if epoch is not None]
    if restored is None or not seen or len(known) < len(seen):
        return None
    return max(*known, restored) - restored


def _why(report: Checkpoint) -> str:
    errors = [problem for problem in report.problems if problem.severity == ERROR]
    return f"{errors[0].code}: {errors[0].message}" if errors else "replaced"


def _apply(request: RestoreRequest, plan: _Plan, moment: float) -> RestoreResult:
    result = _predict(request, plan, moment)
    source = result.after
    _clean(request.path)
    staged = _atomic.copy_beside(source.path, request.path)
    quarantined: List[Quarantined] = []
    try:
        copy = verify(staged, sidecar=False, checksum=True)
        if not copy.valid or copy.sha256 != source.sha256:
            raise RecoveryError(
                f"The copy of {source.path} beside {request.path} is not what was verified ({copy.summary()}). Nothing "
                "was changed. The disk or the memory of this node may be bad; look at its kernel log."
            )
        mode = _mode(request.path)
        for entry in result.quarantined:
            if entry.path == request.path:
                quarantined.append(_second_name(entry, request, plan, moment))
        previous = _atomic.keep_previous(request.path) if result.previous is not None else None
        if quarantined:
            # The sidecar stays until the file is replaced: it may be all that tells of the damage.
            _copy_sidecar(request.path, quarantined[0].to)
        _atomic.replace_file(staged, request.path, mode)
    except BaseException:
        for entry in quarantined:
            _undo(entry)
        _atomic.discard(staged)
        raise
    _write_sidecar(request.path, copy.sha256 or "")
    warnings: List[str] = []
    for entry in result.quarantined:
        if entry.path == request.path:
            continue
        try:
            quarantined.append(_move_aside(entry, request, plan, moment))
        except RecoveryError as exc:
            warnings.append(str(exc))
    if _place(request.path) != copy.identity[:2]:
        warnings.append(f"{request.path} was replaced by another process right after it was restored.")
    return RestoreResult(
        True,
        request.path,
        plan.current,
        copy,
        result.source,
        previous,
        tuple(quarantined),
        result.epochs_lost,
        plan.candidates,
        tuple(warnings),
    )


def _clean(path: str) -> None:
    """Remove staged files of a run that was killed; the lock is held, so no other run has any."""
    for dest in (path, path + SIDECAR_SUFFIX):
        _atomic.clean_staged(dest, older_than=0.0)


def _tidy(path: str) -> None:
    """Remove what a run that was killed left beside a good file; no harm if that does not work."""
    try:
        left = [name for dest in (path, path + SIDECAR_SUFFIX) for name in _atomic.stale_staged(dest, older_than=0.0)]
        if left or os.path.lexists(lock_path(path)):
            with locked(path, 0.0):
                _clean(path)
    except RecoveryError:
        pass


def _mode(path: str) -> Optional[int]:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) & 0o777 if stat.S_ISREG(status.st_mode) else None


def _free_name(path: str, moment: float) -> str:
    """``<path>.corrupt-<UTC>`` with a number behind it where that is taken."""
    base = f"{path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(moment))}"
    for name in itertools.chain([base], (f"{base}.{number}" for number in itertools.count(1))):
        if not os.path.lexists(name) and not os.path.lexists(f"{name}.json"):
            return name
    raise AssertionError("unreachable")


def _half_done(path: str) -> Optional[str]:
    """The second name that a run which was killed gave the file already."""
    folder, name = os.path.split(path)
    try:
        own = os.lstat(path)
        entries = sorted(os.listdir(folder))
    except OSError:
        return None
    for entry in entries:
        if not entry.startswith(f"{name}.corrupt-") or entry.endswith((".json", SIDECAR_SUFFIX)):
            continue
        other = os.path.join(folder, entry)
        status = os.lstat(other)
        if (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino):
            return other
    return None


def _record(entry: Quarantined, request: RestoreRequest, plan: _Plan, moment: float) -> None:
    """Write beside the quarantined file what it was and why it was moved."""
    report = next(report for path, report in _bad(request, plan) if path == entry.path)
    content = {
        "original": entry.path,
        "quarantined": entry.to,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
        "requested": shown(request.reason, 500),
        "reason": entry.reason,
        "problems": as_dicts(report.problems),
        "sha256": report.sha256,
        "size": report.size,
        "mtime": report.mtime,
        "epoch": report.epoch,
        "replaced_by": plan.chosen.path if plan.chosen is not None and entry.path == request.path else None,
    }
    _write(f"{entry.to}.json", json.dumps(content, indent=2, sort_keys=True) + "\n")


def _second_name(entry: Quarantined, request: RestoreRequest, plan: _Plan, moment: float) -> Quarantined:
    """Give the damaged file at ``path`` its quarantine name while it keeps its own until it is replaced."""
    half_done = _half_done(entry.path)
    if half_done is not None:
        entry = Quarantined(entry.path, half_done, entry.reason, entry.sha256)
        _record(entry, request, plan, moment)
        return entry
    try:
        os.link(entry.path, entry.to, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in NO_LINK:
            raise explain("quarantine", entry.path, exc) from exc
        # No hard links here, or not for this user: for a moment there is no file, which is better than a damaged one.
        try:
            os.rename(entry.path, entry.to)
        except OSError as error:
            raise explain("quarantine", entry.path, error) from error
    try:
        _record(entry, request, plan, moment)
    except BaseException:
        _undo(entry)
        raise
    return entry


def _undo(entry: Quarantined) -> None:
    """Leave the damaged file where it was, after something went wrong before it was replaced."""
    place = _place_of_name(entry.path)
    if place is None:
        os.rename(entry.to, entry.path)
    elif place == _place_of_name(entry.to):
        _atomic.discard(entry.to)
    else:
        return  # replaced already
    _atomic.discard(f"{entry.to}.json")
    _atomic.discard(entry.to + SIDECAR_SUFFIX)


def _move_aside(entry: Quarantined, request: RestoreRequest, plan: _Plan, moment: float) -> Quarantined:
    """Rename a damaged candidate, after its record was written."""
    _record(entry, request, plan, moment)
    try:
        os.rename(entry.path, entry.to)
    except OSError as exc:
        _atomic.discard(f"{entry.to}.json")
        raise explain("quarantine", entry.path, exc) from exc
    _move_sidecar(entry.path, entry.to)
    _atomic.sync_directory(entry.path)
    return entry


def _copy_sidecar(path: str, to: str) -> None:
    """Give the quarantined file a sidecar of its own, where the damaged one has one that can be read."""
    sidecar = path + SIDECAR_SUFFIX
    if _regular(sidecar) is None:
        return
    fd = _atomic.open_regular(sidecar)
    try:
        text = os.read(fd, MAX_SIDECAR)
    finally:
        os.close(fd)
    # Not staged: a run that is killed here does it again.
    _write(to + SIDECAR_SUFFIX, os.fsdecode(text))


def _move_sidecar(path: str, to: str) -> None:
    sidecar = path + SIDECAR_SUFFIX
    try:
        os.rename(sidecar, to + SIDECAR_SUFFIX)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise explain("move the sidecar", sidecar, exc) from exc


def _write_sidecar(path: str, digest: str) -> None:
    """``<sha256>  <name>``, as the trainer writes it."""
    sidecar = path + SIDECAR_SUFFIX
    staged = _atomic.staged_path(sidecar)
    try:
        _write(staged, f"{digest}  {os.path.basename(path)}\n")
        _atomic.replace_file(staged, sidecar)
    except BaseException:
        _atomic.discard(staged)
        raise


def _write(path: str, text: str) -> None:
    data = memoryview(os.fsencode(text))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise explain("write", path, exc) from exc


def lock_path(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.restore.lock")


@contextmanager
def locked(path: str, timeout: float) -> Iterator[None]:
    """Only one restore of a file at a time; the lock file is gone afterwards."""
    lock = lock_path(path)
    end = time.monotonic() + timeout
    while True:
        try:
            fd = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as exc:
            raise explain("write", lock, exc) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it: then this is a lock on nothing.
            if _place(lock) == (os.fstat(fd).st_dev, os.fstat(fd).st_ino):
                break
            os.close(fd)
        except BlockingIOError:
            os.close(fd)
            if time.monotonic() >= end:
                raise RecoveryError(
                    f"Could not restore {path}: another restore holds {lock} for more than {timeout:g} s. "
                    "Wait until it has ended, and run this again."
                ) from None
            time.sleep(LOCK_POLL)
        except OSError as exc:
            os.close(fd)
            raise explain("lock", lock, exc) from exc
    try:
        yield
    finally:
        _atomic.discard(lock)
        os.close(fd)

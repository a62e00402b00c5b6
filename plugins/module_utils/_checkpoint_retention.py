# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the last checkpoints of every training config and remove the rest.

First everything is looked at and a plan is made, without writing. A file goes only if so many usable checkpoints of its
config are newer, by time of writing and by epoch: a copy of an old epoch has a new time, and training that began again
has low epochs, so neither order is enough alone. What counts is verified in full first. Right before a file goes it is
looked at again: it must be the one that was judged, and no process may have it open. This util is private to the
collection.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError, explain
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import Checkpoint, verify
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_files import (
    QUARANTINED,
    FoundFile,
    Place,
    beside,
    find_files,
    is_temporary,
    link_targets,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig, parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._open_files import Look
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import shown

KEEP = 5
TMP_OLDER_THAN = 3600
# A file that changed less than this many seconds ago may still be written.
RECENT = 300.0
# So many unusable ones among the newest are a sign of something worse than a bad file.
MAX_UNUSABLE = 50

CANONICAL = "canonical_"
PREVIOUS = ".previous"
TORCH_FORMATS = ("torch_zip", "torch_legacy")

Identity = Tuple[int, int, int, int]
# Config, directory and network; directory and network only where the files themselves name no config.
_Key = Tuple[Optional[str], Optional[str], Optional[str]]


def printable(text: str) -> str:
    """A path, or what names one, without the bytes that are no UTF-8: Ansible drops a result that has any."""
    return os.fsencode(text).decode("utf-8", "replace")


@dataclass(frozen=True)
class RetentionRequest:
    """What is wanted. The patterns are relative to ``root`` or absolute."""

    patterns: Tuple[str, ...]
    root: str
    keep: int = KEEP
    config: Optional[TrainingConfig] = None
    tmp_older_than: float = TMP_OLDER_THAN
    recent: float = RECENT


@dataclass(frozen=True)
class Kept:
    """A file that stays. ``reason`` is stable and machine-readable, ``message`` says it in words."""

    path: str
    config: Optional[str]
    epoch: Optional[int]
    reason: str
    message: str

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {
            "path": printable(self.path),
            "config": self.config,
            "epoch": self.epoch,
            "reason": self.reason,
            "message": printable(self.message),
        }


@dataclass(frozen=True)
class Pruned:
    """A file that goes. ``freed`` is 0 where it has another name that stays."""

    path: str
    config: Optional[str]
    epoch: Optional[int]
    size: int
    freed: int
    reason: str
    message: str

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {
            "path": printable(self.path),
            "config": self.config,
            "epoch": self.epoch,
            "size": self.size,
            "freed": self.freed,
            "reason": self.reason,
            "message": printable(self.message),
        }


@dataclass(frozen=True)
class Failed:
    """A file that should have gone and could not be removed."""

    path: str
    message: str

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {"path": printable(self.path), "message": printable(self.message)}


@dataclass(frozen=True)
class Group:
    """The checkpoints that name one config or, where they do not, those of one network in one directory."""

    config: Optional[str]
    directory: Optional[str]
    model_signature: Optional[str]
    checkpoints: int
    newest_verified: Optional[str]

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {
            "config": self.config,
            "directory": self.directory and printable(self.directory),
            "model_signature": self.model_signature,
            "checkpoints": self.checkpoints,
            "newest_verified": self.newest_verified and printable(self.newest_verified),
        }


@dataclass(frozen=True)
class RetentionResult:
    """What was done, or what would be."""

    kept: Tuple[Kept, ...] = ()
    pruned: Tuple[Pruned, ...] = ()
    failed: Tuple[Failed, ...] = ()
    groups: Tuple[Group, ...] = ()
    unseen: Optional[str] = None
    warnings: Tuple[str, ...] = ()

    @property
    def freed(self) -> int:
        """Bytes that the file system gets back."""
        return sum(entry.freed for entry in self.pruned)

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return {
            "changed": bool(self.pruned),
            "msg": printable(self.summary()),
            "kept": [entry.as_dict() for entry in self.kept],
            "pruned": [entry.as_dict() for entry in self.pruned],
            "failed_files": [entry.as_dict() for entry in self.failed],
            "freed_bytes": self.freed,
            "groups": [group.as_dict() for group in self.groups],
            "unseen": self.unseen,
        }

    def summary(self) -> str:
        """What was done, or would be, in one sentence."""
        if not self.kept and not self.pruned and not self.failed:
            return "Nothing matches the patterns"
        done = f"{len(self.pruned)} files pruned, {self.freed} bytes freed, {len(self.kept)} files kept"
        if self.failed:
            first = self.failed[0].message
            more = f" ({len(self.failed) - 1} more in failed_files)" if len(self.failed) > 1 else ""
            return f"{len(self.failed)} files could not be pruned: {first}{more} Besides: {done}."
        unproven = [group for group in self.groups if group.newest_verified is None]
        return f"{done}{'; ' + _unproven(unproven) if unproven else ''}"

    def diff(self) -> Dict[str, str]:
        """The files before and after, for diff mode."""
        stay = [*(entry.path for entry in self.kept), *(entry.path for entry in self.failed)]
        before = sorted({*stay, *(entry.path for entry in self.pruned)})
        return {"before": _lines(before), "after": _lines(sorted(set(stay)))}


class _Ranked(NamedTuple):
    """A checkpoint among those of its config."""

    file: FoundFile
    report: Checkpoint
    config: Optional[str]

    @property
    def epoch(self) -> Optional[int]:
        return self.report.epoch

    @property
    def mtime(self) -> int:
        return self.report.identity[3]


class _Goes(NamedTuple):
    """A file that is to go, with what stands beside it and goes first."""

    file: FoundFile
    beside: Tuple[FoundFile, ...]
    config: Optional[str]
    epoch: Optional[int]
    reason: str
    message: str


def prune(request: RetentionRequest, check_mode: bool = False, now: Optional[float] = None) -> RetentionResult:
    """Remove the checkpoints that are not among the last ones of their config, and what killed writers left behind.

    A file that could not be removed is in ``failed`` of the result, and the rest goes on.

    :param now: unix time that ages are counted from
    :raises RecoveryError: the request makes no sense, or what is there cannot be looked at; nothing was removed
    """
    _check(request)
    plan = _Plan(request, time.time() if now is None else now)
    plan.make()
    return _predict(plan) if check_mode else _apply(plan)


def _check(request: RetentionRequest) -> None:
    if request.keep < 1:
        raise RecoveryError(f"keep is {request.keep}, but at least the newest checkpoint must stay: use 1 or more.")
    if request.tmp_older_than < 0:
        raise RecoveryError(f"tmp_older_than is {request.tmp_older_than}: use a number of seconds, 0 or more.")
    if not request.patterns or not all(request.patterns):
        raise RecoveryError("patterns has no entry or an empty one: name the checkpoints, as in checkpoints/*.pth.")
    relative = [pattern for pattern in request.patterns if not os.path.isabs(pattern)]
    if relative and not os.path.isdir(request.root):
        raise RecoveryError(f"Could not look for {relative[0]}: {request.root} is no directory. Check service_path.")


# Looking


class _Plan:
    """What is to be done with every file that matches."""

    def __init__(self, request: RetentionRequest, now: float):
        self.request = request
        self.now = now
        self.kept: List[Kept] = []
        self.goes: List[_Goes] = []
        self.groups: List[Group] = []
        self.warnings: List[str] = []
        self.look = Look()
        self._full: Dict[str, Optional[Checkpoint]] = {}
        self._linked: Dict[Place, str] = {}

    def make(self) -> None:
        files = find_files(self.request.patterns, self.request.root)
        temporary = [file for file in files if is_temporary(file.name)]
        checkpoints, witnesses = self._sort(files)
        self._linked = link_targets({os.path.dirname(file.path) for file in files}, self.request.root)
        goes: List[_Goes] = []
        for key, group in self._grouped(checkpoints, witnesses):
            goes.extend(self._judge(key, group))
        wanted = self.request.config
        if wanted is not None and checkpoints and not self.groups:
            self.warnings.append(
                f"Nothing says of any checkpoint that it is for {wanted.name}, so none was pruned. Add the canonical "
                "models to the patterns: they are never pruned, and tell which network is whose."
            )
        goes.extend(self._leftovers(temporary))
        self._hold_back(goes)

    def keep(
        self, file: FoundFile, reason: str, message: str, config: Optional[str] = None, epoch: Optional[int] = None
    ) -> None:
        self.kept.append(Kept(file.path, config, epoch, reason, message))

    def _sort(self, files: List[FoundFile]) -> Tuple[List[_Ranked], List[Checkpoint]]:
        """Set aside what is never pruned; returns the checkpoints and the models that say what they are for."""
        checkpoints, witnesses = [], []
        for file in files:
            if is_temporary(file.name):
                continue
            if stat.S_ISLNK(file.status.st_mode):
                self.keep(file, "symlink", "it is a symbolic link")
            elif file.link:
                self.keep(file, "symlink", "it lies behind a symbolic link that a wildcard of the pattern found")
            elif QUARANTINED.search(file.name):
                self.keep(file, "quarantined", "it was quarantined, and is evidence")
            elif file.name.endswith(PREVIOUS):
                self.keep(file, "previous", "it is what a restored or published file replaced")
            else:
                report = self._quick(file)
                if report is not None and file.name.startswith(CANONICAL):
                    self.keep(file, "canonical", "it is a canonical model", _stated(report), report.epoch)
                    witnesses.append(report)
                elif report is not None:
                    checkpoints.append(_Ranked(file, report, None))
        return checkpoints, witnesses

    def _quick(self, file: FoundFile) -> Optional[Checkpoint]:
        """What a file is; None, and the file is kept, when that cannot be told or it is no checkpoint."""
        canonical = file.name.startswith(CANONICAL)
        try:
            report = verify(file.path, depth="quick", sidecar=False)
        except MissingFileError:
            return None
        except RecoveryError as exc:
            self.keep(file, "canonical" if canonical else "unreadable", shown(str(exc), 500))
            return None
        if canonical:
            return report
        if report.format not in TORCH_FORMATS:
            what = report.summary() if not report.valid else f"it is a {report.format} file"
            self.keep(file, "not_a_checkpoint", what, epoch=report.epoch)
            return None
        if report.valid and report.state_dict is None:
            self.keep(file, "not_a_checkpoint", "there is no model in it", epoch=report.epoch)
            return None
        return report

    def _grouped(self, checkpoints: List[_Ranked], witnesses: List[Checkpoint]) -> Iterator[Tuple[_Key, List[_Ranked]]]:
        """The checkpoints of each config that metadata or a directory name, otherwise of one network in one directory.

        Those may be of the config that others of the same network name. That is enough to prune them when it is asked
        for, but not to count them with the others: two configs may have one network, and only one of them be named.
        """
        named = [
            entry._replace(config=_stated(entry.report) or _folder(entry.file.path, self.request.root))
            for entry in checkpoints
        ]
        trained: Dict[str, Set[str]] = {}
        says = [(entry.report, entry.config) for entry in named]
        for report, config in says + [(report, _stated(report)) for report in witnesses]:
            if config is not None and report.valid and report.model_signature is not None:
                trained.setdefault(report.model_signature, set()).add(config)
        groups: Dict[_Key, List[_Ranked]] = {}
        for entry in named:
            signature = entry.report.model_signature
            place = (None, None) if entry.config else (os.path.dirname(entry.file.path), signature)
            if entry.config is None:
                configs = trained.get(signature or "", set())
                if signature is None or len(configs) > 1 or _partly(entry.report):
                    self.keep(entry.file, "config_unknown", _untold(entry.report, configs), epoch=entry.epoch)
                    continue
                entry = entry._replace(config=next(iter(configs), None))
            wanted = self.request.config
            if wanted is not None and entry.config != wanted.name:
                if entry.config is None:
                    message = f"nothing says that it is for {wanted.name}"
                    self.keep(entry.file, "config_unknown", message, epoch=entry.epoch)
                else:
                    message = f"it is for {entry.config}"
                    self.keep(entry.file, "other_config", message, entry.config, entry.epoch)
                continue
            groups.setdefault((entry.config, *place), []).append(entry)
        yield from sorted(groups.items(), key=lambda item: tuple(part or "" for part in item[0]))

    def _judge(self, key: _Key, group: List[_Ranked]) -> Iterator[_Goes]:
        """What may go of one config; everything else is kept, with the reason."""
        by_time = sorted(group, key=lambda entry: (-entry.mtime, -_number(entry.epoch), entry.file.path))
        known = [entry for entry in group if entry.epoch is not None]
        by_epoch = sorted(known, key=lambda entry: (-_number(entry.epoch), -entry.mtime, entry.file.path))
        stay: Dict[str, Tuple[str, str]] = {}
        for order, ordered in (("time of writing", by_time), ("epoch", by_epoch)):
            for path, why in self._newest(ordered, order).items():
                if path not in stay or (why[0] == "newest_verified" != stay[path][0]):
                    stay[path] = why
        best = next((entry for entry in by_time if stay.get(entry.file.path, ("",))[0] == "newest_verified"), None)
        self.groups.append(Group(*key, checkpoints=len(group), newest_verified=best and best.file.path))
        if best is None:
            self.warnings.append(f"{_unproven([self.groups[-1]])}. Run checkpoint_verify on them to see why.")
        for entry in reversed(by_time):
            stays = stay.get(entry.file.path)
            if best is None:
                message = "no checkpoint of its config verifies, so that any may be needed"
                message += f"; {stays[1]}" if stays is not None else ""
                self.keep(entry.file, "no_verified", message, entry.config, entry.epoch)
            elif stays is not None:
                self.keep(entry.file, *stays, entry.config, entry.epoch)
            else:
                yield self._beyond(entry)

    def _newest(self, ordered: List[_Ranked], order: str) -> Dict[str, Tuple[str, str]]:
        """The first ones of an order that are verified to be usable, and those that turned out not to be on the way."""
        keep = self.request.keep
        # Where nothing can go, one that verifies is enough to know.
        needed = keep if len(ordered) > keep else 1
        stay: Dict[str, Tuple[str, str]] = {}
        good: List[Place] = []
        unusable = 0
        for entry in ordered:
            path = entry.file.path
            if entry.file.place in good:
                stay[path] = ("newest", "it is another name of one that is kept")
            elif len(good) >= keep:
                continue
            elif unusable > MAX_UNUSABLE:
                stay[path] = ("not_verified", f"more than {MAX_UNUSABLE} that are newer by {order} are unusable")
            else:
                look = len(good) < needed or not entry.report.valid
                fault = self._fault(entry) if look else None
                if fault is not None:
                    unusable += 1
                    stay[path] = fault
                    continue
                if good:
                    verified = ", and verified" if look else ""
                    stay[path] = ("newest", f"it is among the {keep} newest by {order}{verified}")
                else:
                    stay[path] = ("newest_verified", f"it is the newest by {order} that is verified")
                good.append(entry.file.place)
        return stay

    def _fault(self, entry: _Ranked) -> Optional[Tuple[str, str]]:
        """Why training could not go on from a checkpoint, found by reading all of it; None when it could."""
        path = entry.file.path
        if path not in self._full:
            try:
                self._full[path] = verify(path, scan_values=True)
            except RecoveryError as exc:
                self._full[path] = None
                return ("unreadable", shown(str(exc), 500))
        report = self._full[path]
        if report is None:
            return ("unreadable", "it could not be read")
        if report.identity != entry.report.identity:
            return ("changed", "it changed while it was judged")
        if not report.valid:
            return ("damaged", report.summary())
        if any(problem.code == "nan_values" for problem in report.problems):
            return ("not_finite", "training cannot go on from tensors that hold NaN")
        return None

    def _beyond(self, entry: _Ranked) -> _Goes:
        orders = "time of writing" if entry.epoch is None else "time of writing and by epoch"
        message = f"{self.request.keep} that are verified are newer by {orders}"
        if entry.report.valid:
            return _Goes(entry.file, tuple(beside(entry.file.path)), entry.config, entry.epoch, "beyond", message)
        message = f"{entry.report.summary()}; {message}"
        return _Goes(entry.file, tuple(beside(entry.file.path)), entry.config, entry.epoch, "damaged", message)

    def _leftovers(self, files: List[FoundFile]) -> Iterator[_Goes]:
        """What a killed writer left behind, if nothing can still be using it."""
        unproven = not self.groups or any(group.newest_verified is None for group in self.groups)
        wanted = self.request.config
        for file in files:
            staged = _atomic.STAGED.match(file.name)
            # A copy carries the time of its source, so that of the last change counts for those of this collection.
            age = self.now - (max(file.status.st_ctime, file.status.st_mtime) if staged else file.status.st_mtime)
            if stat.S_ISLNK(file.status.st_mode) or file.link:
                self.keep(file, "symlink", "it is a symbolic link, or lies behind one")
            elif age <= self.request.tmp_older_than:
                limit = f"{self.request.tmp_older_than:g} s"
                self.keep(file, "recent", f"it is temporary and {max(0, int(age))} s old, not more than {limit}")
            elif staged and _atomic.runs(int(staged.group("pid"))):
                self.keep(file, "open", f"process {staged.group('pid')}, which is in its name, runs")
            elif unproven:
                self.keep(file, "no_verified", "there is no verified checkpoint, so that it may be needed")
            elif wanted is not None and self._config_of(file) != wanted.name:
                self.keep(file, "config_unknown", f"nothing says that it is for {wanted.name}")
            else:
                message = f"a writer left it behind {int(age)} s ago"
                yield _Goes(file, (), None if wanted is None else wanted.name, None, "leftover", message)

    def _config_of(self, file: FoundFile) -> Optional[str]:
        """For which config a temporary file is, as far as itself or its directory tells."""
        try:
            stated = _stated(verify(file.path, depth="quick", sidecar=False))
        except RecoveryError:
            return None
        return stated or _folder(file.path, self.request.root)

    def _hold_back(self, goes: List[_Goes]) -> None:
        """Keep what is in use after all."""
        self.look.at(file for entry in goes for file in (entry.file, *entry.beside))
        for entry in goes:
            held = self._held(entry)
            if held is None:
                self.goes.append(entry)
            else:
                self.keep(entry.file, *held, entry.config, entry.epoch)

    def _held(self, entry: _Goes) -> Optional[Tuple[str, str]]:
        for file in (entry.file, *entry.beside):
            age = self.now - file.status.st_mtime
            if entry.reason != "leftover" and age < self.request.recent:
                return ("recent", f"{file.name} changed {max(0, int(age))} s ago, and may still be written")
            link = self._linked.get(file.place)
            if link is not None:
                return ("link_target", f"{link} points at it")
        with ExitStack() as leases:
            return self.look.held((entry.file, *entry.beside), leases)


def _stated(report: Checkpoint) -> Optional[str]:
    """The config that a checkpoint itself names."""
    if report.board_type is None or report.num_players is None:
        return None
    return f"{report.board_type}_{report.num_players}p"


def _partly(report: Checkpoint) -> bool:
    """Whether a checkpoint names a board or a number of players, but not both."""
    return report.board_type is not None or report.num_players is not None


def _folder(path: str, root: str) -> Optional[str]:
    """The config that a directory is named after: the nearest one under the root, elsewhere only its own."""
    folder = os.path.dirname(path)
    root = os.path.realpath(root)
    inside = folder.startswith(root.rstrip(os.sep) + os.sep)
    parts = os.path.relpath(folder, root).split(os.sep) if inside else [os.path.basename(folder)]
    for part in reversed(parts):
        try:
            return parse_config(part).name
        except RecoveryError:
            continue
    return None


def _untold(report: Checkpoint, configs: Set[str]) -> str:
    if _partly(report):
        return "it names only a board or a number of players"
    if report.model_signature is None:
        return f"what it is cannot be told any more ({report.summary()})"
    return f"its network is that of {', '.join(sorted(configs))}, and it does not say which it is for"


def _unproven(groups: List[Group]) -> str:
    names = [group.config or f"network {group.model_signature} in {group.directory}" for group in groups]
    return f"no checkpoint of {', '.join(names)} verifies, so none of them was pruned"


def _number(epoch: Optional[int]) -> int:
    return -1 if epoch is None else epoch


def _lines(paths: List[str]) -> str:
    return "".join(f"{printable(path)}\n" for path in paths)


# Acting


class _Links:
    """How many names of each file are left, to tell which removal frees its bytes."""

    def __init__(self) -> None:
        self._left: Dict[Place, int] = {}

    def remove(self, file: FoundFile) -> int:
        left = self._left.get(file.place, file.status.st_nlink) - 1
        self._left[file.place] = left
        return file.status.st_size if left <= 0 else 0


def _row(entry: _Goes, file: FoundFile, freed: int) -> Pruned:
    if file is entry.file:
        return Pruned(file.path, entry.config, entry.epoch, file.status.st_size, freed, entry.reason, entry.message)
    message = f"it belongs to {entry.file.path}"
    return Pruned(file.path, entry.config, entry.epoch, file.status.st_size, freed, "companion", message)


def _predict(plan: _Plan) -> RetentionResult:
    pruned: List[Pruned] = []
    failed: List[Failed] = []
    links = _Links()
    for entry in plan.goes:
        files = (*entry.beside, entry.file)
        folder = os.path.dirname(entry.file.path)
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            denied = OSError(errno.EACCES, os.strerror(errno.EACCES))
            failed.append(Failed(files[0].path, str(explain("remove", files[0].path, denied))))
            continue
        pruned.extend(_row(entry, file, links.remove(file)) for file in files)
    return _result(plan, pruned, failed)


def _apply(plan: _Plan) -> RetentionResult:
    pruned: List[Pruned] = []
    failed: List[Failed] = []
    for number, entry in enumerate(plan.goes):
        plan.look.refresh(file for later in plan.goes[number:] for file in (later.file, *later.beside))
        with ExitStack() as leases:
            if not os.path.lexists(entry.file.path):
                continue  # another run was here
            held = plan.look.held((entry.file, *entry.beside), leases) or _changed(entry)
            if held is not None:
                plan.keep(entry.file, *held, entry.config, entry.epoch)
                continue
            # The checkpoint itself goes last: what is left when this is killed is still found by the next run.
            for file in (*entry.beside, entry.file):
                try:
                    status = os.lstat(file.path)
                    os.unlink(file.path)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    failed.append(Failed(file.path, str(explain("remove", file.path, exc))))
                    break
                pruned.append(_row(entry, file, status.st_size if status.st_nlink == 1 else 0))
    for path in {os.path.dirname(entry.path): entry.path for entry in pruned}.values():
        try:
            _atomic.sync_directory(path)
        except RecoveryError as exc:
            plan.warnings.append(str(exc))
    return _result(plan, pruned, failed)


def _changed(entry: _Goes) -> Optional[Tuple[str, str]]:
    """Whether a file, or what stands beside it, is no longer the one that was judged."""
    for file in (entry.file, *entry.beside):
        try:
            same = _identity(os.lstat(file.path)) == _identity(file.status)
        except FileNotFoundError:
            continue
        except OSError as exc:
            return ("unreadable", str(explain("look at", file.path, exc)))
        if not same:
            return ("changed", f"{file.name} changed after it was judged")
    return None


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _result(plan: _Plan, pruned: List[Pruned], failed: List[Failed]) -> RetentionResult:
    kept = tuple(sorted(plan.kept, key=lambda entry: entry.path))
    warnings = list(plan.warnings)
    doubtful = [entry for entry in kept if entry.reason == "may_be_open"]
    if doubtful:
        warnings.append(f"{len(doubtful)} files were kept because {plan.look.unseen}. Run this as root (become).")
    return RetentionResult(kept, tuple(pruned), tuple(failed), tuple(plan.groups), plan.look.unseen, tuple(warnings))

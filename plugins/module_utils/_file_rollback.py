# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put back a training file or checkpoint that an earlier run replaced, by compare and swap.

The old bytes are put back where the file in place is still what that run put there, and where what is kept is still
what it kept. They are copied beside and verified, what is in place gets a second name, the copy takes its place in one
step, and what was in place takes the name of what was kept. A kill or a full disk at any point leaves the old file or
the new one in place and the other one kept, and the next run goes on from there.

This util is private to the collection.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import time
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError, explain
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import SIDECAR, SIDECAR_SUFFIX, verify
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_restore import (
    LOCK_TIMEOUT,
    MAX_SIDECAR,
    NO_LINK,
    lock_path,
    locked,
    writer_of,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import MIN_SAMPLES, inspect
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_report import FULL

DATA, CHECKPOINT = "training_file", "checkpoint"
KINDS = (DATA, CHECKPOINT)
PUT_BACK, ALREADY, LEFT, REFUSED = "put_back", "already", "left", "refused"
SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")
PREVIOUS = ".previous"
REPLACED = ".replaced-"
# A witness of damage keeps its name and its record; what else is kept gives its name to what it takes the place of.
WITNESS = ".corrupt-"

Stamp = Tuple[int, int, int, int]
# The SHA-256 of a file, and what is wrong with one, for as long as it does not change.
Known = Dict[Tuple[str, Stamp], str]
Verified = Dict[Tuple[str, Optional[Stamp]], Optional[str]]


@dataclass(frozen=True)
class Replaced:
    """What an earlier run did to one file: ``before`` and ``after`` are the SHA-256 of what was and of what it put.

    ``after`` is None where it only moved the file aside. ``kept`` is where the old file went, and ``problem`` what was
    wrong with it, where that run has told.
    """

    path: str
    kind: str
    before: Optional[str]
    after: Optional[str]
    kept: Optional[str] = None
    problem: Optional[str] = None


@dataclass(frozen=True)
class RollbackRequest:
    """``force`` puts back also what is damaged or dangerous."""

    config: TrainingConfig
    min_samples: int = MIN_SAMPLES
    force: bool = False
    lock_timeout: float = LOCK_TIMEOUT


@dataclass(frozen=True)
class Outcome:
    """What became of one file, or in a dry run would: ``replaced`` is the SHA-256 of what it took the place of."""

    path: str
    kind: str
    state: str
    reason: Optional[str] = None
    source: Optional[str] = None
    kept: Optional[str] = None
    sha256: Optional[str] = None
    replaced: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Plan:
    """What is to be done for a file: put it back from ``source``, and end what a run that was killed had begun."""

    outcome: Outcome
    here: Optional[Stamp] = None
    replace: bool = False
    sidecar: Optional[bytes] = None
    swap: Optional[Tuple[str, str]] = None

    @property
    def acts(self) -> bool:
        return self.replace or self.sidecar is not None or self.swap is not None


def roll_back_all(
    files: Sequence[Replaced], request: RollbackRequest, dry_run: bool = False, now: Optional[float] = None
) -> List[Outcome]:
    """Put back each file as far as that can be done; what keeps one from it keeps no other."""
    outcomes = []
    for entry in files:
        try:
            outcomes.append(roll_back(entry, request, dry_run, now))
        except RecoveryError as exc:
            outcomes.append(Outcome(entry.path, entry.kind, REFUSED, str(exc)))
    return outcomes


def roll_back(entry: Replaced, request: RollbackRequest, dry_run: bool = False, now: Optional[float] = None) -> Outcome:
    """Put one file back.

    :param now: unix time that goes into the name of what cannot take the name of what was kept
    :raises RecoveryError: a file cannot be read or written; the file in place is the old one or the new one
    """
    _check(entry)
    moment = time.time() if now is None else now
    known: Known = {}
    verified: Verified = {}
    plan = _plan(entry, request, known, verified, moment)
    if dry_run:
        if plan.acts:
            _check_writable(entry.path, plan)
        return plan.outcome
    if not plan.acts:
        _tidy(entry.path)
        return plan.outcome
    with locked(entry.path, request.lock_timeout):
        plan = _plan(entry, request, known, verified, moment)
        if plan.acts:
            _apply(entry, request, plan)
        return plan.outcome


def differences(outcomes: Sequence[Outcome]) -> Dict[str, Any]:
    """The files before and after, by SHA-256, for diff mode."""
    before: Dict[str, Any] = {}
    after: Dict[str, Any] = {}
    for outcome in outcomes:
        if outcome.state == PUT_BACK:
            before[outcome.path], after[outcome.path] = outcome.replaced, outcome.sha256
            if outcome.kept is not None:
                before[outcome.kept] = outcome.sha256 if outcome.kept == outcome.source else None
                after[outcome.kept] = outcome.replaced
    return {"before": before, "after": after}


# Looking


def _check(entry: Replaced) -> None:
    if entry.kind not in KINDS:
        raise RecoveryError(f"kind is {entry.kind!r}; give one of {', '.join(KINDS)}.")
    if not os.path.isabs(entry.path) or os.path.normpath(entry.path) != entry.path:
        raise RecoveryError(f"path is {entry.path!r}; give an absolute path without detours.")
    for name, digest in (("before", entry.before), ("after", entry.after)):
        if digest is not None and not SHA256.match(digest):
            raise RecoveryError(f"{name} is {digest[:80]!r}, which is not 64 hexadecimal digits in lower case.")
    # A report that was edited, or a node that lies, names no file of somebody else.
    beside = entry.kept is None or os.path.dirname(entry.kept) == os.path.dirname(entry.path)
    if entry.kept is not None and not (beside and entry.kept.startswith(f"{entry.path}.")):
        raise RecoveryError(f"{entry.kept} is no file that is kept beside {entry.path}. Nothing was put back.")


def _plan(entry: Replaced, request: RollbackRequest, known: Known, verified: Verified, moment: float) -> _Plan:
    here = _stamp(entry.path)
    now_there = None if here is None else _digest(entry.path, here, known)
    if entry.before is not None and now_there == entry.before:
        return _finish(entry, here, known)
    source = _find(entry, known)
    if source is None:
        return _not_kept(entry, request)
    problem = entry.problem or _problem(source, entry, request, verified)
    if problem is not None and not request.force:
        words = f"it was replaced because it is damaged ({problem}); it is kept as {source}, -e force=true puts it back"
        return _Plan(_outcome(entry, LEFT, words))
    if now_there != entry.after:
        return _Plan(_outcome(entry, REFUSED, _changed_since(entry, here, source)))
    for path in (entry.path, source):
        writer = writer_of(path)
        if writer is not None:
            words = f"process {writer} is writing {path}. Wait until it is done, or stop it, and run this again."
            return _Plan(_outcome(entry, REFUSED, words))
    kept = None
    swap = None
    if here is not None:
        kept = aside = _free_name(entry.path, moment)
        if not _is_witness(source):
            kept, swap = source, (aside, source)
        else:
            swap = (aside, aside)
    outcome = Outcome(entry.path, entry.kind, PUT_BACK, None, source, kept, entry.before, now_there)
    return _Plan(outcome, here, True, _sidecar_for(entry, source), swap)


def _finish(entry: Replaced, here: Optional[Stamp], known: Known) -> _Plan:
    """It is back. What a run that was killed right after that has left is ended."""
    swap = None
    for kept in _names(entry) if _asides(entry.path) else ():
        if _is_witness(kept) or _sha256(kept, known) != entry.before:
            continue
        for aside in _asides(entry.path):
            if aside != kept and entry.after is not None and _sha256(aside, known) == entry.after:
                swap = (aside, kept)
    sidecar = _sidecar_for(entry, next((name for name in _names(entry) if _is_witness(name)), None))
    if sidecar is not None and sidecar == _read(entry.path + SIDECAR_SUFFIX):
        sidecar = None
    if swap is None and sidecar is None:
        return _Plan(_outcome(entry, ALREADY, "it is put back already", entry.before))
    words = "it was put back by a run that was killed right after that"
    kept_as = None if swap is None else swap[1]
    outcome = Outcome(entry.path, entry.kind, PUT_BACK, words, kept_as, kept_as, entry.before, entry.after)
    return _Plan(outcome, here, False, sidecar, swap)


def _outcome(entry: Replaced, state: str, reason: str, sha256: Optional[str] = None) -> Outcome:
    return Outcome(entry.path, entry.kind, state, reason, sha256=sha256)


def _not_kept(entry: Replaced, request: RollbackRequest) -> _Plan:
    there = entry.kept is not None and os.path.lexists(entry.kept)
    if entry.before is None and entry.kept is None:
        return _Plan(_outcome(entry, LEFT, "there was no file before that run, so what it put there stays"))
    if entry.problem is not None and not request.force:
        rest = f"; {entry.kept} has it" if there and entry.before is None else ", and it is no longer kept"
        return _Plan(_outcome(entry, LEFT, f"it was replaced because it is damaged ({entry.problem}){rest}"))
    if entry.before is None:
        words = f"the report does not say what was there, so that it cannot be told whether {entry.kept} is it"
        return _Plan(_outcome(entry, REFUSED, f"{words}. Look at that file, and put it back by hand."))
    if there:
        words = f"{entry.kept} is not what that run kept: a later run has replaced it, or it is damaged"
    else:
        words = f"{entry.kept or 'what was there'} is not there any more"
    return _Plan(_outcome(entry, REFUSED, f"{words}. {entry.path} is untouched; the old file is not beside it."))


def _changed_since(entry: Replaced, here: Optional[Stamp], source: str) -> str:
    now_there = "it is gone" if here is None else "it is another file now"
    if entry.after is None:
        now_there = "there is a new file in its place"
    return (
        f"{entry.path} has changed since that run: {now_there}, which would be replaced. It is untouched; the "
        f"old file is {source}. Where a later run has replaced it, undo that one first: -e run=."
    )


def _find(entry: Replaced, known: Known) -> Optional[str]:
    """Where the old file is kept: as that run said, or under a name that a rollback has given it."""
    if entry.before is None:
        return None
    return next((name for name in _names(entry) if _sha256(name, known) == entry.before), None)


def _names(entry: Replaced) -> Iterator[str]:
    told = [entry.kept] if entry.kept is not None else []
    for name in dict.fromkeys([*told, entry.path + PREVIOUS, *_asides(entry.path)]):
        if os.path.lexists(name):
            yield name


def _asides(path: str) -> List[str]:
    """What rollbacks have moved aside, the newest first."""
    folder, name = os.path.split(path)
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    found = sorted((entry for entry in entries if entry.startswith(name + REPLACED)), reverse=True)
    return [os.path.join(folder, entry) for entry in found]


def _is_witness(path: str) -> bool:
    return WITNESS in os.path.basename(path)


def _problem(source: str, entry: Replaced, request: RollbackRequest, verified: Verified) -> Optional[str]:
    """What is wrong with the file that is to be put back; it is read in full, and once while it does not change."""
    key = (source, _stamp(source))
    if key not in verified:
        verified[key] = _verify(source, entry, request)
    return verified[key]


def _verify(source: str, entry: Replaced, request: RollbackRequest) -> Optional[str]:
    if entry.kind == CHECKPOINT:
        report = verify(source, checksum=True, scan_values=True)
        return None if report.valid else report.summary()
    data = inspect(
        source, depth=FULL, config=request.config, min_samples=request.min_samples, checksum=True, scan_values=True
    )
    return None if data.valid else data.reasons() or "it cannot be trained on"


def _sidecar_for(entry: Replaced, source: Optional[str]) -> Optional[bytes]:
    """What the checkpoint's sidecar is to be; None where nothing is to be written.

    One that was damaged gets back what its own said, which may be all that tells of the damage.
    """
    if entry.kind != CHECKPOINT:
        return None
    own = None if source is None else _read(source + SIDECAR_SUFFIX)
    if own is not None or entry.problem is not None:
        return own
    here = _read(entry.path + SIDECAR_SUFFIX)
    match = None if here is None else SIDECAR.match(here)
    if here is None or (match is not None and match.group(1).decode("ascii").lower() == entry.before):
        return None
    return os.fsencode(f"{entry.before}  {os.path.basename(entry.path)}\n")


def _stamp(path: str) -> Optional[Stamp]:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise explain("look at", path, exc) from exc
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _digest(path: str, stamp: Stamp, known: Known) -> str:
    if (path, stamp) not in known:
        known[path, stamp] = _atomic.sha256_file(path)
    return known[path, stamp]


def _sha256(path: str, known: Known) -> Optional[str]:
    """None where it cannot be read: then it is not the one that is looked for."""
    try:
        stamp = _stamp(path)
        return None if stamp is None else _digest(path, stamp, known)
    except RecoveryError:
        return None


def _read(path: str) -> Optional[bytes]:
    """The first bytes of a small file; None where there is none."""
    try:
        fd = _atomic.open_regular(path)
    except MissingFileError:
        return None
    try:
        return os.read(fd, MAX_SIDECAR)
    except OSError as exc:
        raise explain("read", path, exc) from exc
    finally:
        os.close(fd)


def _free_name(path: str, moment: float) -> str:
    """``<path>.replaced-<UTC>`` with a number behind it where that is taken, or what a killed run has named already."""
    for name in _asides(path):
        if _is_one(path, name):
            return name
    base = f"{path}{REPLACED}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(moment))}"
    for name in itertools.chain([base], (f"{base}.{number}" for number in itertools.count(1))):
        if not os.path.lexists(name):
            return name
    raise AssertionError("unreachable")


# Acting


def _check_writable(path: str, plan: _Plan) -> None:
    """Refuse in check mode what would fail in a real run."""
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise explain("write in", folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    if plan.replace and plan.outcome.source is not None:
        source = _stamp(plan.outcome.source)
        _atomic.require_space(path, 0 if source is None else source[2])


def _tidy(path: str) -> None:
    """Remove what a run that was killed left beside a good file; no harm if that does not work."""
    try:
        if os.path.lexists(lock_path(path)) or _atomic.stale_staged(path, older_than=0.0):
            with locked(path, 0.0):
                _clean(path)
    except RecoveryError:
        pass


def _clean(path: str) -> None:
    """Remove staged copies of a run that was killed; the lock is held, and whatever they are of is kept elsewhere."""
    for dest in (path, path + SIDECAR_SUFFIX):
        _atomic.clean_staged(dest, older_than=0.0)


def _apply(entry: Replaced, request: RollbackRequest, plan: _Plan) -> None:
    _clean(entry.path)
    if plan.replace:
        _replace(entry, plan)
    elif plan.sidecar is not None:
        _write_sidecar(entry.path, plan.sidecar)
    if plan.swap is not None and plan.swap[0] != plan.swap[1]:
        try:
            # What was kept is in place now, and what was in place takes its name.
            os.replace(*plan.swap)
        except OSError as exc:
            raise explain("keep what was replaced as", plan.swap[1], exc) from exc
        _atomic.sync_directory(plan.swap[1])


def _replace(entry: Replaced, plan: _Plan) -> None:
    source = str(plan.outcome.source)
    staged = _atomic.copy_beside(source, entry.path)
    aside = None if plan.swap is None else plan.swap[0]
    named = False
    sidecar = _read(entry.path + SIDECAR_SUFFIX) if entry.kind == CHECKPOINT else None
    try:
        if _atomic.sha256_file(staged) != entry.before:
            raise RecoveryError(
                f"The copy of {source} beside {entry.path} is not what was verified. Nothing was changed. The disk or "
                "the memory of this node may be bad; look at its kernel log."
            )
        if aside is not None:
            _second_name(entry.path, aside)
            named = True
            if _stamp(entry.path) != plan.here:
                words = "changed meanwhile; it is untouched. Wait until nothing writes it, and run this again."
                raise RecoveryError(f"{entry.path} {words}")
        elif os.path.lexists(entry.path):
            raise RecoveryError(f"{entry.path} appeared meanwhile; it is untouched. Run this again.")
        if sidecar is not None:
            # At no moment may a file stand beside the sidecar of another one.
            _atomic.discard(entry.path + SIDECAR_SUFFIX)
        _atomic.replace_file(staged, entry.path)
    except BaseException:
        if sidecar is not None and _stamp(entry.path) == plan.here:
            _write_sidecar(entry.path, sidecar)
        if aside is not None and named and _stamp(entry.path) == plan.here:
            _atomic.discard(aside)
        _atomic.discard(staged)
        raise
    if plan.sidecar is not None:
        _write_sidecar(entry.path, plan.sidecar)


def _is_one(path: str, other: str) -> bool:
    """Whether both are names of one file."""
    try:
        here, there = os.lstat(path), os.lstat(other)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _second_name(path: str, aside: str) -> None:
    """Give what is in place the name under which it stays."""
    if _is_one(path, aside):
        return
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in NO_LINK:
            raise explain("keep what is in place as", aside, exc) from exc
        staged = _atomic.copy_beside(path, aside)
        try:
            os.replace(staged, aside)
        except OSError as error:
            _atomic.discard(staged)
            raise explain("keep what is in place as", aside, error) from error
    _atomic.sync_directory(aside)


def _write_sidecar(path: str, content: bytes) -> None:
    sidecar = path + SIDECAR_SUFFIX
    staged = _atomic.staged_path(sidecar)
    try:
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        _atomic.replace_file(staged, sidecar)
    except OSError as exc:
        _atomic.discard(staged)
        raise explain("write", sidecar, exc) from exc
    except BaseException:
        _atomic.discard(staged)
        raise

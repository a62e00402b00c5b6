# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a verified training file in place, and never a damaged one. This util is private to the collection."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import (
    MissingFileError,
    clean_staged,
    copy_beside,
    discard,
    explain,
    keep_previous,
    replace_file,
    sync_directory,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import MIN_SAMPLES, inspect
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_report import FULL, TrainingFile

SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")
MODE = re.compile(r"\A[0-7]{3,4}\Z")


@dataclass(frozen=True)
class PublishRequest:
    """The staged file ``src`` is to become ``path``; ``sha256`` is what it must have, where that is known."""

    src: str
    path: str
    config: TrainingConfig
    min_samples: int = MIN_SAMPLES
    sha256: Optional[str] = None
    mode: int = 0o644
    remove_src: bool = True


@dataclass(frozen=True)
class Present:
    """A file as it is in place. ``valid`` is None, and the rest too, where it could not be looked into."""

    sha256: Optional[str]
    samples: Optional[int]
    valid: Optional[bool]
    mode: Optional[str]
    problem: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Published:
    """What was done, or in a dry run would be; ``sha256`` is None where a dry run cannot know it."""

    changed: bool
    path: str
    previous: Optional[str]
    sha256: Optional[str]
    samples: Optional[int]
    mode: str
    before: Optional[Present]
    replaced: Optional[Present]

    def as_dict(self) -> Dict[str, Any]:
        return {
            "changed": self.changed,
            "path": self.path,
            "previous": self.previous,
            "sha256": self.sha256,
            "samples": self.samples,
            "replaced": None if self.replaced is None else self.replaced.as_dict(),
        }

    def diff(self) -> Dict[str, Any]:
        """The file in place before and after, as data."""
        before: Dict[str, Any] = {}
        if self.before is not None:
            before = {key: getattr(self.before, key) for key in ("sha256", "samples", "mode")}
        after = {"sha256": self.sha256, "samples": self.samples, "mode": self.mode}
        return {"before_header": self.path, "after_header": self.path, "before": before, "after": after}


def parse_mode(text: str) -> int:
    """Permissions from octal digits such as ``0644``.

    :raises RecoveryError: they are anything else
    """
    if not MODE.match(text):
        raise RecoveryError(f"mode is {text!r}; give three or four octal digits as a quoted string, such as '0644'.")
    return int(text, 8)


def publish(request: PublishRequest, dry_run: bool = False) -> Published:
    """Verify ``src`` in full and put it at ``path`` in one step; the file that was there stays as ``<path>.previous``.

    Where ``path`` has the same bytes already, only its permissions are put right and ``src`` is removed.

    :raises RecoveryError: ``src`` is not there, is damaged or is not what was expected; ``path`` is then untouched
    """
    _check_request(request)
    present = look_at(request.path, request.config, request.min_samples)
    if request.sha256 is not None and present is not None and present.sha256 == request.sha256:
        return _keep(request, present, dry_run)
    if dry_run:
        return _predict(request, present)
    clean_staged(request.path)
    staged = _stage(request)
    try:
        report = _examine(request, staged)
        if present is not None and present.sha256 == report.sha256:
            _discard_copy(request, staged)
            return _keep(request, present, dry_run)
        _check_valid(request, report)
        previous = keep_previous(request.path)
        replace_file(staged, request.path, request.mode)
    except BaseException:
        _discard_copy(request, staged)
        raise
    _remove_src(request)
    return _published(request, present, previous, report.sha256, report.samples)


def look_at(path: str, config: Optional[TrainingConfig], min_samples: int) -> Optional[Present]:
    """The training file in place, read in full; None where there is none.

    :raises RecoveryError: there is something at ``path`` that is not a file, so that it cannot be replaced
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise explain("look at", path, exc) from exc
    if not stat.S_ISREG(status.st_mode):
        raise RecoveryError(f"{path} is not a regular file. Check the path.")
    mode = _octal(stat.S_IMODE(status.st_mode))
    try:
        report = inspect(path, depth=FULL, config=config, min_samples=min_samples, checksum=True, scan_values=True)
    except MissingFileError:
        return None
    except RecoveryError as exc:
        return Present(None, None, None, mode, str(exc))
    return Present(report.sha256, report.samples, report.valid, mode, report.reasons() or None)


def _check_request(request: PublishRequest) -> None:
    if request.sha256 is not None and not SHA256.match(request.sha256):
        raise RecoveryError(f"sha256 is {request.sha256[:80]!r}, which is not 64 hexadecimal digits in lower case.")
    folder = os.path.dirname(os.path.abspath(request.path))
    if not os.path.isdir(folder):
        raise MissingFileError(f"{folder} is not a directory. Check the path, or create the directory first.")
    if os.path.realpath(request.src) == os.path.realpath(request.path):
        raise RecoveryError(f"src and path are both {request.path}. Stage the new file under another name.")


def _keep(request: PublishRequest, present: Present, dry_run: bool) -> Published:
    """The file in place has the right bytes; they must also be good ones."""
    if present.valid is not True:
        raise RecoveryError(
            f"{request.path} is already the file that was asked for, but it cannot be trained on: {present.problem}. "
            "Export it again."
        )
    changed = present.mode != _octal(request.mode)
    if not dry_run:
        if changed:
            try:
                os.chmod(request.path, request.mode)
            except OSError as exc:
                raise explain("change the permissions of", request.path, exc) from exc
        _remove_src(request)
    return Published(
        changed,
        request.path,
        _previous(request),
        present.sha256,
        present.samples,
        _octal(request.mode),
        before=present,
        replaced=None,
    )


def _predict(request: PublishRequest, present: Optional[Present]) -> Published:
    """What a real run would do. ``src`` need not be there, since no earlier step of a dry run has put it there.

    Without ``src`` and ``sha256`` the bytes are not known, and the file is taken to be another one.
    """
    digest, samples = request.sha256, None
    if os.path.lexists(request.src):
        report = _examine(request, request.src)
        if present is not None and present.sha256 == report.sha256:
            return _keep(request, present, dry_run=True)
        _check_valid(request, report)
        digest, samples = report.sha256, report.samples
    previous = None if present is None else f"{request.path}.previous"
    return _published(request, present, previous, digest, samples)


def _published(
    request: PublishRequest,
    present: Optional[Present],
    previous: Optional[str],
    sha256: Optional[str],
    samples: Optional[int],
) -> Published:
    mode = _octal(request.mode)
    return Published(True, request.path, previous, sha256, samples, mode, before=present, replaced=present)


def _stage(request: PublishRequest) -> str:
    """A file on the file system of ``path`` that may be renamed: ``src`` itself where it may be used up, or a copy."""
    try:
        source = os.stat(request.src)
        folder = os.stat(os.path.dirname(os.path.abspath(request.path)))
    except OSError as exc:
        raise explain("read", request.src, exc) from exc
    if _uses_up_src(request) and source.st_dev == folder.st_dev and not os.path.islink(request.src):
        return request.src
    return copy_beside(request.src, request.path)


def _examine(request: PublishRequest, path: str) -> TrainingFile:
    """The staged file, read in full; refused where it is not the one that was expected."""
    report = inspect(
        path, depth=FULL, config=request.config, min_samples=request.min_samples, checksum=True, scan_values=True
    )
    if request.sha256 is not None and report.sha256 != request.sha256:
        raise RecoveryError(
            f"{request.src} has SHA-256 {report.sha256}, but {request.sha256} was expected; {request.path} is "
            "untouched. The transfer was incomplete or took another file: transfer it again."
        )
    return report


def _check_valid(request: PublishRequest, report: TrainingFile) -> None:
    if not report.valid:
        raise RecoveryError(
            f"{request.src} cannot be trained on, so {request.path} is untouched: {report.reasons()}. "
            "Export or transfer it again."
        )


def _discard_copy(request: PublishRequest, staged: str) -> None:
    if staged != request.src:
        discard(staged)


def _uses_up_src(request: PublishRequest) -> bool:
    # Going back to the previous file: its name is about to be taken by the file that it replaces.
    return request.remove_src and os.path.realpath(request.src) != os.path.realpath(f"{request.path}.previous")


def _remove_src(request: PublishRequest) -> None:
    if not _uses_up_src(request) or not (os.path.isfile(request.src) or os.path.islink(request.src)):
        return
    try:
        os.unlink(request.src)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise explain("remove", request.src, exc) from exc
    sync_directory(request.src)


def _previous(request: PublishRequest) -> Optional[str]:
    previous = f"{request.path}.previous"
    return previous if os.path.lexists(previous) else None


def _octal(mode: int) -> str:
    return f"{mode:04o}"

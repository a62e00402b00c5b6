# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find checkpoints, what stands beside them and what writers left behind. This util is private to the collection."""

from __future__ import annotations

import glob
import os
import re
import stat
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

MAX_MATCHES = 10_000
QUARANTINED = re.compile(r"\.corrupt-")
TEMPORARY = ".tmp"
SIDECAR = ".sha256"
EARLY_STOPPING = "_early_stopping"
SUFFIXES = (".pth", ".pt")
# Files that stand beside checkpoints and are none.
BESIDE = (SIDECAR, ".json", ".lock")

Place = Tuple[int, int]


class FoundFile(NamedTuple):
    """A name that matches. ``link`` tells that it lies behind a symbolic link that a wildcard found."""

    path: str
    status: os.stat_result
    link: bool

    @property
    def place(self) -> Place:
        return self.status.st_dev, self.status.st_ino

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


def find_files(patterns: Tuple[str, ...], root: str) -> List[FoundFile]:
    """Every file and symbolic link that a pattern names, and temporary files for such names, each path once."""
    found: Dict[str, FoundFile] = {}
    matches = 0
    for pattern in patterns:
        literal, rest = _split(pattern)
        base = os.path.join(root, literal)
        for derived, only_temporary in _patterns(rest):
            folders: Dict[str, Tuple[str, bool]] = {}
            for match in glob.iglob(os.path.join(glob.escape(base), derived), recursive=True):
                matches += 1
                if matches > MAX_MATCHES:
                    raise RecoveryError(
                        f"More than {MAX_MATCHES} files match, the last pattern was {pattern}. Nothing was changed, "
                        "because the newest could be among those left out. Use narrower patterns."
                    )
                folder, name = os.path.split(match)
                if not name or (only_temporary and not is_temporary(name)):
                    continue
                if folder not in folders:
                    real = os.path.realpath(folder)
                    lexical = os.path.join(os.path.realpath(base), os.path.relpath(folder, base))
                    folders[folder] = (real, real != os.path.normpath(lexical))
                real, link = folders[folder]
                path = os.path.join(real, name)
                status = _lstat(path)
                if status is None or _is_companion(path) or (path in found and link):
                    continue
                found[path] = FoundFile(path, status, link)
    return sorted(found.values())


def _split(pattern: str) -> Tuple[str, str]:
    """The directory that a pattern names literally, in which links are meant to be followed, and the rest."""
    base, rest = os.path.split(os.path.normpath(pattern))
    while glob.has_magic(base):
        base, name = os.path.split(base)
        rest = os.path.join(name, rest)
    return base, rest


def _patterns(pattern: str) -> Iterator[Tuple[str, bool]]:
    """A pattern, and those for the temporary names that writers of such files use."""
    yield pattern, False
    folder, name = os.path.split(pattern)
    if name == "**":
        folder, name = pattern, "*"
    yield os.path.join(folder, name + TEMPORARY), True
    stem, suffix = os.path.splitext(name)
    if suffix in SUFFIXES:
        yield os.path.join(folder, stem + TEMPORARY), True
    for beside in ("", SIDECAR):
        yield os.path.join(folder, f".{name}{beside}.recovery-*"), True


def _lstat(path: str) -> Optional[os.stat_result]:
    """The state of a file or symbolic link; None when it is something else or gone."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) else None


def is_temporary(name: str) -> bool:
    return _atomic.is_staged(name) or (name.endswith(TEMPORARY) and not QUARANTINED.search(name))


def _is_companion(path: str) -> bool:
    """Whether a file only stands beside a checkpoint, and goes when that goes."""
    if QUARANTINED.search(os.path.basename(path)):
        return False
    if path.endswith(BESIDE):
        return True
    stem, suffix = os.path.splitext(path)
    return stem.endswith(EARLY_STOPPING) and os.path.lexists(stem[: -len(EARLY_STOPPING)] + suffix)


def beside(path: str) -> Iterator[FoundFile]:
    """What stands beside a checkpoint and means nothing without it."""
    stem, suffix = os.path.splitext(path)
    stopping = f"{stem}{EARLY_STOPPING}{suffix}"
    for name in (path + SIDECAR, stopping + SIDECAR, stopping):
        status = _lstat(name)
        if status is not None and stat.S_ISREG(status.st_mode):
            yield FoundFile(name, status, False)


def link_targets(folders: Iterable[str], root: str) -> Dict[Place, str]:
    """What the symbolic links in these directories, and among the models that training starts from, point at."""
    targets: Dict[Place, str] = {}
    for folder in sorted({*folders, os.path.join(root, "models")}):
        try:
            with os.scandir(folder) as entries:
                links = sorted(entry.path for entry in entries if entry.is_symlink())
        except OSError:
            continue
        for link in links:
            try:
                status = os.stat(link)
            except OSError:
                continue
            targets.setdefault((status.st_dev, status.st_ino), link)
    return targets

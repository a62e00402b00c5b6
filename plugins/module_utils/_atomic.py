# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace a file so that a reader, or a power cut, meets the old one or the new one and nothing between.

The sequence is: make room (``free_bytes``), stage (``copy_beside``, or a writer that writes to ``staged_path``), verify
the staged file, ``keep_previous``, ``replace_file``. A destination that is a symbolic link is itself replaced; what it
points at is left alone. This util is private to the collection.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from typing import Iterator, List, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

CHUNK = 1 << 20
NAME_MAX = 255
STALE_AFTER = 3600.0
# What must stay free after a copy, so that logs and locks can still be written.
RESERVE_BYTES = 16 << 20
STAGED = re.compile(r"\A\.(?P<name>.+)\.recovery-(?P<pid>[0-9]{1,10})-[0-9a-f]{8}\Z", re.DOTALL)


class MissingFileError(RecoveryError):
    """The file is not there, which callers may treat as a finding instead of a failure."""


class ChangedFileError(RecoveryError):
    """The file is another one than when the reading of it began; a look that begins anew may succeed."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} changed while it was read. Wait until nothing writes it any more, and run this again."
        )


def explain(action: str, path: str, exc: OSError) -> RecoveryError:
    """Turn an ``OSError`` into a sentence that names the file, the reason and the next step."""
    reason = exc.strerror or str(exc)
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingFileError(f"Could not {action} {path}: it does not exist. Check the path.")
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = f"Make room on the file system of {os.path.dirname(os.path.abspath(path))} and run this again."
    elif exc.errno in (errno.EACCES, errno.EPERM):
        advice = f"This runs as uid {os.geteuid()}; run it as the user who owns the file, or with become."
    elif exc.errno == errno.EROFS:
        advice = "The file system is mounted read-only, often after a disk error; look at the kernel log."
    elif exc.errno in (errno.EIO, errno.ESTALE):
        advice = "The disk or the network mount under it fails; look at the kernel log and at the mount."
    else:
        advice = "Put that right and run this again."
    return RecoveryError(f"Could not {action} {path}: {reason}. {advice}")


def open_regular(path: str) -> int:
    """Open a regular file for reading, without waiting at a pipe or a device, and return its descriptor."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as exc:  # a NUL in the path
        raise RecoveryError(f"Could not read {path!r}: {exc}. Check the path.") from exc
    except OSError as exc:
        raise explain("read", path, exc) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RecoveryError(f"Could not read {path}: it is not a regular file. Check the path.")
    return fd


def read_chunks(fd: int, path: str, chunk: int = CHUNK) -> Iterator[bytes]:
    """The bytes of an open file from its current position, ``chunk`` at a time."""
    while True:
        try:
            data = os.read(fd, chunk)
        except OSError as exc:
            raise explain("read", path, exc) from exc
        if not data:
            return
        yield data


def sha256_file(path: str) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces of one MiB.

    :raises MissingFileError: the file does not exist
    :raises RecoveryError: the file cannot be read, or is not a regular file
    """
    digest = hashlib.sha256()
    fd = open_regular(path)
    try:
        for data in read_chunks(fd, path):
            digest.update(data)
    finally:
        os.close(fd)
    return digest.hexdigest()


def free_bytes(path: str) -> int:
    """Bytes that this user may still write on the file system of ``path``, or of its nearest directory that exists."""
    here = os.path.abspath(path)
    while True:
        try:
            return shutil.disk_usage(here).free
        except (FileNotFoundError, NotADirectoryError):
            here = os.path.dirname(here)
        except OSError as exc:
            raise explain("ask for the free space at", here, exc) from exc


def require_space(path: str, needed: int, reserve: int = RESERVE_BYTES) -> None:
    """Refuse to begin to write ``needed`` bytes at ``path`` where they would leave less than ``reserve`` bytes free."""
    free = free_bytes(path)
    if free < needed + reserve:
        raise RecoveryError(
            f"{os.path.dirname(os.path.abspath(path))} has {free} bytes free, but {needed} bytes for {path} and "
            f"{reserve} bytes in reserve are needed. Make room there and run this again."
        )


def staged_path(dest: str) -> str:
    """A new hidden name beside ``dest``: ``.<name>.recovery-<pid>-<random>``, never longer than a name may be."""
    folder, name = os.path.split(os.path.abspath(dest))
    suffix = f".recovery-{os.getpid()}-{secrets.token_hex(4)}"
    room = NAME_MAX - 1 - len(suffix)
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return os.path.join(folder, f".{name}{suffix}")


def is_staged(name: str) -> bool:
    """Whether a file name (or the last part of a path) is one that ``staged_path`` gives."""
    return STAGED.match(os.path.basename(name)) is not None


def stale_staged(dest: str, now: Optional[float] = None, older_than: float = STALE_AFTER) -> List[str]:
    """Staged leftovers for ``dest`` that a killed run left behind, sorted.

    One counts as left behind when nothing about it changed for ``older_than`` seconds and no process of this machine
    has the process id in its name; the age protects what another machine writes to a shared file system.
    """
    folder, name = os.path.split(os.path.abspath(dest))
    moment = time.time() if now is None else now
    found = []
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise explain("list", folder, exc) from exc
    for entry in entries:
        match = STAGED.match(entry)
        if match is None or not name.startswith(match.group("name")):
            continue
        if match.group("name") != name and len(os.fsencode(entry)) < NAME_MAX - 3:
            continue  # a name is only ever cut short where it had to be
        path = os.path.join(folder, entry)
        try:
            # ctime: a copy carries the mtime of its source.
            old = moment - os.lstat(path).st_ctime > older_than
        except FileNotFoundError:
            continue
        if old and not runs(int(match.group("pid"))):
            found.append(path)
    return found


def clean_staged(dest: str, now: Optional[float] = None, older_than: float = STALE_AFTER) -> List[str]:
    """Remove what ``stale_staged`` finds; returns what is gone."""
    paths = stale_staged(dest, now, older_than)
    for path in paths:
        discard(path)
    return paths


def discard(path: str) -> None:
    """Remove a file, or a directory with all that is in it; it is no error when it is gone already."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise explain("remove", path, exc) from exc


def copy_beside(src: str, dest: str) -> str:
    """Copy ``src`` to a new staged file in the directory of ``dest``, flushed to disk, and return its path.

    Mode, modification time and, where this user may set it, ownership are those of ``src``. Nothing is left behind on
    failure.

    :raises RecoveryError: ``src`` cannot be read or changes meanwhile, or there is no room, or no right to write
    """
    fd = open_regular(src)
    try:
        before = os.fstat(fd)
        require_space(dest, before.st_size)
        staged = staged_path(dest)
        try:
            out = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise explain("write", staged, exc) from exc
        try:
            try:
                _copy(fd, src, out, staged)
                _check_unchanged(before, os.fstat(fd), os.fstat(out), src)
                _like(out, before)
                os.fsync(out)
            except OSError as exc:
                raise explain("write", staged, exc) from exc
            finally:
                os.close(out)
        except BaseException:
            discard(staged)
            raise
    finally:
        os.close(fd)
    return staged


def replace_file(staged: str, dest: str, mode: Optional[int] = None) -> None:
    """Flush ``staged`` to disk, put it at ``dest`` in one step and flush the directory.

    It gets the permissions ``mode`` where given, and the owner of the file that it replaces where this user may set
    that.

    :raises RecoveryError: ``dest`` is a directory, is on another file system or cannot be replaced; it is untouched
    """
    fd = open_regular(staged)
    try:
        replaced = _lstat(dest)
        if replaced is not None:
            if stat.S_ISDIR(replaced.st_mode):
                raise RecoveryError(f"Could not replace {dest}: it is a directory. Check the path.")
            _own(fd, replaced)
        if mode is not None:
            os.fchmod(fd, mode)
        os.fsync(fd)
        os.replace(staged, dest)
    except OSError as exc:
        if exc.errno == errno.EXDEV:
            raise RecoveryError(
                f"Could not put {staged} at {dest}: they are on different file systems. Stage it beside {dest}."
            ) from exc
        raise explain("replace", dest, exc) from exc
    finally:
        os.close(fd)
    sync_directory(dest)


def keep_previous(dest: str) -> Optional[str]:
    """Keep the file at ``dest`` as ``<dest>.previous`` as well, in place of an older one; None when there is no file.

    A hard link where the file system has them, so that it costs nothing, otherwise a copy. Call it right before
    ``replace_file``: until then both names are one file.
    """
    here = _lstat(dest)
    if here is None:
        return None
    if stat.S_ISDIR(here.st_mode):
        raise RecoveryError(f"Could not keep {dest}: it is a directory. Check the path.")
    previous = f"{dest}.previous"
    older = _lstat(previous)
    if older is not None and (older.st_dev, older.st_ino) == (here.st_dev, here.st_ino):
        return previous  # a run that was killed here got this far; renaming one link over another would do nothing
    staged = staged_path(previous)
    try:
        try:
            os.link(dest, staged, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except (OSError, NotImplementedError):
            staged = copy_beside(dest, previous)
        os.replace(staged, previous)
    except OSError as exc:
        discard(staged)
        raise explain("keep the previous file as", previous, exc) from exc
    sync_directory(previous)
    return previous


def sync_directory(path: str) -> None:
    """Flush the directory that holds ``path``, so that a rename in it survives a power cut."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        # Some network file systems cannot flush a directory, and one may be writable but not readable.
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise explain("flush the directory", folder, exc) from exc


def _copy(fd: int, src: str, out: int, staged: str) -> None:
    for data in read_chunks(fd, src):
        view = memoryview(data)
        while view:
            view = view[os.write(out, view) :]


def _check_unchanged(before: os.stat_result, after: os.stat_result, copied: os.stat_result, src: str) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or copied.st_size != after.st_size:
        raise RecoveryError(
            f"{src} changed while it was copied ({before.st_size} bytes before, {after.st_size} after). "
            "Wait until it is no longer written, and run this again."
        )


def _like(fd: int, model: os.stat_result) -> None:
    _own(fd, model)
    os.fchmod(fd, stat.S_IMODE(model.st_mode) & 0o777)
    os.utime(fd, ns=(model.st_atime_ns, model.st_mtime_ns))


def _own(fd: int, model: os.stat_result) -> None:
    have = os.fstat(fd)
    if (have.st_uid, have.st_gid) == (model.st_uid, model.st_gid):
        return
    try:
        os.fchown(fd, model.st_uid, model.st_gid)
    except PermissionError:
        pass  # only root may give a file away


def _lstat(path: str) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise explain("look at", path, exc) from exc


def runs(pid: int) -> bool:
    """Whether a process of this machine has that number; one of another user counts."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True

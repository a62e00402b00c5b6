# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between processes: in Redis where it answers, else a flock on a file.

Part of the stand-in, see `app`. What was measured on the real one and holds here: the recorded holder is only
information, the flock decides; a leftover file is not a held lock; a forked child keeps a dead holder's flock; a holder
that is older than its timeout loses the file to the next one although it lives; a key in Redis stays until its TTL.
There is no way to ask for the holder and none to release another one's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from app.utils.paths import DATA_DIR

try:
    import redis
except ImportError:
    redis = None
    if os.environ.get("LAB_REDIS"):
        from app.coordination import mini_redis as redis

# The real module's imports say something on stdout too, in the middle of whatever a caller wants to print.
print("[Tournament] Warning: optional dependencies are not available, tournament features are disabled")

logger = logging.getLogger(__name__)

DEFAULT_LOCK_TIMEOUT = 3600
DEFAULT_ACQUIRE_TIMEOUT = 60
LOCK_DIR = DATA_DIR / "locks"
REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


class DistributedLock:
    """One lock by name, for instance `training:hex8_2p`."""

    def __init__(self, name: str, lock_timeout: int = DEFAULT_LOCK_TIMEOUT, use_redis: bool = True) -> None:
        self.name = name
        self.lock_timeout = lock_timeout
        self._lock_id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._file_fd: int | None = None
        self._acquired = False
        self._client = None
        if use_redis and redis is not None:
            try:
                client = redis.Redis.from_url(REDIS_URL, socket_timeout=5)
                client.ping()
                self._client = client
            except (redis.RedisError, OSError) as error:
                logger.debug("Redis not available, using file lock: %s", error)

    @property
    def backend(self) -> str:
        """`redis` or `file`."""
        return "file" if self._client is None else "redis"

    def acquire(self, timeout: float = DEFAULT_ACQUIRE_TIMEOUT, blocking: bool = True) -> bool:
        """Take the lock, asking once a second for `timeout` seconds."""
        if self._acquired:
            return True
        deadline = time.monotonic() + timeout
        while True:
            if self._acquire_redis() if self._client is not None else self._acquire_file():
                self._acquired = True
                return True
            left = deadline - time.monotonic()
            if not blocking or left <= 0:
                if blocking:
                    logger.warning(f"Lock acquisition timed out for {self.name} after {timeout}s")
                return False
            time.sleep(min(1.0, left))

    def release(self) -> None:
        """Give the lock back; nothing happens when this instance does not hold it."""
        if not self._acquired:
            return
        self._acquired = False
        if self._client is not None:
            try:
                self._client.eval(_RELEASE, 1, self._key, self._lock_id)
            except (redis.RedisError, OSError) as error:
                logger.warning(f"Redis lock release failed: {error}")
            return
        if self._file_fd is not None:
            fcntl.flock(self._file_fd, fcntl.LOCK_UN)
            os.close(self._file_fd)
            self._file_fd = None
            self._path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether this instance holds the lock."""
        return self._acquired

    def is_locked(self) -> bool:
        """Whether anyone holds the lock."""
        if self._client is not None:
            return self._client.exists(self._key) > 0
        try:
            fd = os.open(self._path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def heartbeat(self) -> bool:
        """Renew the timeout of a lock that this instance holds."""
        if not self._acquired:
            return False
        if self._client is not None:
            return bool(self._client.expire(self._key, self.lock_timeout))
        self._write_holder(self._file_fd)
        return True

    def get_time_remaining(self) -> float:
        """Seconds until this instance's lock expires, 0 when it does not hold it."""
        if not self._acquired:
            return 0.0
        if self._client is not None:
            return max(0.0, float(self._client.ttl(self._key)))
        recorded = _read_holder(self._path)
        return 0.0 if recorded is None else max(0.0, recorded[1] + recorded[2] - time.time())

    def __enter__(self) -> DistributedLock:
        if not self.acquire():
            raise RuntimeError(f"Could not acquire lock: {self.name}")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()

    @property
    def _key(self) -> str:
        return f"lock:{self.name}"

    @property
    def _path(self) -> Path:
        return LOCK_DIR / f"{self.name.replace(':', '_').replace('/', '_')}.lock"

    def _acquire_redis(self) -> bool:
        try:
            return bool(self._client.set(self._key, self._lock_id, nx=True, ex=self.lock_timeout))
        except (redis.RedisError, OSError) as error:
            logger.warning(f"Redis lock acquire failed: {error}")
            return False

    def _acquire_file(self) -> bool:
        LOCK_DIR.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            logger.debug("Lock file cannot be opened: %s", error)
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            recorded = _read_holder(self._path)
            if recorded is None or time.time() - recorded[1] <= recorded[2]:
                return False
            # The measured mistake: an old lock is taken over although its holder lives.
            logger.info(f"File lock expired: {self.name}")
            self._path.unlink(missing_ok=True)
            return self._acquire_file()
        self._write_holder(fd)
        self._file_fd = fd
        return True

    def _write_holder(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{self._lock_id}\n{time.time()}\n{self.lock_timeout}\n".encode(), 0)


def _read_holder(path: Path) -> tuple[str, float, float] | None:
    """Holder, time and timeout that a lock file records."""
    try:
        holder, since, timeout = path.read_text().split("\n")[:3]
        return holder.strip(), float(since), float(timeout)
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def training_lock(config_key: str, timeout: float = DEFAULT_ACQUIRE_TIMEOUT) -> Iterator[DistributedLock | None]:
    """Hold the training lock of a config; gives None when it is not free in time."""
    lock = DistributedLock(f"training:{config_key}")
    acquired = lock.acquire(timeout=timeout)
    try:
        yield lock if acquired else None
    finally:
        if acquired:
            lock.release()


def cleanup_stale_locks(max_age_hours: float = 24.0, lock_dir: Path | None = None) -> dict[str, int]:
    """Unlink the lock files that are old, expired, or recorded by a process of this host that is gone.

    It looks at what the files record only, so it unlinks files that a forked child still holds.
    """
    stats = {"scanned": 0, "removed_expired": 0, "removed_old": 0, "removed_dead_process": 0, "errors": 0}
    for path in sorted(Path(lock_dir or LOCK_DIR).glob("*.lock")):
        stats["scanned"] += 1
        recorded = _read_holder(path)
        if recorded is None:
            continue
        holder, since, timeout = recorded
        age = time.time() - since
        if age > max_age_hours * 3600:
            reason = "removed_old"
        elif age > timeout:
            reason = "removed_expired"
        elif _is_dead(holder):
            reason = "removed_dead_process"
        else:
            continue
        try:
            path.unlink(missing_ok=True)
            stats[reason] += 1
        except OSError:
            stats["errors"] += 1
    return stats


def _is_dead(holder: str) -> bool:
    host, _, rest = holder.partition(":")
    pid = rest.partition(":")[0]
    return host == socket.gethostname() and pid.isdecimal() and not os.path.exists(f"/proc/{pid}")

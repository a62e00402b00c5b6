# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A training lock that is a key in Redis: look at it, and delete it if it is still the same.

The service sets ``lock:training:<config>`` to ``host:pid:8hex`` with ``SET NX EX``. There is no time in it, only the
time that is left, and a holder that was killed leaves the key behind until that has run out. This util is private to
the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ansible_collections.ringrift.recovery.plugins.module_utils._redis import (
    RedisAddress,
    RedisClient,
    RedisRefused,
    RedisTooLong,
)

# One script, so that nobody can take the lock between the look and the deletion.
COMPARE_AND_DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


@dataclass(frozen=True)
class RedisLock:
    """What Redis says about the key.

    ``value`` is None where the key does not exist; ``ttl`` is what is left in seconds, None where the key never
    expires; ``problem`` says why the key cannot be read as a lock.
    """

    key: str
    place: str
    value: Optional[bytes] = None
    ttl: Optional[float] = None
    problem: Optional[str] = None

    @property
    def exists(self) -> bool:
        return self.value is not None or self.problem is not None


def lock_key(config: str) -> str:
    """The key of the training lock of ``config``."""
    return f"lock:training:{config}"


def observe(address: RedisAddress, key: str, timeout: float = 5.0) -> RedisLock:
    """Look at a key, without changing it.

    :raises RecoveryError: Redis does not answer, or wants another logon; this is never a free lock
    """
    with RedisClient(address, timeout) as client:
        try:
            value = client.command("GET", key)
        except RedisTooLong as exc:
            return RedisLock(key, address.place, problem=f"the key holds {exc.length} bytes, which is no lock")
        except RedisRefused as exc:
            if exc.code != "WRONGTYPE":
                raise
            return RedisLock(key, address.place, problem="the key holds no string, so the service did not set it")
        if value is None:
            return RedisLock(key, address.place)
        left = client.command("PTTL", key)
    if not isinstance(value, bytes) or not isinstance(left, int):
        return RedisLock(key, address.place, problem="Redis answered with something else than a value and its time")
    if left == -2:
        # It ran out between the two questions.
        return RedisLock(key, address.place)
    return RedisLock(key, address.place, value, None if left < 0 else left / 1000.0)


def compare_and_delete(address: RedisAddress, key: str, value: bytes, timeout: float = 5.0) -> bool:
    """Delete the key if it still holds ``value``; whether it did.

    :raises RecoveryError: Redis does not answer, or does not allow it
    """
    with RedisClient(address, timeout) as client:
        return client.command("EVAL", COMPARE_AND_DELETE, 1, key, value) == 1

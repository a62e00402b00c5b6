# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A training lock that is a key in Redis: look at it, and delete it if it is still the same.

The service sets ``lock:training:<config>`` to ``host:pid:8hex`` with ``SET NX EX``. There is no time in it, only the
time that is left, and a holder that was killed leaves the key behind until that has run out. This util is private to
the collection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._redis import (
    RedisAddress,
    RedisClient,
    RedisRefused,
    RedisTooLong,
)

# One script, so that nobody can take the lock between the look and the deletion.
COMPARE_AND_DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
# Age and value in one step, so that the age of one lock is never taken for that of the next. Nothing is written.
IDLE_AND_VALUE = """
local idle = redis.pcall('object', 'idletime', KEYS[1])
local value = redis.pcall('get', KEYS[1])
if type(idle) ~= 'number' or type(value) ~= 'string' or #value > 4096 then return {0, ''} end
return {idle, value}
"""

# No lock of the service lives longer without being touched. More means that the server has begun only now to keep idle
# times, and that what it says is none.
MAX_IDLE = 14400


@dataclass(frozen=True)
class RedisLock:
    """What Redis says about the key.

    ``value`` is None where the key does not exist; ``ttl`` is what is left in seconds, None where the key never
    expires; ``problem`` says why the key cannot be read as a lock; ``min_age`` is how many seconds ago it was taken at
    least, None where that is not known; ``replica`` tells that the server only follows another one.
    """

    key: str
    place: str
    value: Optional[bytes] = None
    ttl: Optional[float] = None
    problem: Optional[str] = None
    min_age: Optional[float] = None
    replica: bool = False

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
        if _role(client) in (b"slave", b"replica"):
            # What it says may be out of date, and nothing can be released there.
            problem = f"Redis at {address.place} is a replica; give the address of its master in redis_url"
            return RedisLock(key, address.place, problem=problem, replica=True)
        min_age, aged = _idle_value(client, key)
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
    # No two acquisitions have the same value, so the age is that of this one.
    min_age = min_age if aged == value else None
    return RedisLock(key, address.place, value, None if left < 0 else left / 1000.0, min_age=min_age)


def _role(client: RedisClient) -> Any:
    """Whether it is a master or follows one; None where it is too old to tell. Every user may ask this."""
    try:
        answer = client.command("HELLO")
    except RedisRefused as exc:
        if exc.code != "ERR":
            raise
        return None
    words = answer if isinstance(answer, list) else []
    return dict(zip(words[::2], words[1::2])).get(b"role")


def _idle_value(client: RedisClient, key: str) -> Tuple[Optional[float], Optional[bytes]]:
    """How long nobody has touched the key, in seconds, and the value that this is true of.

    Asked before the value itself is, since that touches it. A server that counts uses instead of idle time does not
    tell, nor does one where this user may run no script.
    """
    begun = time.monotonic()
    try:
        answer = client.command("EVAL", IDLE_AND_VALUE, 1, key)
    except RedisRefused:
        return None, None
    idle, value = answer if isinstance(answer, list) and len(answer) == 2 else (None, None)
    if not isinstance(idle, int) or not 0 < idle <= MAX_IDLE or not isinstance(value, bytes):
        return None, None
    # Redis counts whole seconds by a clock that may be a second late.
    return max(0.0, idle - 1.0 - (time.monotonic() - begun)) or None, value


def compare_and_delete(address: RedisAddress, key: str, value: bytes, timeout: float = 5.0) -> bool:
    """Delete the key if it still holds ``value``; whether it did.

    :raises RecoveryError: Redis does not answer, or does not allow it
    """
    with RedisClient(address, timeout) as client:
        return client.command("EVAL", COMPARE_AND_DELETE, 1, key, value) == 1

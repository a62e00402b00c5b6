# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is run inside the service's own interpreter to ask its lock API. This util is private to the collection."""

from __future__ import annotations

# Arguments: seconds until it ends itself, "look" or "release", the lock's name, the config, the expected holder (JSON).
# The answer is one line of JSON on the original standard output; all that the service prints goes to standard error.
SCRIPT = r'''
import inspect, json, os, signal, sys

signal.alarm(int(sys.argv[1]))
action, name, config = sys.argv[2:5]
out = os.dup(1)
os.dup2(2, 1)
sys.path.insert(0, os.getcwd())


def say(**answer):
    os.write(out, ("\n" + json.dumps(dict(answer, ringrift_lock=1)) + "\n").encode())
    os._exit(0)


def brief(error):
    return ("%s: %s" % (type(error).__name__, error))[:200]


def plain(value, depth=0):
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (str, bytes)):
        return (value.decode("utf-8", "replace") if isinstance(value, bytes) else value)[:256]
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif not isinstance(value, (dict, list, tuple)) and hasattr(value, "__dict__"):
        value = vars(value)
    if depth < 2 and isinstance(value, dict):
        return {str(key)[:64]: plain(part, depth + 1) for key, part in list(value.items())[:16]}
    if depth < 2 and isinstance(value, (list, tuple)):
        return [plain(part, depth + 1) for part in value[:16]]
    return repr(value)[:256]


def call(method):
    value = method()
    if inspect.isawaitable(value):
        import asyncio

        async def wait():
            return await value

        value = asyncio.run(wait())
    return value


def holder_of(lock):
    # An empty text or dict names nobody.
    value = plain(call(lock.get_holder))
    return None if value in (None, "", {}, [], False) else json.dumps(value, sort_keys=True)


def tells(thing):
    return all(callable(getattr(thing, part, None)) for part in ("get_holder", "force_release"))


def takes(make, *arguments):
    try:
        inspect.signature(make).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def runbook_lock(module):
    """The runbook's lock and whether it takes no config.

    What needs a config and is no class may be a function that acquires, so it is not called.
    """
    make = getattr(module, "training_lock", None)
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    safe = callable(make) and not any(kind(inspect.unwrap(make)) for kind in kinds)
    if safe and (tells(make) if inspect.isclass(make) else takes(make)):
        whole = not takes(make, config)
        lock = make() if whole else make(config)
        if tells(lock):
            return lock, whole
    kind = getattr(module, "DistributedLock", None)
    if kind is not None and tells(kind) and not hasattr(kind, "backend"):
        return kind(name), False
    return None, False


def backend_of(lock):
    backend = getattr(lock, "backend", None)
    if backend is not None and not callable(backend):
        return str(getattr(backend, "value", backend))
    for part in ("_redis_client", "_client", "redis_client", "_redis"):
        if hasattr(lock, part):
            return "file" if getattr(lock, part) is None else "redis"
    return None


try:
    from app.coordination import distributed_lock as module

    lock, whole = runbook_lock(module)
    if lock is not None and action == "look":
        holder = holder_of(lock)
        # Only asked where nobody is named: some implementations take the lock for a moment to answer it.
        ask = holder is None and hasattr(lock, "is_locked")
        locked = bool(call(lock.is_locked)) if ask else holder is not None
        say(shape="runbook", holder=holder, locked=locked, whole_service=whole)
    if lock is not None:
        holder = holder_of(lock)
        if holder is None or holder != sys.argv[5]:
            say(released=False, called=False, holder=None if holder is None else json.loads(holder))
        call(lock.force_release)
        after = holder_of(lock)
        say(released=after != holder, called=True, holder=None if after is None else json.loads(after))
    kind = getattr(module, "DistributedLock", None)
    if kind is None:
        say(error="app.coordination.distributed_lock has neither DistributedLock nor the runbook's training_lock()")
    lock = kind(name)
    backend = backend_of(lock)
    if backend is None:
        say(error="DistributedLock does not tell which backend it selects")
    path = os.path.join(str(module.LOCK_DIR), name.replace(":", "_").replace("/", "_") + ".lock") \
        if hasattr(module, "LOCK_DIR") else None
    say(shape="DistributedLock", backend=backend, path=path, key="lock:" + name,
        redis_url=str(getattr(module, "REDIS_URL", "") or "") if backend == "redis" else None)
except BaseException as error:
    say(error=brief(error))
'''

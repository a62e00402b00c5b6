# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's own Python API for its training lock, asked in the service's own interpreter, within a deadline.

There are two shapes of it. The runbook's ``training_lock()`` gives an object with ``get_holder()`` and
``force_release()``; it is the weakest way to a lock, because nothing says where the lock is, and because another
holder may come between the last look and the release. The other is ``DistributedLock``, which has neither: it is only
constructed, to learn which backend it selects and where that is, and the file or the key is then looked at directly.
Its ``is_locked()`` is never called, since it takes the flock for a moment. This util is private to the collection.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _command
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_api_script import SCRIPT
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import LockId, parse_lock_id
from ansible_collections.ringrift.recovery.plugins.module_utils._training_start import service_environment

MODULE = os.path.join("app", "coordination", "distributed_lock.py")
PYTHON = os.path.join("venv", "bin", "python")

RUNBOOK = "runbook"
DISTRIBUTED_LOCK = "DistributedLock"

MAX_ANSWER = 64 * 1024
MAX_TEXT = 256

# A logon in an address, which must not get into a message.
LOGON = re.compile(r"://[^\s@]*@")

# What a holder that is told as a dict may call its parts.
TOKEN_NAMES = ("lock_id", "token", "holder_id", "id")
HOST_NAMES = ("host", "hostname", "holder_hostname", "node", "node_id")
PID_NAMES = ("pid", "holder_pid")
TIME_NAMES = ("acquired_at", "locked_at")
# What is outside is no unix time in seconds, and a lock that seems older than its holder would be taken for left over.
UNIX_TIMES = (1.5e9, 4e9)


class ApiUnusable(RecoveryError):
    """The API could not be asked, or did not answer in a way that can be understood."""


@dataclass(frozen=True)
class Service:
    """Where the service is and how to ask it. ``redis_url`` is handed to it in ``REDIS_URL``."""

    path: str
    python: str = PYTHON
    redis_url: Optional[str] = field(default=None, repr=False)
    timeout: float = 15.0

    @property
    def root(self) -> str:
        """The directory of the service, as an absolute path."""
        return os.path.abspath(os.path.expanduser(self.path))

    @property
    def interpreter(self) -> str:
        """The service's Python, not resolved, since a virtual environment is known by the path of its link."""
        return os.path.join(self.root, os.path.expanduser(self.python))


@dataclass(frozen=True)
class ApiLock:
    """What the API says of a lock.

    ``backend`` and the place (``path``, or ``key`` in ``redis_url``) are known of a ``DistributedLock``; ``holder``,
    as JSON, and ``locked`` of the runbook's lock. ``whole_service`` tells that the lock takes no config.
    """

    shape: str
    backend: Optional[str] = None
    path: Optional[str] = None
    key: Optional[str] = None
    redis_url: Optional[str] = field(default=None, repr=False)
    holder: Optional[str] = None
    locked: Optional[bool] = None
    whole_service: bool = False

    @property
    def exists(self) -> bool:
        return self.holder is not None or self.locked is not False

    @property
    def lines(self) -> Tuple[str, ...]:
        """The holder as the API tells it, for a record."""
        return () if self.holder is None else (_text(json.loads(self.holder)),)

    @property
    def token(self) -> Optional[str]:
        """What names this holder and no other."""
        if self.holder is None:
            return None
        told = json.loads(self.holder)
        token = _first(told, TOKEN_NAMES) if isinstance(told, dict) else told
        host_and_pid = f"{_first(told, HOST_NAMES)}:{_first(told, PID_NAMES)}" if self._named else None
        return _text(token if token is not None else host_and_pid or told)

    @property
    def lock_id(self) -> Optional[LockId]:
        """Host and process of the holder, None where it does not tell both."""
        if self.holder is None:
            return None
        told = json.loads(self.holder)
        by_token = parse_lock_id(self.token or "")
        if by_token is not None or not self._named:
            return by_token
        return LockId(self.token or "", str(_first(told, HOST_NAMES)), int(_first(told, PID_NAMES)))

    @property
    def acquired_at(self) -> Optional[float]:
        told = json.loads(self.holder) if self.holder is not None else None
        moment = _first(told, TIME_NAMES) if isinstance(told, dict) else None
        if not isinstance(moment, (int, float)) or not UNIX_TIMES[0] < moment < UNIX_TIMES[1]:
            return None
        return float(moment)

    @property
    def _named(self) -> bool:
        told = json.loads(self.holder) if self.holder is not None else None
        if not isinstance(told, dict):
            return False
        pid = str(_first(told, PID_NAMES) or "")
        return bool(_first(told, HOST_NAMES)) and pid.isdecimal() and len(pid) <= 10 and int(pid) > 0


def unavailable(service: Service) -> Optional[str]:
    """Why the API cannot be asked here, None where it can be tried."""
    if not os.path.isfile(os.path.join(service.root, MODULE)):
        return f"{service.root} has no {MODULE}"
    if not os.access(service.interpreter, os.X_OK):
        return f"{service.interpreter} is not there or cannot be run"
    return None


def ask(service: Service, name: str, config: str) -> ApiLock:
    """What the API says of the lock ``name``, which is that of ``config``. Nothing is acquired.

    :raises ApiUnusable: it could not be asked
    """
    answer = _run(service, "look", name, config)
    backend = answer.get("backend")
    return ApiLock(
        shape=str(answer.get("shape")),
        backend=None if backend is None else str(backend)[:MAX_TEXT],
        path=answer.get("path") or None,
        key=answer.get("key") or None,
        redis_url=answer.get("redis_url") or None,
        holder=answer.get("holder"),
        locked=answer.get("locked"),
        whole_service=bool(answer.get("whole_service")),
    )


def force_release(service: Service, name: str, config: str, seen: ApiLock) -> Optional[str]:
    """Call ``force_release()`` if the holder, read again right before, still is the one that was seen.

    :returns: None when it was released, otherwise why nothing was done
    :raises ApiUnusable: it could not be asked, or it did not release it
    """
    answer = _run(service, "release", name, config, seen.holder or "null")
    if answer.get("released"):
        return None
    if answer.get("called"):
        raise ApiUnusable(
            f"force_release() of the service's API left {_text(answer.get('holder'))} in place; "
            "look where the service keeps the lock, and release it there with backend=file or backend=redis."
        )
    return "it has no holder any more" if answer.get("holder") is None else "it has another holder"


def _run(service: Service, *words: str) -> Dict[str, Any]:
    problem = unavailable(service)
    if problem:
        raise ApiUnusable(f"The service's lock API cannot be asked: {problem}; check service_path and python.")
    extra = {"REDIS_URL": service.redis_url} if service.redis_url else {}
    # No byte code is written: a query changes nothing.
    environment = service_environment(os.environ, {**extra, "PYTHONDONTWRITEBYTECODE": "1"})
    argv = [service.interpreter, "-c", SCRIPT, str(int(service.timeout) + 2), *words]
    try:
        answer = _command.run(
            argv, service.timeout, environment=environment, cwd=service.root, most=MAX_ANSWER, newest=True
        )
    except RecoveryError as exc:
        raise ApiUnusable(f"{exc} Give the service's interpreter as python.") from exc
    return _parse(answer, service)


def _parse(ran: _command.Answer, service: Service) -> Dict[str, Any]:
    """The answer is the last line: importing the service prints whatever it likes before it."""
    lines: List[str] = ran.output.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or answer.get("ringrift_lock") != 1:
        if ran.hung:
            step = "raise api_timeout, or give backend=file or backend=redis"
            raise ApiUnusable(f"The service's lock API did not answer within {service.timeout:g} s; {step}.")
        step = f"run {service.interpreter} -c 'import app.coordination.distributed_lock' in {service.root}"
        raise ApiUnusable(f"The service's lock API gave no answer; {step} to see why.")
    if answer.get("error"):
        step = "see that it can be imported there, or give backend=file or backend=redis"
        error = LOGON.sub("://***@", _text(answer["error"]))
        raise ApiUnusable(f"The service's lock API cannot be used: {error}; {step}.")
    return answer


def _first(told: Dict[str, Any], names: Tuple[str, ...]) -> Any:
    return next((told[name] for name in names if told.get(name) is not None), None)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:MAX_TEXT])

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which daemons of the service run, as their health page tells.

``launch_daemons.py --status`` speaks of the fresh process that it is itself, and says that everything is stopped. The
page on port 8790 speaks of the daemons that run. It listens on IPv6 only. This util is private to the collection.
"""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer, Request, check_url, send

URL = "http://localhost:8790"
PATH = "/status"
TIMEOUT = 5.0

# What turns an end of a training into the next one.
NEEDED = ("event_router", "feedback_loop", "data_pipeline")
RUNNING = "running"
ABSENT = "not there"

MAX_DAEMONS = 1000
MAX_TEXT = 100
LOOPBACK = ("[::1]", "127.0.0.1")


@dataclass(frozen=True)
class ServiceDaemons:
    """What is known of the daemons.

    ``reachable`` tells that something answered, ``reason`` why their states are not known. ``running`` is whether their
    manager runs, ``daemons`` the state of each by name.
    """

    url: str
    reachable: bool
    reason: Optional[str] = None
    running: Optional[bool] = None
    daemons: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        return self.reachable and self.reason is None

    @property
    def down(self) -> Tuple[str, ...]:
        """Those of the daemons that training needs which do not run; none are named where that is not known."""
        if not self.known:
            return ()
        return tuple(name for name in NEEDED if self.running is False or self.daemons.get(name) != RUNNING)

    @property
    def up(self) -> bool:
        """Whether it is known that every daemon that training needs runs."""
        return self.known and not self.down

    def as_dict(self) -> Dict[str, Any]:
        return {
            "url": self.url,
            "reachable": self.reachable,
            "reason": self.reason,
            "running": self.running,
            "daemons": dict(self.daemons),
            "down": list(self.down),
        }


def look(url: str = URL, timeout: float = TIMEOUT) -> ServiceDaemons:
    """Ask the health page. One that does not answer is a finding, not a failure.

    :param url: where it listens; of ``localhost`` both addresses are tried
    :param timeout: seconds for everything together
    :raises RecoveryError: the URL or the timeout cannot be used
    """
    base = check_url(url)
    if timeout <= 0:
        raise RecoveryError(f"The timeout is {timeout:g} s; it must be above 0.")
    end = time.monotonic() + timeout
    found = None
    for address in _addresses(base):
        left = end - time.monotonic()
        if left <= 0:
            break
        (answer,) = send(address, [Request("daemons", "GET", PATH)], timeout=left, deadline=left)
        # The first that answers is the one; of those that do not, the name itself says most.
        if found is None or answer.status is not None:
            found = answer
        if answer.status is not None:
            break
    # Unreachable stays so within any time that is above 0.
    return understand(base, found) if found else ServiceDaemons(base, False, f"no answer within {timeout:g} s")


def understand(url: str, answer: Answer) -> ServiceDaemons:
    """What an answer to ``GET /status`` says."""
    if answer.status is None:
        return ServiceDaemons(url, False, answer.error)
    if not answer.ok:
        return ServiceDaemons(url, True, answer.error or f"GET {PATH} answered {answer.status}")
    body = answer.body if isinstance(answer.body, dict) else {}
    listed = body.get("daemons")
    if not isinstance(listed, dict):
        return ServiceDaemons(url, True, f"the answer to GET {PATH} lists no daemons: it is not their health page")
    running = body.get("running") if isinstance(body.get("running"), bool) else None
    return ServiceDaemons(url, True, None, running, dict(_states(listed)))


def _states(listed: Mapping[str, Any]) -> Iterator[Tuple[str, str]]:
    # Those that are needed come first, so that no flood of others hides them.
    names = sorted(listed, key=lambda name: name.lower() not in NEEDED)
    for name in names[:MAX_DAEMONS]:
        entry = listed[name]
        state = entry.get("state") if isinstance(entry, dict) else entry
        yield _clean(name.lower()), _clean(state.lower()) if isinstance(state, str) else "unknown"


def _addresses(base: str) -> Iterator[str]:
    """The URL, and where it names this host, the two addresses that the name may not lead to."""
    yield base
    parts = urllib.parse.urlsplit(base)
    if (parts.hostname or "").lower() == "localhost":
        port = f":{parts.port}" if parts.port else ""
        for address in LOOPBACK:
            yield urllib.parse.urlunsplit(parts._replace(netloc=f"{address}{port}"))


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:MAX_TEXT])

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens to the training events, as the orchestrator tells of its own process.

An event router lives in one process, so a fresh one knows nothing; ``GET /subscriptions`` is the only way to ask from
outside. Its own summary of critical events is not read: it looks for names that no longer exist, and calls a healthy
service broken. This util is private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer, Request, check_url, send

PATH = "/subscriptions"
TIMEOUT = 5.0

STARTED = "TRAINING_STARTED"
COMPLETED = "TRAINING_COMPLETED"
FAILED = "TRAINING_FAILED"
EVENTS = (STARTED, COMPLETED, FAILED)
# A healthy orchestrator has no subscriber of TRAINING_FAILED, so that one is reported and decides nothing.
NEEDED = (STARTED, COMPLETED)

WIRED = "wired"
UNWIRED = "unwired"
UNKNOWN = "unknown"

MAX_HANDLERS = 20
MAX_NAME = 100
MAX_REASON = 200


@dataclass(frozen=True)
class Subscribers:
    """Who listens to an event: how many, None where that is not known, and the names of their functions."""

    subscribers: Optional[int] = None
    handlers: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        return {"subscribers": self.subscribers, "handlers": list(self.handlers)}


@dataclass(frozen=True)
class EventWiring:
    """What is known of the training events.

    ``reachable`` tells that something answered, ``reason`` why who listens is not known. ``missing`` are the events
    that nobody listens to, the one that decides nothing among them.
    """

    url: str
    reachable: bool
    reason: Optional[str] = None
    events: Mapping[str, Subscribers] = field(default_factory=dict)

    @property
    def missing(self) -> Tuple[str, ...]:
        return tuple(name for name in EVENTS if name in self.events and self.events[name].subscribers == 0)

    @property
    def verdict(self) -> str:
        """``unwired`` as soon as one event that is needed has nobody, ``wired`` when each has somebody."""
        if any(name in self.missing for name in NEEDED):
            return UNWIRED
        known = all((self.events.get(name) or Subscribers()).subscribers for name in NEEDED)
        return WIRED if known else UNKNOWN

    def as_dict(self) -> Dict[str, Any]:
        return {
            "url": self.url,
            "reachable": self.reachable,
            "reason": self.reason,
            "events": {name: self.events.get(name, Subscribers()).as_dict() for name in EVENTS},
            "missing": list(self.missing),
            "verdict": self.verdict,
        }


def look(url: str, timeout: float = TIMEOUT) -> EventWiring:
    """Ask the orchestrator. One that does not answer, or not to this, is a finding, not a failure.

    :param url: where the orchestrator listens
    :param timeout: seconds from connecting to the last byte
    :raises RecoveryError: the URL or the timeout cannot be used
    """
    base = check_url(url)
    (answer,) = send(base, [Request("subscriptions", "GET", PATH)], timeout=timeout, deadline=timeout)
    return understand(base, answer)


def understand(url: str, answer: Answer) -> EventWiring:
    """What an answer to ``GET /subscriptions`` says."""
    if answer.status is None:
        return EventWiring(url, False, answer.error)
    if answer.status in (404, 405):
        words = f"the orchestrator has no {PATH} ({answer.status}), so who listens cannot be known from outside"
        return EventWiring(url, True, words)
    if not answer.ok:
        words = answer.error or f"GET {PATH} answered {answer.status}{_said(answer.body)}"
        return EventWiring(url, True, words)
    listed = answer.body.get("all_subscriptions") if isinstance(answer.body, dict) else None
    if not isinstance(listed, dict):
        return EventWiring(url, True, f"the answer to GET {PATH} has no all_subscriptions")
    router = answer.body.get("router")
    if isinstance(router, dict) and (router.get("available") is False or router.get("error")):
        words = f"the orchestrator could not ask its event router{_said(router)}"
        return EventWiring(url, True, words)
    events = {name: _subscribers(listed, name) for name in EVENTS}
    doubtful = [name for name in NEEDED if events[name].subscribers is None]
    reason = f"how many listen to {', '.join(doubtful)} cannot be read from the answer" if doubtful else None
    return EventWiring(url, True, reason, events)


def _subscribers(listed: Mapping[str, Any], name: str) -> Subscribers:
    """Who listens to an event; its name comes in upper case from one publisher and in lower case from another."""
    counts: List[Optional[int]] = []
    handlers: List[str] = []
    for key, entry in listed.items():
        if key.upper() != name:
            continue
        count = entry.get("count") if isinstance(entry, dict) else None
        whole = isinstance(count, int) and not isinstance(count, bool) and count >= 0
        counts.append(count if whole else None)
        named = entry.get("handlers") if isinstance(entry, dict) else None
        handlers += [_clean(word) for word in named if isinstance(word, str)] if isinstance(named, list) else []
    known = sum(count for count in counts if count is not None)
    return Subscribers(known if known or None not in counts else None, tuple(handlers[:MAX_HANDLERS]))


def _said(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else body
    return f": {_clean(error, MAX_REASON)}" if isinstance(error, str) and error.strip() else ""


def _clean(text: str, length: int = MAX_NAME) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text.strip()[:length])

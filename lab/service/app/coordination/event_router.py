# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router of events. It lives and dies with its process: a fresh process has no subscribers, ever.

Part of the stand-in, see `app`. There is no get_subscribers(), as there is none in the real one.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from app.coordination import events_db

logger = logging.getLogger(__name__)


class UnifiedEventRouter:
    """Subscribers by event type, and a copy of what is published in the event log."""

    def __init__(self) -> None:
        self._subscribers: dict[str, list[Callable[[dict], None]]] = {}

    def subscribe(self, event_type: str, handler: Callable[[dict], None]) -> None:
        self._subscribers.setdefault(event_type, []).append(handler)

    def has_subscribers(self, event_type: str) -> bool:
        return bool(self._subscribers.get(event_type))

    def publish_sync(self, event_type: str, payload: dict, source: str = "") -> None:
        """Call the handlers and append to the log; a log that cannot be written stops nobody."""
        for handler in self._subscribers.get(event_type, []):
            handler(payload)
        try:
            events_db.publish(event_type, payload, source)
        except (OSError, sqlite3.Error) as error:
            logger.debug("Event %s was not logged: %s", event_type, error)


_router: UnifiedEventRouter | None = None


def get_router() -> UnifiedEventRouter:
    """The router of this process."""
    global _router
    if _router is None:
        _router = UnifiedEventRouter()
    return _router

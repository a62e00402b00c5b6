# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a node shows nothing at all. This util is private to the collection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Optional

UNREACHABLE = "unreachable"
AUTH_REFUSED = "auth_refused"
HOST_KEY = "host_key"
NO_PYTHON = "no_python"
HUNG = "hung"
FAILED = "failed"
NOT_ASKED = "not_asked"

_AUTH = re.compile(r"permission denied|authentication (?:failed|failure)|too many authentication|sudo.*password", re.I)
_HOST_KEY = re.compile(r"host key verification failed|host identification has changed", re.I)
_PYTHON = re.compile(
    r"interpreter\b.{0,200}\bnot found|python\S{0,20}: (?:command )?not found|no such file.{0,80}python", re.I
)
_HUNG = re.compile(
    r"task (?:timed out|failed: timed out)|timed out after \d|timed out during banner|timer expired", re.I
)

SUMMARIES = {
    UNREACHABLE: "does not answer",
    AUTH_REFUSED: "refuses the login",
    HOST_KEY: "shows another host key than the one that is known",
    NO_PYTHON: "has no Python where the inventory says",
    HUNG: "took the connection and gave no answer in time",
    FAILED: "cannot be looked into",
    NOT_ASKED: "was not asked",
}

HINTS = {
    UNREACHABLE: "see that it is up, and that ssh reaches it: ssh {host}",
    AUTH_REFUSED: "see ansible_user, the key and become in the inventory: ssh {host}",
    HOST_KEY: "if it was set up anew, forget the old key: ssh-keygen -R {host}",
    NO_PYTHON: "set ansible_python_interpreter to a Python 3.8 or newer of {host}",
    HUNG: "it may be out of memory, or a mount may be dead; look at its console",
    FAILED: "run again with -vvv for the whole message",
    NOT_ASKED: "run again",
}


@dataclass(frozen=True)
class Silence:
    """Of which kind it is, what was said, and what to look at."""

    kind: str
    message: str
    hint: str

    @property
    def summary(self) -> str:
        return SUMMARIES[self.kind]


def silence_of(host: str, node: Mapping[str, Any]) -> Optional[Silence]:
    """Why a node tells nothing; None where it does tell something."""
    unreachable = bool(node.get("unreachable"))
    # A play that goes on after a failure takes the mark off; what the module always returns is then missing.
    if not unreachable and not node.get("failed") and isinstance(node.get("errors"), Mapping):
        return None
    message = " ".join(str(node.get(key) or "") for key in ("msg", "module_stderr", "exception")).strip()
    kind = _kind(unreachable, node, message)
    first = str(node.get("msg") or message or SUMMARIES[kind])
    return Silence(kind, " ".join(first.split())[:500], HINTS[kind].format(host=host))


def _kind(unreachable: bool, node: Mapping[str, Any], message: str) -> str:
    if not node:
        return NOT_ASKED
    for kind, regex in ((AUTH_REFUSED, _AUTH), (HOST_KEY, _HOST_KEY), (NO_PYTHON, _PYTHON), (HUNG, _HUNG)):
        if regex.search(message):
            return kind
    return UNREACHABLE if unreachable else FAILED

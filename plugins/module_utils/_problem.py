# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thing that is wrong with a file. This util is private to the collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Optional

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """A finding about a file: an ``error`` makes the file invalid, a ``warning`` does not.

    ``code`` is stable and machine-readable (snake case); ``member`` is the name inside a container and ``offset`` the
    byte offset in the file, where they are known.
    """

    code: str
    message: str
    severity: str = ERROR
    member: Optional[str] = None
    offset: Optional[int] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether one of the problems makes the file invalid."""
    return any(problem.severity == ERROR for problem in problems)


def as_dicts(problems: Iterable[Problem]) -> List[Dict[str, Any]]:
    """The problems as plain data, errors first, otherwise in the order in which they were found."""
    return [problem.as_dict() for problem in sorted(problems, key=lambda problem: problem.severity != ERROR)]

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the P2P orchestrator shows, read out of its answers. This util is private to the collection.

Only this needs jmespath, which is on the controller.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_profiles import UNKNOWN, expressions_of

TEXT_LIMIT = 300

_CONFIG_IN_ID = re.compile(r"(?:\A|[^A-Za-z0-9])([a-z][a-z0-9]*_[2-4]p)(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Job:
    """A training job as the orchestrator lists it; ``active`` unless its state says that it is over."""

    id: str
    kind: str
    type: Optional[str]
    status: Optional[str]
    node: Optional[str]
    config: Optional[str]
    active: bool
    created_at: Optional[float]
    started_at: Optional[float]
    completed_at: Optional[float]
    batch_size: Optional[int] = None
    # The id as the orchestrator wrote it, for requests about this job.
    raw_id: Any = None

    def as_dict(self) -> Dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "raw_id"}

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        return f"{self.id} ({self.status or 'no status'}{where})"


@dataclass(frozen=True)
class Leader:
    """Who leads, and under which URL; ``is_leader`` tells whether the node that was asked does."""

    id: Optional[str] = None
    is_leader: Optional[bool] = None
    url: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Cooldown:
    """Whether the time after the last training is over; None where the orchestrator does not tell."""

    active: Optional[bool] = None
    seconds: Optional[float] = None
    last_training_time: Optional[float] = None
    ends_at: Optional[float] = None
    remaining: Optional[float] = None
    source: Optional[str] = None
    blocks_dispatch: Optional[bool] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class View:
    """What one look at the orchestrator showed."""

    reachable: bool = False
    profile: str = UNKNOWN
    reason: Optional[str] = None
    leader: Leader = Leader()
    jobs: Tuple[Job, ...] = ()
    others: Tuple[Job, ...] = ()
    missing: Tuple[str, ...] = ()
    cooldown: Cooldown = Cooldown()

    @property
    def complete(self) -> bool:
        return self.reachable and self.profile != UNKNOWN and not self.missing

    @property
    def active(self) -> Tuple[Job, ...]:
        return tuple(job for job in self.jobs if job.active)

    def known(self, jobs: Sequence[Job]) -> Optional[List[Dict[str, Any]]]:
        """The jobs as data; None when there is nothing in the list and not everything could be read."""
        return [job.as_dict() for job in jobs] if jobs or self.complete else None


def search(expression: Optional[str], data: Any) -> Any:
    """Evaluate JMESPath; None without an expression, and when the data is not what the expression expects.

    :raises RecoveryError: jmespath is missing, or the expression is not JMESPath
    """
    if not expression:
        return None
    jmespath, errors = _load("jmespath"), _load("jmespath.exceptions")
    try:
        return jmespath.search(expression, data)
    except (errors.ParseError, errors.LexerError, errors.UnknownFunctionError, errors.ArityError) as exc:
        raise RecoveryError(f"A profile has {expression!r}, which is not JMESPath: {exc}") from exc
    # A function that is given another type than it takes: the answer is not what it should be.
    except (errors.JMESPathError, TypeError, AttributeError):
        return None


def check_expressions(name: str, profile: Mapping[str, Any]) -> None:
    """Read all JMESPath of a profile, so that none fails after something was sent.

    :raises RecoveryError: jmespath is missing, or an expression is not JMESPath
    """
    jmespath, errors = _load("jmespath"), _load("jmespath.exceptions")
    table = _load("jmespath.functions").Functions.FUNCTION_TABLE
    for where, expression in expressions_of(profile):
        try:
            unfit = list(_unfit_calls(jmespath.compile(expression).parsed, table))
        except (errors.ParseError, errors.LexerError) as exc:
            raise RecoveryError(
                f"{where} in the profile {name} is {expression!r}, which is not JMESPath: {exc}"
            ) from exc
        if unfit:
            raise RecoveryError(f"{where} in the profile {name} is {expression!r}, which is not JMESPath: {unfit[0]}.")


def _unfit_calls(node: Any, table: Mapping[str, Any]) -> Iterator[str]:
    """Calls that only fail when they are made."""
    if not isinstance(node, dict):
        return
    children = node.get("children") or []
    if node.get("type") == "function_expression":
        known = table.get(node["value"])
        if known is None:
            yield f"there is no function {node['value']}()"
        else:
            signature = known["signature"]
            wanted, given = len(signature), len(children)
            variadic = bool(signature) and signature[-1].get("variadic")
            if given < wanted or (given > wanted and not variadic):
                yield f"{node['value']}() takes {wanted}{' or more' if variadic else ''}, and is given {given}"
    for child in children:
        yield from _unfit_calls(child, table)


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise RecoveryError(
            f"The Python package jmespath is missing on the controller ({sys.executable}); "
            "install it there: python -m pip install jmespath."
        ) from exc


def as_text(value: Any) -> Optional[str]:
    """A string or a number as bounded text; None for everything else and for the empty string."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)[:TEXT_LIMIT] or None


def as_number(value: Any) -> Optional[float]:
    """A finite number of 0 or more; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def as_count(value: Any) -> Optional[int]:
    """A whole number of 1 or more; None for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None


def as_moment(value: Any) -> Optional[float]:
    """Seconds since the epoch out of seconds, milliseconds or ISO 8601 (UTC without a zone); None for 0 and others."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = _iso(value)
    number = as_number(value)
    if not number:
        return None
    return number / 1000 if number > 1e11 else number


def _iso(text: str) -> Optional[float]:
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def config_of(row: Mapping[str, Any], identity: str) -> Optional[str]:
    """The config that a job names, or that its board and players make, or that is part of its id."""
    named = row.get("config")
    if isinstance(named, str) and named:
        return named[:TEXT_LIMIT]
    board, players = row.get("board"), row.get("players")
    if isinstance(board, str) and board and isinstance(players, int) and not isinstance(players, bool):
        return f"{board}_{players}p"[:TEXT_LIMIT]
    found = _CONFIG_IN_ID.search(identity)
    return found.group(1) if found else None


def listed(jobs: Sequence[Job]) -> str:
    """The first five, and how many more."""
    more = f" and {len(jobs) - 5} more" if len(jobs) > 5 else ""
    return ", ".join(str(job) for job in jobs[:5]) + more


def many(count: int, noun: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"

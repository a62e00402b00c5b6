# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When to look at a training, and when what was seen is worth an event. This util is private to the collection.

Nothing here looks, waits or has a clock: the event source does, and tells what it saw and when, in seconds of a clock
that only goes forward. What the orchestrator shows is a reason to look; whether training moves is for a diagnosis.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._finding import CRITICAL, SCHEMA
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import number, part, rows, text
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import visible

STALL = "stall"
UNSEEN = "unseen"

# What is there whenever nothing trains: it needs no leave of its own beside what explains it.
SYMPTOM = "not_running"
# Where no critical finding says why.
NO_CAUSE = "no_cause"

TEXT_LIMIT = 200
FACTS_LIMIT = 5
ALERTS_LIMIT = 100
CONFIGS_LIMIT = 100

_CAUSE = re.compile(r"\A[a-z][a-z0-9_]{0,63}\Z")
_TEMPLATE = re.compile(r"\{(?=[{%#])")


@dataclass(frozen=True)
class Settings:
    """When to look and when to speak; all but ``looks`` in seconds."""

    interval: float = 60.0
    diagnose_every: float = 600.0
    confirm_after: float = 60.0
    looks: int = 2
    stall_after: float = 60.0
    unseen_after: float = 1800.0
    backoff: float = 900.0
    backoff_most: float = 21600.0
    recover_causes: Tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """From what the rulebook says.

        :raises RecoveryError: one of them cannot be used
        """
        values: Dict[str, Any] = {}
        for name, least, most in (
            ("interval", 1, 3600),
            ("diagnose_every", 10, 86400),
            ("confirm_after", 1, 3600),
            ("stall_after", 0, 86400),
            ("unseen_after", 0, 7 * 86400),
            ("backoff", 1, 86400),
            ("backoff_most", 1, 7 * 86400),
        ):
            if params.get(name) is not None:
                values[name] = _between(name, params[name], least, most)
        if params.get("looks") is not None:
            values["looks"] = int(_between("looks", params["looks"], 1, 100))
        causes = params.get("recover_causes")
        if causes is not None:
            values["recover_causes"] = check_causes(causes)
        made = cls(**values)
        if made.backoff_most < made.backoff:
            raise RecoveryError(
                f"backoff_most is {made.backoff_most:g} s; that is less than backoff, {made.backoff:g} s."
            )
        return made


def _between(name: str, value: Any, least: float, most: float) -> float:
    try:
        # Variables of a rulebook may arrive as text.
        found = number(float(value)) if isinstance(value, str) else number(value)
    except ValueError:
        found = None
    if found is None or not least <= found <= most:
        raise RecoveryError(f"{name} is {visible(value)[:TEXT_LIMIT]!r}. It is a number from {least} to {most}.")
    return found


def check_causes(value: Any) -> Tuple[str, ...]:
    """The causes that an operator listed.

    :raises RecoveryError: it is no list of causes
    """
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    names = value if _is_list(value) else [value]
    wrong = [name for name in names if not isinstance(name, str) or _CAUSE.match(name) is None]
    if wrong or not _is_list(value):
        raise RecoveryError(
            f"recover_causes has {visible((wrong or [value])[0])[:TEXT_LIMIT]!r}, which is no cause. "
            "It is a list of causes as a diagnosis names them, such as [lock_held, not_running]."
        )
    return tuple(dict.fromkeys(value))


def check_configs(value: Any) -> Tuple[str, ...]:
    """The configs that are watched.

    :raises RecoveryError: there is none, too many, or one is not ``<board>_<players>p``
    """
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not _is_list(value) or not 0 < len(value) <= CONFIGS_LIMIT:
        raise RecoveryError(f"configs is no list of 1 to {CONFIGS_LIMIT} configs. Say for example configs: [hex8_2p].")
    return tuple(dict.fromkeys(parse_config(name).name for name in value))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def safe(value: Any) -> str:
    """A text from anywhere in one short line that neither a terminal nor a template engine obeys."""
    shown = _TEMPLATE.sub("{ ", visible(value))
    return shown if len(shown) <= TEXT_LIMIT else shown[: TEXT_LIMIT - 1] + "…"


def critical_causes(verdict: Mapping[str, Any]) -> Tuple[str, ...]:
    """The causes of a verdict that keep training from going on, the root first."""
    found = (entry.get("cause") for entry in rows(verdict.get("findings")) if entry.get("severity") == CRITICAL)
    return tuple(dict.fromkeys(cause for cause in found if isinstance(cause, str) and _CAUSE.match(cause)))


def unlisted_causes(verdict: Mapping[str, Any], listed: Sequence[str]) -> Tuple[str, ...]:
    """What keeps a run without a person from recovering this: the critical causes that nobody listed.

    That nothing runs is a symptom, and needs to be listed only where nothing else explains it. Empty where all are.
    """
    causes = critical_causes(verdict)
    if not causes:
        return (NO_CAUSE,)
    roots = tuple(cause for cause in causes if cause != SYMPTOM) or causes
    return tuple(cause for cause in roots if cause not in listed)


@dataclass(frozen=True)
class Sight:
    """What one diagnosis showed; ``stalled`` is None where it could not be told, or could not be made."""

    stalled: Optional[bool]
    at: str
    headline: str
    running: Optional[bool] = None
    age: Optional[float] = None
    causes: Tuple[str, ...] = ()
    unlisted: Tuple[str, ...] = (NO_CAUSE,)
    evidence: Tuple[str, ...] = ()

    @classmethod
    def of(cls, verdict: Any, config: str, listed: Sequence[str] = ()) -> Sight:
        """From a verdict as ``diagnose.yml`` keeps it.

        :raises RecoveryError: it is none, or of another config
        """
        if not isinstance(verdict, Mapping) or verdict.get("schema") != SCHEMA or "stalled" not in verdict:
            raise RecoveryError(f"The diagnosis of {config} is no verdict of schema {SCHEMA}.")
        if verdict.get("config") != config:
            raise RecoveryError(f"The diagnosis is of {safe(verdict.get('config'))!r}, and {config} was asked for.")
        stalled, running = verdict["stalled"], verdict.get("running")
        ages = [number(node.get("age")) for node in rows(verdict.get("nodes"))]
        # A progress that is still to come is that of a clock that was set.
        known = [age for age in ages if age is not None and age >= 0]
        findings = [entry for entry in rows(verdict.get("findings")) if entry.get("severity") == CRITICAL]
        facts = [_fact(entry) for entry in findings]
        gaps = rows(verdict.get("unknown"))
        facts += [f"not seen: {gap.get('host')}, {gap.get('probe')}: {gap.get('reason')}" for gap in gaps]
        return cls(
            stalled=stalled if isinstance(stalled, bool) else None,
            at=safe(text(verdict.get("at")) or ""),
            headline=safe(verdict.get("headline")),
            running=running if isinstance(running, bool) else None,
            age=min(known) if known else None,
            causes=critical_causes(verdict),
            unlisted=unlisted_causes(verdict, listed),
            evidence=tuple(safe(fact) for fact in facts[:FACTS_LIMIT]),
        )

    @classmethod
    def none(cls, reason: str, at: str) -> Sight:
        """No diagnosis could be made."""
        return cls(stalled=None, at=at, headline=safe(reason), evidence=(safe(reason),))


def _fact(finding: Mapping[str, Any]) -> str:
    host = text(finding.get("host"))
    return f"{finding.get('cause')}{f' on {host}' if host else ''}: {finding.get('summary')}"


def signature(view: Optional[Mapping[str, Any]]) -> Tuple[str, ...]:
    """What the orchestrator shows of a config, as far as a change of it is a reason to look at the nodes.

    :param view: what ``_p2p.run`` returned; None where it gave nothing
    """
    if not part(view).get("reachable"):
        return ("unreachable",)
    active = rows(part(view).get("active"))
    return (
        "complete" if part(view).get("complete") is True else "incomplete",
        *sorted(
            f"{job.get('kind')} {job.get('id')} {job.get('status')} {job.get('node')}"[:TEXT_LIMIT] for job in active
        ),
    )


def alerted(payload: Any, watched: Sequence[str]) -> Tuple[str, ...]:
    """The configs for which a message of Prometheus' AlertManager fires.

    :raises RecoveryError: it is no such message, or one of its alerts names no config that is watched; then none counts
    """
    alerts = part(payload).get("alerts")
    if not isinstance(alerts, list) or len(alerts) > ALERTS_LIMIT:
        raise RecoveryError(f"The message has no list of at most {ALERTS_LIMIT} alerts, as AlertManager sends it.")
    found: List[str] = []
    for alert in alerts:
        if part(alert).get("status") != "firing":
            continue
        config = parse_config(part(alert, "labels").get("config", "")).name
        if config not in watched:
            raise RecoveryError(f"{config} is not watched here; watched are {', '.join(watched)}.")
        found.append(config)
    return tuple(dict.fromkeys(found))


class Watch:
    """One config: whether a diagnosis is due, and which event a diagnosis is worth."""

    def __init__(self, config: str, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self._shown: Optional[Tuple[str, ...]] = None
        self._diagnosed_at: Optional[float] = None
        self._wanted = False
        self._alert = self._asked = False
        self._stalls = 0
        self._stalled_at = 0.0
        self._since = ""
        self._unseen_at: Optional[float] = None
        self._unseen_since = ""
        self._events: Dict[str, int] = {STALL: 0, UNSEEN: 0}
        self._quiet_until: Dict[str, float] = {STALL: -math.inf, UNSEEN: -math.inf}

    def show(self, view: Optional[Mapping[str, Any]]) -> None:
        """The orchestrator was asked; another answer than before is a reason to look at the nodes."""
        shown = signature(view)
        if shown != self._shown:
            self._wanted = True
        self._shown = shown

    def alert(self) -> None:
        """Somebody else says that it is stalled: a reason to look, and that long waiting has been done."""
        self._wanted = self._alert = True

    def due(self, now: float) -> bool:
        """Whether the nodes are to be looked at now."""
        if self._diagnosed_at is None:
            return True
        settings = self.settings
        # A stall is confirmed soon; what cannot be seen may stay so for long, and each look costs its deadlines.
        soon = self._wanted or (self._stalls > 0 and self._events[STALL] == 0)
        pause = min(settings.confirm_after, settings.diagnose_every) if soon else settings.diagnose_every
        return now - self._diagnosed_at >= pause

    def begin(self) -> None:
        """A diagnosis begins; what is told from now on is for the next one."""
        self._wanted, self._asked, self._alert = False, self._alert, False

    def saw(self, now: float, sight: Sight) -> Optional[Dict[str, Any]]:
        """The diagnosis was made, or could not be made; the event that it is worth, or None."""
        self._diagnosed_at = now
        asked, self._asked = self._asked, False
        if sight.stalled is False:
            self._forget()
            return None
        if self._unseen_at is None:
            self._unseen_at, self._unseen_since = now, sight.at
        if sight.stalled is None:
            # Training may have moved meanwhile, so looks that agree are counted anew. An alert holds for the next look.
            self._stalls, self._alert = 0, self._alert or asked
            if now - self._unseen_at < self.settings.unseen_after:
                return None
            return self._speak(now, UNSEEN, sight, asked)
        self._stalls += 1
        if self._stalls == 1:
            self._stalled_at, self._since = now, sight.at
        waited = self._stalls >= self.settings.looks and now - self._stalled_at >= self.settings.stall_after
        if not waited and not asked:
            return None
        self._unseen_at = None
        return self._speak(now, STALL, sight, asked)

    def _forget(self) -> None:
        self._stalls, self._unseen_at = 0, None
        for kind in (STALL, UNSEEN):
            self._events[kind], self._quiet_until[kind] = 0, -math.inf

    def _speak(self, now: float, kind: str, sight: Sight, asked: bool) -> Optional[Dict[str, Any]]:
        if now < self._quiet_until[kind]:
            return None
        self._events[kind] += 1
        # The exponent is bounded before it is used.
        pause = min(self.settings.backoff * 2.0 ** min(self._events[kind] - 1, 32), self.settings.backoff_most)
        self._quiet_until[kind] = now + pause
        since = self._since if kind == STALL else self._unseen_since
        return {
            "kind": kind,
            "id": f"{self.config}-{kind}-{re.sub('[^0-9TZ]', '', since)}-{self._events[kind]}",
            "config": self.config,
            "since": since,
            "at": sight.at,
            "age": sight.age,
            "number": self._events[kind],
            "looks": self._stalls,
            "alert": asked,
            "quiet": pause,
            "headline": sight.headline,
            "running": sight.running,
            "cause": sight.causes[0] if sight.causes else "",
            "causes": list(sight.causes),
            "unlisted": list(sight.unlisted) if kind == STALL else [],
            "recover": kind == STALL and not sight.unlisted,
            "evidence": list(sight.evidence),
        }

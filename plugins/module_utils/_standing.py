# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the training of a config stands on one node, from several signals. This util is private to the collection.

A trainer that has made no progress for ``stall_after`` is not stalled yet where it computes in its first epoch or in an
evaluation: these take long, and are given four times as long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._plain import duration, number, part, rows, text, texts

PROGRESSING = "progressing"
STARTING = "starting"
BUSY = "busy"
STALLED = "stalled"
NOT_RUNNING = "not_running"
UNKNOWN = "unknown"
# What is no stall.
ALIVE = (PROGRESSING, STARTING, BUSY)

STALL_AFTER = 1800.0
# How much longer a first epoch or an evaluation may take.
PATIENCE = 4.0
STOPPED = ("T", "t")
BLOCKED = "D"
# What is not known of the GPU may be what holds the trainer up.
GPU_OF_NO_USE = ("wedged", "sick", "lost", "unknown")

_EVALUATION = re.compile(r"\b(?:evaluat|validat)(?:ing|ion|e)\b", re.I)


@dataclass(frozen=True)
class Standing:
    """``state`` is one of the words above, ``reason`` says why."""

    state: str
    reason: str
    trainers: Tuple[Mapping[str, Any], ...] = ()

    @property
    def running(self) -> bool:
        return self.state in (*ALIVE, STALLED)


def standing_of(node: Mapping[str, Any], stall_after: float = STALL_AFTER) -> Standing:
    """Judge what one node shows of its trainers."""
    progress = part(node, "progress")
    state, reason = progress.get("verdict"), str(progress.get("reason") or "nothing was seen of its trainers")
    trainers = tuple(rows(progress.get("trainers")))
    if state == STALLED:
        busy = _still_busy(node, trainers, stall_after)
        return Standing(BUSY, busy, trainers) if busy else Standing(STALLED, reason, trainers)
    if state in (PROGRESSING, STARTING, NOT_RUNNING):
        return Standing(state, reason, trainers)
    return Standing(UNKNOWN, reason, trainers)


def _still_busy(node: Mapping[str, Any], trainers: Tuple[Mapping[str, Any], ...], stall_after: float) -> Optional[str]:
    """Why a trainer without progress is not stalled; None where it is."""
    states = [trainer.get("state") for trainer in trainers] + [entry.get("state") for entry in processes(node)]
    if any(state in (*STOPPED, BLOCKED) for state in states) or part(node, "gpu").get("verdict") in GPU_OF_NO_USE:
        return None
    if "gpu" in part(node, "errors"):
        return None
    if not any(entry.get("moving") is True for entry in processes(node)):
        return None
    progress = part(node, "progress")
    now, last = number(progress.get("now")), part(progress, "last")
    starts = [moment for moment in (number(trainer.get("start_time")) for trainer in trainers) if moment is not None]
    begun = number(last.get("at")) if last.get("this_run") is True else max(starts, default=None)
    if now is None or begun is None or now - begun > PATIENCE * stall_after:
        return None
    if last.get("this_run") is not True:
        return f"its first epoch still runs, {duration(now - begun)} after the start; the processor works"
    if _evaluates(node):
        return f"it evaluates, {duration(now - begun)} after epoch {last.get('epoch')}; the processor works"
    return None


def processes(node: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    """The trainers, as they were watched for a moment."""
    return [entry for entry in rows(part(node, "processes").get("processes")) if entry.get("role") == "trainer"]


def _evaluates(node: Mapping[str, Any]) -> bool:
    """Whether the last words of the log are of an evaluation."""
    said = [line for line in texts(part(node, "log").get("lines")) if line.strip()]
    return bool(said and _EVALUATION.search(said[-1]))


def last_sign(node: Mapping[str, Any]) -> Optional[float]:
    """When a training of the config last did anything on a node, in Unix seconds."""
    moments = [
        number(part(node, "progress", "last").get("at")),
        number(part(node, "progress", "checkpoint").get("mtime")),
    ]
    moments += [
        number(part(node, "events", "last", kind).get("at")) for kind in ("started", "progress", "completed", "failed")
    ]
    return max((moment for moment in moments if moment is not None), default=None)


def last_outcome(node: Mapping[str, Any]) -> Optional[str]:
    """How the last run ended, as its event log says: ``completed``, ``failed``, or ``running`` where it just ended."""
    return text(part(node, "events").get("state"))

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Examine the model and the newest checkpoints of a node, in full only where there is reason for it.

A quick look costs next to nothing and misses a flipped byte; a full one reads every byte, beside a training that may
run. This util is private to the collection.
"""

from __future__ import annotations

import glob
import os
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._probes import Once
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem

AUTO = "auto"
QUICK = "quick"
FULL = "full"
DEPTHS = (AUTO, QUICK, FULL)

# The newest checkpoints are those that a restart would begin from; the ones before them only matter when these fail.
NEWEST = 2

STALLED = "stalled"
# What a log says of a checkpoint stays true until it is written anew; the end of a run is over when the next one moves.
OF_CHECKPOINTS = ("checkpoint_invalid", "weights_not_loaded")
OF_THE_RUN = ("training_failed",)


@dataclass(frozen=True)
class Facts:
    """What else is known of the training. ``running`` and the others are None where it could not be seen.

    ``state`` is that of the events; ``codes`` are the findings of the log, ``fresh`` those since its last progress;
    ``trained`` tells that there are events or a log.
    """

    verdict: Optional[str] = None
    running: Optional[bool] = None
    state: Optional[str] = None
    codes: Tuple[str, ...] = ()
    fresh: Tuple[str, ...] = ()
    trained: Optional[bool] = None


def reason_for_full(config: TrainingConfig, facts: Facts) -> Optional[str]:
    """Why every byte is to be read; None where a quick look will do."""
    told = [code for code in OF_CHECKPOINTS if code in facts.codes]
    told += [code for code in OF_THE_RUN if code in facts.fresh]
    if told:
        return f"the log says {', '.join(told)}"
    if facts.state == "failed":
        return "the events say that the last training failed"
    if facts.verdict == STALLED:
        return "the training is stalled"
    if facts.running is True:
        return None
    if facts.running is None:
        return f"whether a trainer of {config.name} runs could not be seen"
    if facts.state == "running":
        return f"the last training of {config.name} did not report its end"
    if facts.trained is None:
        return f"whether {config.name} was trained here could not be seen"
    return f"no trainer of {config.name} runs, and there was one before" if facts.trained else None


def files(config: TrainingConfig, service_path: str) -> List[str]:
    """The canonical model and the newest checkpoints, the newest first; only those that are there."""
    root = os.path.abspath(os.path.expanduser(service_path))
    canonical = os.path.join(root, "models", f"canonical_{config.name}.pth")
    pattern = os.path.join(glob.escape(root), "checkpoints", "checkpoint_*.pth")
    newest = sorted(glob.iglob(pattern), key=_modified, reverse=True)[:NEWEST]
    return [path for path in (canonical, *newest) if os.path.lexists(path)]


def look(
    config: TrainingConfig, service_path: str, depth: str, facts: Callable[[], Facts], seconds: float
) -> List[Dict[str, Any]]:
    """Examine them.

    :param depth: ``quick``, ``full``, or ``auto`` for full only where there is reason
    :param facts: what else is known, asked only where there is a file
    :param seconds: for all of it; a file for whose every byte there is no time is looked at quickly, and says so
    """
    end = time.monotonic() + seconds
    found = files(config, service_path)
    reason = "checkpoint_depth is full" if depth == FULL else None
    if depth == AUTO and found:
        reason = reason_for_full(config, facts())
    return list(_examine_all(found, depth, reason, end))


def _examine_all(paths: List[str], depth: str, reason: Optional[str], end: float) -> Iterator[Dict[str, Any]]:
    for path in paths:
        try:
            quick = _verify(path, QUICK)
            because = reason or (_suspicion(quick) if depth == AUTO else None)
            yield _in_full(path, because, quick, end) if because else quick
        except MissingFileError:
            continue  # a trainer may have replaced it meanwhile
        except RecoveryError as exc:
            problem = Problem("unreadable", str(exc), WARNING).as_dict()
            yield {"path": path, "valid": None, "depth": None, "problems": [problem]}


def _in_full(path: str, because: str, quick: Dict[str, Any], end: float) -> Dict[str, Any]:
    left = max(0.0, end - time.monotonic())
    try:
        return {**Once(lambda: _verify(path, FULL)).get(left), "examined_because": because}
    except MissingFileError:
        raise
    except RecoveryError as exc:
        words = f"Not every byte was examined ({exc}), although {because}. Examine it with checkpoint_verify."
        problem = Problem("not_examined_in_full", words, WARNING).as_dict()
        return {**quick, "problems": [*quick["problems"], problem]}


def _suspicion(quick: Dict[str, Any]) -> Optional[str]:
    errors = [problem["code"] for problem in quick["problems"] if problem["severity"] == ERROR]
    return f"a quick look found {errors[0]}" if errors else None


def _verify(path: str, depth: str) -> Dict[str, Any]:
    # Imported where there is a file: on a node everything is compiled anew at every look.
    from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify

    return {**verify(path, depth=depth).as_dict(), "path": path}


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0

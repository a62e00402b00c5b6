# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this user could not see of a node, and how to see it. What is not seen never counts as healthy.

A pure function from what the probes returned. This util is private to the collection.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows, text

BECOME = "run with become"
OUTSIDE = "run on the machine itself, outside of the container"
# How engines say that it was for want of rights.
DENIED = ("Permission denied", "Operation not permitted", "with become", "as the user")
# How they say that others may not be seen, of locks and of GPUs.
HIDDEN = ("may not see", "hides the processes", "only root can see")
NAMESPACE = "PID namespace"
IN_DOUBT = "processes_in_doubt"


def unseen(
    results: Mapping[str, Any], errors: Mapping[str, str], user: str, root: bool, hidden: Optional[str] = None
) -> List[Dict[str, str]]:
    """Each gap as ``{probe, what, hint}``, none twice.

    :param user: who looks
    :param hidden: why processes of others are not visible at all; None where they are
    """
    found: List[Tuple[str, str, str]] = []
    if hidden is not None:
        found += [(probe, hidden, BECOME) for probe in ("progress", "processes", "locks") if probe in results]
    if not root:
        found += [(probe, reason, BECOME) for probe, reason in errors.items() if _has(reason, DENIED)]
        found += _of_others(results, user)
    found += _of_kernel(part(results, "kernel"), root)
    found += _of_gpus(part(results, "gpu"))
    return [{"probe": probe, "what": what.rstrip("."), "hint": hint} for probe, what, hint in dict.fromkeys(found)]


def _of_others(results: Mapping[str, Any], user: str) -> Iterator[Tuple[str, str, str]]:
    for process in rows(part(results, "processes").get("processes")):
        if process.get("open_file_count") is None and process.get("cpu_percent") is not None:
            yield "processes", f"the open files of process {process.get('pid')} are not visible to {user}", BECOME
    doubts = text(part(results, "processes").get("doubts"))
    if doubts:
        yield "processes", f"it is not certain that these are all: {doubts}", BECOME
    for trainer in rows(part(results, "progress").get("trainers")):
        if text(trainer.get("user")) not in (None, user):
            owner = f"trainer {trainer.get('pid')} runs as {trainer.get('user')}"
            what = f"{owner}, so {user} may see neither its environment, which names the event log, nor its output"
            yield "progress", what, f"{BECOME}, or set coordination_dir"
    for problem in rows(part(results, "progress").get("problems")):
        if problem.get("code") == IN_DOUBT or _has(problem.get("message"), DENIED):
            yield "progress", str(problem.get("message")), BECOME
    locks = results.get("locks")
    for lock in rows(locks):
        if lock.get("verdict") == "unknown" and _has(lock.get("reason"), HIDDEN):
            yield "locks", str(lock["reason"]), BECOME
    for checkpoint in rows(results.get("checkpoints")):
        for problem in rows(checkpoint.get("problems")):
            if problem.get("code") == "unreadable" and _has(problem.get("message"), DENIED):
                yield "checkpoints", str(problem["message"]), BECOME


def _of_kernel(kernel: Mapping[str, Any], root: bool) -> Iterator[Tuple[str, str, str]]:
    if kernel and kernel.get("source") is None:
        hint = OUTSIDE if root else f"{BECOME}, or add the user to the group systemd-journal or adm"
        yield "kernel", str(kernel.get("msg")), hint


def _of_gpus(gpu: Mapping[str, Any]) -> Iterator[Tuple[str, str, str]]:
    for one in rows(gpu.get("gpus")):
        name, reason = f"GPU {one.get('index')}", str(one.get("reason"))
        if NAMESPACE in reason:
            yield "gpu", f"{name}: {reason}", OUTSIDE
        elif _has(reason, HIDDEN):
            yield "gpu", f"{name}: {reason}", BECOME
        elif one.get("processes") is None and one.get("verdict") not in (None, "lost"):
            yield "gpu", f"{name}: the driver does not list the processes on it", BECOME


def _has(words: Any, signs: Tuple[str, ...]) -> bool:
    return isinstance(words, str) and any(sign in words for sign in signs)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run did, in words that a tired person can act on. This util is private to the collection."""

from __future__ import annotations

from typing import Any, Collection, Dict, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import clock, moment, span

# What a run's report takes from each step: the variable that the step registered, and the keys that matter in it.
NODE_STEPS = {
    "stop_training": ("stop_training_result", ("changed", "survivors")),
    "clear_lock": ("clear_state_lock", ("changed", "released", "lock", "record")),
    "publish_data": ("prepare_data_published", ("changed", "path", "previous", "replaced", "samples", "sha256")),
    "restore_checkpoint": (
        "restart_training_checkpoint",
        ("changed", "restored", "source", "checkpoint", "previous", "replaced", "quarantined", "epochs_lost"),
    ),
    "restore_canonical": (
        "restart_training_canonical_model",
        ("changed", "restored", "source", "checkpoint", "previous", "replaced", "quarantined", "epochs_lost"),
    ),
    "prune_checkpoints": ("fix_pruned", ("changed", "pruned", "freed_bytes")),
    "start": ("restart_training_started", ("changed", "pid", "cmdline", "log")),
    "rollback": ("rollback_done", ("changed", "files")),
    "monitor": ("monitor_progress", ("progressed", "proof", "last", "checkpoint", "verdict")),
    # What a block's rescue was entered for.
    "failure": ("ansible_failed_result", ("msg",)),
}

# Steps that run once for the whole fleet, so that each node has the same result.
FLEET_STEPS = {
    "withdraw_jobs": ("stop_training_withdrawn", ("changed", "profile", "cleared")),
    "clear_coordinator_lock": ("clear_state_coordinator_lock", ("changed", "released", "lock", "record")),
    "clear_jobs": ("clear_state_jobs", ("changed", "profile", "cleared")),
    "export_data": ("prepare_data_export", ("changed", "reason", "path", "previous", "before", "samples", "sha256")),
    "rollback_of": ("rollback_found", ("changed", "id", "report", "at", "left_out")),
    "rollback_coordinator": ("rollback_coordinator_done", ("changed", "files")),
    "restart_daemons": ("fix_events", ("changed", "via", "restarted", "tried")),
    "batch_size": (
        "restart_training_fit",
        ("changed", "batch_size", "instead_of", "floor_reached", "source", "reasons", "extra_args", "message"),
    ),
    "dispatch": ("restart_training_dispatch", ("changed", "profile", "dispatched")),
}

OUTCOME_KEYS = ("msg", "unreachable", "failed")


def run_report(nodes: Mapping[str, Mapping[str, Any]], silent: Collection[str] = (), **about: Any) -> Dict[str, Any]:
    """What a run saw, did and proved, as plain data.

    :param nodes: the variables of each node of the play; only what the tables above name is taken from them
    :param silent: the nodes that stopped answering, of which no step has a result
    :param about: further keys of the report, such as config, outcome and step
    """
    first: Mapping[str, Any] = next(iter(nodes.values()), {})
    return {
        "schema": 1,
        **about,
        "diagnosis": first.get("diagnose_verdict"),
        "fleet": _steps_of(first, FLEET_STEPS),
        "nodes": {name: _node_steps_of(node, name in silent) for name, node in nodes.items()},
    }


def _steps_of(variables: Mapping[str, Any], steps: Mapping[str, Tuple[str, Tuple[str, ...]]]) -> Dict[str, Any]:
    found = {}
    for step, (variable, keys) in steps.items():
        result = variables.get(variable)
        if isinstance(result, Mapping) and not result.get("skipped"):
            found[step] = {key: result[key] for key in (*keys, *OUTCOME_KEYS) if key in result}
    return found


def _node_steps_of(node: Mapping[str, Any], silent: bool) -> Dict[str, Any]:
    steps = _steps_of(node, NODE_STEPS)
    if silent:
        steps["failure"] = {"msg": "it does not answer any more, and had no part in what followed"}
    stopped = node.get("stop_training_stopped")
    if stopped:
        # The last round of the stop found nothing any more; who was stopped is remembered beside it.
        steps.setdefault("stop_training", {}).update(changed=True, stopped=list(stopped))
    begin: Optional[Mapping[str, Any]] = node.get("monitor_begin")
    if begin and begin.get("running") and "monitor" in steps:
        steps["monitor"]["before"] = begin.get("last")
    return steps


def report_lines(report: Mapping[str, Any]) -> List[str]:
    """Render a run's report: the outcome, what each step changed, and the next command."""
    lines = [f"{report['config']}: {report['outcome']}"]
    planned = bool(report.get("check_mode"))
    for where, steps in (*report["nodes"].items(), ("fleet", report["fleet"])):
        for step, result in steps.items():
            words = _step_words(step, result, planned, moment(report.get("at")))
            lines.extend(f"{where}: {line}" for line in words)
    if report.get("next"):
        lines.append(f"next: {report['next']}")
    return lines


def _step_words(step: str, result: Mapping[str, Any], planned: bool, at: Optional[float]) -> List[str]:
    if step == "failure":
        return [f"FAILED: {result.get('msg', 'no message')}"]
    if result.get("failed") or result.get("unreachable"):
        return [f"{step} FAILED: {result.get('msg', 'unreachable')}"]
    if step == "monitor":
        return [f"progress proven: {entry['what']}" for entry in result.get("proof") or []]
    if step == "batch_size":
        return _batch_size_words(result, planned)
    if step in ("rollback", "rollback_coordinator"):
        return [words for entry in result.get("files") or [] for words in _rollback_words(entry, planned)]
    if step == "rollback_of":
        return _rollback_of_words(result)
    if not result.get("changed"):
        return []
    return [
        f"would {words[0]} {words[2]}" if planned else f"{words[1]} {words[2]}" for words in _deeds(step, result, at)
    ]


def _batch_size_words(result: Mapping[str, Any], planned: bool) -> List[str]:
    """What an operator should know of the batch size: that it is another one, that it may not do, or is the last."""
    reasons = [str(reason) for reason in (result.get("reasons") or [])[1:]]
    warnings = [reason for reason in reasons if reason.startswith("WARNING") or "is the floor" in reason]
    if not result.get("changed") and not warnings:
        return []
    return [f"{'would use' if planned else 'used'} {result.get('message')}", *warnings]


def _rollback_of_words(result: Mapping[str, Any]) -> List[str]:
    words = [f"what the run {result.get('id') or 'without a name'} of {result.get('at')} replaced"]
    return words + [f"left out: {name}, which is not among the nodes of this run" for name in result["left_out"]]


def _rollback_words(entry: Mapping[str, Any], planned: bool) -> List[str]:
    """What became of a file that an earlier run replaced; one that is back already needs no word."""
    path, reason = entry.get("path"), entry.get("reason")
    if entry.get("state") == "put_back":
        kept = (
            f"; what was there {'would be' if planned else 'is'} kept as {entry['kept']}" if entry.get("kept") else ""
        )
        source = f" from {entry['source']}" if entry.get("source") != entry.get("kept") else ""
        return [f"{'would put back' if planned else 'put back'} {path}{source}{kept}"]
    return {"left": [f"left {path}: {reason}"], "refused": [f"NOT PUT BACK {path}: {reason}"]}.get(
        str(entry.get("state")), []
    )


def _deeds(step: str, result: Mapping[str, Any], at: Optional[float]) -> List[Tuple[str, str, str]]:
    """What a step changes: the verb, the verb in the past, and the rest."""
    if step == "stop_training":
        return [("stop", "stopped", f"pid {entry['pid']}") for entry in result.get("stopped") or []]
    if step in ("clear_lock", "clear_coordinator_lock"):
        holder = (result.get("lock") or {}).get("holder") or {}
        return [("release", "released", f"the lock of {holder.get('token') or 'nobody'}")]
    if step in ("clear_jobs", "withdraw_jobs"):
        verbs = ("clear", "cleared") if step == "clear_jobs" else ("withdraw", "withdrew")
        return [(*verbs, f"job {entry['id']} ({entry.get('was')})") for entry in result.get("cleared") or []]
    if step == "export_data":
        return [("export", "exported", f"{_samples(result)} to {result.get('path')} ({result.get('reason')})")]
    if step == "publish_data":
        return [("put", "put", f"{_samples(result)} in place at {result.get('path')}")]
    if step in ("restore_checkpoint", "restore_canonical"):
        return list(_restored(result, at))
    if step == "prune_checkpoints":
        return [("delete", "deleted", f"{entry.get('path')}") for entry in result.get("pruned") or []]
    if step == "restart_daemons":
        return [("restart", "restarted", f"the daemons of the coordination (by {result.get('via')})")]
    if step == "dispatch":
        job = (result.get("dispatched") or {}).get("job_id")
        return [("dispatch", "dispatched", f"job {job}" if job else "a training job")]
    return [("start", "started", f"the trainer{' pid ' + str(result['pid']) if result.get('pid') else ''}")]


def _restored(result: Mapping[str, Any], at: Optional[float]) -> Iterator[Tuple[str, str, str]]:
    """Which file training goes on from, and what that costs."""
    quarantined = result.get("quarantined") or []
    for entry in quarantined:
        yield "quarantine", "quarantined", entry["path"]
    if not result.get("restored"):
        return
    kept: Mapping[str, Any] = result.get("checkpoint") or {}
    epoch = kept.get("epoch")
    facts = ["of an epoch that it does not tell" if epoch is None else f"of epoch {epoch}"]
    written = moment(kept.get("written_at"))
    if written is not None:
        age = f", {span(at - written)} ago" if at is not None and at >= written else ""
        facts.append(f"written {clock(written)}{age}")
    if kept.get("sha256"):
        facts.append(f"sha256 {kept['sha256']}")
    yield "restore", "restored", f"{kept.get('path')} from {result.get('source')}, {', '.join(facts)}"
    lost = result.get("epochs_lost")
    if lost is not None:
        number = f"{lost} epoch{'' if lost == 1 else 's'}" if lost else "no epoch"
        yield "lose", "lost", f"{number}: training goes on from epoch {epoch}"
    elif quarantined:
        yield "lose", "lost", "an unknown number of epochs: not every file tells which one it is from"


def _samples(result: Mapping[str, Any]) -> str:
    return f"{result['samples']} verified samples" if result.get("samples") else "verified samples"

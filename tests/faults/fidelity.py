# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The changes that a dry run predicts, and those that the world then shows: two sets, which must be one."""

from __future__ import annotations

import json
import re
from typing import Any, Iterator
from urllib.parse import urlsplit

from lab.instance import Instance
from lab.nodes import driver_of
from lab.operation import LOG
from lab.snapshot import SERVICE
from tests.faults.world import World, matches
from tests.integration.harness import CONFIG

Change = tuple[str, str, str]

# What others write: the trainers, the service, and the journal, which records that a run was and is on no plan.
OTHERS = (
    "checkpoints/checkpoint_epoch_*.pth",
    "checkpoints/checkpoint_epoch_*.pth.sha256",
    "checkpoints/checkpoint_emergency_*",
    "checkpoints/avg_ckpt_*",
    # Those of the second trainer of the fault `duplicate`.
    "checkpoints/second/*",
    "models/second_*",
    "*.db-wal",
    "models/candidate_*",
    "models/*_best*",
    "logs/*",
    "data/coordination/*",
    "data/lab/*",
    "data/work_queue.db*",
    "data/recovery/*",
    # The empty file by which exporters keep off each other.
    "data/training/*.npz.lock",
    "*__pycache__*",
)
# What the nodes of the service tell their leader.
WORKERS = ("/heartbeat", "/work/start", "/work/complete", "/work/fail")
STAMP = re.compile(r"[.]corrupt-\d{8}T\d{6}Z([.]\d+)?")
WRITE = re.compile(r"INFO - (POST|PUT|DELETE|PATCH) (/\S*) (.*)$", re.M)


def predicted(report: dict[str, Any], coordinator: str, before: World) -> set[Change]:
    """What the report of a dry run says, as (host, what, of what); nothing where it was refused."""
    return {
        *(change for name, steps in report.get("nodes", {}).items() for change in _of_node(name, steps)),
        *_of_fleet(coordinator, report.get("fleet", {}), before),
    }


def _of_node(name: str, steps: dict[str, Any]) -> Iterator[Change]:
    for entry in steps.get("stop_training", {}).get("stopped") or []:
        yield name, "process ends", str(entry["pid"])
    lock = steps.get("clear_lock", {})
    if lock.get("changed"):
        yield name, "file", _short(lock["lock"]["path"])
    data = steps.get("publish_data", {})
    if data.get("changed"):
        yield name, "file", _short(data["path"])
        if data.get("previous"):
            yield name, "file", _short(data["previous"])
    for step in ("restore_checkpoint", "restore_canonical"):
        told = steps.get(step, {})
        if told.get("restored"):
            path = _short(told["checkpoint"]["path"])
            yield name, "file", path
        for entry in told.get("quarantined") or []:
            yield name, "file", _short(entry["to"])
            if _short(entry["path"]).startswith("models/"):
                yield name, "file", _short(entry["path"])
    if steps.get("start", {}).get("changed"):
        yield name, "trainer", "starts"


def _of_fleet(coordinator: str, fleet: dict[str, Any], before: World) -> Iterator[Change]:
    for step in ("withdraw_jobs", "clear_jobs"):
        for entry in fleet.get(step, {}).get("cleared") or []:
            yield coordinator, "job ends", str(entry["id"])
    lock = fleet.get("clear_coordinator_lock", {})
    if lock.get("changed"):
        yield coordinator, "file", _short(lock["lock"]["path"])
    export = fleet.get("export_data", {})
    if export.get("changed"):
        path = _short(export["path"])
        yield coordinator, "file", path
        if path in before.files(coordinator):
            yield coordinator, "file", f"{path}.previous"
    if fleet.get("restart_daemons", {}).get("changed"):
        yield coordinator, "daemons", "restart"
    dispatch = fleet.get("dispatch", {})
    if dispatch.get("changed"):
        request = dispatch["dispatched"]["request"]
        route = urlsplit(request["url"]).path
        yield coordinator, "dispatch", f"{route} {json.dumps(request['body'], sort_keys=True)}"


def made(instance: Instance, before: World, after: World, said: str) -> set[Change]:
    """What happened: files and processes from two looks, and the writes over HTTP from the server's log."""
    changes = set()
    for name in before.nodes:
        old, new = before.files(name), after.files(name)
        for path in old.keys() | new.keys():
            if old.get(path) != new.get(path) and not matches(path, OTHERS):
                kept = STAMP.sub(".corrupt-*", path)
                # The record and the sidecar belong to the file that they stand beside.
                if not (".corrupt-*." in kept or path.endswith(".sha256")):
                    changes.add((name, "file", kept))
        alive = {(entry[0], entry[1]) for entry in after.nodes[name]["processes"]}
        for pid, ticks, argv in before.nodes[name]["processes"]:
            if (pid, ticks) not in alive and _trains(argv):
                changes.add((name, "process ends", str(pid)))
    changes |= set(_requests(instance.coordinator.name, said))
    if not any(what == "dispatch" for _host, what, _of in changes):
        # Where nobody was asked for a trainer, one that is new was started directly.
        changes |= {(node, "trainer", "starts") for node, pid in after.trainers if (node, pid) not in before.trainers}
    return changes


def given_up(said: set[Change], after: World, heard: str) -> set[Change]:
    """Of the jobs that were to be withdrawn, those that the queue gave up first, as their trainers ended at once."""
    fails = (json.loads(text) for _method, path, text in WRITE.findall(heard) if path == "/work/fail")
    failed = {str(body.get("work_id")) for body in fails}
    ended = set() if after.work is None else failed.difference(after.work)
    return {change for change in said if change[1] == "job ends" and change[2] in ended}


def _requests(coordinator: str, said: str) -> Iterator[Change]:
    for _method, path, text in WRITE.findall(said):
        body = json.loads(text) if text.strip() else {}
        route = path.split("?")[0]
        if route in WORKERS:
            continue
        if route in ("/work/cancel", "/training/update"):
            yield coordinator, "job ends", str(body.get("work_id") or body.get("job_id"))
        elif route in ("/work/add", "/dispatch_training"):
            yield coordinator, "dispatch", f"{route} {json.dumps(body, sort_keys=True)}"
        elif route == "/admin/restart":
            yield coordinator, "daemons", "restart"
        else:
            yield coordinator, "request", f"{route} {text}"


def is_lock(change: Change) -> bool:
    return change[1] == "file" and change[2].startswith("data/locks/")


def log_size(instance: Instance) -> int:
    return driver_of(instance).service(instance.coordinator, LOG).stat().st_size


def log_since(instance: Instance, size: int) -> str:
    with open(driver_of(instance).service(instance.coordinator, LOG), "rb") as stream:
        stream.seek(size)
        return stream.read().decode(errors="replace")


def _short(path: str) -> str:
    """Below the service's directory, as a snapshot names it, and with no time in it."""
    return STAMP.sub(".corrupt-*", path.split(f"{SERVICE}/", 1)[-1])


def _trains(argv: list[str]) -> bool:
    board, players = CONFIG.rsplit("_", 1)
    words = " ".join(argv)
    return "training.train " in words and f"--board-type {board}" in words and f"--num-players {players[:-1]}" in words


def marks(before: World, after: World) -> tuple[str, ...]:
    """How a world differs from the one before, in words that are the same for two labs in the same state."""
    work = "unknown" if after.work is None else str(len(after.work))
    found = [f"{len(after.trainers)} trainers, {work} open"]
    for name in before.nodes:
        old, new = before.files(name), after.files(name)
        for path in sorted(old.keys() | new.keys()):
            if old.get(path) != new.get(path) and not matches(path, ("logs/*", "*__pycache__*")):
                state = "gone" if path not in new else "new" if path not in old else "changed"
                found.append(f"{name}: {STAMP.sub('.corrupt-*', path)} {state}")
        gone = {(entry[0], entry[1]) for entry in after.nodes[name]["processes"]}
        found += [f"{name}: a trainer ended" for entry in before.nodes[name]["processes"]
                  if (entry[0], entry[1]) not in gone and _trains(entry[2])]  # fmt: skip
    return tuple(found)

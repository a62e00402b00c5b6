# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on the nodes, and what must be true of it whatever went wrong: nothing lost, nothing half-done."""

from __future__ import annotations

import contextlib
import fnmatch
import json
from dataclasses import dataclass

from ansible_collections.ringrift.recovery.plugins.module_utils import _npz
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import is_staged
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config

from lab import operation
from lab.errors import LabError
from lab.instance import Instance
from lab.nodes import driver_of
from lab.snapshot import SERVICE, Snapshot, snapshot
from lab.training import find
from tests.integration.harness import CONFIG

# The bytes of these must be somewhere afterwards, under whatever name.
PRECIOUS = ("data/training/*.npz", "models/*.pth", "checkpoints/*.pth", "data/games/*.db")
# What a trainer writes over by itself, once one runs.
TRAINERS = ("checkpoints/*", "models/candidate_*", "models/second_*", "models/*_best*")
NPZ = f"data/training/{CONFIG}.npz"
MODELS = (f"models/checkpoint_{CONFIG}.pth", f"models/canonical_{CONFIG}.pth")
LOG = "logs/training.log"
JOURNAL = f"data/recovery/{CONFIG}.jsonl"


@dataclass(frozen=True)
class World:
    """One moment: files by hash and processes of each node, the trainers, and the open work of the config.

    ``work`` is None where the leader could not be asked.
    """

    nodes: Snapshot
    trainers: tuple[tuple[str, int], ...]
    work: tuple[str, ...] | None

    def files(self, node: str) -> dict[str, str]:
        """Of the service's directory, by path below it."""
        prefix = f"{SERVICE}/"
        entries = self.nodes[node]["files"].items()
        return {path[len(prefix) :]: mark for path, mark in entries if path.startswith(prefix)}


def look(instance: Instance) -> World:
    driver = driver_of(instance)
    work: tuple[str, ...] | None = None
    with contextlib.suppress(LabError):
        work = tuple(sorted(str(item["work_id"]) for item in operation.open_work(instance, driver)))
    trainers = tuple((found.node.name, found.process.pid) for found in find(instance, driver))
    return World(snapshot(instance), trainers, work)


def trained(before: World, after: World) -> bool:
    """Whether a trainer runs, or one has written its log meanwhile."""
    logs = (before.files(node).get(LOG) != after.files(node).get(LOG) for node in before.nodes)
    return bool(after.trainers) or any(logs)


def lost(before: World, after: World, overwritten: bool) -> list[str]:
    """Precious files whose bytes are nowhere on their node any more. ``overwritten``: a trainer has run."""
    found = []
    for node in before.nodes:
        kept = set(after.files(node).values())
        for path, mark in before.files(node).items():
            if not matches(path, PRECIOUS) or (overwritten and matches(path, TRAINERS)):
                continue
            if mark not in kept:
                found.append(f"{node}: the bytes of {path} are lost")
    return found


def half_done(instance: Instance, before: World, after: World, ended: bool) -> list[str]:
    """Files that training reads which are neither what they were nor whole; at the ``end`` each must be whole."""
    driver = driver_of(instance)
    found = []
    for node in instance.nodes:
        old, new = before.files(node.name), after.files(node.name)
        for path in (NPZ, *MODELS):
            if path not in new or (not ended and new[path] == old.get(path)):
                continue
            problem = _problem(str(driver.service(node, path)))
            if problem and (node.trains or path == NPZ):
                found.append(f"{node.name}: {path} is {problem}")
        left = [path for path in new if is_staged(path) or path.endswith((".incoming", ".restore.lock"))]
        if ended:
            found += [f"{node.name}: {path} is left over" for path in left]
    return found


def _problem(path: str) -> str | None:
    if path.endswith(".npz"):
        seen = _npz.inspect(path, depth=_npz.FULL, config=parse_config(CONFIG))
        return None if seen.valid else f"no training file ({seen.problems[:1]})"
    seen = verify(path)
    return None if seen.valid else f"no checkpoint ({seen.problems[:1]})"


def ended(instance: Instance, after: World) -> list[str]:
    """What is not as it must be after a recovery that ended well."""
    found = []
    if len(after.trainers) != 1:
        found.append(f"{len(after.trainers)} trainers run: {after.trainers}")
    if after.work is None:
        found.append(f"whether jobs of {CONFIG} are open cannot be told")
    elif len(after.work) > 1:
        found.append(f"{len(after.work)} jobs of {CONFIG} are open")
    driver = driver_of(instance)
    try:
        records = driver.service(instance.coordinator, JOURNAL).read_text().splitlines()
    except FileNotFoundError:
        records = []
    last = json.loads(records[-1]) if records else {"event": "ended"}
    if last.get("event") != "ended":
        found.append(f"the journal's last record is {last.get('event')}")
    return found


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

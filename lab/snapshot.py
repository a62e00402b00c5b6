# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on the nodes and what runs there, so that two moments can be compared."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import pathlib
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from lab.instance import Instance, Node
from lab.nodes import driver_of
from lab.nodes.base import Driver

SERVICE = "ringrift/ai-service"

# Files that change while nobody does anything: what the orchestrators write, caches, and the shared memory of SQLite.
VOLATILE = (
    f"{SERVICE}/logs/p2p_orchestrator.log",
    "*/__pycache__/*",
    "*.db-shm",
)

# What a running trainer writes, for comparisons beside one.
TRAINING = (
    f"{SERVICE}/checkpoints/*",
    f"{SERVICE}/models/*",
    f"{SERVICE}/logs/*",
    f"{SERVICE}/data/coordination/*",
)

Snapshot = Dict[str, Dict[str, Any]]


def snapshot(instance: Instance, exclude: Sequence[str] = VOLATILE) -> Snapshot:
    """Per node ``files``, a hash by path, and ``processes``, each [pid, start ticks, argv].

    Paths are below the node's home directory, and so are the shell patterns in ``exclude``. With namespaced nodes only
    what was written on the node counts, not what the machine beneath shows.
    """
    driver = driver_of(instance)
    with ThreadPoolExecutor(max_workers=4) as pool:
        taken = pool.map(lambda node: _take(driver, node, exclude), instance.nodes)
        return {node.name: entry for node, entry in zip(instance.nodes, taken)}


def difference(before: Snapshot, after: Snapshot) -> List[str]:
    """What changed between two snapshots, one line each."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, {}), after.get(name, {})
        lines += [f"{name}: {line}" for line in _changes(old.get("files", {}), new.get("files", {}))]
        was, now = ({_key(entry): entry for entry in side.get("processes", [])} for side in (old, new))
        lines += [
            f"{name}: process {entry[0]} ended: {' '.join(entry[2])}" for key, entry in was.items() if key not in now
        ]
        lines += [
            f"{name}: process {entry[0]} began: {' '.join(entry[2])}" for key, entry in now.items() if key not in was
        ]
    return lines


def _changes(before: Dict[str, str], after: Dict[str, str]) -> Iterator[str]:
    for path in sorted({*before, *after}):
        if path not in after:
            yield f"{path} was deleted"
        elif path not in before:
            yield f"{path} was created"
        elif before[path] != after[path]:
            yield f"{path} was changed"


def _key(entry: List[Any]) -> Tuple[int, int, Tuple[str, ...]]:
    return entry[0], entry[1], tuple(entry[2])


def _take(driver: Driver, node: Node, exclude: Sequence[str]) -> Dict[str, Any]:
    processes = [
        process for process in driver.processes(node) if not (process.argv[:1] or ("",))[0].startswith("sshd:")
    ]
    return {
        "files": dict(sorted(_files(driver.written(node, node.home), exclude))),
        "processes": [[process.pid, process.start_ticks, list(process.argv)] for process in processes],
    }


def _files(base: pathlib.Path, exclude: Sequence[str]) -> Iterator[Tuple[str, str]]:
    for folder, names, files in os.walk(base):
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in [*files, *links]:
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, base)
            if not any(fnmatch.fnmatchcase(shown, pattern) for pattern in exclude):
                mark = _mark(path)
                if mark is not None:
                    yield shown, mark


def _mark(path: str) -> Optional[str]:
    """A hash of what is there, or None when it is gone meanwhile."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return f"-> {os.readlink(path)}"
        if not stat.S_ISREG(mode):
            # A character device in the upper layer stands for a deleted file of the machine beneath.
            return f"special {mode:o}"
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None

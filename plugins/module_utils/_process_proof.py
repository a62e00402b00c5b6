# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that nothing is left of a training that was stopped: no process, no flock, no GPU memory.

What could not be looked at is None and proves nothing. This util is private to the collection.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Collection, Dict, Iterable, List, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_file, _proc, _process_gpu
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._process_gpu import GpuMemory
from ansible_collections.ringrift.recovery.plugins.module_utils._process_stop import StopResult
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import Sighting, TrainingProcess

# How long the driver may list a process that has just ended.
GPU_SETTLE = 3.0
GPU_POLL = 0.3
NAMED = 5

Tree = Dict[int, int]


@dataclass(frozen=True)
class Proof:
    """What is proven. ``flock_keepers`` are all that keep the flock, ``gpu_pids`` what is listed although it is gone.

    ``unseen`` says for each thing that could not be looked at why.
    """

    gone: Optional[bool]
    flock_free: Optional[bool]
    gpu_free: Optional[bool]
    flock_keepers: Tuple[int, ...] = ()
    gpu_pids: Tuple[int, ...] = ()
    unseen: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        data = asdict(self)
        return {**data, **{name: list(data[name]) for name in ("flock_keepers", "gpu_pids", "unseen")}}


def tree_of(processes: Iterable[TrainingProcess]) -> Tree:
    """Processes and all that they have started, with their start times, so that what they leave behind is known."""
    stats = _proc.all_stats()
    children: Dict[int, List[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.ppid, []).append(stat.pid)
    found = {process.pid: process.start_ticks for process in processes}
    waiting = list(found)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found[pid] = stats[pid].start_ticks
                waiting.append(pid)
    return found


def prove(
    tree: Tree,
    result: StopResult,
    seen: Sighting,
    lock_path: str,
    gpu_before: Optional[GpuMemory] = None,
    gpu_look: Callable[[], GpuMemory] = _process_gpu.look,
    assumed: Collection[int] = (),
) -> Proof:
    """Look for what is left.

    :param tree: the training before the stop, from :func:`tree_of`
    :param seen: what is seen after the stop
    :param gpu_before: what held GPU memory before; None when the GPU is not asked
    :param assumed: processes to be taken for gone, in a prediction
    """
    # Those that were found during the stop belong to it too.
    tree = {**tree, **{one.process.pid: one.process.start_ticks for one in result.stopped}}
    unseen: List[str] = []
    doubts = seen.doubts()
    gone: Optional[bool] = None if doubts else True
    if result.survivors or any(process.alive and process.pid not in assumed for process in seen.processes):
        gone = False
    elif doubts:
        unseen.append(doubts)
    flock_free, keepers = _flock(tree, lock_path, assumed, unseen)
    gpu_free, listed = _gpu(tree, gpu_before, gpu_look, assumed, unseen)
    return Proof(gone, flock_free, gpu_free, keepers, listed, tuple(unseen))


def failure(proof: Proof, tree: Tree, lock_path: str) -> Optional[str]:
    """What is left of a training whose processes are gone, and what to do about it; None when nothing is."""
    if proof.flock_free is False:
        pids = ", ".join(str(pid) for pid in proof.flock_keepers if pid in tree)
        return (
            f"The trainers are gone, but process {pids}, which one of them has started, still keeps the flock on "
            f"{lock_path}. End it (kill {pids.replace(',', '')}), then run this again."
        )
    if proof.gpu_free is False:
        pids = ", ".join(str(pid) for pid in proof.gpu_pids[:NAMED])
        return (
            f"The trainers are gone, but the GPU still lists memory of process {pids}. Look with "
            "ringrift.recovery.gpu_status; when it stays, reset the GPU or reboot the node, then run this again."
        )
    return None


def _flock(
    tree: Tree, path: str, assumed: Collection[int], unseen: List[str]
) -> Tuple[Optional[bool], Tuple[int, ...]]:
    try:
        lock = _lock_file.observe(path)
    except RecoveryError as exc:
        unseen.append(str(exc))
        return None, ()
    keepers = tuple(pid for pid in lock.keepers if pid not in assumed)
    if any(pid in tree and _proc.is_same(pid, tree[pid]) for pid in keepers):
        return False, keepers
    if lock.kept is None:
        unseen.append(f"{path}: {lock.unseen or lock.problem}")
        return None, keepers
    return True, keepers


def _gpu(
    tree: Tree,
    before: Optional[GpuMemory],
    look: Callable[[], GpuMemory],
    assumed: Collection[int],
    unseen: List[str],
) -> Tuple[Optional[bool], Tuple[int, ...]]:
    if before is None:
        return None, ()
    deadline = time.monotonic() + GPU_SETTLE
    while True:
        after = before if assumed else look()
        # A number that another process has now is that one's.
        ours = [pid for pid, ticks in tree.items() if pid not in assumed and _is_free(pid, ticks)]
        free = _process_gpu.free_of(ours, before, after)
        if free is not False or assumed or time.monotonic() > deadline:
            break
        time.sleep(GPU_POLL)
    if free is None:
        unseen.append(after.problem or "in this container nvidia-smi does not say which processes hold GPU memory")
    return free, tuple(sorted(pid for pid in ours if pid in after.held)) if free is False else ()


def _is_free(pid: int, ticks: int) -> bool:
    """Whether the number still is that of the process, or nobody's."""
    stat = _proc.read_stat(pid)
    return stat is None or stat.start_ticks == ticks

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on one GPU, from all that was seen of it: a pure function. This util is private to the collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _nvidia_smi
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_types import (
    BUSY,
    IDLE,
    IDLE_WITH_PROCESS,
    LEAKED,
    LOST,
    RECOVERY_ACTIONS,
    SICK,
    UNKNOWN,
    WEDGED,
    Cells,
    Gpu,
    Thresholds,
    number_of,
)

States = Mapping[str, Set[Optional[str]]]


@dataclass(frozen=True)
class Scene:
    """What stands around the GPUs.

    ``holders`` lists who holds a GPU open, and gives None where that cannot be seen. ``node_memory`` gives the MiB that
    a NUMA node uses apart from file pages. ``progress_age`` is the age in seconds of the newest sign of progress,
    ``progress_moved`` whether one came within the window; both are None where nothing was to be looked at.
    """

    container: bool = False
    holders: Callable[[], Optional[List[int]]] = lambda: None
    node_memory: Callable[[int], Optional[float]] = lambda node: None
    progress_age: Optional[float] = None
    progress_moved: Optional[bool] = None


def judge(
    gpu: Gpu, series: Sequence[Cells], states: States, thresholds: Thresholds, scene: Optional[Scene] = None
) -> Tuple[str, str]:
    """Verdict and reason of one GPU, from all its samples."""
    scene = scene or Scene()
    seen = {state for values in states.values() for state in values}
    if _nvidia_smi.LOST in seen:
        return LOST, "the driver says that it is lost; reboot the node"
    trouble = _trouble(gpu, seen, states)
    if trouble is not None:
        return SICK, trouble
    if gpu.mig_mode and gpu.utilization is None:
        return _judge_mig(gpu, thresholds)
    if gpu.utilization is None:
        return UNKNOWN, "its utilization is not known: the driver reports none"
    fallen = _fallen(gpu, series, thresholds, scene)
    if fallen is not None:
        return fallen
    if is_wedged(gpu, series, thresholds):
        claim = f"{gpu.utilization:g} % utilization at {gpu.power:g} W of {gpu.power_limit:g} W"
        if scene.progress_moved or scene.progress_age is not None and scene.progress_age < thresholds.progress_age:
            when = "during the look" if scene.progress_moved else f"{scene.progress_age:.0f} s ago"
            return BUSY, f"{claim}, which is little, but the trainer made progress {when}"
        facts = f"{_activity(gpu)}; {_witnesses(gpu, scene)}"
        return WEDGED, (f"{claim} in all {len(series)} samples: a kernel spins or waits and computes nothing; {facts}")
    if gpu.utilization >= thresholds.busy_utilization:
        power = "its power is not known" if gpu.power is None else f"{gpu.power:g} W"
        return BUSY, f"{gpu.utilization:g} % utilization, {power}"
    if gpu.ecc_uncorrected_volatile:
        return SICK, ecc_words(gpu)
    return _judge_idle(gpu, thresholds, scene, f"{gpu.utilization:g} % utilization")


def ecc_words(gpu: Gpu) -> str:
    return f"{gpu.ecc_uncorrected_volatile} uncorrected memory errors since the driver was loaded"


def _trouble(gpu: Gpu, seen: Set[Optional[str]], states: States) -> Optional[str]:
    """Why a GPU cannot be used, whatever it does."""
    action = (gpu.recovery_action or "").lower()
    if action in RECOVERY_ACTIONS:
        return f"the driver asks for: {gpu.recovery_action}"
    if _nvidia_smi.REQUIRES_RESET in seen:
        return "the driver says that it requires a reset"
    if gpu.remapped_rows_failure:
        return "remapping a row of its memory has failed; have it replaced"
    vital = [key for key in ("utilization", "memory_used") if _nvidia_smi.UNKNOWN_ERROR in states.get(key, ())]
    if vital:
        return f"the driver answers [Unknown Error] for {' and '.join(vital)}"
    return None


def _judge_mig(gpu: Gpu, thresholds: Thresholds) -> Tuple[str, str]:
    """With MIG on there is no utilization of the whole GPU, so nothing proves that it is idle."""
    active = max((one for one in (gpu.sm_activity, gpu.tensor_activity) if one is not None), default=None)
    pids = ", ".join(str(process.pid) for process in (gpu.processes or ())[:10])
    if active is not None and active >= thresholds.busy_utilization:
        return BUSY, f"with MIG on, its instances are active at {active:g} %"
    if active is not None and pids:
        return (
            IDLE_WITH_PROCESS,
            f"with MIG on, its instances are active at {active:g} %, and processes are on it: {pids}",
        )
    there = f"; processes {pids} are on its instances" if pids else ""
    return UNKNOWN, f"its utilization is not known: with MIG on, the driver reports none for the whole GPU{there}"


def _fallen(gpu: Gpu, series: Sequence[Cells], thresholds: Thresholds, scene: Scene) -> Optional[Tuple[str, str]]:
    """The verdict where the utilization only trails a process that is gone."""
    loads = [load for load in (number_of(row, "utilization") for row in series) if load is not None]
    if gpu.processes != () or len(loads) < 2 or max(loads) < thresholds.busy_utilization:
        return None
    # Utilization is a trailing average: after a process has ended it falls to 0 within about a second.
    last = loads[-1]
    if last >= thresholds.busy_utilization and last > 0.9 * max(loads):
        return None
    if last >= thresholds.busy_utilization:
        return (
            (UNKNOWN, f"utilization swings and is {last:g} % now, and no process is listed")
            if scene.container
            else (
                UNKNOWN,
                f"utilization falls, to {last:g} % so far, and no process is on it: look again in a second",
            )
        )
    if gpu.ecc_uncorrected_volatile:
        return SICK, ecc_words(gpu)
    return _judge_idle(gpu, thresholds, scene, f"utilization fell from {max(loads):g} % to {last:g} %")


def _judge_idle(gpu: Gpu, thresholds: Thresholds, scene: Scene, idle: str) -> Tuple[str, str]:
    if gpu.processes is None:
        return UNKNOWN, f"{idle}, and the processes on it could not be listed"
    pids = ", ".join(str(process.pid) for process in gpu.processes[:10])
    used = gpu.memory_used
    if gpu.processes and not scene.container and not any(process.here for process in gpu.processes):
        return _judge_ghosts(gpu, thresholds, scene, f"{idle}, and the listed processes are gone: {pids}")
    if gpu.processes:
        return IDLE_WITH_PROCESS, f"{idle}, although processes are on it: {pids}"
    if used is not None and used > thresholds.leaked_memory and not gpu.coherent and not gpu.mig_mode:
        unseen = f"{idle}, {used:g} MiB in use and no process listed"
        if scene.container:
            return UNKNOWN, f"{unseen}; processes of another PID namespace cannot be seen from here"
        holders = scene.holders()
        if holders is None:
            return UNKNOWN, f"{unseen}; only root can see whether somebody holds the device"
        if holders:
            return IDLE_WITH_PROCESS, f"{unseen}, but a GPU is held open by {', '.join(map(str, holders[:10]))}"
        return LEAKED, f"{unseen}, and nobody holds a GPU open; reset it or reboot the node"
    return IDLE, f"{idle}, no process on it"


def _judge_ghosts(gpu: Gpu, thresholds: Thresholds, scene: Scene, words: str) -> Tuple[str, str]:
    """The driver lists processes that do not live."""
    held = gpu.memory_used
    if gpu.coherent:
        # The operating system keeps pages there too, so only what its own books say counts.
        held = scene.node_memory(gpu.numa_node) if gpu.numa_node is not None else None
    if held is None:
        return UNKNOWN, f"{words}; how much memory they left cannot be told"
    if held > thresholds.leaked_memory:
        return LEAKED, f"{words}, with {held:g} MiB still in use; reset it or reboot the node"
    return IDLE, words


def is_wedged(gpu: Gpu, series: Sequence[Cells], thresholds: Thresholds) -> bool:
    """Whether a GPU claims to work, in every sample, at the power and the memory traffic of one that does not."""
    if len(series) < 2 or gpu.power_limit is None:
        return False
    if gpu.tensor_activity is not None and gpu.tensor_activity > thresholds.wedged_tensor_activity:
        return False
    if gpu.dram_activity is not None and gpu.dram_activity > thresholds.wedged_memory_utilization:
        return False
    limit = thresholds.wedged_power_fraction * gpu.power_limit
    for row in series:
        load, power, traffic = (number_of(row, key) for key in ("utilization", "power", "utilization_memory"))
        if load is None or load < thresholds.wedged_utilization or power is None or power > limit:
            return False
        if traffic is not None and traffic > thresholds.wedged_memory_utilization:
            return False
    return True


def _activity(gpu: Gpu) -> str:
    if gpu.tensor_activity is None:
        return "tensor activity is not offered"
    return f"tensor activity {gpu.tensor_activity:.1f} %"


def _witnesses(gpu: Gpu, scene: Scene) -> str:
    """What CPU time and progress say, and what was not to be seen."""
    known: Dict[int, float] = {}
    for process in gpu.processes or ():
        if process.cpu_seconds is not None:
            known[process.pid] = process.cpu_seconds
    if not known:
        cpu = "CPU time was not seen"
    elif any(known.values()):
        # Waiting for a kernel keeps one thread of the trainer spinning, so this does not disprove it.
        cpu = f"CPU time moves ({max(known.values()):.2f} s), as it does while waiting for a kernel"
    else:
        cpu = "CPU time stands still"
    if scene.progress_age is None:
        return f"{cpu}, progress was not looked at"
    return f"{cpu}, progress stands still for {scene.progress_age:.0f} s"

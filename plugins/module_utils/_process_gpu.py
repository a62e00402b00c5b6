# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much GPU memory each process holds, as nvidia-smi lists them. This util is private to the collection."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Collection, Dict, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils import _nvidia_smi
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu import in_container

FIELDS = ("pid", "process_name", "used_memory")
MAX_ROWS = 10_000


@dataclass(frozen=True)
class GpuMemory:
    """MiB by process, None where the driver does not say how much.

    ``problem`` says why nothing is known; then the list is empty and proves nothing. ``absent`` tells that there is no
    GPU tool, as on a node without a GPU. ``inside`` tells that this is a container, where the driver may list nobody,
    or processes by their numbers outside.
    """

    held: Dict[int, Optional[float]] = field(default_factory=dict)
    problem: Optional[str] = None
    absent: bool = False
    inside: bool = False

    def of(self, pid: int) -> Optional[float]:
        """MiB that a process holds; None when it is not known."""
        if pid in self.held:
            return self.held[pid]
        return None if self.problem or self.inside else 0.0


def look(tool: str = "nvidia-smi", timeout: float = 5.0) -> GpuMemory:
    """Ask once, for at most ``timeout`` seconds."""
    try:
        path = _nvidia_smi.find_tool(tool)
        if path is None:
            return GpuMemory(problem=f"there is no {tool} on this node", absent=True)
        answer = _nvidia_smi.NvidiaSmi(path, timeout).table("--query-compute-apps", FIELDS)
    except RecoveryError as exc:
        return GpuMemory(problem=str(exc))
    if answer.problem is not None:
        return GpuMemory(problem=answer.problem[1])
    inside = in_container()
    return GpuMemory(_read(answer.output, only_python=inside), inside=inside)


def free_of(pids: Collection[int], before: GpuMemory, after: GpuMemory) -> Optional[bool]:
    """Whether no GPU memory is held in the name of processes that are gone; None when that cannot be told."""
    if any(pid in after.held for pid in pids):
        return False
    # In a container the list is worth something only where it had them before.
    if after.problem or (after.inside and pids and not any(pid in before.held for pid in pids)):
        return None
    return True


def _read(output: str, only_python: bool) -> Dict[int, Optional[float]]:
    held: Dict[int, Optional[float]] = {}
    for line in output.splitlines()[:MAX_ROWS]:
        # The name of a program may hold the separator.
        cells = line.split(_nvidia_smi.SEPARATOR)
        name = os.path.basename(_nvidia_smi.SEPARATOR.join(cells[1:-1]).strip())
        if len(cells) < len(FIELDS) or not cells[0].strip().isdecimal() or (only_python and "python" not in name):
            continue
        pid, memory = int(cells[0]), _nvidia_smi.read_cell(cells[-1]).number
        # One process may be on several GPUs.
        before = held.get(pid, 0.0)
        held[pid] = None if memory is None or before is None else before + memory
    return held

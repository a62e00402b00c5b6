# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a node has left, and how much its control group leaves to this process.

This util is private to the collection.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _cgroup, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

OK = "ok"
LOW = "low"

# Below either of them the kernel soon kills something.
LEAST = 1 << 30
LEAST_SHARE = 0.05
# What version 1 writes where there is no limit, and anything near it.
NO_LIMIT = 1 << 60

MEMORY_V1 = "memory"
# Where a container sees its own group, although it is told another path.
FALLBACK = {"": "/sys/fs/cgroup", MEMORY_V1: "/sys/fs/cgroup/memory"}

_LINE = re.compile(r"^(\w{1,40}):\s+(\d{1,15}) kB$", re.M)


@dataclass(frozen=True)
class GroupMemory:
    """What a control group may use and uses, in bytes; ``cache`` is what it gives back by itself."""

    limit: Optional[int]
    usage: int
    oom_kills: Optional[int]
    cache: int = 0

    def as_dict(self) -> Dict[str, Any]:
        shown = asdict(self)
        del shown["cache"]
        return shown


@dataclass(frozen=True)
class Memory:
    """The memory of a node, in bytes."""

    total: int
    available: int
    swap_total: int
    swap_free: int
    cgroup: Optional[GroupMemory] = None

    def judge(self) -> Tuple[str, str]:
        """Verdict and reason."""
        words = f"{_gib(self.available)} of {_gib(self.total)} are available"
        if _is_low(self.available, self.total):
            return LOW, words
        group = self.cgroup
        if group is not None and group.limit is not None:
            left = max(0, group.limit - group.usage + group.cache)
            words += f", and {_gib(left)} of the {_gib(group.limit)} of this control group"
            if _is_low(left, group.limit):
                return LOW, words
        return OK, words

    def as_dict(self) -> Dict[str, Any]:
        verdict, reason = self.judge()
        group = None if self.cgroup is None else self.cgroup.as_dict()
        return {**asdict(self), "cgroup": group, "verdict": verdict, "reason": reason}


def look() -> Memory:
    """See the memory of this node.

    :raises RecoveryError: the kernel does not tell
    """
    return parse_meminfo(_proc.read_text("/proc/meminfo"), group_memory())


def parse_meminfo(text: str, group: Optional[GroupMemory] = None) -> Memory:
    """Read ``/proc/meminfo``.

    :raises RecoveryError: it does not tell what is there
    """
    found = {name: int(value) * 1024 for name, value in _LINE.findall(text)}
    missing = [name for name in ("MemTotal", "MemAvailable") if name not in found]
    if missing:
        raise RecoveryError(f"/proc/meminfo does not tell {' and '.join(missing)}; mount /proc on this node.")
    return Memory(
        total=found["MemTotal"],
        available=found["MemAvailable"],
        swap_total=found.get("SwapTotal", 0),
        swap_free=found.get("SwapFree", 0),
        cgroup=group,
    )


def group_memory() -> Optional[GroupMemory]:
    """The memory of the control group of this process; None where there is none, or it does not tell."""
    paths = _cgroup.read(os.getpid()).paths or {}
    for hierarchy in (MEMORY_V1, ""):
        if hierarchy in paths:
            root = _cgroup.mount_of(hierarchy)
            folder = os.path.normpath(f"{root}/{paths[hierarchy]}") if root else FALLBACK[hierarchy]
            found = read_group(folder, root or folder)
            if found is not None:
                return found
    return None


def read_group(folder: str, root: str) -> Optional[GroupMemory]:
    """The memory of one control group, of version 1 or 2. The least limit of it and of those above it counts.

    :param root: where the hierarchy is mounted
    """
    first = os.path.exists(f"{folder}/memory.usage_in_bytes")
    limit_name = "memory.limit_in_bytes" if first else "memory.max"
    usage = _number(f"{folder}/{'memory.usage_in_bytes' if first else 'memory.current'}")
    if usage is None:
        return None
    limits = []
    at = folder
    while at.startswith(root):
        limit = _number(f"{at}/{limit_name}")
        if limit is not None and limit < NO_LIMIT:
            limits.append(limit)
        if at in (root, "/"):
            break
        at = os.path.dirname(at)
    kills = _proc.read_text(f"{folder}/{'memory.oom_control' if first else 'memory.events'}")
    killed = re.search(r"^oom_kill (\d{1,18})$", kills, re.M)
    name = "total_inactive_file" if first else "inactive_file"
    cache = re.search(rf"^{name} (\d{{1,18}})$", _proc.read_text(f"{folder}/memory.stat"), re.M)
    return GroupMemory(
        limit=min(limits, default=None),
        usage=usage,
        oom_kills=int(killed.group(1)) if killed else None,
        cache=int(cache.group(1)) if cache else 0,
    )


def _number(path: str) -> Optional[int]:
    text = _proc.read_text(path).strip()
    return int(text) if re.match(r"\A\d{1,20}\Z", text) else None


def _is_low(available: int, total: int) -> bool:
    return available < LEAST or available < LEAST_SHARE * total


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"

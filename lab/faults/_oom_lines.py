# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says when it kills a process for want of memory."""

from __future__ import annotations

from typing import List


def lines(name: str, pid: int, gigabytes: int) -> List[str]:
    """The kill of one process; those are the first and the last lines of some hundred."""
    own = gigabytes << 20
    return [
        f"{name} invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
        f"CPU: 37 PID: {pid} Comm: {name} Tainted: G           OE      6.8.0-45-generic #45-Ubuntu",
        "Tasks state (memory values in pages):",
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=user.slice,mems_allowed=0-1,global_oom,"
        f"task_memcg=/user.slice/user-0.slice/session-4.scope,task={name},pid={pid},uid=0",
        f"Out of memory: Killed process {pid} ({name}) total-vm:{own * 3 // 2}kB, anon-rss:{own}kB, file-rss:73216kB, "
        f"shmem-rss:1048576kB, UID:0 pgtables:398452kB oom_score_adj:0",
    ]

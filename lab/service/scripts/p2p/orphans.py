# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the orchestrator does to orphans when it starts. Part of the stand-in, see `app`.

Measured on the real one, and kept: every python process whose parent is pid 1 and whose command line contains one of
the patterns gets SIGTERM, also a trainer that somebody started by hand. Unlike the real one this looks only at
processes whose working directory is inside its own service directory.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

PATTERNS = ("selfplay", "train", "gauntlet", "export_replay", "gpu_parallel_games", "game_gauntlet")

logger = logging.getLogger("p2p_orchestrator")


def orphan(pid: str) -> str | None:
    """The command line of a process that the real one ends, wherever it runs; None for every other process."""
    command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").lower()
    parent = int(Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    fits = parent == 1 and "python" in command and any(word in command for word in PATTERNS)
    return command if fits else None


def reap(root: Path) -> list[int]:
    """The processes that got a SIGTERM."""
    killed = []
    own = {str(os.getpid()), str(os.getppid())}
    for name in os.listdir("/proc"):
        # The parent may be a wrapper that carries our own arguments, such as timeout.
        if not name.isdigit() or name in own:
            continue
        try:
            command = orphan(name)
            if command is None or not Path(os.readlink(f"/proc/{name}/cwd")).is_relative_to(root):
                continue
            os.kill(int(name), signal.SIGTERM)
        except (OSError, ValueError, IndexError):
            continue
        killed.append(int(name))
        logger.info("[OrphanReaper] Killed orphan PID %s: %s", name, command[:80])
    if killed:
        logger.info("[OrphanReaper] Killed %d orphan processes at startup", len(killed))
    return killed

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thaws a control group when its node goes: ``python -m lab.faults._thaw GROUP PID TICKS``."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time

from lab.processes import Mark, lives

INTERVAL = 0.2


def main() -> None:
    group, node = pathlib.Path(sys.argv[1]), Mark(int(sys.argv[2]), int(sys.argv[3]))
    while group.is_dir():
        if not lives(node):
            with contextlib.suppress(OSError):
                (group / "freezer.state").write_text("THAWED")
            with contextlib.suppress(OSError):
                group.rmdir()
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()

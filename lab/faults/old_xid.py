# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the kernel log still have an XID 79 of before the last boot."""

from __future__ import annotations

from lab import kernel_log
from lab.faults import _xid
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    node = _xid.node_of(scene)
    lines = [_xid.line(scene, node, 79, "GPU has fallen off the bus.", of_trainer=False)]
    kernel_log.write_before(scene.driver, node, lines)
    return f"the kernel log of {node.name} has an XID 79 of before its boot"


def mend(scene: Scene) -> str:
    return _xid.forget(scene)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the driver report an error of a program alone: a page fault (XID 31) and the cleanup after it (XID 45)."""

from __future__ import annotations

from lab import kernel_log
from lab.faults import _xid
from lab.faults._scene import Scene

FAULT = (
    "Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC1 GPCCLIENT_T1_4 faulted @ 0x7f4c_a2000000. "
    "Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ"
)


def apply(scene: Scene) -> str:
    node = _xid.node_of(scene)
    bus = kernel_log.bus_id(node)
    head = f"NVRM: Xid (PCI:{bus}):"
    lines = [f"{head} 31, pid=7713, name=jupyter, {FAULT}", f"{head} 45, pid=7713, name=jupyter, Ch 00000010"]
    kernel_log.write(scene.driver, node, lines)
    return f"the kernel of {node.name} reports XID 31 and XID 45 of another program"


def mend(scene: Scene) -> str:
    return _xid.forget(scene)

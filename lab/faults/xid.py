# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the driver report a double-bit memory error (XID 48), and that it wants the GPU reset (XID 154)."""

from __future__ import annotations

from lab import kernel_log
from lab.faults import _xid
from lab.faults._scene import Scene

ERROR = (
    "An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer at physical partition 3, "
    "subpartition 1."
)
ADVICE = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"


def apply(scene: Scene) -> str:
    node = _xid.node_of(scene)
    lines = [_xid.line(scene, node, 48, ERROR), _xid.line(scene, node, 154, ADVICE, of_trainer=False)]
    kernel_log.write(scene.driver, node, lines)
    return f"the kernel of {node.name} reports XID 48 and XID 154"


def mend(scene: Scene) -> str:
    return _xid.forget(scene)

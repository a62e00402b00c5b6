# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the GPU fall off the bus, and the driver say so (XID 79)."""

from __future__ import annotations

from lab import gpu, kernel_log
from lab.faults import _xid
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    node = _xid.node_of(scene)
    bus = kernel_log.bus_id(node)
    lines = [
        _xid.line(scene, node, 79, "GPU has fallen off the bus.", of_trainer=False),
        f"NVRM: GPU {bus}.0: GPU has fallen off the bus.",
        _xid.line(scene, node, 154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", False),
    ]
    kernel_log.write(scene.driver, node, lines)
    return f"{gpu.change(scene.driver, node, 'lost')}, and its kernel reports XID 79"


def mend(scene: Scene) -> str:
    said = _xid.forget(scene)
    return f"{gpu.change(scene.driver, _xid.node_of(scene), 'normal')}; {said}"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the system processor of the GPU give no answer (XID 119)."""

from __future__ import annotations

from lab import kernel_log
from lab.faults import _xid
from lab.faults._scene import Scene

ERROR = (
    "Timeout after 6s of waiting for RPC response from GPU0 GSP! "
    "Expected function 76 (GSP_RM_CONTROL) (0x20803032 0x58c)."
)


def apply(scene: Scene) -> str:
    node = _xid.node_of(scene)
    kernel_log.write(scene.driver, node, [_xid.line(scene, node, 119, ERROR)])
    return f"the kernel of {node.name} reports XID 119"


def mend(scene: Scene) -> str:
    return _xid.forget(scene)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pull the network cable of the node that is named; what runs there runs on."""

from __future__ import annotations

from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    node = scene.node("made unreachable")
    scene.driver.cut(node, connected=False)
    return f"{node.name} ({node.address}) is off the network"


def mend(scene: Scene) -> str:
    node = scene.node("connected again")
    scene.driver.cut(node, connected=True)
    return f"{node.name} ({node.address}) is on the network again"

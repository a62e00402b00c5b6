# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flip one byte in a tensor of the canonical model."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults._scene import Scene
from lab.faults.checkpoint import flip


def apply(scene: Scene) -> str:
    node = scene.training_node()
    path = scene.driver.service(node, "models", f"canonical_{scene.config}.pth")
    if not path.is_file():
        raise LabError(f"{node.name} has no models/{path.name} to damage.")
    name, offset = flip(path)
    return f"flipped the byte at offset {offset} ({name}) of models/{path.name} on {node.name}"

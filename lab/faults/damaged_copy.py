# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flip a byte in the copy of the training file that waits on a node to be put in place."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    hit = []
    for node in [scene.wanted] if scene.wanted else scene.instance.training_nodes:
        path = scene.driver.service(node, "data", "training", f".{scene.config}.npz.incoming")
        try:
            with open(path, "r+b") as stream:
                middle = stream.seek(0, 2) // 2
                stream.seek(middle)
                byte = stream.read(1)
                stream.seek(middle)
                stream.write(bytes([byte[0] ^ 0xFF]))
        except FileNotFoundError:
            continue
        hit.append(node.name)
    if not hit:
        raise LabError("No copy of a training file waits to be put in place.")
    return f"flipped a byte of the copy on {', '.join(hit)}"

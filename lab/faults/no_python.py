# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the Python that the inventory names away from the node that is named."""

from __future__ import annotations

import os
import pathlib
from typing import Tuple

from lab.errors import LabError
from lab.faults._scene import Scene
from lab.instance import Node
from lab.inventory import node_python


def apply(scene: Scene) -> str:
    here, aside, node = _files(scene, "left without Python")
    if not os.path.lexists(here):
        raise LabError(f"{node.name} has no {node_python()} already.")
    try:
        os.rename(here, aside)
    except OSError as exc:
        raise LabError(f"{node_python()} on {node.name} cannot be taken away: {exc.strerror}") from exc
    return f"{node.name} has no {node_python()} any more"


def mend(scene: Scene) -> str:
    here, aside, node = _files(scene, "given its Python back")
    if not os.path.lexists(aside):
        raise LabError(f"{node.name} has its {node_python()}.")
    os.rename(aside, here)
    return f"{node.name} has {node_python()} again"


def _files(scene: Scene, purpose: str) -> Tuple[pathlib.Path, pathlib.Path, Node]:
    node = scene.node(purpose)
    if scene.driver.name != "netns":
        raise LabError(f"{node.name} shares this machine's Python. Use --driver netns, as root.")
    here = scene.driver.path(node, node_python())
    return here, here.with_name(f"{here.name}.away"), node

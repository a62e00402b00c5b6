# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let sshd of the node that is named refuse the key of everybody."""

from __future__ import annotations

import os
import pathlib
from typing import Tuple

from lab.errors import LabError
from lab.faults._scene import Scene
from lab.instance import Node


def apply(scene: Scene) -> str:
    here, aside, node = _files(scene, "closed")
    if not here.is_file():
        raise LabError(f"{node.name} lets nobody in already.")
    here.rename(aside)
    return f"{node.name} refuses every key"


def mend(scene: Scene) -> str:
    here, aside, node = _files(scene, "opened")
    if not aside.is_file():
        raise LabError(f"{node.name} refuses no key.")
    aside.rename(here)
    return f"{node.name} takes the key again"


def _files(scene: Scene, purpose: str) -> Tuple[pathlib.Path, pathlib.Path, Node]:
    node = scene.node(purpose)
    if scene.driver.name != "netns":
        raise LabError(f"{node.name} has no sshd. Use --driver netns, as root.")
    here = scene.driver.path(node, os.path.join(node.home, ".ssh", "authorized_keys"))
    return here, here.with_name("authorized_keys.away"), node

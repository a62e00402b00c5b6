# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in GPU of a node: a program that answers from a state file."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Dict, Optional

from lab.errors import LabError
from lab.instance import Node
from lab.nodes.base import Driver

PROGRAM = pathlib.Path(__file__).with_name("bin") / "nvidia-smi"
# The real program is compiled too: of a module, unlike a program, Python keeps what it has compiled.
LAUNCHER = """#!/usr/bin/env python3
import sys

sys.path.insert(0, {folder!r})
import lab_nvidia_smi

lab_nvidia_smi.run()
"""


def state_path(node: Node) -> str:
    """Where the program looks for its state: beside itself."""
    return os.path.join(os.path.dirname(node.nvidia_smi), "gpu.json")


def install(driver: Driver, node: Node, within: Optional[str] = None) -> None:
    """Give a node its GPU; only trainers below ``within`` use it, where that is given."""
    state: Dict[str, Any] = {"profile": node.gpu, "mode": "normal"}
    if within is not None:
        state["within"] = within
    folder = os.path.join(os.path.dirname(os.path.dirname(node.nvidia_smi)), "lib", "lab")
    driver.put(node, os.path.join(folder, "lab_nvidia_smi.py"), PROGRAM.read_text(), 0o644)
    driver.put(node, node.nvidia_smi, LAUNCHER.format(folder=folder), 0o755)
    driver.put(node, state_path(node), json.dumps(state) + "\n", 0o644)


def state(driver: Driver, node: Node) -> Optional[str]:
    """The GPU's model and mode."""
    try:
        data = _read(driver, node)
    except (OSError, ValueError):
        return None
    return f"{data.get('profile', '?')} {data.get('mode', 'normal')}"


def change(driver: Driver, node: Node, mode: str) -> str:
    """Put the GPU into another mode."""
    if not node.trains:
        raise LabError(f"{node.name} has no GPU.")
    data = {**_read(driver, node), "mode": mode}
    path = driver.path(node, state_path(node))
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(data) + "\n")
    os.replace(staged, path)
    # What remembers that hung_once has hung.
    path.with_name(path.name + ".hung").unlink(missing_ok=True)
    return f"the GPU of {node.name} is {mode}"


def _read(driver: Driver, node: Node) -> Dict[str, Any]:
    data = json.loads(driver.path(node, state_path(node)).read_text())
    if not isinstance(data, dict):
        raise ValueError("no object")
    return data

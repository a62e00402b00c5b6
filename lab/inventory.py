# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a lab, written for the collection's playbooks."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Dict, List

from lab.instance import Instance
from lab.nodes.base import Driver

# The lab trains an epoch in a second, so its settings count in seconds where a fleet's count in minutes.
SETTINGS: Dict[str, Any] = {
    "ringrift_stall_after": 20,
    "ringrift_monitor_interval": 1,
    "ringrift_monitor_timeout": 60,
    "ringrift_stop_grace": 10,
    "ringrift_min_games": 50,
    # An epoch takes less than a second, so that the default of 50 would end before anyone has looked.
    "ringrift_epochs": 5000,
    "ringrift_min_samples": 100,
}


def build(instance: Instance, driver: Driver) -> Dict[str, Any]:
    """The inventory as data."""
    groups: Dict[str, Dict[str, Any]] = {"coordinator": {}, "h100": {}, "gh200": {}}
    for node in instance.nodes:
        groups[node.group][node.name] = driver.hostvars(node)
    children = {name: {"hosts": groups[name]} for name in ("h100", "gh200") if groups[name]}
    shared = {"ansible_python_interpreter": node_python(), **SETTINGS, **driver.groupvars()}
    return {
        "all": {"vars": shared},
        "coordinator": {"hosts": groups["coordinator"]},
        "training": {"children": children},
    }


def write(instance: Instance, driver: Driver) -> pathlib.Path:
    """Write the inventory and return its path."""
    path = instance.inventory
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(".hosts.new")
    head = f"---\n# The lab in {instance.directory}. Written by `python -m lab up`.\n"
    staged.write_text(head + "\n".join(as_yaml(build(instance, driver))) + "\n")
    os.replace(staged, path)
    return path


def as_yaml(data: Dict[str, Any], depth: int = 0) -> List[str]:
    """Nested dictionaries as lines of YAML; every value as JSON, which YAML contains."""
    lines = []
    for key, value in data.items():
        start = "  " * depth + key + ":"
        if isinstance(value, dict) and value:
            lines += [start, *as_yaml(value, depth + 1)]
        else:
            lines.append(f"{start} {json.dumps(value)}")
    return lines


def node_python() -> str:
    """The system's Python, as on a real node, where it is new enough for Ansible; else this one."""
    system = "/usr/bin/python3"
    try:
        check = [system, "-c", "import sys; sys.exit(sys.version_info < (3, 8))"]
        if subprocess.run(check, capture_output=True, timeout=10, check=False).returncode == 0:
            return system
    except (OSError, subprocess.TimeoutExpired):
        pass
    return sys.executable

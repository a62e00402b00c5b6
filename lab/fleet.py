# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of the nodes."""

from __future__ import annotations

from typing import List

from lab.errors import UsageError
from lab.instance import Node

MOST = 200

# The nodes of the runbook: name, inventory group and GPU.
KNOWN = (
    ("nebius-h100-3", "h100", "h100-sxm"),
    ("runpod-h100", "h100", "h100-pcie"),
    ("lambda-gh200-b-new", "gh200", "gh200"),
)


def plan(count: int) -> List[Node]:
    """A coordinator and ``count`` training nodes."""
    if not 1 <= count <= MOST:
        raise UsageError(f"--nodes {count}: a lab has 1 to {MOST} training nodes.")
    nodes = [Node("coordinator-1", "coordinator", "")]
    for number in range(1, count + 1):
        name, group, gpu = KNOWN[number - 1] if number <= len(KNOWN) else (f"node-{number:02d}", "h100", "h100-sxm")
        nodes.append(Node(name, group, gpu))
    return nodes

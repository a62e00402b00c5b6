# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where nodes come from: namespaces of this machine (root), or directories (anybody)."""

from __future__ import annotations

import os

from lab.instance import Instance
from lab.nodes.base import Driver
from lab.nodes.local import LocalDriver
from lab.nodes.netns import NetnsDriver

DRIVERS = {"netns": NetnsDriver, "local": LocalDriver}


def default_driver() -> str:
    """The real nodes for root, directories for everybody else."""
    return "netns" if os.getuid() == 0 else "local"


def driver_of(instance: Instance) -> Driver:
    """The driver that made this lab."""
    return DRIVERS[instance.driver](instance)

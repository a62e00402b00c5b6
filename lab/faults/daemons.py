# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the event router's daemon of the coordinator be down."""

from __future__ import annotations

import json

from lab.errors import LabError
from lab.faults._scene import Scene

# The daemons' process obeys this file; a restart of the service, or of the daemon, takes the name out of it.
FILE = ("data", "lab", "daemons_down.json")
DAEMON = "event_router"


def apply(scene: Scene) -> str:
    node = scene.wanted or scene.instance.coordinator
    path = scene.driver.service(node, *FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([DAEMON]) + "\n")
    return f"daemon {DAEMON} does not run any more on {node.name}"


def mend(scene: Scene) -> str:
    node = scene.wanted or scene.instance.coordinator
    path = scene.driver.service(node, *FILE)
    try:
        down = json.loads(path.read_text())
    except FileNotFoundError:
        down = []
    if not down:
        raise LabError(f"Every daemon runs on {node.name}.")
    path.unlink()
    return f"daemon {', '.join(down)} runs again on {node.name}"

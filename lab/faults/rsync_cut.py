# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut every rsync to the node that is named after some bytes of a file."""

from __future__ import annotations

from lab.errors import LabError
from lab.faults._scene import Scene

PATH = "/usr/local/bin/rsync"
BYTES = 20000
SCRIPT = f"""#!/bin/sh
# The lab cuts what comes in.
head -c {BYTES} | /usr/bin/rsync "$@"
"""


def apply(scene: Scene) -> str:
    node = scene.training_node()
    if scene.driver.name != "netns":
        raise LabError(f"{node.name} shares this machine's rsync. Use --driver netns, as root.")
    path = scene.driver.path(node, PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return f"every rsync to {node.name} is cut after {BYTES} bytes"


def mend(scene: Scene) -> str:
    node = scene.training_node()
    path = scene.driver.path(node, PATH)
    if not path.exists():
        raise LabError(f"No rsync to {node.name} is cut.")
    path.unlink()
    return f"rsync to {node.name} is whole again"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An exporter that goes wrong, in the place of the service's own."""

from __future__ import annotations

import os

from lab.errors import LabError
from lab.faults._scene import Scene

PATH = ("scripts", "export_replay_dataset.py")
REAL = ("scripts", "_export_replay_dataset.py")
SHIM = '''\
#!/usr/bin/env python3
"""Stands for an exporter that goes wrong; the whole one is beside it."""
import os, signal, subprocess, sys, time

if {how!r} == "hang":
    time.sleep(3600)
if {how!r} == "nothing":
    sys.exit(0)
real = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_export_replay_dataset.py")
code = subprocess.call([sys.executable, real, *sys.argv[1:]])
output = sys.argv[sys.argv.index("--output") + 1]
if {how!r} == "dies":
    os.truncate(output, os.path.getsize(output) * 6 // 10)
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(89)
'''


def replace(scene: Scene, how: str) -> str:
    """Put an exporter on the coordinator that does ``hang``, ``nothing``, ``dies`` or ``code``."""
    node = scene.instance.coordinator
    path, real = scene.driver.service(node, *PATH), scene.driver.service(node, *REAL)
    if not real.exists():
        os.replace(path, real)
    path.write_text(SHIM.format(how=how))
    path.chmod(0o755)
    return node.name


def mend(scene: Scene) -> str:
    node = scene.instance.coordinator
    path, real = scene.driver.service(node, *PATH), scene.driver.service(node, *REAL)
    if not real.exists():
        raise LabError(f"The exporter of {node.name} is the service's own.")
    os.replace(real, path)
    return f"the exporter of {node.name} is the service's own again"

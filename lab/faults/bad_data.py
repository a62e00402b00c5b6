# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the training file of another config in the place of this one's, on the coordinator and on all nodes."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

from lab import seed
from lab.errors import LabError
from lab.faults._scene import Scene


def apply(scene: Scene) -> str:
    other = "square8_2p" if scene.config != "square8_2p" else "hex8_2p"
    changed = []
    with tempfile.TemporaryDirectory(prefix="ringrift-lab-", dir=scene.instance.directory) as aside:
        made = make(pathlib.Path(aside), other)
        for node in [scene.wanted] if scene.wanted else scene.instance.nodes:
            path = scene.driver.service(node, "data", "training", f"{scene.config}.npz")
            if path.exists():
                staged = path.with_name(f".{path.name}.new")
                shutil.copyfile(made, staged)
                os.replace(staged, path)
                changed.append(node.name)
    if not changed:
        raise LabError(f"No node has data/training/{scene.config}.npz.")
    return f"data/training/{scene.config}.npz is that of {other} on {', '.join(changed)}"


def make(folder: pathlib.Path, config: str) -> pathlib.Path:
    """A good training file of a config."""
    service = seed.install_service(folder / "service")
    seed.make_venv(service)
    seed.make_games(service / "data" / "games" / f"{config}.db", config, 40)
    return seed.make_npz(service, config)

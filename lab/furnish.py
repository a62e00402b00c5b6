# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the service, its data, a kernel log and a GPU on every node."""

from __future__ import annotations

import shutil
import subprocess

from lab import gpu, kernel_log
from lab.errors import LabError
from lab.instance import Instance
from lab.nodes.base import Driver


def install(instance: Instance, driver: Driver) -> None:
    """Make one service directory with games, training data and a model, and copy it to every node."""
    try:
        from lab import seed
    except ImportError as exc:
        raise LabError(f"The lab needs {exc.name}: pip install -r requirements/lab.txt") from exc

    template = instance.directory / "template"
    try:
        seed.seed_service(template, instance.config)
    except ValueError as exc:
        raise LabError(f"--config: {exc}.") from exc
    except (RuntimeError, OSError, subprocess.SubprocessError) as exc:
        raise LabError(f"The service could not be made ready: {exc}") from exc
    for node in instance.nodes:
        shutil.copytree(template, driver.staging(node) / node.service.lstrip("/"), symlinks=True)
        kernel_log.install(driver, node)
        if node.gpu:
            gpu.install(driver, node, driver.within(node))
    shutil.rmtree(template)

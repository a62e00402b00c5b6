# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the GPUs of a node, and start no interpreter that certainly cannot see them.

This util is private to the collection.
"""

from __future__ import annotations

import glob
import os
from importlib.util import find_spec
from typing import List, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_types import AUTO, NVIDIA_SMI, GpuReport

# What nvidia-ml-py installs, and where.
MODULE = "pynvml"
SITES = ("lib", "lib64", os.path.join("local", "lib"))
MAX_TEXT = 1 << 16
SYSTEM_SITES = ("include-system-site-packages", "true")


def look(service_path: str, nvidia_smi: str, samples: int, timeout: float) -> GpuReport:
    """See the GPUs, by NVML where an interpreter has it, else by the tool.

    :raises RecoveryError: the tool is there and cannot be run
    """
    # nvidia-ml-py is rather with the service than with the system's interpreter.
    python = os.path.join(os.path.expanduser(service_path), "venv", "bin", "python")
    service = python if os.access(python, os.X_OK) and may_have_nvml(os.path.dirname(os.path.dirname(python))) else None
    source = AUTO if service or find_spec(MODULE) else NVIDIA_SMI
    return _gpu.collect(nvidia_smi, timeout=timeout, samples=samples, source=source, python=service)


def may_have_nvml(venv: str, search: Optional[str] = None) -> bool:
    """Whether the interpreter of a virtual environment may have nvidia-ml-py; to ask it costs more than to look.

    :param search: where it looks besides, as ``PYTHONPATH``
    """
    folders = (os.environ.get("PYTHONPATH", "") if search is None else search).split(os.pathsep)
    for site in SITES:
        for packages in glob.glob(os.path.join(glob.escape(venv), site, "python*", "*-packages")):
            folders += [packages, *_named_in(packages)]
    if any(glob.glob(os.path.join(glob.escape(folder), f"{MODULE}*")) for folder in folders if folder):
        return True
    settings = [line.partition("=") for line in _lines(os.path.join(venv, "pyvenv.cfg"))]
    if not settings:
        return True  # not a virtual environment as Python makes them, so nothing is certain
    return any((name.strip().lower(), value.strip().lower()) == SYSTEM_SITES for name, _sign, value in settings)


def _named_in(packages: str) -> List[str]:
    """More folders, which the path files in one of them name."""
    files = glob.glob(os.path.join(glob.escape(packages), "*.pth"))
    return [os.path.join(packages, line.strip()) for file in files for line in _lines(file) if line.strip()]


def _lines(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(MAX_TEXT).splitlines()
    except OSError:
        return []

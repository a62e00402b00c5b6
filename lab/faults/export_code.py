# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the exporter of training data write a good file and exit with 89."""

from __future__ import annotations

from lab.faults import _exporter
from lab.faults._exporter import mend
from lab.faults._scene import Scene

__all__ = ["apply", "mend"]


def apply(scene: Scene) -> str:
    return f"the exporter of {_exporter.replace(scene, 'code')} writes a good file and exits with 89"

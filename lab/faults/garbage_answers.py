# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the leading orchestrator answer everything with a page that is no JSON."""

from __future__ import annotations

from lab.faults import _answers
from lab.faults._answers import mend
from lab.faults._scene import Scene

__all__ = ["apply", "mend"]


def apply(scene: Scene) -> str:
    return f"the orchestrator of {_answers.give(scene, 'garbage')} answers with a page that is no JSON"

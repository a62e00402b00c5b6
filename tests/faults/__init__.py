# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Break a recovery in every way that is known, at every place, and look whether anything was lost or left half-done."""

from __future__ import annotations

import pathlib
import sys

# The engines judge the files, and they are found as the collection that they belong to.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "playbooks" / "collections"))

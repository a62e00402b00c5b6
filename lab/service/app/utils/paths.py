# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are: the root of the service and its data directory. Part of the stand-in, see `app`."""

from __future__ import annotations

import os
from pathlib import Path

AI_SERVICE_ROOT = Path(__file__).resolve().parents[2]
DATA_DIR = Path(os.environ.get("AI_SERVICE_DATA_DIR") or AI_SERVICE_ROOT / "data")
MODELS_DIR = AI_SERVICE_ROOT / "models"
LOGS_DIR = AI_SERVICE_ROOT / "logs"

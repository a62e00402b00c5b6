# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Managers of the orchestrator, as far as a runbook imports them. Part of the stand-in, see `app`."""

from __future__ import annotations


class TrainingCoordinator:
    """Only the name: cooldowns live in the orchestrator's process and cannot be asked from another one."""

    COOLDOWN_SECONDS = 1800.0
    COOLDOWN_MIN_SECONDS = 300.0
    COOLDOWN_MAX_SECONDS = 7200.0

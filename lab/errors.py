# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab raises."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked. The text names the thing, the value and the next step."""

    code = 1


class UsageError(LabError):
    """The command line asks for something that does not exist."""

    code = 2

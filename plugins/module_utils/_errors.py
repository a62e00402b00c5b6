# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that engines raise. This util is private to the collection."""

from __future__ import annotations


class RecoveryError(Exception):
    """Could not look, or could not act. The message names the thing, the value and the next step."""

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reads what a play prints. This util is private to the collection."""

from __future__ import annotations

from ansible import constants as C

# Whoever reads these reads the result, and a line of text would spoil their format.
MACHINE_CALLBACKS = ("json", "jsonl", "xml", "junit")


def is_for_people() -> bool:
    """Whether a line may be printed between those of the stdout callback."""
    return C.DEFAULT_STDOUT_CALLBACK.rpartition(".")[2] not in MACHINE_CALLBACKS

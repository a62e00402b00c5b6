# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read plain data of which nothing is certain: evidence may be of an older version, edited, or garbage.

This util is private to the collection.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional


def part(data: Any, *names: str) -> Mapping[str, Any]:
    """The dictionary at a path of keys, an empty one where there is none."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def rows(value: Any) -> List[Mapping[str, Any]]:
    """The dictionaries of a list."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, (list, tuple)) else []


def named(value: Any) -> Dict[str, Mapping[str, Any]]:
    """The dictionaries of a dictionary, by name."""
    if not isinstance(value, Mapping):
        return {}
    return {str(name): entry for name, entry in value.items() if isinstance(entry, Mapping)}


def texts(value: Any) -> List[str]:
    """The texts of a list."""
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, (list, tuple)) else []


def number(value: Any) -> Optional[float]:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        # A whole number of JSON may have hundreds of digits.
        return None


def whole(value: Any) -> Optional[int]:
    """A whole number, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: Any) -> Optional[str]:
    """A text that is not empty, or None."""
    return value if isinstance(value, str) and value else None


def duration(seconds: Optional[float]) -> str:
    """Seconds in words, as coarse as one would say it."""
    if seconds is None:
        return "an unknown time"
    seconds = abs(seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"

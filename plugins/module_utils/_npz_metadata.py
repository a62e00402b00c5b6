# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the exporter's ``metadata``, a dict that numpy has pickled, without unpickling it.

The pickle is followed by the inert interpreter, which imports and calls nothing. This util is private to the
collection.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import interpret
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import Call, Global, get, is_mapping, keys
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import shown

NAME = "metadata"
# The exporter's has some 300; a longer one is something else.
MAX_PICKLE = 64 << 10
MAX_KEYS = 32
_FORMS = {
    "b1": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}


@dataclass(frozen=True)
class Metadata:
    """The pairs that have plain values, None where the pickle holds no dict, and what loading it would run."""

    values: Optional[Dict[str, Any]]
    dangerous: Tuple[str, ...]


def read_metadata(data: bytes) -> Metadata:
    """Look at the pickle of a single object as ``numpy.save`` writes it."""
    report = interpret(data, NAME)
    node = _single_object(report.root) if report.complete else None
    values = None
    if is_mapping(node):
        values = {key: _plain(get(node, key)) for key in keys(node, MAX_KEYS)}
    return Metadata(values, tuple(report.dangerous))


def _single_object(root: Any) -> Any:
    """What is in an array with one element: numpy sets ``(version, shape, type, order, [elements])`` in a new array."""
    if not _is_numpys(root, "_reconstruct") or len(root.more) != 1:
        return None
    state = root.more[0]
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[4], list) or len(state[4]) != 1:
        return None
    return state[4][0]


def _plain(node: Any) -> Any:
    """A text or number; None for all else."""
    if _is_numpys(node, "scalar"):
        node = _number(node.args)
    if isinstance(node, str):
        return shown(node)
    if isinstance(node, float) and not math.isfinite(node):
        return str(node)
    return node if isinstance(node, (bool, int, float)) else None


def _number(args: Any) -> Any:
    """The value of a numpy scalar: ``(type, its bytes)``, the type being ``dtype("i8", …)`` with its byte order set."""
    if not isinstance(args, tuple) or len(args) != 2 or not isinstance(args[1], bytes):
        return None
    kind = (
        args[0].args[0] if _is_numpys(args[0], "dtype") and isinstance(args[0].args, tuple) and args[0].args else None
    )
    form = _FORMS.get(kind) if isinstance(kind, str) else None
    if form is None or len(args[1]) != struct.calcsize(form):
        return None
    state = args[0].more[0] if args[0].more else ()
    order = ">" if isinstance(state, tuple) and state[1:2] == (">",) else "<"
    return struct.unpack(order + form, args[1])[0]


def _is_numpys(node: Any, name: str) -> bool:
    """Whether a node is a call of that function of numpy, whose modules have moved between its versions."""
    if not isinstance(node, Call) or not isinstance(node.func, Global):
        return False
    return node.func.name == name and node.func.module.partition(".")[0] == "numpy"

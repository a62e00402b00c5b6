# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the elements of an array once, for everything that wants them, without numpy and in bounded memory.

This util is private to the collection.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from dataclasses import dataclass
from typing import Any, FrozenSet, List, Optional, Sequence, Set

from ansible_collections.ringrift.recovery.plugins.module_utils._float_scan import FloatCounts, FloatScan, scannable
from ansible_collections.ringrift.recovery.plugins.module_utils._npy import Header
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import Problem
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import Container, ContainerError, Member, shown

# Stays in a core's cache between inflating, checksum and hash; for larger pieces the C library asks the kernel for new
# memory each time, which costs threads that read side by side a tenth of their time.
CHUNK = 128 << 10
MAX_NUMBERS = 64
_TYPECODES = {
    ("i", 1): "b",
    ("u", 1): "B",
    ("i", 2): "h",
    ("u", 2): "H",
    ("i", 4): "i",
    ("u", 4): "I",
    ("i", 8): "q",
    ("u", 8): "Q",
    ("f", 2): "e",
    ("f", 4): "f",
    ("f", 8): "d",
}


@dataclass(frozen=True)
class Wanted:
    """What to find out about an array: its SHA-256, which whole numbers are in it, and what its floats are like."""

    digest: bool = False
    numbers: bool = False
    floats: bool = False


@dataclass(frozen=True)
class Content:
    """What was found in an array; None where it was not wanted or cannot be told, ``damage`` where it ends in one."""

    digest: Optional[str] = None
    numbers: FrozenSet[int] = frozenset()
    floats: Optional[FloatCounts] = None
    damage: Optional[Problem] = None


def read_content(container: Container, member: Member, header: Header, wanted: Wanted) -> Content:
    """Read an array to its end, which also compares its length and its CRC-32."""
    digest = hashlib.sha256() if wanted.digest and _is_hashed_as_stored(header) else None
    if digest is not None:
        digest.update(f"{header.shape}{header.element.name}".encode())
    scan = _scan(header) if wanted.floats else None
    numbers = _Numbers(header) if wanted.numbers and header.element.kind in "iu" else None
    skip = header.data_offset
    try:
        for data in container.stream(member, CHUNK):
            if skip:
                data, skip = data[skip:], max(0, skip - len(data))
            if digest is not None:
                digest.update(data)
            if scan is not None:
                scan.feed(data)
            if numbers is not None:
                numbers.feed(data)
    except ContainerError as exc:
        return Content(damage=exc.problem)
    return Content(
        digest=None if digest is None else digest.hexdigest(),
        numbers=frozenset() if numbers is None else frozenset(numbers.seen),
        floats=None if scan is None else scan.counts(),
    )


def float_type(header: Header) -> Optional[str]:
    """The common name, such as ``float32``, of a floating or complex type in either byte order; None for others."""
    name = {"f": "float", "c": "complex"}.get(header.element.kind)
    return None if name is None else f"{name}{(header.element.size or 0) * 8}"


def may_hold_floats(header: Header) -> bool:
    """Whether floating-point numbers can be among the elements, also where they cannot be looked at."""
    # A plain "V" is bytes without a meaning; a list of fields has one.
    structured = header.element.kind == "V" and not header.element.name.startswith("|")
    return header.element.is_object or structured or float_type(header) is not None


def index_of(place: int, header: Header) -> List[int]:
    """Where in the array the element stands that is number ``place`` in the file."""
    shape = header.shape if header.fortran_order else header.shape[::-1]
    index: List[int] = []
    for length in shape:
        place, here = divmod(place, length)
        index.append(here)
    return index if header.fortran_order else index[::-1]


def numbers_in(data: bytes, header: Header) -> Optional[Sequence[Any]]:
    """Numbers from raw elements; None where the type is not one that is understood."""
    code = _TYPECODES.get((header.element.kind, header.element.size or 0))
    if code is None:
        return None
    if code == "e" or header.element.order == ">":
        order = ">" if header.element.order == ">" else "<"
        return struct.unpack(f"{order}{len(data) // (header.element.size or 1)}{code}", data)
    values = array(code)
    values.frombytes(data)
    return values


def scalar(data: bytes, header: Header) -> Any:
    """A plain value; None where the type has none."""
    if header.element.kind in "US":
        value = text(data, header)
        return None if value is None else shown(value)
    if header.element.kind == "b":
        return data[:1] != b"\0"
    values = numbers_in(data, header)
    if not values:
        return None
    return str(values[0]) if isinstance(values[0], float) and not math.isfinite(values[0]) else values[0]


def text(data: bytes, header: Header) -> Optional[str]:
    """The text of a single value; None where it is none."""
    if header.element.kind == "S":
        return data.decode("utf-8", "replace").rstrip("\0")
    if header.element.kind == "U":
        encoding = "utf-32-be" if header.element.order == ">" else "utf-32-le"
        return data.decode(encoding, "replace").rstrip("\0")
    return None


class _Numbers:
    """The different whole numbers in an array, as long as they are few."""

    def __init__(self, header: Header):
        self.seen: Set[int] = set()
        self._header = header
        self._rest = b""

    def feed(self, data: bytes) -> None:
        if len(self.seen) >= MAX_NUMBERS:
            return
        data = self._rest + data
        whole = len(data) - len(data) % (self._header.element.size or 1)
        self._rest = data[whole:]
        self.seen.update(numbers_in(data[:whole], self._header) or ())


def _scan(header: Header) -> Optional[FloatScan]:
    dtype = float_type(header)
    if dtype is None or not scannable(dtype):
        return None
    return FloatScan(dtype, big_endian=header.element.order == ">")


def _is_hashed_as_stored(header: Header) -> bool:
    """Whether the bytes in the file are those that the exporter made a SHA-256 of, which it does in C order."""
    reordered = header.fortran_order and len([length for length in header.shape if length != 1]) > 1
    # numpy's name for a type with fields depends on how it was made.
    structured = header.element.kind == "V" and not header.element.name.startswith("|")
    return not (header.element.is_object or structured or reordered)

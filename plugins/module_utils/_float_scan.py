# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look for NaN, infinities and nothing but zeros in the raw bytes of floating-point numbers, without numpy.

An element can only be NaN or infinite where its highest byte has one of two values (eight for float16), and a search
for those runs at the speed of memory; only what it finds is looked at one by one. This util is private to the
collection.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import List, NamedTuple, Optional

# Past this many the rest is not looked at one by one; a file that is full of NaN needs no exact number.
MAX_COUNTED = 100_000


class _Form(NamedTuple):
    size: int
    # The values of its highest byte that NaN and infinities have, and the bits which must be set in the byte below.
    tops: bytes
    bits: int


_FORMS = {
    "float64": _Form(8, b"\x7f\xff", 0xF0),
    "float32": _Form(4, b"\x7f\xff", 0x80),
    "bfloat16": _Form(2, b"\x7f\xff", 0x80),
    "float16": _Form(2, b"\x7c\x7d\x7e\x7f\xfc\xfd\xfe\xff", 0x00),
}
# A complex number is two of these.
_PARTS = {"complex128": "float64", "complex64": "float32", "complex32": "float16"}
_CODES = {"float64": "<d", "float32": "<f", "float16": "<e"}


@dataclass(frozen=True)
class FloatCounts:
    """What was found: ``first`` is the index of the first number that is not finite, and ``zero`` whether all bytes are
    zero. ``exact`` is False where counting ended at ``MAX_COUNTED``.
    """

    nan: int
    infinite: int
    first: Optional[int]
    zero: bool
    exact: bool


def scannable(dtype: str) -> bool:
    """Whether numbers of this type, in torch's and numpy's common names such as ``float32``, can be looked at."""
    return _PARTS.get(dtype, dtype) in _FORMS


class FloatScan:
    """Takes the bytes of an array in pieces of any length and counts what is not finite in them."""

    def __init__(self, dtype: str, big_endian: bool = False):
        self._dtype = _PARTS.get(dtype, dtype)
        self._form = _FORMS[self._dtype]
        self._big = big_endian
        self._rest = b""
        self._elements = 0
        self._nan = 0
        self._infinite = 0
        self._examined = 0
        self._first: Optional[int] = None
        self._zero = True

    def feed(self, data: bytes) -> None:
        """Look at the next bytes."""
        if self._rest:
            data = self._rest + data
        size = self._form.size
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        if self._zero and data.count(0, 0, whole) != whole:
            self._zero = False
        if not self._zero and self._examined < MAX_COUNTED:
            self._look(data[:whole])
        self._elements += whole // size

    def counts(self) -> FloatCounts:
        """What was found in all that was fed."""
        return FloatCounts(
            nan=self._nan,
            infinite=self._infinite,
            first=self._first,
            zero=self._zero and self._elements > 0,
            exact=self._examined < MAX_COUNTED,
        )

    def _look(self, data: bytes) -> None:
        size, tops, bits = self._form
        high = 0 if self._big else size - 1
        column = data[high::size]
        for index in _places(column, tops, MAX_COUNTED - self._examined):
            self._examined += 1
            element = data[index * size : index * size + size]
            if self._big:
                element = element[::-1]
            if element[size - 2] & bits != bits:
                continue
            if math.isnan(self._value(element)):
                self._nan += 1
            else:
                self._infinite += 1
            at = self._elements + index
            self._first = at if self._first is None else min(self._first, at)

    def _value(self, element: bytes) -> float:
        if self._dtype == "bfloat16":
            element, code = b"\0\0" + element, "<f"
        else:
            code = _CODES[self._dtype]
        value: float = struct.unpack(code, element)[0]
        return value


def _places(column: bytes, tops: bytes, limit: int) -> List[int]:
    """Where one of these byte values stands, at most ``limit`` places."""
    places: List[int] = []
    for top in tops:
        at = column.find(top)
        while at >= 0 and len(places) < limit:
            places.append(at)
            at = column.find(top, at + 1)
    return places

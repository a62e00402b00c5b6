# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the header of a ``.npy`` array (format 1.0 to 3.0) without numpy and without evaluating anything.

The header is a Python literal, but only the few forms that numpy writes are understood; everything else is damage. This
util is private to the collection.
"""

from __future__ import annotations

import ast
import re
import struct
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Set, Tuple

MAGIC = b"\x93NUMPY"
# What numpy itself refuses to read by default.
MAX_HEADER = 10_000
# Enough for the longest prefix and the longest header.
HEAD_BYTES = 12 + MAX_HEADER
MAX_DIMENSIONS = 64
MAX_BYTES = 1 << 63
# Bytes of one element, and the length of an array inside an element.
MAX_ELEMENT = (1 << 31) - 1
OBJECT_BYTES = 8
MAX_DEPTH = 16
MAX_FIELDS = 500
KEYS = {"descr", "fortran_order", "shape"}

# The escapes that repr() writes.
_ESCAPE = r"""\\(?:[\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"""
_TOKEN = re.compile(
    rf"""[ \t\r\n]*(?:(?P<string>'(?:[^'\\\r\n]|{_ESCAPE})*'|"(?:[^"\\\r\n]|{_ESCAPE})*")"""
    r"""|(?P<integer>-?(?:0{1,20}|[1-9][0-9]{0,19}))(?P<long>L?)(?![0-9A-Za-z_])"""
    r"""|(?P<word>[A-Za-z_]+)|(?P<sign>[][(){},:]))"""
)
_WORDS = {"True": True, "False": False, "None": None}
_DESCR = re.compile(
    r"\A(?P<order>[<>|=])(?P<kind>[biufcmMOSUV])(?P<size>0|[1-9][0-9]{0,9})?"
    r"(?P<unit>\[(?:[1-9][0-9]{0,8})?(?:[YMWDhms]|[munpfa]s)\])?\Z"
)
_NAMES = {"i": "int", "u": "uint", "f": "float", "c": "complex"}
# Bytes of one element, by kind; numbers of any other width do not exist.
_WIDTHS = {
    "b": (1,),
    "i": (1, 2, 4, 8),
    "u": (1, 2, 4, 8),
    "f": (2, 4, 8, 16),
    "c": (8, 16, 32),
    "m": (8,),
    "M": (8,),
    "O": (),
}


class HeaderError(Exception):
    """The bytes are no header that can be trusted; ``code`` is machine-readable."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ElementType:
    """What one element is: numpy's name for it, its bytes in the file, and its kind and byte order for plain types.

    ``size`` is None for Python objects, which are pickled and have no fixed size.
    """

    name: str
    size: Optional[int]
    kind: str
    order: str

    @property
    def is_object(self) -> bool:
        return self.size is None


@dataclass(frozen=True)
class Header:
    """What a ``.npy`` header says. ``data_offset`` is where the elements begin, in bytes from the magic."""

    version: Tuple[int, int]
    shape: Tuple[int, ...]
    element: ElementType
    fortran_order: bool
    data_offset: int

    @property
    def count(self) -> int:
        """The number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def data_size(self) -> Optional[int]:
        """Bytes of all elements; None where they are pickled objects."""
        return None if self.element.size is None else self.count * self.element.size


def parse_header(data: bytes) -> Header:
    """Read a header from the first bytes of an array; ``HEAD_BYTES`` of them are always enough.

    :raises HeaderError: the bytes are not such a header, or what it says cannot be true
    """
    version, begin, length = _prefix(data)
    raw = data[begin : begin + length]
    if len(raw) < length:
        raise HeaderError("header_truncated", f"the header ends after {len(raw)} of its {length} bytes")
    try:
        text = raw.decode("utf-8" if version >= (3, 0) else "latin-1")
    except UnicodeDecodeError as exc:
        raise HeaderError("header_damaged", "the header is not UTF-8") from exc
    value = _Literal(text, python2=version < (3, 0)).read()
    if not isinstance(value, dict) or set(value) != KEYS:
        raise HeaderError("header_damaged", "the header does not have exactly the keys descr, fortran_order and shape")
    if not isinstance(value["fortran_order"], bool):
        raise HeaderError("header_damaged", "fortran_order is neither True nor False")
    header = Header(version, _shape(value["shape"]), _element(value["descr"]), value["fortran_order"], begin + length)
    _check_plausible(header)
    return header


def _prefix(data: bytes) -> Tuple[Tuple[int, int], int, int]:
    if data[: len(MAGIC)] != MAGIC:
        raise HeaderError("header_damaged", f"it begins with {data[: len(MAGIC)]!r} and not as a .npy array does")
    if len(data) < 10:
        raise HeaderError("header_truncated", f"it has {len(data)} bytes and no room for a header")
    version = (data[6], data[7])
    if version == (1, 0):
        begin, (length,) = 10, struct.unpack_from("<H", data, 8)
    elif version in ((2, 0), (3, 0)):
        if len(data) < 12:
            raise HeaderError("header_truncated", f"it has {len(data)} bytes and no room for a header")
        begin, (length,) = 12, struct.unpack_from("<I", data, 8)
    else:
        raise HeaderError("header_damaged", f"version {version[0]}.{version[1]} of the .npy format is not known")
    if length > MAX_HEADER:
        raise HeaderError("header_damaged", f"the header claims {length} bytes; numpy reads at most {MAX_HEADER}")
    return version, begin, length


class _Literal:
    """A reader for the literals that numpy writes: dict, tuple, list, str, int, True, False and None.

    Under Python 2 it also wrote integers with an L behind them.
    """

    def __init__(self, text: str, python2: bool):
        self._text = text
        self._python2 = python2
        self._at = 0

    def read(self) -> Any:
        value = self._value(0)
        if self._text[self._at :].strip(" \t\r\n"):
            raise self._unreadable()
        return value

    def _unreadable(self) -> HeaderError:
        return HeaderError("header_damaged", f"the header cannot be read from its character {self._at} on")

    def _next(self) -> Tuple[str, str]:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._unreadable()
        kind = "integer" if match.lastgroup == "long" else str(match.lastgroup)
        if match.group("long") and not self._python2:
            raise self._unreadable()
        self._at = match.end()
        return kind, match.group(kind)

    def _accept(self, sign: str) -> bool:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.group("sign") != sign:
            return False
        self._at = match.end()
        return True

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise HeaderError("header_damaged", f"the header is nested more than {MAX_DEPTH} deep")
        kind, text = self._next()
        if kind == "string":
            return self._string(text)
        if kind == "integer":
            return int(text)
        if kind == "word" and text in _WORDS:
            return _WORDS[text]
        if text == "{":
            return self._dict(depth)
        if text == "[":
            return self._items("]", depth)[0]
        if text == "(":
            items, comma = self._items(")", depth)
            return tuple(items) if comma or not items else items[0]
        raise self._unreadable()

    def _string(self, text: str) -> str:
        if "\\" not in text:
            return text[1:-1]
        try:
            return str(ast.literal_eval(text))  # nothing but a string, as the token says
        except (SyntaxError, ValueError) as exc:
            raise self._unreadable() from exc

    def _items(self, end: str, depth: int) -> Tuple[List[Any], bool]:
        items: List[Any] = []
        comma = False
        while not self._accept(end):
            if items and not comma:
                raise self._unreadable()
            items.append(self._value(depth + 1))
            comma = self._accept(",")
        return items, comma or len(items) > 1

    def _dict(self, depth: int) -> Dict[str, Any]:
        values: Dict[str, Any] = {}
        comma = True
        while not self._accept("}"):
            key = self._value(depth + 1)
            if not comma or not isinstance(key, str) or key in values or not self._accept(":"):
                raise self._unreadable()
            values[key] = self._value(depth + 1)
            comma = self._accept(",")
        return values


def _shape(value: Any) -> Tuple[int, ...]:
    if not isinstance(value, tuple) or not all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        raise HeaderError("header_damaged", "the shape is not a tuple of whole numbers")
    if len(value) > MAX_DIMENSIONS:
        raise HeaderError("implausible_shape", f"the shape has {len(value)} dimensions, more than numpy knows")
    if any(length < 0 for length in value):
        raise HeaderError("implausible_shape", f"the shape {value} has a negative length")
    return value


def _check_plausible(header: Header) -> None:
    # A length of 0 must not hide that the others are beyond all memory.
    size = header.element.size or 1
    for length in header.shape:
        size *= length or 1
    if size >= MAX_BYTES:
        raise HeaderError("implausible_shape", f"the shape {header.shape} is beyond any memory")


def _element(descr: Any) -> ElementType:
    size, parts = _measure(descr, 0)
    if isinstance(descr, str):
        return _plain(descr)
    text = repr(descr)
    return ElementType(text if len(text) <= 200 else f"{text[:199]}…", None if "O" in parts else size, "V", "|")


def _plain(descr: str) -> ElementType:
    match = _DESCR.match(descr)
    if match is None:
        raise HeaderError("unknown_dtype", f"the element type {descr[:40]!r} is not known")
    order, kind, digits, unit = match.group("order", "kind", "size", "unit")
    # Every machine that trains is little-endian.
    order = ">" if order == ">" else "<"
    if unit and kind not in "mM":
        raise HeaderError("unknown_dtype", f"the element type {descr[:40]!r} is not known")
    if kind == "O" and digits in (None, "8"):
        return ElementType("object", None, "O", "|")
    number = int(digits) if digits else None
    if number is None or (kind in _WIDTHS and number not in _WIDTHS[kind]):
        raise HeaderError("unknown_dtype", f"the element type {descr[:40]!r} is not known")
    size = number * 4 if kind == "U" else number
    if size > MAX_ELEMENT:
        raise HeaderError("unknown_dtype", f"an element of type {descr[:40]!r} is larger than numpy allows")
    if kind in "SV" or size == 1:
        order = "|"
    return ElementType(_name(kind, number, order, unit or ""), size, kind, order)


def _name(kind: str, number: int, order: str, unit: str) -> str:
    if kind in "SUV" or order == ">":
        return f"{order}{kind}{number}{unit}"
    if kind == "b":
        return "bool"
    if kind in "mM":
        return f"{'timedelta64' if kind == 'm' else 'datetime64'}{unit}"
    return f"{_NAMES[kind]}{number * 8}"


def _measure(descr: Any, depth: int) -> Tuple[int, str]:
    """Bytes of one element and the kinds that it is made of."""
    if depth > MAX_DEPTH:
        raise HeaderError("unknown_dtype", "the element type is nested too deep")
    if isinstance(descr, str):
        element = _plain(descr)
        return OBJECT_BYTES if element.size is None else element.size, element.kind
    if isinstance(descr, tuple) and len(descr) == 2:
        return _repeated(descr[0], descr[1], depth)
    if not isinstance(descr, list) or len(descr) > MAX_FIELDS:
        raise HeaderError("unknown_dtype", "the element type is neither plain nor a list of fields")
    total, kinds = 0, ""
    names: Set[str] = set()
    for field in descr:
        if not isinstance(field, tuple) or len(field) not in (2, 3) or not _new_name(field, names):
            raise HeaderError("unknown_dtype", "a field of the element type is not (name, type) or (name, type, shape)")
        size, parts = _measure(field[1], depth + 1) if len(field) == 2 else _repeated(field[1], field[2], depth)
        total += size
        kinds += parts
    if total > MAX_ELEMENT:
        raise HeaderError("unknown_dtype", f"an element of {total} bytes is larger than numpy allows")
    return total, kinds


def _repeated(descr: Any, shape: Any, depth: int) -> Tuple[int, str]:
    size, kinds = _measure(descr, depth + 1)
    lengths = _shape(shape if isinstance(shape, tuple) else (shape,))
    if not size:
        raise HeaderError("unknown_dtype", "an array inside an element has elements without a size")
    for length in lengths:
        size *= length
    if max((size, *lengths)) > MAX_ELEMENT:
        raise HeaderError("unknown_dtype", f"an array of shape {lengths} inside an element is larger than numpy allows")
    return size, kinds


def _new_name(field: Any, seen: Set[str]) -> bool:
    """Whether it is a field name, or a title with one, that no other field has; padding has none."""
    if field[0] == "" and isinstance(field[1], str) and field[1][1:2] == "V":
        return True
    for part in field[0] if isinstance(field[0], tuple) and len(field[0]) == 2 else field[:1]:
        if not isinstance(part, str) or part in seen:
            return False
        seen.add(part)
    return True

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the opcodes of a pickle and their arguments in bounded memory.

The table of opcodes is the standard library's; its own reader decodes an argument of any length, this one passes over
what is too long to be a name. This util is private to the collection.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from typing import Any, Callable, List, NamedTuple, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import Opaque

# Longer texts, byte strings and integers are passed over.
MAX_TEXT = 1 << 16
MAX_INT_BYTES = 16
MAX_INT_DIGITS = 40

# Bytes that the node which an opcode makes takes, by estimate, with its place on the stack.
_WEIGHTS = {
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET", "LIST"), 72),
    **dict.fromkeys(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"), 80),
    **dict.fromkeys(("EMPTY_DICT", "DICT"), 136),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), 110),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"), 300),
    **dict.fromkeys(("OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX"), 200),
    **dict.fromkeys(("PERSID", "BINPERSID"), 200),
    **dict.fromkeys(("SETITEM", "APPEND", "BUILD"), 80),
}
_SCALAR_WEIGHT = 40
# A text takes up to four bytes for each of its own.
_TEXT_WEIGHT = 4


class Opcode(NamedTuple):
    """An opcode: what reads its argument (None: it has none), and the memory that following it takes at least."""

    name: str
    read: Optional[Callable[[Any], Any]]
    weight: int


def weight_of(argument: Any) -> int:
    """Bytes that an argument takes besides its opcode's weight, by estimate."""
    return len(argument) * _TEXT_WEIGHT if isinstance(argument, (str, bytes)) else 0


def _fixed(form: str) -> Callable[[Any], Any]:
    size, unpack = struct.calcsize(form), struct.Struct(form).unpack

    def read(source: Any) -> Any:
        data = source.read(size)
        if len(data) < size:
            raise ValueError("it breaks off inside an argument")
        return unpack(data)[0]

    return read


def _counted(form: str, limit: int, kind: str, decode: Callable[[bytes], Any]) -> Callable[[Any], Any]:
    length_of = _fixed(form)

    def read(source: Any) -> Any:
        length = length_of(source)
        if length < 0:
            raise ValueError(f"an argument has {length} bytes")
        if length > limit:
            if not source.skip(length):
                raise ValueError(f"it breaks off inside an argument of {length} bytes")
            return Opaque(kind)
        data = source.read(length)
        if len(data) < length:
            raise ValueError(f"it breaks off inside an argument of {length} bytes")
        return decode(data)

    return read


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _decimal(source: Any) -> Any:
    """An integer in digits, which int() would need long for, or refuse, where it has thousands of them."""
    line = source.readline()
    digits = line.strip().rstrip(b"L")
    if line.endswith(b"\n") and len(digits) > MAX_INT_DIGITS and digits.lstrip(b"-").isdigit():
        return Opaque("integer")
    if not line.endswith(b"\n"):
        raise ValueError("it breaks off inside a number")
    if line[:-1] in (b"00", b"01"):
        return line[:-1] == b"01"
    return int(digits)


_READERS = {
    "uint1": _fixed("<B"),
    "uint2": _fixed("<H"),
    "int4": _fixed("<i"),
    "uint4": _fixed("<I"),
    "uint8": _fixed("<Q"),
    "float8": _fixed(">d"),
    "string1": _counted("<B", MAX_TEXT, "text", _latin),
    "string4": _counted("<i", MAX_TEXT, "text", _latin),
    "bytes1": _counted("<B", MAX_TEXT, "bytes", bytes),
    "bytes4": _counted("<I", MAX_TEXT, "bytes", bytes),
    "bytes8": _counted("<Q", MAX_TEXT, "bytes", bytes),
    "bytearray8": _counted("<Q", MAX_TEXT, "bytes", bytes),
    "unicodestring1": _counted("<B", MAX_TEXT, "text", _utf8),
    "unicodestring4": _counted("<I", MAX_TEXT, "text", _utf8),
    "unicodestring8": _counted("<Q", MAX_TEXT, "text", _utf8),
    "long1": _counted("<B", MAX_INT_BYTES, "integer", pickle.decode_long),
    "long4": _counted("<i", MAX_INT_BYTES, "integer", pickle.decode_long),
    "decimalnl_short": _decimal,
    "decimalnl_long": _decimal,
}


def _table() -> List[Optional[Opcode]]:
    table: List[Optional[Opcode]] = [None] * 256
    for opcode in pickletools.opcodes:
        read = None
        weight = _WEIGHTS.get(opcode.name, 8)
        if opcode.arg is not None:
            read = _READERS.get(opcode.arg.name, opcode.arg.reader)
            weight = _WEIGHTS.get(opcode.name, _SCALAR_WEIGHT)
        table[ord(opcode.code)] = Opcode(opcode.name, read, weight)
    return table


OPCODES = _table()

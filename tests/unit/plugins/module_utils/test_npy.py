# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._npy import (
    HEAD_BYTES,
    MAGIC,
    MAX_HEADER,
    HeaderError,
    parse_header,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from tests.unit.checkpoint_files import soak

DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "<u2",
    ">u2",
    "int32",
    ">i4",
    "uint64",
    "float16",
    "float32",
    ">f4",
    "float64",
    "complex64",
    "complex128",
    "<U4",
    ">U4",
    "<U2603",
    "S7",
    "V5",
    "datetime64[ns]",
    "datetime64[25s]",
    ">M8[D]",
    "timedelta64[us]",
]
STRUCTURED = [
    [("a", "<f4"), ("b", "<i8", (2, 3))],
    [("a", [("x", "<u2"), ("y", "S3")]), ("b", "|b1")],
    {"names": ["a", "b"], "formats": ["<i4", "<f8"], "offsets": [0, 16], "itemsize": 32},
    [(("title", "a"), "<f4"), ("b'c", "<f4"), ("d\\e", "<f4"), ("ü", "<f4")],
]


TEXTS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (601, 64, 9, 9), }",
    "{'descr': '|O', 'fortran_order': True, 'shape': (601,), }",
    "{'descr': [('a', '<f4'), ('b', '<i8', (2, 3))], 'fortran_order': False, 'shape': (), }",
    "{'descr': '<U12', 'fortran_order': False, 'shape': (), }",
]


def save(array: np.ndarray, version=None) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        npy.write_array(out, array, version)
    return out.getvalue()


def raw(text: str, version=(1, 0)) -> bytes:
    data = text.encode("utf-8" if version == (3, 0) else "latin-1")
    return MAGIC + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(data)) + data


def refused(data: bytes):
    try:
        parse_header(data)
    except HeaderError as exc:
        return exc
    return None


def compare(array: np.ndarray, data: bytes) -> None:
    header = parse_header(data[:HEAD_BYTES])
    assert header.shape == array.shape
    assert header.count == array.size
    assert header.fortran_order == (array.flags.f_contiguous and not array.flags.c_contiguous)
    if array.dtype.hasobject:
        assert header.element.is_object
        assert header.data_size is None
    else:
        assert header.element.size == array.dtype.itemsize
        assert header.data_size == array.nbytes == len(data) - header.data_offset
        assert data[header.data_offset :] == array.tobytes(order="A")


def plain_type(chance) -> str:
    sizes = ["", "0", "1", "2", "3", "4", "8", "12", "16", "24", "32", "08", "536870911", "536870912", "2147483648"]
    units = ["", "", "", "[ns]", "[D]", "[25s]", "[foo]", "[0s]", "[s/2]", "[generic]", "[]", "[9999999999s]"]
    return chance.choice("<>|=") + chance.choice("biufcmMOSUVTa?q") + chance.choice(sizes) + chance.choice(units)


def shape_text(chance) -> str:
    rare = ["-1", "True", "2147483647", "4294967296", "9223372036854775807", "1.0", "None", "'a'", "3L"]
    lengths = [
        chance.choice(rare) if chance.random() < 0.1 else chance.choice("0123")
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 65)))
    ]
    return f"({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"


def type_text(chance, depth: int = 0) -> str:
    kind = chance.random()
    if kind < 0.5 or depth > 3:
        return repr(plain_type(chance))
    if kind < 0.6:
        return f"({type_text(chance, depth + 1)}, {chance.choice((shape_text(chance), '2'))})"
    names = ["'a'", "'b'", "''", "('t', 'a')", "('', 'x')", "1", "'\xfc'", "'\\x41'", "'A'", "'x y'", "None"]
    fields = []
    for _ in range(chance.randrange(4)):
        parts = [chance.choice(names), type_text(chance, depth + 1)]
        parts += [shape_text(chance)] if chance.random() < 0.3 else []
        fields.append(f"({', '.join(parts)})")
    return f"[{', '.join(fields)}]"


def header_text(chance) -> str:
    """The text of a header, mostly of the right form, with values of all kinds in it."""
    parts = [f"'descr': {type_text(chance)}", "'fortran_order': False", f"'shape': {shape_text(chance)}"]
    if chance.random() < 0.1:
        chance.shuffle(parts)
    text = "{" + ", ".join(parts) + chance.choice((", }", "}"))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice("{}[]()'\",: \\0129LTFe<>|O-+.#\nab\t") + text[at + chance.randrange(2) :]
    return text


def numpys_header(data: bytes, version, header):
    """Shape, order and type as numpy reads them; raises where it refuses them."""
    stream = io.BytesIO(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version != (3, 0):
            npy.read_magic(stream)
            return (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
        # For this version numpy offers no reader of the header alone.
        array = npy.read_array(io.BytesIO(data + bytes(header.data_size)))
        return array.shape, header.fortran_order, array.dtype


class TestAgainstNumpy:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_plain_types(self, dtype, version):
        array = np.zeros((3, 2), dtype)
        data = save(array, version)
        compare(array, data)
        header = parse_header(data)
        assert header.version == version
        assert header.element.name == str(array.dtype)

    @pytest.mark.parametrize("shape", [(), (0,), (1,), (601,), (2, 3, 4), (0, 5), (1,) * 32])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_shapes_and_orders(self, shape, order):
        array = np.ones(shape, "<f4", order=order)
        compare(array, save(array))

    @pytest.mark.parametrize("dtype", STRUCTURED)
    def test_structured_types(self, dtype):
        array = np.zeros(4, np.dtype(dtype))
        data = save(array)
        compare(array, data)
        assert parse_header(data).element.kind == "V"

    @pytest.mark.parametrize("dtype", ["O", [("a", "<f4"), ("b", "O")]])
    def test_objects_have_no_size(self, dtype):
        array = np.empty((5, 2), np.dtype(dtype))
        data = save(array)
        compare(array, data)

    def test_platform_floats(self):
        array = np.zeros(3, np.longdouble)
        compare(array, save(array))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 4), max_size=5), st.sampled_from(DTYPES), st.sampled_from("CF"))
    def test_any(self, shape, dtype, order):
        array = np.zeros(shape, dtype, order=order)
        compare(array, save(array))


class TestDamage:
    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'shape': (4,)}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': 3}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3)}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': [3]}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x", "header_damaged"),
            ("{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}", "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3 4)}", "header_damaged"),
            ("[1, 2]", "header_damaged"),
            ("", "header_damaged"),
            ("{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}", "header_damaged"),
            ("(" * 9000, "header_damaged"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "implausible_shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 99999999999999999999)}", "implausible_shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}", "implausible_shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 65 + ")}", "implausible_shape"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",)}", "header_damaged"),
            ("{'descr': '<f3', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': 'float32', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': '<f', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': '<i4[ns]', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': None, 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': [('a', '<f4'), ('a', '<f4')], 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': [('A', '<f4'), ('\\x41', '<f4')], 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': [('\\x4', '<f4')], 'fortran_order': False, 'shape': ()}", "header_damaged"),
            ("{'descr': '<f12', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': '<m08[s]', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': '<M8[foo]', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': '<M8[0s]', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': '<U536870912', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': '|V2147483648', 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': ('|O', (999999999,)), 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': ('|S0', (2,)), 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': [('a',)], 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
            ("{'descr': [(1, '<f4')], 'fortran_order': False, 'shape': ()}", "unknown_dtype"),
        ],
    )
    def test_is_named(self, text, code):
        with pytest.raises(HeaderError) as caught:
            parse_header(raw(text))
        assert caught.value.code == code

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"", "header_damaged"),
            (b"PK\x03\x04", "header_damaged"),
            (MAGIC, "header_truncated"),
            (MAGIC + b"\x02\x00\x10\x00", "header_truncated"),
            (MAGIC + b"\x04\x00\x10\x00\x00\x00" + b" " * 16, "header_damaged"),
            (MAGIC + b"\x02\x00" + struct.pack("<I", 1 << 30), "header_damaged"),
            (MAGIC + b"\x01\x00" + struct.pack("<H", MAX_HEADER + 1), "header_damaged"),
            (raw("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}")[:-5], "header_truncated"),
            (raw("{'descr': '<f4\xff', 'fortran_order': False, 'shape': (3,)}", (2, 0))[:6] + b"\x03\x00" + b"", None),
        ],
    )
    def test_of_the_prefix(self, data, code):
        with pytest.raises(HeaderError) as caught:
            parse_header(data)
        assert code in (None, caught.value.code)

    def test_version_3_must_be_utf8(self):
        data = bytearray(raw("{'descr': [('\xfc', '<f4')], 'fortran_order': False, 'shape': ()}", (2, 0)))
        assert parse_header(bytes(data)).element.size == 4
        data[6] = 3
        with pytest.raises(HeaderError, match="UTF-8"):
            parse_header(bytes(data))

    def test_long_integers_of_python_2(self):
        text = "{'descr': '<f4', 'fortran_order': False, 'shape': (601L, 20L), }"
        assert parse_header(raw(text)).shape == (601, 20)
        assert refused(raw(text, (3, 0))).code == "header_damaged"

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=400))
    @example(b"{")
    def test_random_bytes_never_raise_anything_else(self, data):
        for prefix in (b"", MAGIC + b"\x01\x00", raw("")[:8] + struct.pack("<H", len(data))):
            error = refused(prefix + data)
            assert error is None or (error.code and len(str(error)) < 3000)

    @settings(max_examples=400, deadline=None)
    @given(
        st.sampled_from(TEXTS),
        st.lists(
            st.tuples(st.floats(0, 1), st.integers(0, 2), st.sampled_from("{}[]()'\",: \\0129LTFe<>|O-+.#\nab")),
            min_size=1,
            max_size=3,
        ),
    )
    def test_what_is_accepted_means_what_numpy_says(self, text, edits):
        for place, removed, inserted in edits:
            at = int(place * len(text))
            text = text[:at] + inserted + text[at + removed :]
        data = raw(text)
        if refused(data) is not None:
            return
        header = parse_header(data)
        stream = io.BytesIO(data)
        npy.read_magic(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
        assert (shape, fortran_order) == (header.shape, header.fortran_order)
        assert dtype.hasobject if header.element.size is None else dtype.itemsize == header.element.size

    @pytest.mark.soak
    @settings(max_examples=soak(5_000), deadline=None)
    @given(st.randoms(use_true_random=False), st.sampled_from([(1, 0), (2, 0), (3, 0)]))
    def test_nothing_is_accepted_that_numpy_refuses(self, chance, version):
        data = raw(header_text(chance), version)
        if refused(data) is not None:
            return
        header = parse_header(data)
        if version == (3, 0) and (header.data_size is None or header.data_size > 1 << 20):
            return
        shape, fortran_order, dtype = numpys_header(data, version, header)
        assert (shape, fortran_order) == (header.shape, header.fortran_order)
        assert dtype.hasobject if header.element.size is None else dtype.itemsize == header.element.size
        if header.element.kind != "V":
            assert header.element.name == str(dtype)

    def test_a_flipped_bit_in_a_header_is_damage_or_means_what_numpy_says(self):
        data = save(np.zeros((12, 3), "<f4"))
        accepted = 0
        for index in range(128):
            for bit in range(8):
                broken = bytearray(data)
                broken[index] ^= 1 << bit
                if refused(bytes(broken)) is not None:
                    continue
                accepted += 1
                header = parse_header(bytes(broken))
                try:
                    array = npy.read_array(io.BytesIO(bytes(broken)))
                except ValueError:
                    assert header.data_size != len(data) - header.data_offset
                    continue
                assert array.shape == header.shape
                assert array.dtype.itemsize == header.element.size
                assert str(array.dtype) == header.element.name
        assert accepted > 10

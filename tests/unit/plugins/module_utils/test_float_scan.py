# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct
import time

import numpy
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _float_scan
from ansible_collections.ringrift.recovery.plugins.module_utils._float_scan import FloatScan, scannable
from hypothesis import given, settings
from hypothesis import strategies as st

NUMPY = {"float16": "f2", "float32": "f4", "float64": "f8", "complex64": "f4", "complex128": "f8"}


def scan(dtype: str, data: bytes, pieces: int = 7, big_endian: bool = False):
    found = FloatScan(dtype, big_endian)
    for start in range(0, len(data), pieces):
        found.feed(data[start : start + pieces])
    return found.counts()


@settings(max_examples=200, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(sorted(NUMPY)), big=st.booleans(), pieces=st.integers(1, 64))
def test_agrees_with_numpy_on_any_bits(data, dtype, big, pieces):
    size = int(NUMPY[dtype][1])
    corners = [b"\0" * size, b"\xff" * size, b"\0" * (size - 1) + b"\x7f", b"\0" * (size - 1) + b"\x80"]
    special = [struct.pack("<" + "efd"[(2, 4, 8).index(size)], float(text)) for text in ("nan", "inf", "-inf", "1.5")]
    element = st.sampled_from(corners + special) | st.binary(min_size=size, max_size=size)
    raw = b"".join(data.draw(st.lists(element, max_size=40)))
    values = numpy.frombuffer(raw, ("<" if not big else ">") + NUMPY[dtype])
    counts = scan(dtype, raw, pieces, big)
    bad = numpy.flatnonzero(~numpy.isfinite(values))
    assert counts.nan == numpy.isnan(values).sum()
    assert counts.infinite == numpy.isinf(values).sum()
    assert counts.first == (int(bad[0]) if len(bad) else None)
    assert counts.zero == (len(raw) > 0 and not any(raw))
    assert counts.exact


@pytest.mark.parametrize("top", range(256))
def test_every_bfloat16_with_this_top_byte(top):
    for low in range(256):
        value = struct.unpack("<f", bytes([0, 0, low, top]))[0]
        counts = scan("bfloat16", bytes([low, top]))
        assert (counts.nan, counts.infinite) == (int(value != value), int(value in (float("inf"), float("-inf"))))


def test_counting_ends(monkeypatch):
    monkeypatch.setattr(_float_scan, "MAX_COUNTED", 100)
    counts = scan("float32", struct.pack("<f", float("nan")) * 1000, pieces=64)
    assert (counts.nan, counts.first, counts.exact) == (100, 0, False)


def test_a_file_full_of_nan_takes_no_longer_than_its_bytes():
    begun = time.monotonic()
    scan("float16", b"\xff" * (8 << 20), pieces=1 << 20)
    assert time.monotonic() - begun < 5


def test_what_can_be_looked_at():
    assert [scannable(name) for name in ("float32", "complex32", "bfloat16")] == [True] * 3
    assert [scannable(name) for name in ("float8_e4m3fn", "int64", "float128")] == [False] * 3

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import math

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _plain
from hypothesis import given
from hypothesis import strategies as st

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(ANY)
def test_whatever_comes_is_taken_for_what_it_is(value):
    assert all(isinstance(entry, dict) for entry in [*_plain.rows(value), *_plain.named(value).values()])
    assert all(isinstance(entry, str) for entry in _plain.texts(value))
    seen = _plain.number(value)
    # Above 2**53 not every whole number is a float.
    assert seen is None or (math.isfinite(seen) and seen == float(value))
    assert _plain.text(value) in (None, value)


def test_only_what_is_of_the_kind_is_kept():
    assert _plain.rows([{"a": 1}, "x", None]) == [{"a": 1}]
    assert _plain.named({"a": {"b": 1}, 7: {}, "c": 3}) == {"a": {"b": 1}, "7": {}}
    assert _plain.named([{"a": 1}]) == {}
    assert _plain.texts(["x", 1, None]) == ["x"]
    assert _plain.text("") is None


@pytest.mark.parametrize("value", [True, "7", None, math.nan, math.inf, json.loads("1" + 400 * "0")])
def test_what_is_no_number_that_can_be_reckoned_with(value):
    assert _plain.number(value) is None


def test_an_unknown_time_is_said_to_be_unknown():
    assert _plain.duration(None) == "an unknown time"

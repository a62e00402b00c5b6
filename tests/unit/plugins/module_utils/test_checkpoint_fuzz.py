# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is done to a checkpoint of any format: an answer, in time, with a reason where it is not valid."""

from __future__ import annotations

import json
import time
import warnings
from typing import Dict

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.checkpoint_files import soak
from tests.unit.plugins.module_utils.test_checkpoint_oracle import FORMATS

pytestmark = [pytest.mark.torch, pytest.mark.soak]

LIMIT = 5.0


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for form in FORMATS:
            form.write(folder / form.name)
    return {form.name: (folder / form.name).read_bytes() for form in FORMATS}


@st.composite
def edits(draw):
    """Places in the file, as fractions of it, and what is put there instead of how many bytes."""
    place = st.floats(0, 1, exclude_max=True)
    number = st.sampled_from([b"\0", b"\xff", b"\xff\xff\xff\xff", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"PK\3\4", b"."])
    return draw(st.lists(st.tuples(place, st.integers(0, 64), number | st.binary(max_size=16)), min_size=1, max_size=6))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(
    max_examples=soak(2000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    name=st.sampled_from([form.name for form in FORMATS]),
    other=st.sampled_from([form.name for form in FORMATS]),
    changes=edits(),
    tail=st.sampled_from(["", "other", "twice"]),
    depth=st.sampled_from(["full", "quick"]),
)
def test_edited_files(originals, tmp_path, name, other, changes, tail, depth):
    data = bytearray(originals[name])
    for place, length, text in changes:
        at = int(place * len(data))
        data[at : at + length] = text
    data += {"": b"", "other": originals[other], "twice": bytes(data)}[tail]
    path = tmp_path / "c.pth"
    path.write_bytes(data)
    begun = time.monotonic()
    report = verify(str(path), depth=depth, scan_values=True)
    assert time.monotonic() - begun < LIMIT
    assert report.valid or any(problem.message and problem.severity == "error" for problem in report.problems)
    assert report.summary()
    json.dumps([report.as_dict(), report.tensor_list(50)], allow_nan=False)

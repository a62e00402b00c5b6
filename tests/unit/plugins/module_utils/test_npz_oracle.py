# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""numpy is the oracle: no damage that changes what it loads passes, and nothing that it wrote is refused.

`make soak` runs the full count, `make test` a fixed tenth; both print the seed, and SOAK_SEED repeats a run.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import shutil
import tempfile
import warnings

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.lib import format as npy

from tests.unit.checkpoint_files import soak, soak_seed
from tests.unit.npz_files import (
    damages,
    every_kind,
    flat,
    loaded,
    numpy_arrays,
    packed,
    raw_member,
    recorded,
    training_arrays,
)

pytestmark = pytest.mark.soak

SEED = soak_seed()
FLIPS = soak(10_000)
# Header versions, and zip64 in each member as numpy.savez has it, or not.
FORMS = [((1, 0), True), ((2, 0), True), ((3, 0), True), ((1, 0), False), (None, True)]


@pytest.fixture
def path():
    """A file in memory, where that is offered: it is written thousands of times."""
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield pathlib.Path(folder, "hex8_2p.npz")
    shutil.rmtree(folder)


def check(path: pathlib.Path, raw: bytes, flips: int, seed: int) -> int:
    """How many damages passed; each must leave numpy with the same arrays."""
    path.write_bytes(raw)
    good = loaded(path)
    assert good is not None
    assert inspect(str(path), depth="full", scan_values=True).valid
    passed = 0
    for what, data in damages(raw, flips, seed):
        path.write_bytes(data)
        report = inspect(str(path), depth="full", scan_values=True)
        if report.valid:
            passed += 1
            assert loaded(path) == good, f"{what} passed, with SOAK_SEED={SEED}"
        else:
            assert report.reasons(), f"{what} was refused without a reason, with SOAK_SEED={SEED}"
    return passed


@pytest.mark.parametrize("deflated", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize(("version", "zip64"), FORMS)
def test_no_damage_that_changes_what_numpy_loads_is_valid(path, deflated, version, zip64):
    flips = FLIPS // len(FORMS)
    seed = SEED + FORMS.index((version, zip64))
    raw = packed(every_kind(), deflated, version, zip64)
    passed = check(path, raw, flips, seed)
    print(f"{flips} flips with SOAK_SEED={SEED}: {passed} changed nothing that numpy loads")
    # Times, permissions and the like; were it more, something would not be looked at.
    assert passed < flips / 3


@pytest.mark.parametrize("name", ["hex8_2p_single_64ch.npz", "hex8_2p_parallel_40ch.npz"])
def test_no_damage_to_a_file_of_the_real_service_is_valid(real, path, name):
    check(path, (real / name).read_bytes(), FLIPS // 50, SEED)


@pytest.mark.parametrize("deflated", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize(("version", "zip64"), FORMS)
@pytest.mark.parametrize("make", [every_kind, training_arrays])
def test_what_numpy_wrote_is_valid(path, deflated, version, zip64, make):
    arrays = make()
    path.write_bytes(packed(arrays, deflated, version, zip64))
    report = inspect(str(path), depth="full", min_samples=100)
    assert report.valid, report.problems
    assert {info.name: info.shape for info in report.arrays} == {name: a.shape for name, a in arrays.items()}


@settings(max_examples=soak(600), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    array=arrays_of.arrays(
        dtype=st.one_of(arrays_of.scalar_dtypes(), arrays_of.array_dtypes(), arrays_of.nested_dtypes()),
        shape=arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    ),
    fortran=st.booleans(),
    deflated=st.booleans(),
    version=st.sampled_from([None, (2, 0), (3, 0)]),
    sums=st.booleans(),
)
def test_any_array_that_numpy_wrote_is_valid(array, fortran, deflated, version, sums):
    array = np.asfortranarray(array) if fortran and array.ndim else array
    rng = np.random.default_rng(1)
    arrays = {"features": rng.random((20, 3, 4)), "values": rng.random(20), "any": array}
    if sums:
        arrays["data_checksums"] = recorded(arrays)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = pathlib.Path(folder, "any.npz")
        try:
            path.write_bytes(packed(arrays, deflated, version))
        except UnicodeEncodeError:
            return  # names of fields that only version 3.0 can hold
        if loaded(path) is None:
            return  # what numpy writes but cannot read
        report = inspect(str(path), depth="full", scan_values=True)
        assert [problem.code for problem in report.problems if problem.severity == "error"] == [], report.problems
        assert flat(numpy_arrays(path)).keys() == {info.name for info in report.arrays}


@settings(max_examples=soak(2_000), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    chance=st.randoms(use_true_random=False), name=st.sampled_from(sorted(every_kind())), data=st.binary(max_size=99)
)
def test_what_was_forged_with_fitting_checksums_never_raises_and_reads_as_numpy_reads_it(chance, name, data):
    """Here the container is sound, so that header, scalar, checksums and pickle are what has to stand it."""
    arrays = every_kind()
    head = io.BytesIO()
    npy.write_array(head, arrays[name])
    raw = bytearray(head.getvalue())
    for _turn in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(chance.choice((128, len(raw))))
        raw[at : at + chance.choice((0, 1, 1, 1, 9))] = data[: chance.choice((1, 1, 9, 99))]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = pathlib.Path(folder, "any.npz")
        path.write_bytes(packed(arrays))
        raw_member(path, name, bytes(raw))
        report = inspect(str(path), depth="full", scan_values=True)
        assert report.valid or report.reasons()
        json.dumps(report.as_dict())
        found = [info for info in report.arrays if info.name == name and not info.object]
        if report.valid and found:
            with np.load(path) as file:
                array = file[name]
            assert array.shape == found[0].shape
            # numpy's name for a type with fields depends on how it was made.
            assert array.dtype.fields is not None or str(array.dtype) == found[0].dtype

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import pickle
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _npz, _npz_metadata, _parallel, _zip
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from tests.unit.npz_files import (
    METADATA,
    SAMPLES,
    flat,
    numpy_arrays,
    objects,
    packed,
    raw_member,
    recorded,
    single_object,
    training_arrays,
    write,
)

HEX8 = parse_config("hex8_2p")


def codes(report, severity="error") -> list:
    return [problem.code for problem in report.problems if problem.severity == severity]


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "hex8_2p.npz"


class TestWhatTheRealServiceWrites:
    @pytest.mark.parametrize("depth", ["quick", "full"])
    @pytest.mark.parametrize("name", ["hex8_2p_single_64ch.npz", "hex8_2p_parallel_40ch.npz"])
    def test_is_valid_and_as_numpy_reads_it(self, real, name, depth):
        report = inspect(str(real / name), depth=depth, config=HEX8, min_samples=100, checksum=True)
        assert report.valid
        assert report.problems == ()
        assert report.samples == 601
        arrays = numpy_arrays(real / name)
        assert {info.name: (info.shape, info.dtype, info.object) for info in report.arrays} == {
            key: (array.shape, str(array.dtype), array.dtype == object) for key, array in arrays.items()
        }
        for key, value in report.scalars.items():
            assert arrays[key].item() == value
        assert report.scalars["board_type"] == "hex8"
        assert report.sha256 == hashlib.sha256((real / name).read_bytes()).hexdigest()

    def test_its_checksums_are_compared(self, real):
        report = inspect(str(real / "hex8_2p_single_64ch.npz"), depth="full")
        assert report.checksums.recorded == 31
        assert report.checksums.verified == 23
        assert "policy_indices" in report.checksums.skipped
        assert inspect(str(real / "hex8_2p_parallel_40ch.npz"), depth="full").checksums is None

    def test_a_flipped_bit_anywhere_never_passes_for_other_data(self, real, tmp_path):
        data = (real / "hex8_2p_parallel_40ch.npz").read_bytes()
        arrays = flat(numpy_arrays(io.BytesIO(data)))
        target = tmp_path / "broken.npz"
        rng = random.Random(5)
        for _turn in range(25):
            broken = bytearray(data)
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            target.write_bytes(bytes(broken))
            report = inspect(str(target), depth="full", config=HEX8)
            assert not report.valid or flat(numpy_arrays(target)) == arrays


class TestWhatNumpyWrites:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("depth", ["quick", "full"])
    def test_is_valid(self, path, save, depth):
        report = inspect(str(write(path, save=save)), depth=depth, config=HEX8, min_samples=SAMPLES)
        assert report.valid, report.problems
        assert (report.samples, report.size, report.depth) == (SAMPLES, path.stat().st_size, depth)
        assert report.mtime == pytest.approx(path.stat().st_mtime)
        assert report.scalars == {
            "board_type": "hex8",
            "board_size": 9,
            "in_channels": 4,
            "policies_normalized": True,
            "export_version": "2.1",
        }
        features = report.as_dict()["arrays"]["features"]
        assert features["shape"] == [SAMPLES, 4, 9, 9]
        assert features["size"] == zipfile.ZipFile(path).getinfo("features.npy").file_size
        assert features["compressed"] == zipfile.ZipFile(path).getinfo("features.npy").compress_size
        json.dumps(report.as_dict())

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_header_versions_and_orders(self, path, version, order):
        arrays = {name: np.asarray(array, order=order) for name, array in training_arrays().items()}
        path.write_bytes(packed(arrays, version=version))
        report = inspect(str(path), depth="full", config=HEX8, min_samples=100)
        assert report.valid, report.problems

    def test_other_byte_orders(self, path):
        changes = {
            "features": training_arrays()["features"].astype(">f4"),
            "num_players": np.full(SAMPLES, 2, ">i4"),
            "board_type": np.asarray("hex8", ">U4"),
            "board_size": np.asarray(9, ">i8"),
        }
        report = inspect(str(write(path, checksums=True, **changes)), depth="full", config=HEX8)
        assert report.valid, report.problems
        assert report.scalars["board_size"] == 9
        assert report.checksums.verified == 10

    @pytest.mark.parametrize(
        ("array", "value"),
        [
            (np.asarray(7, "uint8"), 7),
            (np.asarray(-3, "<i2"), -3),
            (np.asarray(0.5, "<f2"), 0.5),
            (np.asarray(0.25, "<f8"), 0.25),
            (np.asarray(np.nan, "<f4"), "nan"),
            (np.asarray(-np.inf, "<f8"), "-inf"),
            (np.asarray(False), False),
            (np.asarray(b"hex_v3"), "hex_v3"),
            (np.asarray("grün"), "grün"),
            (np.asarray(""), ""),
            (np.asarray("a\nb\x1b"), "a\ufffdb\ufffd"),
            (np.asarray("x" * 300), "x" * 200 + "…"),
            (np.asarray(1j), None),
            (np.asarray("2026-01-01", "datetime64[D]"), None),
            (np.zeros((), [("a", "<f4")]), None),
            (np.asarray("x" * 3000), None),
        ],
    )
    def test_single_values(self, path, array, value):
        report = inspect(str(write(path, single=array)), depth="full")
        assert report.valid, report.problems
        assert report.scalars.get("single") == value

    @settings(max_examples=25, deadline=None)
    @given(
        samples=st.integers(100, 140),
        dtype=st.sampled_from(["<f2", "<f4", ">f4", "<f8", "u1", "<i8"]),
        tail=st.lists(st.integers(0, 3), max_size=3),
        order=st.sampled_from("CF"),
        save=st.sampled_from([np.savez, np.savez_compressed]),
    )
    def test_any_shape(self, tmp_path_factory, samples, dtype, tail, order, save):
        path = tmp_path_factory.getbasetemp() / "any.npz"
        arrays = {
            "features": np.ones((samples, *tail), dtype, order=order),
            "values": np.zeros(samples, "<f4"),
            "padding": np.zeros((samples, 9), "<f4"),
        }
        report = inspect(str(write(path, arrays, save, checksums=True)), depth="full")
        assert report.valid, report.problems
        assert report.samples == samples
        assert {info.name: info.shape for info in report.arrays} == {
            name: array.shape for name, array in numpy_arrays(path).items()
        }
        assert report.checksums.verified + len(report.checksums.skipped) == 3


class TestDamage:
    def test_a_flipped_bit_in_a_large_array_is_for_full_depth(self, path):
        data = bytearray(write(path, save=np.savez).read_bytes())
        at = data.index(training_arrays()["features"].tobytes()) + 20_000
        data[at] ^= 1
        path.write_bytes(bytes(data))
        assert inspect(str(path)).valid
        report = inspect(str(path), depth="full")
        assert codes(report) == ["crc_mismatch"]
        assert report.problems[0].member == "features.npy"
        assert report.problems[0].offset is not None
        assert "features.npy: " in report.reasons()

    @pytest.mark.parametrize("keep", [0, 1, 30, 600, 5000, -1, -30])
    def test_a_truncated_file_shows_at_quick_depth(self, path, keep):
        data = write(path).read_bytes()
        path.write_bytes(data[:keep])
        report = inspect(str(path), min_samples=100)
        assert not report.valid
        assert report.samples is None
        assert {"empty", "truncated", "not_a_zip"} & set(codes(report))
        assert "missing_array" not in codes(report)

    @settings(max_examples=80, deadline=None)
    @given(st.binary(max_size=3000), st.integers(0, 20))
    def test_random_bytes_are_never_valid_and_never_raise(self, tmp_path_factory, data, place):
        path = tmp_path_factory.getbasetemp() / "random.npz"
        whole = bytearray(write(path, training_arrays(12)).read_bytes())
        for content in (data, b"PK\x03\x04" + data, data + bytes(whole[-place * 20 - 22 :])):
            path.write_bytes(content)
            assert not inspect(str(path), depth="full").valid

    def test_a_wrong_shape_shows_at_quick_depth(self, path):
        data = io.BytesIO()
        npy.write_array(data, training_arrays()["features"])
        raw = data.getvalue().replace(b"(130, 4, 9, 9), } ", b"(22000000000,), }  ".ljust(18)[:18])
        report = inspect(str(raw_member(write(path), "features", raw)), min_samples=100)
        assert "implausible_shape" in codes(report)
        assert report.samples is None

    def test_more_objects_than_a_pickle_can_hold(self, path):
        data = io.BytesIO()
        npy.write_array(data, training_arrays()["phases"])
        raw = data.getvalue().replace(b"(130,), }      ", b"(99999999,), } ")
        assert codes(inspect(str(raw_member(write(path), "phases", raw)))) == ["implausible_shape"]

    @pytest.mark.parametrize("shape", ["(1 << 62,)", "(10**19,)", "(0, 10**19)", "(-1,)", "(1,) * 65", "(2**31,) * 4"])
    @pytest.mark.parametrize("descr", ["<f4", "|O", "|V0", "<U1000"])
    def test_shapes_beyond_all_memory(self, path, shape, descr):
        head = {"descr": descr, "fortran_order": False, "shape": eval(shape)}
        text = f"{head!r}\n".encode()
        raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)
        raw_member(write(path), "features", raw)
        tracemalloc.start()
        report = inspect(str(path), depth="full", min_samples=100)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.samples is None
        assert {"implausible_shape", "missing_array"} <= set(codes(report))
        assert peak < 24e6

    def test_checksums_in_the_file_that_do_not_fit(self, path):
        arrays = training_arrays()
        sums = recorded(arrays)
        arrays["values"] = arrays["values"] * -1
        write(path, arrays, data_checksums=sums)
        assert inspect(str(path)).valid
        report = inspect(str(path), depth="full")
        assert codes(report) == ["checksum_mismatch"]
        assert report.problems[0].member == "values.npy"

    def test_a_checksum_for_what_is_not_there(self, path):
        arrays = training_arrays()
        sums = recorded(arrays)
        write(path, arrays, data_checksums=sums, globals=None)
        assert codes(inspect(str(path), depth="full")) == ["missing_array"]

    @pytest.mark.parametrize(
        "sums",
        [np.asarray("{"), np.asarray("[1]"), np.asarray('{"a": 1}'), np.asarray(5), np.zeros(3), objects(["{}"])],
    )
    def test_checksums_that_cannot_be_read(self, path, sums):
        assert codes(inspect(str(write(path, data_checksums=sums)), depth="full")) == ["checksums_unreadable"]

    def test_what_only_numpys_reader_refuses(self, path):
        data = bytearray(write(path, save=np.savez).read_bytes())
        data[data.index(b"PK\x01\x02") + 6] = 109  # a version of the zip format that does not exist
        path.write_bytes(bytes(data))
        assert codes(inspect(str(path))) == ["not_readable"]
        with pytest.raises(NotImplementedError):
            numpy_arrays(path)

    def test_no_checksums_recorded_by_the_container(self, path):
        data = bytearray(write(path, save=np.savez).read_bytes())
        with zipfile.ZipFile(path) as file:
            for info in file.infolist():
                data[info.header_offset + 14 : info.header_offset + 18] = bytes(4)
        at = data.find(b"PK\x01\x02")
        while at >= 0:
            data[at + 16 : at + 20] = bytes(4)
            at = data.find(b"PK\x01\x02", at + 1)
        path.write_bytes(bytes(data))
        assert codes(inspect(str(path))) == ["crc_not_recorded"]
        with pytest.raises(zipfile.BadZipFile):
            numpy_arrays(path)


class TestJudgement:
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"features": None}, ["missing_array"]),
            ({"values": None}, ["missing_array"]),
            ({"values": np.zeros(SAMPLES - 1, "<f4")}, ["length_mismatch"]),
            ({"phases": objects(["x"] * 5)}, ["length_mismatch"]),
            ({"features": np.zeros((0, 4, 9, 9), "<f4")}, None),
            ({"features": np.asarray(1.0)}, ["not_per_sample"]),
            ({"features": objects([None] * SAMPLES)}, ["wrong_dtype"]),
            ({"values": np.full(SAMPLES, "x")}, ["wrong_dtype"]),
            ({"board_type": np.asarray("square8")}, ["wrong_config"]),
            ({"num_players": np.full(SAMPLES, 3, "<i4")}, ["wrong_config"]),
            ({"num_players": np.asarray(4)}, ["wrong_config"]),
            ({"features": np.zeros((SAMPLES, 4, 25, 25), "<f4")}, ["wrong_config"]),
        ],
    )
    @pytest.mark.parametrize("depth", ["quick", "full"])
    def test_what_makes_a_file_invalid(self, path, changes, expected, depth):
        report = inspect(str(write(path, **changes)), depth=depth, config=HEX8, min_samples=100)
        assert not report.valid
        if expected is not None:
            assert codes(report) == expected

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"board_type": None}, ["board_unknown"]),
            ({"in_channels": np.asarray(64)}, ["channels_differ"]),
            ({"something_else": np.zeros(3)}, ["length_mismatch"]),
        ],
    )
    def test_what_is_only_a_warning(self, path, changes, expected):
        report = inspect(str(write(path, **changes)), config=HEX8, min_samples=100)
        assert report.valid
        assert codes(report, "warning") == expected

    def test_one_sample_of_another_player_count_is_for_full_depth(self, path):
        players = np.full(SAMPLES, 2, "<i4")
        players[-1] = 4
        write(path, num_players=players)
        assert inspect(str(path), config=HEX8).valid
        assert codes(inspect(str(path), depth="full", config=HEX8)) == ["wrong_config"]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
    def test_values_that_are_not_finite(self, path, bad, dtype):
        features = training_arrays()["features"].astype(dtype)
        features[77, 3, 8, 8] = bad
        write(path, features=features)
        assert inspect(str(path), depth="full").valid
        report = inspect(str(path), depth="full", scan_values=True)
        assert codes(report) == ["not_finite"]
        found = "1 NaN and 0 infinite" if np.isnan(bad) else "0 NaN and 1 infinite"
        (problem,) = report.problems
        assert problem.member == "features.npy"
        assert problem.message == (
            f"it holds {found} numbers, the first at index [77, 3, 8, 8]; the trainer stops at it"
        )

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"globals": np.full((SAMPLES, 2), np.nan)}, {"error": ["not_finite"], "warning": []}),
            ({"opponent_elo": np.full(SAMPLES, np.inf, ">f4")}, {"error": [], "warning": ["not_finite"]}),
            ({"rate": np.asarray(np.nan, "<f4")}, {"error": [], "warning": ["not_finite"]}),
            ({"features": np.zeros((SAMPLES, 4, 9, 9), "<f4")}, {"error": [], "warning": ["all_zero"]}),
            ({"values": np.zeros(SAMPLES, ">f8")}, {"error": [], "warning": ["all_zero"]}),
            ({"policy_values": np.zeros((SAMPLES, 3), "<f2")}, {"error": [], "warning": ["all_zero"]}),
            ({"opponent_elo": np.zeros(SAMPLES, "<f4")}, {"error": [], "warning": []}),
            ({"values": np.full(SAMPLES, np.finfo("<f8").max)}, {"error": [], "warning": []}),
            ({"values": np.zeros(SAMPLES, "<i4")}, {"error": [], "warning": []}),
        ],
    )
    def test_what_the_values_are_like(self, path, changes, expected):
        report = inspect(str(write(path, **changes)), depth="full", scan_values=True)
        assert {severity: codes(report, severity) for severity in expected} == expected

    @settings(max_examples=40, deadline=None)
    @given(
        dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c16"]),
        shape=st.sampled_from([(SAMPLES,), (SAMPLES, 3), (SAMPLES, 2, 5)]),
        order=st.sampled_from("CF"),
        places=st.lists(st.integers(0, 10_000), max_size=5),
        bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    )
    def test_what_is_not_finite_is_counted_as_numpy_counts_it(self, tmp_path_factory, dtype, shape, order, places, bad):
        path = tmp_path_factory.getbasetemp() / "floats.npz"
        array = np.ones(shape, dtype, order=order)
        for place in places:
            array[np.unravel_index(place % array.size, shape)] = bad
        report = inspect(str(write(path, something=array)), depth="full", scan_values=True)
        assert "something" in report.value_scan.scanned
        said = [problem.message for problem in report.problems if problem.member == "something.npy"]
        wrong = np.flatnonzero(~np.isfinite(array.ravel(order="F" if order == "F" and array.ndim > 1 else "C")))
        if not len(wrong):
            assert said == []
            return
        index = np.unravel_index(wrong[0], shape, order="F" if order == "F" and array.ndim > 1 else "C")
        nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        assert f"{nan} NaN and {infinite} infinite numbers" in said[0]
        assert f"at index {[int(place) for place in index]}" in said[0]

    def test_which_values_are_looked_at(self, path):
        write(
            path,
            metadata=single_object(METADATA),
            wide=np.ones(SAMPLES, np.longdouble),
            pairs=np.ones(SAMPLES, [("a", "<f4")]),
            policy_values=objects([[1.0]] * SAMPLES),
            raw=np.zeros(SAMPLES, "V4"),
        )
        report = inspect(str(path), depth="full", scan_values=True)
        assert report.value_scan.scanned == ("features", "globals", "values", "values_mp")
        assert set(report.value_scan.not_scanned) == {
            "policy_indices",
            "phases",
            "metadata",
            "wide",
            "pairs",
            "policy_values",
        }
        assert inspect(str(path), depth="full").value_scan is None

    def test_a_damaged_array_is_not_among_those_that_were_looked_at(self, path):
        data = bytearray(write(path, save=np.savez).read_bytes())
        data[data.index(training_arrays()["features"].tobytes()) + 20_000] ^= 1
        path.write_bytes(bytes(data))
        report = inspect(str(path), depth="full", scan_values=True)
        assert codes(report) == ["crc_mismatch"]
        assert "features" in report.value_scan.not_scanned

    def test_too_few_samples(self, path):
        write(path)
        assert inspect(str(path), min_samples=SAMPLES).valid
        report = inspect(str(path), min_samples=SAMPLES + 1)
        assert codes(report) == ["too_few_samples"]
        assert inspect(str(path), min_samples=None).valid

    def test_too_small(self, path):
        np.savez_compressed(path, features=np.zeros(3, "<f4"), values=np.zeros(3, "<f4"))
        report = inspect(str(path))
        assert path.stat().st_size < 1024
        assert codes(report) == ["too_small"]
        assert report.samples == 3

    def test_samples_from_another_array(self, path):
        write(path, features=np.zeros((SAMPLES, 4, 9, 9), "<f4"))
        assert inspect(str(path), samples_from="values").samples == SAMPLES
        assert codes(inspect(str(path), samples_from="nothing")) == ["missing_array"]

    def test_other_required_arrays(self, path):
        write(path, features=None, values=None, data=np.zeros((SAMPLES, 3)))
        assert inspect(str(path), samples_from="data", arrays=["data"]).valid
        assert not inspect(str(path), samples_from="data", arrays=["data", "labels"]).valid

    def test_a_member_that_is_no_array(self, path):
        write(path)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("README", "hello")
        report = inspect(str(path), depth="full")
        assert report.valid
        assert codes(report, "warning") == ["unexpected_member"]

    def test_very_many_members(self, path):
        arrays = {f"a{index}": np.zeros(3) for index in range(900)}
        assert inspect(str(write(path, **arrays)), depth="full", min_samples=100).valid
        with zipfile.ZipFile(path, "a") as file:
            for index in range(300):
                file.writestr(f"x{index}", "")
        report = inspect(str(path), depth="full")
        assert "too_many_members" in codes(report)
        assert len(report.problems) <= 41

    def test_a_member_that_hides_an_array(self, path):
        write(path)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("features", "hello")
        assert numpy_arrays(path)["features"] == b"hello"
        assert codes(inspect(str(path))) == ["unexpected_member"]


class TestMetadata:
    def test_of_the_real_service(self, real):
        path = real / "hex8_2p_single_64ch.npz"
        assert inspect(str(path)).metadata == numpy_arrays(path)["metadata"].item()
        assert inspect(str(real / "hex8_2p_parallel_40ch.npz")).metadata is None

    @pytest.mark.parametrize("depth", ["quick", "full"])
    def test_as_numpy_writes_it(self, path, depth):
        report = inspect(str(write(path, metadata=single_object(METADATA))), depth=depth, config=HEX8)
        assert (report.problems, report.metadata) == ((), METADATA)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (np.int64(6), 6),
            (np.asarray(7, ">i2")[()], 7),
            (np.float32(0.5), 0.5),
            (np.float64("nan"), "nan"),
            (np.bool_(True), True),
            (np.str_("hex8"), None),
            (float("inf"), "inf"),
            (True, True),
            (None, None),
            ([1], None),
            (10**9, 10**9),
            (-(2**63), -(2**63)),
            ("a\x1bb", "a\ufffdb"),
        ],
    )
    def test_plain_values(self, path, value, expected):
        report = inspect(str(write(path, metadata=single_object({"a": value, 5: 6, "b": "x"}))))
        assert report.valid
        assert report.metadata == {"a": expected, "b": "x"}
        json.dumps(report.as_dict())

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_older_and_newer_pickles(self, path, protocol):
        write(path)
        head = io.BytesIO()
        npy.write_array(head, single_object(None))
        raw = head.getvalue()[:128] + pickle.dumps(single_object(METADATA), protocol)
        report = inspect(str(raw_member(path, "metadata", raw)), depth="full")
        assert (report.problems, report.metadata) == ((), METADATA)

    def test_another_number_of_samples(self, path):
        report = inspect(str(write(path, metadata=single_object({**METADATA, "sample_count": 5}))))
        assert report.valid
        assert codes(report, "warning") == ["metadata_disagrees"]
        assert report.problems[0].message == f"it says that there are 5 samples, but features has {SAMPLES}"

    @pytest.mark.parametrize("value", [["x"], "x", {"a": "y" * (64 << 10)}, None])
    def test_that_cannot_be_read(self, path, value):
        report = inspect(str(write(path, metadata=single_object(value))), depth="full")
        assert report.valid
        assert (codes(report, "warning"), report.metadata) == (["metadata_unreadable"], None)

    def test_a_pickle_that_breaks_off(self, path):
        write(path)
        head = io.BytesIO()
        npy.write_array(head, single_object(METADATA))
        report = inspect(str(raw_member(path, "metadata", head.getvalue()[:-20])), depth="full")
        assert (codes(report, "warning"), report.metadata) == (["metadata_unreadable"], None)

    @pytest.mark.parametrize("metadata", [np.asarray('{"a": 1}'), objects([METADATA]), np.zeros(SAMPLES)])
    def test_that_is_something_else(self, path, metadata):
        assert inspect(str(write(path, metadata=metadata))).metadata is None

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_a_damaged_pickle_never_raises_and_never_gives_more_than_plain_values(self, data):
        raw = bytearray(pickle.dumps(single_object({**METADATA, "n": np.int64(3)}), 4))
        for _turn in range(data.draw(st.integers(0, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        found = _npz_metadata.read_metadata(bytes(raw) if data.draw(st.booleans()) else data.draw(st.binary()))
        for value in (found.values or {}).values():
            assert value is None or isinstance(value, (str, int, float))


class TestSafety:
    def test_objects_are_never_unpickled(self, path, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (pathlib.Path(tmp_path / "exploded").write_text, ("boom",))

        write(path, metadata=np.asarray(Bomb(), dtype=object))
        for depth in ("quick", "full"):
            report = inspect(str(path), depth=depth, config=HEX8)
            assert codes(report) == ["dangerous_pickle"]
            assert "getattr" in report.problems[0].message
            assert next(info for info in report.arrays if info.name == "metadata").object
        assert not (tmp_path / "exploded").exists()

    def test_needs_no_numpy_and_unpickles_nothing(self, path):
        write(path, metadata=single_object(METADATA))
        code = (
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            "import pickle\n"
            "pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = None\n"
            "from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect\n"
            f"report = inspect({str(path)!r}, depth='full', scan_values=True)\n"
            "assert report.valid and report.metadata['game_count'] == 6\n"
            "assert 'numpy' not in sys.modules, 'imported'\n"
        )
        subprocess.run([sys.executable, "-S", "-c", code], check=True, timeout=20)

    def test_the_cost_at_quick_depth_does_not_grow_with_the_file(self, path, monkeypatch):
        read = []
        real = _zip._pread
        monkeypatch.setattr(_zip, "_pread", lambda *args: read.append(args[3]) or real(*args))
        costs = []
        for samples in (15_000, 45_000):
            read.clear()
            write(path, training_arrays(samples), save=np.savez)
            assert inspect(str(path)).samples == samples
            costs.append(sum(read))
        assert path.stat().st_size > 50e6
        assert costs[1] < 1.01 * costs[0] < 400_000

    def test_memory_at_full_depth_is_bounded(self, path, monkeypatch):
        # Compresses a thousandfold: 96 MB from a file of 100 kB.
        monkeypatch.setattr(_parallel, "cores", lambda: 4)
        arrays = {f"part{index}": np.zeros((2_300, 32, 9, 9), "<f4") for index in range(4)}
        write(path, arrays, checksums=True)
        inspect(str(path))
        tracemalloc.start()
        report = inspect(str(path), samples_from="part0", arrays=[], depth="full", scan_values=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (report.samples, report.checksums.verified, len(report.value_scan.scanned)) == (2_300, 4, 4)
        assert peak < 12e6

    def test_the_number_of_cores_does_not_change_what_is_found(self, path, monkeypatch):
        arrays = {f"part{index}": training_arrays(seed=index)["globals"] for index in range(12)}
        arrays["part3"][5, 5] = np.nan
        data = bytearray(write(path, arrays, np.savez, checksums=True).read_bytes())
        for index in (9, 2, 7):
            data[data.index(arrays[f"part{index}"].tobytes()) + 100] ^= 1
        path.write_bytes(bytes(data))
        reports = []
        for cores in (1, 2, 4):
            monkeypatch.setattr(_parallel, "cores", lambda cores=cores: cores)
            reports.append(inspect(str(path), "part0", "full", arrays=[], checksum=True, scan_values=True).as_dict())
            del reports[-1]["age"]
        assert reports[0] == reports[1] == reports[2]
        assert [problem["member"] for problem in reports[0]["problems"]] == [
            "part2.npy",
            "part7.npy",
            "part9.npy",
            "part3.npy",
        ]

    def test_names_from_the_file_are_made_safe(self, path):
        write(path, **{"x\u202e" + "y" * 500: np.zeros(3)})
        report = inspect(str(path))
        (name,) = [info.name for info in report.arrays if info.name.startswith("x")]
        assert name.isprintable()
        assert len(name) <= 201


class TestInWords:
    def test_what_was_seen(self, path):
        write(path, metadata=single_object({"sample_count": 3}))
        size = path.stat().st_size
        held = f"{SAMPLES} samples, 13 arrays, {size} bytes"
        assert inspect(str(path), depth="full").summary() == (
            f"whole: {held}, every byte compared; warnings: metadata_disagrees"
        )
        write(path)
        held = f"{SAMPLES} samples, 12 arrays, {path.stat().st_size} bytes"
        assert inspect(str(path)).summary() == (
            f"no damage seen: {held}, but the content was not compared (depth=quick)"
        )

    def test_what_is_wrong(self, path):
        path.write_bytes(write(path).read_bytes()[:-30])
        said = inspect(str(path)).summary()
        assert said.startswith("cannot be trained on: the end of the directory is not there")

    def test_how_old_it_is(self, path):
        write(path)
        for age in (3600, -3600):
            os.utime(path, (1, time.time() - age))
            assert inspect(str(path)).age == pytest.approx(age, abs=5)


class TestWhenItCannotLook:
    def test_a_missing_file_can_be_told(self, path):
        with pytest.raises(MissingFileError, match="does not exist"):
            inspect(str(path))

    def test_a_directory(self, tmp_path):
        with pytest.raises(RecoveryError, match="not a regular file"):
            inspect(str(tmp_path))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_no_right_to_read(self, path):
        write(path).chmod(0)
        with pytest.raises(RecoveryError, match="become"):
            inspect(str(path))

    def test_an_unknown_depth(self, path):
        with pytest.raises(RecoveryError, match="depth is 'deep'"):
            inspect(str(path), depth="deep")

    def test_values_without_reading_them(self, path):
        with pytest.raises(RecoveryError, match="Set depth to full"):
            inspect(str(path), scan_values=True)

    def test_a_file_that_changes_meanwhile(self, path, monkeypatch):
        write(path)
        real = _npz._Look.judge

        def judge(*args):
            real(*args)
            with open(path, "ab") as file:
                file.write(b"x")

        monkeypatch.setattr(_npz._Look, "judge", judge)
        with pytest.raises(RecoveryError, match="changed while it was read"):
            inspect(str(path))

    def test_a_file_that_is_replaced_meanwhile(self, path, monkeypatch):
        write(path)
        real = _npz._Look.structure

        def structure(look):
            real(look)
            path.unlink()
            write(path)

        monkeypatch.setattr(_npz._Look, "structure", structure)
        with pytest.raises(RecoveryError, match="changed while it was read"):
            inspect(str(path))

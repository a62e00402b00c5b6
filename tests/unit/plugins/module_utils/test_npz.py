# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _npz, _zip
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

HEX8 = parse_config("hex8_2p")
SAMPLES = 130


def objects(values) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def recorded(arrays) -> np.ndarray:
    """The checksums as the service's exporter writes them."""
    sums = {}
    for name, array in arrays.items():
        digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
        if array.dtype == object:
            for item in array.flat:
                digest.update(str(item).encode())
        else:
            digest.update(array.tobytes())
        sums[name] = digest.hexdigest()
    return np.asarray(json.dumps(sums, sort_keys=True))


def training_arrays(samples: int = SAMPLES, seed: int = 1) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "features": rng.integers(0, 2, (samples, 4, 9, 9)).astype("<f4"),
        "globals": rng.random((samples, 20), "<f4"),
        "values": rng.choice([-1.0, 1.0], samples).astype("<f4"),
        "values_mp": rng.random((samples, 4), "<f4"),
        "num_players": np.full(samples, 2, "<i4"),
        "policy_indices": objects(list(range(samples))),
        "phases": objects(["ring_placement"] * samples),
        "board_type": np.asarray("hex8"),
        "board_size": np.asarray(9),
        "in_channels": np.asarray(4),
        "policies_normalized": np.asarray(True),
        "export_version": np.asarray("2.1"),
    }


def write(path: pathlib.Path, arrays=None, save=np.savez_compressed, checksums=False, **changes) -> pathlib.Path:
    arrays = {**(training_arrays() if arrays is None else arrays), **changes}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if checksums:
        arrays["data_checksums"] = recorded(arrays)
    save(path, **arrays)
    return path


def codes(report, severity="error") -> list:
    return [problem.code for problem in report.problems if problem.severity == severity]


def numpy_arrays(source) -> dict:
    with np.load(source, allow_pickle=True) as data:
        return {name: data[name] for name in data.files}


def same(left: dict, right: dict) -> bool:
    if left.keys() != right.keys():
        return False
    for name, array in left.items():
        other = right[name]
        if not isinstance(other, np.ndarray) or (array.shape, array.dtype) != (other.shape, other.dtype):
            return False
        if array.dtype == object:
            if array.tolist() != other.tolist():
                return False
        elif array.tobytes() != other.tobytes():
            return False
    return True


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
        arrays = numpy_arrays(io.BytesIO(data))
        target = tmp_path / "broken.npz"
        rng = random.Random(5)
        for _turn in range(25):
            broken = bytearray(data)
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            target.write_bytes(bytes(broken))
            report = inspect(str(target), depth="full", config=HEX8)
            assert not report.valid or same(arrays, numpy_arrays(target))


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
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, array in training_arrays().items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    npy.write_array(member, np.asarray(array, order=order), version)
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
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_nothing_that_changes_what_numpy_reads_is_valid(self, path, save):
        """Seeded flips, holes, cuts and insertions; numpy is the oracle."""
        arrays = training_arrays(12)
        data = write(path, arrays, save).read_bytes()
        good = numpy_arrays(path)
        rng = random.Random(11)
        harmless = 0
        for turn in range(400):
            broken = bytearray(data)
            at = rng.randrange(len(data))
            if turn % 8 == 5:
                broken[at : at + rng.randrange(1, 64)] = bytes(min(len(data) - at, 32))
            elif turn % 8 == 6:
                del broken[at:]
            elif turn % 8 == 7:
                broken[at:at] = bytes(rng.randrange(1, 9))
            else:
                broken[at] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(broken))
            report = inspect(str(path), depth="full")
            if "too_small" in codes(report) or not report.valid:
                continue
            harmless += 1
            assert same(good, numpy_arrays(path)), f"turn {turn} at {at}"
        assert harmless < 200

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
        arrays = training_arrays()
        write(path, arrays)
        with zipfile.ZipFile(path, "w") as file:
            for name, array in arrays.items():
                data = io.BytesIO()
                npy.write_array(data, array)
                raw = data.getvalue()
                if name == "features":
                    raw = raw.replace(b"(130, 4, 9, 9), } ", b"(22000000000,), }  ".ljust(18)[:18])
                file.writestr(f"{name}.npy", raw)
        report = inspect(str(path), min_samples=100)
        assert "implausible_shape" in codes(report)
        assert report.samples is None

    def test_more_objects_than_a_pickle_can_hold(self, path):
        arrays = training_arrays()
        with zipfile.ZipFile(path, "w") as file:
            for name, array in arrays.items():
                data = io.BytesIO()
                npy.write_array(data, array)
                raw = data.getvalue()
                if name == "phases":
                    raw = raw.replace(b"(130,), }      ", b"(99999999,), } ")
                file.writestr(f"{name}.npy", raw)
        assert codes(inspect(str(path))) == ["implausible_shape"]

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
        report = inspect(str(write(path, features=features)), depth="full")
        assert codes(report) == ["not_finite"]
        index = np.ravel_multi_index((77, 3, 8, 8), features.shape)
        assert f"element {index} " in report.problems[0].message

    def test_large_finite_values_are_fine(self, path):
        values = np.full(SAMPLES, np.finfo("<f8").max)
        assert inspect(str(write(path, values=values)), depth="full").valid

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
        write(path)
        with zipfile.ZipFile(path, "a") as file:
            for index in range(300):
                file.writestr(f"x{index}", "")
        report = inspect(str(path), depth="full")
        assert "too_many_members" in codes(report)
        assert len(report.problems) <= 41


class TestSafety:
    def test_objects_are_never_unpickled(self, path, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (pathlib.Path(tmp_path / "exploded").write_text, ("boom",))

        write(path, metadata=np.asarray(Bomb(), dtype=object))
        for depth in ("quick", "full"):
            report = inspect(str(path), depth=depth, config=HEX8)
            assert report.valid
            assert next(info for info in report.arrays if info.name == "metadata").object
        assert not (tmp_path / "exploded").exists()

    def test_needs_neither_numpy_nor_pickle(self, path):
        write(path)
        code = (
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            "from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect\n"
            f"assert inspect({str(path)!r}, depth='full').valid\n"
            "assert not {'numpy', 'pickle', '_pickle'} & set(sys.modules), 'imported'\n"
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

    def test_memory_at_full_depth_is_bounded(self, path):
        # Compresses a thousandfold: 96 MB from a file of 100 kB.
        write(path, features=np.zeros((2_300, 128, 9, 9), "<f4"), checksums=True)
        inspect(str(path))
        tracemalloc.start()
        report = inspect(str(path), depth="full")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.samples == 2_300
        assert peak < 24e6

    def test_names_from_the_file_are_made_safe(self, path):
        write(path, **{"x\u202e" + "y" * 500: np.zeros(3)})
        report = inspect(str(path))
        (name,) = [info.name for info in report.arrays if info.name.startswith("x")]
        assert name.isprintable()
        assert len(name) <= 201


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

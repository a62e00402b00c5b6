# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's checkpoint format against torch itself."""

from __future__ import annotations

import importlib.util
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from lab import seed

torch = pytest.importorskip("torch")

_spec = importlib.util.spec_from_file_location("lab_torch_zip", seed.SERVICE / "app/training/torch_zip.py")
torch_zip = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(torch_zip)

DTYPES = ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def sample(tensor=lambda array: array) -> dict:
    draw = np.random.default_rng(1)
    state = OrderedDict(
        (name, tensor(draw.integers(0, 2, shape).astype(dtype)))
        for dtype in DTYPES
        for name, shape in ((f"{dtype}.weight", (3, 4)), (f"{dtype}.bias", (5,)), (f"{dtype}.step", ()))
    )
    optimizer = {
        "state": {0: {"step": tensor(np.array(1.0, np.float32)), "exp_avg": tensor(np.zeros(70, np.float32))}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None, "params": [0, 1]}],
    }
    return {"epoch": 2, "model_state_dict": state, "optimizer_state_dict": optimizer, "loss": 1.5}


def flatten(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in flatten(item, f"{path}/{name}").items()}
    return {path: value}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint_epoch_3.pth"


def test_torch_loads_equal_tensors(path):
    torch_zip.save(sample(), path)
    loaded, expected = flatten(torch.load(path, weights_only=True)), flatten(sample())
    assert list(loaded) == list(expected)
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert str(loaded[name].dtype) == f"torch.{value.dtype}"
            np.testing.assert_array_equal(loaded[name].numpy(), value)
        else:
            assert loaded[name] == value


def test_the_file_is_torchs_byte_for_byte_but_for_the_serialization_id(tmp_path, path):
    theirs = tmp_path / "torch" / path.name
    theirs.parent.mkdir()
    torch.save(sample(torch.from_numpy), theirs)
    torch_zip.save(sample(), path)
    mine, expected = bytearray(path.read_bytes()), bytearray(theirs.read_bytes())
    assert len(mine) == len(expected)
    for content in (mine, expected):
        with zipfile.ZipFile(path if content is mine else theirs) as archive:
            entry = archive.getinfo("checkpoint_epoch_3/.data/serialization_id")
        name, extra = struct.unpack("<HH", content[entry.header_offset + 26 : entry.header_offset + 30])
        start = entry.header_offset + 30 + name + extra
        content[start : start + 48] = bytes(48)
        crc = content.rfind(struct.pack("<I", entry.CRC))
        content[crc : crc + 4] = bytes(4)
    assert mine == expected


def test_members_are_stored_aligned_and_summed(path):
    torch_zip.save(sample(), path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            name, extra = struct.unpack("<HH", content[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
            assert (entry.compress_type, entry.flag_bits) == (zipfile.ZIP_STORED, 0x808)


def test_reads_what_torch_writes(path):
    state = sample(torch.from_numpy)
    state["model_state_dict"]["view"] = torch.arange(12.0).reshape(3, 4).t()[1:]
    torch.save(state, path)
    loaded, expected = flatten(torch_zip.load(path)), flatten(state)
    assert list(loaded) == list(expected)
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            np.testing.assert_array_equal(loaded[name], value.numpy())
        else:
            assert loaded[name] == value


def test_an_array_in_two_places_is_one_tensor(path):
    shared = np.arange(3, dtype=np.float32)
    torch_zip.save({"a": shared, "b": shared}, path)
    with zipfile.ZipFile(path) as archive:
        assert sum("/data/" in name for name in archive.namelist()) == 1
    assert torch_zip.load(path)["b"].tolist() == [0, 1, 2]


def test_a_flipped_byte_in_a_tensor_passes_as_with_torch(path):
    torch_zip.save({"weight": np.ones(64, np.float32)}, path)
    content = bytearray(path.read_bytes())
    content[torch_zip.members(bytes(content))["data/0"][0] + 3] ^= 0x40
    path.write_bytes(content)
    assert torch_zip.load(path)["weight"].tolist() == torch.load(path, weights_only=True)["weight"].tolist()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "checkpoint_epoch_3/data/0"


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_in_torchs_words(path, keep):
    torch_zip.save({**sample(), "large": np.zeros(100000, np.float32)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(RuntimeError) as mine:
        torch_zip.load(path)
    with pytest.raises(RuntimeError) as theirs:
        torch.load(path, weights_only=True)
    assert str(mine.value)[:90] == str(theirs.value)[:90]


def test_other_names_are_refused(path):
    class Call:
        def __reduce__(self):
            return print, ("called",)

    with open(path, "wb") as file:
        writer = torch_zip._Writer(file, path.stem)
        writer.add("data.pkl", pickle.dumps({"x": Call()}, protocol=2))
        writer.close()
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch_zip.load(path)


def test_an_array_without_a_tensor_dtype_is_refused(path):
    with pytest.raises(TypeError, match="complex128"):
        torch_zip.save({"x": np.zeros(2, complex)}, path)

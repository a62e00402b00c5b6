# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import math
import pathlib
import pickle
import struct
import tarfile

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify

from tests.unit.checkpoint_files import canary, content, flat, save, save_tar
from tests.unit.plugins.module_utils.test_checkpoint import Evil, codes
from tests.unit.plugins.module_utils.test_checkpoint_oracle import load_unrestricted

pytestmark = pytest.mark.torch


@pytest.fixture
def made(tmp_path):
    model = dict(content()["model_state_dict"])
    path = save_tar(tmp_path / "old.pth", model, {"epoch": 7, "model_state_dict": model})
    return path, model


def members(path: pathlib.Path) -> dict:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def again(path: pathlib.Path, parts: dict) -> pathlib.Path:
    with tarfile.open(path, "w") as tar:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_torch_reads_what_we_call_whole(made):
    import torch

    path, model = made
    loaded = torch.load(path, weights_only=False)
    assert flat(loaded["model_state_dict"]) == flat(model)
    report = verify(str(path))
    assert (report.valid, report.format, report.integrity, report.epoch) == (True, "torch_tar", "not_recorded", 7)
    assert codes(report) == ["needs_full_unpickler"]
    assert report.tensors == len(model)
    assert report.parameters == sum(tensor.numel() for tensor in model.values())
    assert {name: (tuple(t["shape"]), t["dtype"]) for t in report.tensor_list(99) for name in [t["name"]]} == {
        f"model_state_dict.{name}": (tuple(tensor.shape), str(tensor.dtype)[6:]) for name, tensor in model.items()
    }


def test_shapes_agree_with_a_file_of_today(made, tmp_path):
    path, model = made
    assert verify(str(save(tmp_path / "c.pth", model))).model_signature == verify(str(path)).model_signature


def test_values(made):
    path, model = made
    model["0.weight"][1, 2] = math.nan
    save_tar(path, model, {"epoch": 7, "model_state_dict": model})
    report = verify(str(path), scan_values=True)
    assert report.value_scan.nan == ("model_state_dict.0.weight",)


@pytest.mark.parametrize("name", ["storages", "tensors", "pickle"])
def test_a_member_that_is_missing_or_cut(made, name):
    path, _model = made
    parts = members(path)
    report = verify(str(again(path, {key: data for key, data in parts.items() if key != name})))
    assert (report.valid, codes(report, "error")) == (False, ["record_missing"])
    report = verify(str(again(path, {**parts, name: parts[name][:-9]})))
    assert [problem.member for problem in report.problems if problem.severity == "error"] == [name]


def test_a_file_that_is_cut(made):
    path, _model = made
    raw = path.read_bytes()
    reference = load_unrestricted(path)
    for length in range(512, len(raw), 97):
        path.write_bytes(raw[:length])
        if verify(str(path)).valid:
            assert load_unrestricted(path) == reference, length
    assert verify(str(path)).valid, "only zeros behind the last member are missing"


def test_another_tar_file(tmp_path):
    report = verify(str(again(tmp_path / "x.tar", {"readme": b"hello"})))
    assert (report.format, codes(report)) == ("unknown", ["unknown_format"])
    assert "tar file without the members" in report.problems[0].message


def test_nothing_runs(made, tmp_path):
    path, model = made
    with canary(tmp_path / "canary") as command:
        save_tar(path, model, {"epoch": 7, "x": Evil(command)})
        report = verify(str(path))
    assert "dangerous_pickle" in codes(report)
    assert report.globals["dangerous"] == ("posix.system",)


def test_headers_that_claim_any_length(made):
    path, _model = made
    raw = bytearray(path.read_bytes())
    # A pax header that claims 8 GB is not read.
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, (8 << 30) - 1
    path.write_bytes(info.tobuf() + bytes(raw))
    report = verify(str(path))
    assert not report.valid


def pickles(*values) -> bytes:
    return b"".join(pickle.dumps(value, 2) for value in values)


ENTRY = (1000, "cpu", None)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("storages", pickles([1]), "pickle_damaged"),
        ("storages", pickles(-1), "pickle_damaged"),
        ("storages", pickles(1, "no entry"), "pickle_damaged"),
        ("storages", pickles(1, ENTRY) + struct.pack("<q", 0), "storage_size_mismatch"),
        ("storages", pickles(0, "no list"), "pickle_damaged"),
        ("storages", pickles(0, [("view", "of none", 0, 1)]), "pickle_damaged"),
        ("tensors", pickles(1, ("x", "of none", None)) + struct.pack("<iI", 0, 0), "tensor_malformed"),
        ("tensors", pickles(1, ("x", 1000, None)) + struct.pack("<iI", 10**6, 0), "tensor_malformed"),
        ("tensors", pickles(1, ("x", 1000, None)) + struct.pack("<iI3q", 1, 0, -2, 1, 0), "tensor_malformed"),
    ],
)
def test_a_member_that_makes_no_sense(made, name, data, code):
    path, _model = made
    report = verify(str(again(path, {**members(path), name: data})))
    assert (report.valid, codes(report, "error")) == (False, [code])


@pytest.mark.parametrize(("numel", "expected"), [(30, []), (31, ["tensor_out_of_bounds"])])
def test_a_view_of_a_storage(made, numel, expected):
    """A part of a storage that has its own key: the format knows it, and it ends where the storage ends."""
    path, model = made
    parts = members(path)
    assert model["0.weight"].numel() == 30
    nothing = pickles([])
    assert parts["storages"].endswith(nothing)
    views = pickles([("view", 1000, 0, numel)])
    report = verify(str(again(path, {**parts, "storages": parts["storages"][: -len(nothing)] + views})))
    assert codes(report, "error") == expected

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import pickle
import random
import shutil
import struct
import subprocess
import sys
import zipfile

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _checkpoint, _checkpoint_zip
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_expect import Expectation
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.checkpoint_files import canary, content, damages, flat, flipped, loaded, rezip, save


def codes(report, severity=None) -> list:
    return [problem.code for problem in report.problems if severity in (None, problem.severity)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> bytes:
    """A checkpoint with checksums, as bytes; torch names the members after the file."""
    return save(tmp_path_factory.mktemp("raw") / "c.pth").read_bytes()


@pytest.fixture
def put(tmp_path):
    def write(data: bytes, name: str = "c.pth") -> str:
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


def sidecar(path: str, digest: str = "") -> pathlib.Path:
    beside = pathlib.Path(path + ".sha256")
    digest = digest or hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    beside.write_text(f"{digest}  {os.path.basename(path)}\n")
    return beside


class TestWholeFiles:
    def test_what_the_trainer_writes(self, tmp_path):
        import torch

        saved = content(epoch=4, metadata=True)
        path = save(tmp_path / "checkpoint_epoch_5.pth", saved)
        report = verify(str(path))
        data = report.as_dict()
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        tensors = list(saved["model_state_dict"].values())
        optimizer = [v for state in saved["optimizer_state_dict"]["state"].values() for v in state.values()]
        assert {key: value for key, value in data.items() if key not in ("mtime", "model_signature")} == {
            "path": str(path),
            "valid": True,
            "problems": [],
            "format": "torch_zip",
            "integrity": "verified",
            "depth": "full",
            "size": path.stat().st_size,
            "sha256": None,
            "sidecar": None,
            "top_level_keys": list(saved),
            "epoch": 4,
            "step": None,
            "loss": 0.2,
            "tensors": len(tensors) + sum(isinstance(value, torch.Tensor) for value in optimizer),
            "parameters": sum(tensor.numel() for tensor in tensors),
            "state_dict": "model_state_dict",
            "model_class": "HexNeuralNet_v4",
            "architecture": "v4.0.0",
            "board_type": "hex8",
            "num_players": 2,
            "globals": {
                "allowed": ["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage"]
                + ["torch.LongStorage"],
                "suspicious": [],
                "dangerous": [],
            },
            "value_scan": None,
        }
        assert report.summary().startswith("whole: torch_zip, epoch 4")

    def test_model_file_counts_epochs_from_one(self, tmp_path):
        saved = content(epoch=4, metadata=True)
        model = {key: saved[key] for key in ("model_state_dict", "_versioning_metadata")}
        report = verify(str(save(tmp_path / "canonical.pth", model)))
        assert (report.epoch, report.loss) == (4, 0.5)
        whole = verify(str(save(tmp_path / "checkpoint.pth", saved)))
        assert report.model_signature == whole.model_signature
        other = verify(str(save(tmp_path / "other.pth", content(width=7))))
        assert other.model_signature != whole.model_signature

    def test_state_dict_alone(self, tmp_path):
        saved = content()
        report = verify(str(save(tmp_path / "avg_ckpt_0.pt", saved["model_state_dict"])))
        assert (report.valid, report.state_dict, report.epoch) == (True, ".", None)
        assert report.model_signature == verify(str(save(tmp_path / "c.pth", saved))).model_signature

    def test_nothing_of_a_model(self, tmp_path):
        report = verify(str(save(tmp_path / "c_early_stopping.pth", {"best_loss": 0.3, "counter": 2})))
        assert (report.valid, report.state_dict, report.tensors, report.parameters) == (True, None, 0, 0)

    @pytest.mark.parametrize(
        "left_out",
        [
            ["byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"],  # torch 1.6 to 2.0
            [".format_version", ".storage_alignment"],
            [".storage_alignment"],
        ],
    )
    def test_layouts_since_1_6(self, tmp_path, left_out):
        path = rezip(save(tmp_path / "c.pth"), dict.fromkeys(left_out))
        assert loaded(path) is not None
        assert verify(str(path)).as_dict()["problems"] == []

    def test_many_kinds_of_tensor(self, tmp_path):
        import torch

        saved = {
            "shared": torch.arange(10.0),
            "empty": torch.empty(0),
            "half": torch.ones(3).half(),
            "float8": torch.ones(3).to(torch.float8_e4m3fn),
            "sparse": torch.eye(4).to_sparse(),
            "meta": torch.empty(9, device="meta"),
            "storage": torch.ones(3).untyped_storage(),
            "odd": torch.ones(7, dtype=torch.uint8).untyped_storage(),
        }
        saved["view"] = saved["shared"][2:5]
        for crc in (True, False):
            assert codes(verify(str(save(tmp_path / "c.pth", saved, crc=crc))), "error") == []

    def test_checksums_left_out(self, tmp_path):
        report = verify(str(save(tmp_path / "c.pth", crc=False)))
        assert (report.valid, report.integrity, codes(report)) == (True, "not_recorded", ["crc_not_recorded"])
        assert report.epoch == 3

    @pytest.mark.parametrize("depth", ["full", "quick"])
    def test_legacy(self, tmp_path, depth):
        import torch

        saved = content()
        saved["storage"] = torch.ones(3).untyped_storage()
        report = verify(str(save(tmp_path / "c.pth", saved, legacy=True)), depth=depth)
        assert (report.valid, report.format, report.integrity) == (True, "torch_legacy", "not_recorded")
        assert (report.epoch, report.problems) == (3, ())
        assert report.model_signature == verify(str(save(tmp_path / "new.pth", saved))).model_signature

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script")
    def test_torchscript(self, tmp_path):
        import torch

        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        path = tmp_path / "model.pt"
        torch.jit.script(model).save(str(path))
        report = verify(str(path))
        assert (report.valid, report.format, report.integrity) == (True, "torch_script", "verified")
        assert report.problems == ()
        assert report.tensors == len(model.state_dict())
        flipped(path, "data/0")
        assert codes(verify(str(path))) == ["crc_mismatch"]

    def test_quick_does_not_read_the_tensors(self, tmp_path):
        path = flipped(save(tmp_path / "c.pth"), "data/0")
        report = verify(str(path), depth="quick")
        assert (report.valid, report.integrity, report.epoch) == (True, "not_checked", 3)
        assert codes(verify(str(path))) == ["crc_mismatch"]

    def test_checksum_is_returned_when_asked_for(self, put, raw):
        path = put(raw)
        assert verify(path).sha256 is None
        assert verify(path, depth="quick", checksum=True).sha256 == hashlib.sha256(raw).hexdigest()


class TestAgainstTorch:
    """torch itself says what damage matters: what changes what it loads must never be called valid."""

    def test_damage_with_checksums(self, tmp_path, raw):
        path = tmp_path / "c.pth"
        path.write_bytes(raw)
        reference = loaded(path)
        changed = 0
        for name, data in damages(raw, 300, seed=11):
            path.write_bytes(data)
            report = verify(str(path))
            same = loaded(path) == reference
            changed += not same
            assert same or not report.valid, name
            assert report.valid or report.problems[0].message
        assert changed > 130

    def test_every_bit_of_headers_and_directory_sampled(self, tmp_path, raw):
        path = tmp_path / "c.pth"
        path.write_bytes(raw)
        reference = loaded(path)
        start = raw.index(b"PK\x01\x02")
        places = [(at, bit) for at in range(start, len(raw)) for bit in range(8)]
        for at, bit in random.Random(12).sample(places, 250):
            data = bytearray(raw)
            data[at] ^= 1 << bit
            path.write_bytes(data)
            assert not verify(str(path)).valid or loaded(path) == reference, (at, bit)

    def test_damage_without_checksums_is_never_called_verified(self, tmp_path):
        path = save(tmp_path / "c.pth", crc=False)
        data = path.read_bytes()
        for name, damaged in damages(data, 150, seed=13):
            path.write_bytes(damaged)
            report = verify(str(path))
            assert report.integrity in ("not_recorded", "damaged", "not_checked"), name
        path.write_bytes(data)
        sidecar(str(path))
        assert verify(str(path)).integrity == "verified"
        for name, damaged in damages(data, 100, seed=14):
            path.write_bytes(damaged)
            report = verify(str(path))
            assert not report.valid, name
            assert {"checksum_mismatch", "sidecar_stale"} & set(codes(report)), name

    def test_damage_to_legacy_files(self, tmp_path):
        path = save(tmp_path / "c.pth", legacy=True)
        data = path.read_bytes()
        for length in range(0, len(data), 41):
            path.write_bytes(data[:length])
            assert not verify(str(path)).valid, length
        for _name, damaged in damages(data, 150, seed=15):
            path.write_bytes(damaged)
            verify(str(path))
        path.write_bytes(data)
        sidecar(str(path))
        for name, damaged in damages(data, 50, seed=16):
            path.write_bytes(damaged)
            assert not verify(str(path)).valid, name

    def test_no_file_that_torch_wrote_is_called_damaged(self, tmp_path):
        for seed in range(10):
            for crc in (True, False):
                path = save(tmp_path / f"c{seed}.pth", content(epoch=seed, width=3 + seed, seed=seed), crc=crc)
                assert codes(verify(str(path)), "error") == []

    def test_what_the_service_cannot_see(self, put, raw):
        """A flipped bit in a tensor: torch loads it, numbers wrong, and says nothing."""
        path = flipped(pathlib.Path(put(raw)), "data/0")
        assert loaded(path) not in (None, flat(content()))
        report = verify(str(path))
        assert (report.valid, report.integrity, codes(report)) == (False, "damaged", ["crc_mismatch"])
        assert report.summary().startswith("damaged: crc_mismatch in c/data/0")


class TestTruncated:
    def test_every_length(self, tmp_path, raw):
        path = tmp_path / "c.pth"
        for length in range(0, len(raw), 61):
            path.write_bytes(raw[:length])
            assert not verify(str(path)).valid

    def test_epoch_survives_if_the_pickle_does(self, put, raw):
        report = verify(put(raw[:-700]))
        assert (report.valid, report.format, report.integrity) == (False, "torch_zip", "damaged")
        assert (report.epoch, codes(report)) == (3, ["truncated"])

    def test_damaged_pickle_at_the_head_is_not_believed(self, put, raw):
        data = bytearray(raw[:-700])
        data[data.index(b"epochq\x01K") + 8] ^= 4
        report = verify(put(bytes(data)))
        assert (report.epoch, codes(report)) == (None, ["truncated"])

    @pytest.mark.parametrize("length", [1, 2, 4, 29, 30, 64])
    def test_head_only(self, put, raw, length):
        report = verify(put(raw[:length]))
        assert not report.valid
        assert report.epoch is None


class TestStorages:
    def test_too_short_too_long_missing_and_unused(self, tmp_path, raw):
        path = tmp_path / "c.pth"
        for changes, code in (
            ({"data/0": b"\0" * 8}, "storage_size_mismatch"),
            ({"data/0": b"\0" * 8000}, "storage_size_mismatch"),
            ({"data/0": None}, "storage_missing"),
            ({"data/999": b"\0" * 8}, "storage_unused"),
        ):
            path.write_bytes(raw)
            rezip(path, changes)
            for depth in ("full", "quick"):
                report = verify(str(path), depth=depth)
                assert (report.valid, codes(report)) == (False, [code])
        path.write_bytes(raw)
        report = verify(str(rezip(path, {"data/0": None})))
        assert "model_state_dict.0.weight" in report.problems[0].message

    @pytest.mark.parametrize(
        ("record", "value", "code"),
        [
            ("version", None, "record_missing"),
            ("version", b"x\n", "record_damaged"),
            ("version", b"99\n", "record_damaged"),
            ("byteorder", b"middle", "record_damaged"),
            (".storage_alignment", b"6x", "record_damaged"),
        ],
    )
    def test_records(self, put, raw, record, value, code):
        path = rezip(pathlib.Path(put(raw)), {record: value})
        assert loaded(path) is None or value == b"99\n"
        assert codes(verify(str(path))) == [code]

    def test_two_sizes_for_one_storage_and_tensor_beyond_it(self, put, raw):
        with zipfile.ZipFile(put(raw)) as archive:
            data = archive.read("c/data.pkl")
        storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{}\ntQ"
        twice = f"({storage.format(30)}{storage.format(31)}l."
        path = rezip(pathlib.Path(put(raw)), {"data.pkl": twice.encode()})
        assert "storage_conflict" in codes(verify(str(path)))
        beyond = f"ctorch._utils\n_rebuild_tensor_v2\n({storage.format(30)}I5\n(I30\nt(I1\ntI00\nNtR."
        path = rezip(pathlib.Path(put(raw)), {"data.pkl": beyond.encode()})
        assert "tensor_out_of_bounds" in codes(verify(str(path)))
        path = rezip(pathlib.Path(put(raw)), {"data.pkl": data + b"more"})
        assert codes(verify(str(path))) == ["trailing_data"]

    def test_pickle_that_is_no_pickle(self, put, raw):
        path = rezip(pathlib.Path(put(raw)), {"data.pkl": b"\x80\x02garbage"})
        report = verify(str(path))
        assert (report.valid, report.integrity, report.tensors) == (False, "damaged", None)
        assert codes(report) == ["pickle_damaged"]

    def test_pickle_beyond_what_is_examined(self, put, raw, monkeypatch):
        monkeypatch.setattr(_checkpoint_zip, "MAX_PICKLE", 100)
        report = verify(put(raw))
        assert (report.valid, codes(report)) == (False, ["pickle_too_large"])
        assert report.integrity == "not_checked" or report.integrity == "not_recorded"


class TestNumbers:
    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.0e38, -1.0])
    def test_nan_is_found_and_nothing_else(self, tmp_path, dtype, value):
        import torch

        tensor = torch.zeros(1000).to(getattr(torch, dtype))
        tensor[777] = value
        report = verify(str(save(tmp_path / "c.pth", {"model_state_dict": {"w": tensor}})))
        assert codes(report) == []
        report = verify(str(tmp_path / "c.pth"), scan_values=True)
        assert report.valid
        kind = "nan" if math.isnan(value) else "infinite" if not math.isfinite(float(tensor[777])) else None
        assert codes(report) == ([f"{kind}_values"] if kind else [])
        assert report.value_scan.scanned == 1
        assert [report.value_scan.nan, report.value_scan.infinite] == [
            ("model_state_dict.w",) if kind == wanted else () for wanted in ("nan", "infinite")
        ]
        assert kind is None or "1 " in report.problems[0].message
        assert kind is None or "777" in report.problems[0].message

    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_loss_that_is_none(self, tmp_path, loss):
        report = verify(str(save(tmp_path / "c.pth", {**content(), "loss": loss})))
        assert (report.valid, report.loss, codes(report)) == (True, None, ["loss_not_finite"])

    @pytest.mark.parametrize("epoch", [-1, 10**12, 1 << 400, "7", True, None, 2.5])
    def test_epoch_that_is_none(self, tmp_path, epoch):
        assert verify(str(save(tmp_path / "c.pth", {**content(), "epoch": epoch}))).epoch is None

    def test_which_tensors_hold_what(self, tmp_path):
        import torch

        tied = torch.zeros(4, 2)
        saved = {
            "model_state_dict": {
                "a": tied,
                "b": tied,
                "bias": torch.zeros(4),
                "mask": torch.full((2, 2), -math.inf),
                "tiny": torch.ones(3).to(torch.float8_e5m2),
                "count": torch.zeros(3, 3, dtype=torch.int64),
                "unsigned": torch.zeros(3, 3, dtype=torch.uint16),
                "complex": torch.tensor([[1j, math.nan]]),
            }
        }
        for legacy in (False, True):
            if legacy:
                del saved["model_state_dict"]["tiny"], saved["model_state_dict"]["unsigned"]
            path = save(tmp_path / "c.pth", saved, legacy=legacy)
            report = verify(str(path), scan_values=True)
            found = report.value_scan.as_dict()
            assert found["scanned"] == 4
            assert found["not_scanned"] == ([] if legacy else ["float8_e5m2"])
            assert found["nan"] == ["model_state_dict.complex"]
            assert found["infinite"] == ["model_state_dict.mask"]
            assert set(found["zero"]) == {"model_state_dict.a", "model_state_dict.bias"}
            assert (report.valid, sorted(set(codes(report)))) == (
                True,
                ["infinite_values", "nan_values", "zero_values"],
            )
            assert verify(str(path), scan_values=True, depth="quick").value_scan is None

    def test_values_in_safetensors(self, tmp_path):
        import torch
        from safetensors.torch import save_file

        tensors = {"w": torch.ones(3, 3), "bad": torch.tensor([1.0, math.inf, math.nan]).bfloat16()}
        save_file(tensors, tmp_path / "m.safetensors")
        report = verify(str(tmp_path / "m.safetensors"), scan_values=True)
        assert (report.value_scan.nan, report.value_scan.infinite) == (("bad",), ("bad",))
        assert (report.valid, report.parameters) == (True, 12)


class TestExpectation:
    def test_epoch_and_config_that_are_not_said(self, tmp_path):
        path = str(save(tmp_path / "c.pth", content()["model_state_dict"]))
        wanted = Expectation(min_epoch=0, config=TrainingConfig("hex8", 2))
        report = verify(path, expect=wanted)
        assert [(problem.code, problem.severity) for problem in report.problems] == [
            ("epoch_unknown", "error"),
            ("config_unknown", "warning"),
        ]
        assert (report.valid, report.integrity) == (False, "verified")

    @pytest.mark.parametrize(
        ("wanted", "code", "words"),
        [
            (Expectation(keys=("epoch", "none")), "key_missing", "it has no top-level key 'none'"),
            (Expectation(min_epoch=10**6), "epoch_too_low", "at least 1000000 is expected"),
            (Expectation(config=TrainingConfig("square19", 4)), "wrong_config", "not for square19_4p"),
        ],
    )
    def test_what_a_good_file_does_not_have(self, tmp_path, wanted, code, words):
        (problem,) = verify(str(save(tmp_path / "c.pth", content(metadata=True))), expect=wanted).problems
        assert (problem.code, problem.severity) == (code, "error")
        assert words in problem.message

    def test_shapes(self, tmp_path):
        path, like = save(tmp_path / "c.pth"), save(tmp_path / "like.pth", content(width=7)["model_state_dict"])
        assert codes(verify(str(path), expect=Expectation(like=str(path)))) == []
        (problem,) = verify(str(path), expect=Expectation(like=str(like))).problems
        assert problem.message == (f"its model is not that of {like}: 0.weight is float32[5, 6], not float32[5, 7]")
        for damage in (b"", b"PK\3\4"):
            like.write_bytes(damage)
            (problem,) = verify(str(path), expect=Expectation(like=str(like))).problems
            assert problem.code == "not_comparable"

    def test_a_damaged_file_is_not_compared(self, put, raw):
        report = verify(put(raw[:-30]), expect=Expectation(keys=("none",)))
        assert "key_missing" not in codes(report)
        assert report.integrity == "damaged"


class TestContainerTricks:
    def test_what_unpacks_to_far_more_is_not_unpacked(self, put, raw):
        path = pathlib.Path(put(raw))
        members = {}
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        members["c/data/0"] = bytes(100 << 20)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        report = verify(str(path))
        assert (report.valid, codes(report), report.integrity) == (False, ["compression_bomb"], "not_checked")

    def test_a_pickle_that_torch_does_not_read(self, put, raw):
        with zipfile.ZipFile(put(raw)) as archive:
            data = archive.read("c/data.pkl")
        path = rezip(pathlib.Path(put(raw)), {"extra.pkl": data})
        report = verify(str(path))
        assert [(problem.code, problem.severity) for problem in report.problems] == [("unexpected_member", "warning")]


class TestSidecar:
    def test_match_and_depth(self, put, raw):
        path = put(raw)
        beside = sidecar(path)
        report = verify(path)
        assert report.sidecar == _checkpoint.Sidecar(str(beside), hashlib.sha256(raw).hexdigest(), True)
        assert report.as_dict()["sidecar"] == {"path": str(beside), "matches": True}
        assert verify(path, depth="quick").sidecar.matches is None
        assert verify(path, sidecar=False).sidecar is None

    def test_stale_beside_a_file_whose_checksums_hold(self, put, raw):
        """A kill between the rename and the write of the sidecar leaves this."""
        path = put(raw)
        sidecar(path, "0" * 64)
        report = verify(path)
        assert (report.valid, report.integrity) == (True, "verified")
        assert [(problem.code, problem.severity) for problem in report.problems] == [("sidecar_stale", "warning")]

    @pytest.mark.parametrize("options", [{"crc": False}, {"legacy": True}])
    def test_mismatch_where_nothing_else_vouches(self, tmp_path, options):
        path = str(save(tmp_path / "c.pth", **options))
        sidecar(path)
        assert verify(path).integrity == "verified"
        sidecar(path, "0" * 64)
        report = verify(path)
        assert (report.valid, report.integrity, codes(report, "error")) == (False, "damaged", ["checksum_mismatch"])

    def test_match_does_not_make_a_damaged_file_good(self, put, raw):
        path = flipped(pathlib.Path(put(raw)), "data/0")
        sidecar(str(path))
        assert verify(str(path)).integrity == "damaged"

    @pytest.mark.parametrize("text", [b"", b"hello", b"\xff" * 70, b"0" * 63, b"0" * 65, b"g" * 64])
    def test_unreadable(self, put, raw, text):
        path = put(raw)
        pathlib.Path(path + ".sha256").write_bytes(text)
        report = verify(path)
        assert (report.valid, codes(report)) == (True, ["sidecar_unreadable"])
        assert report.sidecar.matches is None

    def test_upper_case_and_no_name(self, put, raw):
        path = put(raw)
        pathlib.Path(path + ".sha256").write_text(hashlib.sha256(raw).hexdigest().upper())
        assert verify(path).sidecar.matches is True

    def test_directory_and_dangling_link(self, put, raw):
        path = put(raw)
        os.mkdir(path + ".sha256")
        assert codes(verify(path)) == ["sidecar_unreadable"]
        os.rmdir(path + ".sha256")
        os.symlink("nowhere", path + ".sha256")
        assert codes(verify(path)) == ["sidecar_unreadable"]


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


class TestMalicious:
    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("depth", ["full", "quick"])
    def test_reduce(self, tmp_path, legacy, depth):
        with canary(tmp_path / "canary") as command:
            path = save(tmp_path / "c.pth", {**content(), "x": Evil(command)}, legacy=legacy)
            report = verify(str(path), depth=depth)
        assert not report.valid
        assert "dangerous_pickle" in codes(report)
        assert "posix.system" in report.problems[0].message
        assert report.integrity != "damaged"
        assert report.epoch == 3

    def test_plain_pickle(self, tmp_path, put):
        with canary(tmp_path / "canary") as command:
            report = verify(put(pickle.dumps(Evil(command))))
        assert (report.valid, report.format) == (False, "unknown")
        assert {"dangerous_pickle", "unknown_format"} == set(codes(report))

    def test_class_of_the_service_is_a_warning(self, tmp_path):
        path = save(tmp_path / "c.pth", {**content(), "path": pathlib.Path("/x")})
        report = verify(str(path))
        assert (report.valid, codes(report)) == (True, ["unknown_globals"])


def safetensors(header, data: bytes, length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class TestSafetensors:
    HEADER = {
        "__metadata__": {"format": "pt", "epoch": "12"},
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
    }

    def test_whole(self, put):
        report = verify(put(safetensors(self.HEADER, bytes(32))))
        assert (report.valid, report.format, report.integrity) == (True, "safetensors", "not_recorded")
        assert (report.tensors, report.parameters, report.epoch) == (2, 10, 12)
        assert report.problems == ()

    @pytest.mark.parametrize(
        ("header", "data", "code"),
        [
            (HEADER, bytes(31), "truncated"),
            (HEADER, bytes(33), "trailing_data"),
            ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4), "storage_size_mismatch"),
            ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8), "overlapping_members"),
            ({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4), "header_damaged"),
            ({"w": {"dtype": 5, "shape": [1], "data_offsets": [0, 4]}}, bytes(4), "header_damaged"),
            ({"w": 5}, b"", "header_damaged"),
            (b'{"w": 1, "w": 2}', b"", "header_damaged"),
            (b"{broken", b"", "header_damaged"),
            (b"{" + b'"a":[' * 20_000, b"", "header_damaged"),
        ],
    )
    def test_damage(self, put, header, data, code):
        report = verify(put(safetensors(header, data)))
        assert (report.valid, report.format) == (False, "safetensors")
        assert code in codes(report)

    def test_unknown_type_cannot_be_loaded_but_is_no_damage(self, put):
        header = {"w": {"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}}
        report = verify(put(safetensors(header, bytes(4))))
        assert (report.valid, report.integrity, codes(report)) == (False, "not_recorded", ["storage_type_unknown"])

    def test_header_beyond_the_file_and_beyond_the_limit(self, put):
        assert codes(verify(put(safetensors(self.HEADER, b"", length=5000)))) == ["truncated"]
        assert codes(verify(put(safetensors(self.HEADER, b"", length=50_000_000)))) == ["truncated"]
        header = b"{" + b" " * (17 << 20) + b"}"
        report = verify(put(safetensors(header, b"")))
        assert (codes(report), report.integrity) == (["header_too_large"], "not_recorded")


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"\0" * 5000, "all zero"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\x93NUMPY\x01\0", "NumPy array"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"hello", "68656c6c6f"),
            (bytes(257) + b"ustar" + bytes(300), "tar"),
            (pickle.dumps({"epoch": 1}), "a pickle"),
        ],
    )
    def test_says_what_it_is(self, put, data, words):
        report = verify(put(data))
        assert (report.valid, report.format, codes(report)) == (False, "unknown", ["unknown_format"])
        assert words in report.problems[0].message

    def test_archives(self, tmp_path):
        import numpy

        numpy.savez(tmp_path / "data.npz", features=numpy.zeros(3))
        report = verify(str(tmp_path / "data.npz"))
        assert (report.valid, codes(report)) == (False, ["unknown_format"])
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("readme", "x")
        assert codes(verify(str(tmp_path / "x.zip"))) == ["unknown_format"]

    def test_empty_directory_missing_pipe_depth(self, tmp_path, put):
        report = verify(put(b""))
        assert (report.valid, codes(report), report.integrity, report.size) == (False, ["empty"], "damaged", 0)
        report = verify(str(tmp_path))
        assert (report.valid, codes(report), report.size) == (False, ["not_a_file"], None)
        with pytest.raises(MissingFileError, match="does not exist"):
            verify(str(tmp_path / "none.pth"))
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(RecoveryError, match="not a regular file"):
            verify(str(tmp_path / "pipe"))
        with pytest.raises(RecoveryError, match="full, quick"):
            verify(put(b"x"), depth="deep")

    def test_data_in_front(self, put, raw):
        report = verify(put(b"junk" + raw))
        assert not report.valid
        holed = bytearray(raw)
        holed[:16] = bytes(16)
        report = verify(put(bytes(holed)))
        assert (report.valid, report.integrity) == (False, "damaged")
        assert {"local_header_mismatch", "not_a_zip"} <= set(codes(report))

    @pytest.mark.parametrize("checksum", [True, False])
    def test_file_that_is_moved_aside_meanwhile(self, put, raw, monkeypatch, checksum):
        path = put(raw)
        read = _checkpoint._read_sidecar

        def move(*args):
            os.rename(path, f"{path}.corrupt")
            return read(*args)

        monkeypatch.setattr(_checkpoint, "_read_sidecar", move)
        with pytest.raises(RecoveryError, match="does not exist"):
            verify(path, checksum=checksum)

    def test_file_that_changes_meanwhile(self, put, raw, monkeypatch):
        path = put(raw)
        read = _checkpoint._read_sidecar

        def change(*args):
            pathlib.Path(path).write_bytes(raw[:-1])
            return read(*args)

        monkeypatch.setattr(_checkpoint, "_read_sidecar", change)
        with pytest.raises(RecoveryError, match="changed while it was read"):
            verify(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200),
    head=st.sampled_from([b"", b"PK\x03\x04", _checkpoint.LEGACY_MAGIC, b"\x10\0\0\0\0\0\0\0{", b"\x80\x02"]),
)
def test_random_bytes_always_have_a_problem(put, head, data):
    report = verify(put(head + data))
    assert not report.valid
    assert codes(report, "error")
    assert report.summary()


def oldest_python() -> str:
    """The oldest interpreter that nodes may have, where this machine has it."""
    pyenv = pathlib.Path("~/.pyenv/versions").expanduser().glob("3.8.*/bin/python")
    for place in (*map(str, pyenv), shutil.which("python3.8")):
        if place and subprocess.run([place, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return place
    return sys.executable


def test_memory_does_not_grow_with_the_file(tmp_path, root):
    """In a bare interpreter, the oldest that nodes may have: 160 MB are examined in a small part of that."""
    import torch

    path = save(tmp_path / "big.pth", {"model_state_dict": {"w": torch.ones(40_000_000)}, "epoch": 3})
    code = (
        "import re, sys\n"
        "from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify\n"
        "report = verify(sys.argv[1], checksum=True)\n"
        # The peak that getrusage tells is that of the parent, if that was larger.
        "peak = re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read()).group(1)\n"
        "print(report.valid, report.integrity, report.epoch, peak)\n"
    )
    result = subprocess.run(
        [oldest_python(), "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(root / "playbooks" / "collections")},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        text=True,
    )
    valid, integrity, epoch, kilobytes = result.stdout.split()
    assert (valid, integrity, epoch) == ("True", "verified", "3")
    assert int(kilobytes) < 60_000

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import collections
import os
import pickle
import random
import struct
import time
import zipfile

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _pickle
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import Source, interpret
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_globals import (
    ALLOWED,
    DANGEROUS,
    SUSPICIOUS,
    classify,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import (
    MAX_NAMES,
    Opaque,
    get,
    is_mapping,
    is_tensor,
    keys,
    named_tensors,
    values,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.checkpoint_files import canary, content, save


def codes(report) -> list:
    return [problem.code for problem in report.problems]


class Evil:
    """Something whose pickle calls a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class TestPlainData:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_numbers_and_text_come_back(self, protocol):
        data = {"epoch": 7, "loss": 0.25, "name": "hex8", "flag": True, "none": None, "big": 1 << 70}
        report = interpret(pickle.dumps(data, protocol))
        assert report.complete
        assert report.problems == ()
        assert keys(report.root) == list(data)
        assert {key: get(report.root, key) for key in data} == data

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_nested_containers(self, protocol):
        inner = {"config": {"board_type": "hex8", "num_players": 2}}
        report = interpret(pickle.dumps({"list": [1, 2, [3]], "tuple": (1, "x"), "meta": inner}, protocol))
        assert get(report.root, "list") == [1, 2, [3]]
        assert get(report.root, "tuple") == (1, "x")
        assert get(get(get(report.root, "meta"), "config"), "board_type") == "hex8"
        assert is_mapping(get(report.root, "meta"))
        assert not is_mapping(get(report.root, "list"))

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_ordered_dict_is_a_mapping(self, protocol):
        report = interpret(pickle.dumps(collections.OrderedDict([("a", 1), ("b", 2)]), protocol))
        assert (keys(report.root), get(report.root, "b"), values(report.root)) == (["a", "b"], 2, [1, 2])
        assert report.allowed == ("collections.OrderedDict",)

    def test_integers_beyond_use_are_not_kept(self):
        report = interpret(pickle.dumps({"epoch": 1 << 5000}))
        assert get(report.root, "epoch") == Opaque("integer")

    def test_self_reference_and_sharing(self):
        loop: list = []
        loop.append({"loop": loop})
        report = interpret(pickle.dumps(loop))
        assert report.complete
        assert list(named_tensors(report.root)) == []

    def test_one_pickle_after_another(self):
        source = Source(pickle.dumps("first") + pickle.dumps({"second": 2}) + b"rest")
        assert interpret(source).root == "first"
        assert get(interpret(source).root, "second") == 2
        assert source.read(10) == b"rest"

    def test_source_that_pulls(self):
        data = pickle.dumps({"text": "x" * 200_000, "epoch": 3})
        source = Source(lambda offset, length: data[offset : offset + min(length, 1000)])
        report = interpret(source)
        assert get(report.root, "epoch") == 3
        assert report.end == len(data)


class TestTensors:
    def pickled(self, tmp_path, saved):
        path = save(tmp_path / "c.pth", saved)
        with zipfile.ZipFile(path) as archive:
            return interpret(archive.read("c/data.pkl"), "c/data.pkl"), {
                info.filename: info.file_size for info in archive.infolist()
            }

    def test_checkpoint_of_the_trainer(self, tmp_path):
        saved = content(epoch=5, metadata=True)
        report, sizes = self.pickled(tmp_path, saved)
        assert report.problems == ()
        assert (report.suspicious, report.dangerous) == ((), ())
        assert keys(report.root) == list(saved)
        assert get(report.root, "epoch") == 5
        assert get(get(report.root, "_versioning_metadata"), "model_class") == "HexNeuralNet_v4"
        tensors = dict(named_tensors(get(report.root, "model_state_dict")))
        expected = {name: tuple(tensor.shape) for name, tensor in saved["model_state_dict"].items()}
        assert {name: tensor.shape for name, tensor in tensors.items()} == expected
        for storage in report.storages:
            assert sizes[f"c/data/{storage.key}"] == storage.nbytes

    @pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
    def test_all_dtypes_and_kinds(self, tmp_path):
        import torch

        names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
        names += ["complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"]
        saved = {name: torch.zeros(3).to(getattr(torch, name)) for name in names}
        saved["parameter"] = torch.nn.Parameter(torch.ones(2, 3))
        saved["view"] = torch.arange(20.0).reshape(4, 5).t()[1:3, ::2]
        saved["empty"] = torch.empty(0, 4)
        saved["scalar"] = torch.tensor(1.5)
        saved["sparse"] = torch.eye(3).to_sparse()
        saved["quantized"] = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
        saved["meta"] = torch.empty(7, device="meta")
        saved["storage"] = torch.ones(3).untyped_storage()
        marked = torch.ones(2)
        marked.mark = "attribute"
        saved["attribute"] = marked
        report, sizes = self.pickled(tmp_path, saved)
        assert report.problems == ()
        assert report.suspicious == ()
        tensors = dict(named_tensors(report.root))
        for name, value in saved.items():
            if isinstance(value, torch.Tensor) and not value.is_sparse:
                assert tensors[name].shape == tuple(value.shape), name
                assert tensors[name].dtype == str(value.dtype).replace("torch.", ""), name
                assert is_tensor(get(report.root, name)), name
        assert tensors["view"].bytes_needed() == (saved["view"].storage_offset() + 1 * 1 + 1 * 10 + 1) * 4
        for storage in report.storages:
            assert sizes[f"c/data/{storage.key}"] == storage.nbytes
        for tensor in report.tensors:
            assert tensor.storage is None or tensor.bytes_needed() <= tensor.storage.nbytes

    @pytest.mark.parametrize(
        "args",
        [
            "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI-4\ntQ",  # a negative number of elements
            "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\ntQ",  # too short
            "S'0'\nQ",
        ],
    )
    def test_storage_that_makes_no_sense(self, args):
        report = interpret(f"{args}.".encode())
        assert codes(report) == ["pickle_damaged"]

    @pytest.mark.parametrize("size", ["(I-1\nt(I1\nt", "(I3\nt(I1\nI1\nt", "S'x'\n(I1\nt"])
    def test_tensor_that_makes_no_sense(self, size):
        storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
        report = interpret(f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n{size}I00\nNtR.".encode())
        assert codes(report) == ["tensor_malformed"]


class TestNothingRuns:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_os_system(self, tmp_path, protocol):
        with canary(tmp_path / "canary") as command:
            report = interpret(pickle.dumps({"epoch": 3, "x": Evil(os.system, command)}, protocol))
        assert "posix.system" in report.dangerous
        assert [problem.severity for problem in report.problems if problem.code == "dangerous_pickle"] == ["error"]
        assert get(report.root, "epoch") == 3

    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (b"cos\nsystem\n(S'touch /x'\ntR.", "os.system"),
            (b"(S'touch /x'\nios\nsystem\n.", "os.system"),
            (b"(cos\nsystem\nS'touch /x'\no.", "os.system"),
            (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", "os.system"),
            (b"\x80\x04\x8c\x05torch\x8c\x10_utils.os.system\x93.", "torch._utils.os.system"),
            (b"\x80\x04}K\x01\x93.", ".<computed>"),
            (b"\x80\x02\x82\x01.", "copyreg extension 1"),
            (b"c__builtin__\neval\n.", "__builtin__.eval"),
            (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
            (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
            (b"cnumpy.testing._private.utils\nrunstring\n.", "numpy.testing._private.utils.runstring"),
            (b"csubprocess\nPopen\n0.", "subprocess.Popen"),
        ],
    )
    def test_ways_to_import(self, data, name):
        report = interpret(data)
        assert name in report.dangerous
        assert "dangerous_pickle" in codes(report)

    def test_import_in_front_of_damage_is_still_told(self):
        report = interpret(b"cos\nsystem\n(S'touch /x'\ntR\xff")
        assert report.dangerous == ("os.system",)
        assert set(codes(report)) == {"dangerous_pickle", "pickle_damaged"}

    def test_torch_allows_what_is_allowed(self):
        import torch._weights_only_unpickler as unpickler

        for path in unpickler._get_allowed_globals():
            module, _dot, name = path.rpartition(".")
            sparse = ".sparse." in path or "torch.cuda" in path
            assert classify(module, name) == ALLOWED or (sparse and name.endswith("Tensor")), path

    def test_classes_of_imports(self):
        assert classify("app.training.config", "TrainConfig") == SUSPICIOUS
        assert classify("numpy", "dtype") == SUSPICIOUS
        assert classify("pathlib", "PosixPath") == SUSPICIOUS
        assert classify("types", "SimpleNamespace") == SUSPICIOUS
        assert classify("types", "FunctionType") == DANGEROUS
        assert classify("torch", "load") == DANGEROUS
        assert classify("", "") == DANGEROUS

    def test_unknown_class_is_a_warning(self):
        report = interpret(b"capp.training\nState\n.")
        assert [(problem.code, problem.severity) for problem in report.problems] == [("unknown_globals", "warning")]

    def test_list_of_names_is_bounded(self):
        report = interpret(b"".join(b"cmodule%d\nname\n0" % index for index in range(1000)) + b"N.")
        assert len(report.suspicious) == MAX_NAMES
        assert len(report.problems[0].message) < 500


class TestDamage:
    def test_every_truncation(self):
        data = pickle.dumps({"epoch": 3, "list": [1, 2.5, "x"], "tuple": (1, 2)}, 2)
        for length in range(len(data)):
            report = interpret(data[:length], "member")
            assert not report.complete
            assert report.root is None
            assert codes(report) == ["pickle_damaged"]
            assert report.problems[0].member == "member"

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b".",
            b"0.",
            b"N0.",
            b"NN.",
            b"(.",
            b"N(.",
            b"t.",
            b"]a.",
            b"}K\x01s.",
            b"}(K\x01u.",
            b"K\x01K\x02a.",
            b"K\x01(K\x02K\x03u.",
            b"h\x05.",
            b"q\x05.",
            b"R.",
            b"(o.",
            b"\x80\x09N.",
            b"\xffN.",
            b"I12x\n.",
            b"cos.",
        ],
    )
    def test_opcodes_that_make_no_sense(self, data):
        report = interpret(data)
        assert "pickle_damaged" in codes(report)
        assert not report.complete

    def test_length_that_is_a_lie_takes_no_memory(self):
        for opcode in (
            b"X\xff\xff\xff\xff",
            b"\x8d" + b"\xff" * 7 + b"\x7f",
            b"\x8b\xff\xff\xff\x7f",
            b"\x8e" + b"\xff" * 7 + b"\x7f",
        ):
            assert codes(interpret(b"\x80\x04" + opcode + b"abc")) == ["pickle_damaged"]
        source = Source(lambda offset, length: b"\x80\x02X\xff\xff\xff\xff"[offset:][:length])
        assert codes(interpret(source)) == ["pickle_damaged"]

    def test_long_line_is_cut(self):
        begun = time.monotonic()
        report = interpret(b"L" + b"9" * 10_000_000 + b"L\n.")
        assert not report.complete
        assert time.monotonic() - begun < 2

    def test_too_many_opcodes(self, monkeypatch):
        monkeypatch.setattr(_pickle, "MAX_OPCODES", 100)
        assert codes(interpret(b"N0" * 200 + b"N.")) == ["pickle_too_large"]

    def test_copies_without_end(self, monkeypatch):
        monkeypatch.setattr(_pickle, "MAX_WEIGHT", 500_000)
        pairs = b"(" + b"K\x01K\x02\x86" * 100 + b"l\x85q\x010"
        data = b"\x80\x02ccollections\nOrderedDict\nq\x000" + pairs + b"h\x00h\x01R0" * 100 + b"N."
        assert codes(interpret(data)) == ["pickle_too_large"]

    def test_too_many_bytes(self):
        data = pickle.dumps("x" * 5000)
        assert codes(interpret(Source(data, limit=1000))) == ["pickle_too_large"]
        pulled = Source(lambda offset, length: data[offset : offset + length], limit=1000)
        assert codes(interpret(pulled)) == ["pickle_too_large"]

    def test_deep_nesting_and_many_shared_parts(self):
        for data in (b"]" * 100_000 + b"a" * 99_999 + b".", b")" + b"\x85" * 100_000 + b"."):
            report = interpret(data)
            assert report.complete
            assert list(named_tensors(report.root)) == []
        # 2**60 tuples for a reader that looks at each use of a shared one
        report = interpret(b")" + b"2\x86" * 60 + b".")
        begun = time.monotonic()
        assert list(named_tensors(report.root)) == []
        assert time.monotonic() - begun < 1

    def test_many_things_appended_to_a_call(self):
        report = interpret(b"capp\nX\n)R(" + b"K\x01" * 50_000 + b"e" + b"K\x01a" * 50_000 + b".")
        assert report.complete


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
def test_random_bytes_never_crash(data):
    report = interpret(data)
    assert report.complete or "pickle_damaged" in codes(report) or "pickle_too_large" in codes(report)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    st.integers(0, 5),
)
def test_whatever_python_pickles_is_understood(data, protocol):
    report = interpret(pickle.dumps(data, protocol))
    assert report.complete
    assert report.problems == ()


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_flips_in_a_real_pickle_never_crash(tmp_path):
    path = save(tmp_path / "c.pth")
    with zipfile.ZipFile(path) as archive:
        data = archive.read("c/data.pkl")
    chance = random.Random(2)
    for _ in range(300):
        damaged = bytearray(data)
        for _again in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        report = interpret(bytes(damaged))
        list(named_tensors(report.root))
        keys(report.root)


def test_struct_of_the_legacy_magic():
    from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import LEGACY_MAGIC

    number = 0x1950A86A20F9469CFC6C
    assert pickle.dumps(number, 2) == LEGACY_MAGIC
    assert interpret(LEGACY_MAGIC).root == number
    assert struct.pack("<Q", number & (1 << 64) - 1) == LEGACY_MAGIC[4:12]

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files made to take time or memory without end: each is answered with a clear problem, in bounded time and memory.

Each runs in a bare interpreter of its own, the oldest that nodes may have, as the peak of memory is that of a process.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from typing import Callable, Dict, Optional, Set

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import MAX_MEMBERS

# Cases have short names: older releases of pytest put the whole name into the environment of what a test starts.
pytestmark = pytest.mark.soak

SECONDS = 5
MEBIBYTES = 256
OPCODES = 10_000_000

CHILD = """
import json, re, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
function, path = sys.argv[1:]
base = "ansible_collections.ringrift.recovery.plugins.module_utils."
verify = __import__(base + "_checkpoint", fromlist=["verify"]).verify
inspect = __import__(base + "_npz", fromlist=["inspect"]).inspect
begun = time.monotonic()
report = verify(path) if function == "verify" else inspect(path, depth=function)
text = json.dumps(report.as_dict())
seconds = time.monotonic() - begun
peak = re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()).group(1)
print(json.dumps({
    "errors": [problem.code for problem in report.problems if problem.severity == "error"],
    "messages": [problem.message for problem in report.problems],
    "length": len(text),
    # A busy machine makes it wait, several threads use more than the time that passes.
    "seconds": min(seconds, time.process_time()),
    "mebibytes": int(peak) // 1024,
}))
"""


@functools.lru_cache(maxsize=1)
def oldest_python() -> str:
    """The oldest interpreter that nodes may have, where this machine has it."""
    pyenv = pathlib.Path("~/.pyenv/versions").expanduser().glob("3.8.*/bin/python")
    for place in (*map(str, pyenv), shutil.which("python3.8")):
        if place and subprocess.run([place, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return place
    return sys.executable


@pytest.fixture
def look(root):
    """Look at a file in a process of its own: one of the ``expected`` errors is found, and the bounds hold."""

    def run(path: pathlib.Path, expected: Optional[Set[str]], function: str = "verify") -> Dict:
        result = subprocess.run(
            [oldest_python(), "-c", CHILD, function, str(path)],
            env={**os.environ, "PYTHONPATH": str(root / "playbooks" / "collections")},
            stdout=subprocess.PIPE,
            timeout=120,
            check=True,
        )
        report = json.loads(result.stdout)
        size = path.stat().st_size
        if size > 1 << 20:
            path.unlink()
        print(f"{report['seconds']:.2f} s, {report['mebibytes']} MiB, {report['errors'][:3]}")
        assert expected is None or set(report["errors"]) & expected, report["messages"][:5]
        # Generous, for busy machines: this is to notice what hangs.
        assert report["seconds"] < 2 * SECONDS
        assert report["mebibytes"] < MEBIBYTES
        assert report["length"] < 200_000
        return report

    return run


def stored(path: pathlib.Path, members: Dict[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def torch_zip(path: pathlib.Path, data: bytes, **members: bytes) -> pathlib.Path:
    return stored(
        path, {"c/data.pkl": data, "c/version": b"3\n", **{f"c/{name}": raw for name, raw in members.items()}}
    )


def torch_legacy(path: pathlib.Path, data: bytes) -> pathlib.Path:
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    path.write_bytes(b"".join([*parts, data, pickle.dumps([], 2)]))
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04t"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\nq\x010" + STORAGE + b"q\x020"
REBUILD = b"h\x01(h\x02QK\x00(K\x04t(K\x01t\x89Nt"


def times(code: bytes, each: int = 1) -> bytes:
    """``code``, which is so many opcodes, as often as makes ten million."""
    return code * (OPCODES // each)


FLOODS: Dict[str, Callable[[], bytes]] = {
    "empty_list": lambda: times(b"]"),
    "empty_dict": lambda: times(b"}"),
    "mark": lambda: times(b"("),
    "mark_and_pop": lambda: times(b"(1", 2),
    "tuple_in_tuple": lambda: b")" + times(b"\x85"),
    "tuple_doubled": lambda: b")" + times(b"2\x86", 2),
    "memoize": lambda: b"\x80\x04N" + times(b"\x94"),
    "get": lambda: b"]q\x00" + times(b"h\x00"),
    "texts": lambda: times(b"X\x01\0\0\0x"),
    "append_itself": lambda: b"]q\x00" + times(b"h\x00a", 2) + b".",
    "setitems": lambda: b"}(" + times(b"K\x01N", 1) + b"u.",
    "reduce": lambda: b"capp\nX\nq\x000" + times(b"h\x00)R0", 4),
    "build_itself": lambda: b"\x80\x02capp\nX\n)\x81q\x00" + times(b"h\x00b", 2) + b".",
    "one_storage_kept": lambda: b"\x80\x02" + STORAGE + b"q\x000" + times(b"h\x00Q", 2),
    "unknown_storages": lambda: times(b"NQ0", 3),
    "one_tensor": lambda: b"\x80\x02" + TENSOR + b"]" + times(REBUILD + b"Ra", 16) + b".",
    "names": lambda: times(b"ca\nb\n0", 2),
    "extensions": lambda: b"\x80\x02" + times(b"\x82\x010", 2),
    "frames": lambda: b"\x80\x04" + times(b"\x95" + bytes(8), 4),
    "dicts_of_pairs": lambda: (
        b"\x80\x02ccollections\nOrderedDict\nq\x000("
        + b"K\x01K\x02\x86" * 1000
        + b"l\x85q\x010"
        + times(b"h\x00h\x01R0", 4)
    ),
}


@pytest.mark.parametrize("name", FLOODS if os.environ.get("SOAK") else sorted(FLOODS)[::6])
def test_ten_million_opcodes(tmp_path, look, name):
    write = torch_legacy if len(name) % 2 else torch_zip
    look(write(tmp_path / "c.pth", FLOODS[name]()), {"pickle_too_large", "pickle_damaged", "dangerous_pickle"})


class TestPickles:
    def deep(self, levels: int) -> bytes:
        """Dicts in dicts under a name of 60,000 characters, tensors in the innermost."""
        key = b"\x80\x02" + TENSOR + text("k" * 60_000) + b"q\x000"
        leaf = b"}" + b"".join(text(str(index)) + REBUILD + b"Rs" for index in range(200))
        return key + b"}h\x00" * levels + leaf + b"s" * levels + b"."

    def test_recursive_memo(self, tmp_path, look):
        for number, data in enumerate(
            (
                b")" + b"2\x86" * 100_000 + b".",
                b"]q\x00" + b"h\x00a" * 100_000 + b".",
                b"}q\x00" + b"".join(text(str(index)) + b"h\x00s" for index in range(20_000)) + b".",
                # The innermost tensor has 2**60 names.
                b"\x80\x02"
                + TENSOR
                + b"}"
                + text("a")
                + REBUILD
                + b"Rs"
                + b"".join(b"q\x030}" + text("a") + b"h\x03s" + text("b") + b"h\x03s" for _level in range(60))
                + b".",
                b"\x80\x02ccollections\nOrderedDict\n)Rq\x00" + text("a") + b"h\x00sh\x00b.",
            )
        ):
            look(torch_zip(tmp_path / f"{number}.pth", data), {"storage_missing"} if b"_rebuild" in data else None)

    @pytest.mark.parametrize("levels", [100, 2000])
    def test_names_that_grow_with_depth(self, tmp_path, look, levels):
        look(torch_zip(tmp_path / "c.pth", self.deep(levels)), {"storage_missing"})

    @pytest.mark.parametrize(
        "claim",
        [
            b"X\xff\xff\xff\xff",
            b"\x8d" + b"\xff" * 7 + b"\x3f",
            b"B\xff\xff\xff\xff",
            b"\x8e" + b"\xff" * 7 + b"\x3f",
            b"\x96" + b"\xff" * 7 + b"\x3f",
            b"T\xff\xff\xff\x7f",
            b"\x8b\xff\xff\xff\x7f",
            b"\x95" + b"\xff" * 8,
        ],
    )
    def test_argument_of_claimed_length(self, tmp_path, look, claim):
        look(torch_zip(tmp_path / "c.pth", b"\x80\x05" + claim + b"abc."), {"pickle_damaged"})

    @pytest.mark.parametrize("claim", [b"X" + struct.pack("<I", 256 << 20), b"\x8e" + struct.pack("<Q", 256 << 20)])
    def test_argument_of_real_length(self, tmp_path, look, claim):
        path = torch_legacy(tmp_path / "c.pth", b"")
        head = path.read_bytes()[: -len(pickle.dumps([], 2))]
        with path.open("wb") as out:
            out.write(head + b"\x80\x04" + claim)
            out.seek(256 << 20, os.SEEK_CUR)
            out.write(b"." + pickle.dumps([], 2))
        look(path, {"pickle_too_large", "pickle_damaged"})

    @pytest.mark.parametrize(
        "line",
        [
            b"L" + b"9" * 20_000_000 + b"L\n.",
            b"V" + b"x" * 20_000_000 + b"\n.",
            b"S'" + b"x" * 20_000_000 + b"'\n.",
            b"c" + b"x" * 20_000_000 + b"\ny\n.",
        ],
        ids=["integer", "unicode", "string", "name"],
    )
    def test_line_without_end(self, tmp_path, look, line):
        look(torch_legacy(tmp_path / "c.pth", line), {"pickle_too_large", "pickle_damaged"})

    def test_integers_of_many_digits(self, tmp_path, look):
        """Each takes time that grows with the square of its length."""
        data = (b"L" + b"9" * 8000 + b"L\n0") * 2000 + (b"\x8a\xff" + b"\x7f" * 255 + b"0") * 100_000
        look(torch_legacy(tmp_path / "c.pth", data), {"pickle_damaged"})

    @pytest.mark.parametrize(
        ("size", "stride"),
        [
            (b"(" + b"\x8a\x08" + b"\xff" * 7 + b"\x7ft", b"(K\x01t"),
            (b"(" + (b"\x8a\x08" + b"\xff" * 7 + b"\x7f") * 64 + b"t", b"(" + b"K\x01" * 64 + b"t"),
            (b"(" + b"K\x02" * 100_000 + b"t", b"(" + b"K\x01" * 100_000 + b"t"),
            (b"(J\xff\xff\xff\xfft", b"(K\x01t"),
            (b"(\x8a\xff" + b"\x7f" * 255 + b"t", b"(K\x01t"),
            (b"(K\x04t", b"(\x8a\x08" + b"\xff" * 7 + b"\x7ft"),
        ],
        ids=["huge", "huge_64_times", "100000_axes", "negative", "of_many_digits", "huge_stride"],
    )
    def test_absurd_shape(self, tmp_path, look, size, stride):
        data = b"\x80\x02" + TENSOR + b"h\x01(h\x02QK\x00" + size + stride + b"\x89NtR."
        path = torch_zip(tmp_path / "c.pth", data, **{"data/0": bytes(16)})
        look(path, {"tensor_malformed", "tensor_out_of_bounds"})

    def test_absurd_storage(self, tmp_path, look):
        storage = STORAGE.replace(b"K\x04", b"\x8a\x08" + b"\xff" * 7 + b"\x7f")
        data = b"\x80\x02" + TENSOR.replace(STORAGE, storage) + REBUILD + b"R."
        for write in (
            lambda path: torch_zip(path, data, **{"data/0": bytes(16)}),
            lambda path: torch_legacy(path, data),
        ):
            look(write(tmp_path / "c.pth"), {"storage_size_mismatch", "storage_missing", "truncated"})

    def test_storages_without_end(self, tmp_path, look):
        head, tail = STORAGE.split(text("0"))
        data = b"\x80\x02" + b"".join(head + text(str(index)) + tail + b"Q0" for index in range(300_000)) + b"N."
        look(torch_zip(tmp_path / "c.pth", data), {"pickle_too_large", "storage_missing"})

    def test_storage_key_that_leads_out(self, tmp_path, look):
        for key in ("../../../etc/passwd", "/etc/passwd", "..", "\x00", "k" * 60_000):
            data = b"\x80\x02" + TENSOR.replace(text("0"), text(key)) + REBUILD + b"R."
            report = look(torch_zip(tmp_path / "c.pth", data), {"storage_missing"})
            assert report["length"] < 5000


def bomb(mebibytes: int) -> tuple:
    """A deflate stream of a thousand to one, its checksum and length; quick to make, as its blocks are all the same."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = engine.compress(b"N" * (1 << 20)) + engine.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(mebibytes):
        crc = zlib.crc32(b"N" * (1 << 20), crc)
    return block * mebibytes + engine.flush(), crc, mebibytes << 20


def handmade(path: pathlib.Path, members: list) -> pathlib.Path:
    """A zip64 file of ``(name, method, packed, crc, size)``."""
    body, directory = bytearray(), bytearray()
    for name, method, packed, crc, size in members:
        at = len(body)
        shared = (0x800, method, 0, 0, crc, len(packed), size, len(name))
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, *shared, 0) + name + packed
        directory += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, *shared, 0, 0, 0, 0, 0, at) + name
    count, begin, end = len(members), len(body), len(body) + len(directory)
    wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), begin)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    narrow = min(count, 0xFFFF)
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, narrow, narrow, len(directory), begin, 0)
    path.write_bytes(bytes(body + directory) + wide + locator + tail)
    return path


VERSION = (b"c/version", 0, b"3\n", zlib.crc32(b"3\n"), 2)
PICKLE = (b"c/data.pkl", 0, pickle.dumps({"epoch": 1}, 2), zlib.crc32(pickle.dumps({"epoch": 1}, 2)), 0)
PICKLE = (*PICKLE[:4], len(PICKLE[2]))


class TestContainers:
    @pytest.mark.parametrize("mebibytes", [200, 2000])
    @pytest.mark.parametrize("name", [b"c/data.pkl", b"c/data/0", b"c/version", b"c/extra", b"other.zip"])
    def test_compressed_bomb(self, tmp_path, look, mebibytes, name):
        others = [member for member in (PICKLE, VERSION) if member[0] != name]
        path = handmade(tmp_path / "c.pth", [*others, (name, 8, *bomb(mebibytes))])
        look(path, {"compression_bomb", "pickle_too_large", "pickle_damaged", "record_damaged", "storage_unused"})

    def test_many_small_bombs(self, tmp_path, look):
        packed = bomb(10)
        members = [(b"c/data/%d" % index, 8, *packed) for index in range(500)]
        look(handmade(tmp_path / "c.pth", [PICKLE, VERSION, *members]), {"compression_bomb", "storage_unused"})

    def test_nested_bomb(self, tmp_path, look):
        data = bytes(1 << 20)
        for level in range(6):
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
                for index in range(16):
                    archive.writestr(f"{level}-{index}.zip", data)
            data = inner.getvalue()
        path = tmp_path / "c.pth"
        path.write_bytes(data)
        look(path, {"unknown_format", "compression_bomb"})
        look(torch_zip(tmp_path / "d.pth", data, **{"inner.zip": data}), {"pickle_damaged"})

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (b"c/data/%d", {"storage_unused", "too_many_members"}),
            (b"c/data/0", {"duplicate_member"}),
            (b"../%d", {"unsafe_name"}),
            (b"c/data/%d/", {"directory_damaged"}),
            (b"c/%d" + b"A" * 100 + "\U0001f600".encode(), None),
            (b"c/%d" + "\U0001f600".encode() * 20, None),
            (b"\xff%d", {"unsafe_name"}),
        ],
        ids=["unused", "one_name", "outside", "directories", "long_names", "wide_names", "no_names"],
    )
    def test_as_many_members_as_are_examined(self, tmp_path, look, name, expected):
        crc = zlib.crc32(b"x")
        members = [(name % index if b"%" in name else name, 0, b"x", crc, 1) for index in range(MAX_MEMBERS - 2)]
        look(handmade(tmp_path / "c.pth", [PICKLE, VERSION, *members]), expected)

    def test_more_members_than_are_examined(self, tmp_path, look):
        members = [(b"c/data/%d" % index, 0, b"", 0, 0) for index in range(MAX_MEMBERS + 1)]
        look(handmade(tmp_path / "c.pth", members), {"too_many_members"})

    def test_directory_of_long_names(self, tmp_path, look):
        members = [(b"c/%d" % index + b"A" * 65_000 + "\U0001f600".encode(), 0, b"", 0, 0) for index in range(500)]
        look(handmade(tmp_path / "c.pth", members), {"too_many_members"})
        look(handmade(tmp_path / "c.pth", [PICKLE, VERSION, *members[:250]]), None)

    def test_tar_of_many_members(self, tmp_path, look):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo("sys_info"))
        header = data.getvalue()[:512]
        path = tmp_path / "c.pth"
        path.write_bytes(header * 100_000 + bytes(1024))
        look(path, {"unknown_format", "record_missing"})


class TestSafetensors:
    def put(self, path: pathlib.Path, header: bytes) -> pathlib.Path:
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        return path

    @pytest.mark.parametrize(
        "header",
        [
            b'{"a":[' + b"[]," * 5_000_000 + b"[]]}",
            b'{"a":[' + b"{}," * 5_000_000 + b"{}]}",
            b'{"a":[' + b'"",' * 5_000_000 + b'""]}',
            b'{"a":[' + b"1.5," * 4_000_000 + b"1]}",
            b'{"a":' + b"[" * 15_000_000,
            b'{"a":' * 3_000_000,
            b"{" + b",".join(b'"%d":{}' % index for index in range(1_300_000)) + b"}",
            b"{" + b",".join(b'"%x":0' % index for index in range(1_500_000)) + b"}",
            b'{"a":' + b"9" * 16_000_000 + b"}",
            b'{"' + b"\\u00e9" * 2_500_000 + b'":1}',
            b'{"' + b"a" * 15_000_000 + b'":{}}',
            b'{"a":{"dtype":"F32","shape":[' + b"1," * 7_000_000 + b'1],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,9223372036854775807]}}',
            b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[4,0]}}',
            b" " * 16_000_000 + b"{}",
            b"{" + b" " * 16_000_000 + b"}x",
        ],
        ids=lambda header: header[:12].decode(),
    )
    def test_header_of_many_things(self, tmp_path, look, header):
        expected = {"header_damaged", "header_too_large", "storage_size_mismatch", "unknown_format"}
        look(self.put(tmp_path / "c.safetensors", header), expected)

    def test_length_that_is_a_lie(self, tmp_path, look):
        for length in (17 << 20, 99_000_000, 1 << 62):
            path = tmp_path / "c.safetensors"
            path.write_bytes(struct.pack("<Q", length) + b"{" + bytes(1000))
            look(path, {"truncated", "unknown_format", "header_too_large"})


def npy(header: bytes, data: bytes = b"") -> bytes:
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    if len(header) > 0xFFFF:
        return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + data
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def described(shape: bytes, descr: bytes = b"'<f4'") -> bytes:
    return b"{'descr': " + descr + b", 'fortran_order': False, 'shape': " + shape + b", }"


class TestArrays:
    @pytest.mark.parametrize(
        "header",
        [
            described(b"(9223372036854775807,)"),
            described(b"(" + b"4294967296," * 32 + b")"),
            described(b"(" + b"1," * 20_000 + b")"),
            described(b"(-1,)"),
            described(b"(1" + b"0" * 5000 + b",)"),
            described(b"(0,9223372036854775807)", b"'|O'"),
            described(b"(9223372036854775807,)", b"'|O'"),
            described(b"(" * 5000),
            described(b"(1,)", b"'<f" + b"9" * 5000 + b"'"),
            described(b"(1,)", b"'|V2147483647'"),
            described(b"(1,)", b"[" + b"('a','<f4')," * 5000 + b"]"),
            b"[" * 60_000,
            b"{'descr': " + b"-" * 9000 + b"1}",
            b"(" * 900_000,
            b"{" + b"'a':1," * 150_000 + b"}",
        ],
        ids=lambda header: header[:80].decode(),
    )
    @pytest.mark.parametrize("function", ["quick", "full"])
    def test_absurd_header(self, tmp_path, look, header, function):
        path = stored(tmp_path / "c.npz", {"features.npy": npy(header, bytes(1000)), "values.npy": npy(header)})
        look(path, {"implausible_shape", "header_damaged", "unknown_dtype", "wrong_dtype"}, function)

    def test_objects_without_end(self, tmp_path, look):
        data = npy(described(b"(1000000,)", b"'|O'"), b"\x80\x04" + b"]" * 10_000_000 + b".")
        path = stored(tmp_path / "c.npz", {"features.npy": data, "values.npy": data})
        look(path, {"wrong_dtype"}, "full")

    def test_bomb(self, tmp_path, look):
        packed, crc, size = bomb(1000)
        path = handmade(tmp_path / "c.npz", [(b"features.npy", 8, packed, crc, size)])
        look(path, {"header_damaged"}, "full")

    def test_shape_that_no_compression_explains(self, tmp_path, look):
        header = npy(described(b"(268435456,)"))
        engine = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = engine.compress(header + bytes(1000)) + engine.flush()
        size = len(header) + (4 << 28)
        members = [(name, 8, packed, 0, size) for name in (b"features.npy", b"values.npy")]
        look(handmade(tmp_path / "c.npz", members), {"length_mismatch"}, "full")

    @pytest.mark.parametrize("name", [b"%d.npy", b"%d", b"../%d.npy", b"features.npy"])
    def test_as_many_members_as_are_examined(self, tmp_path, look, name):
        data = npy(described(b"(1,)"), bytes(4))
        crc = zlib.crc32(data)
        members = [(name % index if b"%" in name else name, 0, data, crc, len(data)) for index in range(99_999)]
        look(handmade(tmp_path / "c.npz", members), {"too_many_members", "unsafe_name", "duplicate_member"}, "full")

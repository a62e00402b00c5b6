# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that make readers disagree: what zipfile and torch make of each, and that ours calls it an error."""

from __future__ import annotations

import io
import pathlib
import pickle
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any, List, Optional

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import open_container

from tests.unit.checkpoint_files import content, save

LONG = 0xFFFFFFFF


@dataclass
class Part:
    """A member; what is None is the same in directory and local header, and true."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0
    local_name: Optional[bytes] = None
    local_flags: Optional[int] = None
    local_method: Optional[int] = None
    local_crc: Optional[int] = None
    local_size: Optional[int] = None
    local_compressed: Optional[int] = None
    size: Optional[int] = None
    compressed: Optional[int] = None
    offset: Optional[int] = None
    extra: bytes = b""
    local_extra: bytes = b""
    attributes: int = 0
    before: bytes = b""
    listed: bool = True


@dataclass
class Archive:
    """A zip file, written by hand."""

    parts: List[Part] = field(default_factory=list)
    before_directory: bytes = b""
    comment: bytes = b""
    comment_length: Optional[int] = None
    behind: bytes = b""

    def pack(self) -> bytes:
        body, directory, count = bytearray(), bytearray(), 0
        for part in self.parts:
            body += part.before
            at = len(body)
            packed = part.data
            if part.method == zipfile.ZIP_DEFLATED:
                engine = zlib.compressobj(9, zlib.DEFLATED, -15)
                packed = engine.compress(part.data) + engine.flush()
            crc = zlib.crc32(part.data)
            name = part.name if part.local_name is None else part.local_name
            body += struct.pack(
                "<4s5H3I2H",
                *(b"PK\x03\x04", 20, part.flags if part.local_flags is None else part.local_flags),
                *(part.method if part.local_method is None else part.local_method, 0, 0),
                crc if part.local_crc is None else part.local_crc,
                len(packed) if part.local_compressed is None else part.local_compressed,
                len(part.data) if part.local_size is None else part.local_size,
                *(len(name), len(part.local_extra)),
            )
            body += name + part.local_extra + packed
            if not part.listed:
                continue
            count += 1
            directory += struct.pack(
                "<4s6H3I5H2I",
                *(b"PK\x01\x02", 20, 20, part.flags, part.method, 0, 0, crc),
                len(packed) if part.compressed is None else part.compressed,
                len(part.data) if part.size is None else part.size,
                *(len(part.name), len(part.extra), 0, 0, 0, part.attributes),
                at if part.offset is None else part.offset,
            )
            directory += part.name + part.extra
        body += self.before_directory
        length = len(self.comment) if self.comment_length is None else self.comment_length
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), length)
        return bytes(body + directory + end + self.comment + self.behind)


GOOD = pickle.dumps({"epoch": 1}, 2)
OTHER = pickle.dumps({"epoch": 2}, 2)


def checkpoint(**changes: Any) -> Archive:
    """A small torch file; ``changes`` are those of its ``data.pkl``."""
    return Archive([Part(b"c/data.pkl", GOOD, **changes), Part(b"c/version", b"3\n")])


def array(count: int = 200) -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % count
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(4 * count)


def npz(**changes: Any) -> Archive:
    """A small training file; ``changes`` are those of its ``features``."""
    return Archive([Part(b"features.npy", array(), **changes), Part(b"values.npy", array())])


@pytest.fixture
def put(tmp_path):
    def write(archive, name: str = "c.pth") -> pathlib.Path:
        path = tmp_path / name
        path.write_bytes(archive if isinstance(archive, bytes) else archive.pack())
        return path

    return write


def errors(report) -> set:
    return {problem.code for problem in report.problems if problem.severity == "error"}


def by_python(path: pathlib.Path, name: str = "c/data.pkl") -> Optional[bytes]:
    """What zipfile reads, None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.read(name)
        except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, OSError, EOFError, zlib.error):
            return None


def by_torch(path: pathlib.Path, name: str = "data.pkl") -> Optional[bytes]:
    """What torch reads, None where it refuses."""
    import torch

    try:
        return torch._C.PyTorchFileReader(str(path)).get_record(name)
    except RuntimeError:
        return None


def test_the_archives_of_this_test_are_whole(put):
    path = put(checkpoint())
    assert open_container(str(path)).problems == ()
    assert verify(str(path)).valid
    assert by_python(path) == by_torch(path) == GOOD
    assert inspect(str(put(npz(), "c.npz")), depth="full").valid


class TestNames:
    def test_twice_in_the_directory(self, put):
        for first, second in ((GOOD, OTHER), (OTHER, GOOD)):
            path = put(Archive([Part(b"c/data.pkl", first), Part(b"c/data.pkl", second), Part(b"c/version", b"3\n")]))
            assert by_python(path) == second
            assert by_torch(path) in (first, second)
            assert "duplicate_member" in errors(verify(str(path)))
        path = put(Archive([Part(b"values.npy", array()), *npz().parts]), "c.npz")
        assert "duplicate_member" in errors(inspect(str(path)))

    def test_twice_but_for_upper_and_lower_case(self, put):
        """torch takes whichever its search meets first."""
        path = put(Archive([Part(b"c/DATA.PKL", OTHER), Part(b"c/data.pkl", GOOD), Part(b"c/version", b"3\n")]))
        assert by_python(path) == GOOD
        assert by_torch(path) == OTHER
        assert "duplicate_member" in errors(verify(str(path)))

    def test_arrays_that_differ_in_case_are_two_for_numpy(self, put):
        path = put(Archive([*npz().parts, Part(b"Values.npy", array())]), "c.npz")
        assert by_python(path, "Values.npy") == by_python(path, "values.npy")
        assert inspect(str(path), depth="full").valid

    def test_twice_in_two_encodings(self, put):
        """0x82 is é in the old encoding."""
        parts = [Part(b"\x82.npy", array()), Part("é.npy".encode(), array(), flags=0x800)]
        path = put(Archive([*npz().parts, *parts]), "c.npz")
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist().count("é.npy") == 2
        assert "duplicate_member" in errors(inspect(str(path)))

    def test_same_bytes_in_two_encodings(self, put):
        raw = "c/é".encode()
        path = put(Archive([*checkpoint().parts, Part(raw, b"1", flags=0x800), Part(raw, b"2")]))
        assert "duplicate_member" in errors(verify(str(path)))

    def test_another_name_in_the_local_header(self, put):
        path = put(checkpoint(local_name=b"c/datap.kl"))
        assert by_python(path) is None
        assert by_torch(path) == GOOD
        assert "local_header_mismatch" in errors(verify(str(path)))
        path = put(npz(local_name=b"features.nqy"), "c.npz")
        assert "local_header_mismatch" in errors(inspect(str(path)))

    def test_another_name_in_an_extra_field(self, put):
        """Newer versions of Python take it, torch and older ones do not."""
        other = b"c/other.pkl"
        extra = struct.pack("<2HBI", 0x7075, 5 + len(other), 1, zlib.crc32(b"c/data.pkl")) + other
        path = put(checkpoint(extra=extra))
        assert by_torch(path) == GOOD
        assert "unsafe_name" in errors(verify(str(path)))
        other = b"values2.npy"
        extra = struct.pack("<2HBI", 0x7075, 5 + len(other), 1, zlib.crc32(b"features.npy")) + other
        assert "unsafe_name" in errors(inspect(str(put(npz(extra=extra), "c.npz"))))

    def test_same_name_in_an_extra_field(self, put):
        name = b"c/data.pkl"
        extra = struct.pack("<2HBI", 0x7075, 5 + len(name), 1, zlib.crc32(name)) + name
        assert verify(str(put(checkpoint(extra=extra)))).valid

    @pytest.mark.parametrize(
        "name",
        [
            *(
                b"../evil",
                b"c/../../evil",
                b"/etc/evil",
                b"\\\\host\\evil",
                b"C:evil",
                b"c\\evil",
                b"c/..\\evil",
                b"..",
            ),
            *(b"c/evil\x00.txt", b"c/evil\n", b"c/\x1b[2Jevil", b"c/\x7f", b""),
        ],
    )
    def test_name_that_leads_out_or_hides(self, put, name):
        path = put(Archive([*checkpoint().parts, Part(name, b"evil")]))
        assert "unsafe_name" in errors(verify(str(path)))
        assert all(member.name.startswith("c/") for member in open_container(str(path)).members)
        path = put(Archive([*npz().parts, Part(name, array())]), "c.npz")
        assert "unsafe_name" in errors(inspect(str(path)))

    def test_name_that_zipfile_cuts_at_nul(self, put):
        path = put(Archive([Part(b"c/data.pkl\x00.txt", OTHER), Part(b"c/version", b"3\n")]))
        assert by_python(path) == OTHER
        assert by_torch(path) is None
        assert "unsafe_name" in errors(verify(str(path)))

    def test_name_that_is_not_utf8_but_says_so(self, put):
        path = put(Archive([*checkpoint().parts, Part(b"c/\xff\xfe", b"1", flags=0x800)]))
        assert "unsafe_name" in errors(verify(str(path)))


class TestFlagsAndMethods:
    @pytest.mark.parametrize("bit", [0x0001, 0x0020, 0x0040, 0x2000])
    def test_flag_that_torch_ignores_and_zipfile_does_not(self, put, bit):
        path = put(checkpoint(flags=bit))
        assert by_torch(path) in (None, GOOD)
        assert "encrypted_member" in errors(verify(str(path)))
        assert "encrypted_member" in errors(inspect(str(put(npz(flags=bit), "c.npz"))))

    @pytest.mark.parametrize("bit", [0x0001, 0x0008, 0x0020, 0x0040, 0x0800, 0x1000, 0x2000])
    @pytest.mark.parametrize("where", ["flags", "local_flags"])
    def test_flag_in_one_place_only(self, put, bit, where):
        changes = {"flags": 0, "local_flags": 0, where: bit}
        path = put(checkpoint(**changes))
        assert by_torch(path) in (None, GOOD)
        assert {"local_header_mismatch", "encrypted_member"} & errors(verify(str(path)))
        path = put(npz(**changes), "c.npz")
        assert {"local_header_mismatch", "encrypted_member"} & errors(inspect(str(path)))

    def test_how_hard_it_was_compressed_does_not_matter(self, put):
        assert verify(str(put(checkpoint(method=8, flags=2, local_flags=4)))).valid

    def test_another_method_in_the_local_header(self, put):
        """What a reader gets that goes by the local header is another content."""
        for method, local in ((0, 8), (8, 0)):
            path = put(checkpoint(method=method, local_method=local))
            assert by_python(path) == by_torch(path) == GOOD
            assert "local_header_mismatch" in errors(verify(str(path)))
        assert "local_header_mismatch" in errors(inspect(str(put(npz(local_method=8), "c.npz"))))

    @pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 20, 93, 95, 98, 99])
    def test_method_of_another_packer(self, put, method):
        path = put(checkpoint(method=method))
        assert by_torch(path) is None
        assert "unsupported_compression" in errors(verify(str(path)))
        assert "unsupported_compression" in errors(inspect(str(put(npz(method=method), "c.npz"))))


class TestSizes:
    @pytest.mark.parametrize(
        "changes",
        [
            {"local_crc": 1},
            {"local_size": 5},
            {"local_compressed": 5},
            {"local_size": LONG, "local_compressed": LONG},
            {"local_size": LONG - 1, "local_compressed": LONG - 1},
            {"local_extra": struct.pack("<2H2Q", 1, 16, 5, 5)},
            {"local_size": LONG, "local_compressed": LONG, "local_extra": struct.pack("<2H2Q", 1, 16, 5, 5)},
            {"local_size": LONG, "local_compressed": LONG, "local_extra": struct.pack("<2HQ", 1, 8, len(GOOD))},
        ],
    )
    def test_local_header_says_something_else(self, put, changes):
        path = put(checkpoint(**changes))
        assert by_torch(path) in (None, GOOD)
        assert "local_header_mismatch" in errors(verify(str(path)))
        assert "local_header_mismatch" in errors(inspect(str(put(npz(**changes), "c.npz"))))

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"extra": struct.pack("<2H2Q", 1, 16, 5, 5)}, "directory_damaged"),
            ({"extra": struct.pack("<2HQ", 1, 8, 5)}, "directory_damaged"),
            ({"extra": struct.pack("<2H3Q", 1, 24, len(GOOD), len(GOOD), 7)}, "directory_damaged"),
            ({"extra": struct.pack("<2HQ2HQ", 1, 8, 5, 1, 8, 6), "size": LONG}, "directory_damaged"),
            ({"extra": struct.pack("<2HQ", 1, 800, 5)}, "directory_damaged"),
            ({"size": LONG, "compressed": LONG}, "directory_damaged"),
            ({"size": LONG, "compressed": LONG, "extra": struct.pack("<2HQ", 1, 8, 5)}, "directory_damaged"),
            ({"offset": LONG, "extra": struct.pack("<2HQ", 1, 8, 1 << 62)}, "directory_damaged"),
            ({"offset": LONG, "extra": struct.pack("<2HQ", 1, 8, (1 << 64) - 1)}, "directory_damaged"),
            ({"offset": 1}, "local_header_mismatch"),
            ({"size": 1 << 31, "compressed": 1 << 31}, "local_header_mismatch"),
            ({"size": 5}, "length_mismatch"),
            ({"compressed": 5}, "length_mismatch"),
            ({"method": 8, "size": 1 << 31, "local_size": 1 << 31}, "length_mismatch"),
            ({"method": 8, "size": 1 << 31}, "length_mismatch"),
            (
                {
                    "extra": struct.pack("<2H2Q", 1, 16, 1 << 63, 1 << 63),
                    "size": LONG,
                    "compressed": LONG,
                    "local_extra": struct.pack("<2H2Q", 1, 16, 1 << 63, 1 << 63),
                    "local_size": LONG,
                    "local_compressed": LONG,
                },
                "overlapping_members",
            ),
        ],
    )
    def test_sizes_that_disagree_or_cannot_be(self, put, changes, code):
        assert code in errors(verify(str(put(checkpoint(**changes)))))

    def test_needless_zip64_sizes_that_are_right(self, put):
        size = struct.pack("<2H2Q", 1, 16, len(GOOD), len(GOOD))
        assert verify(str(put(checkpoint(extra=size, local_extra=size)))).valid
        assert verify(str(put(checkpoint(size=LONG, compressed=LONG, extra=size, local_extra=size)))).valid

    def test_zip64_end_record_that_disagrees(self, put):
        raw = checkpoint().pack()
        end = raw.index(b"PK\x05\x06")
        count, length, start = struct.unpack_from("<H2I", raw, end + 10)
        for wrong in ((1, length, start), (count, length - 1, start), (count, length, start - 1)):
            wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, wrong[0], *wrong)
            locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
            path = put(raw[:end] + wide + locator + raw[end:])
            assert "directory_damaged" in errors(verify(str(path)))

    def test_two_zip64_end_records(self, put):
        """zipfile takes the one before the locator, torch the one that it points to."""
        raw = checkpoint().pack()
        end = raw.index(b"PK\x05\x06")
        count, length, start = struct.unpack_from("<H2I", raw, end + 10)
        right = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
        for first in (end, end + len(right)):
            locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, first, 1)
            path = put(raw[:end] + right + right + locator + raw[end:])
            assert "directory_damaged" in errors(verify(str(path)))

    def test_directory_with_data(self, put):
        for part in (Part(b"c/data/", b"hidden"), Part(b"c/data/0", b"hidden", attributes=0x10)):
            path = put(Archive([*checkpoint().parts, part]))
            assert "directory_damaged" in errors(verify(str(path)))

    def test_empty_directory_entry_is_no_alarm(self, put):
        path = put(Archive([Part(b"c/", b"", attributes=0x10), *checkpoint().parts]))
        assert open_container(str(path)).problems == ()


class TestPlaces:
    def test_data_before_the_first_header(self, put):
        """A whole other archive in front: who begins at the front reads that, zipfile and torch read the second."""
        hidden = Part(b"c/data.pkl", OTHER, listed=False)
        path = put(Archive([hidden, *checkpoint().parts]))
        assert by_python(path) == by_torch(path) == GOOD
        assert "unlisted_data" in errors(verify(str(path)))
        path = put(Archive([Part(b"features.npy", array(5), listed=False), *npz().parts]), "c.npz")
        assert by_python(path, "features.npy") == array()
        assert "unlisted_data" in errors(inspect(str(path)))

    def test_offsets_that_do_not_count_what_is_in_front(self, put):
        """zipfile shifts them, torch does not."""
        for front in (b"#!/bin/sh\n", Archive([Part(b"c/data.pkl", OTHER)]).pack()):
            path = put(front + checkpoint().pack())
            assert by_python(path) == GOOD
            assert "directory_damaged" in errors(verify(str(path)))
            path = put(front + npz().pack(), "c.npz")
            assert by_python(path, "features.npy") == array()
            assert "directory_damaged" in errors(inspect(str(path)))

    def test_data_between_members_and_before_the_directory(self, put):
        archive = checkpoint()
        archive.parts[1].before = b"hidden"
        path = put(archive)
        assert by_python(path) == by_torch(path) == GOOD
        assert "unlisted_data" in errors(verify(str(path)))
        path = put(Archive([*checkpoint().parts, Part(b"c/data.pkl", OTHER, listed=False)]))
        assert by_python(path) == by_torch(path) == GOOD
        assert "unlisted_data" in errors(verify(str(path)))
        archive = npz()
        archive.before_directory = b"hidden"
        assert "unlisted_data" in errors(inspect(str(put(archive, "c.npz"))))

    def test_two_archives_in_a_row(self, put):
        first, second = checkpoint().pack(), Archive([Part(b"c/data.pkl", OTHER), Part(b"c/version", b"3\n")]).pack()
        path = put(first + second)
        assert by_python(path) == OTHER
        assert errors(verify(str(path)))
        # Right offsets for the second one: for zipfile and torch the first is not there.
        at, end = len(first), len(first) + second.index(b"PK\x01\x02")
        moved = bytearray(first + second)
        entry = end
        while moved[entry : entry + 4] == b"PK\x01\x02":
            (offset,) = struct.unpack_from("<I", moved, entry + 42)
            struct.pack_into("<I", moved, entry + 42, offset + at)
            entry += 46 + struct.unpack_from("<H", moved, entry + 28)[0]
        struct.pack_into("<I", moved, entry + 16, end)
        path = put(bytes(moved))
        assert by_python(path) == by_torch(path) == OTHER
        assert "unlisted_data" in errors(verify(str(path)))

    def test_end_record_inside_the_comment(self, put):
        """Who looks for the comment that ends with the file takes the first, zipfile and torch take the last."""
        other = Archive([Part(b"c/data.pkl", OTHER), Part(b"c/version", b"3\n")]).pack()
        plain = checkpoint().pack()
        start = len(plain)
        end = bytearray(other[other.index(b"PK\x01\x02") :])
        hidden = bytearray(other[: other.index(b"PK\x01\x02")]) + end
        entry = hidden.index(b"PK\x01\x02")
        while hidden[entry : entry + 4] == b"PK\x01\x02":
            (offset,) = struct.unpack_from("<I", hidden, entry + 42)
            struct.pack_into("<I", hidden, entry + 42, offset + start)
            entry += 46 + struct.unpack_from("<H", hidden, entry + 28)[0]
        (directory,) = struct.unpack_from("<I", hidden, entry + 16)
        struct.pack_into("<I", hidden, entry + 16, directory + start)
        archive = checkpoint()
        archive.comment = bytes(hidden)
        path = put(archive)
        assert by_python(path) == OTHER
        assert "directory_damaged" in errors(verify(str(path)))

    def test_end_record_in_a_comment_that_fits_itself(self, put):
        for comment in (b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + bytes(16) + b"\x03\x00abc"):
            archive = checkpoint()
            archive.comment = comment
            assert "directory_damaged" in errors(verify(str(put(archive))))

    def test_comment_is_no_alarm(self, put):
        for comment in (b"made by hand", b"PK", b"PK\x05\x06", b"x" * 65535):
            archive = checkpoint()
            archive.comment = comment
            assert verify(str(put(archive))).valid, comment[:10]

    def test_data_behind_the_end_is_a_warning_at_most(self, put):
        archive = checkpoint()
        archive.behind = bytes(100)
        path = put(archive)
        assert by_python(path) == GOOD
        report = verify(str(path))
        assert report.valid
        assert [problem.code for problem in report.problems if problem.severity == "warning"] == ["trailing_data"]

    def test_padding_in_extra_fields_is_no_alarm(self, put):
        padding = struct.pack("<2H", 0x4246, 50) + b"Z" * 50
        times = struct.pack("<2HBI", 0x5455, 5, 1, 0)
        assert verify(str(put(checkpoint(local_extra=padding)))).valid
        assert verify(str(put(checkpoint(local_extra=padding, extra=times)))).valid
        assert verify(str(put(checkpoint(local_extra=b"\0\0\0", extra=b"\0\0")))).valid

    def test_small_zip_stored_inside_is_no_alarm(self, put):
        """Its end record lies where the end record of the whole is looked for."""
        path = put(Archive([*checkpoint().parts, Part(b"c/inner.zip", checkpoint().pack())]))
        assert open_container(str(path)).problems == ()

    def test_members_that_share_bytes(self, put):
        """Fifield's bomb: each header is quoted by a stored block of the member before, and all share one kernel."""
        kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = kernel.compress(bytes(1 << 20)) + kernel.flush()
        crc = zlib.crc32(bytes(1 << 20))
        header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, crc, len(packed), 1 << 20, 1, 0)
        quote = struct.pack("<B2H", 0, 31, 31 ^ 0xFFFF)
        body = header + b"B" + packed
        outer = struct.pack(
            *("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(quote) + len(body), (1 << 20) + 31, 1, 0)
        )
        body = outer + b"A" + quote + body
        entries = b""
        for name, offset, compressed, size, check in (
            (b"A", 0, len(quote) + 31 + len(packed), (1 << 20) + 31, 0),
            (b"B", 31 + len(quote), len(packed), 1 << 20, crc),
        ):
            entries += struct.pack(
                *("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, check, compressed, size, 1, 0, 0, 0, 0, 0, offset)
            )
            entries += name
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2, 2, len(entries), len(body), 0)
        container = open_container(str(put(body + entries + end)))
        assert "overlapping_members" in {problem.code for problem in container.problems}
        assert container.members == ()

    def test_many_entries_for_one_member(self, put):
        for name in (b"c/data/%d", b"c/data/0"):
            again = [Part(name % index if b"%" in name else name, b"", offset=0) for index in range(1, 50)]
            path = put(Archive([*checkpoint().parts, *again]))
            assert errors(verify(str(path)))
            assert [member.name for member in open_container(str(path)).members] in ([], ["c/data.pkl", "c/version"])

    def test_nested_archives_are_never_opened(self, put):
        data = checkpoint().pack()
        for _level in range(20):
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
                for index in range(10):
                    archive.writestr(f"{index}.zip", data)
            data = inner.getvalue()
        assert "unknown_format" in errors(verify(str(put(data))))


class TestBenign:
    """Nothing of this may be an error, or whole checkpoints would be thrown away."""

    def test_what_torch_writes(self, tmp_path):
        import torch

        for crc in (True, False):
            assert verify(str(save(tmp_path / "c.pth", content(metadata=True), crc=crc))).valid
        path = tmp_path / "ünï.pth"
        torch.save({"epoch": 1, "w": torch.ones(3)}, path)
        assert verify(str(path)).valid
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "s.pt"))
        assert open_container(str(tmp_path / "s.pt")).problems == ()
        buffer = io.BytesIO()
        torch.save({"w": torch.ones(3)}, buffer)
        (tmp_path / "b.pth").write_bytes(buffer.getvalue())
        assert verify(str(tmp_path / "b.pth")).valid

    def test_what_numpy_writes(self, tmp_path):
        import numpy

        arrays = {name: numpy.zeros((200, 2), numpy.float32) for name in ("features", "values", "é", "A", "a")}
        for function in (numpy.savez, numpy.savez_compressed):
            function(tmp_path / "c.npz", **arrays)
            assert open_container(str(tmp_path / "c.npz")).problems == ()

    def test_what_zipfile_appends(self, tmp_path):
        path = save(tmp_path / "c.pth", {"epoch": 1})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("c/note.txt", "seen")
            archive.mkdir("c/folder") if hasattr(archive, "mkdir") else archive.writestr("c/folder/", b"")
        assert open_container(str(path)).problems == ()

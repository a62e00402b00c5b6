# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import os
import pathlib
import random
import struct
import zipfile
import zlib

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _zip
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import has_errors
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import (
    Container,
    ContainerError,
    Findings,
    Member,
    open_container,
    shown,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def codes(container: Container) -> list:
    return [problem.code for problem in container.problems]


def everything(container: Container) -> list:
    """All problems, those of the content included."""
    return [*container.problems, *(problem for member in container.members for problem in container.check(member))]


def pack(members, method=zipfile.ZIP_STORED, force_zip64=False, comment=b"", stream=False) -> bytes:
    class Unseekable(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *args):
            raise io.UnsupportedOperation

    buffer = Unseekable() if stream else io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, data in members:
            with archive.open(name, "w", force_zip64=force_zip64) as out:
                out.write(data)
    return buffer.getvalue()


@pytest.fixture
def put(tmp_path):
    def write(data: bytes) -> str:
        path = tmp_path / "file.zip"
        path.write_bytes(data)
        return str(path)

    return write


MEMBERS = [("a/one", b"first " * 50), ("a/two", b"second " * 70), ("a/empty", b"")]


class TestWholeFiles:
    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    @pytest.mark.parametrize("force_zip64", [False, True])
    @pytest.mark.parametrize("stream", [False, True])
    def test_nothing_is_wrong_and_content_comes_back(self, put, method, force_zip64, stream):
        container = open_container(put(pack(MEMBERS, method, force_zip64, stream=stream)))
        assert everything(container) == []
        assert container.crc_recorded
        assert [(member.name, member.size) for member in container.members] == [(n, len(d)) for n, d in MEMBERS]
        for name, data in MEMBERS:
            assert container.read(container.member(name), 10_000) == data

    def test_member_that_is_not_there(self, put):
        assert open_container(put(pack(MEMBERS))).member("a/three") is None

    def test_comment_at_the_end_and_no_members(self, put):
        assert everything(open_container(put(pack(MEMBERS, comment=b"PK\x05\x06 in a comment that is long")))) != []
        assert everything(open_container(put(pack(MEMBERS, comment=b"plain")))) == []
        assert everything(open_container(put(pack([])))) == []

    def test_read_is_bounded_and_stream_has_the_piece_length(self, put):
        container = open_container(put(pack([("big", bytes(3 << 20))], zipfile.ZIP_DEFLATED)))
        member = container.member("big")
        assert container.read(member, 1000) == bytes(1000)
        assert max(len(piece) for piece in container.stream(member, chunk=4096)) <= 4096
        assert sum(len(piece) for piece in container.stream(member)) == 3 << 20

    def test_zip64_sizes_and_offsets_beyond_four_gib(self, tmp_path):
        """Sparse: the first member is 5 GiB of hole, so the second begins beyond what 32 bits can say."""
        size, first, second = 5 << 30, b"x/hole", b"x/small"
        small = b"found it"
        wide = struct.pack("<2H2Q", 1, 16, size, size)
        local = struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(first), len(wide)
        )
        second_at = len(local) + len(first) + len(wide) + size
        crc = zlib.crc32(small)
        local2 = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, crc, len(small), len(small), len(second), 0)
        entry = struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, *(0xFFFFFFFF,) * 2, len(first), len(wide), *(0,) * 5
        )
        far = struct.pack("<2HQ", 1, 8, second_at)
        entry2 = struct.pack(
            *("<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, crc, len(small), len(small)),
            *(len(second), len(far), 0, 0, 0, 0, 0xFFFFFFFF),
        )
        directory = entry + first + wide + entry2 + second + far
        start = second_at + len(local2) + len(second) + len(small)
        end = start + len(directory)
        tail = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(directory), start)
        tail += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        tail += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), 0xFFFFFFFF, 0)
        path = tmp_path / "sparse.zip"
        with path.open("wb") as out:
            out.write(local + first + wide)
            out.seek(second_at)
            out.write(local2 + second + small + directory + tail)
        container = open_container(str(path))
        assert container.problems == ()
        assert container.member("x/hole").size == size
        assert container.read(container.member("x/small"), 100) == small
        assert container.check(container.member("x/small")) == ()


class TestDamage:
    def test_empty_file(self, put):
        assert codes(open_container(put(b""))) == ["empty"]

    @pytest.mark.parametrize("data", [b"hello world" * 50, b"\0" * 4096, b"\x80\x02}q\0."])
    def test_another_kind_of_file(self, put, data):
        assert codes(open_container(put(data))) == ["not_a_zip"]

    def test_every_truncation(self, put):
        raw = pack(MEMBERS)
        for length in range(1, len(raw)):
            assert codes(open_container(put(raw[:length]))) == ["truncated"], length

    def test_every_bit_outside_the_data_is_noticed_or_carries_no_meaning(self, put):
        """Whatever still looks whole must give the same members with the same content."""
        raw = pack(MEMBERS, zipfile.ZIP_DEFLATED)
        reference = [(member.name, member.size, member.crc) for member in open_container(put(raw)).members]
        chance = random.Random(1)
        for _ in range(1500):
            data = bytearray(raw)
            data[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
            container = open_container(put(bytes(data)))
            if has_errors(everything(container)):
                continue
            assert [(member.name, member.size, member.crc) for member in container.members] == reference

    def test_flipped_data_is_a_wrong_checksum(self, put):
        raw = bytearray(pack(MEMBERS))
        raw[raw.index(b"second") + 9] ^= 1
        container = open_container(put(bytes(raw)))
        assert container.problems == ()
        (problem,) = container.check(container.member("a/two"))
        assert (problem.code, problem.member) == ("crc_mismatch", "a/two")
        assert container.check(container.member("a/one")) == ()
        with pytest.raises(ContainerError, match="a/two") as caught:
            container.read(container.member("a/two"), 10_000)
        assert caught.value.problem == problem

    def test_damaged_deflate_stream(self, put):
        content = os.urandom(3000) + bytes(3000)
        raw = bytearray(pack([("a", content)], zipfile.ZIP_DEFLATED))
        container = open_container(put(bytes(raw)))
        at, size = container.members[0].data_offset, container.members[0].compressed
        for index in range(at, at + 400, 7):
            data = bytearray(raw)
            data[index] ^= 0x55
            container = open_container(put(bytes(data)))
            codes = {problem.code for problem in container.check(container.members[0])}
            assert codes <= {"inflate_failed", "crc_mismatch", "length_mismatch"}
            # A bit that only describes what no byte of the content uses changes nothing.
            assert codes or zlib.decompress(data[at : at + size], -15) == content

    def test_bomb_stops_at_the_length_in_the_directory(self, put):
        raw = bytearray(pack([("bomb", bytes(50 << 20))], zipfile.ZIP_DEFLATED))
        for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            struct.pack_into("<I", raw, raw.index(signature) + at, 1000)
        container = open_container(put(bytes(raw)))
        (problem,) = container.check(container.members[0])
        assert problem.code == "length_mismatch"

    def test_impossible_ratio_is_refused_unread(self, put):
        raw = bytearray(pack([("bomb", b"x" * 500)], zipfile.ZIP_DEFLATED))
        for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            struct.pack_into("<I", raw, raw.index(signature) + at, 0xFFFFFFF0)
        container = open_container(put(bytes(raw)))
        assert codes(container) == ["length_mismatch"]
        assert container.members == ()

    def test_local_header_that_is_another(self, put):
        raw = bytearray(pack(MEMBERS))
        raw[raw.index(b"a/two")] = ord("b")
        container = open_container(put(bytes(raw)))
        assert codes(container) == ["local_header_mismatch"]
        assert container.member("a/two") is None

    def test_marked_as_a_directory(self, put):
        raw = bytearray(pack(MEMBERS))
        raw[raw.index(b"PK\x01\x02") + 38] |= 0x10
        assert codes(open_container(put(bytes(raw)))) == ["directory_damaged"]

    def test_overlap(self, put):
        """Two entries, one body: a bomb that is small on disk."""
        raw = pack([("aa", b"x" * 100), ("bb", b"y" * 100)])
        first = raw.index(b"PK\x01\x02")
        second = raw.index(b"PK\x01\x02", first + 1)
        data = bytearray(raw)
        struct.pack_into("<I", data, second + 42, 0)
        assert "local_header_mismatch" in codes(open_container(put(bytes(data))))
        data[second + 46 : second + 48] = b"aa"
        data[second + 16 : second + 20] = data[first + 16 : first + 20]
        assert {"overlapping_members", "duplicate_member"} <= set(codes(open_container(put(bytes(data)))))

    def test_duplicate(self, put):
        with pytest.warns(UserWarning, match="Duplicate"):
            raw = pack([("a", b"1"), ("a", b"2")])
        assert codes(open_container(put(raw))) == ["duplicate_member"]

    @pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "C:x", "a\\b", "a\nb"])
    def test_unsafe_name(self, put, name):
        container = open_container(put(pack([(name, b"x")])))
        assert codes(container) == ["unsafe_name"]
        assert container.members == ()

    def test_name_with_nul_and_name_that_is_not_utf8(self, put):
        raw = pack([("aXb", b"x")])
        assert "unsafe_name" in codes(open_container(put(raw.replace(b"aXb", b"a\0b"))))
        raw = pack([("a\u00e9", b"x")]).replace("\u00e9".encode(), b"\xff\xfe")
        assert "unsafe_name" in codes(open_container(put(raw)))

    def test_unsupported_and_encrypted(self, put):
        assert codes(open_container(put(pack([("a", b"x" * 99)], zipfile.ZIP_BZIP2)))) == ["unsupported_compression"]
        raw = bytearray(pack([("a", b"x")]))
        for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            raw[raw.index(signature) + at] |= 1
        assert codes(open_container(put(bytes(raw)))) == ["encrypted_member"]

    def test_too_many_members(self, put, monkeypatch):
        monkeypatch.setattr(_zip, "MAX_MEMBERS", 2)
        assert codes(open_container(put(pack(MEMBERS)))) == ["too_many_members"]

    def test_data_before_and_behind(self, put):
        raw = pack(MEMBERS)
        assert "directory_damaged" in codes(open_container(put(b"prefix" + raw)))
        container = open_container(put(raw + b"\0" * 10))
        assert [(problem.code, problem.severity) for problem in container.problems] == [("trailing_data", "warning")]
        assert len(container.members) == 3

    def test_descriptor_that_disagrees(self, put):
        raw = bytearray(pack(MEMBERS, stream=True))
        raw[raw.index(b"PK\x07\x08") + 5] ^= 1
        assert codes(open_container(put(bytes(raw)))) == ["descriptor_mismatch"]

    def test_number_of_problems_is_bounded(self, put):
        container = open_container(put(pack([(f"/{index}", b"x") for index in range(500)])))
        assert len(container.problems) == _zip.MAX_PROBLEMS + 1
        assert container.problems[-1].code == "more_problems"
        assert container.problems[-1].severity == "error"


class TestChecksumsNotRecorded:
    def test_all_zero_is_a_warning(self, put):
        raw = bytearray(pack(MEMBERS))
        for signature, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
            index = raw.find(signature)
            while index >= 0:
                raw[index + at : index + at + 4] = bytes(4)
                index = raw.find(signature, index + 1)
        container = open_container(put(bytes(raw)))
        assert not container.crc_recorded
        assert [(problem.code, problem.severity) for problem in container.problems] == [("crc_not_recorded", "warning")]
        assert all(container.check(member) == () for member in container.members)

    def test_one_zero_among_others_is_damage(self, put):
        raw = bytearray(pack(MEMBERS))
        for signature, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
            index = raw.index(signature) + at
            raw[index : index + 4] = bytes(4)
        container = open_container(put(bytes(raw)))
        assert container.crc_recorded
        assert [problem.code for problem in container.check(container.members[0])] == ["crc_mismatch"]


class TestCannotLook:
    def test_missing_directory_and_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for name, what in (("none", "does not exist"), ("", "not a regular file"), ("pipe", "not a regular file")):
            with pytest.raises(RecoveryError, match=what):
                open_container(str(tmp_path / name))

    def test_file_that_changes_between_directory_and_data(self, put):
        path = put(pack(MEMBERS))
        container = open_container(path)
        pathlib.Path(path).write_bytes(pack(MEMBERS[:2]))
        with pytest.raises(RecoveryError, match="changed while it was read"):
            container.check(container.members[0])

    def test_method_that_a_caller_made_up(self, put):
        container = open_container(put(pack(MEMBERS)))
        made_up = Member("x", 0, 30, 5, 5, 0, 99, 0)
        with pytest.raises(ContainerError, match="method 99"):
            container.read(made_up, 10)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_random_bytes_are_never_a_container(put, data):
    assert has_errors(open_container(put(data)).problems)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_overwrites_never_crash(put, data):
    raw = bytearray(pack(MEMBERS, zipfile.ZIP_DEFLATED))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        raw[at : at + len(piece)] = piece
    container = open_container(put(bytes(raw)))
    for member in container.members:
        container.check(member)


def test_findings_and_shown():
    findings = Findings(limit=1)
    findings.add("a", "first", severity="warning")
    findings.add("b", "second", severity="warning")
    assert not findings.errors()
    findings.add("c", "third")
    assert findings.errors()
    assert [problem.code for problem in findings.as_tuple()] == ["a", "more_problems"]
    assert shown("x\x1b[31m\n" + "y" * 300) == "x�[31m�" + "y" * 193 + "…"

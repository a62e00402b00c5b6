# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read zip containers that may be damaged or hostile, and say exactly what is wrong with them.

The standard library's reader is built to get data out; this one is built to notice. It reads the directory the way
torch and numpy do (last end record, zip64 where there is one) and compares it with the second copy of the same facts
that a zip holds in the local headers and data descriptors, so that one flipped bit in either shows. Whatever would make
two readers see different files is an error, and every byte has to belong to something that the directory lists. Memory
is bounded whatever the file claims. This util is private to the collection.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Dict, Generator, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import ChangedFileError, explain, open_regular
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem

# Larger pieces take fresh pages from the kernel each time, and do not stay in the cache of a core.
CHUNK = 128 << 10
MAX_MEMBERS = 50_000
MAX_DIRECTORY = 16 << 20
MAX_PROBLEMS = 40
SHOWN = 200
STORED = 0
DEFLATED = 8
# No deflate stream can expand further than this; a directory that claims so cannot be true.
MAX_RATIO = 1040

LOCAL_SIGNATURE = b"PK\x03\x04"
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY_SIGNATURE = b"PK\x01\x02"
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END64_SIGNATURE = b"PK\x06\x06"
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"
# Encrypted, strongly encrypted, patched data, hidden local header: readers refuse all of them.
_UNREADABLE = 0x2061
_DESCRIPTOR = 0x0008
_UTF8 = 0x0800
# How hard the writer tried to compress; the one thing in which local header and directory may differ.
_EFFORT = 0x0006
_DIRECTORY_ATTRIBUTE = 0x10
_ZIP64_FIELD = 0x0001
_NAME_FIELD = 0x7075
_U16 = 0xFFFF
_U32 = 0xFFFFFFFF
_CONTROL = re.compile("[\x00-\x1f\x7f]")
# What a read of a local header takes along besides the name, so that one read mostly is enough.
_LOCAL_EXTRA = 64


class ContainerError(RecoveryError):
    """The content of a member cannot be read; ``problem`` says why."""

    def __init__(self, path: str, problem: Problem):
        super().__init__(f"Could not read {problem.member} in {path}: {problem.message}. Use an undamaged copy.")
        self.problem = problem


@dataclass(frozen=True)
class Member:
    """A file in the container. Offsets and sizes are in bytes; ``offset`` is that of the local header."""

    __slots__ = ("name", "offset", "data_offset", "compressed", "size", "crc", "method", "flags")

    name: str
    offset: int
    data_offset: int
    compressed: int
    size: int
    crc: int
    method: int
    flags: int


class _Identity(NamedTuple):
    device: int
    inode: int
    size: int
    modified: int


@dataclass(frozen=True)
class Container:
    """What a zip file holds, and every ``Problem`` with its structure.

    ``members`` are those that can be told apart and whose data lies inside the file; ``crc_recorded`` is False when the
    writer left out the checksums (zero on every member that has content), which is an option of torch and no defect.
    """

    path: str
    size: int
    members: Tuple[Member, ...]
    problems: Tuple[Problem, ...]
    crc_recorded: bool
    identity: Tuple[int, int, int, int] = (0, 0, 0, 0)

    def member(self, name: str) -> Optional[Member]:
        """The member with that name, or None."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> Dict[str, Member]:
        return {member.name: member for member in self.members}

    def read(self, member: Member, limit: int) -> bytes:
        """The first ``limit`` bytes of a member, or all of it when it is shorter.

        Length and, where one is recorded, checksum are compared when the member ends within ``limit``.

        :raises ContainerError: the data is damaged
        """
        parts: List[bytes] = []
        missing = limit
        with closing(self.stream(member, chunk=max(1, min(CHUNK, limit)))) as pieces:
            for data in pieces:
                parts.append(data[:missing])
                if len(data) > missing:
                    break
                missing -= len(data)
        return b"".join(parts)

    def stream(self, member: Member, chunk: int = CHUNK) -> Generator[bytes, None, None]:
        """The content of a member in pieces of at most ``chunk`` bytes.

        :raises ContainerError: the data is damaged; for a wrong checksum this comes after the last piece
        """
        fd = self._open()
        try:
            pieces = _raw(fd, self.path, member, chunk)
            if member.method == DEFLATED:
                pieces = _inflate(self.path, member, pieces, chunk)
            elif member.method != STORED:
                raise ContainerError(self.path, _unsupported(member.name, member.method, member.offset))
            crc = length = 0
            for data in pieces:
                crc = zlib.crc32(data, crc)
                length += len(data)
                if length > member.size:
                    break
                yield data
            if length != member.size:
                raise ContainerError(self.path, _length_mismatch(member, length))
            if self.crc_recorded and crc != member.crc:
                raise ContainerError(self.path, _crc_mismatch(member, crc))
        finally:
            os.close(fd)

    def check(self, member: Member) -> Tuple[Problem, ...]:
        """Read a member to its end and compare length and, where one is recorded, checksum."""
        try:
            for _data in self.stream(member):
                pass
        except ContainerError as exc:
            return (exc.problem,)
        return ()

    def _open(self) -> int:
        fd = open_regular(self.path)
        if _identity(os.fstat(fd)) != self.identity:
            os.close(fd)
            raise ChangedFileError(self.path)
        return fd


class Findings:
    """Collects problems; past ``limit`` it only counts, so that a hostile file cannot make a report of any length."""

    def __init__(self, limit: int = MAX_PROBLEMS):
        self._limit = limit
        self._kept: List[Problem] = []
        self._more = 0
        self._more_errors = False

    def add(
        self,
        code: str,
        message: str,
        member: Optional[str] = None,
        offset: Optional[int] = None,
        severity: str = ERROR,
    ) -> None:
        """Note a problem."""
        if len(self._kept) >= self._limit:
            self._more += 1
            self._more_errors = self._more_errors or severity == ERROR
            return
        self.extend([Problem(code, message, severity, None if member is None else shown(member), offset)])

    def extend(self, problems: Iterable[Problem]) -> None:
        """Note problems that were found elsewhere."""
        for problem in problems:
            if len(self._kept) < self._limit:
                self._kept.append(problem)
            else:
                self._more += 1
                self._more_errors = self._more_errors or problem.severity == ERROR

    def errors(self) -> bool:
        """Whether one of them is an error."""
        return self._more_errors or any(problem.severity == ERROR for problem in self._kept)

    def as_tuple(self) -> Tuple[Problem, ...]:
        """What was noted, and how much more there is."""
        if not self._more:
            return tuple(self._kept)
        severity = ERROR if self._more_errors else WARNING
        return (*self._kept, Problem("more_problems", f"{self._more} more problems are not listed", severity))


def shown(name: str, limit: int = SHOWN) -> str:
    """A name from a file made safe to print: no control characters, bounded length."""
    if len(name) <= limit and name.isprintable():
        return name
    text = name[:limit] + ("…" if len(name) > limit else "")
    return "".join(char if char.isprintable() else "�" for char in text)


def open_container(path: str) -> Container:
    """Read the directory of a zip file and compare it with the local headers; content is not read.

    :raises RecoveryError: the file cannot be opened or read; what is wrong with its content is in ``problems`` instead
    """
    fd = open_regular(path)
    try:
        identity = _identity(os.fstat(fd))
        findings = Findings()
        members = _Reader(fd, path, identity.size, findings).members()
    finally:
        os.close(fd)
    filled = [member for member in members if member.size]
    recorded = not filled or any(member.crc for member in filled)
    if not recorded:
        findings.add(
            "crc_not_recorded", "the writer recorded no checksums, so damage inside data cannot show", severity=WARNING
        )
    return Container(path, identity.size, members, findings.as_tuple(), recorded, identity)


class _Entry(NamedTuple):
    raw: bytes
    member: Member
    readable: bool


class _Reader:
    """One pass over the structure of a container."""

    def __init__(self, fd: int, path: str, size: int, findings: Findings):
        self._fd = fd
        self._path = path
        self._size = size
        self._findings = findings
        # Whether it is known where each member ends.
        self._sure = True

    def members(self) -> Tuple[Member, ...]:
        place = self._find_directory()
        if place is None:
            return ()
        start, length, count = place
        kept: Dict[bytes, Member] = {}
        spans: List[Tuple[int, int, str]] = []
        listed = 0
        for entry in self._entries(start, length, count):
            listed += 1
            located = self._locate(entry, start, spans)
            if located is None:
                continue
            keys = _keys(entry.raw, located.name)
            other = next((kept[key] for key in keys if key in kept), None)
            if other is not None:
                same = other.name == located.name
                message = "the directory lists it twice" if same else f"torch reads it or {shown(other.name)} for both"
                self._findings.add("duplicate_member", message, located.name, located.offset)
            elif entry.readable:
                kept.update(dict.fromkeys(keys, located))
        # Members that share bytes would be read once for each of them, which a small file can make take for ever.
        if self._check_overlaps(spans, start, gaps=self._sure and len(spans) == listed == count):
            return ()
        return tuple({id(member): member for member in kept.values()}.values())

    def _read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset >= self._size or length <= 0:
            return b""
        return _pread(self._fd, self._path, offset, min(length, self._size - offset))

    def _find_directory(self) -> Optional[Tuple[int, int, int]]:
        """Offset and length of the directory and how many members it lists."""
        if self._size == 0:
            self._findings.add("empty", "the file is empty", offset=0)
            return None
        head = self._read(0, 4)
        tail_start = max(0, self._size - _END.size - _U16)
        tail = self._read(tail_start, self._size - tail_start)
        at = tail.rfind(_END_SIGNATURE, 0, max(0, len(tail) - _END.size + len(_END_SIGNATURE)))
        if at < 0:
            if head in (LOCAL_SIGNATURE, _END_SIGNATURE) or LOCAL_SIGNATURE.startswith(head):
                message = (
                    f"the end of the directory is not there: it was cut short or overwritten after {self._size} bytes"
                )
                self._findings.add("truncated", message, offset=self._size)
            else:
                self._findings.add("not_a_zip", "it neither begins nor ends as a zip file does", offset=0)
            return None
        end = tail_start + at
        fields = _END.unpack_from(tail, at)
        after = self._size - end - _END.size
        if after != fields[7]:
            message = f"{after} bytes follow the end record, which announces {fields[7]}"
            self._findings.add("trailing_data", message, offset=end + _END.size, severity=WARNING)
        self._check_other_ends(tail[:at], len(tail), tail_start)
        return self._end_record(end, fields)

    def _check_other_ends(self, before: bytes, length: int, offset: int) -> None:
        """Whether there is another end record that a reader can take for the one, as its comment ends with the file."""
        at = before.rfind(_END_SIGNATURE)
        while at >= 0:
            comment_at = at + _END.size
            if (
                comment_at <= len(before)
                and comment_at + int.from_bytes(before[comment_at - 2 : comment_at], "little") == length
            ):
                self._damaged("it has two end records, so that readers disagree about what it holds", offset + at)
                return
            at = before.rfind(_END_SIGNATURE, 0, at)

    def _end_record(self, end: int, fields: Tuple[int, ...]) -> Optional[Tuple[int, int, int]]:
        disk, first_disk, here, count, length, start = fields[1:7]
        records = end
        locator = self._read(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
        if locator[:4] == _LOCATOR_SIGNATURE:
            _signature, locator_disk, records, disks = _LOCATOR.unpack(locator)
            if locator_disk or disks != 1:
                self._damaged("its zip64 locator claims several parts", end - _LOCATOR.size)
                return None
            raw = self._read(records, _END64.size)
            if len(raw) < _END64.size or raw[:4] != _END64_SIGNATURE:
                self._damaged("the zip64 end record is not where its locator says", end - _LOCATOR.size)
                return None
            wide = _END64.unpack(raw)
            narrow = (disk, first_disk, here, count, length, start)
            wide_values = (wide[4], wide[5], wide[6], wide[7], wide[8], wide[9])
            for index, (small, big) in enumerate(zip(narrow, wide_values)):
                if small not in (big, _U16 if index < 4 else _U32):
                    self._damaged("the two end records disagree", end)
                    return None
            if records + 12 + wide[1] != end - _LOCATOR.size:
                self._damaged("the zip64 end record has the wrong length", records)
            disk, first_disk, here, count, length, start = wide_values
        elif _U16 in (here, count) or _U32 in (length, start):
            self._damaged("the zip64 end record that the directory needs is not there", end)
            return None
        if disk or first_disk or here != count:
            self._damaged("it claims to be one part of several", end)
            return None
        if start + length != records:
            where = "ends before" if start + length < records else "overlaps"
            self._damaged(f"the directory of {length} bytes at {start} {where} the end record at {records}", start)
            return None
        if count > MAX_MEMBERS or length > MAX_DIRECTORY:
            limit = f"{MAX_MEMBERS} members or {MAX_DIRECTORY} bytes of directory"
            self._findings.add("too_many_members", f"it lists {count} members in {length} bytes; the limit is {limit}")
            return None
        return start, length, count

    def _damaged(self, message: str, offset: int, member: Optional[str] = None) -> None:
        self._findings.add("directory_damaged", message, member, offset)

    def _entries(self, start: int, length: int, count: int) -> Iterator[_Entry]:
        raw = self._read(start, length)
        if len(raw) < length:
            self._findings.add("truncated", "the file ends inside its directory", offset=self._size)
        at = found = 0
        while at < len(raw) and found <= MAX_MEMBERS:
            if raw[at : at + 4] != _ENTRY_SIGNATURE or at + _ENTRY.size > len(raw):
                self._damaged("no directory entry begins here", start + at)
                self._sure = False
                return
            fields = _ENTRY.unpack_from(raw, at)
            name_length, extra_length, comment_length = fields[10:13]
            after = at + _ENTRY.size + name_length + extra_length + comment_length
            if after > len(raw):
                self._damaged("a directory entry reaches beyond the directory", start + at)
                self._sure = False
                return
            name_at = at + _ENTRY.size
            name = raw[name_at : name_at + name_length]
            extra = raw[name_at + name_length : name_at + name_length + extra_length]
            found += 1
            yield self._entry(fields, name, extra, start + at)
            at = after
        if found != count:
            self._damaged(f"it holds {found} entries, the end record says {count}", start)

    def _entry(self, fields: Tuple[int, ...], raw_name: bytes, extra: bytes, at: int) -> _Entry:
        flags, method, crc = fields[3], fields[4], fields[7]
        compressed, size, disk, offset = fields[8], fields[9], fields[13], fields[16]
        name = _decode(raw_name, flags)
        readable = self._check_name(name, raw_name, flags, at)
        wide = None
        if extra:
            found = _fields(extra)
            wide = found.get(_ZIP64_FIELD) if found is not None else None
            readable = self._check_extra(found, raw_name, name, at) and readable
        used = 0
        if _U32 in (size, compressed, offset):
            wanted = [value == _U32 for value in (size, compressed, offset)]
            used = 8 * sum(wanted)
            if wide is None or len(wide) < used:
                self._damaged("its zip64 sizes are not there", at, name)
                readable = False
            else:
                values = list(struct.unpack_from(f"<{sum(wanted)}Q", wide))
                size = values.pop(0) if wanted[0] else size
                compressed = values.pop(0) if wanted[1] else compressed
                offset = values.pop(0) if wanted[2] else offset
        if wide is not None and not _harmless_rest(wide, used, (size, compressed, offset)):
            # Some readers take them although the fields that they stand for are in use.
            self._damaged("its zip64 sizes and its other ones disagree", at, name)
            readable = False
        if disk not in (0, _U16):
            self._damaged("it claims to lie on another disk", at, name)
            readable = False
        if (fields[15] & _DIRECTORY_ATTRIBUTE or raw_name.endswith(b"/")) and (size or compressed):
            # torch would take it for a directory and leave its tensor unread.
            self._damaged(f"marked as a directory, but {size} bytes long", at, name)
            readable = False
        if flags & _UNREADABLE:
            self._findings.add("encrypted_member", "it is marked as encrypted or as a patch", name, at)
            readable = False
        if method not in (STORED, DEFLATED):
            self._findings.extend([_unsupported(name, method, at)])
            readable = False
        elif method == STORED and compressed != size:
            self._findings.add("length_mismatch", f"stored as {compressed} bytes, but {size} bytes long", name, at)
            readable = False
        elif method == DEFLATED and size > max(64, compressed * MAX_RATIO):
            message = f"{compressed} compressed bytes cannot hold the {size} bytes that it claims"
            self._findings.add("length_mismatch", message, name, at)
            readable = False
        return _Entry(raw_name, Member(name, offset, 0, compressed, size, crc, method, flags), readable)

    def _check_extra(self, found: Optional[Dict[int, bytes]], raw_name: bytes, name: str, at: int) -> bool:
        if found is None:
            self._damaged("its extra fields break off, or one of them is there twice", at, name)
            return False
        # A version, the CRC of the name that it replaces, and the name; Python takes it, torch does not.
        other = found.get(_NAME_FIELD, b"")[5:]
        if other and other != raw_name:
            reason = f"an extra field calls it {shown(other.decode('utf-8', 'replace'))}"
            self._findings.add("unsafe_name", reason, name, at)
            return False
        return True

    def _check_name(self, name: str, raw: bytes, flags: int, at: int) -> bool:
        reason = None
        if not raw:
            reason = "it has no name"
        elif flags & _UTF8 and "�" in name and b"\xef\xbf\xbd" not in raw:
            reason = "its name is not UTF-8"
        elif _CONTROL.search(name):
            reason = "its name has control characters"
        elif name.startswith(("/", "\\")) or name[1:2] == ":":
            reason = "its name is an absolute path"
        elif "\\" in name or ".." in name.split("/"):
            reason = "its name leads out of the container"
        if reason is None:
            return True
        self._findings.add("unsafe_name", reason, name, at)
        return False

    def _locate(self, entry: _Entry, directory: int, spans: List[Tuple[int, int, str]]) -> Optional[Member]:
        """Compare with the local header, and find where the data begins."""
        member = entry.member
        if member.offset + _LOCAL.size > directory:
            message = f"its data would begin at {member.offset}, in or behind the directory at {directory}"
            self._damaged(message, member.offset, member.name)
            return None
        raw = self._read(member.offset, _LOCAL.size + len(entry.raw) + _LOCAL_EXTRA)
        if raw[:4] != LOCAL_SIGNATURE:
            self._mismatch("there is no local header where the directory says", member)
            return None
        fields = _LOCAL.unpack_from(raw)
        flags, method, crc, compressed, size, name_length, extra_length = fields[2], fields[3], *fields[6:11]
        data_offset = member.offset + _LOCAL.size + name_length + extra_length
        name_end = _LOCAL.size + name_length
        if name_length != len(entry.raw) or not raw.startswith(entry.raw, _LOCAL.size):
            self._mismatch("local header and directory disagree about its name", member)
            return None
        if len(raw) < name_end + extra_length:
            raw = self._read(member.offset, name_end + extra_length)
        if method != member.method or (flags ^ member.flags) & _UNREADABLE:
            self._mismatch("local header and directory disagree about its compression", member)
            return None
        if (flags ^ member.flags) & ~_EFFORT:
            self._mismatch(f"local header has flags {flags:#06x}, directory has {member.flags:#06x}", member)
            return None
        wide = (_fields(raw[name_end : name_end + extra_length]) or {}).get(_ZIP64_FIELD, b"")
        if len(wide) >= 16:
            doubled = (size, compressed)
            size, compressed = struct.unpack_from("<2Q", wide)
            if _U32 not in doubled and doubled != (size, compressed):
                self._mismatch("the zip64 sizes of its local header and the other ones disagree", member)
                return None
        seen = (crc, compressed, size)
        wanted = (member.crc, member.compressed, member.size)
        later = (flags | member.flags) & _DESCRIPTOR
        if seen != wanted and any(value != want and not (later and value == 0) for value, want in zip(seen, wanted)):
            self._mismatch(f"local header says CRC, sizes {seen}, directory says {wanted}", member)
            return None
        end = data_offset + member.compressed
        if end > directory:
            message = f"its {member.compressed} bytes at {data_offset} reach into the directory at {directory}"
            self._findings.add("overlapping_members", message, member.name, member.offset)
            return None
        if flags & _DESCRIPTOR:
            end += self._descriptor(member, end, directory)
        spans.append((member.offset, end, member.name))
        return Member(
            member.name,
            member.offset,
            data_offset,
            member.compressed,
            member.size,
            member.crc,
            member.method,
            member.flags,
        )

    def _descriptor(self, member: Member, at: int, directory: int) -> int:
        """The length of the data descriptor, which repeats checksum and sizes after the data."""
        raw = self._read(at, min(24, directory - at))
        sizes = (member.crc, member.compressed, member.size)
        for signature in (_DESCRIPTOR_SIGNATURE, b""):
            for form in ("<I2Q", "<3I"):
                length = len(signature) + struct.calcsize(form)
                if len(raw) < length or not raw.startswith(signature):
                    continue
                if struct.unpack_from(form, raw, len(signature)) == sizes:
                    return length
        self._sure = False
        self._findings.add(
            "descriptor_mismatch", "the record after its data disagrees with the directory", member.name, at
        )
        return 0

    def _mismatch(self, message: str, member: Member) -> None:
        self._findings.add("local_header_mismatch", message, member.name, member.offset)

    def _check_overlaps(self, spans: List[Tuple[int, int, str]], directory: int, gaps: bool) -> bool:
        """Whether members share bytes with each other or with the directory; reports bytes that are no member's too."""
        reached, owner, found = 0, "", False
        spans.sort()
        for start, end, name in spans:
            if start < reached:
                found = True
                self._findings.add("overlapping_members", f"its bytes are also those of {shown(owner)}", name, start)
            elif start > reached and gaps:
                self._unlisted(reached, start)
            if end > reached:
                reached, owner = end, name
        if reached > directory:
            found = True
            self._findings.add("overlapping_members", "it reaches into the directory", owner, directory)
        elif reached < directory and gaps:
            self._unlisted(reached, directory)
        return found

    def _unlisted(self, begin: int, end: int) -> None:
        # A reader that starts at the front, or one that was given another directory, can find something there.
        message = f"the {end - begin} bytes before offset {end} belong to nothing that the directory lists"
        self._findings.add("unlisted_data", message, offset=begin)


def _identity(status: os.stat_result) -> _Identity:
    return _Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _pread(fd: int, path: str, offset: int, length: int) -> bytes:
    parts: List[bytes] = []
    while length:
        try:
            data = os.pread(fd, length, offset)
        except OSError as exc:
            raise explain("read", path, exc) from exc
        if not data:
            break
        parts.append(data)
        offset += len(data)
        length -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _raw(fd: int, path: str, member: Member, chunk: int) -> Iterator[bytes]:
    at, end = member.data_offset, member.data_offset + member.compressed
    while at < end:
        data = _pread(fd, path, at, min(chunk, end - at))
        if not data:
            return
        yield data
        at += len(data)


def _inflate(path: str, member: Member, pieces: Iterator[bytes], chunk: int) -> Iterator[bytes]:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            if engine.eof:
                raise ContainerError(path, _problem(member, "length_mismatch", "data follows its compressed stream"))
            data = engine.decompress(piece, chunk)
            while data:
                yield data
                data = engine.decompress(engine.unconsumed_tail, chunk)
    except zlib.error as exc:
        raise ContainerError(
            path, _problem(member, "inflate_failed", f"its compressed data is damaged ({exc})")
        ) from exc
    if not engine.eof:
        raise ContainerError(path, _problem(member, "inflate_failed", "its compressed data ends too early"))
    if engine.unused_data:
        raise ContainerError(path, _problem(member, "length_mismatch", "data follows its compressed stream"))


def _decode(raw: bytes, flags: int) -> str:
    return raw.decode("utf-8", "replace") if flags & _UTF8 else raw.decode("cp437")


def _keys(raw: bytes, name: str) -> Tuple[bytes, ...]:
    """What no two members may have in common: torch tells neither upper from lower case nor an encoding; numpy does."""
    if raw.isascii():
        return (raw if raw.endswith(b".npy") else raw.lower(),)
    folded = name if name.endswith(".npy") else name.lower()
    return (raw, folded.encode("utf-8", "surrogatepass"))


def _fields(extra: bytes) -> Optional[Dict[int, bytes]]:
    """The extra fields by their tags; None where one breaks off or a tag occurs twice."""
    found: Dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        at += 4 + length
        if at > len(extra) or tag in found:
            return None
        found[tag] = extra[at - length : at]
    return found


def _harmless_rest(wide: bytes, used: int, values: Tuple[int, int, int]) -> bool:
    """Whether what a zip64 field holds besides what it is needed for is a disk number or the same sizes again."""
    if len(wide) - used in (0, 4):
        return True
    known = struct.pack("<3Q", *values)
    return len(wide) >= 8 and wide[:24] == known[: len(wide)]


def _problem(member: Member, code: str, message: str) -> Problem:
    return Problem(code, message, ERROR, shown(member.name), member.data_offset)


def _unsupported(name: str, method: int, offset: int) -> Problem:
    return Problem("unsupported_compression", f"compression method {method} is not known", ERROR, shown(name), offset)


def _length_mismatch(member: Member, length: int) -> Problem:
    found = f"more than {member.size}" if length > member.size else f"only {length}"
    return _problem(member, "length_mismatch", f"it holds {found} bytes where the directory says {member.size}")


def _crc_mismatch(member: Member, crc: int) -> Problem:
    message = f"its content has CRC-32 {crc:08x}, but {member.crc:08x} is recorded: the data is damaged"
    return _problem(member, "crc_mismatch", message)

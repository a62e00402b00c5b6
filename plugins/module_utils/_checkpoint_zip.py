# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints in a zip container: what torch.save writes since torch 1.6, and TorchScript archives.

This util is private to the collection.
"""

from __future__ import annotations

import struct
import zlib
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set

from ansible_collections.ringrift.recovery.plugins.module_utils import _pickle
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_content import (
    Content,
    File,
    Finding,
    Read,
    check_tensors,
    note_globals,
    take,
    unique_storages,
    users,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._float_scan import FloatScan
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import MAX_PICKLE, PickleReport, Source
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import StorageRef
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING, Problem
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import (
    DEFLATED,
    LOCAL_SIGNATURE,
    STORED,
    Container,
    ContainerError,
    Member,
    open_container,
    shown,
)

TORCH_ZIP = "torch_zip"
TORCH_SCRIPT = "torch_script"
MAX_RECORD = 64
SERIALIZATION_ID = ".data/serialization_id"
# Whether a checkpoint without it cannot be loaded.
RECORDS = (("version", True), ("byteorder", False), (".storage_alignment", False), (SERIALIZATION_ID, False))
OTHER_RECORDS = frozenset({".format_version"})
# torch refuses containers of a later version.
MAX_VERSION = 10
# torch compresses nothing but the code in TorchScript archives; tensors shrink by a few times at most.
BOMB_RATIO = 100
BOMB_BYTES = 64 << 20


def examine(file: File, content: Content) -> Optional[str]:
    """Look into a zip file; returns why it is no checkpoint, where it is another kind of file."""
    container = open_container(file.path)
    content.findings.extend(container.problems)
    content.checksums = container.crc_recorded
    archive = container.members[0].name.partition("/")[0] if container.members else ""
    names = {member.name: member for member in container.members}
    pickles = {f"{archive}/data.pkl": f"{archive}/data/"}
    if f"{archive}/constants.pkl" in names:
        content.format = TORCH_SCRIPT
        pickles[f"{archive}/constants.pkl"] = f"{archive}/constants/"
    elif f"{archive}/data.pkl" in names:
        content.format = TORCH_ZIP
    else:
        _plan_reads(container, container.members, {}, content)
        return _without_pickle(file, container, content)
    if _is_bomb(file, container, content):
        return None
    checked = _check_records(container, names, archive, content)
    types: Dict[str, _Storage] = {}
    for name, prefix in pickles.items():
        member = names.get(name)
        if member is None:
            if shown(name) not in _named(container.problems):
                content.findings.add("record_missing", "it is not in the container", name)
            continue
        checked.add(name)
        report = _read_pickle(container, member, content)
        if report is None:
            continue
        take(report, content, primary=name.endswith("/data.pkl"))
        types.update(_check_storages(report, names, prefix, container, content))
    rest = [member for member in container.members if member.name not in checked]
    _check_strangers(rest, archive, content)
    _plan_reads(container, rest, types, content)
    return None


class _Storage(NamedTuple):
    """A member that is a storage: the first tensor that uses it and the type of that tensor's elements."""

    ref: StorageRef
    user: str
    dtype: str


def _without_pickle(file: File, container: Container, content: Content) -> Optional[str]:
    """A container that does not list ``data.pkl``: a damaged checkpoint, or another kind of file."""
    report = _salvage(file)
    if report is not None:
        content.format = TORCH_ZIP
        take(report, content)
    elif any("/data/" in member.name for member in container.members) and content.findings.errors():
        content.format = TORCH_ZIP
    elif any(member.name.endswith(".npy") for member in container.members):
        return "it is a NumPy archive (.npz), which holds arrays and no model"
    elif not content.findings.errors():
        return "it is a zip file without the data.pkl that torch.save writes"
    return None


def _salvage(file: File) -> Optional[PickleReport]:
    """The pickle at the head of a container that has lost its directory, if its own checksum vouches for it."""
    head = file.read(0, 30)
    if len(head) < 30 or not head.startswith(LOCAL_SIGNATURE):
        return None
    flags, method = struct.unpack_from("<2H", head, 6)
    name_length, extra_length = struct.unpack_from("<2H", head, 26)
    name = file.read(30, name_length)
    if not name.endswith(b"/data.pkl") or method != STORED or not flags & 8:
        return None
    begin = 30 + name_length + extra_length
    report = _pickle.interpret(Source(file.read, begin), shown(name.decode("utf-8", "replace")))
    if not report.complete:
        return None
    length = report.end - begin
    record = file.read(report.end, 12)
    if len(record) < 12 or record[:4] != b"PK\x07\x08":
        return None
    crc, recorded = struct.unpack_from("<2I", record, 4)
    computed = 0
    for data in file.pieces(begin, length):
        computed = zlib.crc32(data, computed)
    return report if crc in (0, computed) and recorded == length else None


def _is_bomb(file: File, container: Container, content: Content) -> bool:
    """Whether unpacking would take far more than a file of this size can mean."""
    inflated = sum(member.size for member in container.members if member.method == DEFLATED)
    if inflated <= BOMB_BYTES + BOMB_RATIO * file.size:
        return False
    message = f"its {file.size} bytes would unpack to {inflated}, which no checkpoint does; it was not unpacked"
    content.findings.add("compression_bomb", message)
    return True


class _Pieces:
    """The pieces of a member up to where they cannot be read; ``problem`` says why that is."""

    def __init__(self, container: Container, member: Member):
        self._stream = container.stream(member)
        self.problem: Optional[Problem] = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except ContainerError as exc:
            self.problem = exc.problem


def _read_pickle(container: Container, member: Member, content: Content) -> Optional[PickleReport]:
    if member.size > MAX_PICKLE:
        message = f"its pickle has {member.size} bytes, more than the {MAX_PICKLE} that are examined"
        content.findings.add("pickle_too_large", message, member.name, member.data_offset)
        return None
    pieces = _Pieces(container, member)
    stream = iter(pieces)
    report = _pickle.interpret(Source(stream), member.name)
    for _rest in stream:  # to the end, where the checksum is compared
        pass
    note_globals(report, content)
    if pieces.problem is not None:
        content.findings.extend([pieces.problem])
        content.findings.extend(problem for problem in report.problems if problem.code == "dangerous_pickle")
        return None
    content.findings.extend(report.problems)
    if report.complete and report.end < member.size:
        message = f"{member.size - report.end} bytes follow its pickle, which nothing reads"
        content.findings.add("trailing_data", message, member.name, member.data_offset, severity=WARNING)
    return report


def _check_records(container: Container, names: Dict[str, Member], archive: str, content: Content) -> Set[str]:
    """Compare the small records that every load reads."""
    checked = set()
    for record, missing in RECORDS:
        name = f"{archive}/{record}"
        if name not in names and record == "version" and f"{archive}/.data/version" in names:
            name = f"{archive}/.data/version"
        member = names.get(name)
        if member is None:
            if missing and shown(name) not in _named(container.problems):
                content.findings.add("record_missing", "it is not in the container", name)
            continue
        checked.add(name)
        try:
            value = container.read(member, MAX_RECORD)
        except ContainerError as exc:
            content.findings.extend([exc.problem])
            continue
        if record == "byteorder":
            content.byteorder = value.decode("ascii", "replace")
            good = value in (b"little", b"big")
        elif record == SERIALIZATION_ID:
            good = value.isascii()
        else:
            good = value.strip().isdigit() and 0 < int(value) <= (MAX_VERSION if record == "version" else 1 << 30)
        if not good or member.size > MAX_RECORD:
            text = shown(value.decode("ascii", "replace"))
            message = f"{text!r} is not a value that torch takes"
            content.findings.add("record_damaged", message, name, member.data_offset)
    return checked


def _named(problems: Iterable[Problem]) -> Set[Optional[str]]:
    return {problem.member for problem in problems}


def _check_storages(
    report: PickleReport, names: Dict[str, Member], prefix: str, container: Container, content: Content
) -> Dict[str, _Storage]:
    """Compare every storage with what the tensors need of it; returns the storages by member name."""
    findings = content.findings
    used_by = users(content)
    storages = unique_storages(report, findings)
    told = _named(container.problems)
    found: Dict[str, _Storage] = {}
    for key, storage in storages.items():
        name = prefix + key
        member = names.get(name)
        user, dtype = used_by.get(key, ("", storage.dtype))
        used = f", storage of {user}," if user else ""
        found[name] = _Storage(storage, user or name, dtype)
        if member is None:
            if shown(name) not in told:
                findings.add("storage_missing", f"this storage{used} is not in the container", name)
        elif storage.nbytes is None:
            message = f"its element type {storage.type} is not known, so its size is not checked"
            findings.add("storage_type_unknown", message, name, member.data_offset, severity=WARNING)
        elif not storage.nbytes <= member.size < storage.nbytes + max(1, storage.itemsize or 1):
            message = f"it{used} holds {member.size} bytes, but the pickle says {storage.nbytes}"
            findings.add("storage_size_mismatch", message, name, member.data_offset)
    check_tensors(report, content)
    if report.complete and content.format == TORCH_ZIP:
        for name, member in names.items():
            if name.startswith(prefix) and name[len(prefix) :] not in storages:
                findings.add("storage_unused", "no tensor of the pickle uses it", name, member.data_offset)
    return found


def _check_strangers(members: List[Member], archive: str, content: Content) -> None:
    """Members that torch.load does not read, but another tool may."""
    for member in members:
        inside = member.name[len(archive) + 1 :] if member.name.startswith(f"{archive}/") else None
        known = inside is not None and (
            content.format == TORCH_SCRIPT or inside in OTHER_RECORDS or inside.startswith((".data/", "data/"))
        )
        if not known or member.name.endswith((".pkl", ".pickle")):
            message = "torch.load does not read it; it does not belong to the checkpoint"
            content.findings.add("unexpected_member", message, member.name, member.data_offset, severity=WARNING)


def _plan_reads(
    container: Container, members: Iterable[Member], storages: Dict[str, _Storage], content: Content
) -> None:
    """Members are read to their end at full depth: checksums, lengths, and whether their values are sound."""
    for member in members:
        storage = storages.get(member.name)
        scan = None
        if storage is not None:
            scan = content.scan(storage.dtype, storage.ref.key, storage.user)
        key = None if storage is None or scan is None else storage.ref.key
        content.reads.append(_read_of(container, member, key, scan))


def _read_of(container: Container, member: Member, key: Optional[str], scan: Optional[FloatScan]) -> Read:
    def run() -> Finding:
        try:
            for data in container.stream(member):
                if scan is not None:
                    scan.feed(data)
        except ContainerError as exc:
            return Finding((exc.problem,))
        return Finding((), key, None if scan is None else scan.counts())

    return Read(member.size, run)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints in a tar file, as torch wrote them before 0.2: members for storages, tensors and the pickle, no checksum.

This util is private to the collection.
"""

from __future__ import annotations

import struct
import tarfile
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _pickle
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_content import (
    Content,
    File,
    check_tensors,
    note_globals,
    take,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_legacy import scan_of
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import MAX_DIMENSIONS, PickleReport, Source
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import Global, StorageRef, TensorRef
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING
from ansible_collections.ringrift.recovery.plugins.module_utils._torch_types import STORAGES
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import shown

TORCH_TAR = "torch_tar"
MEMBERS = ("storages", "tensors", "pickle")
MAX_MEMBERS = 64
MAX_ENTRIES = 100_000
# tarfile reads whole headers into memory; real ones are far smaller.
MAX_READ = 1 << 20


class _Damaged(Exception):
    """A member makes no sense; the arguments are those of a finding."""


class _Span(NamedTuple):
    name: str
    begin: int
    end: int


class _Headers:
    """What tarfile needs of a file, refusing reads of any length."""

    name = "checkpoint"
    mode = "rb"

    def __init__(self, file: File):
        self._file = file
        self._at = 0

    def read(self, length: int = -1) -> bytes:
        if not 0 <= length <= MAX_READ:
            raise tarfile.ReadError(f"a header of {length} bytes")
        data = self._file.read(self._at, length)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset if whence == 0 else (self._at if whence == 1 else self._file.size) + offset
        return self._at

    def tell(self) -> int:
        return self._at


def examine(file: File, content: Content) -> Optional[str]:
    """Look into a tar file; returns why it is no checkpoint, where it is another one."""
    spans: Dict[str, _Span] = {}
    try:
        _collect(file, spans)
    except (tarfile.TarError, ValueError, RecursionError, OverflowError, EOFError) as exc:
        if not spans:
            return f"it is a tar file with damaged headers ({shown(str(exc))})"
        content.findings.add("header_damaged", f"its tar headers are damaged: {shown(str(exc))}")
    if not set(spans) & set(MEMBERS):
        return "it is a tar file without the members that torch.save wrote before 0.2"
    content.format = TORCH_TAR
    for name in MEMBERS:
        if name not in spans:
            content.findings.add("record_missing", "it is not in the tar file", name)
        elif spans[name].end > file.size:
            content.findings.add("truncated", f"the file ends inside it, at {file.size} bytes", name, file.size)
    if content.findings.errors():
        return None
    message = "torch.load needs weights_only=False for files of torch before 0.2"
    content.findings.add("needs_full_unpickler", message, severity=WARNING)
    try:
        storages = _storages(file, spans["storages"], content)
        tensors = _tensors(file, spans["tensors"], storages, content)
    except _Damaged as exc:
        content.findings.add(*exc.args)
        return None
    span = spans["pickle"]
    report = _interpret(_source(file, span), span.name, content, tensors)
    take(report, content)
    check_tensors(report, content)
    for offset, storage in storages.values():
        users = (name for name, tensor in content.every.items() if tensor.storage is storage)
        scan = content.scan(storage.dtype, storage.key, next(users, storage.key))
        if scan is not None:
            content.reads.append(scan_of(file, offset, storage.nbytes or 0, storage.key, scan))
    return None


def _collect(file: File, spans: Dict[str, _Span]) -> None:
    with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
        for _count in range(MAX_MEMBERS):
            member = tar.next()
            if member is None:
                break
            if member.isreg():
                spans[member.name] = _Span(member.name, member.offset_data, member.offset_data + member.size)


def _source(file: File, span: _Span, offset: int = 0) -> Source:
    begin = span.begin + offset
    return Source(file.read, begin, limit=min(_pickle.MAX_PICKLE, span.end - begin))


def _interpret(
    source: Source, member: str, content: Content, tensors: Optional[Dict[str, TensorRef]] = None
) -> PickleReport:
    report = _pickle.interpret(source, member, tensors)
    content.findings.extend(report.problems)
    note_globals(report, content)
    return report


def _number(source: Source, span: _Span, content: Content) -> int:
    root = _interpret(source, span.name, content).root
    if not isinstance(root, int) or isinstance(root, bool) or not 0 <= root <= MAX_ENTRIES:
        raise _Damaged("pickle_damaged", "it does not begin with the number of its entries", span.name, span.begin)
    return root


def _entry(source: Source, span: _Span, content: Content) -> Tuple[Any, Any, Any]:
    at = source.tell()
    root = _interpret(source, span.name, content).root
    if not isinstance(root, tuple) or len(root) != 3 or not isinstance(root[0], (int, str)):
        raise _Damaged("pickle_damaged", "an entry makes no sense", span.name, at)
    return root


def _storages(file: File, span: _Span, content: Content) -> Dict[str, Tuple[int, StorageRef]]:
    """The offset and description of each storage by its key, views included."""
    found: Dict[str, Tuple[int, StorageRef]] = {}
    source = _source(file, span)
    for _count in range(_number(source, span, content)):
        key, location, kind = _entry(source, span, content)
        at = source.tell()
        name = kind.name if isinstance(kind, Global) else ""
        dtype, itemsize = STORAGES.get(name[: -len("Storage")] if name.endswith("Storage") else "", ("", 0))
        raw = file.read(at, 8)
        numel = struct.unpack("<q", raw)[0] if len(raw) == 8 else -1
        end = at + 8 + numel * itemsize
        if not itemsize or numel < 0 or end > span.end:
            raise _Damaged("storage_size_mismatch", f"a storage of {numel} elements does not fit", span.name, at)
        where = location if isinstance(location, str) else ""
        found[str(key)] = (at + 8, StorageRef(shown(name), dtype, itemsize, shown(str(key)), shown(where), numel))
        source = _source(file, span, end - span.begin)
    views = _interpret(source, span.name, content).root
    if not isinstance(views, list):
        raise _Damaged("pickle_damaged", "the list of its views makes no sense", span.name, source.tell())
    for view in views[:MAX_ENTRIES]:
        _view(view, span, found)
    return found


def _view(view: Any, span: _Span, found: Dict[str, Tuple[int, StorageRef]]) -> None:
    good = isinstance(view, tuple) and len(view) == 4 and str(view[1]) in found
    if not good or not all(_pickle.is_count(number) for number in view[2:]):
        raise _Damaged("pickle_damaged", "a view of a storage makes no sense", span.name, span.begin)
    key, root, offset, numel = view
    begin, storage = found[str(root)]
    if offset + numel > storage.numel:
        message = f"a view of {offset + numel} elements is longer than its storage of {storage.numel}"
        raise _Damaged("tensor_out_of_bounds", message, span.name, begin)
    part = storage._replace(key=shown(str(key)), numel=numel)
    found[str(key)] = (begin + offset * (storage.itemsize or 0), part)


def _tensors(
    file: File, span: _Span, storages: Dict[str, Tuple[int, StorageRef]], content: Content
) -> Dict[str, TensorRef]:
    """The tensors by their key."""
    found: Dict[str, TensorRef] = {}
    source = _source(file, span)
    for _count in range(_number(source, span, content)):
        key, storage_key, _kind = _entry(source, span, content)
        at = source.tell()
        ndim = _unpack(file, at, "<i", span)[0]
        if not 0 <= ndim <= MAX_DIMENSIONS or str(storage_key) not in storages:
            raise _Damaged("tensor_malformed", "a tensor's description makes no sense", span.name, at)
        numbers: List[int] = list(_unpack(file, at + 8, f"<{2 * ndim + 1}q", span))
        if min(numbers) < 0:
            raise _Damaged("tensor_malformed", "a tensor has a negative length", span.name, at)
        storage = storages[str(storage_key)][1]
        shape, stride = tuple(numbers[:ndim]), tuple(numbers[ndim:-1])
        found[str(key)] = TensorRef(storage, storage.dtype, storage.itemsize, numbers[-1], shape, stride)
        source = _source(file, span, at + 16 + 16 * ndim - span.begin)
    return found


def _unpack(file: File, at: int, form: str, span: _Span) -> Tuple[int, ...]:
    size = struct.calcsize(form)
    raw = file.read(at, size)
    if len(raw) < size or at + size > span.end:
        raise _Damaged("truncated", "it ends inside the description of a tensor", span.name, at)
    return struct.unpack(form, raw)

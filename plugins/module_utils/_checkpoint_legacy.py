# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints as torch.save wrote them before torch 1.6: five pickles, then the storages, and no checksum.

This util is private to the collection.
"""

from __future__ import annotations

import struct
from typing import Dict, List

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
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import PickleReport, Source
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import StorageRef
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING

TORCH_LEGACY = "torch_legacy"
# The pickle of the number that such a file begins with.
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PROTOCOL = 1001


def examine(file: File, content: Content) -> None:
    """Look into a file that begins with ``LEGACY_MAGIC``."""
    content.format = TORCH_LEGACY
    findings = content.findings
    source = Source(file.read)
    reports: List[PickleReport] = []
    for part in ("magic number", "protocol", "system", "object", "storage keys"):
        report = _pickle.interpret(source, part)
        findings.extend(report.problems)
        note_globals(report, content)
        reports.append(report)
        if not report.complete:
            return
    protocol, body, keys = reports[1].root, reports[3], reports[4].root
    if not isinstance(protocol, int) or protocol != LEGACY_PROTOCOL:
        findings.add("record_damaged", f"the protocol is not {LEGACY_PROTOCOL}", "protocol", len(LEGACY_MAGIC))
    take(body, content)
    storages = unique_storages(body, findings)
    check_tensors(body, content)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        findings.add("pickle_damaged", "the list of its storages makes no sense", "storage keys")
        return
    listed = set(keys)
    for key in storages:
        if key not in listed:
            findings.add("storage_missing", "this storage is not in the file", key)
    _check_storages(file, source.tell(), keys, storages, content)


def _check_storages(
    file: File, offset: int, keys: List[str], storages: Dict[str, StorageRef], content: Content
) -> None:
    findings = content.findings
    used_by = users(content)
    for key in keys:
        storage = storages.get(key)
        if storage is None or storage.itemsize is None:
            reason = "the pickle does not refer to it" if storage is None else f"its type {storage.type} is not known"
            findings.add("storage_unused", f"{reason}, so that nothing behind it can be read", key, offset)
            return
        raw = file.read(offset, 8)
        numel = struct.unpack("<q", raw)[0] if len(raw) == 8 else None
        if numel is not None and numel != storage.numel:
            message = f"it holds {numel} elements, but the pickle says {storage.numel}"
            findings.add("storage_size_mismatch", message, key, offset)
            return
        length = storage.numel * storage.itemsize
        user, dtype = used_by.get(key, (key, storage.dtype))
        scan = content.scan(dtype, key, user)
        if scan is not None:
            content.reads.append(scan_of(file, offset + 8, length, key, scan))
        offset += 8 + length
        if numel is None or offset > file.size:
            findings.add("truncated", f"the file ends inside this storage, at {file.size} bytes", key, file.size)
            return
    if offset < file.size:
        message = f"{file.size - offset} bytes follow the last storage"
        findings.add("trailing_data", message, offset=offset, severity=WARNING)


def scan_of(file: File, offset: int, length: int, key: str, scan: FloatScan) -> Read:
    """A look at the values of a storage that lies in the file as it is."""

    def run() -> Finding:
        for data in file.pieces(offset, length):
            scan.feed(data)
        return Finding((), key, scan.counts())

    return Read(length, run)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints in the safetensors format: a JSON header, then the data, and no checksum.

This util is private to the collection.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_content import Content, File
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_legacy import scan_of
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import MAX_DIMENSIONS, is_count
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import MAX_NAMES, StorageRef, TensorRef
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import Findings, shown

SAFETENSORS = "safetensors"
# What the format itself allows.
FORMAT_HEADER = 100_000_000
MAX_HEADER = 16 << 20
# Each of these characters makes an object of some 90 bytes.
MAX_STRUCTURE = 1_000_000
# The names of element types, and those of torch with the bytes of one element.
TYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "C64": ("complex64", 8),
}


def begins_like_one(head: bytes) -> bool:
    """Whether a file with this head is in the format, or was until it was cut short."""
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack_from("<Q", head)[0] <= FORMAT_HEADER


def examine(file: File, content: Content) -> None:
    """Look into a file of which ``begins_like_one`` is true."""
    content.format = SAFETENSORS
    findings = content.findings
    length = struct.unpack("<Q", file.read(0, 8))[0]
    if 8 + length > file.size:
        message = f"the file ends inside its header of {length} bytes, at {file.size} bytes"
        findings.add("truncated", message, offset=file.size)
        return
    raw = file.read(8, length) if length <= MAX_HEADER else b""
    if length > MAX_HEADER or sum(raw.count(char) for char in (b"{", b"[", b",")) > MAX_STRUCTURE:
        message = f"its header of {length} bytes is more than is examined ({MAX_HEADER} bytes, {MAX_STRUCTURE} parts)"
        findings.add("header_too_large", message, offset=0)
        return
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as exc:
        findings.add("header_damaged", f"its header is damaged: {shown(str(exc))}", offset=8)
        return
    metadata = header.pop("__metadata__", None)
    metadata = metadata if isinstance(metadata, dict) else {}
    spans = list(_spans(header, findings))
    _check_spans(spans, file.size - 8 - length, file.size, findings)
    content.tensors = len(header)
    content.keys = tuple(shown(name) for name in list(header)[:MAX_NAMES])
    content.named = dict(_tensor(span) for span in spans)
    content.every = content.named
    for key in ("epoch", "step"):
        value = metadata.get(key)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
            content.facts[key] = int(value)
    for span in spans:
        name, tensor = _tensor(span)
        scan = content.scan(tensor.dtype, name, name)
        if scan is not None:
            content.reads.append(scan_of(file, 8 + length + span.begin, span.end - span.begin, name, scan))


class _Span(NamedTuple):
    begin: int
    end: int
    name: str
    dtype: str
    shape: Tuple[int, ...]


def _tensor(span: _Span) -> Tuple[str, TensorRef]:
    name = shown(span.name)
    dtype, itemsize = TYPES.get(span.dtype, (span.dtype, None))
    stride = [1] * len(span.shape)
    for index in range(len(span.shape) - 2, -1, -1):
        stride[index] = stride[index + 1] * span.shape[index + 1]
    storage = StorageRef(span.dtype, dtype, itemsize, name, "", math.prod(span.shape))
    return name, TensorRef(storage, dtype, itemsize, 0, span.shape, tuple(stride))


def _distinct(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _spans(header: Dict[str, Any], findings: Findings) -> Iterator[_Span]:
    for name, entry in header.items():
        parts: Dict[str, Any] = entry if isinstance(entry, dict) else {}
        values: List[Any] = [parts.get(key) for key in ("dtype", "shape", "data_offsets")]
        dtype, shape, offsets = values
        good = isinstance(dtype, str) and _counts(shape) and _counts(offsets) and len(offsets) == 2
        if not good or len(shape) > MAX_DIMENSIONS:
            findings.add("header_damaged", "its entry in the header makes no sense", name, 8)
            continue
        size = TYPES.get(dtype, ("", None))[1]
        if size is None:
            # A type of a later version, or a damaged name: either way nothing here can load it.
            findings.add("storage_type_unknown", f"its element type {shown(dtype)} is not known", name, 8)
        elif offsets[1] - offsets[0] != math.prod(shape) * size:
            message = f"it has {offsets[1] - offsets[0]} bytes, but its shape needs {math.prod(shape) * size}"
            findings.add("storage_size_mismatch", message, name, 8)
        yield _Span(offsets[0], offsets[1], name, shown(dtype), tuple(shape))


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(is_count(item) for item in value)


def _check_spans(spans: List[_Span], available: int, size: int, findings: Findings) -> None:
    reached = 0
    for span in sorted(spans):
        if span.begin != reached or span.end < span.begin:
            what = "overlaps another" if span.begin < reached else "leaves a gap before it"
            findings.add("overlapping_members", f"its data {what}", span.name)
        reached = max(reached, span.end)
    if reached > available:
        message = f"the tensors need {reached} bytes of data, the file has {max(0, available)}"
        findings.add("truncated", message, offset=size)
    elif reached < available:
        message = f"{available - reached} bytes follow the last tensor"
        findings.add("trailing_data", message, offset=size - (available - reached))

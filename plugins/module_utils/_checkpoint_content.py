# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found in a checkpoint while it is examined, whatever its format. This util is private to the collection."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _pickle_tree
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import explain
from ansible_collections.ringrift.recovery.plugins.module_utils._float_scan import (
    FloatCounts,
    FloatScan,
    scannable,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import PickleReport
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import StorageRef, TensorRef
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING, Problem
from ansible_collections.ringrift.recovery.plugins.module_utils._torch_types import is_float
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import Findings, shown

CHUNK = 128 << 10
MAX_EPOCH = 10**9
MAX_STEP = 10**15
MAX_TENSORS = 100_000
# Where a file is itself the state dict of a model.
WHOLE = "."
STATE_DICTS = ("model_state_dict", "state_dict", "model")
STEPS = ("global_step", "step", "iteration")


class File(NamedTuple):
    """An open checkpoint of ``size`` bytes."""

    path: str
    fd: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``, fewer at the end of the file."""
        parts = []
        while length > 0:
            try:
                data = os.pread(self.fd, length, offset)
            except OSError as exc:
                raise explain("read", self.path, exc) from exc
            if not data:
                break
            parts.append(data)
            offset += len(data)
            length -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pieces(self, offset: int, length: int) -> Iterator[bytes]:
        """The same in pieces, so that memory does not grow with ``length``."""
        end = offset + length
        while offset < end:
            data = self.read(offset, min(CHUNK, end - offset))
            if not data:
                return
            yield data
            offset += len(data)


class Finding(NamedTuple):
    """What came of reading one part: problems, and the values of a storage where they were looked at."""

    problems: Tuple[Problem, ...] = ()
    storage: Optional[str] = None
    counts: Optional[FloatCounts] = None


class Read(NamedTuple):
    """A part of the file that is yet to be read: its bytes, and what reads it."""

    cost: int
    run: Callable[[], Finding]


@dataclass
class Content:
    """What is found in a file. ``reads`` is what only full depth looks at."""

    scan_values: bool = False
    format: str = "unknown"
    findings: Findings = field(default_factory=Findings)
    checksums: bool = False
    byteorder: str = "little"
    tensors: Optional[int] = None
    named: Optional[Dict[str, TensorRef]] = None
    every: Dict[str, TensorRef] = field(default_factory=dict)
    globals: Dict[str, Dict[str, None]] = field(
        default_factory=lambda: {"allowed": {}, "suspicious": {}, "dangerous": {}}
    )
    keys: Tuple[str, ...] = ()
    facts: Dict[str, Any] = field(default_factory=dict)
    reads: List[Read] = field(default_factory=list)
    # The key of each storage that is looked at for its values, and the first tensor that uses it.
    scanned: Dict[str, str] = field(default_factory=dict)
    not_scanned: Dict[str, None] = field(default_factory=dict)

    def scan(self, dtype: str, key: str, name: str) -> Optional[FloatScan]:
        """Something to feed the bytes of a storage to, if its values are wanted and can be looked at."""
        if not self.scan_values or not is_float(dtype):
            return None
        if not scannable(dtype):
            self.not_scanned[dtype] = None
            return None
        self.scanned[key] = name
        return FloatScan(dtype, big_endian=self.byteorder == "big")


def note_globals(report: PickleReport, content: Content) -> None:
    """Remember what a pickle would import, also one that is damaged further on."""
    for kind in content.globals:
        content.globals[kind].update(dict.fromkeys(getattr(report, kind)))


def take(report: PickleReport, content: Content, primary: bool = True) -> None:
    """Take over what a complete pickle says about tensors and, if ``primary``, about the training."""
    if not report.complete:
        return
    content.tensors = (content.tensors or 0) + len(report.tensors)
    for name, tensor in _pickle_tree.named_tensors(report.root):
        if len(content.every) >= MAX_TENSORS:
            break
        content.every.setdefault(name, tensor)
    if not primary:
        return
    root = report.root
    get = _pickle_tree.get
    content.keys = tuple(_pickle_tree.keys(root))
    place, model = _model(root)
    content.named = _named(model)
    metadata = get(root, "_versioning_metadata")
    config = get(metadata, "config")
    training = get(metadata, "training_info")
    epoch = _whole(get(root, "epoch"), MAX_EPOCH)
    if epoch is None:
        # A model file counts finished epochs, a checkpoint numbers them from 0.
        finished = _whole(get(training, "epoch"), MAX_EPOCH)
        epoch = finished - 1 if finished else None
    content.facts.update(
        state_dict=place,
        epoch=epoch,
        step=_step(root, training),
        loss=_loss(get(root, "loss"), get(training, "val_loss"), content.findings),
        model_class=_word(get(metadata, "model_class")),
        architecture=_word(get(metadata, "architecture_version")),
        board_type=_word(get(config, "board_type")) or _word(get(metadata, "board_type")),
        num_players=_whole(get(config, "num_players"), 100) or _whole(get(metadata, "num_players"), 100) or None,
    )


def unique_storages(report: PickleReport, findings: Findings) -> Dict[str, StorageRef]:
    """The storages that a pickle refers to, by key."""
    storages: Dict[str, StorageRef] = {}
    for storage in report.storages:
        known = storages.setdefault(storage.key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            message = f"the pickle says both {known.numel} x {known.dtype} and {storage.numel} x {storage.dtype}"
            findings.add("storage_conflict", message, storage.key)
    return storages


def users(content: Content) -> Dict[str, Tuple[str, str]]:
    """The name and element type of the first tensor that uses each storage."""
    found: Dict[str, Tuple[str, str]] = {}
    for name, tensor in content.every.items():
        if tensor.storage is not None:
            found.setdefault(tensor.storage.key, (name, tensor.dtype))
    return found


def check_tensors(report: PickleReport, content: Content) -> None:
    """Compare every tensor with the storage that it is a view of."""
    names: Optional[Dict[int, str]] = None
    for tensor in report.tensors:
        storage, needed = tensor.storage, tensor.bytes_needed()
        if storage is None or needed is None or storage.nbytes is None or needed <= storage.nbytes:
            continue
        if names is None:
            names = {id(known): name for name, known in content.every.items()}
        name = names.get(id(tensor), "a tensor")
        message = f"{name} needs {needed} bytes of storage {shown(storage.key)}, which has {storage.nbytes}"
        content.findings.add("tensor_out_of_bounds", message)


def judge_values(found: Dict[str, FloatCounts], content: Content) -> None:
    """Report the numbers in storages that a training run cannot go on from."""
    zero = {key for key, counts in found.items() if counts.zero}
    for key, counts in found.items():
        name = content.scanned[key]
        more = "" if counts.exact else "at least "
        if counts.nan:
            message = f"it holds {more}{counts.nan} NaN, the first at element {counts.first}"
            content.findings.add("nan_values", message, name, severity=WARNING)
        if counts.infinite:
            message = f"it holds {more}{counts.infinite} infinite values, the first at element {counts.first}"
            content.findings.add("infinite_values", message, name, severity=WARNING)
    for name, tensor in (content.named or {}).items():
        # A bias may well be zero, a matrix of weights is not once it was trained.
        if tensor.storage is not None and tensor.storage.key in zero and len(tensor.shape) > 1:
            content.findings.add("zero_values", "all of its elements are zero", name, severity=WARNING)


def _named(model: Any) -> Optional[Dict[str, TensorRef]]:
    named: Dict[str, TensorRef] = {}
    for name, tensor in _pickle_tree.named_tensors(model):
        if len(named) >= MAX_TENSORS:
            return None
        named.setdefault(name, tensor)
    return named


def _model(root: Any) -> Tuple[Optional[str], Any]:
    """Where the tensors of the model are, and the node that holds them."""
    for key in STATE_DICTS:
        node = _pickle_tree.get(root, key)
        if _pickle_tree.is_mapping(node) and any(True for _tensor in _pickle_tree.named_tensors(node)):
            return key, node
    values = _pickle_tree.values(root)
    if values and all(_pickle_tree.is_tensor(value) for value in values):
        return WHOLE, root
    return None, root


def _step(root: Any, training: Any) -> Optional[int]:
    for node in (root, training):
        for key in STEPS:
            step = _whole(_pickle_tree.get(node, key), MAX_STEP)
            if step is not None:
                return step
    return None


def _whole(value: Any, limit: int) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit else None


def _word(value: Any) -> Optional[str]:
    return shown(value) if isinstance(value, str) and value else None


def _loss(value: Any, validation: Any, findings: Findings) -> Optional[float]:
    for loss in (value, validation):
        if isinstance(loss, (int, float)) and not isinstance(loss, bool):
            if math.isfinite(loss):
                return float(loss)
            findings.add("loss_not_finite", f"the loss that it records is {loss}", severity=WARNING)
            return None
    return None

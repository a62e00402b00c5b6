# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whether a checkpoint is whole, loadable and safe, without torch and without running a byte of it.

``torch.load`` ignores the checksums in a checkpoint and executes what its pickle names; this does the opposite. Every
storage is compared with what the tensors need of it, and at full depth every byte with its checksum. Files are read in
pieces, so that memory does not grow with their size. This util is private to the collection.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _pickle
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import explain, open_regular, sha256_file
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import (
    MAX_PICKLE,
    PickleReport,
    Source,
    StorageRef,
    TensorRef,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem, as_dicts
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import (
    LOCAL_SIGNATURE,
    STORED,
    Container,
    ContainerError,
    Findings,
    Member,
    open_container,
    shown,
)

FULL = "full"
QUICK = "quick"
DEPTHS = (FULL, QUICK)

TORCH_ZIP = "torch_zip"
TORCH_SCRIPT = "torch_script"
TORCH_LEGACY = "torch_legacy"
SAFETENSORS = "safetensors"
UNKNOWN = "unknown"

VERIFIED = "verified"
NOT_RECORDED = "not_recorded"
NOT_CHECKED = "not_checked"
DAMAGED = "damaged"

# Errors that make a file useless or unsafe, but are no damage to it.
NO_DAMAGE = frozenset({"dangerous_pickle", "pickle_too_large", "unknown_format", "not_a_file"})
# Where a file is itself the state dict of a model.
WHOLE = "."
STATE_DICTS = ("model_state_dict", "state_dict", "model")
SIDECAR_SUFFIX = ".sha256"
SIDECAR = re.compile(rb"\A\s*([0-9a-fA-F]{64})(?![0-9a-zA-Z])")
MAX_EPOCH = 10**9
MAX_HEADER = 16 << 20
MAX_RECORD = 64
MAX_NAN_TESTS = 200_000
# torch refuses containers of a later version.
MAX_VERSION = 10

# The pickle of the number that begins a file of torch.save before 1.6.
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PROTOCOL = 1001
SAFETENSORS_SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "C64": 8,
}


@dataclass(frozen=True)
class Sidecar:
    """The ``.sha256`` file beside a checkpoint; ``matches`` is None when the two were not compared."""

    path: str
    sha256: Optional[str]
    matches: Optional[bool]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint is. None means unknown; it never means none, zero or healthy."""

    path: str
    valid: bool
    problems: Tuple[Problem, ...]
    format: str
    integrity: str
    depth: str
    size: Optional[int]
    mtime: float
    sha256: Optional[str]
    sidecar: Optional[Sidecar]
    keys: Tuple[str, ...]
    epoch: Optional[int]
    loss: Optional[float]
    tensors: Optional[int]
    parameters: Optional[int]
    state_dict: Optional[str]
    model_class: Optional[str]
    architecture: Optional[str]
    board_type: Optional[str]
    num_players: Optional[int]
    model_signature: Optional[str]
    identity: Tuple[int, int, int, int]

    def summary(self) -> str:
        """The report in one sentence."""
        if not self.valid:
            errors = [problem for problem in self.problems if problem.severity == ERROR]
            first = errors[0]
            place = f" in {first.member}" if first.member else ""
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            what = "damaged" if self.integrity == DAMAGED else "not usable"
            return f"{what}: {first.code}{place}: {first.message}{more}"
        parts = [self.format]
        if self.epoch is not None:
            parts.append(f"epoch {self.epoch}")
        if self.tensors is not None:
            parts.append(f"{self.tensors} tensors")
        if self.parameters is not None:
            parts.append(f"{self.parameters} parameters")
        parts.append(f"integrity {self.integrity}")
        return f"whole: {', '.join(parts)}"

    def as_dict(self) -> Dict[str, Any]:
        """The report as plain data."""
        sidecar = self.sidecar and {"path": self.sidecar.path, "matches": self.sidecar.matches}
        return {
            "path": self.path,
            "valid": self.valid,
            "problems": as_dicts(self.problems),
            "format": self.format,
            "integrity": self.integrity,
            "depth": self.depth,
            "size": self.size,
            "mtime": self.mtime,
            "sha256": self.sha256,
            "sidecar": sidecar,
            "top_level_keys": list(self.keys),
            "epoch": self.epoch,
            "loss": self.loss,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "state_dict": self.state_dict,
            "model_class": self.model_class,
            "architecture": self.architecture,
            "board_type": self.board_type,
            "num_players": self.num_players,
            "model_signature": self.model_signature,
        }


def verify(path: str, depth: str = FULL, sidecar: bool = True, checksum: bool = False) -> Checkpoint:
    """Examine a checkpoint.

    :param depth: ``full`` reads every byte, ``quick`` only structure and pickle
    :param sidecar: compare with the SHA-256 in the file beside it, at full depth
    :param checksum: work out the SHA-256 in any case
    :raises MissingFileError: there is no such file
    :raises RecoveryError: the file cannot be read, or changes meanwhile
    """
    if depth not in DEPTHS:
        raise RecoveryError(f"Could not verify {path} at depth {depth!r}: use one of {', '.join(DEPTHS)}.")
    if os.path.isdir(path):
        return _directory(path, depth)
    fd = open_regular(path)
    try:
        status = os.fstat(fd)
        content = _Content(depth)
        _examine(_File(path, fd, status.st_size), content)
        recorded = _read_sidecar(path, content.findings) if sidecar else None
        compare = recorded is not None and recorded.sha256 is not None and depth == FULL
        digest = sha256_file(path) if compare or checksum else None
        if compare and digest is not None and recorded is not None:
            recorded = Sidecar(recorded.path, recorded.sha256, recorded.sha256 == digest)
        _check_unchanged(path, status)
    finally:
        os.close(fd)
    return _report(path, depth, status, content, recorded, digest)


@dataclass
class _Content:
    """What is found in a file, while it is examined."""

    depth: str
    format: str = UNKNOWN
    findings: Findings = field(default_factory=Findings)
    checksums: bool = False
    root: Any = None
    tensors: Optional[int] = None
    named: Optional[Dict[str, TensorRef]] = None
    facts: Dict[str, Any] = field(default_factory=dict)
    keys: Tuple[str, ...] = ()


class _File(NamedTuple):
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
        return b"".join(parts)


def _identity(status: os.stat_result) -> Tuple[int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _check_unchanged(path: str, before: os.stat_result) -> None:
    try:
        after = os.stat(path)
    except OSError as exc:
        raise explain("read", path, exc) from exc
    if _identity(after) != _identity(before):
        raise RecoveryError(
            f"{path} changed while it was read. Wait until nothing writes it any more, and run this again."
        )


def _directory(path: str, depth: str) -> Checkpoint:
    content = _Content(depth)
    content.findings.add("not_a_file", "it is a directory, and a checkpoint is one file")
    try:
        status = os.stat(path)
    except OSError as exc:
        raise explain("look at", path, exc) from exc
    return _report(path, depth, status, content, None, None)


def _report(
    path: str,
    depth: str,
    status: os.stat_result,
    content: _Content,
    sidecar: Optional[Sidecar],
    digest: Optional[str],
) -> Checkpoint:
    findings = content.findings
    whole = content.checksums and depth == FULL and not findings.errors()
    if sidecar is not None and sidecar.matches is False:
        if whole:
            message = (
                "every checksum inside holds, but the SHA-256 beside it is that of another file: it is out of date"
            )
            findings.add("sidecar_stale", message, severity=WARNING)
        else:
            findings.add("checksum_mismatch", f"its SHA-256 is not the one in {shown(os.path.basename(sidecar.path))}")
    matched = sidecar is not None and sidecar.matches is True
    problems = findings.as_tuple()
    errors = [problem for problem in problems if problem.severity == ERROR]
    if any(problem.code not in NO_DAMAGE for problem in errors):
        integrity = DAMAGED
    elif whole or matched:
        integrity = VERIFIED
    elif content.format == UNKNOWN or content.checksums:
        integrity = NOT_CHECKED
    else:
        integrity = NOT_RECORDED
    named = content.named
    return Checkpoint(
        path=path,
        valid=not errors,
        problems=problems,
        format=content.format,
        integrity=integrity,
        depth=depth,
        size=status.st_size if stat.S_ISREG(status.st_mode) else None,
        mtime=status.st_mtime,
        sha256=digest,
        sidecar=sidecar,
        keys=content.keys,
        epoch=content.facts.get("epoch"),
        loss=content.facts.get("loss"),
        tensors=content.tensors,
        state_dict=content.facts.get("state_dict"),
        parameters=None if named is None else sum(tensor.elements for tensor in named.values()),
        model_class=content.facts.get("model_class"),
        architecture=content.facts.get("architecture"),
        board_type=content.facts.get("board_type"),
        num_players=content.facts.get("num_players"),
        model_signature=_signature(named),
        identity=_identity(status),
    )


def _signature(named: Optional[Dict[str, TensorRef]]) -> Optional[str]:
    """A digest of the names, types and shapes of a model's tensors: equal for checkpoints of one network."""
    if not named:
        return None
    lines = sorted(f"{name} {tensor.dtype} {tensor.shape}" for name, tensor in named.items())
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:16]


def _read_sidecar(path: str, findings: Findings) -> Optional[Sidecar]:
    beside = path + SIDECAR_SUFFIX
    if not os.path.lexists(beside):
        return None
    try:
        fd = open_regular(beside)
        try:
            raw = os.read(fd, 4096)
        finally:
            os.close(fd)
    except (RecoveryError, OSError) as exc:
        findings.add("sidecar_unreadable", shown(str(exc)), severity=WARNING)
        return Sidecar(beside, None, None)
    match = SIDECAR.match(raw)
    if match is None:
        findings.add("sidecar_unreadable", f"{shown(beside)} does not begin with a SHA-256", severity=WARNING)
        return Sidecar(beside, None, None)
    return Sidecar(beside, match.group(1).decode("ascii").lower(), None)


def _examine(file: _File, content: _Content) -> None:
    head = file.read(0, 512)
    if not head:
        content.findings.add("empty", "the file is empty", offset=0)
    elif head.startswith(LOCAL_SIGNATURE):
        _zip(file, content)
    elif head.startswith(LEGACY_MAGIC):
        _legacy(file, content)
    elif _is_safetensors(head, file.size):
        _safetensors(file, content)
    else:
        _foreign(file, head, content)


# The container of torch.save since 1.6, and TorchScript


def _zip(file: _File, content: _Content) -> None:
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
        _without_pickle(file, container, content)
        _check_members(container, container.members, {}, content)
        return
    checked = _check_records(container, names, archive, content)
    types: Dict[str, StorageRef] = {}
    for name, prefix in pickles.items():
        member = names.get(name)
        if member is None:
            content.findings.add("record_missing", "it is not in the container", name)
            continue
        checked.add(name)
        report = _read_pickle(container, member, content)
        if report is None:
            continue
        _take(report, content, primary=name.endswith("/data.pkl"))
        types.update(_check_storages(report, names, prefix, container, content))
    rest = [member for member in container.members if member.name not in checked]
    _check_members(container, rest, types, content)


def _without_pickle(file: _File, container: Container, content: _Content) -> None:
    """A container that does not list ``data.pkl``: a damaged checkpoint, or another kind of file."""
    report = _salvage(file)
    if report is not None:
        content.format = TORCH_ZIP
        _take(report, content)
    elif any("/data/" in member.name for member in container.members) and content.findings.errors():
        content.format = TORCH_ZIP
    elif any(member.name.endswith(".npy") for member in container.members):
        _unknown(content, "it is a NumPy archive (.npz), which holds arrays and no model")
    elif not content.findings.errors():
        _unknown(content, "it is a zip file without the data.pkl that torch.save writes")


def _unknown(content: _Content, reason: str) -> None:
    content.findings.add("unknown_format", f"not a checkpoint of a known format: {reason}")


def _salvage(file: _File) -> Optional[PickleReport]:
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
    for offset in range(begin, report.end, 1 << 20):
        computed = zlib.crc32(file.read(offset, min(1 << 20, report.end - offset)), computed)
    return report if crc in (0, computed) and recorded == length else None


def _read_pickle(container: Container, member: Member, content: _Content) -> Optional[PickleReport]:
    if member.size > MAX_PICKLE:
        message = f"its pickle has {member.size} bytes, more than the {MAX_PICKLE} that are examined"
        content.findings.add("pickle_too_large", message, member.name, member.data_offset)
        return None
    try:
        data = container.read(member, MAX_PICKLE)
    except ContainerError as exc:
        content.findings.extend([exc.problem])
        return None
    report = _pickle.interpret(data, member.name)
    content.findings.extend(report.problems)
    if report.complete and report.end < len(data):
        message = f"{len(data) - report.end} bytes follow its pickle, which nothing reads"
        content.findings.add("trailing_data", message, member.name, member.data_offset, severity=WARNING)
    return report


def _check_records(container: Container, names: Dict[str, Member], archive: str, content: _Content) -> set:
    """Compare the small records that every load reads."""
    checked = set()
    for record, missing in (("version", True), ("byteorder", False), (".storage_alignment", False)):
        name = f"{archive}/{record}"
        if name not in names and record == "version" and f"{archive}/.data/version" in names:
            name = f"{archive}/.data/version"
        member = names.get(name)
        if member is None:
            if missing and not _named_in(container.problems, name):
                content.findings.add("record_missing", "it is not in the container", name)
            continue
        checked.add(name)
        try:
            value = container.read(member, MAX_RECORD)
        except ContainerError as exc:
            content.findings.extend([exc.problem])
            continue
        if record == "byteorder":
            content.facts["byteorder"] = value
            good = value in (b"little", b"big")
        else:
            good = value.strip().isdigit() and 0 < int(value) <= (MAX_VERSION if record == "version" else 1 << 30)
        if not good or member.size > MAX_RECORD:
            text = shown(value.decode("ascii", "replace"))
            content.findings.add(
                "record_damaged", f"{text!r} is not a value that torch takes", name, member.data_offset
            )
    return checked


def _named_in(problems: Iterable[Problem], name: str) -> bool:
    return any(problem.member == shown(name) for problem in problems)


def _check_storages(
    report: PickleReport, names: Dict[str, Member], prefix: str, container: Container, content: _Content
) -> Dict[str, StorageRef]:
    """Compare every storage with what the tensors need of it; returns the storages by member name."""
    findings = content.findings
    users = _users(report)
    storages = _unique(report, findings)
    for key, storage in storages.items():
        name = prefix + key
        member = names.get(name)
        used = f", storage of {users[key]}," if key in users else ""
        if member is None:
            if not _named_in(container.problems, name):
                findings.add("storage_missing", f"this storage{used} is not in the container", name)
        elif storage.nbytes is None:
            message = f"its element type {storage.type} is not known, so its size is not checked"
            findings.add("storage_type_unknown", message, name, member.data_offset, severity=WARNING)
        elif not storage.nbytes <= member.size < storage.nbytes + max(1, storage.itemsize or 1):
            message = f"it{used} holds {member.size} bytes, but the pickle says {storage.nbytes}"
            findings.add("storage_size_mismatch", message, name, member.data_offset)
    _check_tensors(report, findings)
    if report.complete and content.format == TORCH_ZIP:
        for name, member in names.items():
            if name.startswith(prefix) and name[len(prefix) :] not in storages:
                findings.add("storage_unused", "no tensor of the pickle uses it", name, member.data_offset)
    return {prefix + key: storage for key, storage in storages.items()}


def _users(report: PickleReport) -> Dict[str, str]:
    """The name of the first tensor that uses each storage."""
    users: Dict[str, str] = {}
    for name, tensor in _pickle.named_tensors(report.root):
        if tensor.storage is not None:
            users.setdefault(tensor.storage.key, name)
    return users


def _unique(report: PickleReport, findings: Findings) -> Dict[str, StorageRef]:
    storages: Dict[str, StorageRef] = {}
    for storage in report.storages:
        known = storages.setdefault(storage.key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            message = f"the pickle says both {known.numel} x {known.dtype} and {storage.numel} x {storage.dtype}"
            findings.add("storage_conflict", message, storage.key)
    return storages


def _check_tensors(report: PickleReport, findings: Findings) -> None:
    names: Dict[int, str] = {id(tensor): name for name, tensor in _pickle.named_tensors(report.root)}
    for tensor in report.tensors:
        storage, needed = tensor.storage, tensor.bytes_needed()
        if storage is None or needed is None or storage.nbytes is None or needed <= storage.nbytes:
            continue
        name = names.get(id(tensor), "a tensor")
        message = f"{name} needs {needed} bytes of storage {shown(storage.key)}, which has {storage.nbytes}"
        findings.add("tensor_out_of_bounds", message)


def _check_members(
    container: Container, members: Iterable[Member], types: Dict[str, StorageRef], content: _Content
) -> None:
    """Read members to their end: checksums, lengths, and whether there is NaN in them."""
    if content.depth != FULL:
        return
    little = content.facts.get("byteorder", b"little") == b"little"
    budget = [MAX_NAN_TESTS]
    for member in members:
        storage = types.get(member.name)
        scan = storage is not None and little and member.method == STORED
        found = False
        try:
            for data in container.stream(member):
                found = found or (scan and storage is not None and _has_nan(data, storage.dtype, budget))
        except ContainerError as exc:
            content.findings.extend([exc.problem])
            continue
        if found:
            content.findings.add("nan_values", "it holds NaN", member.name, member.data_offset, severity=WARNING)


# Bytes of one element, index of its highest byte, the values of that byte that NaN can have, and the bits which must
# be set in the byte below.
_NAN_FORMS = {
    "float64": (8, 7, b"\x7f\xff", 0xF0),
    "float32": (4, 3, b"\x7f\xff", 0x80),
    "bfloat16": (2, 1, b"\x7f\xff", 0x80),
    "float16": (2, 1, b"\x7c\x7d\x7e\x7f\xfc\xfd\xfe\xff", 0x00),
}


def _has_nan(data: bytes, dtype: str, budget: List[int]) -> bool:
    """Whether there is NaN among these little-endian numbers; looks closely at a limited number of suspects."""
    form = _NAN_FORMS.get(dtype)
    if form is None:
        return False
    size, high, values, bits = form
    column = data[high::size]
    for value in values:
        at = column.find(value)
        while at >= 0 and budget[0] > 0:
            budget[0] -= 1
            element = data[at * size : at * size + size]
            if len(element) == size and element[high - 1] & bits == bits and _is_nan(element, dtype):
                return True
            at = column.find(value, at + 1)
    return False


def _is_nan(element: bytes, dtype: str) -> bool:
    if dtype == "bfloat16":
        element, dtype = b"\0\0" + element, "float32"
    value = struct.unpack({"float64": "<d", "float32": "<f", "float16": "<e"}[dtype], element)[0]
    return math.isnan(value)


# What a pickle says about the training


def _take(report: PickleReport, content: _Content, primary: bool = True) -> None:
    if not report.complete:
        return
    content.tensors = (content.tensors or 0) + len(report.tensors)
    if not primary:
        return
    root = report.root
    content.keys = tuple(_pickle.keys(root))
    place, model = _model(root)
    content.named = dict(_pickle.named_tensors(model))
    metadata = _pickle.get(root, "_versioning_metadata")
    config = _pickle.get(metadata, "config")
    training = _pickle.get(metadata, "training_info")
    epoch = _whole(_pickle.get(root, "epoch"))
    if epoch is None:
        # A model file counts finished epochs, a checkpoint numbers them from 0.
        finished = _whole(_pickle.get(training, "epoch"))
        epoch = finished - 1 if finished else None
    content.facts.update(
        state_dict=place,
        epoch=epoch,
        loss=_loss(_pickle.get(root, "loss"), _pickle.get(training, "val_loss"), content.findings),
        model_class=_word(_pickle.get(metadata, "model_class")),
        architecture=_word(_pickle.get(metadata, "architecture_version")),
        board_type=_word(_pickle.get(config, "board_type")) or _word(_pickle.get(metadata, "board_type")),
        num_players=_whole(_pickle.get(config, "num_players")) or _whole(_pickle.get(metadata, "num_players")) or None,
    )


def _model(root: Any) -> Tuple[Optional[str], Any]:
    """Where the tensors of the model are, and the node that holds them."""
    for key in STATE_DICTS:
        node = _pickle.get(root, key)
        if _pickle.is_mapping(node) and any(True for _tensor in _pickle.named_tensors(node)):
            return key, node
    values = _pickle.values(root)
    if values and all(_pickle.is_tensor(value) for value in values):
        return WHOLE, root
    return None, root


def _whole(value: Any) -> Optional[int]:
    return value if type(value) is int and 0 <= value <= MAX_EPOCH else None


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


# The format of torch.save before 1.6: five pickles, then the storages


def _legacy(file: _File, content: _Content) -> None:
    content.format = TORCH_LEGACY
    findings = content.findings
    source = Source(file.read)
    reports: List[PickleReport] = []
    for part in ("magic number", "protocol", "system", "object", "storage keys"):
        report = _pickle.interpret(source, part)
        findings.extend(report.problems)
        reports.append(report)
        if not report.complete:
            return
    protocol, body, keys = reports[1].root, reports[3], reports[4].root
    if type(protocol) is not int or protocol != LEGACY_PROTOCOL:
        findings.add("record_damaged", f"the protocol is not {LEGACY_PROTOCOL}", "protocol", len(LEGACY_MAGIC))
    _take(body, content)
    storages = _unique(body, findings)
    _check_tensors(body, findings)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        findings.add("pickle_damaged", "the list of its storages makes no sense", "storage keys")
        return
    for key in storages:
        if key not in keys:
            findings.add("storage_missing", "this storage is not in the file", key)
    _check_legacy_storages(file, source.tell(), keys, storages, findings)


def _check_legacy_storages(
    file: _File, offset: int, keys: List[str], storages: Dict[str, StorageRef], findings: Findings
) -> None:
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
        offset += 8 + storage.numel * storage.itemsize
        if numel is None or offset > file.size:
            findings.add("truncated", f"the file ends inside this storage, at {file.size} bytes", key, file.size)
            return
    if offset < file.size:
        message = f"{file.size - offset} bytes follow the last storage"
        findings.add("trailing_data", message, offset=offset, severity=WARNING)


# safetensors: a JSON header, then the data


def _is_safetensors(head: bytes, size: int) -> bool:
    if len(head) < 9 or head[8:9] != b"{":
        return False
    # A length beyond the file still is a safetensors file, one that was cut short.
    return struct.unpack_from("<Q", head)[0] <= 100_000_000


def _safetensors(file: _File, content: _Content) -> None:
    content.format = SAFETENSORS
    findings = content.findings
    length = struct.unpack("<Q", file.read(0, 8))[0]
    if length > MAX_HEADER:
        findings.add("header_damaged", f"its header has {length} bytes; the limit is {MAX_HEADER}", offset=0)
        return
    raw = file.read(8, length)
    if len(raw) < length:
        findings.add("truncated", f"the file ends inside its header, at {file.size} bytes", offset=file.size)
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
    content.keys = tuple(shown(name) for name in header)[: _pickle.MAX_NAMES]
    content.named = {shown(span.name): TensorRef(None, span.dtype, None, 0, span.shape, span.shape) for span in spans}
    epoch = metadata.get("epoch")
    if isinstance(epoch, str) and epoch.isascii() and epoch.isdigit() and len(epoch) < 10:
        content.facts["epoch"] = int(epoch)


class _Span(NamedTuple):
    begin: int
    end: int
    name: str
    dtype: str
    shape: Tuple[int, ...]


def _distinct(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _spans(header: Dict[str, Any], findings: Findings) -> Iterator[_Span]:
    for name, entry in header.items():
        dtype, shape, offsets = (
            (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
            if isinstance(entry, dict)
            else (None, None, None)
        )
        good = isinstance(dtype, str) and _counts(shape) and _counts(offsets) and len(offsets) == 2
        if not good or len(shape) > _pickle.MAX_DIMENSIONS:
            findings.add("header_damaged", "its entry in the header makes no sense", name, 8)
            continue
        size = SAFETENSORS_SIZES.get(dtype)
        if size is None:
            message = f"its element type {shown(dtype)} is not known, so its size is not checked"
            findings.add("storage_type_unknown", message, name, 8, severity=WARNING)
        elif offsets[1] - offsets[0] != math.prod(shape) * size:
            message = f"it has {offsets[1] - offsets[0]} bytes, but its shape needs {math.prod(shape) * size}"
            findings.add("storage_size_mismatch", message, name, 8)
        yield _Span(offsets[0], offsets[1], name, shown(dtype), tuple(shape))


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


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


# Everything else


def _foreign(file: _File, head: bytes, content: _Content) -> None:
    container = open_container(file.path)
    if container.members or not {"not_a_zip", "truncated"} & {problem.code for problem in container.problems}:
        _zip(file, content)
        content.findings.add(
            "not_a_zip", "it does not begin as a zip file, so torch does not take it for one", offset=0
        )
        return
    if head[:1] == b"\x80":
        # torch.load reads the first pickle of such a file before it complains.
        report = _pickle.interpret(Source(file.read))
        content.findings.extend([problem for problem in report.problems if problem.code == "dangerous_pickle"])
    _unknown(content, _what_it_is(head))


_KINDS = (
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the file that it stands for"),
    (b"\x89HDF\r\n", "it is an HDF5 file"),
    (b"\x93NUMPY", "it is a NumPy array"),
    (b"\x1f\x8b", "it is compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd"),
    (b"SQLite format 3\0", "it is an SQLite database"),
    (b"PK", "it breaks off in its first bytes"),
    (b"\x80", "it is a pickle that torch.save did not write, or the head of a damaged one"),
    (b"<", "it is a web page or XML"),
)


def _what_it_is(head: bytes) -> str:
    for prefix, kind in _KINDS:
        if head.startswith(prefix):
            return kind
    if head[257:262] == b"ustar":
        return "it is a tar file, the format of torch before 0.2, which holds no checksums and is not examined"
    if not head.strip(b"\0"):
        return f"its first {len(head)} bytes are all zero: the file was never written, or lost in a crash"
    return f"it begins with the bytes {head[:8].hex()}"

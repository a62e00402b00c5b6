# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whether a checkpoint is whole, loadable and safe, without torch and without running a byte of it.

``torch.load`` ignores the checksums in a checkpoint and executes what its pickle names; this does the opposite. Every
storage is compared with what the tensors need of it, and at full depth every byte with its checksum. Files are read in
pieces, several parts at a time, so that memory does not grow with their size. This util is private to the collection.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import (
    _checkpoint_expect,
    _checkpoint_legacy,
    _checkpoint_safetensors,
    _checkpoint_tar,
    _checkpoint_zip,
    _pickle,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import (
    ChangedFileError,
    explain,
    open_regular,
    sha256_file,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_content import (
    Content,
    File,
    Finding,
    Read,
    judge_values,
    note_globals,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_expect import Expectation
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_legacy import LEGACY_MAGIC, TORCH_LEGACY
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_safetensors import SAFETENSORS
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_tar import TORCH_TAR
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_zip import TORCH_SCRIPT, TORCH_ZIP
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._float_scan import FloatCounts
from ansible_collections.ringrift.recovery.plugins.module_utils._parallel import each
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import Source
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import TensorRef
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem, as_dicts
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import (
    LOCAL_SIGNATURE,
    Findings,
    open_container,
    shown,
)

FULL = "full"
QUICK = "quick"
DEPTHS = (FULL, QUICK)

UNKNOWN = "unknown"
FORMATS = (TORCH_ZIP, TORCH_SCRIPT, TORCH_LEGACY, TORCH_TAR, SAFETENSORS, UNKNOWN)

VERIFIED = "verified"
NOT_RECORDED = "not_recorded"
NOT_CHECKED = "not_checked"
DAMAGED = "damaged"

# Errors that leave no byte uncompared.
READ_IN_FULL = _checkpoint_expect.CODES | {"dangerous_pickle"}
# Errors that make a file useless or unsafe, but are no damage to it.
NO_DAMAGE = READ_IN_FULL | {
    "compression_bomb",
    "header_too_large",
    "not_a_file",
    "pickle_too_large",
    "storage_type_unknown",
    "too_many_members",
    "unknown_format",
}
SIDECAR_SUFFIX = ".sha256"
SIDECAR = re.compile(rb"\A\s*([0-9a-fA-F]{64})(?![0-9a-zA-Z])")
HEAD = 512
MAX_PICKLES = 16


@dataclass(frozen=True)
class Sidecar:
    """The ``.sha256`` file beside a checkpoint; ``matches`` is None when the two were not compared."""

    path: str
    sha256: Optional[str]
    matches: Optional[bool]


@dataclass(frozen=True)
class ValueScan:
    """What came of the look at the numbers in a checkpoint, by the name of the first tensor of each storage.

    ``scanned`` counts storages; ``not_scanned`` are the floating types that are not understood.
    """

    scanned: int
    not_scanned: Tuple[str, ...]
    nan: Tuple[str, ...]
    infinite: Tuple[str, ...]
    zero: Tuple[str, ...]

    def as_dict(self) -> Dict[str, Any]:
        """As plain data."""
        lists = {name: list(getattr(self, name)) for name in ("not_scanned", "nan", "infinite", "zero")}
        return {"scanned": self.scanned, **lists}


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
    step: Optional[int]
    loss: Optional[float]
    tensors: Optional[int]
    parameters: Optional[int]
    state_dict: Optional[str]
    model_class: Optional[str]
    architecture: Optional[str]
    board_type: Optional[str]
    num_players: Optional[int]
    model_signature: Optional[str]
    globals: Mapping[str, Tuple[str, ...]]
    value_scan: Optional[ValueScan]
    every_tensor: Mapping[str, TensorRef]
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
            "step": self.step,
            "loss": self.loss,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "state_dict": self.state_dict,
            "model_class": self.model_class,
            "architecture": self.architecture,
            "board_type": self.board_type,
            "num_players": self.num_players,
            "model_signature": self.model_signature,
            "globals": {kind: list(names) for kind, names in self.globals.items()},
            "value_scan": None if self.value_scan is None else self.value_scan.as_dict(),
        }

    def tensor_list(self, limit: int) -> List[Dict[str, Any]]:
        """Name, shape, element type and storage key of the tensors, at most ``limit``, in the order of the file."""
        return [
            {
                "name": name,
                "shape": list(tensor.shape),
                "dtype": tensor.dtype,
                "storage": None if tensor.storage is None else shown(tensor.storage.key),
            }
            for name, tensor in list(self.every_tensor.items())[:limit]
        ]


def verify(
    path: str,
    depth: str = FULL,
    sidecar: bool = True,
    checksum: bool = False,
    scan_values: bool = False,
    expect: Optional[Expectation] = None,
) -> Checkpoint:
    """Examine a checkpoint.

    :param depth: ``full`` reads every byte, ``quick`` only structure and pickle
    :param sidecar: compare with the SHA-256 in the file beside it, at full depth
    :param checksum: work out the SHA-256 in any case
    :param scan_values: look for NaN, infinities and all-zero weights, at full depth
    :param expect: what it must be besides being whole
    :raises MissingFileError: there is no such file
    :raises RecoveryError: the file cannot be read, or changes meanwhile
    """
    if depth not in DEPTHS:
        raise RecoveryError(f"Could not verify {path} at depth {depth!r}: use one of {', '.join(DEPTHS)}.")
    content = Content(scan_values=scan_values and depth == FULL)
    if os.path.isdir(path):
        content.findings.add("not_a_file", "it is a directory, and a checkpoint is one file")
        return _report(path, depth, _status(path), content, None, None, None)
    fd = open_regular(path)
    try:
        status = os.fstat(fd)
        _examine(File(path, fd, status.st_size), content)
        recorded = _read_sidecar(path, content.findings) if sidecar else None
        compare = recorded is not None and recorded.sha256 is not None and depth == FULL
        counts, digest = _read_all(path, status.st_size, content, depth == FULL, compare or checksum)
        if compare and digest is not None and recorded is not None:
            recorded = Sidecar(recorded.path, recorded.sha256, recorded.sha256 == digest)
        _check_unchanged(path, status)
    finally:
        os.close(fd)
    if expect is not None and not content.findings.errors():
        _checkpoint_expect.check(expect, content, None if expect.like is None else model_tensors(expect.like))
    return _report(path, depth, status, content, recorded, digest, counts)


def model_tensors(path: str) -> Optional[Dict[str, TensorRef]]:
    """The tensors of the model in a checkpoint by name; None where its structure is damaged or it has no model.

    :raises RecoveryError: the file cannot be read
    """
    content = Content()
    fd = open_regular(path)
    try:
        _examine(File(path, fd, os.fstat(fd).st_size), content)
    finally:
        os.close(fd)
    return None if content.findings.errors() else content.named


def _read_all(
    path: str, size: int, content: Content, full: bool, digest: bool
) -> Tuple[Optional[Dict[str, FloatCounts]], Optional[str]]:
    """Read what only full depth looks at, and hash the file, side by side."""
    digests: List[str] = []

    def hash_file() -> Finding:
        digests.append(sha256_file(path))
        return Finding()

    reads = list(content.reads) if full else []
    if digest:
        reads.append(Read(size, hash_file))
    counts: Dict[str, FloatCounts] = {}
    for finding in each(lambda read: read.run(), reads, cost=lambda read: read.cost):
        content.findings.extend(finding.problems)
        if finding.storage is not None and finding.counts is not None:
            counts[finding.storage] = finding.counts
    if not content.scan_values:
        return None, digests[0] if digests else None
    judge_values(counts, content)
    return counts, digests[0] if digests else None


def _identity(status: os.stat_result) -> Tuple[int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as exc:
        raise explain("look at", path, exc) from exc


def _check_unchanged(path: str, before: os.stat_result) -> None:
    if _identity(_status(path)) != _identity(before):
        raise ChangedFileError(path)


def _report(
    path: str,
    depth: str,
    status: os.stat_result,
    content: Content,
    sidecar: Optional[Sidecar],
    digest: Optional[str],
    counts: Optional[Dict[str, FloatCounts]],
) -> Checkpoint:
    findings = content.findings
    unread = any(problem.severity == ERROR and problem.code not in READ_IN_FULL for problem in findings.as_tuple())
    whole = content.checksums and depth == FULL and not unread
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
    named, facts = content.named, content.facts
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
        epoch=facts.get("epoch"),
        step=facts.get("step"),
        loss=facts.get("loss"),
        tensors=content.tensors,
        parameters=None if named is None else sum(tensor.elements for tensor in named.values()),
        state_dict=facts.get("state_dict"),
        model_class=facts.get("model_class"),
        architecture=facts.get("architecture"),
        board_type=facts.get("board_type"),
        num_players=facts.get("num_players"),
        model_signature=_signature(named),
        globals={kind: tuple(names) for kind, names in content.globals.items()},
        value_scan=None if counts is None else _value_scan(counts, content),
        every_tensor=content.every,
        identity=_identity(status),
    )


def _value_scan(counts: Dict[str, FloatCounts], content: Content) -> ValueScan:
    def names(wanted: str) -> Tuple[str, ...]:
        return tuple(content.scanned[key] for key, found in counts.items() if getattr(found, wanted))

    return ValueScan(len(counts), tuple(content.not_scanned), names("nan"), names("infinite"), names("zero"))


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


def _examine(file: File, content: Content) -> None:
    head = file.read(0, HEAD)
    reason = None
    if not head:
        content.findings.add("empty", "the file is empty", offset=0)
    elif head.startswith(LOCAL_SIGNATURE):
        reason = _checkpoint_zip.examine(file, content)
    elif head.startswith(LEGACY_MAGIC):
        _checkpoint_legacy.examine(file, content)
    elif _checkpoint_safetensors.begins_like_one(head):
        _checkpoint_safetensors.examine(file, content)
    elif head[257:262] == b"ustar":
        reason = _checkpoint_tar.examine(file, content)
    else:
        reason = _foreign(file, head, content)
    if reason is not None:
        content.findings.add("unknown_format", f"not a checkpoint of a known format: {reason}")


def _foreign(file: File, head: bytes, content: Content) -> Optional[str]:
    container = open_container(file.path)
    if container.members or not {"not_a_zip", "truncated"} & {problem.code for problem in container.problems}:
        reason = _checkpoint_zip.examine(file, content)
        message = "it does not begin as a zip file, so torch does not take it for one"
        content.findings.add("not_a_zip", message, offset=0)
        return reason
    # torch.load reads the first pickle of such a file before it complains, and other loaders those behind it.
    source = Source(file.read)
    for _count in range(MAX_PICKLES):
        report = _pickle.interpret(source)
        note_globals(report, content)
        content.findings.extend([problem for problem in report.problems if problem.code == "dangerous_pickle"])
        if not report.complete:
            break
    return _what_it_is(head)


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
    if not head.strip(b"\0"):
        return f"its first {len(head)} bytes are all zero: the file was never written, or lost in a crash"
    return f"it begins with the bytes {head[:8].hex()}"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say whether a training file (``.npz``) can be trained on, without numpy and without loading an array.

``quick`` reads the directory and the first bytes of each array, so that its cost does not grow with the file; ``full``
reads everything once in bounded memory and compares every checksum that the file carries. Arrays of Python objects are
reported and never unpickled. This util is private to the collection.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zipfile
from array import array
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import sha256_file
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npy import (
    HEAD_BYTES,
    Header,
    HeaderError,
    parse_header,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import (
    ERROR,
    WARNING,
    Problem,
    as_dicts,
    has_errors,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import (
    Container,
    ContainerError,
    Findings,
    Member,
    open_container,
    shown,
)

QUICK = "quick"
FULL = "full"
DEPTHS = (QUICK, FULL)
# What the trainer refuses to start without, or below.
REQUIRED = ("features", "values")
MIN_SAMPLES = 100
MIN_BYTES = 1024
# One row for each sample. The trainer silently uses only as many as the shortest of them has.
PER_SAMPLE = frozenset(
    {
        "features",
        "globals",
        "values",
        "values_mp",
        "num_players",
        "player_numbers",
        "policy_indices",
        "policy_values",
        "heuristics",
        "move_numbers",
        "total_game_moves",
        "phases",
        "move_types",
        "victory_types",
        "engine_modes",
        "opponent_types",
        "opponent_elo",
        "generator_elo",
        "quality_score",
        "game_ids",
        "sample_weights",
        "timestamps",
    }
)
# A value that is not finite in one of these ends the training run.
FINITE = ("features", "globals", "values", "values_mp")
FINITE_BYTES = 64 << 20
SPATIAL = {"square8": 8, "square19": 19, "hex8": 9, "hexagonal": 25}
CHECKSUMS = "data_checksums"
CHECKSUMS_BYTES = 4 << 20
MAX_ARRAYS = 256
SCALAR_BYTES = 4096
CHUNK = 1 << 20
_TYPECODES = {
    ("i", 1): "b",
    ("u", 1): "B",
    ("i", 2): "h",
    ("u", 2): "H",
    ("i", 4): "i",
    ("u", 4): "I",
    ("i", 8): "q",
    ("u", 8): "Q",
    ("f", 2): "e",
    ("f", 4): "f",
    ("f", 8): "d",
}


@dataclass(frozen=True)
class ArrayInfo:
    """One array: ``size`` is its bytes with header, ``compressed`` its bytes in the file."""

    name: str
    shape: Tuple[int, ...]
    dtype: str
    object: bool
    size: int
    compressed: int

    def as_dict(self) -> Dict[str, Any]:
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "object": self.object,
            "size": self.size,
            "compressed": self.compressed,
        }


@dataclass(frozen=True)
class Checksums:
    """The SHA-256 of each array that the exporter wrote into the file, and what came of them.

    ``skipped`` are arrays that cannot be compared without unpickling them or reordering them in memory.
    """

    recorded: int
    verified: int
    skipped: Tuple[str, ...]

    def as_dict(self) -> Dict[str, Any]:
        return {"recorded": self.recorded, "verified": self.verified, "skipped": list(self.skipped)}


@dataclass(frozen=True)
class TrainingFile:
    """What a training file holds and what is wrong with it."""

    path: str
    depth: str
    size: int
    mtime: float
    samples: Optional[int]
    arrays: Tuple[ArrayInfo, ...]
    scalars: Mapping[str, Any]
    problems: Tuple[Problem, ...]
    checksums: Optional[Checksums] = None
    sha256: Optional[str] = None

    @property
    def valid(self) -> bool:
        """Whether nothing was found that makes it unfit for training, as deep as it was looked into."""
        return not has_errors(self.problems)

    def reasons(self) -> str:
        """What makes it invalid, in one line."""
        messages = [
            f"{problem.member}: {problem.message}" if problem.member else problem.message
            for problem in self.problems
            if problem.severity == ERROR
        ]
        more = f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
        return "; ".join(messages[:3]) + more

    def as_dict(self) -> Dict[str, Any]:
        return {
            "path": self.path,
            "depth": self.depth,
            "valid": self.valid,
            "problems": as_dicts(self.problems),
            "samples": self.samples,
            "arrays": {info.name: info.as_dict() for info in self.arrays},
            "scalars": dict(self.scalars),
            "size": self.size,
            "mtime": self.mtime,
            "checksums": None if self.checksums is None else self.checksums.as_dict(),
            "sha256": self.sha256,
        }


def inspect(
    path: str,
    samples_from: str = "features",
    depth: str = QUICK,
    config: Optional[TrainingConfig] = None,
    min_samples: Optional[int] = None,
    arrays: Optional[Sequence[str]] = None,
    checksum: bool = False,
) -> TrainingFile:
    """Look into a training file.

    :param samples_from: the array whose first dimension is the number of samples
    :param config: what the file must be for
    :param min_samples: fewer samples are a problem
    :param arrays: what must be in it; ``features`` and ``values`` where not given
    :param checksum: whether to work out the SHA-256 of the whole file as well
    :raises MissingFileError: the file does not exist
    :raises RecoveryError: the file cannot be read, or is written to meanwhile
    """
    if depth not in DEPTHS:
        raise RecoveryError(f"depth is {depth!r}; give {QUICK} or {FULL}.")
    container = open_container(path)
    look = _Look(container, config)
    look.structure()
    look.read_arrays(full=depth == FULL)
    look.judge(samples_from, REQUIRED if arrays is None else arrays, min_samples)
    digest = sha256_file(path) if checksum else None
    _check_unchanged(container)
    return TrainingFile(
        path=path,
        depth=depth,
        size=container.size,
        mtime=container.identity[3] / 1e9,
        samples=look.samples,
        arrays=tuple(found.info for found in look.found.values()),
        scalars=look.scalars,
        problems=look.findings.as_tuple(),
        checksums=look.checksums,
        sha256=digest,
    )


@dataclass
class _Found:
    member: Member
    header: Header
    info: ArrayInfo
    whole: bool = True


@dataclass
class _Look:
    """One look into one file."""

    container: Container
    config: Optional[TrainingConfig]
    findings: Findings = field(default_factory=Findings)
    found: Dict[str, _Found] = field(default_factory=dict)
    scalars: Dict[str, Any] = field(default_factory=dict)
    players: Set[int] = field(default_factory=set)
    samples: Optional[int] = None
    checksums: Optional[Checksums] = None

    def structure(self) -> None:
        """What the container itself shows."""
        for problem in self.container.problems:
            if problem.code == "crc_not_recorded":
                # numpy always writes checksums and refuses a member whose own is wrong, also one of zero.
                message = "no checksums are recorded, so numpy cannot read it"
                problem = Problem(problem.code, message, ERROR)
            self.findings.extend([problem])
        if not self.findings.errors():
            self._second_opinion()
        if self.container.size < MIN_BYTES:
            self.findings.add(
                "too_small", f"it has {self.container.size} bytes; the trainer refuses less than {MIN_BYTES}"
            )

    def _second_opinion(self) -> None:
        """numpy reads with the standard library, which also refuses what no other reader minds."""
        name = None
        try:
            with zipfile.ZipFile(self.container.path) as file:
                for info in file.infolist()[:MAX_ARRAYS]:
                    name = info.filename
                    file.open(info).close()
        except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OverflowError, OSError, struct.error) as exc:
            message = f"numpy cannot read it: {shown(str(exc))}"
            self.findings.add("not_readable", message, name)

    def read_arrays(self, full: bool) -> None:
        """Headers and scalars, and at full depth every byte."""
        if len(self.container.members) > MAX_ARRAYS:
            message = f"it holds {len(self.container.members)} members; only the first {MAX_ARRAYS} were looked into"
            self.findings.add("too_many_members", message)
        for member in self.container.members[:MAX_ARRAYS]:
            self._read_header(member, full)
        for found in self.found.values():
            self._read_scalar(found)
        recorded = self._recorded_checksums() if full else None
        if full:
            self._read_all(recorded or {})
        else:
            self._first_player()

    def _read_header(self, member: Member, full: bool) -> None:
        if not member.name.endswith(".npy"):
            self.findings.add("unexpected_member", "it is not an array", member.name, member.offset, WARNING)
            if full:
                self.findings.extend(self.container.check(member))
            return
        name = member.name[: -len(".npy")]
        try:
            header = parse_header(self.container.read(member, HEAD_BYTES))
        except ContainerError as exc:
            self.findings.extend([exc.problem])
            return
        except HeaderError as exc:
            self.findings.add(exc.code, str(exc), member.name, member.offset)
            return
        if not self._fits(member, header):
            return
        info = ArrayInfo(
            shown(name), header.shape, header.element.name, header.element.is_object, member.size, member.compressed
        )
        self.found[name] = _Found(member, header, info)

    def _fits(self, member: Member, header: Header) -> bool:
        """Whether the member is as long as its header says."""
        held = member.size - header.data_offset
        if header.data_size is None:
            # A pickle takes at least one byte for each object.
            if header.count <= held:
                return True
            message = f"{held} bytes of pickle cannot hold the {header.count} objects of shape {header.shape}"
        elif header.data_size == held:
            return True
        else:
            message = (
                f"shape {header.shape} of {header.element.name} takes {header.data_size} bytes, but there are {held}"
            )
        self.findings.add("implausible_shape", message, member.name, member.offset)
        return False

    def _read_scalar(self, found: _Found) -> None:
        if found.header.shape or found.info.object or found.info.name == CHECKSUMS or found.member.size > SCALAR_BYTES:
            return
        data = self._read_whole(found)
        if data is None:
            return
        value = _scalar(data, found.header)
        if value is not None:
            self.scalars[found.info.name] = value

    def _read_whole(self, found: _Found) -> Optional[bytes]:
        """The elements of a small array; None, and a problem noted, where they are damaged."""
        if not found.whole:
            return None
        try:
            # One byte more than there is, so that the checksum is compared as well.
            return self.container.read(found.member, found.member.size + 1)[found.header.data_offset :]
        except ContainerError as exc:
            self._note_damage(found, exc)
            return None

    def _note_damage(self, found: _Found, exc: ContainerError) -> None:
        found.whole = False
        self.findings.extend([exc.problem])

    def _first_player(self) -> None:
        found = self.found.get("num_players")
        if found is None or len(found.header.shape) != 1 or not found.header.count:
            return
        end = found.header.data_offset + (found.header.element.size or 0)
        try:
            data = self.container.read(found.member, end)[found.header.data_offset :]
        except ContainerError as exc:
            self._note_damage(found, exc)
            return
        self.players.update(_numbers(data, found.header) or ())

    def _recorded_checksums(self) -> Optional[Dict[str, str]]:
        found = self.found.get(CHECKSUMS)
        if found is None:
            return None
        text = None
        if not found.header.shape and not found.info.object and found.member.size <= CHECKSUMS_BYTES:
            data = self._read_whole(found)
            if data is None:
                return None
            text = _text(data, found.header)
        try:
            recorded = json.loads(text or "")
        except (ValueError, RecursionError):
            recorded = None
        if not isinstance(recorded, dict) or not all(isinstance(value, str) for value in recorded.values()):
            self.findings.add("checksums_unreadable", "the checksums in it cannot be read", found.member.name)
            return None
        return recorded

    def _read_all(self, recorded: Dict[str, str]) -> None:
        verified = 0
        skipped: List[str] = []
        for name, found in self.found.items():
            if not found.whole:
                continue
            expected = recorded.get(name)
            reader = _Reader(found, expected is not None)
            try:
                reader.read(self.container)
            except ContainerError as exc:
                self._note_damage(found, exc)
                continue
            if name == "num_players":
                self.players.update(reader.numbers)
            if reader.not_finite is not None:
                message = f"element {reader.not_finite} is not a finite number; the trainer stops at it"
                self.findings.add("not_finite", message, found.member.name)
            if expected is None:
                continue
            if reader.digest is None:
                skipped.append(found.info.name)
            elif reader.digest == expected:
                verified += 1
            else:
                message = f"its SHA-256 is {reader.digest}, but {expected[:64]} is recorded in the file"
                self.findings.add("checksum_mismatch", message, found.member.name)
        for name in sorted(set(recorded) - set(self.found))[:MAX_ARRAYS]:
            if name + ".npy" not in {member.name for member in self.container.members}:
                self.findings.add("missing_array", "a checksum is recorded for it, but it is not there", name)
        if CHECKSUMS in self.found:
            self.checksums = Checksums(len(recorded), verified, tuple(skipped))

    def judge(self, samples_from: str, required: Sequence[str], min_samples: Optional[int]) -> None:
        """Whether the file is what training needs."""
        if not self.container.members and self.findings.errors():
            return  # nothing is known about the arrays, so nothing is said about them
        for name in _unique((*required, samples_from)):
            if name not in self.found:
                self.findings.add("missing_array", f"there is no readable array {name!r}", name)
            elif name in REQUIRED and self.found[name].header.element.kind not in "fiub":
                message = f"it holds elements of type {self.found[name].info.dtype}, not numbers"
                self.findings.add("wrong_dtype", message, self.found[name].member.name)
        self._count(samples_from, min_samples)
        self._judge_lengths(samples_from)
        if self.config is not None:
            self._judge_config(self.config)

    def _count(self, samples_from: str, min_samples: Optional[int]) -> None:
        found = self.found.get(samples_from)
        if found is None:
            return
        if not found.header.shape:
            message = "it is a single value, so samples cannot be counted by it"
            self.findings.add("not_per_sample", message, found.member.name)
            return
        self.samples = found.header.shape[0]
        if min_samples is not None and self.samples < min_samples:
            self.findings.add("too_few_samples", f"it has {self.samples} samples; at least {min_samples} are needed")

    def _judge_lengths(self, samples_from: str) -> None:
        if self.samples is None:
            return
        for name, found in self.found.items():
            if not found.header.shape or found.header.shape[0] == self.samples:
                continue
            message = f"it has {found.header.shape[0]} rows where {samples_from} has {self.samples}"
            severity = ERROR if name in PER_SAMPLE or name in REQUIRED else WARNING
            self.findings.add("length_mismatch", message, found.member.name, severity=severity)
        channels = self.scalars.get("in_channels")
        features = self.found.get("features")
        if features is not None and isinstance(channels, int) and len(features.header.shape) > 1:
            have = features.header.shape[1]
            if have != channels:
                message = f"in_channels says {channels}, but the features have {have}"
                self.findings.add("channels_differ", message, features.member.name, severity=WARNING)

    def _judge_config(self, config: TrainingConfig) -> None:
        board = self.scalars.get("board_type")
        if board is None:
            self.findings.add("board_unknown", "it does not say for which board it is", severity=WARNING)
        elif board != config.board:
            self.findings.add("wrong_config", f"it is for the board {board}, not {config.board}")
        players = self.scalars.get("num_players")
        seen = sorted(self.players | ({players} if isinstance(players, int) else set()))
        if any(number != config.players for number in seen):
            listed = ", ".join(str(number) for number in seen[:8])
            self.findings.add("wrong_config", f"it has samples for {listed} players, not only for {config.players}")
        features = self.found.get("features")
        width = SPATIAL.get(config.board)
        if features is not None and width is not None and len(features.header.shape) == 4:
            have = features.header.shape[3]
            if have != width:
                message = f"its features are {have} wide, but those of {config.board} are {width}"
                self.findings.add("wrong_config", message, features.member.name)


class _Reader:
    """Reads the elements of one array once, for everything that wants them."""

    def __init__(self, found: _Found, with_digest: bool):
        self.digest: Optional[str] = None
        self.not_finite: Optional[int] = None
        self.numbers: Set[int] = set()
        self._found = found
        header = found.header
        # The recorded checksum is over the elements in C order.
        comparable = with_digest and not header.element.is_object and not _reordered(header)
        self._hash = hashlib.sha256() if comparable else None
        self._wants_numbers = found.info.name == "num_players" and header.element.kind in "iu"
        self._wants_floats = found.info.name in FINITE and header.element.kind == "f"

    def read(self, container: Container) -> None:
        header = self._found.header
        if self._hash is not None:
            self._hash.update(f"{header.shape}{header.element.name}".encode())
        skip = header.data_offset
        rest = b""
        seen = 0
        for data in container.stream(self._found.member, CHUNK):
            if skip:
                data, skip = data[skip:], max(0, skip - len(data))
            if self._hash is not None:
                self._hash.update(data)
            if self._wants_numbers or (self._wants_floats and seen < FINITE_BYTES):
                data = rest + data
                whole = len(data) - len(data) % (header.element.size or 1)
                rest = data[whole:]
                self._look(data[:whole], seen // (header.element.size or 1))
                seen += whole
        if self._hash is not None:
            self.digest = self._hash.hexdigest()

    def _look(self, data: bytes, first: int) -> None:
        values = _numbers(data, self._found.header)
        if values is None:
            return
        if self._wants_numbers:
            if len(self.numbers) < 64:
                self.numbers.update(values)
        elif self.not_finite is None and not math.isfinite(sum(values)):
            # A sum of large finite numbers may overflow, so look again.
            for index, value in enumerate(values):
                if not math.isfinite(value):
                    self.not_finite = first + index
                    break


def _reordered(header: Header) -> bool:
    return header.fortran_order and len([length for length in header.shape if length != 1]) > 1


def _numbers(data: bytes, header: Header) -> Optional[Sequence[Any]]:
    """Numbers from raw elements; None where the type is not one that is understood."""
    code = _TYPECODES.get((header.element.kind, header.element.size or 0))
    if code is None:
        return None
    order = ">" if header.element.order == ">" else "<"
    if code == "e" or order == ">":
        return struct.unpack(f"{order}{len(data) // (header.element.size or 1)}{code}", data)
    values = array(code)
    values.frombytes(data)
    return values


def _scalar(data: bytes, header: Header) -> Any:
    """A plain value; None where the type has none."""
    kind = header.element.kind
    if kind in "US":
        text = _text(data, header)
        return None if text is None else shown(text)
    if kind == "b":
        return data[:1] != b"\0"
    values = _numbers(data, header)
    if not values:
        return None
    value = values[0]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _text(data: bytes, header: Header) -> Optional[str]:
    if header.element.kind == "S":
        return data.decode("utf-8", "replace").rstrip("\0")
    if header.element.kind == "U":
        encoding = "utf-32-be" if header.element.order == ">" else "utf-32-le"
        return data.decode(encoding, "replace").rstrip("\0")
    return None


def _unique(names: Iterable[str]) -> List[str]:
    return list(dict.fromkeys(names))


def _check_unchanged(container: Container) -> None:
    try:
        status = os.stat(container.path)
        now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError:
        now = (0, 0, 0, 0)
    if now != container.identity:
        raise RecoveryError(
            f"{container.path} changed while it was read. Wait until nothing writes it any more, and run this again."
        )

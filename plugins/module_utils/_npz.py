# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say whether a training file (``.npz``) can be trained on, without numpy and without loading an array.

``quick`` reads the directory and the first bytes of each array, so that its cost does not grow with the file; ``full``
reads everything once, several arrays side by side, in bounded memory, and compares every checksum that the file
carries. Arrays of Python objects are reported and never unpickled. This util is private to the collection.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zipfile
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import ChangedFileError, sha256_file
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._float_scan import FloatCounts
from ansible_collections.ringrift.recovery.plugins.module_utils._npy import (
    HEAD_BYTES,
    Header,
    HeaderError,
    parse_header,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_metadata import MAX_PICKLE, NAME, read_metadata
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_report import (
    DEPTHS,
    FULL,
    QUICK,
    ArrayInfo,
    Checksums,
    TrainingFile,
    ValueScan,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_values import (
    Content,
    Wanted,
    index_of,
    may_hold_floats,
    numbers_in,
    read_content,
    scalar,
    text,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._parallel import each
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import (
    ERROR,
    WARNING,
    Problem,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import (
    Container,
    ContainerError,
    Findings,
    Member,
    open_container,
    shown,
)

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
# There is nothing to learn from these where they are all zero; ratings and the like may well be.
NOT_ZERO = ("features", "values", "policy_values")
SPATIAL = {"square8": 8, "square19": 19, "hex8": 9, "hexagonal": 25}
CHECKSUMS = "data_checksums"
CHECKSUMS_BYTES = 4 << 20
MAX_ARRAYS = 1000
SCALAR_BYTES = 4096


def inspect(
    path: str,
    samples_from: str = "features",
    depth: str = QUICK,
    config: Optional[TrainingConfig] = None,
    min_samples: Optional[int] = None,
    arrays: Optional[Sequence[str]] = None,
    checksum: bool = False,
    scan_values: bool = False,
) -> TrainingFile:
    """Look into a training file.

    :param samples_from: the array whose first dimension is the number of samples
    :param config: what the file must be for
    :param min_samples: fewer samples are a problem
    :param arrays: what must be in it; ``features`` and ``values`` where not given
    :param checksum: whether to work out the SHA-256 of the whole file as well
    :param scan_values: whether to look at every floating-point number; needs ``full``
    :raises MissingFileError: the file does not exist
    :raises RecoveryError: the file cannot be read, or is written to meanwhile
    """
    if depth not in DEPTHS:
        raise RecoveryError(f"depth is {depth!r}; give {QUICK} or {FULL}.")
    if scan_values and depth != FULL:
        raise RecoveryError(f"scan_values needs every byte, but depth is {depth}. Set depth to {FULL}.")
    container = open_container(path)
    look = _Look(container, config)
    look.structure()
    look.read_heads()
    if depth == FULL:
        look.read_all(scan_values, checksum)
    elif checksum:
        look.sha256 = sha256_file(path)
    look.judge(samples_from, REQUIRED if arrays is None else arrays, min_samples)
    _check_unchanged(container)
    mtime = container.identity[3] / 1e9
    return TrainingFile(
        path=path,
        depth=depth,
        size=container.size,
        mtime=mtime,
        age=round(time.time() - mtime, 3),
        samples=look.samples,
        arrays=tuple(found.info for found in look.found.values()),
        scalars=look.scalars,
        problems=look.findings.as_tuple(),
        metadata=look.metadata,
        checksums=look.checksums,
        value_scan=look.value_scan,
        sha256=look.sha256,
    )


@dataclass
class _Found:
    member: Member
    header: Header
    info: ArrayInfo
    whole: bool = True


class _Job(NamedTuple):
    """A part of the file to read: its length, and what reads it."""

    cost: int
    run: Callable[[], Any]


@dataclass
class _Look:
    """One look into one file."""

    container: Container
    config: Optional[TrainingConfig]
    findings: Findings = field(default_factory=Findings)
    found: Dict[str, _Found] = field(default_factory=dict)
    scalars: Dict[str, Any] = field(default_factory=dict)
    players: Set[int] = field(default_factory=set)
    others: List[Member] = field(default_factory=list)
    samples: Optional[int] = None
    metadata: Optional[Mapping[str, Any]] = None
    checksums: Optional[Checksums] = None
    value_scan: Optional[ValueScan] = None
    sha256: Optional[str] = None

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

    def read_heads(self) -> None:
        """Headers and single values, whose cost does not grow with the file."""
        if len(self.container.members) > MAX_ARRAYS:
            message = f"it holds {len(self.container.members)} members; only the first {MAX_ARRAYS} were looked into"
            self.findings.add("too_many_members", message)
        for member in self.container.members[:MAX_ARRAYS]:
            self._read_header(member)
        for found in self.found.values():
            self._read_scalar(found)
        self._read_metadata()
        self._first_player()

    def _read_header(self, member: Member) -> None:
        if not member.name.endswith(".npy"):
            self.others.append(member)
            message, severity = "it is not an array", WARNING
            if self.container.member(f"{member.name}.npy") is not None:
                message, severity = "numpy would read it in place of the array of that name", ERROR
            self.findings.add("unexpected_member", message, member.name, member.offset, severity)
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
        value = scalar(data, found.header)
        if value is not None:
            self.scalars[found.info.name] = value

    def _read_metadata(self) -> None:
        found = self.found.get(NAME)
        if found is None or not found.info.object or found.header.shape:
            return
        if found.member.size > MAX_PICKLE:
            message = f"its pickle of {found.member.size} bytes is longer than the {MAX_PICKLE} that are looked at"
            self.findings.add("metadata_unreadable", message, found.member.name, severity=WARNING)
            return
        data = self._read_whole(found)
        if data is None:
            return
        report = read_metadata(data)
        self.metadata = report.values
        if report.dangerous:
            message = f"numpy.load(allow_pickle=True) would run {', '.join(report.dangerous[:5])}: do not load it"
            self.findings.add("dangerous_pickle", message, found.member.name)
        elif report.values is None:
            message = "it is not the dict that the exporter writes"
            self.findings.add("metadata_unreadable", message, found.member.name, severity=WARNING)

    def _read_whole(self, found: _Found) -> Optional[bytes]:
        """The elements of a small array; None, and a problem noted, where they are damaged."""
        if not found.whole:
            return None
        try:
            # One byte more than there is, so that the checksum is compared as well.
            return self.container.read(found.member, found.member.size + 1)[found.header.data_offset :]
        except ContainerError as exc:
            self._note_damage(found, exc.problem)
            return None

    def _note_damage(self, found: _Found, problem: Problem) -> None:
        found.whole = False
        self.findings.extend([problem])

    def _first_player(self) -> None:
        found = self.found.get("num_players")
        if found is None or len(found.header.shape) != 1 or not found.header.count:
            return
        end = found.header.data_offset + (found.header.element.size or 0)
        try:
            data = self.container.read(found.member, end)[found.header.data_offset :]
        except ContainerError as exc:
            self._note_damage(found, exc.problem)
            return
        self.players.update(numbers_in(data, found.header) or ())

    def _recorded_checksums(self) -> Optional[Dict[str, str]]:
        found = self.found.get(CHECKSUMS)
        if found is None:
            return None
        recorded_text = None
        if not found.header.shape and not found.info.object and found.member.size <= CHECKSUMS_BYTES:
            data = self._read_whole(found)
            if data is None:
                return None
            recorded_text = text(data, found.header)
        try:
            recorded = json.loads(recorded_text or "")
        except (ValueError, RecursionError):
            recorded = None
        if not isinstance(recorded, dict) or not all(isinstance(value, str) for value in recorded.values()):
            self.findings.add("checksums_unreadable", "the checksums in it cannot be read", found.member.name)
            return None
        return recorded

    def read_all(self, scan_values: bool, checksum: bool) -> None:
        """Every byte, once, the parts of the file side by side; what is found is noted in the order of the file."""
        recorded = self._recorded_checksums() or {}
        whole = {name: found for name, found in self.found.items() if found.whole}
        jobs = [
            _Job(found.member.size, partial(self._read_content, name, found, name in recorded, scan_values))
            for name, found in whole.items()
        ]
        jobs += [_Job(member.size, partial(self.container.check, member)) for member in self.others]
        if checksum:
            jobs.append(_Job(self.container.size, partial(sha256_file, self.container.path)))
        results = each(lambda job: job.run(), jobs, cost=lambda job: job.cost)
        if checksum:
            self.sha256 = results.pop()
        contents: Dict[str, Content] = dict(zip(whole, results))
        for name, content in contents.items():
            if content.damage is not None:
                self._note_damage(whole[name], content.damage)
            self.players.update(content.numbers)
        for problems in results[len(whole) :]:
            self.findings.extend(problems)
        if CHECKSUMS in self.found:
            self._compare_checksums(recorded, contents)
        if scan_values:
            self._judge_values(contents)

    def _read_content(self, name: str, found: _Found, digest: bool, floats: bool) -> Content:
        wanted = Wanted(digest, numbers=name == "num_players", floats=floats)
        return read_content(self.container, found.member, found.header, wanted)

    def _compare_checksums(self, recorded: Mapping[str, str], contents: Mapping[str, Content]) -> None:
        verified = 0
        skipped: List[str] = []
        for name, content in contents.items():
            if name not in recorded or content.damage is not None:
                continue
            found = self.found[name]
            if content.digest is None:
                skipped.append(found.info.name)
            elif content.digest == recorded[name]:
                verified += 1
            else:
                message = f"its SHA-256 is {content.digest}, but {shown(recorded[name], 64)} is recorded in the file"
                self.findings.add("checksum_mismatch", message, found.member.name)
        members = {member.name for member in self.container.members}
        for name in sorted(name for name in recorded if name not in self.found and f"{name}.npy" not in members):
            self.findings.add("missing_array", "a checksum is recorded for it, but it is not there", name)
        self.checksums = Checksums(len(recorded), verified, tuple(skipped))

    def _judge_values(self, contents: Mapping[str, Content]) -> None:
        scanned: List[str] = []
        not_scanned: List[str] = []
        for name, found in self.found.items():
            counts = contents[name].floats if name in contents else None
            if counts is not None:
                scanned.append(found.info.name)
                self._judge_floats(name, found, counts)
            elif may_hold_floats(found.header):
                not_scanned.append(found.info.name)
        self.value_scan = ValueScan(tuple(scanned), tuple(not_scanned))

    def _judge_floats(self, name: str, found: _Found, counts: FloatCounts) -> None:
        if counts.first is not None:
            message = f"it holds {counts.nan} NaN and {counts.infinite} infinite numbers"
            if not counts.exact:
                message = f"it holds at least {counts.nan} NaN and {counts.infinite} infinite numbers"
            if found.header.shape:
                # A complex number is scanned as two.
                place = counts.first // (2 if found.header.element.kind == "c" else 1)
                message += f", the first at index {index_of(place, found.header)}"
            if name in FINITE:
                message += "; the trainer stops at it"
            severity = ERROR if name in FINITE else WARNING
            self.findings.add("not_finite", message, found.member.name, severity=severity)
        if counts.zero and name in NOT_ZERO and found.header.count > 1:
            message = f"all of its {found.header.count} numbers are 0, so there is nothing to learn from it"
            self.findings.add("all_zero", message, found.member.name, severity=WARNING)

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
        counted = (self.metadata or {}).get("sample_count")
        if self.samples is not None and isinstance(counted, int) and counted != self.samples:
            message = f"it says that there are {counted} samples, but {samples_from} has {self.samples}"
            self.findings.add("metadata_disagrees", message, f"{NAME}.npy", severity=WARNING)
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


def _unique(names: Iterable[str]) -> List[str]:
    return list(dict.fromkeys(names))


def _check_unchanged(container: Container) -> None:
    try:
        status = os.stat(container.path)
        now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError:
        now = (0, 0, 0, 0)
    if now != container.identity:
        raise ChangedFileError(container.path)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tool notices that a checkpoint is damaged: random damage over every format, and undamaged files."""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import json
import pathlib
import random
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from _judge import ALARM, FORMATS, OK, UNREAD
from _measure import HERE, environment

TIMEOUT = 60
PAGE = 4096
# The formats that carry checksums.
CHECKED = ("zip", "script")
# What the tools are called in the tables, and what each needs.
LABELS = {
    "loader": ("the loader itself (torch.load, torch.jit.load, safetensors)", "torch"),
    "ours": ("ours", None),
    "quick": ("ours, quick", None),
    "sidecar": ("ours, with the .sha256 file beside it", None),
    "picklescan": ("picklescan", "picklescan"),
    "modelscan": ("modelscan", "modelscan"),
    "testzip": ("zipfile.testzip", None),
    "unzip": ("unzip -t", "unzip"),
}


@dataclass
class Score:
    """How a tool did on one format; ``silent`` counts only what the loader loads without a complaint."""

    noticed: int = 0
    silent: int = 0
    alarms: int = 0
    unread: bool = False


@dataclass
class Outcome:
    """What came of one format: cases that change what is loaded, how many of them silently, and the undamaged files."""

    cases: int = 0
    harmless: int = 0
    changing: int = 0
    silent: int = 0
    undamaged: int = 0
    scores: Dict[str, Score] = field(default_factory=lambda: collections.defaultdict(Score))


class Judge:
    """A tool in a process of its own, started again when a file kills it."""

    def __init__(self, tool: str):
        self._tool = tool
        self._process: Optional[subprocess.Popen[str]] = None

    def ask(self, **question: Any) -> Any:
        """Its answer; a tool that dies or hangs over a file has noticed something."""
        if self._process is None:
            command = [sys.executable, "-I", str(HERE / "_judge.py"), self._tool]
            self._process = subprocess.Popen(
                command,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
        line = process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        status = self.close() if ready else self.close(kill=True)
        return [ALARM, f"ended with {status}" if ready else "hung"]

    def close(self, kill: bool = False) -> Optional[int]:
        """End it."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        if kill:
            process.kill()
        process.communicate()
        return process.returncode


def missing(tool: str) -> bool:
    """Whether a tool is not installed."""
    need = LABELS[tool][1]
    return need is not None and shutil.which(need) is None and importlib.util.find_spec(need) is None


def detect(folder: pathlib.Path, flips: int, seed: int, say: Callable[[str], None]) -> Dict[str, Outcome]:
    """Damage files of every format and ask every tool about each.

    :param flips: single-bit flips for each format; holes and truncations are half as many each
    """
    judges = {tool: Judge(tool) for tool in LABELS if not missing(tool)}
    maker = Judge("make")
    try:
        outcomes: Dict[str, Outcome] = {}
        for kind in FORMATS:
            outcomes[kind] = _detect(kind, folder, flips, seed, maker, judges)
            say(f"{outcomes[kind].cases} damaged files: {FORMATS[kind]}")
        return outcomes
    finally:
        for judge in (*judges.values(), maker):
            judge.close()


def _detect(kind: str, folder: pathlib.Path, flips: int, seed: int, maker: Judge, judges: Dict[str, Judge]) -> Outcome:
    outcome = Outcome()
    originals = [pathlib.Path(maker.ask(folder=str(folder), kind=kind, seed=seed + more)) for more in range(5)]
    for path in originals:
        _write_sidecar(path, path.read_bytes())
        outcome.undamaged += 1
        for tool, judge in judges.items():
            verdict, detail = judge.ask(path=str(path), kind=kind)
            score = outcome.scores[tool]
            score.alarms += verdict == ALARM
            score.unread = score.unread or verdict == UNREAD
            if tool == "loader" and verdict != OK:
                raise RuntimeError(f"the undamaged {path.name} does not load: {detail}")
    raw = originals[0].read_bytes()
    _verdict, whole = judges["loader"].ask(path=str(originals[0]), kind=kind)
    path = folder / f"damaged-{kind}{originals[0].suffix}"
    _write_sidecar(path, raw)
    for data in damages(raw, flips, random.Random(f"{seed} {kind}")):
        path.write_bytes(data)
        verdicts = {tool: judge.ask(path=str(path), kind=kind) for tool, judge in judges.items()}
        outcome.cases += 1
        verdict, loaded = verdicts["loader"]
        if verdict == OK and loaded == whole:
            outcome.harmless += 1
            continue
        outcome.changing += 1
        outcome.silent += verdict == OK
        for tool, answer in verdicts.items():
            # What a tool reads when whole and leaves unread when damaged, it has noticed.
            noticed = answer[0] == ALARM or (answer[0] == UNREAD and not outcome.scores[tool].unread)
            outcome.scores[tool].noticed += noticed
            outcome.scores[tool].silent += noticed and verdict == OK
    for used in (*originals, path):
        used.unlink()
        _sidecar(used).unlink()
    return outcome


def damages(raw: bytes, flips: int, chance: random.Random) -> Iterator[bytes]:
    """Single flipped bits, pages that were never written, and files that end too early."""
    for _ in range(flips):
        data = bytearray(raw)
        data[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        yield bytes(data)
    for number in range(2 * (flips // 2)):
        if number % 2:
            yield raw[: chance.randrange(len(raw))]
            continue
        begin = chance.randrange(0, len(raw), PAGE)
        data = bytearray(raw)
        data[begin : begin + PAGE] = bytes(len(data[begin : begin + PAGE]))
        yield bytes(data)


def _sidecar(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".sha256")


def _write_sidecar(path: pathlib.Path, data: bytes) -> None:
    _sidecar(path).write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")


def tables(outcomes: Dict[str, Outcome]) -> List[Tuple[str, List[List[str]]]]:
    """Titles and rows of the tables, the first row being the head."""
    head = ["tool", *(FORMATS[kind] for kind in outcomes)]
    cases = [
        ["cases", *(str(outcome.cases) for outcome in outcomes.values())],
        ["without effect on what is loaded", *(str(outcome.harmless) for outcome in outcomes.values())],
        ["the loader refuses", *(str(outcome.changing - outcome.silent) for outcome in outcomes.values())],
        ["the loader silently loads something else", *(str(outcome.silent) for outcome in outcomes.values())],
    ]
    noticed, silent, alarms = [head], [head], [head]
    for tool, (label, _need) in LABELS.items():
        if missing(tool):
            for table in (noticed, silent, alarms):
                table.append([label, *("not installed" for _ in outcomes)])
            continue
        noticed.append([label, *(_share(o, o.scores[tool].noticed, o.changing, tool) for o in outcomes.values())])
        silent.append([label, *(_share(o, o.scores[tool].silent, o.silent, tool) for o in outcomes.values())])
        alarms.append(
            [
                label,
                *(
                    "not read" if o.scores[tool].unread else f"{o.scores[tool].alarms} of {o.undamaged}"
                    for o in outcomes.values()
                ),
            ]
        )
    return [
        ("What was done to the files", [["", *head[1:]], *cases]),
        ("Damage that changes what is loaded, and which tool notices it", noticed),
        ("Of it, what the loader silently loads", silent),
        ("False alarms on undamaged files", alarms),
        ("What is claimed of ours", [["claim", "wanted", *head[1:]], *_claimed(outcomes)]),
    ]


def _claimed(outcomes: Dict[str, Outcome]) -> List[List[str]]:
    """Everything is noticed where there is a checksum, inside the file or beside it, and nothing that is whole."""
    inside, beside, whole = [], [], []
    for kind, outcome in outcomes.items():
        noticed = [outcome.scores[tool].noticed == outcome.changing for tool in ("ours", "sidecar")]
        inside.append(_verdict(noticed[0]) if kind in CHECKED else "no checksums inside")
        beside.append(_verdict(noticed[1]))
        whole.append(_verdict(not any(outcome.scores[tool].alarms for tool in ("ours", "quick", "sidecar"))))
    return [
        ["notices every damage, by the checksums inside", "all", *inside],
        ["notices every damage, by the .sha256 file beside it", "all", *beside],
        ["false alarms", "none", *whole],
    ]


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


def _share(outcome: Outcome, part: int, whole: int, tool: str) -> str:
    if outcome.scores[tool].unread:
        return "not read"
    alarm = ", alarms on whole files too" if outcome.scores[tool].alarms == outcome.undamaged else ""
    return f"{part} of {whole} ({100 * part / whole:.0f} %{alarm})" if whole else "none"

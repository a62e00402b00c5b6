# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened when, on every node: drawn and as a table. This util is private to the collection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows
from ansible_collections.ringrift.recovery.plugins.module_utils._report_svg import MAX_NAME, e, svg
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import (
    clock,
    evidence_of,
    figure,
    integer,
    measure,
    moment,
    short,
    span,
    visible,
)

# Each kind has a shape of its own, drawn around the origin.
SHAPES = {
    "boot": ("boot", '<path d="M-1.5-7h3v14h-3z"/>'),
    "started": ("started", '<path d="M-5-6L6 0L-5 6z"/>'),
    "progress": ("progress", '<circle r="5"/>'),
    "checkpoint": ("checkpoint", '<path d="M0-6L6 0L0 6L-6 0z"/>'),
    "completed": ("completed", '<path d="M-5.5-5.5h11v11h-11z"/>'),
    "failed": ("failed", '<path d="M-6-4L-4-6L0-2L4-6L6-4L2 0L6 4L4 6L0 2L-4 6L-6 4L-2 0z"/>'),
    "kernel": ("kernel event", '<path d="M0-7L7 6H-7z"/>'),
}
LANE = 56
# Marks that are closer than this many percent are drawn below each other.
NEAR = 2.0
LEVELS = 3
LEVEL = 9
MAX_LANES = 24
MAX_KERNEL = 20
MAX_CHECKPOINTS = 10
TICKS = (
    ("1 min", 60),
    ("10 min", 600),
    ("1 h", 3600),
    ("6 h", 21600),
    ("1 d", 86400),
    ("7 d", 604800),
    ("30 d", 2592000),
    ("1 y", 31536000),
)
TICK_GAP = 13.0
RIGHT = 97.0


@dataclass(frozen=True)
class Moment:
    at: float
    kind: str
    words: str


def moments_of(node: Mapping[str, Any]) -> List[Moment]:
    """What one node says of the past, the oldest first."""
    found = [*_boot(node), *_events(node), *_checkpoints(node), *_kernel(node)]
    return sorted(set(found), key=lambda entry: (entry.at, entry.kind, entry.words))


def _boot(node: Mapping[str, Any]) -> Iterator[Moment]:
    at = moment(part(node, "host").get("booted_at"))
    if at is not None:
        yield Moment(at, "boot", "the node was booted")


def _events(node: Mapping[str, Any]) -> Iterator[Moment]:
    last = part(node, "events", "last")
    for kind in ("started", "progress", "completed", "failed"):
        event = part(last, kind)
        at = moment(event.get("at"))
        if at is None:
            continue
        words = [f"training {kind}" if kind != "progress" else "last progress"]
        done = integer(event.get("epoch"))
        if done is not None:
            words.append(f"epoch {done}")
        if measure(event.get("loss")) is not None:
            words.append(f"loss {figure(event.get('loss'))}")
        if event.get("error"):
            words.append(visible(event.get("error"))[:300])
        yield Moment(at, kind, ", ".join(words))


def _checkpoints(node: Mapping[str, Any]) -> Iterator[Moment]:
    known: Dict[Tuple[float, str], Mapping[str, Any]] = {}
    for entry in [*rows(node.get("checkpoints")), part(node, "progress", "checkpoint")]:
        at = moment(entry.get("mtime"))
        if at is not None:
            known.setdefault((at, visible(entry.get("path")) or "a checkpoint"), entry)
    for (at, path), entry in sorted(known.items(), key=lambda item: item[0])[-MAX_CHECKPOINTS:]:
        yield Moment(
            at, "checkpoint", f"{path[:200]} was written{', it is damaged' if entry.get('valid') is False else ''}"
        )


def _kernel(node: Mapping[str, Any]) -> Iterator[Moment]:
    booted = moment(part(node, "host").get("booted_at"))
    for event in rows(part(node, "kernel").get("events"))[-MAX_KERNEL:]:
        at, since = moment(event.get("time")), measure(event.get("seconds_since_boot"))
        if at is None and booted is not None and since is not None:
            at = moment(booted + since)
        if at is not None:
            yield Moment(at, "kernel", f"{visible(event.get('kind'))}: {visible(event.get('message'))[:300]}")


@dataclass(frozen=True)
class Timeline:
    """A drawing, a table that says the same, and how many nodes were left out."""

    drawing: str
    table: str
    key: str
    left_out: int


def timeline(nodes: Sequence[Mapping[str, Any]], evidence: Any, at: Optional[float]) -> Optional[Timeline]:
    """Draw the nodes that have more to tell than when they were booted; None where there is none."""
    lanes = [(visible(node.get("name")), moments_of(evidence_of(evidence, node.get("name")))) for node in nodes]
    telling = [(name, found) for name, found in lanes if any(entry.kind != "boot" for entry in found)]
    if not telling:
        return None
    shown = telling[:MAX_LANES]
    latest = max(entry.at for _name, found in shown for entry in found)
    now = at if at is not None else latest
    oldest = min(entry.at for _name, found in shown for entry in found)
    scale = _Scale(now, max(600.0, now - oldest))
    kinds = [kind for kind in SHAPES if any(entry.kind == kind for _name, found in shown for entry in found)]
    parts = [*_defs(kinds), *_axis(scale, len(shown) * LANE)]
    for number, (name, found) in enumerate(shown):
        parts.extend(_lane(number * LANE, name, found, scale))
    told = "; ".join(f"{name}: {found[-1].words}, {span(now - found[-1].at)} before" for name, found in shown)
    title = f"Events of {len(shown)} nodes before {clock(now)}"
    return Timeline(
        svg("timeline-chart", title, told, len(shown) * LANE + 26, parts),
        _table(shown, now),
        _key(kinds),
        len(telling) - len(shown),
    )


@dataclass(frozen=True)
class _Scale:
    """Logarithmic in the time before ``now``, so that both the last minutes and the last weeks can be seen."""

    now: float
    longest: float

    def place(self, age: float) -> float:
        return RIGHT * (1 - math.log1p(max(0.0, age) / 60) / math.log1p(self.longest / 60)) + 1


def _defs(kinds: Sequence[str]) -> Iterator[str]:
    yield "<defs>" + "".join(f'<g id="mark-{kind}">{SHAPES[kind][1]}</g>' for kind in kinds) + "</defs>"


def _axis(scale: _Scale, height: int) -> Iterator[str]:
    last = scale.place(0)
    yield f'<line x1="{last:.2f}%" x2="{last:.2f}%" y1="0" y2="{height}" class="rule"/>'
    yield f'<text x="100%" y="{height + 18}" text-anchor="end" class="strong">seen</text>'
    for words, age in TICKS:
        place = scale.place(age)
        if place < 4 or last - place < TICK_GAP:
            continue
        last = place
        yield f'<line x1="{place:.2f}%" x2="{place:.2f}%" y1="0" y2="{height}" class="rule"/>'
        yield f'<text x="{place:.2f}%" y="{height + 18}" text-anchor="middle" class="soft">{e(words)}</text>'


def _lane(top: int, name: str, found: Sequence[Moment], scale: _Scale) -> Iterator[str]:
    yield f'<text x="0" y="{top + 11}" class="strong">{e(short(name, MAX_NAME))}</text>'
    yield f'<line x1="0" x2="100%" y1="{top + 26}" y2="{top + 26}" class="rule"/>'
    last, level = -NEAR, 0
    for entry in found:
        place = scale.place(scale.now - entry.at)
        level = (level + 1) % LEVELS if place - last < NEAR else 0
        last = place
        yield (
            f'<use href="#mark-{entry.kind}" x="{place:.2f}%" y="{top + 26 + level * LEVEL}" class="mark-{entry.kind}">'
            f"<title>{e(f'{entry.words}, {clock(entry.at)}')}</title></use>"
        )


def _key(kinds: Sequence[str]) -> str:
    around = 'viewBox="-8 -8 16 16" aria-hidden="true"'
    entries = "".join(
        f'<li><svg {around} class="mark-{kind}">{shape}</svg>{e(words)}</li>'
        for kind, (words, shape) in SHAPES.items()
        if kind in kinds
    )
    return f'<ul class="key">{entries}</ul>'


def _table(shown: Sequence[Tuple[str, Sequence[Moment]]], now: float) -> str:
    lines = sorted(((entry.at, name, entry) for name, found in shown for entry in found), key=lambda line: line[:2])
    body = "".join(
        f"<tr><td>{e(clock(at))}<br><small>{e(_before(now - at))}</small></td>"
        f"<td>{e(name)}</td><td>{e(entry.words)}</td></tr>"
        for at, name, entry in lines
    )
    return (
        '<table><thead><tr><th scope="col">When</th><th scope="col">Node</th><th scope="col">What</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _before(age: float) -> str:
    return f"{span(age)} before" if age >= 0 else f"{span(-age)} after"

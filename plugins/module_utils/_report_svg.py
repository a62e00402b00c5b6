# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Charts of bars that keep their text readable at every width: places are percent, heights are pixels.

This util is private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import (
    epochs,
    evidence_of,
    figure,
    integer,
    measure,
    model,
    severity_of,
    short,
    span,
    state_words,
    visible,
)

MAX_ROWS = 32
MAX_NAME = 32
ROW = 54
BAR = 8


def e(words: Any) -> str:
    """Text for HTML, harmless wherever it is put."""
    return escape(visible(words), quote=True)


def svg(name: str, title: str, description: str, height: float, parts: Sequence[str]) -> str:
    """A picture with a name and a description for those who do not see it."""
    told = f'<title id="{name}-title">{e(title)}</title><desc id="{name}-desc">{e(description)}</desc>'
    labelled = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    return f'<svg {labelled} height="{height:g}">{told}{"".join(parts)}</svg>'


@dataclass(frozen=True)
class Bar:
    """``share`` of the track is filled, 0 to 1; None where it is not known."""

    label: str
    share: Optional[float]


@dataclass(frozen=True)
class BarRow:
    name: str
    note: str
    tone: str
    bars: Tuple[Bar, ...]


def bar_chart(name: str, title: str, table: Sequence[BarRow]) -> str:
    """Rows of bars, a name and a note above each row."""
    parts: List[str] = []
    told = []
    for number, row in enumerate(table):
        top = number * ROW
        width = 100 / max(1, len(row.bars))
        tone = f" {row.tone}" if row.tone else ""
        parts.append(f'<text x="0" y="{top + 11}" class="strong">{e(short(row.name, MAX_NAME))}</text>')
        parts.append(f'<text x="100%" y="{top + 11}" text-anchor="end" class="soft">{e(row.note)}</text>')
        for position, piece in enumerate(row.bars):
            left = f"{position * width:.2f}%"
            room = width - (0 if position == len(row.bars) - 1 else 3)
            parts.append(f'<rect x="{left}" y="{top + 17}" width="{room:.2f}%" height="{BAR}" rx="2" class="track"/>')
            if piece.share is not None:
                share = min(1.0, max(0.0, piece.share)) * room
                kind = f"tone{tone}" if tone else "bar"
                parts.append(
                    f'<rect x="{left}" y="{top + 17}" width="{share:.2f}%" height="{BAR}" rx="2" class="{kind}"/>'
                )
            if piece.label:
                parts.append(f'<text x="{left}" y="{top + 38}" class="soft">{e(piece.label)}</text>')
        told.append(f"{row.name}: {', '.join([row.note, *(piece.label for piece in row.bars if piece.label)])}")
    return svg(name, title, visible("; ".join(told)), len(table) * ROW - 12, parts)


GPU_TONES = {
    "wedged": "critical",
    "sick": "critical",
    "lost": "critical",
    "leaked_memory": "warning",
    "unknown": "warning",
}


def gpu_rows(nodes: Sequence[Mapping[str, Any]], evidence: Any) -> List[BarRow]:
    """Utilization, memory and power of each GPU; those of a node that are all idle in one row."""
    table = []
    for node in nodes:
        seen = rows(part(evidence_of(evidence, node.get("name")), "gpu").get("gpus"))
        gpus = [
            # The limit stands in the evidence only.
            {**gpu, "limit": seen[at].get("power_limit") if at < len(seen) and _same(seen[at], gpu) else None}
            for at, gpu in enumerate(rows(node.get("gpu")))
        ]
        name = visible(node.get("name"))
        if len(gpus) > 1 and all(gpu.get("verdict") == "idle" for gpu in gpus):
            table.append(_bars(f"{name} · {len(gpus)} GPUs", _together(gpus)))
            continue
        for gpu in gpus:
            index = integer(gpu.get("index"))
            table.append(_bars(f"{name} · {'GPU ?' if index is None else f'GPU {index}'}", gpu))
    return table


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.get("index") == other.get("index")


def _together(gpus: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Several GPUs as one: the highest load, and memory and power of all; not known where one of them is not."""

    def of(key: str, join: Callable[[List[float]], float]) -> Optional[float]:
        known = [value for value in (measure(gpu.get(key)) for gpu in gpus) if value is not None]
        return join(known) if len(known) == len(gpus) else None

    sums = {key: of(key, sum) for key in ("memory_used", "memory_total", "power", "limit")}
    return {"name": gpus[0].get("name"), "verdict": "idle", "utilization": of("utilization", max), **sums}


def _bars(label: str, gpu: Mapping[str, Any]) -> BarRow:
    verdict = visible(gpu.get("verdict")) or "unknown"
    note = f"{model(gpu.get('name'))}, {state_words(verdict)}"
    bars = (_load(gpu), _memory(gpu), _power(gpu, measure(gpu.get("limit"))))
    return BarRow(label, note, GPU_TONES.get(verdict, ""), bars)


def _load(gpu: Mapping[str, Any]) -> Bar:
    load = measure(gpu.get("utilization"))
    return Bar("load not known", None) if load is None else Bar(f"{figure(load)} % load", load / 100)


def _memory(gpu: Mapping[str, Any]) -> Bar:
    used, total = measure(gpu.get("memory_used")), measure(gpu.get("memory_total"))
    if used is None or not total:
        return Bar("memory not known", None)
    return Bar(f"{_gib(used)} of {_gib(total)} GiB", used / total)


def _gib(mebibytes: float) -> str:
    gibibytes = mebibytes / 1024
    return f"{gibibytes:.0f}" if gibibytes >= 10 else f"{gibibytes:.1f}"


def _power(gpu: Mapping[str, Any], limit: Optional[float]) -> Bar:
    power = measure(gpu.get("power"))
    if power is None:
        return Bar("power not known", None)
    # Without a limit there is nothing to draw it against.
    return Bar(f"{power:.0f} of {limit:.0f} W", power / limit) if limit else Bar(f"{figure(power)} W", None)


def progress_rows(nodes: Sequence[Mapping[str, Any]]) -> List[BarRow]:
    """Epochs and loss of each node that has trained."""
    table = []
    for node in nodes:
        done, total = integer(node.get("epoch")), integer(node.get("total_epochs"))
        if done is None:
            continue
        loss = measure(node.get("loss"))
        words = [f"epoch {epochs(node)}", "loss not known" if loss is None else f"loss {figure(loss)}"]
        age = measure(node.get("age"))
        words.append("age not known" if age is None else f"{span(age)} ago")
        state = visible(node.get("state"))
        tone = "critical" if state == "stalled" else "good" if state in ("progressing", "busy") else ""
        share = done / total if total and total > 0 else None
        table.append(BarRow(visible(node.get("name")), state_words(state), tone, (Bar(", ".join(words), share),)))
    return table


def tone_of(row: Mapping[str, Any]) -> str:
    """The tone of a node, by its worst finding, else by its state."""
    if row.get("worst"):
        return severity_of(row.get("worst"))
    return "good" if row.get("state") in ("progressing", "starting", "busy") else "plain"

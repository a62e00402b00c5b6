# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A diagnosis as lines for a terminal. This util is private to the collection."""

from __future__ import annotations

import unicodedata
from typing import Any, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import (
    Folded,
    clock,
    epochs,
    figure,
    fold,
    gap_hosts,
    gpu_words,
    headline,
    host_words,
    moment,
    severity_of,
    shown_nodes,
    size,
    span,
    state_words,
    tally_words,
    unseen,
    visible,
    worst_words,
)

WIDTH = 120
NARROWEST = 40
GAP = 2
INDENT = 10

COLUMNS = ("NODE", "STATE", "EPOCH", "LOSS", "AGE", "GPU", "DISK FREE", "WORST")
# What goes first where the terminal is narrow; node, state and worst stay.
DROPPED = ("LOSS", "DISK FREE", "EPOCH", "GPU", "AGE")
SHORT_GPU = 28
SHORT_NAME = 24
SHORTEST = 12

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
SEVERITY_COLOURS = {"critical": f"{BOLD};{RED}", "warning": YELLOW, "info": CYAN}
STATE_COLOURS = {
    "progressing": GREEN,
    "starting": CYAN,
    "busy": CYAN,
    "stalled": RED,
    "not_running": "",
    "unknown": YELLOW,
    "unreachable": RED,
    "failed": RED,
}
HEADLINE_COLOURS = {True: f"{BOLD};{RED}", False: f"{BOLD};{GREEN}", None: f"{BOLD};{YELLOW}"}


def diagnosis_table(verdict: Mapping[str, Any], width: Optional[int] = None, colour: bool = False) -> List[str]:
    """Render a verdict: headline, a line per node, the findings as ranked, what was not seen, the next command last.

    Commands stay on one line, so that they can be copied; everything else is bounded.

    :param width: columns of the terminal, 120 by default
    """
    return _Table(max(NARROWEST, width or WIDTH), colour).lines(verdict)


class _Table:
    def __init__(self, width: int, colour: bool) -> None:
        self.width = width
        self.colour = colour
        self.gaps: FrozenSet[str] = frozenset()

    def paint(self, words: str, code: str) -> str:
        return f"\x1b[{code}m{words}\x1b[0m" if self.colour and code and words else words

    def lines(self, verdict: Mapping[str, Any]) -> List[str]:
        self.gaps = gap_hosts(verdict)
        stalled = verdict.get("stalled")
        code = HEADLINE_COLOURS[stalled if isinstance(stalled, bool) else None]
        lines = [self.paint(line, code) for line in wrap(headline(verdict), self.width)]
        seen = moment(verdict.get("at"))
        facts = [*tally_words(verdict), *([f"seen {clock(seen)}"] if seen is not None else [])]
        lines += [self.paint(line, DIM) for line in wrap("; ".join(facts), self.width)]
        nodes, quiet = shown_nodes(verdict)
        if nodes or quiet:
            lines += ["", *self.nodes(nodes)]
        if quiet:
            count = f"{len(quiet)} node{'' if len(quiet) == 1 else 's'}"
            lines.append(self.paint(f"… and {count} without findings", DIM))
        if any(row.get("coordinator") for row in nodes):
            lines.append(self.paint("* coordinator", DIM))
        findings = fold(verdict.get("findings"))
        if findings:
            lines.append("")
        for finding in findings:
            lines.extend(self.finding(finding))
        gaps = unseen(verdict)
        if gaps:
            lines.append("")
        for probe, reason, hosts in gaps:
            lines.extend(self.block("NOT SEEN", f"{probe} on {host_words(hosts)}: {reason}", YELLOW))
        command = visible(verdict.get("next"))
        if command:
            lines += ["", self.paint("next:", BOLD) + f" {command}"]
        return lines

    # Nodes

    def nodes(self, nodes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        if not nodes:
            return
        cells = [COLUMNS, *(_cells(row, self.gaps) for row in nodes)]
        kept = self.columns(cells)
        for number, line in enumerate(cells):
            painted = []
            for column, room in kept:
                # The last column needs no padding.
                words = fit(line[column], room, pad=column != kept[-1][0])
                painted.append(self.paint(words, DIM if number == 0 else _colour(nodes[number - 1], column)))
            yield (" " * GAP).join(painted).rstrip()

    def columns(self, cells: Sequence[Sequence[str]]) -> List[Tuple[int, int]]:
        """Which columns fit, and how wide they are."""
        widths = {column: max(columns_of(line[column]) for line in cells) for column in range(len(COLUMNS))}
        gpu, name = COLUMNS.index("GPU"), COLUMNS.index("NODE")

        def excess() -> int:
            return sum(widths.values()) + GAP * (len(widths) - 1) - self.width

        def narrow(column: int, least: int) -> None:
            if column in widths:
                widths[column] -= max(0, min(excess(), widths[column] - least))

        # A long GPU summary or name gives way before a column does.
        narrow(gpu, SHORT_GPU)
        narrow(name, SHORT_NAME)
        for title in DROPPED:
            if excess() > 0:
                del widths[COLUMNS.index(title)]
        narrow(name, SHORTEST)
        narrow(COLUMNS.index("STATE"), SHORTEST)
        return sorted(widths.items())

    # Findings

    def finding(self, finding: Folded) -> Iterator[str]:
        where = f" on {finding.where()}" if finding.hosts else ""
        words = f"{finding.cause}{where}: {finding.summary}"
        if finding.confidence in ("medium", "low"):
            words += f" ({finding.confidence} confidence)"
        yield from self.block(finding.severity.upper(), words, SEVERITY_COLOURS[finding.severity])
        host, facts = finding.facts[0]
        if facts and not finding.same:
            yield from wrap(f"as on {host or 'the first'}:", self.width, " " * INDENT, " " * INDENT)
        for fact in facts:
            yield from wrap(visible(fact), self.width, " " * INDENT + "- ", " " * (INDENT + 2))
        if finding.fix:
            yield f"{' ' * INDENT}{self.paint('fix:', BOLD)} {finding.fix}"

    def block(self, label: str, words: str, code: str) -> Iterator[str]:
        head = fit(label, INDENT - 1) + " "
        for number, line in enumerate(wrap(words, self.width, " " * INDENT, " " * INDENT)):
            yield self.paint(head, code) + line[INDENT:] if number == 0 else line


def _cells(row: Mapping[str, Any], gaps: FrozenSet[str]) -> List[str]:
    trainer = visible(row.get("trainer"))
    state = state_words(row.get("state"))
    return [
        visible(row.get("name")) + (" *" if row.get("coordinator") else ""),
        f"{state} ({trainer})" if trainer else state,
        epochs(row),
        figure(row.get("loss")),
        span(row.get("age")),
        gpu_words(row),
        size(row.get("disk_free")),
        worst_words(row, gaps),
    ]


def _colour(row: Mapping[str, Any], column: int) -> str:
    title = COLUMNS[column]
    if title == "STATE":
        return STATE_COLOURS.get(str(row.get("state")), YELLOW)
    if title == "WORST" and row.get("worst"):
        return SEVERITY_COLOURS[severity_of(row.get("worst"))]
    return ""


# Text in columns


def columns_of(words: str) -> int:
    """How many columns of a terminal a text takes."""
    if words.isascii():
        return len(words)
    return sum(_columns(char) for char in words)


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def cut(words: str, room: int) -> int:
    """How many characters of a text fit."""
    taken = 0
    for position, char in enumerate(words):
        taken += _columns(char)
        if taken > room:
            return position
    return len(words)


def fit(words: str, room: int, pad: bool = True) -> str:
    """A text that takes this room and no more."""
    if columns_of(words) > room:
        words = words[: cut(words, room - 1)] + "…"
    return words + " " * (room - columns_of(words)) if pad else words


def wrap(words: str, width: int, first: str = "", then: str = "") -> List[str]:
    """Lines of a text that are no wider than this, broken at blanks where there are some."""
    lines: List[str] = []
    rest, lead = words.strip(" "), first
    while True:
        room = width - len(lead)
        end = cut(rest, room)
        if end == len(rest):
            return [*lines, (lead + rest).rstrip(" ")]
        blank = rest.rfind(" ", 1, end + 1)
        # A word that is longer than a third of the line is broken.
        end = blank if blank > room // 3 else max(end, 1)
        lines.append((lead + rest[:end]).rstrip(" "))
        rest, lead = rest[end:].lstrip(" "), then

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A diagnosis as one page that needs nothing else and can do nothing. This util is private to the collection."""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _report_html_style as style
from ansible_collections.ringrift.recovery.plugins.module_utils._report_html_parts import (
    MARKS,
    chip,
    command,
    finding_card,
    node_table,
    run_section,
    unseen_list,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._report_svg import (
    MAX_ROWS,
    BarRow,
    bar_chart,
    e,
    gpu_rows,
    progress_rows,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._report_timeline import timeline
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import (
    clock,
    fold,
    gap_hosts,
    headline,
    moment,
    shown_nodes,
    tally,
    unseen,
    visible,
)

TONES = {True: "critical", False: "good", None: "warning"}
# So many findings show their facts at once.
OPEN_FINDINGS = 3


def diagnosis_html(
    verdict: Mapping[str, Any], evidence: Optional[Mapping[str, Any]] = None, run: Optional[Mapping[str, Any]] = None
) -> str:
    """Render a verdict as a page.

    :param evidence: what the verdict was made from; times and limits of the charts come from there
    :param run: what ``run_report`` returned of a recovery
    """
    sections = [section for section in _sections(verdict, evidence, run) if section[2]]
    links = "".join(f'<a href="#{name}">{e(title)}</a>' for name, title, _body in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{title}</h2>{content}</section>'
        for name, title, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{style.policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>{e(headline(verdict))}</title><style>{style.STYLE}</style></head>"
        f'<body><main>{_top(verdict, run)}<nav aria-label="Sections">{links}</nav>{body}'
        "<footer>Made by ringrift.recovery from one look at the nodes. What was not seen does not count as healthy."
        "</footer></main></body></html>\n"
    )


def _top(verdict: Mapping[str, Any], run: Optional[Mapping[str, Any]]) -> str:
    stalled = verdict.get("stalled")
    tone = TONES[stalled if isinstance(stalled, bool) else None]
    states, found = tally(verdict)
    chips = [chip(f"{count} {name}", name, MARKS[name]) for name, count in found.items()]
    chips += [chip(f"{count} {state}", "plain") for state, count in states.items()]
    gaps = sum(len(hosts) for _probe, _reason, hosts in unseen(verdict))
    if gaps:
        chips.append(chip(f"{gaps} not seen", "warning", "?"))
    # After a recovery its own next command counts.
    following = visible((verdict if run is None else run).get("next"))
    kind = "Training diagnosis" if run is None else "Training diagnosis before the recovery"
    config, seen = e(verdict.get("config")), e(clock(moment(verdict.get("at"))))
    return (
        f'<header class="top card {tone}"><p class="about"><span>{kind}</span>'
        f"<span>config <b>{config}</b></span><span>seen <b>{seen}</b></span></p>"
        f'<h1><span class="mark" aria-hidden="true">{MARKS[tone]}</span>{e(headline(verdict))}</h1>'
        f'<ul class="tally">{"".join(f"<li>{entry}</li>" for entry in chips)}</ul>'
        f"{command(following, 'Next command') if following else ''}</header>"
    )


def _sections(
    verdict: Mapping[str, Any], evidence: Any, run: Optional[Mapping[str, Any]]
) -> Iterator[Tuple[str, str, str]]:
    """Name, title and content of each section; one without content is left out."""
    loud, quiet = shown_nodes(verdict)
    if run is not None:
        yield "run", "Recovery", run_section(run)
    findings = fold(verdict.get("findings"))
    cards = "".join(finding_card(entry, number < OPEN_FINDINGS) for number, entry in enumerate(findings))
    yield "findings", "Findings", cards or '<p class="card empty">No findings.</p>'
    yield "nodes", "Nodes", node_table(loud, quiet, gap_hosts(verdict))
    note = f" {len(quiet)} nodes without findings are not drawn." if quiet else ""
    yield "timeline", "Timeline", _timeline(loud, evidence, moment(verdict.get("at")), note)
    words = f"Finished epochs of all, and the loss of the last.{note}"
    yield "progress", "Progress", _chart("progress", "Epochs and loss", progress_rows(loud), words)
    words = f"Load, memory and power of each GPU. A power bar is a share of the power limit.{note}"
    yield "gpus", "GPUs", _chart("gpus", "Load, memory and power of the GPUs", gpu_rows(loud, evidence), words)
    yield "unseen", "Not seen", unseen_list(unseen(verdict))


def _timeline(nodes: Sequence[Mapping[str, Any]], evidence: Any, at: Optional[float], note: str) -> str:
    drawn = timeline(nodes, evidence, at)
    if drawn is None:
        return ""
    words = f"Time before the look, on a logarithmic scale.{note}{_left_out(drawn.left_out, 'nodes')}"
    return (
        f'<figure class="card"><figcaption>{words}'
        f"</figcaption>{drawn.key}{drawn.drawing}<details><summary>As a table</summary>{drawn.table}</details></figure>"
    )


def _chart(name: str, title: str, table: List[BarRow], words: str) -> str:
    if not table:
        return ""
    drawn = bar_chart(f"{name}-chart", title, table[:MAX_ROWS])
    more = _left_out(len(table) - MAX_ROWS, "rows")
    return f'<figure class="card"><figcaption>{e(words)}{more}</figcaption>{drawn}</figure>'


def _left_out(count: int, what: str) -> str:
    return f" {count} further {what} are not drawn." if count > 0 else ""

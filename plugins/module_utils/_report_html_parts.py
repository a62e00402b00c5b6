# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the report page that are text. This util is private to the collection."""

from __future__ import annotations

from html import escape
from typing import Any, FrozenSet, List, Mapping, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._plain import named, part
from ansible_collections.ringrift.recovery.plugins.module_utils._report import report_lines
from ansible_collections.ringrift.recovery.plugins.module_utils._report_svg import e, tone_of
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import (
    MISSING,
    WORDS,
    Folded,
    epochs,
    figure,
    gpu_words,
    host_words,
    integer,
    short,
    size,
    span,
    state_words,
    visible,
    worst_words,
)

# Beside the words, so that nothing is told by colour alone.
MARKS = {"critical": "▲", "warning": "◆", "info": "●", "good": "✓", "plain": "–"}
STATE_TONES = {
    "progressing": "good",
    "starting": "info",
    "busy": "info",
    "stalled": "critical",
    "not_running": "plain",
    "unreachable": "critical",
    "failed": "critical",
}
MAX_FACTS = 40
NAMED_HOSTS = 8
# Node by node, up to this many.
MAX_HOSTS = 40


def chip(words: str, tone: str, mark: str = "") -> str:
    shown = f'<span aria-hidden="true">{mark}</span>' if mark else ""
    return f'<span class="chip {tone}">{shown}{e(words)}</span>'


def command(words: str, label: str) -> str:
    """A command that one click selects."""
    # A word stays whole, as "-e" would else be broken after its hyphen.
    shown = " ".join(f"<span>{e(word)}</span>" for word in visible(words).split(" "))
    return f'<div class="command"><p>{e(label)}</p><code>{shown}</code></div>'


# Findings


def finding_card(finding: Folded, unfolded: bool) -> str:
    where = f'<span class="soft">on {e(finding.where(NAMED_HOSTS))}</span>' if finding.hosts else ""
    refs = [f"{finding.confidence} confidence"] if finding.confidence else []
    refs += [f"runbook: {finding.runbook}"] if finding.runbook else []
    refs += [finding.doc] if finding.doc else []
    severity = chip(finding.severity, finding.severity, MARKS[finding.severity])
    return (
        f'<article class="finding card {finding.severity}"><h3>'
        f'{severity}<span class="mono">{e(finding.cause)}</span>{where}</h3>'
        f'<p class="said">{e(finding.summary)}</p>{_facts(finding, unfolded)}'
        f"{command(finding.fix, 'Fix') if finding.fix else ''}"
        f'<p class="refs">{"".join(f"<span>{e(ref)}</span>" for ref in refs)}</p></article>'
    )


def _facts(finding: Folded, unfolded: bool) -> str:
    count = sum(len(facts) for _host, facts in finding.facts)
    if not count:
        return ""
    if finding.same:
        facts = finding.facts[0][1]
        body, title = _fact_list(facts), f"{len(facts)} fact{'' if len(facts) == 1 else 's'}"
        if len(finding.facts) > 1:
            title += ", the same on each"
    else:
        shown = finding.facts[:MAX_HOSTS]
        body = "".join(f"<h4>{e(host) or 'fleet'}</h4>{_fact_list(facts)}" for host, facts in shown)
        if len(finding.facts) > MAX_HOSTS:
            body += f'<p class="soft">… and {len(finding.facts) - MAX_HOSTS} more hosts</p>'
        title = f"{count} facts of {len(finding.facts)} hosts"
        unfolded = False
    return f"<details{' open' if unfolded else ''}><summary>{title}</summary>{body}</details>"


def _fact_list(facts: Sequence[str]) -> str:
    shown = [f"<li>{escape(visible(fact, lines=True), quote=True)}</li>" for fact in facts[:MAX_FACTS]]
    if len(facts) > MAX_FACTS:
        shown.append(f'<li class="soft">… and {len(facts) - MAX_FACTS} more</li>')
    return f'<ul class="facts">{"".join(shown)}</ul>'


# Nodes


def node_table(shown: Sequence[Mapping[str, Any]], quiet: Sequence[Mapping[str, Any]], gaps: FrozenSet[str]) -> str:
    if not shown and not quiet:
        return ""
    body = _table(shown, gaps) if shown else ""
    if quiet:
        count = f"{len(quiet)} more node{'' if len(quiet) == 1 else 's'} without findings"
        body += f'<details class="more"><summary>{count}</summary>{_table(quiet, gaps)}</details>'
    return f'<div class="card fleet">{body}</div>'


HEADINGS = ("Node", "State", "Epoch", "Loss", "Last progress", "GPU", "Disk free", "Findings")
NUMBERS = ("Epoch", "Loss", "Last progress", "Disk free")


def _table(nodes: Sequence[Mapping[str, Any]], gaps: FrozenSet[str]) -> str:
    kinds = {title: ' class="number"' if title in NUMBERS else "" for title in HEADINGS}
    heads = "".join(f'<th scope="col" role="columnheader"{kinds[title]}>{title}</th>' for title in HEADINGS)
    lines = "".join(_row(node, gaps) for node in nodes)
    return (
        f'<table class="nodes" role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{lines}</tbody></table>'
    )


def _row(node: Mapping[str, Any], gaps: FrozenSet[str]) -> str:
    trainer = short(visible(node.get("trainer")), WORDS)
    state = node.get("state")
    tone = STATE_TONES.get(state, "warning") if isinstance(state, str) else "warning"
    leader = ' <span class="tag">coordinator</span>' if node.get("coordinator") else ""
    running = f" <small>{e(trainer)}</small>" if trainer else ""
    age = span(node.get("age"))
    return (
        f'<tr role="row"><th scope="row" role="rowheader">{e(node.get("name"))}{leader}</th>'
        f'<td role="cell">{chip(state_words(state), tone)}{running}</td>'
        + _cell("Epoch", epochs(node), "number")
        + _cell("Loss", figure(node.get("loss")), "number")
        + _cell("Last progress", age if age == MISSING else f"{age} ago", "number")
        + _cell("GPU", gpu_words(node), "wide")
        + _cell("Disk free", size(node.get("disk_free")), "number")
        + f'<td role="cell">{_worst(node, gaps)}</td></tr>'
    )


def _cell(label: str, words: str, kind: str) -> str:
    blank = " blank" if words == MISSING else ""
    return f'<td role="cell" data-label="{label}" class="{kind}{blank}">{e(words)}</td>'


def _worst(node: Mapping[str, Any], gaps: FrozenSet[str]) -> str:
    words = worst_words(node, gaps)
    if not node.get("worst"):
        return f'<span class="soft">{e(words)}</span>'
    tone, count = tone_of(node), integer(node.get("findings"))
    return chip(words if count is None or count < 2 else f"{words}, {count} in all", tone, MARKS[tone])


# What was not seen


def unseen_list(gaps: Sequence[Tuple[str, str, List[str]]]) -> str:
    if not gaps:
        return ""
    lines = "".join(
        f'<li><div class="what"><span class="mono">{e(probe)}</span>'
        f'<span class="soft">on {e(host_words(hosts, NAMED_HOSTS))}</span></div>{e(reason)}</li>'
        for probe, reason, hosts in gaps
    )
    return f'<ul class="steps card">{lines}</ul>'


# A recovery


def run_section(run: Mapping[str, Any]) -> str:
    """What a recovery did, step by step. Steps that had nothing to change share a line, and so do such nodes."""
    planned = bool(run.get("check_mode"))
    blocks, idle = [], []
    for where, steps in (*named(run.get("nodes")).items(), ("fleet", part(run, "fleet"))):
        told = {step: _step(run, where, step, result, planned) for step, result in named(steps).items()}
        quiet = ", ".join(e(step.replace("_", " ")) for step, line in told.items() if not line)
        if told and not any(told.values()):
            idle.append(where)
        elif told:
            lines = "".join(told.values()) + (f"<li>{_nothing(quiet)}</li>" if quiet else "")
            blocks.append(f'<h3>{e(where)}</h3><ol class="steps">{lines}</ol>')
    if idle:
        blocks.append(f'<ol class="steps"><li>{_nothing(e(host_words(idle)))}</li></ol>')
    lead = f"{visible(run.get('outcome')) or 'no outcome'}{' (dry run, nothing was changed)' if planned else ''}"
    return f'<div class="card run"><p class="lead">{e(lead)}</p>{"".join(blocks)}</div>'


def _nothing(what: str) -> str:
    return f'<div class="what"><span>{what}</span>{chip("nothing to change", "plain")}</div>'


def _step(run: Mapping[str, Any], where: str, step: str, result: Mapping[str, Any], planned: bool) -> str:
    alone = {"config": "", "outcome": "", "check_mode": planned, "fleet": {}, "nodes": {where: {step: result}}}
    alone["at"] = run.get("at")
    words = [line[len(where) + 2 :] for line in report_lines(alone)[1:]]
    if step == "failure" or result.get("failed") or result.get("unreachable"):
        state = chip("failed", "critical", MARKS["critical"])
    elif step == "monitor":
        tone = "good" if result.get("progressed") else "warning"
        state = chip("progress proven" if tone == "good" else "not proven", tone, MARKS[tone])
    elif result.get("changed"):
        tone = "info" if planned else "good"
        state = chip("planned" if planned else "done", tone, MARKS[tone])
    elif words:
        state = chip("nothing to change", "plain")
    else:
        return ""
    lines = "".join(f"<div>{e(line)}</div>" for line in words)
    return f'<li><div class="what"><strong>{e(step.replace("_", " "))}</strong>{state}</div>{lines}</li>'

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the coordinator shows of the orchestrator, its events and its daemons, as findings.

This util is private to the collection.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils._finding import (
    MEDIUM,
    WARNING,
    Finding,
    finding,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import duration, number, part, rows, text, texts


def orchestrator_findings(config: str, host: Optional[str], p2p: Any) -> Iterator[Finding]:
    if not isinstance(p2p, Mapping):
        return
    if p2p.get("failed") or p2p.get("unreachable") or not p2p.get("reachable"):
        facts = [str(p2p.get("reason") or p2p.get("msg") or "no answer")]
        yield finding(config, "orchestrator_down", host, "the P2P orchestrator does not answer", facts)
        return
    if p2p.get("profile") == "ringrift" and not part(p2p, "leader").get("id"):
        yield finding(config, "no_leader", host, "the orchestrators have no leader", ["leader_id is empty"])
    cooldown = part(p2p, "cooldown")
    if cooldown.get("active") is True:
        left = number(cooldown.get("remaining"))
        facts = [f"{cooldown.get('remaining')} s remain", f"source: {cooldown.get('source')}"]
        blocks = cooldown.get("blocks_dispatch") is not False
        facts.append("" if blocks else "it holds automatic triggers back only; a dispatch by hand passes it")
        yield finding(
            config, "cooldown_active", host, f"a training cooldown is active for {duration(left)} more", facts, WARNING
        )


def job_nodes(p2p: Any) -> List[str]:
    """The nodes that the orchestrator says have an active job of the config."""
    return [str(job["node"]) for job in rows(part(p2p).get("active")) if text(job.get("node"))]


def orchestrator_gap(p2p: Any) -> Optional[str]:
    """Why what an orchestrator that answers knows of jobs is not known here; None where it is."""
    seen = part(p2p)
    if not seen.get("reachable") or (seen.get("profile") != "unknown" and seen.get("complete") is not False):
        return None
    return str(seen.get("reason") or seen.get("msg") or "its answers were not understood")


def wiring_findings(config: str, host: str, node: Mapping[str, Any], running: Optional[bool]) -> Iterator[Finding]:
    """Events that nobody hears, daemons that are down, and triggers that are held back."""
    wiring, daemons, triggers = part(node, "wiring"), part(node, "daemons"), part(node, "triggers")
    missing = texts(wiring.get("missing"))
    if wiring.get("verdict") == "unwired" and missing:
        facts = [f"{name}: no subscriber" for name in missing] + [f"asked: {wiring.get('url')}/subscriptions"]
        # Nobody hears of failures on a healthy service either.
        unheard = [name for name in missing if name != "TRAINING_FAILED"] or missing
        yield finding(config, "events_not_wired", host, f"nobody hears {', '.join(unheard)}", facts, WARNING)
    down = texts(daemons.get("down"))
    if down:
        states = part(daemons, "daemons")
        facts = [f"{name}: {states.get(name) or 'not there'}" for name in down] + [
            f"asked: {daemons.get('url')}/status"
        ]
        yield finding(config, "daemons_down", host, f"daemons are down: {', '.join(down)}", facts, WARNING)
    where = f"source: {triggers.get('database')}"
    if triggers.get("paused") is True:
        facts = [f"training_intensity is {triggers.get('intensity') or 'paused'}", where]
        yield finding(config, "trigger_blocked", host, "automatic training of the config is paused", facts, WARNING)
    # While a trainer runs the mark is as it should be.
    if triggers.get("training_in_progress") is True and running is False:
        facts = ["training_in_progress is set and no trainer runs: a crash left it", where]
        summary = "a mark of a training that is gone holds back the next"
        yield finding(config, "trigger_blocked", host, summary, facts, WARNING, MEDIUM)


def game_findings(config: str, host: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    games = part(node, "games")
    if games.get("enough") is False:
        facts = [f"{entry.get('path')}: {entry.get('games')} games" for entry in rows(games.get("databases"))]
        summary = f"only {games.get('games')} finished games in the replay databases"
        yield finding(config, "data_not_ready", host, summary, facts, WARNING)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the renderings of a diagnosis share: harmless text, measures in words, folded findings.

This util is private to the collection.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._finding import INFO, SEVERITIES
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows, text, texts

# Characters that control a terminal, reorder a line, hide in it or cannot be encoded.
HARMFUL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
MAX_TEXT = 2000
# Words of which only a few are known have as much room as these need.
WORDS = 24
MISSING = "–"
# More nodes than this are shown only where they have something to say.
MANY_NODES = 30
# Without a finding these still are not known to be well.
UNSEEN_STATES = ("unknown", "unreachable", "failed")
NODE_STATES = ("progressing", "starting", "busy", "stalled", "not_running", *UNSEEN_STATES)
NAMED_HOSTS = 2

_MODEL = re.compile(r"\b(?:[A-Z]{1,3}\d{2,4}[A-Z]{0,2}|RTX (?:A?\d{4}|PRO \d{4})[A-Za-z ]{0,12})\b")


def visible(value: Any, lines: bool = False) -> str:
    """A text from anywhere as one that cannot do anything: what is not to be seen is written out.

    :param lines: keep the ends of lines
    """
    if value is None:
        return ""
    shown = str(value)
    left = len(shown) - MAX_TEXT
    if left > 0:
        shown = shown[:MAX_TEXT]
    shown = shown.replace("\r\n", "\n").strip("\n").replace("\t", " ")
    if not lines:
        shown = shown.replace("\n", " ⏎ ")
    if not (shown.isascii() and shown.isprintable()):
        shown = "".join(_seen(char) for char in shown)
    return f"{shown} … ({left} characters more)" if left > 0 else shown


def _seen(char: str) -> str:
    if char == "\n" or unicodedata.category(char) not in HARMFUL:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def measure(value: Any) -> Optional[float]:
    """A finite number, or None; of any size."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def integer(value: Any) -> Optional[int]:
    """A whole number that a person can read, or None."""
    known = measure(value)
    return int(known) if known is not None and known == int(known) and abs(known) < 1e15 else None


def moment(value: Any) -> Optional[float]:
    """Unix seconds of a time, which is a number or ISO 8601; None where it is neither."""
    known = measure(value)
    if known is None and isinstance(value, str) and len(value) < 40:
        try:
            parsed = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
            known = (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
        except (ValueError, OverflowError):
            return None
    return known if known is not None and 0 < known < 32503680000 else None


def clock(seconds: Optional[float]) -> str:
    """Unix seconds as a person reads them."""
    if seconds is None:
        return MISSING
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: Any) -> str:
    """Seconds in words that fit into a column."""
    known = measure(seconds)
    if known is None or known < 0:
        return MISSING
    for limit, unit, name in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172800.0, 3600.0, "h")):
        if known < limit:
            return f"{known / unit:.0f} {name}"
    return f"{known / 86400:.0f} days" if known < 86400 * 100000 else "very long"


def size(value: Any) -> str:
    """Bytes in words."""
    known = measure(value)
    if known is None or known < 0:
        return MISSING
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if known < 1024:
            return f"{known:.0f} {unit}" if known >= 10 or unit == "B" else f"{known:.1f} {unit}"
        known /= 1024
    return f"{known:.0f} PiB" if known < 1e6 else "very much"


def figure(value: Any, digits: int = 4) -> str:
    """A number with as many digits as one reads."""
    known = measure(value)
    return MISSING if known is None else f"{known:.{digits}g}"


def state_words(state: Any) -> str:
    return short(visible(state).replace("_", " "), WORDS) or "unknown"


def short(words: str, room: int) -> str:
    """A text that is cut where it is longer than that."""
    return words if len(words) <= room else words[: room - 1] + "…"


def epochs(row: Mapping[str, Any]) -> str:
    done, total = integer(row.get("epoch")), integer(row.get("total_epochs"))
    if done is None:
        return MISSING
    return f"{done}/{total}" if total is not None else str(done)


def model(name: Any) -> str:
    """The short name of a GPU."""
    shown = visible(name)
    found = _MODEL.search(shown)
    return found.group() if found else shown.replace("NVIDIA ", "")[:20].strip() or "GPU"


def gpu_words(row: Mapping[str, Any]) -> str:
    """The GPUs of a node in a few words, such as ``1x H100 97 % 402 W busy``."""
    gpus = rows(row.get("gpu"))
    verdict = short(visible(row.get("gpu_verdict")).replace("_", " "), WORDS)
    if not gpus:
        return "no GPU" if verdict == "none" else verdict or MISSING
    models = Counter(model(gpu.get("name")) for gpu in gpus)
    words = [" + ".join(f"{count}x {name}" for name, count in models.items())]
    loads = [measure(gpu.get("utilization")) for gpu in gpus]
    known = [load for load in loads if load is not None]
    if len(known) < len(loads):
        words.append("? %")
    else:
        low, high = f"{min(known):.0f}", f"{max(known):.0f}"
        words.append(f"{high} %" if low == high else f"{low}–{high} %")
    draws = [measure(gpu.get("power")) for gpu in gpus]
    drawn = [draw for draw in draws if draw is not None]
    words.append(f"{sum(drawn):.0f} W" if len(drawn) == len(draws) else "? W")
    return " ".join([*words, verdict]).strip()


def severity_of(value: Any) -> str:
    return value if value in SEVERITIES else INFO


def has_something_to_say(row: Mapping[str, Any]) -> bool:
    """Whether a node belongs into a short list."""
    found = measure(row.get("findings"))
    return bool(found or row.get("worst") or row.get("trainer") or row.get("state") in UNSEEN_STATES)


def shown_nodes(verdict: Mapping[str, Any]) -> Tuple[List[Mapping[str, Any]], List[Mapping[str, Any]]]:
    """The nodes to show, and those of many that have nothing to say."""
    nodes = rows(verdict.get("nodes"))
    if len(nodes) <= MANY_NODES:
        return nodes, []
    loud = [row for row in nodes if has_something_to_say(row)]
    return loud, [row for row in nodes if not has_something_to_say(row)]


def tally(verdict: Mapping[str, Any]) -> Tuple[Dict[str, int], Dict[str, int]]:
    """How many nodes are in each state, and how many findings have each severity."""
    states = Counter(state_words(row.get("state")) for row in rows(verdict.get("nodes")))
    found = Counter(severity_of(entry.get("severity")) for entry in rows(verdict.get("findings")))
    return dict(states), {name: found[name] for name in SEVERITIES if found[name]}


def tally_words(verdict: Mapping[str, Any]) -> List[str]:
    """The tally of a verdict, a phrase for nodes and one for findings."""
    states, found = tally(verdict)
    nodes = sum(states.values())
    phrases = [f"{nodes} node{'' if nodes == 1 else 's'}"]
    if states:
        phrases[0] += ": " + ", ".join(f"{count} {state}" for state, count in states.items())
    phrases.append(
        "findings: " + ", ".join(f"{count} {name}" for name, count in found.items()) if found else "no findings"
    )
    gaps = sum(len(hosts) for _probe, _reason, hosts in unseen(verdict))
    return [*phrases, f"{gaps} not seen"] if gaps else phrases


@dataclass(frozen=True)
class Folded:
    """The same finding on one host or on many. ``facts`` has a pair of host and facts for each of them."""

    cause: str
    severity: str
    confidence: str
    summary: str
    fix: str
    runbook: str
    doc: str
    facts: Tuple[Tuple[str, Tuple[str, ...]], ...]

    @property
    def hosts(self) -> List[str]:
        return [host for host, _facts in self.facts if host]

    @property
    def same(self) -> bool:
        """Whether the facts are the same on every host."""
        return len({facts for _host, facts in self.facts}) == 1

    def where(self, named: int = NAMED_HOSTS) -> str:
        return host_words(self.hosts, named)


def host_words(hosts: Sequence[str], named: int = NAMED_HOSTS) -> str:
    """Such as ``node-01, node-02 and 17 more``."""
    if len(hosts) <= named + 1:
        return ", ".join(hosts[:-1]) + f" and {hosts[-1]}" if len(hosts) > 1 else "".join(hosts)
    return f"{', '.join(hosts[:named])} and {len(hosts) - named} more"


def fold(findings: Any) -> List[Folded]:
    """Findings in their order, those that differ in nothing but the host and its facts taken together."""
    groups: Dict[Tuple[str, ...], List[Mapping[str, Any]]] = {}
    for entry in rows(findings):
        key = tuple(str(entry.get(name)) for name in ("cause", "severity", "summary", "fix"))
        groups.setdefault(key, []).append(entry)
    return [_folded(group) for group in groups.values()]


def _folded(group: Sequence[Mapping[str, Any]]) -> Folded:
    first = group[0]
    facts = tuple((visible(entry.get("host")), tuple(texts(entry.get("evidence")))) for entry in group)
    fix = visible(first.get("fix"))
    return Folded(
        visible(first.get("cause")) or "unknown",
        severity_of(first.get("severity")),
        visible(first.get("confidence")),
        visible(first.get("summary")),
        f"ansible-playbook {fix}" if fix else "",
        visible(first.get("runbook")),
        visible(first.get("doc")),
        facts,
    )


def unseen(verdict: Mapping[str, Any]) -> List[Tuple[str, str, List[str]]]:
    """Probe, reason and hosts of what was not seen; a node that shows nothing at all is a finding."""
    groups: Dict[Tuple[str, str], List[str]] = {}
    for entry in rows(verdict.get("unknown")):
        if entry.get("probe") != "all":
            key = (visible(entry.get("probe")) or "something", visible(entry.get("reason")) or "no reason was given")
            groups.setdefault(key, []).append(visible(entry.get("host")) or "an unknown host")
    return [(probe, reason, hosts) for (probe, reason), hosts in groups.items()]


def gap_hosts(verdict: Mapping[str, Any]) -> FrozenSet[str]:
    """The nodes of which something was not seen."""
    return frozenset(visible(entry.get("host")) for entry in rows(verdict.get("unknown")))


def worst_words(row: Mapping[str, Any], gaps: FrozenSet[str]) -> str:
    """The worst finding of a node. Where something was not seen, no finding does not mean that all is well."""
    if row.get("worst"):
        return severity_of(row.get("worst"))
    if row.get("state") in UNSEEN_STATES:
        return "unknown"
    return "gaps" if visible(row.get("name")) in gaps else "none"


def headline(verdict: Mapping[str, Any]) -> str:
    known = text(verdict.get("headline"))
    return visible(known) if known else f"{visible(verdict.get('config'))}: UNKNOWN, the diagnosis has no headline"


def evidence_of(evidence: Any, host: Any) -> Mapping[str, Any]:
    """What a node has shown, from the evidence of the fleet."""
    found = part(evidence, "hosts", host) if isinstance(host, str) else {}
    coordinator = part(evidence, "coordinator")
    return found or (part(coordinator, "node") if coordinator.get("name") == host else {})

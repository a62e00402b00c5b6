# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix as a table in Markdown, which docs/safety.md quotes."""

from __future__ import annotations

from tests.faults.cases import DURING, STATES
from tests.faults.play import KILLS

GROUPS = (
    ("broken state: check mode writes nothing, predicts what is changed, and a second run changes nothing", STATES),
    ("fault while a recovery runs: nothing lost, nothing half-done, run again it ends well", DURING),
)


def table(entries: list[dict]) -> str:
    """One line for each group, and one for each case that went wrong."""
    known = {entry["name"]: entry for entry in entries}
    kills = [entry for entry in entries if entry["name"].startswith(KILLS)]
    groups = [
        (title, len(cases), [known[case.name] for case in cases if case.name in known]) for title, cases in GROUPS
    ]
    groups.append(("kill -9 of the controller after a task, for each task: the same", len(kills), kills))
    lines = ["| what | played | as they must be | seconds |", "| --- | --- | --- | --- |"]
    for title, count, found in groups:
        good = sum(not entry["wrong"] for entry in found)
        lines.append(f"| {title} | {len(found)} of {count} | {good} | {sum(entry['seconds'] for entry in found):.0f} |")
    for _title, _count, found in groups:
        lines += [
            f"| wrong: {entry['name']} | | {'; '.join(entry['wrong'])[:300]} | |" for entry in found if entry["wrong"]
        ]
    return "\n".join(lines)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which databases may be exported: those that the registry calls canonical. Part of the stand-in, see `app`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from app.utils.paths import AI_SERVICE_ROOT

REGISTRY = AI_SERVICE_ROOT / "TRAINING_DATA_REGISTRY.md"
_ROW = re.compile(
    r"^\s*\|\s*`?([^`|]+\.db)`?\s*\|[^|]*\|[^|]*\|\s*\*{0,2}([^|*]+)\*{0,2}\s*\|[^|]*\|[^|]*\|", re.MULTILINE
)


def read_registry(path: Path) -> dict[str, str]:
    """Status by database name."""
    if not path.exists():
        return {}
    return {name.strip(): status.strip().lower() for name, status in _ROW.findall(path.read_text("utf-8"))}


def enforce_canonical_sources(databases: Iterable[Path], registry: Path | None, allow_pending_gate: bool) -> None:
    """Exit when a database is not in the registry, or not with a status that may be exported."""
    registry = registry or REGISTRY
    known = read_registry(registry)
    allowed = ["canonical", "pending_gate"] if allow_pending_gate else ["canonical"]
    problems = []
    for database in databases:
        status = known.get(database.name)
        if status is None:
            problems.append(f"Database '{database.name}' not found in registry {registry}")
        elif status not in allowed:
            problems.append(f"Database '{database.name}' has status '{status}' (allowed: {allowed})")
    if problems:
        raise SystemExit(
            "[export-replay-dataset] Canonical source validation failed:\n" + "\n".join(f"- {p}" for p in problems)
        )

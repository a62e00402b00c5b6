# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn a verdict into what people and monitoring read: a table, metrics, a page."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional

from ansible.errors import AnsibleFilterError

# Engines are imported where they are called: a worker that needs one filter loads the files of all of them.

SCHEMA = 1


def _verdict(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or "findings" not in value or "nodes" not in value:
        raise AnsibleFilterError(f"ringrift.recovery.{name} needs what ringrift.recovery.verdict returns.")
    schema = value.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise AnsibleFilterError(
            f"ringrift.recovery.{name}: the verdict is of schema {schema!r}; this version understands {SCHEMA}."
        )
    return value


def _mapping(value: Any, what: str, name: str) -> Optional[Mapping[str, Any]]:
    if value is not None and not isinstance(value, Mapping):
        raise AnsibleFilterError(f"ringrift.recovery.{name}: {what} is no dictionary but {type(value).__name__}.")
    return value


def diagnosis_table(value: Any, width: Any = None, colour: bool = False) -> List[str]:
    """Render a verdict for a terminal."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _report_table

    verdict = _verdict(value, "diagnosis_table")
    try:
        columns = None if width is None else int(width)
    except (TypeError, ValueError, OverflowError) as exc:
        raise AnsibleFilterError(
            f"ringrift.recovery.diagnosis_table: width is {width!r}; it must be a number of columns, for example 120."
        ) from exc
    return _report_table.diagnosis_table(verdict, columns, bool(colour))


def diagnosis_metrics(value: Any) -> str:
    """Render a verdict for Prometheus."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _report_metrics

    return _report_metrics.diagnosis_metrics(_verdict(value, "diagnosis_metrics"))


def diagnosis_html(value: Any, evidence: Any = None, run: Any = None) -> str:
    """Render a verdict as a page."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _report_html

    name = "diagnosis_html"
    verdict = _verdict(value, name)
    return _report_html.diagnosis_html(verdict, _mapping(evidence, "evidence", name), _mapping(run, "run", name))


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {
            "diagnosis_table": diagnosis_table,
            "diagnosis_metrics": diagnosis_metrics,
            "diagnosis_html": diagnosis_html,
        }

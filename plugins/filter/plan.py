# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

# Engines are imported where they are called: a worker that needs one filter loads the files of all of them.


def recovery_plan(run: Any, evidence: Any, options: Any = None) -> Dict[str, Any]:
    """Make the plan of a dry run."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _plan

    return _plan.make_plan(
        _mapping(run, "the report of a run", "recovery_plan"),
        _mapping(evidence, "evidence", "recovery_plan"),
        _mapping(options or {}, "options", "recovery_plan"),
    )


def plan_differences(content: Any, evidence: Any, options: Any = None, path: str = "the file") -> List[str]:
    """Say in what the world is not as a saved plan has it."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _plan

    name = "plan_differences"
    try:
        plan = _plan.read_plan(content, path)
    except RecoveryError as exc:
        raise AnsibleFilterError(f"ringrift.recovery.{name}: {exc}") from exc
    return _plan.differences(plan, _mapping(evidence, "evidence", name), _mapping(options or {}, "options", name))


def _mapping(value: Any, what: str, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AnsibleFilterError(f"ringrift.recovery.{name} needs a dictionary as {what}, not {type(value).__name__}.")
    return value


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {"recovery_plan": recovery_plan, "plan_differences": plan_differences}

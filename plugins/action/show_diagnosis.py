# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.ringrift.recovery.plugins.module_utils._report_table import diagnosis_table

display = Display()

# Whoever reads these reads the result, and a line of text would spoil their format.
MACHINE_CALLBACKS = ("json", "jsonl", "xml", "junit")


class ActionModule(ActionBase):
    """Prints a verdict as it is, where a task's result would be folded, quoted and without colour."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec({"verdict": {"type": "dict", "required": True}})
        verdict = params["verdict"]
        if "findings" not in verdict or "nodes" not in verdict:
            result.update(failed=True, msg="verdict is not what the filter ringrift.recovery.verdict returns.")
            return result
        terminal = sys.stdout.isatty()
        width = max(60, display.columns) if terminal else None
        lines = diagnosis_table(verdict, width=width, colour=terminal and not C.ANSIBLE_NOCOLOR)
        if C.DEFAULT_STDOUT_CALLBACK.rpartition(".")[2] not in MACHINE_CALLBACKS:
            display.display("\n".join(lines))
        plain = lines if not terminal else diagnosis_table(verdict, width=width, colour=False)
        result.update(changed=False, lines=plain)
        return result

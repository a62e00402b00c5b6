# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils import color
from ansible.utils.display import Display
from ansible_collections.ringrift.recovery.plugins.module_utils._report_table import diagnosis_table
from ansible_collections.ringrift.recovery.plugins.plugin_utils._callback import is_for_people

display = Display()

# What Display says where there is no terminal.
NO_TERMINAL = 79


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
        # A worker has no terminal itself; what its parent saw of one is in these two.
        width = None if display.columns == NO_TERMINAL else display.columns
        lines = diagnosis_table(verdict, width=width, colour=False)
        if is_for_people():
            shown = diagnosis_table(verdict, width=width, colour=True) if color.ANSIBLE_COLOR else lines
            display.display("\n".join(shown))
        result.update(changed=False, lines=lines)
        return result

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.ringrift.recovery.plugins.module_utils import _replaced_files
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

ARGUMENT_SPEC = {
    "config": {"type": "str", "required": True},
    "folder": {"type": "str", "required": True},
    "run": {"type": "str"},
    "hosts": {"type": "list", "elements": "str"},
}


class ActionModule(ActionBase):
    """Reads on the controller, in this process."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(ARGUMENT_SPEC)
        named = params["run"] or None
        if named is not None and os.sep in named or (named or "").endswith(".json"):
            # As a shell would read it, and not beside the playbook.
            named = os.path.join(os.environ.get("PWD") or os.getcwd(), os.path.expanduser(named))
        folder = os.path.abspath(os.path.expanduser(params["folder"]))
        try:
            found = _replaced_files.find(folder, parse_config(params["config"]).name, named)
        except RecoveryError as exc:
            result.update(failed=True, changed=False, msg=str(exc))
            return result
        hosts = params["hosts"]
        left_out = [] if hosts is None else [name for name in found.nodes if name not in hosts]
        result.update(changed=False, **found.as_dict(), left_out=left_out)
        return result

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

# Engines are imported where they are called: a worker that needs one filter loads the files of all of them.


def unlisted_causes(verdict: Any, listed: Any) -> List[str]:
    """Say what keeps a run without a person from recovering a training."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _stall_watch

    if not isinstance(verdict, Mapping) or "findings" not in verdict:
        raise AnsibleFilterError("ringrift.recovery.unlisted_causes needs what ringrift.recovery.verdict returns.")
    try:
        return list(_stall_watch.unlisted_causes(verdict, _stall_watch.check_causes(listed)))
    except RecoveryError as exc:
        raise AnsibleFilterError(f"ringrift.recovery.unlisted_causes: {exc}") from exc


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {"unlisted_causes": unlisted_causes}

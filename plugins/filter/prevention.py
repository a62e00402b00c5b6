# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role prevent: its findings, these as lines, and the words of a unit file."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

# Engines are imported where they are called: a worker that needs one filter loads the files of all of them.


def prevention(nodes: Any, coordinator: str = "", config: str = "", **about: Any) -> Dict[str, Any]:
    """Say of each point of the runbook's prevention how it stands."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _prevention

    if not isinstance(nodes, Mapping):
        raise AnsibleFilterError("ringrift.recovery.prevention needs a dictionary of node name to its variables.")
    return _prevention.prevention(nodes, coordinator, config, **about)


def prevention_lines(value: Any) -> List[str]:
    """Render what ``prevention`` returns."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _prevention

    if not isinstance(value, Mapping) or "findings" not in value:
        raise AnsibleFilterError("ringrift.recovery.prevention_lines needs what ringrift.recovery.prevention returns.")
    return _prevention.prevention_lines(value)


def systemd_words(words: Any, command: bool = True) -> str:
    """Quote words for a unit file of systemd."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _unit_file

    if not isinstance(words, (list, tuple)):
        raise AnsibleFilterError("ringrift.recovery.systemd_words needs a list of words.")
    try:
        return _unit_file.quoted([str(word) for word in words], command)
    except RecoveryError as exc:
        raise AnsibleFilterError(f"ringrift.recovery.systemd_words: {exc}") from exc


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {"prevention": prevention, "prevention_lines": prevention_lines, "systemd_words": systemd_words}

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

from ansible.errors import AnsibleFilterError

# Engines are imported where they are called: a worker that needs one filter loads the files of all of them.


def refused_options(values: Any) -> List[str]:
    """Say what is wrong with the options of a playbook."""
    from ansible_collections.ringrift.recovery.plugins.module_utils import _options

    if not isinstance(values, Mapping):
        raise AnsibleFilterError("ringrift.recovery.refused_options needs a dictionary of options by name.")
    return _options.refused_options(values)


class FilterModule:
    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {"refused_options": refused_options}

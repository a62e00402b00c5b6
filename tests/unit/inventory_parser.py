# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that loads Ansible's plugins once and reads one inventory source for each line that it gets.

A line is ``{"path": …, "environment": {…}}``; the answer is ``{"found": …}``, as ``ansible-inventory --list`` gives it,
or ``{"failed": …}`` with what the plugin says.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, Dict

from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, inventory_loader

PLUGIN = "ringrift.recovery.p2p"


def read(path: str) -> Dict[str, Any]:
    data, plugin = InventoryData(), inventory_loader.get(PLUGIN)
    if not plugin.verify_file(path):
        raise AnsibleError(f"{path} is left to others")
    plugin.parse(data, DataLoader(), path, cache=True)
    with contextlib.suppress(AttributeError):  # as Ansible does: one that has kept nothing has no cache
        plugin.update_cache_if_changed()
    data.reconcile_inventory()
    found: Dict[str, Any] = {"_meta": {"hostvars": {name: host.vars for name, host in data.hosts.items()}}}
    for group in data.groups.values():
        found[group.name] = {
            "hosts": [host.name for host in group.hosts],
            "children": [child.name for child in group.child_groups],
            **({"vars": group.vars} if group.vars else {}),
        }
    return found


def main() -> None:
    init_plugin_loader()
    own = dict(os.environ)
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.clear()
        os.environ.update(own, **asked["environment"])
        try:
            answer = {"found": read(asked["path"])}
        except AnsibleError as exc:
            answer = {"failed": str(exc)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

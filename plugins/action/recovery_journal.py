# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.ringrift.recovery.plugins.module_utils import _proc

MODULE = "ringrift.recovery.recovery_journal"


class ActionModule(ActionBase):
    """Says which controller runs, and knows whether an earlier one on this machine is gone."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        args = {**self._task.args, "who": {**controller(), **(self._task.args.get("who") or {})}}
        found = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        running = (found.get("journal") or {}).get("running")
        if running and is_gone(running.get("who") or {}):
            args["takeover"] = [*(args.get("takeover") or []), running["run"]]
            found = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        result.update(found)
        return result


def controller() -> dict[str, Any]:
    """The process of the whole run, whose worker this is, so that nothing else is ever taken for it."""
    pid = os.getppid()
    stat = _proc.read_stat(pid)
    user = _proc.user_names().get(os.geteuid(), str(os.geteuid()))
    return {**_machine(), "user": user, "pid": pid, "start": stat.start_ticks if stat else None}


def is_gone(who: Mapping[str, Any]) -> bool:
    """Whether a run's controller was on this very machine and has ended; False where that cannot be known."""
    here = _machine()
    pid, start = who.get("pid"), who.get("start")
    if not isinstance(pid, int) or not isinstance(start, int) or {key: who.get(key) for key in here} != here:
        return False
    return _proc.is_same(pid, start) is None


def _machine() -> dict[str, Any]:
    """Where a number of a process means something: on this host since this boot, in this container."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = None
    return {"host": _proc.hostname(), "boot": _proc.boot_id(), "pids": space}

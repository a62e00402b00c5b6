# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does something to the world, or to this controller, when a task begins; and writes down which tasks began.

The file that ACT_AT_TASK names is JSON: ``trace``, the file to write to, and ``acts``, each with ``number`` (of the
task, from 1) or ``task`` (words in its name), and ``run`` (an argument list, and ``deadline`` seconds) or ``kill``.
With ``later`` it happens so many seconds after the task began, while that goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: act_at_task
type: aggregate
short_description: Break something when a task begins
description: For the tests of faults alone.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "act_at_task"

    def __init__(self) -> None:
        super().__init__()
        with open(os.environ["ACT_AT_TASK"], encoding="utf-8") as stream:
            wish = json.load(stream)
        self.waiting = list(wish["acts"])
        self.trace = open(wish["trace"], "a", encoding="utf-8", buffering=1)
        self.number = 0

    def v2_playbook_on_task_start(self, task, is_conditional) -> None:
        self.number += 1
        name = task.get_name()
        self.trace.write(json.dumps({"task": name}) + "\n")
        for act in [act for act in self.waiting if act.get("number") == self.number or act.get("task", "\0") in name]:
            self.waiting.remove(act)
            if act.get("later"):
                timer = threading.Timer(act["later"], self.do, [act])
                timer.daemon = True
                timer.start()
            else:
                self.do(act)

    def v2_playbook_on_stats(self, stats) -> None:
        # What was handed on with set_stats, also by a dry run, which keeps no report.
        self.trace.write(json.dumps({"stats": stats.custom.get("_run", {})}, default=str) + "\n")

    def do(self, act: dict) -> None:
        if act.get("kill"):
            # The controller and whatever it has at work, as when its machine dies.
            os.killpg(0, signal.SIGKILL)
        done = subprocess.run(
            act["run"], timeout=act.get("deadline", 60), check=False, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.trace.write(json.dumps({"act": act["run"], "rc": done.returncode, "said": done.stdout[-500:]}) + "\n")

#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_journal
short_description: Who recovers a config, how far they have come, and how often it was in vain
version_added: 0.1.0
description:
  - Keeps a journal for each config on one node, the coordinator. A run begins, says at which step it is, and ends.
  - A run may not begin while another one of the same config is under way, nor after O(max_attempts) that proved no
    progress within O(window). Then nothing is written, and RV(journal.reason) says who, since when, and what to do.
  - A run that says nothing for its lease has died, and so has one whose controller was the machine that now asks, where
    that process is gone. The next run begins at once, and RV(journal.broken_off) says where the dead one stood.
  - Records are only ever appended and flushed to the disk, under a lock of its own. A line that was half-written is
    counted in RV(journal.damaged_lines) and hides nothing of the others.
  - The journal is what runs leave and no state that they change, so the task is never changed.
author: The ringrift.recovery authors (@ringrift)
options:
  state:
    description:
      - V(query) only looks.
      - V(begun) begins the run, if it may; look at RV(journal.allowed).
      - V(step) says that the run is at O(step). It fails where another run has taken its place.
      - V(ended) ends it with O(outcome).
    type: str
    choices: [query, begun, step, ended]
    default: query
  run:
    description:
      - The name of the run, the same in all its tasks. Needed but for O(state=query).
    type: str
  user:
    description:
      - On whose behalf it runs, for people who read the journal. By default the user who runs the play.
    type: str
  who:
    description:
      - Where the controller runs, by which it is known again. The action that runs on the controller fills it in.
    type: dict
    default: {}
  step:
    description:
      - The step that begins.
    type: str
  outcome:
    description:
      - How the run ended, in words.
    type: str
  progressed:
    description:
      - Whether the run proved progress. The attempts before it then no longer count.
    type: bool
    default: false
  counts:
    description:
      - Whether the run that begins is an attempt to recover. One that is not, such as a rollback, is kept apart from
        others all the same, but is never one of O(max_attempts), and may begin after them.
    type: bool
    default: true
  max_attempts:
    description:
      - So many runs without progress within O(window), and no further one may begin. A run that died before it
        restarted anything does not count.
    type: int
    default: 3
  window:
    description:
      - Seconds within which attempts are counted.
    type: float
    default: 21600.0
  progress_age:
    description:
      - Seconds since training was seen to make progress, where that is known. What began before that was not in vain.
    type: float
  lease:
    description:
      - Seconds after which a run counts as dead that has said nothing.
    type: float
    default: 1800.0
  wait:
    description:
      - Seconds to wait for another run to end before O(state=begun) is refused.
    type: float
    default: 0.0
  takeover:
    description:
      - Runs that are known to be dead, by name.
    type: list
    elements: str
    default: []
  directory:
    description:
      - Where the journals are. It is made where it does not exist.
    type: path
    default: ~/ringrift/ai-service/data/recovery
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written; O(state=begun) says whether the run might begin now.
  diff_mode:
    support: N/A
    details:
      - This module does not modify state.
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
"""

EXAMPLES = r"""
- name: See who recovers a config, and what was tried
  ringrift.recovery.recovery_journal:
    config: hex8_2p

- name: Begin
  ringrift.recovery.recovery_journal:
    config: hex8_2p
    state: begun
    run: 20261128T104027Z-5f2c
  register: begun
  failed_when: not begun.journal.allowed

- name: Say where it stands
  ringrift.recovery.recovery_journal:
    config: hex8_2p
    state: step
    run: 20261128T104027Z-5f2c
    step: restart_training

- name: End
  ringrift.recovery.recovery_journal:
    config: hex8_2p
    state: ended
    run: 20261128T104027Z-5f2c
    outcome: recovered, progress is proven
    progressed: true
"""

RETURN = r"""
journal:
  description: What is known of the runs.
  type: dict
  returned: with O(state=query) and O(state=begun)
  contains:
    allowed:
      description: Whether a run may begin; with O(state=begun), whether it has begun.
      type: bool
      returned: always
      sample: true
    refused:
      description: Why it may not. C(running) for another run that is under way, C(attempts) for too many in vain.
      type: str
      returned: always
      sample: attempts
    reason:
      description: The same for people, with what to do. Empty where it may begin.
      type: str
      returned: always
    running:
      description: The run that is under way, as one of RV(journal.attempts); null where there is none.
      type: dict
      returned: always
    broken_off:
      description: The last run, where it died; null where it did not.
      type: dict
      returned: always
    attempts:
      description: The last ten runs before this one, the oldest first.
      type: list
      elements: dict
      returned: always
      contains:
        run:
          description: Its name.
          type: str
          returned: always
          sample: 20261128T104027Z-5f2c
        who:
          description: Whose it is, and where its controller runs.
          type: dict
          returned: always
          sample: {"user": "operator", "host": "laptop", "pid": 4711}
        begun:
          description: When it began, in Unix seconds.
          type: float
          returned: always
          sample: 1795862427.1
        seen:
          description: When it last said something, in Unix seconds.
          type: float
          returned: always
          sample: 1795862444.9
        step:
          description: The last step that it began; null where it had come to none.
          type: str
          returned: always
          sample: restart_training
        outcome:
          description: How it ended, in words; null where it has not.
          type: str
          returned: always
          sample: failed in monitor
        progressed:
          description: Whether it proved progress; null where it has not ended.
          type: bool
          returned: always
          sample: false
        state:
          description: C(running), C(ended) or C(died).
          type: str
          returned: always
          sample: ended
    in_vain:
      description: How many runs count against O(max_attempts).
      type: int
      returned: always
      sample: 1
    history:
      description: The last ten runs before this one, a line each, for people.
      type: list
      elements: str
      returned: always
      sample: ["2026-11-28 10:40:27 UTC operator@laptop: failed in monitor (at monitor)"]
    damaged_lines:
      description: Lines of the journal that are no records.
      type: int
      returned: always
      sample: 0
    path:
      description: The journal.
      type: str
      returned: always
      sample: /root/ringrift/ai-service/data/recovery/hex8_2p.jsonl
replaced:
  description: That another run has taken the place of this one, which is why the module fails.
  type: bool
  returned: with O(state=step), where it is so
  sample: true
run:
  description: The run that O(run) named; null where none was.
  type: str
  returned: always
  sample: 20261128T104027Z-5f2c
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils import _journal
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

RUN = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["query", "begun", "step", "ended"], "default": "query"},
            "run": {"type": "str"},
            "user": {"type": "str"},
            "who": {"type": "dict", "default": {}},
            "step": {"type": "str"},
            "outcome": {"type": "str"},
            "progressed": {"type": "bool", "default": False},
            "counts": {"type": "bool", "default": True},
            "max_attempts": {"type": "int", "default": 3},
            "window": {"type": "float", "default": 21600.0},
            "progress_age": {"type": "float"},
            "lease": {"type": "float", "default": 1800.0},
            "wait": {"type": "float", "default": 0.0},
            "takeover": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "default": "~/ringrift/ai-service/data/recovery"},
        },
        required_if=[
            ("state", "begun", ["run"]),
            ("state", "step", ["run", "step"]),
            ("state", "ended", ["run", "outcome"]),
        ],
        supports_check_mode=True,
    )
    try:
        result = keep(module.params, module.check_mode)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc), changed=False)
    if result.pop("failed", False):
        module.fail_json(changed=False, **result)
    module.exit_json(changed=False, **result)


def keep(params: dict, check_mode: bool) -> dict:
    """Do what ``state`` asks for."""
    config = parse_config(params["config"]).name
    run = params["run"]
    if run is not None and not RUN.match(run):
        raise RecoveryError(f"run is {run!r}. It has letters, digits, dots, dashes and underscores, at most 100.")
    path = _journal.place(params["directory"], config)
    limits = _journal.Limits(params["lease"], params["max_attempts"], params["window"], params["progress_age"])
    state = params["state"]
    if state in ("step", "ended"):
        if check_mode:
            return {"run": run}
        facts = {"step": params["step"]} if state == "step" else {}
        if state == "ended":
            facts = {"outcome": params["outcome"], "progressed": params["progressed"]}
        replaced = _journal.note(path, run, state, limits.lease, **facts)
        if replaced is not None and state == "step":
            words = f"{replaced} This one stops here, and has begun nothing of {params['step']}."
            return {"run": run, "replaced": True, "failed": True, "msg": words}
        return {"run": run}
    if state == "query" or check_mode:
        now = _journal.this_moment()
        decision = _journal.decide(_journal.look(path, now, params["takeover"]), config, limits, now, params["counts"])
    else:
        if params["wait"] < 0 or params["wait"] > 86400:
            raise RecoveryError(f"wait is {params['wait']:g} s. It must be from 0 to 86400.")
        who = {**params["who"], **({"user": params["user"]} if params["user"] else {})}
        decision = _journal.begin(path, config, run, who, limits, params["wait"], params["takeover"], params["counts"])
    return {"journal": decision.as_dict(), "run": run}


if __name__ == "__main__":
    main()

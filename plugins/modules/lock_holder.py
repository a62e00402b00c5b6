#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lock_holder
short_description: Whether the process that a lock names lives on this host
version_added: 0.1.0
description:
  - Says whether the process that the token of a training lock names lives on this host. Run it on the host that the
    token names, and give the answer to M(ringrift.recovery.training_lock) as
    O(ringrift.recovery.training_lock#module:holder_answers).
  - A process number alone proves nothing, since numbers are used again. The start of the process that has it now, and
    the start of this host, are compared with the time at which the lock was taken, where that is given.
  - Nothing is locked or changed.
author: The ringrift.recovery authors (@ringrift)
options:
  token:
    description:
      - The record of the holder, C(host:pid:8hex), as RV(ringrift.recovery.training_lock#module:lock.holder.token) has
        it.
    type: str
    required: true
  acquired_at:
    description:
      - When the lock was taken, in unix seconds by the clock of this host, as a lock file records it.
    type: float
  min_age:
    description:
      - How many seconds ago the lock was taken at least, where the time itself is not recorded. A duration, so that the
        clocks of two hosts are never compared.
    type: float
  path:
    description:
      - The lock file, where the lock is one that this host can see too. Then it is also looked up who on this host
        keeps its C(flock).
    type: path
  assume_gone:
    description:
      - Processes of this host to be taken for dead, in check mode only, to predict the answer after an earlier step has
        stopped them. Without effect in a real run.
    type: list
    elements: int
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
extends_documentation_fragment:
  - ringrift.recovery._attributes
notes:
  - Only a host whose own name is just the recorded one can say anything. A short name and a full one may be two hosts,
    and V(localhost) is no host's own name.
  - Run it where the processes of the service can be seen, so not in another container on the same host.
seealso:
  - module: ringrift.recovery.training_lock
"""

EXAMPLES = r"""
- name: Ask the host of a holder whether it lives
  ringrift.recovery.lock_holder:
    token: nebius-h100-3:1993:0ef85993
    min_age: 412
  delegate_to: nebius-h100-3
  register: holder
"""

RETURN = r"""
token:
  description: The token that was asked about.
  type: str
  returned: success
  sample: nebius-h100-3:1993:0ef85993
verdict:
  description:
    - V(alive) where the process lives, or where another process of this host keeps the C(flock) of O(path).
    - V(dead) where no process has that number.
    - V(reused) where the process that has that number was started after the lock was taken.
    - V(prior_boot) where this host was started after the lock was taken.
    - V(unknown) where it cannot be told, for example since the token names another host. It counts as may live.
  type: str
  returned: success
  sample: dead
reason:
  description: What the verdict rests on.
  type: str
  returned: success
  sample: there is no process 1993
process:
  description: The process that has that number now; V(null) where there is none.
  type: dict
  returned: success
  contains:
    pid:
      description: Its process ID.
      type: int
      returned: success
      sample: 1993
    ppid:
      description: The process ID of its parent.
      type: int
      returned: success
      sample: 1871
    comm:
      description: The name that the kernel has for it.
      type: str
      returned: success
      sample: python
    state:
      description: The letter that the kernel has for its state.
      type: str
      returned: success
      sample: S
    start_time:
      description: When it was started, in unix seconds.
      type: float
      returned: success
      sample: 1795469890.12
kept:
  description:
    - Whether a process of this host keeps the C(flock) of O(path). V(null) where that cannot be told, where O(path) is
      not given, is not here, or names another holder.
  type: bool
  returned: success
  sample: false
keepers:
  description: The processes of this host that keep the C(flock) of O(path).
  type: list
  elements: int
  returned: success
  sample: []
hostname:
  description: The own name of this host.
  type: str
  returned: success
  sample: nebius-h100-3
boot_id:
  description: The identity of this host's boot.
  type: str
  returned: success
  sample: 5f0c1f3e-9d0b-4d7b-8f0a-3c1f0a0f9f53
boot_time:
  description: When this host was started, in unix seconds.
  type: float
  returned: success
  sample: 1795460000.25
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_holder import Question, ask


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # A token names a process and is no secret, whatever its name suggests.
            "token": {"type": "str", "required": True, "no_log": False},
            "acquired_at": {"type": "float"},
            "min_age": {"type": "float"},
            "path": {"type": "path"},
            "assume_gone": {"type": "list", "elements": "int", "default": []},
        },
        mutually_exclusive=[("acquired_at", "min_age")],
        supports_check_mode=True,
    )
    params = module.params
    now = time.time()
    taken_before = params["acquired_at"] if params["min_age"] is None else now - params["min_age"]
    gone = params["assume_gone"] if module.check_mode else ()
    try:
        report = ask(Question(params["token"], taken_before, params["path"]), now, gone)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **report.as_dict())


if __name__ == "__main__":
    main()

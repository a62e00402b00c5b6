#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_rollback
short_description: Put back training files and checkpoints that an earlier run replaced
version_added: 0.1.0
description:
  - Puts each old file back where the file in place is still what the earlier run put there and what is kept is still
    what that run kept, both by SHA-256. Where either has changed since, the file is left as it is.
  - What is put back is copied beside, verified and put in place in one step. What was in place takes the name of what
    was kept, so that nothing is lost and the rollback can itself be undone.
  - A file that is damaged or dangerous is left where it is kept, unless O(force=true). A quarantined file keeps its
    name and its record even then.
  - What keeps one file from being put back keeps no other one. The module does not fail for it; RV(files) has a
    C(state) and a C(reason) for each.
  - Training must be stopped.
author: The ringrift.recovery authors (@ringrift)
options:
  files:
    description:
      - What the earlier run replaced, as M(ringrift.recovery.replaced_files) returns it.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - The file in place, as an absolute path.
        type: str
        required: true
      kind:
        description:
          - What it is, and so how it is verified.
        type: str
        choices: [training_file, checkpoint]
        required: true
      before:
        description:
          - SHA-256 of the file that was replaced, in hexadecimal. Without it nothing is put back.
        type: str
      after:
        description:
          - SHA-256 of the file that the run put there. Without it, there must be no file now.
        type: str
      kept:
        description:
          - Where the file that was replaced is kept, beside O(files[].path) and with its name before a dot.
          - The names that rollbacks give are looked at too.
        type: str
      problem:
        description:
          - What was wrong with it, where the run has told; then it counts as damaged whatever is seen now.
        type: str
  force:
    description:
      - Whether to put back also what is damaged or dangerous. A checkpoint may be of the kind that runs code.
    type: bool
    default: false
  min_samples:
    description:
      - A training file with fewer samples counts as damaged.
    type: int
    default: 100
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
seealso:
  - module: ringrift.recovery.replaced_files
  - module: ringrift.recovery.npz_publish
  - module: ringrift.recovery.checkpoint_restore
"""

EXAMPLES = r"""
- name: Read what the newest recovery replaced
  ringrift.recovery.replaced_files:
    config: hex8_2p
    folder: ~/.local/state/ringrift-recovery
  register: replaced
  run_once: true

- name: Put it back
  ringrift.recovery.file_rollback:
    config: hex8_2p
    files: "{{ replaced.nodes[inventory_hostname] | default([]) }}"
  register: rolled_back
  failed_when: rolled_back.files | selectattr('state', 'equalto', 'refused') | length > 0
"""

RETURN = r"""
files:
  description: What became of each file, in check mode what would, in the order of O(files).
  type: list
  elements: dict
  returned: success
  sample:
    - path: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz
      kind: training_file
      state: put_back
      reason: null
      source: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz.previous
      kept: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz.previous
      sha256: 293c50f778d3097531add78eb4b41aef6cfe940af82361bdee79c438b9130b8a
      replaced: 2b46e80be98d54921cd806b706b4457eb04d653438ba011d8ae599aaa348fcd3
  contains:
    path:
      description: The file.
      type: str
      returned: always
    kind:
      description: What it is, as in O(files[].kind).
      type: str
      returned: always
    state:
      description:
        - V(put_back) where it was put back; V(already) where it is back already.
        - V(left) where nothing can or should be put back, such as a damaged file without O(force).
        - V(refused) where it could not be put back, since a file has changed, is not there, or cannot be read or
          written.
      type: str
      returned: always
    reason:
      description: Why it was not put back, for people, or V(null).
      type: str
      returned: always
    source:
      description: Where it was put back from; V(null) where it was not.
      type: str
      returned: always
    kept:
      description: Where what was in place is kept now; V(null) where nothing was replaced.
      type: str
      returned: always
    sha256:
      description: SHA-256 of the file that was put back or is back already; otherwise V(null).
      type: str
      returned: always
    replaced:
      description: SHA-256 of what was in place before; V(null) where nothing was replaced.
      type: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._file_rollback import (
    PUT_BACK,
    Replaced,
    RollbackRequest,
    differences,
    roll_back_all,
)

FILE = {
    "path": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["training_file", "checkpoint"], "required": True},
    "before": {"type": "str"},
    "after": {"type": "str"},
    "kept": {"type": "str"},
    "problem": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True, "options": FILE},
            "force": {"type": "bool", "default": False},
            "min_samples": {"type": "int", "default": 100},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        request = RollbackRequest(
            config=parse_config(params["config"]), min_samples=params["min_samples"], force=params["force"]
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    outcomes = roll_back_all([Replaced(**entry) for entry in params["files"]], request, dry_run=module.check_mode)
    result = {
        "changed": any(outcome.state == PUT_BACK for outcome in outcomes),
        "files": [outcome.as_dict() for outcome in outcomes],
    }
    if module._diff:
        result["diff"] = differences(outcomes)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checkpoint_restore
short_description: Put the newest verified checkpoint in the place of a damaged one
version_added: 0.1.0
description:
  - Verifies the file that training starts from, as M(ringrift.recovery.checkpoint_verify) does at full depth. A whole
    one is left alone. If it is damaged or missing, the candidates are verified one after the other, and a copy of the
    first good one takes its place in one step.
  - The damaged file, and damaged candidates that were met on the way, are renamed to C(<name>.corrupt-<UTC time>), with
    the reason, SHA-256 and size in C(<name>.corrupt-<UTC time>.json) beside them. Nothing is ever deleted.
  - If no candidate is good, the module fails and nothing is touched, the damaged file included.
  - Training must be stopped. A trainer that starts from a truncated file begins again with random weights and then
    overwrites it.
author: The ringrift.recovery authors (@ringrift)
options:
  path:
    description:
      - The file that training starts from, relative to O(service_path) or absolute. Its directory must exist.
      - A symbolic link is replaced by the file; what it points at is left alone.
    type: path
    required: true
  candidates:
    description:
      - Where a good checkpoint may be found, names or glob patterns, relative to O(service_path) or absolute, in the
        order in which they are tried. What one pattern matches is tried newest first, by time of writing, then epoch.
      - Files that hold no model, or that are quarantined, staged, or the sidecar of another, are passed over. So is a
        checkpoint of another network than that of the damaged file, where its tensors can still be told, or than that
        of a candidate which says that it is for O(config).
    type: list
    elements: path
    required: true
  refresh:
    description:
      - Whether to replace also a good O(path) by a verified candidate that is newer. It is then kept as
        C(<path>.previous).
    type: bool
    default: false
  required:
    description:
      - Whether it is a failure that there is neither O(path) nor a candidate that fits, as on a node that has never
        trained this config. A damaged file that nothing can replace always is one.
    type: bool
    default: true
  reason:
    description:
      - Why this is done; it goes into the record beside a quarantined file.
    type: str
    default: restore
  config:
    description:
      - The training config, C(<board>_<players>p), for example V(hex8_2p). If given, a candidate that says that it is
        for another one is passed over. Names of checkpoints do not tell.
    type: str
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service.path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
notes:
  - Candidates are verified in full, which reads each of them to its end.
  - Where the model keeps its own copies, the trainer's checkpoints and the canonical model of a config are both good
    candidates. Only the former know the state of the optimizer.
seealso:
  - module: ringrift.recovery.checkpoint_verify
"""

EXAMPLES = r"""
- name: Make sure that training of hex8_2p starts from a whole checkpoint
  ringrift.recovery.checkpoint_restore:
    path: models/checkpoint_hex8_2p.pth
    candidates:
      - checkpoints/hex8_2p/checkpoint_*.pth
      - models/canonical_hex8_2p.pth
      - models/canonical_hex8_2p_*.pth
    config: hex8_2p

- name: Take over the newest checkpoint before a restart
  ringrift.recovery.checkpoint_restore:
    path: models/checkpoint_square8_2p.pth
    candidates: [checkpoints/checkpoint_*_epoch_*.pth]
    refresh: true
    service_path: /workspace/ringrift/ai-service
    reason: full recovery
"""

RETURN = r"""
restored:
  description: Whether O(path) was replaced; in check mode, whether it would be.
  type: bool
  returned: success
  sample: true
msg:
  description: What was done, or what is wrong, in one sentence.
  type: str
  returned: always
  sample: >-
    /home/ubuntu/ringrift/ai-service/models/checkpoint_hex8_2p.pth comes from
    /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_10.pth (epoch 9, 5 epochs lost), 1 files quarantined
checkpoint:
  description: The file at O(path) afterwards; in check mode, as it would be. V(null) where there is none.
  type: dict
  returned: success
  sample:
    path: /home/ubuntu/ringrift/ai-service/models/checkpoint_hex8_2p.pth
    epoch: 9
    sha256: 02cbda159d740efb3d4fd4a2a28c74d2ee64b1708f9c29da8cc07202c7523f8a
    size: 82619273
    written_at: 1773216900.52
    format: torch_zip
  contains:
    path:
      description: Where it is, as an absolute path.
      type: str
      returned: always
    epoch:
      description: The epoch that it is from, counted from 0; V(null) where it does not say.
      type: int
      returned: always
    sha256:
      description: Its SHA-256 in hexadecimal.
      type: str
      returned: always
    size:
      description: Its size in bytes.
      type: int
      returned: always
    written_at:
      description: When it was written, in unix seconds; a copy keeps the time of the file that it was made from.
      type: float
      returned: always
    format:
      description: Its format, as M(ringrift.recovery.checkpoint_verify) returns it.
      type: str
      returned: always
source:
  description: The candidate that it is a copy of; V(null) where nothing was replaced.
  type: str
  returned: success
  sample: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_10.pth
previous:
  description: Where a good file that O(refresh) replaced is kept; V(null) where none was replaced.
  type: str
  returned: success
  sample: null
replaced:
  description: The file that was replaced, in check mode that would be; V(null) where none was.
  type: dict
  returned: success
  sample: {sha256: 293c50f778d3097531add78eb4b41aef6cfe940af82361bdee79c438b9130b8a, epoch: 14, valid: false}
  contains:
    sha256:
      description: Its SHA-256 in hexadecimal.
      type: str
      returned: always
    epoch:
      description: The epoch that it was from; V(null) where it did not say.
      type: int
      returned: always
    valid:
      description: Whether it was whole.
      type: bool
      returned: always
quarantined:
  description: Damaged files that were renamed. In check mode, those that would be.
  type: list
  elements: dict
  returned: success
  sample:
    - path: /home/ubuntu/ringrift/ai-service/models/checkpoint_hex8_2p.pth
      to: /home/ubuntu/ringrift/ai-service/models/checkpoint_hex8_2p.pth.corrupt-20260311T081500Z
      reason: "crc_mismatch: its content has CRC-32 1f2e3d4c, but 8a03cef5 is recorded: the data is damaged"
      sha256: 293c50f778d3097531add78eb4b41aef6cfe940af82361bdee79c438b9130b8a
  contains:
    path:
      description: Where the file was.
      type: str
      returned: always
    to:
      description: Where it is now. The time in the name is that of the run, so it differs between check mode and a run.
      type: str
      returned: always
    reason:
      description: The first problem that was found with it.
      type: str
      returned: always
    sha256:
      description: Its SHA-256 in hexadecimal.
      type: str
      returned: always
epochs_lost:
  description:
    - How many epochs the restored file is behind the newest that was seen. V(null) where the epoch of the restored or
      of a damaged file is not known, or where O(path) did not exist and no candidate was damaged.
  type: int
  returned: success
  sample: 5
candidates:
  description: Files that were looked at, in that order, the accepted one last.
  type: list
  elements: dict
  returned: always
  sample:
    - {path: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_10.pth, valid: true, epoch: 9, problems: []}
  contains:
    path:
      description: Where the file is, with symbolic links resolved.
      type: str
      returned: always
    valid:
      description: Whether it can take the place of O(path).
      type: bool
      returned: always
    epoch:
      description: The epoch that it is from, counted from 0; V(null) where that is not known.
      type: int
      returned: always
    problems:
      description:
        - What is wrong with it, as M(ringrift.recovery.checkpoint_verify) returns it, and besides V(unreadable),
          V(being_written), V(wrong_format), V(no_model), V(not_finite), V(other_config), V(config_unknown) and
          V(different_model).
      type: list
      elements: dict
      returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_restore import (
    NoCandidateError,
    RestoreRequest,
    restore,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

NOTHING = {
    "changed": False,
    "restored": False,
    "checkpoint": None,
    "source": None,
    "previous": None,
    "replaced": None,
    "quarantined": [],
    "epochs_lost": None,
    "candidates": [],
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "candidates": {"type": "list", "elements": "path", "required": True},
            "refresh": {"type": "bool", "default": False},
            "required": {"type": "bool", "default": True},
            "reason": {"type": "str", "default": "restore"},
            "config": {"type": "str"},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
        },
        supports_check_mode=True,
    )
    params = module.params
    root = os.path.abspath(params["service_path"])
    try:
        request = RestoreRequest(
            path=os.path.normpath(os.path.join(root, params["path"])),
            candidates=tuple(params["candidates"]),
            root=root,
            refresh=params["refresh"],
            reason=params["reason"],
            config=parse_config(params["config"]) if params["config"] else None,
        )
        outcome = restore(request, check_mode=module.check_mode)
    except NoCandidateError as exc:
        seen = [candidate.as_dict() for candidate in exc.candidates]
        damaged = any(candidate.damaged for candidate in exc.candidates)
        if not params["required"] and not damaged and not os.path.lexists(request.path):
            msg = f"There is no checkpoint at {request.path}, and none to restore it from"
            module.exit_json(**{**NOTHING, "candidates": seen}, msg=msg)
        module.fail_json(msg=str(exc), candidates=seen)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc), candidates=[])
    for warning in outcome.warnings:
        module.warn(warning)
    result = outcome.as_dict()
    if module._diff:
        result["diff"] = outcome.diff()
    module.exit_json(**result)


if __name__ == "__main__":
    main()

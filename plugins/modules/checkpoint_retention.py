#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checkpoint_retention
short_description: Keep the last checkpoints of every training config and remove the rest
version_added: 0.1.0
description:
  - Removes the checkpoints that O(patterns) name, except the O(keep) newest ones of each config, and temporary files
    that killed writers left behind.
  - A checkpoint goes only if O(keep) others of its config are newer by time of writing, and also by epoch where it
    has one. A copy of an old epoch has a new time, and training that began again has low epochs, so neither order is
    enough alone. Where the two differ, more than O(keep) stay.
  - Only a checkpoint counts that training could go on from, which is verified by reading all of it, as
    M(ringrift.recovery.checkpoint_verify) does. Damaged ones do not count; they go when they are older than those
    that stay. Of a config without a single one that verifies nothing is pruned, and no temporary files either.
  - Names of checkpoints carry no config. A checkpoint belongs to the config that its metadata name, otherwise to the
    one that its directory is named after. Where nothing is named, the checkpoints of one network in one directory count
    as those of one config. They are of the config whose checkpoints or canonical models in O(patterns) have the same
    network, if that is only one; if there are several, they cannot be told apart and are kept.
  - Never removed are canonical models (C(canonical_*)), quarantined files (C(*.corrupt-*)) and previous ones
    (C(*.previous)), symbolic links and what they point at, files that a process of the node has open or mapped, and
    files that changed in the last five minutes.
  - The C(.sha256) and the C(_early_stopping) file beside a checkpoint go with it.
author: The ringrift.recovery authors (@ringrift)
options:
  patterns:
    description:
      - The checkpoints, names or glob patterns, relative to O(service_path) or absolute. C(**) descends into
        directories.
      - Nothing else is touched, apart from what stands beside a checkpoint that goes, and temporary files that belong
        to such a name, like C(checkpoint_epoch_5.pth.tmp) to C(checkpoint_*.pth).
      - A symbolic link in the part before the first wildcard is followed. What lies behind one that a wildcard finds
        is kept.
    type: list
    elements: path
    required: true
  keep:
    description:
      - How many checkpoints of each config stay, at least 1.
    type: int
    default: 5
  config:
    description:
      - The training config, C(<board>_<players>p), for example V(hex8_2p). If given, only files that are provably of
        this config are pruned.
      - Where checkpoints do not name their config, add the canonical models to O(patterns), so that their networks
        tell.
    type: str
  tmp_older_than:
    description:
      - After how many seconds a temporary file (C(*.tmp), or a staged file of this collection) counts as left behind.
    type: int
    default: 3600
  state:
    description:
      - V(pruned) is all that there is.
    type: str
    choices: [pruned]
    default: pruned
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service.path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
notes:
  - Name checkpoints of one kind. A pattern that also finds models without an optimizer counts them, too.
  - Reads O(keep) checkpoints of each config to their end, where there are more than that.
  - Whether a file is open on another node of a shared file system cannot be seen.
  - As root all processes of the node are seen. As another user the kernel still tells of the user's own files whether
    anybody has them open, except on file systems without leases, such as NFS; there they are then kept.
seealso:
  - module: ringrift.recovery.checkpoint_verify
  - module: ringrift.recovery.checkpoint_restore
"""

EXAMPLES = r"""
- name: See how much would be freed
  ringrift.recovery.checkpoint_retention:
    patterns: [checkpoints/*.pth]
  check_mode: true
  register: retention

- name: Keep the last five checkpoints of every config
  ringrift.recovery.checkpoint_retention:
    patterns:
      - checkpoints/*.pth
      - checkpoints/*/*.pth

- name: Keep the last three of hex8_2p, which the canonical models help to recognise
  ringrift.recovery.checkpoint_retention:
    patterns:
      - checkpoints/checkpoint_*.pth
      - models/canonical_*.pth
    config: hex8_2p
    keep: 3
"""

RETURN = r"""
msg:
  description: What was done, or would be, in one sentence.
  type: str
  returned: always
  sample: 7 files pruned, 495715638 bytes freed, 6 files kept
kept:
  description: Files that stay, sorted by path.
  type: list
  elements: dict
  returned: always
  sample:
    - path: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_50.pth
      config: hex8_2p
      epoch: 49
      reason: newest_verified
      message: it is the newest by time of writing that is verified
  contains:
    path:
      description: Where the file is, as an absolute path.
      type: str
      returned: always
    config:
      description: The config that it is for; V(null) where that is not known.
      type: str
      returned: always
    epoch:
      description: The epoch that it is from, counted from 0; V(null) where it does not say.
      type: int
      returned: always
    reason:
      description:
        - Why it stays, stable for use in conditions.
        - Because of its place, V(newest), V(newest_verified).
        - Because of what it is, V(canonical), V(quarantined), V(previous), V(symlink), V(link_target),
          V(not_a_checkpoint), V(other_config), V(config_unknown).
        - Although it does not count, because O(keep) usable ones are not newer, V(damaged), V(not_finite),
          V(unreadable), V(not_verified).
        - Because something may use it, V(open), V(may_be_open), V(recent), V(changed).
        - Because its config has no checkpoint that verifies, V(no_verified).
      type: str
      returned: always
    message:
      description: The reason in words.
      type: str
      returned: always
pruned:
  description: Files that were removed; in check mode, those that would be.
  type: list
  elements: dict
  returned: always
  sample:
    - path: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_5.pth
      config: hex8_2p
      epoch: 4
      size: 82619273
      freed: 82619273
      reason: beyond
      message: 5 that are verified are newer by time of writing and by epoch
  contains:
    path:
      description: Where the file was, as an absolute path.
      type: str
      returned: always
    config:
      description: The config that it was for; V(null) where that is not known.
      type: str
      returned: always
    epoch:
      description: The epoch that it was from, counted from 0; V(null) where it does not say.
      type: int
      returned: always
    size:
      description: Its size in bytes.
      type: int
      returned: always
    freed:
      description: How many bytes that freed; 0 where the file has another name (a hard link) that stays.
      type: int
      returned: always
    reason:
      description:
        - Why it was removed. V(beyond) and V(damaged) checkpoints are older than those that stay; a V(companion)
          stood beside one; a V(leftover) was left behind by a killed writer.
      type: str
      returned: always
    message:
      description: The reason in words.
      type: str
      returned: always
failed_files:
  description: Files that could not be removed. The module then fails, after it has dealt with all others.
  type: list
  elements: dict
  returned: always
  sample: []
  contains:
    path:
      description: Where the file is, as an absolute path.
      type: str
      returned: always
    message:
      description: Why it could not be removed, and what to do.
      type: str
      returned: always
freed_bytes:
  description: Bytes that were freed; in check mode, those that would be.
  type: int
  returned: always
  sample: 495715638
groups:
  description: What was counted together, the checkpoints of one config or of one network in one directory.
  type: list
  elements: dict
  returned: always
  sample:
    - config: hex8_2p
      directory: null
      model_signature: null
      checkpoints: 12
      newest_verified: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_50.pth
  contains:
    config:
      description: The config; V(null) where it is not known.
      type: str
      returned: always
    directory:
      description: Where these checkpoints are, if neither they nor their directory name their config.
      type: str
      returned: always
    model_signature:
      description: The network of these checkpoints, if neither they nor their directory name their config.
      type: str
      returned: always
    checkpoints:
      description: How many there were.
      type: int
      returned: always
    newest_verified:
      description: The newest one that was verified in full; V(null) where none could be, and then none was pruned.
      type: str
      returned: always
unseen:
  description:
    - Why it cannot be seen of every process of the node which files it has open; V(null) where it can. Files that may
      be open because of that are kept as V(may_be_open).
  type: str
  returned: always
  sample: null
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_retention import (
    RetentionRequest,
    RetentionResult,
    printable,
    prune,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "patterns": {"type": "list", "elements": "path", "required": True},
            "keep": {"type": "int", "default": 5},
            "config": {"type": "str"},
            "tmp_older_than": {"type": "int", "default": 3600},
            "state": {"type": "str", "choices": ["pruned"], "default": "pruned"},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        request = RetentionRequest(
            patterns=tuple(params["patterns"]),
            root=os.path.abspath(params["service_path"]),
            keep=params["keep"],
            config=parse_config(params["config"]) if params["config"] else None,
            tmp_older_than=params["tmp_older_than"],
        )
        outcome = prune(request, check_mode=module.check_mode)
    except RecoveryError as exc:
        module.fail_json(**{**RetentionResult().as_dict(), "msg": printable(str(exc))})
    for warning in outcome.warnings:
        module.warn(printable(warning))
    result = outcome.as_dict()
    if module._diff:
        result["diff"] = outcome.diff()
    if outcome.failed:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

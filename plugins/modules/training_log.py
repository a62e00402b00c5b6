#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: training_log
short_description: Say how far a training came and what went wrong, from the end of its log
version_added: 0.1.0
description:
  - Reads a bounded piece of the end of a training log, and finds the last epoch and batch, and the lines that tell of
    trouble, such as GPU memory that ran out.
  - The log has no times, and it may hold several runs. RV(progress) is that of the last run, and each finding says
    whether it is newer than any progress.
  - A log that does not exist is a finding, RV(exists) is V(false). A trainer that the orchestrator started writes none.
author: The ringrift.recovery authors (@ringrift)
options:
  path:
    description:
      - The log, relative to O(service_path) or absolute.
    type: path
    default: logs/training.log
  max_bytes:
    description:
      - How many bytes of the end to read, at most 16777216.
    type: int
    default: 262144
  lines:
    description:
      - How many of the last lines to return, at most 1000.
    type: int
    default: 20
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
  - ringrift.recovery._service.path
seealso:
  - module: ringrift.recovery.training_events
  - module: ringrift.recovery.training_progress
"""

EXAMPLES = r"""
- name: Read the end of the training log
  ringrift.recovery.training_log:
  register: training_log

- name: See whether the GPU ran out of memory since training last moved
  ansible.builtin.assert:
    that: training_log.findings | selectattr("code", "eq", "cuda_oom") | selectattr("after_progress") | length == 0

- name: Show the last 100 lines of another log
  ringrift.recovery.training_log:
    path: logs/p2p_orchestrator.log
    lines: 100
"""

RETURN = r"""
log_path:
  description: The log.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/logs/training.log
exists:
  description: Whether there is such a log.
  type: bool
  returned: always
  sample: true
size:
  description: Its size in bytes.
  type: int
  returned: always
  sample: 81234
mtime:
  description: When it was last written to, in seconds since 1970.
  type: float
  returned: always
  sample: 1766963700.25
inode:
  description: Number of the file in its file system, which tells a new log from one that has grown.
  type: int
  returned: always
  sample: 1835042
read_bytes:
  description: How many bytes of its end were read.
  type: int
  returned: always
  sample: 81234
truncated:
  description: Whether there is more of it before what was read.
  type: bool
  returned: always
  sample: false
progress:
  description: How far the last run came; V(null) where nothing tells of it.
  type: dict
  returned: always
  sample:
    epoch: 12
    total_epochs: 50
    loss: 2.9788
    val_loss: 4.6721
    policy_accuracy: 0.545
    batch_epoch: 13
    batch: 0
    batch_loss: 2.3871
    finite: true
  contains:
    epoch:
      description: The last epoch that was finished.
      type: int
      returned: always
    total_epochs:
      description: How many there are to be.
      type: int
      returned: always
    loss:
      description: Mean training loss of that epoch.
      type: float
      returned: always
    val_loss:
      description: Validation loss of that epoch.
      type: float
      returned: always
    policy_accuracy:
      description: Share of the moves that were predicted right, from 0 to 1.
      type: float
      returned: always
    batch_epoch:
      description: The epoch of the last batch since then that the log tells of.
      type: int
      returned: always
    batch:
      description: Number of that batch.
      type: int
      returned: always
    batch_loss:
      description: Loss of that batch.
      type: float
      returned: always
    finite:
      description: Whether the newest of these losses are numbers, and not C(nan) or C(inf).
      type: bool
      returned: always
lines_since_progress:
  description: How many lines stand after the last that tells of progress; V(null) where RV(progress) is V(null).
  type: int
  returned: always
  sample: 7
summary:
  description:
    - What the trainer wrote at its end, C(loss), C(samples), C(games) and C(epochs).
    - V(null) where the last run has not written it.
  type: dict
  returned: always
  sample: {loss: 4.6721, samples: 0, games: 0, epochs: 50}
batch_size:
  description: The batch size that the service tuned the last run to; V(null) where the log does not tell of it.
  type: int
  returned: always
  sample: 512
start:
  description:
    - How M(ringrift.recovery.training_start) last started a trainer with this log; V(null) where it never did. Of a run
      that something else started since then it says nothing.
  type: dict
  returned: always
  sample: {"at": 1766960000.5, "cmdline": ["venv/bin/python", "-m", "app.training.train", "--batch-size", "256"]}
  contains:
    at:
      description: When, in seconds since 1970.
      type: float
      returned: always
    cmdline:
      description: The command line.
      type: list
      elements: str
      returned: always
findings:
  description: What the lines tell of, errors first.
  type: list
  elements: dict
  returned: always
  sample:
    - code: cuda_oom
      severity: error
      count: 5
      line: "WARNING:app.training.train:CUDA error in batch 4: CUDA out of memory. Tried to allocate 2.00 GiB."
      after_progress: true
  contains:
    code:
      description:
        - C(cuda_oom), C(circuit_open), C(cuda_error), C(nccl_timeout), C(nan), C(stale_data), C(data_invalid),
          C(weights_not_loaded) (training begins from random weights), C(checkpoint_invalid), C(resume_refused),
          C(disk_full), C(host_killed), C(terminated), C(training_failed), or C(traceback).
      type: str
      returned: always
    severity:
      description: V(error) or V(warning).
      type: str
      returned: always
    count:
      description: How many lines.
      type: int
      returned: always
    line:
      description: The last of them, at most 500 characters; of a traceback, the exception.
      type: str
      returned: always
    after_progress:
      description: Whether it stands after the last line that tells of progress.
      type: bool
      returned: always
lines:
  description: The last lines, each at most 500 characters.
  type: list
  elements: str
  returned: always
  sample: ["INFO:app.training.train:Epoch 13, Batch 0: Loss=2.3871 (Val=0.1759, Pol=2.2112)"]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_log import read_log


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "path": {"type": "path", "default": "logs/training.log"},
            "max_bytes": {"type": "int", "default": 262144},
            "lines": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        log = read_log(
            os.path.join(params["service_path"], params["path"]), max_bytes=params["max_bytes"], lines=params["lines"]
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **log.as_dict())


if __name__ == "__main__":
    main()

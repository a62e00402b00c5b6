#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: training_progress
short_description: Prove that a training makes progress, or say that it does not
version_added: 0.1.0
description:
  - Combines the trainers that run, the service's event log, the training log and the newest checkpoint into one answer.
  - Progress is a step or an epoch that was finished, or a newer checkpoint that was verified. A process that lives, a
    log that grows and a GPU that is busy are no progress.
  - What an earlier trainer has done does not count for the one that runs now.
  - What cannot be seen is named in RV(problems), and never counts as progress.
author: The ringrift.recovery authors (@ringrift)
options:
  coordination_dir:
    description:
      - The directory of the service's C(events.db).
      - By default where the trainer that runs writes it, by its own environment, else where
        M(ringrift.recovery.training_events) looks.
    type: path
  log:
    description:
      - The training log, relative to O(service_path) or absolute.
    type: path
    default: logs/training.log
  checkpoint_patterns:
    description:
      - Which files are checkpoints of a training that runs, relative to O(service_path) or absolute. C({config}) is
        filled in. Emergency checkpoints are left out, as a trainer writes them when it is ended.
    type: list
    elements: str
    default: [checkpoints/checkpoint_*.pth, "models/candidate_{config}*.pth"]
  after:
    description:
      - RV(cursor) of an earlier run of this module on this node, with which to compare.
    type: dict
  stall_after:
    description:
      - Seconds without progress after which a live trainer is V(stalled), at most 2592000.
    type: float
    default: 1800
  within:
    description:
      - Count only trainers whose working directory is this one or below it.
    type: path
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
  - ringrift.recovery._service
  - ringrift.recovery._service.path
seealso:
  - module: ringrift.recovery.training_events
  - module: ringrift.recovery.training_log
  - module: ringrift.recovery.training_process
  - module: ringrift.recovery.checkpoint_verify
"""

EXAMPLES = r"""
- name: See where training stands
  ringrift.recovery.training_progress:
    config: hex8_2p
  register: training_begin

- name: Wait until it is proven to move
  ringrift.recovery.training_progress:
    config: hex8_2p
    after: "{{ training_begin.cursor }}"
  register: training_progress
  until: training_progress.progressed or not training_progress.running
  retries: 360
  delay: 5

- name: Call a small model stalled after five minutes
  ringrift.recovery.training_progress:
    config: hex8_2p
    stall_after: 300
  register: training_progress
  failed_when: training_progress.verdict not in ["progressing", "starting"]
"""

RETURN = r"""
config:
  description: The config that was asked for.
  type: str
  returned: always
  sample: hex8_2p
verdict:
  description:
    - V(progressing), a trainer lives, and its last progress is less than O(stall_after) old.
    - V(starting), a trainer lives, was started less than O(stall_after) ago, and has made no progress yet.
    - V(stalled), a trainer lives and has made no progress for O(stall_after), or is stopped by a signal.
    - V(not_running), no trainer of the config runs here.
    - V(unknown), it cannot be told, and RV(reason) says why.
  type: str
  returned: always
  sample: progressing
reason:
  description: The verdict in words.
  type: str
  returned: always
  sample: trainer 4711 made progress 12 s ago; it stands at epoch 3 of 50
running:
  description: Whether a trainer of the config runs here; V(null) where that cannot be told.
  type: bool
  returned: always
  sample: true
now:
  description: The time of the node, in seconds since 1970.
  type: float
  returned: always
  sample: 1766963700.25
trainers:
  description: The trainers of the config that live, without launchers and data loader workers.
  type: list
  elements: dict
  returned: always
  sample: [{pid: 4711, state: S, config: hex8_2p, kind: train, role: trainer, started: "2025-12-28T23:15:00Z"}]
  contains:
    pid:
      description: Number of the process.
      type: int
      returned: always
    start_time:
      description: When it was started, in seconds since 1970.
      type: float
      returned: always
    start_ticks:
      description: When it was started, in clock ticks since boot; with RV(trainers[].pid), the identity of the process.
      type: int
      returned: always
    started:
      description: When it was started, in words.
      type: str
      returned: always
    cmdline:
      description: Its arguments, cut to be short enough to be shown.
      type: list
      elements: str
      returned: always
    config:
      description: The config that it trains.
      type: str
      returned: always
    kind:
      description: V(train), V(train_nnue) or V(script).
      type: str
      returned: always
    role:
      description: Always V(trainer).
      type: str
      returned: always
    state:
      description: The kernel's letter, V(R) running, V(S) sleeping, V(D) uninterruptible, V(T) or V(t) stopped.
      type: str
      returned: always
    ppid:
      description: Number of its parent.
      type: int
      returned: always
    pgrp:
      description: Number of its process group.
      type: int
      returned: always
    session:
      description: Number of its session.
      type: int
      returned: always
    uid:
      description: Numeric user that it runs as.
      type: int
      returned: always
    user:
      description: Name of that user.
      type: str
      returned: always
    cwd:
      description: Its working directory.
      type: str
      returned: always
    cpu_seconds:
      description: Processor time that it has used, in seconds.
      type: float
      returned: always
    children:
      description: Numbers of the processes that it started.
      type: list
      elements: int
      returned: always
    unit:
      description: The systemd service or scope that it runs in; V(null) where there is none.
      type: str
      returned: always
    container:
      description: The container that it runs in, as V(<runtime>://<id>); V(null) where there is none.
      type: str
      returned: always
    gpu_memory:
      description: Always V(null); the module M(ringrift.recovery.training_process) tells it.
      type: float
      returned: always
    alive:
      description: Always V(true).
      type: bool
      returned: always
    orphan:
      description: Always V(false).
      type: bool
      returned: always
    threads:
      description: How many threads it has.
      type: int
      returned: always
    cmdline_truncated:
      description: Whether RV(trainers[].cmdline) is not all of it.
      type: bool
      returned: always
last:
  description:
    - Where training stands, or where the last one stood. V(null) where nothing tells of any.
  type: dict
  returned: always
  sample:
    epoch: 3
    total_epochs: 50
    batch: null
    loss: 2.9788
    val_loss: 4.6721
    at: 1766963688.21
    age: 12.04
    source: events
    this_run: true
  contains:
    epoch:
      description: The last epoch that was finished.
      type: int
      returned: always
    total_epochs:
      description: How many there are to be.
      type: int
      returned: always
    batch:
      description: A batch of the epoch after it, where the log tells of one.
      type: int
      returned: always
    loss:
      description: Training loss of the epoch or batch.
      type: float
      returned: always
    val_loss:
      description: Validation loss of the epoch.
      type: float
      returned: always
    at:
      description: When that was, in seconds since 1970; by the log, not later than this. V(null) where it is not known.
      type: float
      returned: always
    age:
      description: Seconds since then.
      type: float
      returned: always
    source:
      description: V(events) or V(log).
      type: str
      returned: always
    this_run:
      description: Whether a trainer that runs now has done this.
      type: bool
      returned: always
checkpoint:
  description: The newest checkpoint, or V(null).
  type: dict
  returned: always
  sample:
    path: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_5.pth
    mtime: 1766963601.5
    epoch: 5
    valid: true
    depth: quick
  contains:
    path:
      description: The file.
      type: str
      returned: always
    mtime:
      description: When it was written, in seconds since 1970.
      type: float
      returned: always
    epoch:
      description: The epoch that is written in it.
      type: int
      returned: always
    valid:
      description: Whether it is whole; V(null) where it could not be examined.
      type: bool
      returned: always
    depth:
      description: How deep it was looked into, V(full) where it may serve as proof, else V(quick).
      type: str
      returned: always
cursor:
  description: How far everything is now. Hand it to O(after) later.
  type: dict
  returned: always
  sample:
    event_id: 20
    epoch: 3
    log_size: 81234
    log_inode: 1835042
    log_epoch: 3
    log_batch: 0
    checkpoint_mtime: 1766963601.5
    checkpoint_path: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_5.pth
    at: 1766963700.25
  contains:
    event_id:
      description: Number of the newest event.
      type: int
      returned: always
    epoch:
      description: RV(last.epoch).
      type: int
      returned: always
    log_size:
      description: Size of the log in bytes, up to the end of its last whole line.
      type: int
      returned: always
    log_inode:
      description: Number of the log in its file system.
      type: int
      returned: always
    log_epoch:
      description: The last epoch that is finished in the log.
      type: int
      returned: always
    log_batch:
      description: The batch of the epoch after it.
      type: int
      returned: always
    checkpoint_mtime:
      description: RV(checkpoint.mtime).
      type: float
      returned: always
    checkpoint_path:
      description: RV(checkpoint.path).
      type: str
      returned: always
    at:
      description: RV(now).
      type: float
      returned: always
progressed:
  description: Whether progress since O(after) is proven; V(null) without O(after).
  type: bool
  returned: always
  sample: true
proof:
  description: The evidence; one of them is enough.
  type: list
  elements: dict
  returned: always
  sample:
    - source: events
      from: epoch 2
      to: epoch 3 of 50
      what: epoch 3 of 50 was finished at 2025-12-28T23:14:48Z
  contains:
    source:
      description: V(events), V(log) or V(checkpoint).
      type: str
      returned: always
    from:
      description: Where it was.
      type: str
      returned: always
    to:
      description: Where it is now.
      type: str
      returned: always
    what:
      description: What has happened, in words.
      type: str
      returned: always
problems:
  description: What could not be seen, and what is wrong besides, errors first.
  type: list
  elements: dict
  returned: always
  sample: []
  contains:
    code:
      description:
        - C(processes_unreadable), C(processes_in_doubt), C(duplicate_trainers), C(events_unreadable),
          C(events_not_counted), C(log_not_read), C(log_unreadable), C(checkpoint_unreadable), C(checkpoint_invalid)
          or C(too_many_checkpoints).
      type: str
      returned: always
    message:
      description: The problem in words.
      type: str
      returned: always
    severity:
      description: V(error) or V(warning).
      type: str
      returned: always
    member:
      description: Always V(null).
      type: str
      returned: always
    offset:
      description: Always V(null).
      type: int
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_progress import look


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "coordination_dir": {"type": "path"},
            "log": {"type": "path", "default": "logs/training.log"},
            "checkpoint_patterns": {
                "type": "list",
                "elements": "str",
                "default": ["checkpoints/checkpoint_*.pth", "models/candidate_{config}*.pth"],
            },
            "after": {"type": "dict"},
            "stall_after": {"type": "float", "default": 1800},
            "within": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        progress = look(
            parse_config(params["config"]),
            params["service_path"],
            coordination_dir=params["coordination_dir"],
            log=params["log"],
            checkpoint_patterns=params["checkpoint_patterns"],
            after=params["after"],
            stall_after=params["stall_after"],
            within=params["within"],
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **progress.as_dict())


if __name__ == "__main__":
    main()

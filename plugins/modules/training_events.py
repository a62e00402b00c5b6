#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: training_events
short_description: Say what the service's event log tells of the trainings of a config
version_added: 0.1.0
description:
  - Reads C(events.db), into which the trainer writes its start, each epoch, and its end, with the time.
  - Reads only, and creates nothing beside the database, not even while the service writes into it. Understands the
    records of both generations of the service.
  - An event log that does not exist is a finding, RV(exists) is V(false). One that is damaged or locked is a failure.
author: The ringrift.recovery authors (@ringrift)
options:
  coordination_dir:
    description:
      - The directory of C(events.db).
      - By default where the service looks, E(RINGRIFT_COORDINATION_DIR), else C(ringrift_coordination) in
        E(XDG_RUNTIME_DIR), else C(/tmp/ringrift_coordination) for root and C(/tmp/ringrift_coordination_<uid>) for
        others. The service may run in another environment than a login, so of the last two the newer one counts.
    type: path
  path:
    description:
      - The event log itself, instead of O(coordination_dir).
    type: path
  hostname:
    description:
      - Leave out what other hosts wrote into the same event log.
    type: str
  timeout:
    description:
      - Seconds that reading may take, at most 3600.
    type: float
    default: 5
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
  - ringrift.recovery._service
seealso:
  - module: ringrift.recovery.training_log
  - module: ringrift.recovery.training_progress
"""

EXAMPLES = r"""
- name: See what the service says of its last training
  ringrift.recovery.training_events:
    config: hex8_2p
  register: training_events

- name: Show why the last training failed
  ansible.builtin.debug:
    msg: "{{ training_events.last.failed.error }}"
  when: training_events.state == "failed"

- name: Read the event log of a service that runs in an environment of its own
  ringrift.recovery.training_events:
    config: hex8_2p
    coordination_dir: /var/lib/ringrift/coordination
"""

RETURN = r"""
database:
  description: The event log.
  type: str
  returned: always
  sample: /tmp/ringrift_coordination_1000/events.db
exists:
  description: Whether there is such a file.
  type: bool
  returned: always
  sample: true
searched:
  description: All places where it was looked for.
  type: list
  elements: str
  returned: always
  sample: [/tmp/ringrift_coordination_1000/events.db]
config:
  description: The config that was asked for.
  type: str
  returned: always
  sample: hex8_2p
state:
  description:
    - What the newest event of the config says, V(running), V(completed) or V(failed), or V(none) where there is none.
    - A training that was killed stays V(running) here, as nobody reports its end.
  type: str
  returned: always
  sample: running
last:
  description: The newest event of each kind.
  type: dict
  returned: always
  contains:
    started:
      description: The newest start that the trainer itself reported, else that somebody asked for, or V(null).
      type: dict
      returned: always
      sample:
        event_id: 19
        at: 1795469274.35
        hostname: nebius-h100-3
        source: train
        total_epochs: 50
        start_epoch: 0
        job_id: null
        node: null
      contains:
        event_id:
          description: Number of the event; numbers only grow.
          type: int
          returned: always
        at:
          description: When it was written, in seconds since 1970.
          type: float
          returned: always
        hostname:
          description: The host that wrote it.
          type: str
          returned: always
        source:
          description: The part of the service that wrote it.
          type: str
          returned: always
        total_epochs:
          description: How many epochs there are to be.
          type: int
          returned: always
        start_epoch:
          description: How many epochs were done before.
          type: int
          returned: always
        job_id:
          description: The job of the P2P orchestrator, where there is one.
          type: str
          returned: always
        node:
          description: The node that it is about, where that is said.
          type: str
          returned: always
    progress:
      description: The newest finished epoch, or V(null).
      type: dict
      returned: always
      sample:
        event_id: 20
        at: 1795469343.19
        hostname: nebius-h100-3
        source: train
        epoch: 1
        total_epochs: 50
        loss: 3.8526
        val_loss: 5.1529
        finite: true
      contains:
        event_id:
          description: Number of the event; numbers only grow.
          type: int
          returned: always
        at:
          description: When it was written, in seconds since 1970.
          type: float
          returned: always
        hostname:
          description: The host that wrote it.
          type: str
          returned: always
        source:
          description: The part of the service that wrote it.
          type: str
          returned: always
        epoch:
          description: The epoch that was finished.
          type: int
          returned: always
        total_epochs:
          description: How many epochs there are to be.
          type: int
          returned: always
        loss:
          description: Training loss; V(null) where it is not a finite number.
          type: float
          returned: always
        val_loss:
          description: Validation loss; V(null) where it is not a finite number.
          type: float
          returned: always
        finite:
          description: Whether the losses are finite numbers.
          type: bool
          returned: always
    completed:
      description: The newest completion, or V(null). The trainer reports each twice.
      type: dict
      returned: always
      sample:
        event_id: 18
        at: 1795469052.15
        hostname: nebius-h100-3
        source: train_finally
        epochs: 3
        loss: 4.0284
        val_loss: 5.5384
        checkpoint_path: checkpoints/checkpoint_final_epoch_3.pth
        model_path: models/canonical_hex8_2p.pth
        node: null
      contains:
        event_id:
          description: Number of the event; numbers only grow.
          type: int
          returned: always
        at:
          description: When it was written, in seconds since 1970.
          type: float
          returned: always
        hostname:
          description: The host that wrote it.
          type: str
          returned: always
        source:
          description: The part of the service that wrote it.
          type: str
          returned: always
        epochs:
          description: How many epochs were completed.
          type: int
          returned: always
        loss:
          description: The last training loss.
          type: float
          returned: always
        val_loss:
          description: The best validation loss.
          type: float
          returned: always
        checkpoint_path:
          description: The last checkpoint, as the trainer names it.
          type: str
          returned: always
        model_path:
          description: The model, as the trainer names it.
          type: str
          returned: always
        node:
          description: The node that it is about, where that is said.
          type: str
          returned: always
    failed:
      description: The newest failure, or V(null).
      type: dict
      returned: always
      sample: null
      contains:
        event_id:
          description: Number of the event; numbers only grow.
          type: int
          returned: always
        at:
          description: When it was written, in seconds since 1970.
          type: float
          returned: always
        hostname:
          description: The host that wrote it.
          type: str
          returned: always
        source:
          description: The part of the service that wrote it.
          type: str
          returned: always
        error:
          description: Why it failed, at most 500 characters.
          type: str
          returned: always
        epochs:
          description: How many epochs were completed before.
          type: int
          returned: always
        node:
          description: The node that it is about, where that is said.
          type: str
          returned: always
counts:
  description: How many events of each kind there are for the config, of the newest 20000 events of training.
  type: dict
  returned: always
  sample: {started: 9, progress: 6, completed: 2, failed: 1}
last_event_id:
  description: Number of the newest event of any kind and config; V(null) in an empty log.
  type: int
  returned: always
  sample: 279
problems:
  description: What could not be read or understood.
  type: list
  elements: dict
  returned: always
  sample: []
  contains:
    code:
      description: C(events_unreadable), C(events_not_counted) or C(log_not_read).
      type: str
      returned: always
    message:
      description: The problem in words.
      type: str
      returned: always
    severity:
      description: Always V(warning).
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
from ansible_collections.ringrift.recovery.plugins.module_utils._training_events import read_events


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "coordination_dir": {"type": "path"},
            "path": {"type": "path"},
            "hostname": {"type": "str"},
            "timeout": {"type": "float", "default": 5},
        },
        mutually_exclusive=[("coordination_dir", "path")],
        supports_check_mode=True,
    )
    params = module.params
    try:
        log = read_events(
            parse_config(params["config"]),
            coordination_dir=params["coordination_dir"],
            path=params["path"],
            hostname=params["hostname"],
            timeout=params["timeout"],
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **log.as_dict())


if __name__ == "__main__":
    main()

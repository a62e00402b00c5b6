#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
---
module: watch_training
short_description: Watch a training live until progress is proven
version_added: 0.1.0
description:
  - Looks at a node with M(ringrift.recovery.training_progress) again and again, and prints one line whenever something
    has changed, with epoch, step, loss, pace, GPU and remaining time.
  - Ends when progress is proven, the trainer has ended, or O(timeout) is used up. RV(outcome) says which. None of them
    makes the task fail; a caller decides by RV(progressed).
  - Pace and remaining time come from when the node says that its epochs were finished. What is not known is left out.
  - A node that cannot be reached in between counts as not seen, and is looked at again until O(timeout) is used up.
  - With a stdout callback for machines, such as V(ansible.posix.json), it prints nothing and only returns the lines.
author: The ringrift.recovery authors (@ringrift)
options:
  service_path:
    description:
      - The C(ai-service) directory of the RingRift checkout on the node.
    type: str
    default: ~/ringrift/ai-service
  coordination_dir:
    description:
      - As in M(ringrift.recovery.training_progress).
    type: str
  log:
    description:
      - As in M(ringrift.recovery.training_progress).
    type: str
  checkpoint_patterns:
    description:
      - As in M(ringrift.recovery.training_progress).
    type: list
    elements: str
  stall_after:
    description:
      - Seconds without progress after which a live trainer is V(stalled), at most 2592000.
    type: float
    default: 1800
  within:
    description:
      - Count only trainers whose working directory is this one or below it.
    type: str
  begin:
    description:
      - What M(ringrift.recovery.training_progress) has returned on this node, with which to compare. By default the
        first look here.
    type: dict
  interval:
    description:
      - Seconds from one look to the next, 0.1 to 3600.
    type: float
    default: 5
  timeout:
    description:
      - Seconds to watch at most, up to 2592000. The last look may take 10 seconds longer.
    type: float
    default: 1800
  look_timeout:
    description:
      - Seconds that one look may take, 1 to 3600. After that the node counts as not seen.
    type: float
    default: 60
  follow:
    description:
      - Go on when progress is proven, until the trainer ends or O(timeout) is used up.
    type: bool
    default: false
  gpu:
    description:
      - Whether to look at the GPUs too, at most every 15 seconds. GPUs that cannot be seen never end the watch.
    type: bool
    default: true
  nvidia_smi:
    description:
      - As in M(ringrift.recovery.gpu_status).
    type: str
  python:
    description:
      - As in M(ringrift.recovery.gpu_status).
    type: str
attributes:
  check_mode:
    support: full
    details:
      - Looks once, and says for what a real run would wait.
  diff_mode:
    support: N/A
    details:
      - This module does not modify state.
  action:
    description:
      - Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
seealso:
  - module: ringrift.recovery.training_progress
  - module: ringrift.recovery.gpu_status
"""

EXAMPLES = r"""
- name: Watch until progress is proven
  ringrift.recovery.watch_training:
    config: hex8_2p
  register: watched
  failed_when: not watched.progressed

- name: Watch all of the training, for 8 hours at most
  ringrift.recovery.watch_training:
    config: hex8_2p
    follow: true
    interval: 30
    timeout: 28800
"""

RETURN = r"""
msg:
  description: What a real run would wait for.
  returned: in check mode, or when the task failed
  type: str
  sample: A real run would watch hex8_2p until the trainer ends, at most 1800 s.
config:
  description: The config that was asked for.
  returned: success
  type: str
  sample: hex8_2p
outcome:
  description:
    - V(proven), progress is proven. V(ended), no trainer of the config runs any more. V(timeout), O(timeout) is used
      up. V(unreachable), it is used up, and the node could not be seen at the end.
    - With O(follow=true) never V(proven), RV(progressed) tells it. In check mode V(null).
  returned: success
  type: str
  sample: proven
progressed:
  description: Whether progress since RV(cursor) is proven.
  returned: success
  type: bool
  sample: true
proof:
  description: The newest evidence, as M(ringrift.recovery.training_progress) returns it.
  returned: success
  type: list
  elements: dict
  sample:
    - source: events
      from: epoch 2 of 50
      to: epoch 3 of 50
      what: epoch 3 of 50 was finished at 2025-12-28T23:14:48Z
begin:
  description: Where training stood at first.
  returned: success
  type: dict
  contains:
    last:
      description: As RV(last).
      type: dict
    at:
      description: When that was seen, by the node, in seconds since 1970.
      type: float
  sample: {last: {epoch: 2, total_epochs: 50}, at: 1766963690.25}
cursor:
  description: How far everything was at first, as M(ringrift.recovery.training_progress) returns it.
  returned: success
  type: dict
  sample: {event_id: 19, epoch: 2, at: 1766963690.25}
last:
  description: Where training stood when it was last seen, as M(ringrift.recovery.training_progress) returns it.
  returned: success
  type: dict
  sample: {epoch: 3, total_epochs: 50, batch: null, loss: 2.9788, val_loss: 4.6721, source: events, this_run: true}
checkpoint:
  description: The newest checkpoint that was seen, as M(ringrift.recovery.training_progress) returns it.
  returned: success
  type: dict
  sample: {path: /home/ubuntu/ringrift/ai-service/checkpoints/checkpoint_epoch_5.pth, epoch: 5, valid: true}
running:
  description: Whether a trainer of the config ran when the node was last seen; V(null) where that could not be told.
  returned: success
  type: bool
  sample: true
verdict:
  description: As M(ringrift.recovery.training_progress) returns it; V(unknown) where the last look showed nothing.
  returned: success
  type: str
  sample: progressing
reason:
  description: The verdict in words, or why the last look showed nothing.
  returned: success
  type: str
  sample: trainer 4711 made progress 12 s ago; it stands at epoch 3 of 50
seconds:
  description: How long it watched.
  returned: success
  type: float
  sample: 31.5
lines:
  description: What was printed, the last 50 lines of it.
  returned: success
  type: list
  elements: str
  sample:
    - nebius-h100-3  hex8_2p  epoch 12/50  batch 340  loss 0.8123  1.9 epochs/min  GPU 97 % 402 W  ~20 min left
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._watch import ARGUMENT_SPEC


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="watch_training runs as an action plugin on the controller, and this is its documentation. Call it in a "
        "task as ringrift.recovery.watch_training, so that Ansible finds the plugin; for a single look there is "
        "ringrift.recovery.training_progress."
    )


if __name__ == "__main__":
    main()

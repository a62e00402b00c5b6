#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
---
module: p2p_training
short_description: Query, dispatch and clear training jobs of the P2P orchestrator
version_added: 0.1.0
description:
  - Tells which training jobs of a config the P2P orchestrator knows, whether its cooldown is active and who leads.
  - Dispatches a training job when none of the config is active, and clears those that are.
  - The requests are sent from the node of the task by M(ringrift.recovery.p2p_request). The answers are understood on
    the controller, which needs the Python package C(jmespath).
  - The interface of the orchestrator is data, a profile. V(runbook) is what the runbook prints, V(ringrift) is the work
    queue and the training records of the real service. An operator can add one in O(profiles).
  - An accepted dispatch is no proof that training runs. Look for the process and for progress after it.
  - A training job counts as active unless its state says that it is over. Clearing changes records only, it stops no
    process. Stop the trainers of the config before. A worker whose trainer ended puts its work item back into the
    queue, even one that was cancelled, so stop and withdraw in turns until both have nothing to do.
author: The ringrift.recovery authors (@ringrift)
requirements:
  - jmespath, on the controller
options:
  state:
    description:
      - V(query) only looks.
      - V(dispatched) makes sure that a job of the config is active. An active one, of whatever kind, is left alone and
        nothing is sent, also with O(force=true).
      - V(withdrawn) makes sure that no worker has or takes a job of the config. Records of which no worker takes a job
        are left alone, and so is everything when the orchestrator could only clear jobs of other configs too; RV(notes)
        says so. Use it between two rounds of stopping trainers.
      - V(cleared) makes sure that no job of the config is active. Jobs that are over are left alone.
    type: str
    choices: [query, dispatched, withdrawn, cleared]
    default: query
  url:
    description:
      - Where the orchestrator listens, as seen from the node. When another node leads, its address is taken from the
        answer and the requests that only a leader serves are sent there, from the same node.
    type: str
    default: http://localhost:8770
  profile:
    description:
      - The interface of the orchestrator, V(runbook), V(ringrift), the name of one in O(profiles), or V(auto) to find
        out from what it answers.
    type: str
    default: auto
  profiles:
    description:
      - Profiles of your own by name. A name of a built-in profile replaces that one.
      - With the key C(extends) a profile takes what it does not have from the built-in profile of that name. The other
        keys are explained in C(docs/api_profiles.md).
    type: dict
    default: {}
  token:
    description:
      - The token of the cluster, E(RINGRIFT_CLUSTER_AUTH_TOKEN) on its nodes. It is sent to O(url) and to the leader
        that is named there, and never returned.
    type: str
  timeout:
    description:
      - Seconds that one request may take.
    type: float
    default: 5
  batch_size:
    description:
      - Samples in a batch of the dispatched job. Without it the orchestrator decides.
    type: int
  epochs:
    description:
      - Epochs of the dispatched job. Without it the orchestrator decides.
    type: int
  priority:
    description:
      - Priority of the dispatched job in the work queue; more is earlier, 50 is the service's own default.
    type: int
    default: 90
  job_timeout:
    description:
      - Seconds after which the work queue gives the job to another worker. The default is longer than the longest
        training that a worker allows, 14400 s, so that the same job does not run twice.
    type: int
    default: 15000
  extra:
    description:
      - More keys for the config of the dispatched job. The config and O(force) cannot be set here.
    type: dict
    default: {}
  force:
    description:
      - Dispatch in spite of an active cooldown, a full work queue, or a state that could not be read whole.
      - Clear although a state could not be read whole, or although the orchestrator clears jobs of other configs too.
      - Never dispatches a second job beside one that is known to be active.
    type: bool
    default: false
  cooldown:
    description:
      - Seconds after a training in which no other is dispatched. The default is what the orchestrator says, or 300.
      - In the V(ringrift) profile the cooldown holds back automatic triggers only; it is reported and blocks nothing.
    type: int
  assume_cleared:
    description:
      - Ids of jobs that count as cleared, to predict a dispatch behind a predicted clear. Only heeded in check mode.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    details:
      - Nothing but GET requests without a side effect is sent. RV(requests) has what would be sent.
  diff_mode:
    support: full
  action:
    description:
      - Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
seealso:
  - module: ringrift.recovery.p2p_request
  - module: ringrift.recovery.training_process
  - module: ringrift.recovery.training_progress
"""

EXAMPLES = r"""
- name: Look at the training jobs of a config
  ringrift.recovery.p2p_training:
    config: hex8_2p
  register: p2p

- name: Show what would be cleared
  ringrift.recovery.p2p_training:
    config: hex8_2p
    state: cleared
    token: "{{ p2p_token }}"
  check_mode: true
  diff: true

- name: Clear the training jobs of a config
  ringrift.recovery.p2p_training:
    config: hex8_2p
    state: cleared
    token: "{{ p2p_token }}"

- name: Keep workers from taking up the work of stopped trainers
  ringrift.recovery.p2p_training:
    config: hex8_2p
    state: withdrawn
    token: "{{ p2p_token }}"

- name: Dispatch training with a smaller batch
  ringrift.recovery.p2p_training:
    config: hex8_2p
    state: dispatched
    batch_size: 256
    epochs: 50
    force: "{{ force | default(false) | bool }}"
    token: "{{ p2p_token }}"

- name: Dispatch through an interface of our own
  ringrift.recovery.p2p_training:
    config: hex8_2p
    state: dispatched
    profile: gateway
    profiles:
      gateway:
        extends: runbook
        dispatch:
          path: /v2/train
          body:
            job: {$: config}
          success: status == `202`
          job_id: body.id
"""

RETURN = r"""
msg:
  description: One sentence, what was found, done or refused, and the next step where there is one.
  returned: always
  type: str
  sample: hex8_2p was dispatched as job 3e993afd.
reachable:
  description: Whether anything that speaks HTTP answered at O(url).
  returned: when the options are usable
  type: bool
  sample: true
profile:
  description: The profile that was used; V(unknown) when none of them fits the answers.
  returned: when the options are usable
  type: str
  sample: ringrift
reason:
  description: Why the orchestrator could not be reached, recognised or read whole, or null.
  returned: when the options are usable
  type: str
  sample: "The P2P orchestrator at http://localhost:8770 cannot be reached from the node: connection refused."
complete:
  description: Whether everything that tells about active jobs could be read.
  returned: when the options are usable
  type: bool
  sample: true
leader:
  description: Who leads the cluster. All values are null where the profile or the orchestrator has no leader.
  returned: when the options are usable
  type: dict
  contains:
    id:
      description: The node id of the leader.
      type: str
      sample: coordinator
    is_leader:
      description: Whether the orchestrator at O(url) leads.
      type: bool
      sample: true
    url:
      description: The URL of the leader as seen from the cluster, or O(url) when that one leads.
      type: str
      sample: http://10.0.0.1:8770
jobs:
  description:
    - Training jobs of the config, active ones first, then the newest, at most 200, as they are after what was done. In
      check mode a predicted job is not among them, and one that would be cleared counts as over.
    - Null when they could not be read.
  returned: when the options are usable
  type: list
  elements: dict
  contains:
    id:
      description: The id of the job.
      type: str
      sample: 3e993afd
    kind:
      description: Where the orchestrator keeps it, for example V(record), V(work) or V(job).
      type: str
      sample: work
    type:
      description: The type that the orchestrator names.
      type: str
      sample: training
    status:
      description: The state that the orchestrator names.
      type: str
      sample: running
    node:
      description: The node that has it, or null.
      type: str
      sample: nebius-h100-3
    config:
      description: The config that it trains.
      type: str
      sample: hex8_2p
    active:
      description: Whether it is not over.
      type: bool
      sample: true
    created_at:
      description: When it was created, in seconds since the epoch, or null.
      type: float
      sample: 1795470625.07
    started_at:
      description: When it was last started, in seconds since the epoch, or null.
      type: float
      sample: 1795471928.06
    completed_at:
      description: When it ended, in seconds since the epoch, or null.
      type: float
      sample: 1795471996.67
    batch_size:
      description: Samples in a batch, or null where the orchestrator does not say.
      type: int
      sample: 512
active:
  description: Those of RV(jobs) that are active, all of them; null when they could not be read.
  returned: when the options are usable
  type: list
  elements: dict
  sample: []
cooldown:
  description: The time after the last training in which no other is dispatched. What is unknown is null.
  returned: when the options are usable
  type: dict
  contains:
    active:
      description: Whether the time is not over.
      type: bool
      sample: false
    seconds:
      description: The length of the cooldown in seconds.
      type: float
      sample: 300.0
    last_training_time:
      description: When the last training ended, in seconds since the epoch.
      type: float
      sample: 1795471996.67
    ends_at:
      description: When the cooldown ends, in seconds since the epoch.
      type: float
      sample: 1795472296.67
    remaining:
      description: How long it still lasts, in seconds.
      type: float
      sample: 0.0
    source:
      description: Where the time of the last training comes from.
      type: str
      sample: last_training_time in GET /status
    blocks_dispatch:
      description: Whether an active cooldown keeps V(dispatched) from dispatching.
      type: bool
      sample: true
dispatched:
  description: The job that was dispatched, or in check mode would be; null when none was.
  returned: when the options are usable
  type: dict
  contains:
    job_id:
      description: The id of the new job, or null when it is unknown.
      type: str
      sample: 3e993afd
    node:
      description: The node that has it, or null when none has it yet.
      type: str
      sample: nebius-h100-3
    request:
      description: The request, as in RV(requests).
      type: dict
      sample: {"method": "POST", "url": "http://localhost:8770/dispatch_training", "body": {"config": "hex8_2p"}}
    answer:
      description: What the orchestrator answered, or null.
      type: raw
      sample: {"status": "added", "work_id": "3e993afd", "work_type": "training", "priority": 90}
cleared:
  description: The jobs that were withdrawn or cleared, or in check mode would be.
  returned: when the options are usable
  type: list
  elements: dict
  contains:
    id:
      description: The id of the job.
      type: str
      sample: nnue_hex8_2p_1795470654
    kind:
      description: Where the orchestrator keeps it.
      type: str
      sample: record
    was:
      description: Its state before.
      type: str
      sample: running
    request:
      description: The request that cleared it, as in RV(requests).
      type: dict
      sample: {"method": "POST", "url": "http://localhost:8770/work/cancel", "body": {"work_id": "3e993afd"}}
requests:
  description: The requests that change something, in their order.
  returned: when the options are usable
  type: list
  elements: dict
  contains:
    method:
      description: The HTTP method.
      type: str
      sample: POST
    url:
      description: The whole URL.
      type: str
      sample: http://localhost:8770/work/add
    body:
      description: The body, or null when it is empty.
      type: raw
      sample: {"config": "hex8_2p"}
    sent:
      description: Whether it was sent; false in check mode.
      type: bool
      sample: true
notes:
  description: What else is worth knowing about this result.
  returned: when the options are usable
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p import ARGUMENT_SPEC


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="p2p_training runs as an action plugin on the controller, and this is its documentation. Call it in a task "
        "as ringrift.recovery.p2p_training, so that Ansible finds the plugin; for single requests there is "
        "ringrift.recovery.p2p_request."
    )


if __name__ == "__main__":
    main()

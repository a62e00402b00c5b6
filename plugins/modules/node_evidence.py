#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_evidence
short_description: Everything that a diagnosis needs from one node, in one execution
version_added: 0.1.0
description:
  - Runs all probes of a node side by side, each in a thread of its own, and waits for all of them together for at
    most O(timeout).
  - A probe that overruns or cannot look is named in RV(errors) and hides nothing of what the others saw.
  - The filter P(ringrift.recovery.verdict#filter) turns the evidence of a fleet into findings.
author: The ringrift.recovery authors (@ringrift)
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
  - ringrift.recovery._service
  - ringrift.recovery._service.path
options:
  probes:
    description:
      - What to look at.
      - V(progress) are trainers, events, log and newest checkpoint; V(locks) the training locks; V(gpu) the GPUs;
        V(log) the end of the
        training log; V(data) the training file; V(checkpoints) the canonical model and the newest checkpoints;
        V(games) the replay databases.
    type: list
    elements: str
    choices: [progress, locks, gpu, log, data, checkpoints, games]
    default: [progress, locks, gpu, log, data, checkpoints, games]
  timeout:
    description:
      - Seconds that all probes together may take.
    type: float
    default: 20
  coordination_dir:
    description:
      - The directory of the service's C(events.db). By default where the service looks itself.
    type: path
  within:
    description:
      - Count only trainers whose working directory is below this path.
    type: path
  nvidia_smi:
    description:
      - The GPU tool, by name or by path.
    type: str
    default: nvidia-smi
  redis_url:
    description:
      - Where Redis locks are, for example V(redis://cache:6379/0). Without it only file locks are looked at.
    type: str
  stall_after:
    description:
      - Seconds without progress after which a live trainer counts as stalled.
    type: float
    default: 1800
  min_samples:
    description:
      - Fewest samples that the training file may have.
    type: int
    default: 100
  min_games:
    description:
      - Fewest finished games that the replay databases should hold.
    type: int
    default: 50
seealso:
  - module: ringrift.recovery.training_progress
  - module: ringrift.recovery.training_lock
  - module: ringrift.recovery.gpu_status
"""

EXAMPLES = r"""
- name: Look at a node
  ringrift.recovery.node_evidence:
    config: hex8_2p

- name: Look at what the coordinator has, and at nothing else
  ringrift.recovery.node_evidence:
    config: hex8_2p
    probes: [locks, data, games]
"""

RETURN = r"""
progress:
  description: As the module M(ringrift.recovery.training_progress) returns it.
  returned: when the probe V(progress) answered
  type: dict
  sample: {"running": false, "verdict": "not_running", "reason": "no trainer of hex8_2p runs here"}
locks:
  description: Each lock of the config that was found, as C(locks) of the module M(ringrift.recovery.training_lock).
  returned: when the probe V(locks) answered
  type: list
  elements: dict
  sample: [{"backend": "file", "verdict": "free", "releasable": false}]
gpu:
  description: As the module M(ringrift.recovery.gpu_status) returns it.
  returned: when the probe V(gpu) answered
  type: dict
  sample: {"verdict": "idle", "gpus": []}
log:
  description: As the module M(ringrift.recovery.training_log) returns it.
  returned: when the probe V(log) answered
  type: dict
  sample: {"exists": true, "findings": []}
data:
  description:
    - As the module M(ringrift.recovery.npz_inspect) returns it, with C(path), and C(exists) V(false) where there is
      no file.
  returned: when the probe V(data) answered
  type: dict
  sample: {"exists": true, "valid": true, "samples": 601}
checkpoints:
  description:
    - The canonical model and the newest checkpoints, each as the module M(ringrift.recovery.checkpoint_verify)
      returns it, with C(path).
  returned: when the probe V(checkpoints) answered
  type: list
  elements: dict
  sample: [{"path": "models/canonical_hex8_2p.pth", "valid": true}]
games:
  description: As the module M(ringrift.recovery.game_databases) returns it.
  returned: when the probe V(games) answered
  type: dict
  sample: {"games": 60, "enough": true}
errors:
  description: The reason, by name, of each probe that gave no answer.
  returned: always
  type: dict
  sample: {"gpu": "no answer within 20 s"}
seconds:
  description: Seconds that each probe took.
  returned: always
  type: dict
  sample: {"progress": 0.021}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._node_evidence import PROBES, EvidenceRequest, collect


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "probes": {"type": "list", "elements": "str", "choices": list(PROBES), "default": list(PROBES)},
            "timeout": {"type": "float", "default": 20},
            "coordination_dir": {"type": "path"},
            "within": {"type": "path"},
            "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
            # A URL may carry a password.
            "redis_url": {"type": "str", "no_log": True},
            "stall_after": {"type": "float", "default": 1800},
            "min_samples": {"type": "int", "default": 100},
            "min_games": {"type": "int", "default": 50},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    deadline = options.pop("timeout")
    try:
        request = EvidenceRequest(
            **{**options, "config": parse_config(options["config"]), "probes": tuple(options["probes"])}
        )
        evidence = collect(request, deadline)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **evidence)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: event_wiring
short_description: Query or restart what wires the training events
version_added: 0.1.0
description:
  - Tells who listens to the training events, as the P2P orchestrator says of its own process, and whether the daemons
    C(event_router), C(feedback_loop) and C(data_pipeline) run, as their health page says.
  - Restarts what wires the events where one of these is not so, and waits until it is proven that all of it is.
  - Run it on the node of the orchestrator, usually the coordinator.
author: The ringrift.recovery authors (@ringrift)
options:
  state:
    description:
      - V(query) only looks.
      - V(restarted) makes sure that C(TRAINING_STARTED) and C(TRAINING_COMPLETED) have subscribers and that the three
        daemons run. Where all of it is known to be so, nothing is done.
      - It is refused where an orchestrator answers that does not tell who listens, since nothing could be proven.
    type: str
    choices: [query, restarted]
    default: query
  via:
    description:
      - How to restart. V(auto) takes the first of the others, in this order, that can be gone on this node, and the
        next one where that fails.
      - V(launcher) runs C(scripts/launch_daemons.py --restart EVENT_ROUTER FEEDBACK_LOOP DATA_PIPELINE), as the runbook
        prints it, if its C(--help) knows C(--restart). That of the real service does not.
      - V(unit) has systemd restart C(ringrift-p2p-orchestrator.service), C(ringrift-p2p.service) or
        C(master-loop.service), whichever the programs of the service run in; where none of them runs, those that
        systemd knows.
      - V(http) sends C(POST /admin/restart) to the orchestrator, which starts itself anew after 2 seconds.
    type: str
    choices: [auto, launcher, unit, http]
    default: auto
  p2p_url:
    description:
      - Where the orchestrator listens, as seen from the node.
    type: str
    default: http://localhost:8770
  health_url:
    description:
      - Where the daemons' health page is, as seen from the node. It listens on IPv6 only, so that of C(localhost) both
        addresses are tried.
    type: str
    default: http://localhost:8790
  python:
    description:
      - The interpreter of the service, for V(launcher). Relative to O(service_path).
    type: str
    default: venv/bin/python
  token:
    description:
      - The token of the cluster, E(RINGRIFT_CLUSTER_AUTH_TOKEN) on its nodes, for V(http).
    type: str
  admin_token:
    description:
      - What the orchestrator has as E(RINGRIFT_ADMIN_TOKEN), for V(http). It is sent as C(X-Admin-Token).
    type: str
  force:
    description:
      - Restart although all is well, or although an orchestrator answers that does not tell who listens. Of that one
        only the daemons are proven then.
    type: bool
    default: false
  force_orphans:
    description:
      - Restart the orchestrator by V(unit) or V(http) although it ends trainings of this node when it starts.
      - It then sends C(SIGTERM) to every Python process whose parent is process 1 and whose command line contains
        C(train), C(selfplay), C(gauntlet) or C(export_replay). Without this option it is not restarted while there is
        one, or while that cannot be told.
    type: bool
    default: false
  within:
    description:
      - Look only at processes whose working directory is this one or below it. By default at all of the node, wherever
        they run.
    type: path
  timeout:
    description:
      - Seconds from the restart until all of it must be proven.
    type: float
    default: 60
attributes:
  check_mode:
    support: full
    details:
      - Nothing is restarted, and only GET requests are sent. The launcher is asked for its C(--help).
  diff_mode:
    support: full
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service.path
notes:
  - A healthy orchestrator has no subscriber of C(TRAINING_FAILED). It is reported in RV(wiring) and decides nothing.
  - To restart a unit, run the task with C(become).
  - A restart of the orchestrator clears its training records, which are in its memory only.
seealso:
  - module: ringrift.recovery.p2p_training
  - module: ringrift.recovery.training_process
  - module: ringrift.recovery.node_evidence
"""

EXAMPLES = r"""
- name: See who listens to the training events
  ringrift.recovery.event_wiring:
  register: events

- name: Show what would be restarted
  ringrift.recovery.event_wiring:
    state: restarted
  check_mode: true
  diff: true

- name: Restart what wires the events, where they are not wired
  ringrift.recovery.event_wiring:
    state: restarted
    token: "{{ p2p_token }}"
    admin_token: "{{ p2p_admin_token }}"

- name: Restart the unit in any case
  ringrift.recovery.event_wiring:
    state: restarted
    via: unit
    force: true
  become: true
"""

RETURN = r"""
wiring:
  description: Who listens to the training events; after a restart, as it is then.
  returned: when the options are usable
  type: dict
  sample: {"url": "http://localhost:8770", "reachable": true, "reason": null, "missing": [], "verdict": "wired"}
  contains: &wiring
    url:
      description: Where it was asked.
      type: str
      returned: always
    reachable:
      description: Whether anything answered.
      type: bool
      returned: always
    reason:
      description: Why it is not known who listens; V(null) where it is.
      type: str
      returned: always
    events:
      description: What is known of C(TRAINING_STARTED), C(TRAINING_COMPLETED) and C(TRAINING_FAILED), by these names.
      type: dict
      returned: always
      sample: {"TRAINING_COMPLETED": {"subscribers": 1, "handlers": ["handle_training_completed"]}}
    missing:
      description: The events without any subscriber.
      type: list
      elements: str
      returned: always
    verdict:
      description:
        - V(wired) when C(TRAINING_STARTED) and C(TRAINING_COMPLETED) have subscribers, V(unwired) when one of them has
          none, V(unknown) when that is not known.
      type: str
      returned: always
daemons:
  description: The daemons of the service; after a restart, as they are then.
  returned: when the options are usable
  type: dict
  sample: {"url": "http://localhost:8790", "reachable": true, "reason": null, "running": true, "down": []}
  contains: &daemons
    url:
      description: Where it was asked.
      type: str
      returned: always
    reachable:
      description: Whether anything answered.
      type: bool
      returned: always
    reason:
      description: Why their states are not known; V(null) where they are.
      type: str
      returned: always
    running:
      description: Whether the manager of the daemons runs; V(null) where that is not known.
      type: bool
      returned: always
    daemons:
      description: The state of each daemon, by name; after a failure only of those that RV(daemons.down) is about.
      type: dict
      returned: always
      sample: {"event_router": "running", "feedback_loop": "running", "data_pipeline": "running"}
    down:
      description: Those of C(event_router), C(feedback_loop) and C(data_pipeline) that do not run.
      type: list
      elements: str
      returned: always
before:
  description: How it was before; the same where nothing was done.
  returned: success
  type: dict
  contains:
    wiring:
      description: As RV(wiring).
      type: dict
      returned: always
      contains: *wiring
    daemons:
      description: As RV(daemons).
      type: dict
      returned: always
      contains: *daemons
via:
  description: The way that was gone, in check mode that would be; V(null) where none was.
  returned: when the options are usable
  type: str
  sample: unit
restarted:
  description: Whether a restart was carried out, in check mode whether one would be.
  returned: when the options are usable
  type: bool
  sample: true
tried:
  description: The ways that were looked at, in their order.
  returned: when the options are usable
  type: list
  elements: dict
  sample: [{"via": "launcher", "done": false, "what": null, "reason": "scripts/launch_daemons.py has no --restart"}]
  contains:
    via:
      description: The way.
      type: str
      returned: always
    done:
      description: Whether it was gone, in check mode whether it would be.
      type: bool
      returned: always
    what:
      description: What it comes to; V(null) where the way cannot be gone.
      type: str
      returned: always
      sample: systemctl restart ringrift-p2p-orchestrator.service
    reason:
      description: Why it was not gone; V(null) where it was.
      type: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._event_restart import (
    Outcome,
    RestartFailed,
    RestartRequest,
    look,
    restart,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["query", "restarted"], "default": "query"},
            "via": {"type": "str", "choices": ["auto", "launcher", "unit", "http"], "default": "auto"},
            "p2p_url": {"type": "str", "default": "http://localhost:8770"},
            "health_url": {"type": "str", "default": "http://localhost:8790"},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "python": {"type": "str", "default": "venv/bin/python"},
            "token": {"type": "str", "no_log": True},
            "admin_token": {"type": "str", "no_log": True},
            "force": {"type": "bool", "default": False},
            "force_orphans": {"type": "bool", "default": False},
            "within": {"type": "path"},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    state = options.pop("state")
    try:
        request = RestartRequest(**options)
        if state == "query":
            seen = look(request)
            outcome = Outcome(seen, seen)
        else:
            outcome = restart(request, dry_run=module.check_mode)
    except RestartFailed as exc:
        module.fail_json(msg=str(exc), **exc.outcome.failure())
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    result = outcome.as_dict()
    if module._diff and state == "restarted":
        result["diff"] = outcome.diff()
    module.exit_json(**result)


if __name__ == "__main__":
    main()

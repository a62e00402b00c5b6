#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: replaced_files
short_description: What training files and checkpoints a run replaced
version_added: 0.1.0
description:
  - Reads the report that a run left on the controller, and says for each node which file was replaced, what was wrong
    with it, and where it is kept.
  - Without O(run) it is the newest recovery of the config that replaced anything; a rollback is none.
  - Runs in the controller's own process, no node is asked.
author: The ringrift.recovery authors (@ringrift)
options:
  folder:
    description:
      - Where reports are kept on the controller. C(~) is the user who runs the play.
    type: str
    required: true
  run:
    description:
      - The run, by its name in the journal, by the name of its report, or by the path of its report. What has a slash
        or ends in C(.json) is a path.
    type: str
  hosts:
    description:
      - The nodes that are asked for; RV(left_out) are then those that the run had besides.
    type: list
    elements: str
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
  - ringrift.recovery._service
seealso:
  - module: ringrift.recovery.file_rollback
  - module: ringrift.recovery.write_reports
"""

EXAMPLES = r"""
- name: See what the newest recovery replaced
  ringrift.recovery.replaced_files:
    config: hex8_2p
    folder: ~/.local/state/ringrift-recovery
  run_once: true

- name: See what a certain run replaced
  ringrift.recovery.replaced_files:
    config: hex8_2p
    folder: ~/.local/state/ringrift-recovery
    run: 20261128T104027Z-5f2c
  run_once: true
"""

RETURN = r"""
id:
  description: The name of the run in the journal; V(null) where it had none.
  type: str
  returned: success
  sample: 20261128T104027Z-5f2c
report:
  description: Its report.
  type: str
  returned: success
  sample: /home/operator/.local/state/ringrift-recovery/20261128T104112Z-hex8_2p.json
at:
  description: When it ended.
  type: str
  returned: success
  sample: "2026-11-28T10:41:12Z"
outcome:
  description: How it ended, in words.
  type: str
  returned: success
  sample: recovered, progress is proven
nodes:
  description: >-
    For each node of the run where a file was replaced or moved aside, by name, a list of such files as
    O(ringrift.recovery.file_rollback#module:files) takes them.
  type: dict
  returned: success
  sample:
    nebius-h100-3:
      - path: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz
        kind: training_file
        before: 293c50f778d3097531add78eb4b41aef6cfe940af82361bdee79c438b9130b8a
        after: 2b46e80be98d54921cd806b706b4457eb04d653438ba011d8ae599aaa348fcd3
        kept: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz.previous
coordinator:
  description: The same list for the coordinator, where the training file is exported.
  type: list
  elements: dict
  returned: success
  sample: []
left_out:
  description: Nodes of RV(nodes) that are not among O(hosts).
  type: list
  elements: str
  returned: success
  sample: []
"""

#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: write_reports
short_description: Keep reports of a run on the controller
version_added: 0.1.0
description:
  - Writes texts into files of one folder on the controller, each beside its place and then renamed.
  - Runs in the controller's own process, no node is asked. In check mode nothing is written.
  - A report is what a run leaves and no state that it changes, so the task is never changed.
author: The ringrift.recovery authors (@ringrift)
options:
  folder:
    description:
      - Where the files go. A folder that does not exist is made, for its owner and group. C(~) is the user who runs
        the play.
    type: str
    required: true
  files:
    description:
      - The content of each file by its name, which has no folder in it.
    type: dict
    required: true
  mode:
    description:
      - The mode of the files, octal and in quotes.
    type: str
    default: "0640"
  keep_days:
    description:
      - After this many days a report is removed, by the time in its name. Only those are whose names differ from the
        ones in O(files) in nothing but the time with which they begin, as in
        C(20261128T064142Z-hex8_2p-evidence.json).
      - One that cannot be removed is a warning. V(0) keeps them for ever.
    type: int
    default: 0
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
"""

EXAMPLES = r"""
- name: Keep a verdict
  ringrift.recovery.write_reports:
    folder: ~/reports
    files:
      diagnosis.json: "{{ diagnose_verdict | to_nice_json }}"
  run_once: true
"""

RETURN = r"""
paths:
  description: The files, as they are or in check mode would be.
  type: list
  elements: str
  returned: always
  sample: [/home/operator/reports/diagnosis.json]
removed:
  description: The files that were older than O(keep_days), or in check mode would be removed.
  type: list
  elements: str
  returned: always
  sample: [/home/operator/reports/20260828T064142Z-hex8_2p-evidence.json]
"""

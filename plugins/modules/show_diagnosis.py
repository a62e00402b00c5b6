#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: show_diagnosis
short_description: Print a diagnosis as a table
version_added: 0.1.0
description:
  - Prints the headline, a line for each node, the findings with their facts and fixes, and the next command.
  - Fits itself into the width of the terminal, and uses colour where there is a terminal.
  - With a stdout callback for machines, such as V(ansible.posix.json), it prints nothing and only returns the lines.
  - Runs on the controller, no node is asked.
author: The ringrift.recovery authors (@ringrift)
options:
  verdict:
    description:
      - What the filter P(ringrift.recovery.verdict#filter) returns.
    type: dict
    required: true
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
seealso:
  - plugin: ringrift.recovery.verdict
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show a diagnosis that was kept
  ringrift.recovery.show_diagnosis:
    verdict: "{{ lookup('ansible.builtin.file', 'evidence.json') | from_json | ringrift.recovery.verdict }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: What was printed, without colour.
  type: list
  elements: str
  returned: success
  sample: ["hex8_2p: training is not stalled"]
"""

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This fragment is private to the collection.
from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  config:
    description:
      - The training config, C(<board>_<players>p), for example V(hex8_2p).
    type: str
    required: true
"""

    PATH = r"""
options:
  service_path:
    description:
      - The C(ai-service) directory of the RingRift checkout on the node.
    type: path
    default: ~/ringrift/ai-service
"""

#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: game_databases
short_description: Count the finished games of a config in the replay databases
version_added: 0.1.0
description:
  - Finds the SQLite replay databases on the node, as the service does, and counts the finished games of a config in
    each of them, from which the training file is exported.
  - Reads only. It creates no file beside a database, and no writer has to wait for it.
  - A database that is damaged, locked or too slow has no number and a reason; it never counts as 0 games.
author: The ringrift.recovery authors (@ringrift)
options:
  patterns:
    description:
      - Where to look, as glob patterns relative to O(service_path), in which C({config}), C({board}) and C({players})
        are filled in and C(**) stands for any number of directories.
      - Where it is not given, the places that the service itself knows.
    type: list
    elements: str
  min_games:
    description:
      - How many games are enough. The trainer's own freshness check wants 50 on the node.
    type: int
    default: 50
  deadline:
    description:
      - How long all of it may take, in seconds. Databases that were not reached then are reported as not counted. One
        database may take 10 seconds of it.
    type: float
    default: 30
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
  - ringrift.recovery._service
  - ringrift.recovery._service.path
notes:
  - A game that is in several databases, for example in a synced copy, counts once for each of them. The same database
    counts once, however many patterns and links lead to it.
seealso:
  - module: ringrift.recovery.npz_export
  - module: ringrift.recovery.npz_inspect
"""

EXAMPLES = r"""
- name: Count the games of a config
  ringrift.recovery.game_databases:
    config: hex8_2p
  register: games

- name: Refuse to export from too few games
  ringrift.recovery.game_databases:
    config: hexagonal_3p
    service_path: /workspace/ringrift/ai-service
    min_games: 500
  register: games
  failed_when: games.enough is not true

- name: Count in the canonical databases only
  ringrift.recovery.game_databases:
    config: square8_2p
    patterns:
      - data/games/canonical_{board}*.db
"""

RETURN = r"""
config:
  description: The training config.
  type: str
  returned: always
  sample: hex8_2p
service_path:
  description: The directory that was looked into.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service
games:
  description:
    - Finished games of the config in all databases that could be counted. A game that is in several databases counts
      once for each of them.
  type: int
  returned: always
  sample: 640
min_games:
  description: How many games are enough.
  type: int
  returned: always
  sample: 50
enough:
  description:
    - Whether there are enough games.
    - V(null) where those that were counted are not enough, and not every database could be counted.
  type: bool
  returned: always
  sample: true
databases:
  description: The databases, those that could not be counted first and then by number of games; 200 at most.
  type: list
  elements: dict
  returned: always
  sample:
    - path: /home/ubuntu/ringrift/ai-service/data/games/hex8_2p.db
      games: 640
      problem: null
  contains:
    path:
      description: The database.
      type: str
      returned: always
    games:
      description: Finished games of the config in it; V(null) where they could not be counted.
      type: int
      returned: always
    problem:
      description: Why it could not be counted, or counts as 0, or holds more than was counted; otherwise V(null).
      type: str
      returned: always
databases_found:
  description: How many databases were found and looked into.
  type: int
  returned: always
  sample: 1
uncounted:
  description: How many of them could not be counted.
  type: int
  returned: always
  sample: 0
incomplete:
  description: Why not every database was looked into, or V(null).
  type: str
  returned: always
  sample: null
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._games import count_games


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "patterns": {"type": "list", "elements": "str"},
            "min_games": {"type": "int", "default": 50},
            "deadline": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        count = count_games(
            parse_config(params["config"]),
            params["service_path"],
            patterns=params["patterns"],
            min_games=params["min_games"],
            deadline=params["deadline"],
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **count.as_dict())


if __name__ == "__main__":
    main()

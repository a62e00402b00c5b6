#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: npz_inspect
short_description: Say whether a training file can be trained on
version_added: 0.1.0
description:
  - Reads arrays, shapes, element types and the number of samples of an C(.npz) training file, and checks them against
    what the trainer demands and against the checksums that the file carries.
  - Needs neither numpy nor the memory for an array. Arrays of Python objects are reported and never unpickled; of the
    exporter's small C(metadata) alone the pickle is looked at, and nothing that it names is ever imported or run.
  - A file that is damaged is a finding (RV(valid) is V(false)), not a failure. A file that is not there, or cannot be
    read, is a failure.
author: The ringrift.recovery authors (@ringrift)
options:
  path:
    description:
      - The training file.
    type: path
    required: true
  samples_from:
    description:
      - The array whose first dimension is the number of samples.
    type: str
    default: features
  expect:
    description:
      - What the file must be; anything else is a problem.
    type: dict
    suboptions:
      config:
        description:
          - The training config that it must be for, C(<board>_<players>p), for example V(hex8_2p).
          - Where it is not given, any config will do.
        type: str
      min_samples:
        description:
          - Fewest samples that it must have. The trainer itself refuses less than 100.
        type: int
        default: 100
      arrays:
        description:
          - Arrays that must be in it, besides that of O(samples_from). The trainer itself demands those of the default.
        type: list
        elements: str
        default: [features, values]
  depth:
    description:
      - V(quick) reads the directory, the head of each array and the single values; its cost does not grow with the
        file. It sees a truncated file and a wrong shape, but not a flipped bit inside a large array.
      - V(full) reads every byte once, in bounded memory, on up to four cores, and compares the CRC-32 of each array,
        and the SHA-256 of each that the exporter has written into the file.
    type: str
    choices: [quick, full]
    default: quick
  scan_values:
    description:
      - Whether to look at every floating-point number of every array for NaN, infinities and nothing but zeros. Needs
        O(depth=full), which then takes up to twice as long.
      - A number that is not finite is an error in C(features), C(globals), C(values) and C(values_mp), at which the
        trainer stops, and a warning elsewhere. Nothing but zeros is a warning in C(features), C(values) and
        C(policy_values).
    type: bool
    default: false
  checksum:
    description:
      - Whether to return the SHA-256 of the whole file, which reads all of it.
    type: bool
    default: false
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
seealso:
  - module: ringrift.recovery.npz_export
  - module: ringrift.recovery.npz_publish
  - module: ringrift.recovery.game_databases
"""

EXAMPLES = r"""
- name: Count the samples of a config
  ringrift.recovery.npz_inspect:
    path: ~/ringrift/ai-service/data/training/hex8_2p.npz
    expect:
      config: hex8_2p
  register: training_file

- name: Refuse to train on anything that is damaged
  ringrift.recovery.npz_inspect:
    path: ~/ringrift/ai-service/data/training/hex8_2p.npz
    expect:
      config: hex8_2p
      min_samples: 5000
      arrays: [features, globals, values, policy_indices, policy_values]
    depth: full
    scan_values: true
  register: training_file
  failed_when: training_file is failed or not training_file.valid

- name: Get the checksum to compare with after a transfer
  ringrift.recovery.npz_inspect:
    path: ~/ringrift/ai-service/data/training/hex8_2p.npz
    checksum: true
  register: training_file

- name: Look into an archive that is no training file
  ringrift.recovery.npz_inspect:
    path: /srv/embeddings.npz
    samples_from: embeddings
    expect:
      min_samples: 1
      arrays: [embeddings]
"""

RETURN = r"""
msg:
  description: The result in one sentence.
  type: str
  returned: always
  sample: "whole: 601 samples, 31 arrays, 150352 bytes, every byte compared"
path:
  description: The file that was looked into.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz
depth:
  description: How deep it was looked into.
  type: str
  returned: always
  sample: quick
valid:
  description: Whether no error was found, as deep as it was looked into.
  type: bool
  returned: always
  sample: true
problems:
  description: What is wrong with the file, errors first, at most 41.
  type: list
  elements: dict
  returned: always
  sample: []
  contains:
    code:
      description:
        - Stable name of the problem.
        - Of the file as a whole, C(too_small), C(empty), C(not_a_zip), C(truncated), C(directory_damaged),
          C(too_many_members), C(crc_not_recorded), C(not_readable), C(trailing_data), C(unlisted_data),
          C(more_problems).
        - Of a member, C(crc_mismatch), C(checksum_mismatch), C(checksums_unreadable), C(inflate_failed),
          C(length_mismatch), C(local_header_mismatch), C(descriptor_mismatch), C(overlapping_members),
          C(duplicate_member), C(unsafe_name), C(encrypted_member), C(unsupported_compression), C(unexpected_member).
        - Of an array, C(header_damaged), C(header_truncated), C(implausible_shape), C(unknown_dtype), C(wrong_dtype),
          C(length_mismatch), C(not_finite), C(all_zero), C(missing_array), C(not_per_sample), C(channels_differ).
        - Of its metadata, C(dangerous_pickle), C(metadata_unreadable), C(metadata_disagrees).
        - Of its use, C(too_few_samples), C(wrong_config), C(board_unknown).
      type: str
      returned: always
    message:
      description: The problem in words.
      type: str
      returned: always
    severity:
      description: V(error) makes the file invalid, V(warning) does not.
      type: str
      returned: always
    member:
      description: The member of the file that it is about, or V(null).
      type: str
      returned: always
    offset:
      description: Where in the file, in bytes, or V(null).
      type: int
      returned: always
samples:
  description: Number of samples; V(null) where it cannot be told.
  type: int
  returned: always
  sample: 601
arrays:
  description:
    - The arrays by name. For each of them C(shape) (list of int), C(dtype) (numpy's name of the element type),
      C(object) (whether its elements are pickled Python objects), C(size) (bytes with header) and C(compressed) (bytes
      in the file).
  type: dict
  returned: always
  sample:
    features:
      shape: [601, 64, 9, 9]
      dtype: float32
      object: false
      size: 12462464
      compressed: 134900
scalars:
  description: The single values in the file by name, for example the board. Text is cut at 200 characters.
  type: dict
  returned: always
  sample: {board_type: hex8, board_size: 9, in_channels: 64, policy_size: 4500, export_version: "2.1"}
metadata:
  description:
    - What the exporter says of the export, as texts and numbers; a pair with any other value is V(null).
    - V(null) where the file has no such metadata, or it cannot be read without unpickling it.
  type: dict
  returned: always
  sample:
    export_time: "2026-11-23T21:18:41.347958+00:00"
    newest_game_time: "2026-11-23T21:16:11.187753"
    game_count: 6
    sample_count: 601
size:
  description: Size of the file in bytes.
  type: int
  returned: always
  sample: 150352
mtime:
  description: When the file was last modified, in seconds since 1970.
  type: float
  returned: always
  sample: 1766963700.25
age:
  description: Seconds since the file was last modified; below 0 where the clock of the node is behind.
  type: float
  returned: always
  sample: 5230.125
checksums:
  description:
    - What came of the SHA-256 checksums of single arrays that the exporter wrote into the file.
    - V(null) at O(depth=quick), and for a file that has none.
  type: dict
  returned: always
  sample: {recorded: 31, verified: 23, skipped: [policy_indices, policy_values]}
  contains:
    recorded:
      description: How many the file carries.
      type: int
      returned: always
    verified:
      description: How many were compared and are right.
      type: int
      returned: always
    skipped:
      description:
        - Arrays whose checksum cannot be compared with the bytes in the file, because it is over unpickled objects,
          which are never unpickled here, or over elements in another order.
      type: list
      elements: str
      returned: always
value_scan:
  description: Which arrays were looked through for O(scan_values); V(null) where that is V(false).
  type: dict
  returned: always
  sample: {scanned: [features, globals, values, values_mp], not_scanned: [policy_values]}
  contains:
    scanned:
      description: Arrays of which every floating-point number was looked at.
      type: list
      elements: str
      returned: always
    not_scanned:
      description:
        - Arrays that may hold floating-point numbers which were not looked at, because they are Python objects,
          structured, of an unusual type such as C(float128), or damaged.
      type: list
      elements: str
      returned: always
sha256:
  description: SHA-256 of the whole file in hexadecimal; V(null) unless O(checksum=true).
  type: str
  returned: always
  sample: 293c50f778d3097531add78eb4b41aef6cfe940af82361bdee79c438b9130b8a
owner:
  description: Owner of the file at RV(path). This and the next five are what Ansible adds wherever a file is returned.
  type: str
  returned: when the file exists
  sample: ubuntu
group:
  description: Group of the file at RV(path).
  type: str
  returned: when the file exists
  sample: ubuntu
uid:
  description: Numeric owner of the file at RV(path).
  type: int
  returned: when the file exists
  sample: 1000
gid:
  description: Numeric group of the file at RV(path).
  type: int
  returned: when the file exists
  sample: 1000
mode:
  description: Permissions of the file at RV(path), in octal.
  type: str
  returned: when the file exists
  sample: "0644"
state:
  description: Always V(file).
  type: str
  returned: when the file exists
  sample: file
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "samples_from": {"type": "str", "default": "features"},
            "expect": {
                "type": "dict",
                "apply_defaults": True,
                "options": {
                    "config": {"type": "str"},
                    "min_samples": {"type": "int", "default": 100},
                    "arrays": {"type": "list", "elements": "str", "default": ["features", "values"]},
                },
            },
            "depth": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
            "scan_values": {"type": "bool", "default": False},
            "checksum": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    expect = params["expect"]
    try:
        report = inspect(
            params["path"],
            samples_from=params["samples_from"],
            depth=params["depth"],
            config=None if expect["config"] is None else parse_config(expect["config"]),
            min_samples=expect["min_samples"],
            arrays=expect["arrays"],
            checksum=params["checksum"],
            scan_values=params["scan_values"],
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, msg=report.summary(), **report.as_dict())


if __name__ == "__main__":
    main()

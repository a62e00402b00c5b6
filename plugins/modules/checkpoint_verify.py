#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checkpoint_verify
short_description: Tell whether a checkpoint is whole, loadable and safe
version_added: 0.1.0
description:
  - Examines a checkpoint without torch and without loading it. Nothing that its pickle names is ever imported or run.
  - At O(depth=full) every byte is compared with the checksums inside the file, which C(torch.load) ignores, so that a
    single flipped bit is found. Every storage is compared with what the tensors of the pickle need of it.
  - A damaged file is a finding and not a failure; the module fails where it cannot look, such as when there is no file.
    Use C(failed_when) with RV(valid) to stop on a damaged one.
  - Knows the container that C(torch.save) writes since torch 1.6, the two formats before it, TorchScript archives and
    safetensors. Only the first and TorchScript carry checksums; of the others the structure is checked, and
    RV(integrity) says that there is nothing to compare their content with, unless there is a sidecar.
author: The ringrift.recovery authors (@ringrift)
options:
  path:
    description:
      - The checkpoint on the node.
    type: path
    required: true
  depth:
    description:
      - V(full) reads every byte that has a checksum, on up to four cores and in constant memory.
      - V(quick) reads structure and pickle only, whatever the size, and cannot see damage inside a tensor.
    type: str
    choices: [full, quick]
    default: full
  checksum:
    description:
      - Whether to return RV(sha256) also where nothing has to be compared with it.
    type: bool
    default: false
  scan_values:
    description:
      - Whether to look for NaN, infinities and all-zero weights in the floating-point tensors, at O(depth=full).
      - 16, 32 and 64 bit types and complex numbers of them are understood; RV(value_scan.not_scanned) names the others,
        such as those of 8 bits.
      - What is found is a warning, because a mask may hold infinities and a fresh layer zeros.
    type: bool
    default: false
  list_tensors:
    description:
      - Whether to return RV(tensor_list).
    type: bool
    default: false
  expect:
    description:
      - What the checkpoint must be besides being whole. Where it is not, RV(valid) is V(false).
    type: dict
    suboptions:
      keys:
        description:
          - Top-level keys that must be there, for example V(optimizer_state_dict).
        type: list
        elements: str
        default: []
      min_epoch:
        description:
          - The lowest epoch that will do, counted from 0 as RV(epoch) is. A file that says no epoch does not do.
        type: int
      config:
        description:
          - The training config, C(<board>_<players>p), for example V(hex8_2p). A file that says that it is for another
            one does not do; one that says nothing gets a warning.
        type: str
      like:
        description:
          - Another checkpoint on the node. Names, types and shapes of the model's tensors must be the same in both.
        type: path
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
seealso:
  - module: ringrift.recovery.checkpoint_restore
"""

EXAMPLES = r"""
- name: Stop unless the checkpoint of hex8_2p is whole
  ringrift.recovery.checkpoint_verify:
    path: ~/ringrift/ai-service/models/canonical_hex8_2p.pth
  register: checkpoint
  failed_when: not checkpoint.valid

- name: Look at a large checkpoint without reading all of it
  ringrift.recovery.checkpoint_verify:
    path: ~/ringrift/ai-service/checkpoints/checkpoint_final_epoch_50.pth
    depth: quick

- name: Stop unless training can be resumed from the checkpoint
  ringrift.recovery.checkpoint_verify:
    path: ~/ringrift/ai-service/checkpoints/checkpoint_epoch_40.pth
    scan_values: true
    expect:
      keys: [model_state_dict, optimizer_state_dict]
      min_epoch: 30
      config: hex8_2p
      like: ~/ringrift/ai-service/models/canonical_hex8_2p.pth
  register: checkpoint
  failed_when: not checkpoint.valid or checkpoint.value_scan.nan | length > 0

- name: Get the SHA-256 that a copy of the checkpoint must have
  ringrift.recovery.checkpoint_verify:
    path: ~/ringrift/ai-service/models/canonical_hex8_2p.pth
    checksum: true
"""

RETURN = r"""
msg:
  description: The result in one sentence.
  type: str
  returned: success
  sample: "whole: torch_zip, epoch 2, 353 tensors, 5166476 parameters, integrity verified"
valid:
  description: Whether nothing is wrong with the file; V(true) if RV(problems) has no error, warnings do not count.
  type: bool
  returned: success
  sample: true
problems:
  description: What is wrong with the file, errors first.
  type: list
  elements: dict
  returned: success
  sample:
    - code: crc_mismatch
      message: "its content has CRC-32 1f2e3d4c, but 8a03cef5 is recorded: the data is damaged"
      severity: error
      member: archive/data/3
      offset: 1238
  contains:
    code:
      description:
        - What it is, stable for use in conditions.
        - Of the file as a whole, V(empty), V(truncated), V(not_a_file), V(not_a_zip), V(unknown_format),
          V(trailing_data), V(checksum_mismatch), V(sidecar_stale), V(sidecar_unreadable), V(crc_not_recorded).
        - Of its container, V(directory_damaged), V(local_header_mismatch), V(descriptor_mismatch), V(header_damaged),
          V(overlapping_members), V(duplicate_member), V(unsafe_name), V(crc_mismatch), V(length_mismatch),
          V(inflate_failed), V(unsupported_compression), V(encrypted_member), V(too_many_members),
          V(unexpected_member), V(unlisted_data), V(compression_bomb), V(header_too_large).
        - Of what it holds, V(pickle_damaged), V(pickle_too_large), V(dangerous_pickle), V(unknown_globals),
          V(needs_full_unpickler), V(record_missing), V(record_damaged), V(storage_missing), V(storage_size_mismatch),
          V(storage_conflict), V(storage_unused), V(storage_type_unknown), V(tensor_malformed),
          V(tensor_out_of_bounds), V(loss_not_finite).
        - Of its values, V(nan_values), V(infinite_values), V(zero_values).
        - Of what is expected, V(key_missing), V(epoch_unknown), V(epoch_too_low), V(config_unknown), V(wrong_config),
          V(shapes_differ), V(not_comparable). V(more_problems) stands for what is left out of a long list.
      type: str
      returned: always
    message:
      description: What was found, in words.
      type: str
      returned: always
    severity:
      description: V(error) makes the file invalid, V(warning) does not.
      type: str
      returned: always
    member:
      description: The part of the file that it is about; V(null) for the whole.
      type: str
      returned: always
    offset:
      description: Where in the file, in bytes; V(null) where that is not known.
      type: int
      returned: always
format:
  description:
    - V(torch_zip) (torch 1.6 and later), V(torch_legacy) (before 1.6), V(torch_tar) (before 0.2), V(torch_script),
      V(safetensors) or V(unknown). For the last one, RV(problems) says what it is instead.
  type: str
  returned: success
  sample: torch_zip
integrity:
  description:
    - V(verified), if every byte was compared with a checksum, inside the file or in RV(sidecar), and all agree.
    - V(damaged), if something in the file is broken.
    - V(not_recorded), if there is no checksum to compare with; V(not_checked), if the content was not compared.
  type: str
  returned: success
  sample: verified
depth:
  description: The depth at which it was examined.
  type: str
  returned: success
  sample: full
epoch:
  description:
    - The epoch that the file says it is from, counted from 0 as the trainer does; V(null) where it says none.
    - Of a file that was cut short this is still read where the checksum of its pickle holds.
  type: int
  returned: success
  sample: 2
step:
  description:
    - The step that the file says it is from, as C(global_step), C(step) or C(iteration); V(null) where it says none.
  type: int
  returned: success
  sample: null
loss:
  description: The loss that the file records; V(null) where it records none, or one that is not finite.
  type: float
  returned: success
  sample: 5.538375377655029
tensors:
  description: Number of tensors in the file; V(null) where its structure cannot be read.
  type: int
  returned: success
  sample: 353
parameters:
  description: Number of elements in all tensors of the model, buffers included; V(null) where they cannot be read.
  type: int
  returned: success
  sample: 5166476
state_dict:
  description:
    - The top-level key that holds the tensors of the model, V(.) where the top level itself does; V(null) where there
      is no model.
  type: str
  returned: success
  sample: model_state_dict
top_level_keys:
  description: The top-level keys of the file, at most 200.
  type: list
  elements: str
  returned: success
  sample: [epoch, model_state_dict, optimizer_state_dict, loss]
model_class:
  description: Class of the model according to the service's own metadata; V(null) where there is none.
  type: str
  returned: success
  sample: HexNeuralNet_v4
architecture:
  description: Version of the architecture according to the same metadata.
  type: str
  returned: success
  sample: v4.0.0
board_type:
  description: Board that the model plays on, according to the same metadata.
  type: str
  returned: success
  sample: hex8
num_players:
  description: Number of players that the model is for, according to the same metadata.
  type: int
  returned: success
  sample: 2
model_signature:
  description: Digest of names, types and shapes of the model's tensors; equal for checkpoints of the same network.
  type: str
  returned: success
  sample: 493c21788b288749
globals:
  description:
    - The names that a loader of its pickles would import, at most 200 of each kind.
    - C(allowed) are those that C(torch.load) accepts with C(weights_only=True); C(dangerous) can run commands, reach
      files or the network, or hide another pickle; C(suspicious) is the rest.
  type: dict
  returned: success
  sample:
    allowed: [collections.OrderedDict, torch._utils._rebuild_tensor_v2, torch.FloatStorage]
    suspicious: []
    dangerous: []
tensor_list:
  description: The tensors in the order of the file, at most 10000; V(null) unless O(list_tensors=true).
  type: list
  elements: dict
  returned: success
  sample:
    - {name: model_state_dict.conv1.weight, shape: [96, 64, 3, 3], dtype: float32, storage: "0"}
  contains:
    name:
      description: Path of the keys that lead to it.
      type: str
      returned: always
    shape:
      description: Elements in each dimension.
      type: list
      elements: int
      returned: always
    dtype:
      description: Element type as torch names it.
      type: str
      returned: always
    storage:
      description: Key of the storage that it is a view of; V(null) for a tensor without one.
      type: str
      returned: always
value_scan:
  description:
    - What came of the look at the numbers; V(null) unless O(scan_values=true) at O(depth=full).
    - The lists name the first tensor of each storage.
  type: dict
  returned: success
  sample: {scanned: 353, not_scanned: [], nan: [], infinite: [], zero: [model_state_dict.fc.bias]}
  contains:
    scanned:
      description: How many storages were looked at.
      type: int
      returned: always
    not_scanned:
      description: Floating-point types in the file that are not understood.
      type: list
      elements: str
      returned: always
    nan:
      description: Tensors that hold NaN.
      type: list
      elements: str
      returned: always
    infinite:
      description: Tensors that hold infinities.
      type: list
      elements: str
      returned: always
    zero:
      description: Tensors whose elements are all zero; common for biases, and no problem there.
      type: list
      elements: str
      returned: always
size:
  description: Size of the file in bytes.
  type: int
  returned: success
  sample: 20689119
mtime:
  description: When the file was last written, in seconds since 1970.
  type: float
  returned: success
  sample: 1795479085.84
age:
  description: Seconds since the file was last written, by the clock of the node.
  type: float
  returned: success
  sample: 754.2
sha256:
  description: SHA-256 of the file in hexadecimal; V(null) unless it was compared with RV(sidecar) or asked for.
  type: str
  returned: success
  sample: 02cbda159d740efb3d4fd4a2a28c74d2ee64b1708f9c29da8cc07202c7523f8a
sidecar:
  description: The file C(<path>.sha256) that the trainer writes beside some checkpoints; V(null) where there is none.
  type: dict
  returned: success
  sample: {path: /home/ubuntu/ringrift/ai-service/models/canonical_hex8_2p.pth.sha256, matches: true}
  contains:
    path:
      description: Where it is.
      type: str
      returned: always
    matches:
      description: Whether it has the SHA-256 of the file; V(null) where that was not compared or could not be read.
      type: bool
      returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_expect import Expectation
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

MAX_LISTED = 10_000


def expectation(wanted):
    """What the option O(expect) says, or None where it is not given."""
    if wanted is None:
        return None
    return Expectation(
        keys=tuple(wanted["keys"]),
        min_epoch=wanted["min_epoch"],
        config=parse_config(wanted["config"]) if wanted["config"] else None,
        like=wanted["like"],
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "depth": {"type": "str", "choices": ["full", "quick"], "default": "full"},
            "checksum": {"type": "bool", "default": False},
            "scan_values": {"type": "bool", "default": False},
            "list_tensors": {"type": "bool", "default": False},
            "expect": {
                "type": "dict",
                "options": {
                    "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
                    "min_epoch": {"type": "int"},
                    "config": {"type": "str"},
                    "like": {"type": "path"},
                },
            },
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        report = verify(
            params["path"],
            depth=params["depth"],
            checksum=params["checksum"],
            scan_values=params["scan_values"],
            expect=expectation(params["expect"]),
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    result = report.as_dict()
    result["age"] = max(0.0, time.time() - report.mtime)
    result["tensor_list"] = report.tensor_list(MAX_LISTED) if params["list_tensors"] else None
    # With "path" at the top level Ansible would add the owner and mode of the file, and a size of its own.
    del result["path"]
    module.exit_json(changed=False, msg=report.summary(), **result)


if __name__ == "__main__":
    main()

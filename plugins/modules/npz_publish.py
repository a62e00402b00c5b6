#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: npz_publish
short_description: Put a verified training file in place
version_added: 0.1.0
description:
  - Takes a training file that was transferred to the node under another name, reads all of it and verifies it, and
    only then puts it in place in one step. The file that was there before stays as C(<path>.previous).
  - A file that is damaged, is for another config or is not the one that was expected never replaces anything; the
    module then fails, says what is wrong, and leaves O(src) and O(path) as they are.
  - Does nothing where O(path) has the same bytes already, except that O(src) is removed and O(mode) is set.
author: The ringrift.recovery authors (@ringrift)
options:
  src:
    description:
      - The new file, on the same node. It is moved without a copy where it lies on the file system of O(path) and
        O(remove_src=true).
    type: path
    required: true
  path:
    description:
      - The training file that training reads. Its directory must exist.
      - A symbolic link is replaced by the file; what it points at is left alone.
    type: path
    required: true
  min_samples:
    description:
      - A file with fewer samples is refused. The trainer itself refuses less than 100.
    type: int
    default: 100
  sha256:
    description:
      - The SHA-256 that the file must have, in hexadecimal, as O(ringrift.recovery.npz_inspect#module:checksum) or
        M(ringrift.recovery.npz_export) return it.
      - With it check mode can tell what would change while O(src) is not there yet. Where neither is there, check mode
        takes the new file to be another one than that in place.
    type: str
  mode:
    description:
      - Permissions of O(path), as octal digits in quotes. An exporter may leave a file that only its owner can read.
    type: str
    default: "0644"
  remove_src:
    description:
      - Whether O(src) is gone afterwards.
    type: bool
    default: true
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
notes:
  - Where a file is replaced, the new one gets its owner, if the module runs as a user who may set that.
seealso:
  - module: ringrift.recovery.npz_inspect
  - module: ringrift.recovery.npz_export
"""

EXAMPLES = r"""
- name: Put the transferred training file in place
  ringrift.recovery.npz_publish:
    config: hex8_2p
    src: ~/ringrift/ai-service/data/training/.hex8_2p.npz.incoming
    path: ~/ringrift/ai-service/data/training/hex8_2p.npz
    sha256: "{{ export.sha256 }}"

- name: Go back to the file before that
  ringrift.recovery.npz_publish:
    config: hex8_2p
    src: ~/ringrift/ai-service/data/training/hex8_2p.npz.previous
    path: ~/ringrift/ai-service/data/training/hex8_2p.npz
    remove_src: false
"""

RETURN = r"""
path:
  description: The training file that training reads.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz
previous:
  description: Where the file that was there before is kept; V(null) where there is none.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz.previous
sha256:
  description:
    - SHA-256 of the file in place, in check mode of the one that would be, in hexadecimal.
    - V(null) in check mode while O(src) is not there and O(sha256) is not given.
  type: str
  returned: always
  sample: 293c50f778d3097531add78eb4b41aef6cfe940af82361bdee79c438b9130b8a
samples:
  description: Number of samples in that file; V(null) in check mode while O(src) is not there.
  type: int
  returned: always
  sample: 601
replaced:
  description: The file that was replaced; V(null) where none was.
  type: dict
  returned: always
  sample: {sha256: 2b46e80be98d54921cd806b706b4457eb04d653438ba011d8ae599aaa348fcd3, samples: 300, valid: true}
  contains:
    sha256:
      description: Its SHA-256 in hexadecimal; V(null) where it could not be read.
      type: str
      returned: always
    samples:
      description: Its number of samples; V(null) where it could not be told.
      type: int
      returned: always
    valid:
      description: Whether it could be trained on; V(null) where it could not be read.
      type: bool
      returned: always
    mode:
      description: Its permissions in octal.
      type: str
      returned: always
    problem:
      description: What was wrong with it, or V(null).
      type: str
      returned: always
size:
  description:
    - Size of the file at RV(path) in bytes. This and the next six are what Ansible adds wherever a file is returned.
  type: int
  returned: when the file exists
  sample: 150352
owner:
  description: Owner of the file at RV(path).
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
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_publish import (
    PublishRequest,
    parse_mode,
    publish,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "config": {"type": "str", "required": True},
            "min_samples": {"type": "int", "default": 100},
            "sha256": {"type": "str"},
            "mode": {"type": "str", "default": "0644"},
            "remove_src": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        request = PublishRequest(
            src=params["src"],
            path=params["path"],
            config=parse_config(params["config"]),
            min_samples=params["min_samples"],
            sha256=params["sha256"],
            mode=parse_mode(params["mode"]),
            remove_src=params["remove_src"],
        )
        published = publish(request, dry_run=module.check_mode)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    result = published.as_dict()
    if module._diff:
        result["diff"] = published.diff()
    module.exit_json(**result)


if __name__ == "__main__":
    main()

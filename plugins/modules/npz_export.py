#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: npz_export
short_description: Export the training file of a config where that is needed
version_added: 0.1.0
description:
  - Runs the service's C(scripts/export_replay_dataset.py) over the replay databases that it discovers on the node, and
    puts the training file that it writes in place, after reading and verifying all of it.
  - Success is judged by the file. The exporter's exit code is returned, but says nothing. In parallel mode it is the
    number of samples modulo 256, and single-threaded it is 0 also when nothing was exported.
  - The exporter writes into an empty directory beside O(path), which is gone afterwards whatever happens. A run that
    fails, hangs or is killed leaves the file in place as it was. The file that is replaced stays as C(<path>.previous).
author: The ringrift.recovery authors (@ringrift)
options:
  path:
    description:
      - The training file; relative to O(service_path) where it is not absolute. Its name must end in C(.npz) and its
        directory must exist.
      - Where it is not given, it is C(data/training/<config>.npz).
    type: path
  python:
    description:
      - The Python that has what the service needs; relative to O(service_path) where it is not absolute.
      - Where it is not given, it is C(venv/bin/python).
    type: path
  min_samples:
    description:
      - A file with fewer samples is exported again with O(refresh=auto), and a new file with fewer is refused. The
        trainer itself refuses less than 100.
    type: int
    default: 100
  refresh:
    description:
      - With V(auto) an export is made where the file is missing, damaged, for another config, or has too few samples.
      - With V(always) one is made in any case.
      - With V(never) none is made; the file in place is only verified.
    type: str
    choices: [auto, always, never]
    default: auto
  allow_noncanonical:
    description:
      - Whether to export also from databases that are not in the service's registry of canonical sources. Without it
        the exporter refuses them.
    type: bool
    default: false
  single_threaded:
    description:
      - Whether the exporter is to run single-threaded. In parallel mode it is faster, but leaves out the checksums, and
        may give other feature channels, with which older checkpoints cannot go on.
    type: bool
    default: true
  extra_args:
    description:
      - More arguments for the exporter, one list item each. C(--output) and C(--append) are refused.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - How long the exporter may take, in seconds. After that it and all that it started are ended.
    type: float
    default: 1800
  lock_timeout:
    description:
      - How long to wait for another export to the same file, in seconds. The service's own exporter locks
        C(<path>.lock) while it writes; this module does so too.
      - Where the other one has made a file that needs no export any more, none is made.
    type: float
    default: 300
  min_free:
    description:
      - Bytes that must be free beside O(path) before the exporter is run. The default is what the exporter itself
        wants to keep free.
    type: int
    default: 2147483648
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
  - ringrift.recovery._service.path
attributes:
  check_mode:
    support: full
    details:
      - Runs nothing; reads the file in place and says whether an export would be made, why, and with which command.
      - Fails where an export would be made and no database of the service holds a finished game of the config. Whether
        there are enough games of good quality is known to the exporter alone.
  diff_mode:
    support: full
notes:
  - The exporter is told to skip the remote check, so that only databases on the node count.
  - The service's own event C(NPZ_EXPORT_COMPLETE) names the temporary file, which is gone when the event is handled.
seealso:
  - module: ringrift.recovery.npz_inspect
  - module: ringrift.recovery.npz_publish
  - module: ringrift.recovery.game_databases
"""

EXAMPLES = r"""
- name: Export fresh training data where that is needed
  ringrift.recovery.npz_export:
    config: hex8_2p
    allow_noncanonical: true
  register: export

- name: Export in any case, and wait for an hour at most
  ringrift.recovery.npz_export:
    config: square19_4p
    service_path: /workspace/ringrift/ai-service
    refresh: always
    timeout: 3600

- name: Only verify what is there
  ringrift.recovery.npz_export:
    config: hex8_2p
    refresh: never
    min_samples: 5000
  register: export
  failed_when: export.valid is not true
"""

RETURN = r"""
exported:
  description: Whether the exporter has been run and its file put in place. Always V(false) in check mode.
  type: bool
  returned: always
  sample: true
reason:
  description:
    - Why an export was made, or would be in check mode, one of V(missing), V(damaged), V(too_few_samples),
      V(wrong_config) and V(always).
    - Why none was made, V(present) or V(never).
  type: str
  returned: always
  sample: too_few_samples
path:
  description: The training file.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz
valid:
  description: Whether the file in place can be trained on; V(null) where there is none.
  type: bool
  returned: always
  sample: true
samples:
  description: Number of samples in the file in place; V(null) where there is none or it cannot be told.
  type: int
  returned: always
  sample: 601
sha256:
  description: SHA-256 of the file in place, in hexadecimal; V(null) where there is none.
  type: str
  returned: always
  sample: 293c50f778d3097531add78eb4b41aef6cfe940af82361bdee79c438b9130b8a
size:
  description: Size of the file in place in bytes; V(null) where there is none.
  type: int
  returned: always
  sample: 150352
before:
  description: The file that was in place before; V(null) where there was none.
  type: dict
  returned: always
  sample:
    valid: false
    problems:
      - code: too_few_samples
        message: it has 50 samples; at least 100 are needed
        severity: error
        member: null
        offset: null
    samples: 50
    sha256: 2b46e80be98d54921cd806b706b4457eb04d653438ba011d8ae599aaa348fcd3
  contains:
    valid:
      description: Whether it could be trained on.
      type: bool
      returned: always
    problems:
      description: What was wrong with it, as RV(ringrift.recovery.npz_inspect#module:problems).
      type: list
      elements: dict
      returned: always
    samples:
      description: Its number of samples; V(null) where it could not be told.
      type: int
      returned: always
    sha256:
      description: Its SHA-256 in hexadecimal.
      type: str
      returned: always
previous:
  description: Where the file that was replaced is kept, or would be; V(null) where none was.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/data/training/hex8_2p.npz.previous
argv:
  description:
    - The command that was run, or would be in check mode, where C(<pid>) and C(<random>) stand for what is not known
      yet. Empty where none is needed.
  type: list
  elements: str
  returned: always
  sample:
    - /home/ubuntu/ringrift/ai-service/venv/bin/python
    - scripts/export_replay_dataset.py
    - --use-discovery
    - --board-type
    - hex8
    - --num-players
    - "2"
    - --output
    - /home/ubuntu/ringrift/ai-service/data/training/.hex8_2p.npz.recovery-4711-0a1b2c3d/hex8_2p.npz
    - --skip-remote-check
    - --single-threaded
rc:
  description: Exit code of the exporter, negative where a signal ended it; V(null) where it was not run.
  type: int
  returned: always
  sample: 0
stdout:
  description: The end of what the exporter wrote to standard output, at most 2000 characters.
  type: str
  returned: always
  sample: Exported 601 samples from 6 games
stderr:
  description: The end of what the exporter wrote to standard error, at most 2000 characters.
  type: str
  returned: always
  sample: ""
seconds:
  description: How long the exporter ran, in seconds; 0 where it was not run.
  type: float
  returned: always
  sample: 41.7
timed_out:
  description: Whether the exporter was ended because O(timeout) was over.
  type: bool
  returned: always
  sample: false
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
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_export import ExportError, ExportRequest, export


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "path": {"type": "path"},
            "python": {"type": "path"},
            "min_samples": {"type": "int", "default": 100},
            "refresh": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
            "allow_noncanonical": {"type": "bool", "default": False},
            "single_threaded": {"type": "bool", "default": True},
            "extra_args": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 1800},
            "lock_timeout": {"type": "float", "default": 300},
            "min_free": {"type": "int", "default": 2147483648},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    try:
        options["config"] = parse_config(options["config"])
        options["extra_args"] = tuple(options["extra_args"])
        exported = export(ExportRequest(**options), dry_run=module.check_mode)
    except ExportError as exc:
        module.fail_json(msg=str(exc), **exc.result)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    result = exported.as_dict()
    if module._diff:
        result["diff"] = exported.diff()
    # Said outright, since Ansible takes any rc but 0 for a failure where nothing is said.
    module.exit_json(failed=False, **result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: training_start
short_description: Start a trainer that outlives the play
version_added: 0.1.0
description:
  - Starts C(python -m app.training.train) with the interpreter of the service, in the directory of the service, with
    its output in a log, as the manual restart of the runbook does.
  - Nothing is started where a trainer of the config runs already on the node.
  - The trainer outlives the play, and also the next start of the P2P orchestrator, which ends every Python process
    that has no parent and a command line that speaks of training. It is therefore the child of a keeper, a small
    process that waits for it and writes how it ended to C(<log>.exit), a JSON object with C(pid), C(rc) (negative for
    a signal) and C(ended) (unix seconds).
  - The command line is noted in C(<log>.start), a JSON object with C(at) (unix seconds) and C(cmdline), because a
    trainer that has died no longer tells with which batch size it ran out of memory.
author: The ringrift.recovery authors (@ringrift)
options:
  python:
    description:
      - The interpreter of the service, relative to O(service_path). A name without a slash is looked up in E(PATH).
      - By default C(venv/bin/python).
    type: str
  data_path:
    description:
      - The training file, relative to O(service_path). By default C(data/training/<config>.npz).
    type: str
  batch_size:
    description:
      - Batch size in samples. Newer versions of the service tune it by themselves on a GPU, unless
        C(--no-auto-tune-batch-size) is in O(extra_args).
    type: int
    default: 512
  epochs:
    description:
      - How many epochs to train.
    type: int
    default: 50
  save_path:
    description:
      - Where the best model goes, relative to O(service_path). By default C(models/candidate_<config>.pth).
    type: str
  allow_canonical:
    description:
      - Accept an O(save_path) that is a canonical model. The first better epoch overwrites it.
    type: bool
    default: false
  checkpoint_dir:
    description:
      - The directory of the checkpoints, relative to O(service_path). By default that of the service, C(checkpoints),
        which all configs share.
    type: str
  checkpoint_interval:
    description:
      - Epochs between two checkpoints. By default that of the service.
    type: int
  init_weights:
    description:
      - A model or checkpoint to take the weights from, relative to O(service_path). The only way to go on with
        V(hex8) and V(hexagonal).
    type: str
  resume:
    description:
      - A checkpoint to resume from, relative to O(service_path). Refused for V(hex8) and V(hexagonal), because there
        the trainer refuses it before it reads the checkpoint.
    type: str
  allow_stale_data:
    description:
      - Train although the data is older than the service likes, or although this node has no game databases, as one
        that has only been sent the training file.
    type: bool
    default: true
  extra_args:
    description:
      - Further arguments of the trainer. Those that have an option of their own here are refused.
    type: list
    elements: str
    default: []
  environment:
    description:
      - Environment variables of the trainer, besides those of this task. V(null) takes one away.
    type: dict
    default: {}
  log:
    description:
      - The log, relative to O(service_path). That of the run before is moved to C(<log>.previous), and up to two
        older ones are kept as C(<log>.previous.2) and C(<log>.previous.3).
    type: str
    default: logs/training.log
  wait:
    description:
      - Seconds to watch that the trainer does not end at once. When it does, and not with success, the module fails
        with the end of its log.
    type: float
    default: 5.0
  within:
    description:
      - Only a trainer whose working directory is this one or below it counts as running already. By default every one
        on the node does.
    type: path
  assume_gone:
    description:
      - Processes to be taken for gone, in check mode only, to predict the start after an earlier step has stopped
        them. Without effect in a real run.
    type: list
    elements: int
    default: []
attributes:
  check_mode:
    support: full
    details:
      - Files that an earlier step may still put in place, which are the training file and the checkpoint, need not be
        there yet; a warning names what is missing.
  diff_mode:
    support: full
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
  - ringrift.recovery._service.path
notes:
  - The trainer takes no training lock by itself. Look with M(ringrift.recovery.training_lock) before you start one.
  - Where C(systemd-logind) ends the processes of a user at logout (C(KillUserProcesses=yes)), enable lingering for
    the user.
seealso:
  - module: ringrift.recovery.training_process
  - module: ringrift.recovery.training_progress
  - module: ringrift.recovery.checkpoint_restore
"""

EXAMPLES = r"""
- name: Start training from the newest verified weights
  ringrift.recovery.training_start:
    config: hex8_2p
    init_weights: models/checkpoint_hex8_2p.pth

- name: Start again after the GPU ran out of memory
  ringrift.recovery.training_start:
    config: hex8_2p
    batch_size: 256
    extra_args: [--no-auto-tune-batch-size]

- name: Resume on a square board, and watch the first minute
  ringrift.recovery.training_start:
    config: square8_2p
    resume: checkpoints/checkpoint_epoch_20.pth
    checkpoint_dir: checkpoints/square8_2p
    wait: 60
"""

RETURN = r"""
pid:
  description: The process ID of the trainer; V(null) in check mode, unless one runs already.
  type: int
  returned: always
  sample: 4711
start_time:
  description: When it was started, in unix seconds; V(null) as RV(pid) is, and for one that ended at once.
  type: float
  returned: always
  sample: 1795470468.36
start_ticks:
  description:
    - The same, in clock ticks after the boot of the node. Identifies the process together with RV(pid); V(null) as
      RV(start_time) is.
  type: int
  returned: always
  sample: 420208
cmdline:
  description: The argument vector of the trainer.
  type: list
  elements: str
  returned: always
  sample: [/home/ubuntu/ringrift/ai-service/venv/bin/python, -m, app.training.train, --board-type, hex8]
log:
  description: Where its output goes. For a trainer that runs already, V(null) where that is not a file.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/logs/training.log
previous_log:
  description: Where the log of the run before was moved; V(null) where there was none, and in check mode.
  type: str
  returned: always
  sample: /home/ubuntu/ringrift/ai-service/logs/training.log.previous
keeper_pid:
  description: The process ID of the keeper; V(null) in check mode, and for a trainer that runs already.
  type: int
  returned: always
  sample: 4710
rc:
  description:
    - The exit code of the trainer, negative for a signal; V(null) where its keeper could not note it.
  type: int
  returned: when it ended within O(wait) seconds
  sample: 1
log_tail:
  description: The last 2000 characters of the log.
  type: str
  returned: when it ended within O(wait) seconds
  sample: "ValueError: TRAINING BLOCKED: Training data is STALE"
"""

import os
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import look, shorten
from ansible_collections.ringrift.recovery.plugins.module_utils._training_start import (
    Started,
    StartRequest,
    command,
    existing,
    missing,
    present,
    service_environment,
    start,
    watch,
)

REQUEST = (
    *("config", "service_path", "python", "data_path", "batch_size", "epochs", "save_path", "allow_canonical"),
    *("checkpoint_dir", "checkpoint_interval", "init_weights", "resume", "allow_stale_data", "extra_args", "log"),
)


def predict(module: AnsibleModule, request: StartRequest) -> Started:
    running = present(look(request.config, module.params["within"], module.params["assume_gone"]))
    if running:
        return existing(running)
    installed, delivered = missing(request)
    if installed:
        raise RecoveryError(f"{'; '.join(installed)}. Put it in place first. Nothing would be started.")
    for reason in delivered:
        module.warn(f"{reason}; the start fails unless an earlier step puts it in place.")
    return Started(None, None, None, tuple(command(request)), request.path(request.log), created=True)


def result_of(module: AnsibleModule, started: Started) -> Dict[str, Any]:
    result = {
        "changed": started.created,
        "pid": started.pid,
        "start_time": started.start_time,
        "start_ticks": started.start_ticks,
        "cmdline": list(started.cmdline) if started.created else shorten(started.cmdline),
        "log": started.log,
        "previous_log": started.previous_log,
        "keeper_pid": started.keeper_pid,
    }
    if module._diff:
        line = " ".join(result["cmdline"]) + "\n"
        result["diff"] = {"before": "" if started.created else line, "after": line}
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "python": {"type": "str"},
            "data_path": {"type": "str"},
            "batch_size": {"type": "int", "default": 512},
            "epochs": {"type": "int", "default": 50},
            "save_path": {"type": "str"},
            "allow_canonical": {"type": "bool", "default": False},
            "checkpoint_dir": {"type": "str"},
            "checkpoint_interval": {"type": "int"},
            "init_weights": {"type": "str"},
            "resume": {"type": "str"},
            "allow_stale_data": {"type": "bool", "default": True},
            "extra_args": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "dict", "default": {}},
            "log": {"type": "str", "default": "logs/training.log"},
            "wait": {"type": "float", "default": 5.0},
            "within": {"type": "path"},
            "assume_gone": {"type": "list", "elements": "int", "default": []},
        },
        mutually_exclusive=[("init_weights", "resume")],
        supports_check_mode=True,
    )
    options = {name: module.params[name] for name in REQUEST}
    ended = None
    try:
        options.update(config=parse_config(options["config"]), extra_args=tuple(options["extra_args"]))
        request = StartRequest(**options)
        command(request)
        if module.check_mode:
            started = predict(module, request)
        else:
            environment = service_environment(os.environ, module.params["environment"])
            started = start(request, environment, module.params["within"])
            ended = watch(started, module.params["wait"]) if started.created else None
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    result = result_of(module, started)
    if ended:
        result.update(rc=ended.rc, log_tail=ended.tail)
        if ended.rc != 0:
            code = f"with exit code {ended.rc}" if ended.rc is not None else "and how is not known"
            module.fail_json(
                msg=f"The trainer ended {code} right after its start; log_tail and {started.log} say why.", **result
            )
    module.exit_json(**result)


if __name__ == "__main__":
    main()

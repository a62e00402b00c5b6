#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: training_process
short_description: Query or stop the training processes of a config
version_added: 0.1.0
description:
  - Finds the processes that train a config, by their argument vector. A trainer is C(python -m app.training.train),
    C(python -m scripts.train_nnue) or C(python .../train.py), alone, under a launcher such as C(torchrun), or behind
    a wrapper such as C(timeout). A line that merely contains these words, as that of an editor, a shell, C(grep) or
    C(ssh), is none.
  - Stops them, and proves that they are gone by process ID and start time, so that a process which was given the same
    number is never signalled and never mistaken for a survivor.
  - Launchers that start a trainer again are frozen first. Each trainer is sent one C(SIGTERM), on which it writes an
    emergency checkpoint, and C(SIGKILL) when O(grace) is over. Workers that have not noticed after 3 seconds are
    killed, since a forked one would write over that checkpoint when it is asked; launchers are asked last. Whatever
    appears meanwhile is stopped too, for at most three rounds.
  - A systemd service that runs nothing but the training is stopped by systemd, which would start it again otherwise.
    Logins, the orchestrator's own service, container engines and services of a user are never stopped so; what trains
    in them is signalled.
  - A process that is still there afterwards is a survivor, and the module fails and names it. Nothing of the stopped
    training may keep the training lock or, with O(gpu), GPU memory either.
author: The ringrift.recovery authors (@ringrift)
options:
  state:
    description:
      - V(query) only looks.
      - V(stopped) makes sure that no process of the config is left.
    type: str
    choices: [query, stopped]
    default: query
  grace:
    description:
      - Seconds between C(SIGTERM) and C(SIGKILL). The emergency checkpoint of the service takes about 8 seconds.
      - Launchers are given 5 seconds at most, once their trainer is gone.
    type: float
    default: 30.0
  within:
    description:
      - Count only processes whose working directory is this one or below it. By default all of the node count,
        wherever they run.
    type: path
  include_unknown:
    description:
      - Count trainings whose command line does not say its config as those of O(config). Without it they are returned
        as RV(unknown) and never stopped.
      - With O(state=stopped) it needs O(within), because it would stop every C(train.py) of the node.
    type: bool
    default: false
  gpu:
    description:
      - Ask C(nvidia-smi) how much GPU memory each process holds, and after a stop whether it is free of them. Where
        there is no GPU, or the driver does not answer, that stays unknown; it never counts as free.
    type: bool
    default: false
  nvidia_smi:
    description:
      - The GPU tool for O(gpu), by name or by path. Each call may take 5 seconds.
    type: str
    default: nvidia-smi
  evidence:
    description:
      - Keep what the live processes are doing, before any of them is stopped. C(py-spy) is used where it is on C(PATH),
        beside the trainer's interpreter or in C(venv/bin) of the service, without pausing the process; else C(/proc).
      - Trainers come first, at most 8 processes are looked at, 5 seconds each and 15 seconds together.
      - As root, a C(py-spy) that another user can change is not run.
    type: bool
    default: false
  assume_gone:
    description:
      - Processes to be taken for gone, in check mode only, to predict what follows after an earlier step has stopped
        them. Without effect in a real run.
    type: list
    elements: int
    default: []
attributes:
  check_mode:
    support: full
    details:
      - Nothing is signalled. RV(stopped) are those that would be, with the signal V(SIGTERM), since whether it is
        enough is only seen then.
  diff_mode:
    support: full
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
  - ringrift.recovery._service.path
notes:
  - The processes of other users can only be stopped, and with O(within) only be told apart, with C(become).
  - A process in uninterruptible sleep, state V(D), does not end on any signal until the kernel lets it go. Where it
    stays, only a reboot of the node helps.
seealso:
  - module: ringrift.recovery.training_start
  - module: ringrift.recovery.training_lock
"""

EXAMPLES = r"""
- name: Look who trains hex8_2p
  ringrift.recovery.training_process:
    config: hex8_2p
  register: training

- name: Stop the trainers of hex8_2p and prove that they are gone
  ringrift.recovery.training_process:
    config: hex8_2p
    state: stopped

- name: The same for a trainer that hangs, with a stack dump first and proof that its GPU memory is free
  ringrift.recovery.training_process:
    config: hex8_2p
    state: stopped
    evidence: true
    gpu: true

- name: Stop every trainer in one checkout, also those that do not say what they train
  ringrift.recovery.training_process:
    config: hex8_2p
    state: stopped
    within: /home/ubuntu/ringrift/ai-service
    include_unknown: true
    grace: 60
"""

RETURN = r"""
processes:
  description:
    - The processes of the config, launchers first, then trainers, then workers. For O(state=stopped), as they were
      before the stop.
  type: list
  elements: dict
  returned: always
  contains:
    pid:
      description: The process ID.
      type: int
      returned: always
      sample: 4711
    start_time:
      description: When it was started, in unix seconds.
      type: float
      returned: always
      sample: 1795470468.36
    started:
      description: The same, in UTC.
      type: str
      returned: always
      sample: "2026-11-23T21:47:48Z"
    start_ticks:
      description: The same, in clock ticks after the boot of the node. Identifies the process together with C(pid).
      type: int
      returned: always
      sample: 420208
    cmdline:
      description: The argument vector, of at most 100 words of at most 300 characters each. Empty for a zombie.
      type: list
      elements: str
      returned: always
      sample: [/home/ubuntu/ringrift/ai-service/venv/bin/python, -m, app.training.train, --board-type, hex8]
    cmdline_truncated:
      description: Whether the argument vector is longer than what is returned.
      type: bool
      returned: always
      sample: false
    config:
      description: The config that the command line names; V(null) where it does not.
      type: str
      returned: always
      sample: hex8_2p
    kind:
      description:
        - V(train) for C(app.training.train), V(train_nnue) for C(scripts.train_nnue), V(script) for another
          C(train.py), V(launcher).
      type: str
      returned: always
      sample: train
    role:
      description:
        - V(trainer), V(worker) (forked by a trainer, such as a data loader worker) or V(launcher) (starts trainers,
          or waits for one).
      type: str
      returned: always
      sample: trainer
    orphan:
      description: Whether it is a worker that has outlived its trainer.
      type: bool
      returned: always
      sample: false
    state:
      description:
        - The state as the kernel gives it. V(R) running, V(S) sleeping, V(D) uninterruptible sleep, V(T) stopped,
          V(t) traced, V(Z) zombie.
      type: str
      returned: always
      sample: S
    alive:
      description: Whether it still does something. A zombie without live threads does not.
      type: bool
      returned: always
      sample: true
    ppid:
      description: The process ID of its parent.
      type: int
      returned: always
      sample: 4700
    pgrp:
      description: Its process group.
      type: int
      returned: always
      sample: 4711
    session:
      description: Its session.
      type: int
      returned: always
      sample: 4700
    uid:
      description: Its effective user ID; V(null) where that could not be seen.
      type: int
      returned: always
      sample: 1000
    user:
      description: The name of that local user, or its number.
      type: str
      returned: always
      sample: ubuntu
    cwd:
      description: Its working directory; V(null) where that could not be seen.
      type: str
      returned: always
      sample: /home/ubuntu/ringrift/ai-service
    cpu_seconds:
      description: The processor time that it has used, in user and system mode, in seconds.
      type: float
      returned: always
      sample: 12.5
    threads:
      description: How many threads it has.
      type: int
      returned: always
      sample: 48
    children:
      description: The process IDs of its children.
      type: list
      elements: int
      returned: always
      sample: [4712, 4713]
    unit:
      description: The systemd service or scope that it runs in; V(null) where there is none.
      type: str
      returned: always
      sample: ringrift-train.service
    container:
      description: The container that it runs in, as V(<runtime>://<id>); V(null) where there is none.
      type: str
      returned: always
      sample: docker://5be91a1e6f1b5a1b2d44d0e0b0a2f8a5c1b1e1b4a8a0b1c2d3e4f5061728394a
    gpu_memory:
      description: The GPU memory that it holds, in MiB; V(null) without O(gpu) and where that is not known.
      type: float
      returned: always
      sample: 61024.0
running:
  description:
    - How many trainings run. Live trainers count, and launchers and workers that belong to no live trainer. It is 0
      exactly when nothing of the config is alive. For O(state=stopped), after the stop, in check mode as it would be.
  type: int
  returned: always
  sample: 1
unknown:
  description:
    - Trainings whose command line does not say its config, each as in RV(processes). Empty with
      O(include_unknown=true).
  type: list
  elements: dict
  returned: always
  sample: []
unidentified:
  description:
    - Processes of which it cannot be told whether they train the config. With O(state=stopped) the module fails when
      there are any, because nothing is proven then.
  type: list
  elements: dict
  returned: always
  contains:
    pid:
      description: The process ID.
      type: int
      returned: always
      sample: 4711
    comm:
      description: Its name.
      type: str
      returned: always
      sample: python3
    state:
      description: Its state, as in RV(processes).
      type: str
      returned: always
      sample: D
    wchan:
      description: Where in the kernel it waits; V(null) where that is not known.
      type: str
      returned: always
      sample: uvm_va_space_destroy
    reason:
      description: Why it cannot be told.
      type: str
      returned: always
      sample: it is in uninterruptible sleep, and its command line cannot be read
unseen:
  description: Why there may be processes that cannot be seen at all; V(null) where there are none.
  type: str
  returned: always
  sample: /proc is mounted with hidepid=2, which hides the processes of other users
stopped:
  description:
    - The processes that are proven gone, in check mode those that would be stopped. Each as in RV(processes), and
      with the keys below. Empty for O(state=query).
  type: list
  elements: dict
  returned: always
  contains:
    signal:
      description:
        - The last signal that it was sent, V(SIGTERM) or V(SIGKILL); V(null) for one that ended without any, as
          workers do with their trainer, and those of RV(units) with systemd.
      type: str
      returned: always
      sample: SIGTERM
    seconds:
      description: How long it took, in seconds after its first signal; V(null) in check mode.
      type: float
      returned: always
      sample: 7.9
survivors:
  description:
    - The processes that are still there. Each as in RV(processes), with its present C(state), and with the keys
      below. The module fails when there are any.
  type: list
  elements: dict
  returned: always
  contains:
    wchan:
      description: Where in the kernel it waits; V(null) where that is not known.
      type: str
      returned: always
      sample: nfs_wait_bit_killable
    unkillable:
      description: Whether it is in uninterruptible sleep, so that only a reboot of the node is sure to end it.
      type: bool
      returned: always
      sample: true
    reason:
      description: Why it is still there.
      type: str
      returned: always
      sample: it is in uninterruptible sleep, which SIGKILL does not end
units:
  description:
    - The systemd services that systemd was told to stop, in check mode those that it would be. Empty for
      O(state=query).
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The service.
      type: str
      returned: always
      sample: ringrift-train.service
    pids:
      description: The processes of the training in it.
      type: list
      elements: int
      returned: always
      sample: [4711, 4712]
    problem:
      description: Why systemd did not stop it, so that its processes were signalled; V(null) when it did.
      type: str
      returned: always
      sample: systemctl stop gave no answer within 5 s
proof:
  description:
    - What is proven after the stop, in check mode what would be; V(null) for O(state=query).
  type: dict
  returned: always
  contains:
    gone:
      description: Whether no process of the config is left; V(null) where it is not certain that all were seen.
      type: bool
      returned: always
      sample: true
    flock_free:
      description:
        - Whether nothing of the stopped training, nor what it has started, keeps the flock on the training lock file;
          V(null) where that could not be seen.
      type: bool
      returned: always
      sample: true
    gpu_free:
      description: Whether no GPU memory is listed for them any more; V(null) without O(gpu) and where that is unknown.
      type: bool
      returned: always
      sample: true
    flock_keepers:
      description: The processes that keep the flock, whoever they belong to.
      type: list
      elements: int
      returned: always
      sample: []
    gpu_pids:
      description: The stopped processes for which GPU memory is still listed.
      type: list
      elements: int
      returned: always
      sample: []
    unseen:
      description: Why what is V(null) could not be looked at.
      type: list
      elements: str
      returned: always
      sample: ["nvidia-smi gave no answer within 5.0 s and was given up"]
evidence:
  description:
    - What the live processes did before the stop. Empty without O(evidence).
  type: list
  elements: dict
  returned: always
  contains:
    pid:
      description: The process ID.
      type: int
      returned: always
      sample: 4711
    role:
      description: Its role, as in RV(processes).
      type: str
      returned: always
      sample: trainer
    state:
      description: Its state, as in RV(processes).
      type: str
      returned: always
      sample: S
    wchan:
      description: Where in the kernel it waits; V(null) where that is not known.
      type: str
      returned: always
      sample: futex_wait_queue
    cpu_percent:
      description: The processor time that it used during the look, in percent of one core; V(null) where unknown.
      type: float
      returned: always
      sample: 0.0
    source:
      description: Where C(text) is from, V(py-spy) or V(proc).
      type: str
      returned: always
      sample: py-spy
    text:
      description: The stack of every thread; from C(/proc), status lines, threads and the kernel's stack.
      type: str
      returned: always
      sample: 'Thread 4711 (idle): "MainThread"'
    truncated:
      description: Whether the text was longer than the 20,000 characters that are returned.
      type: bool
      returned: always
      sample: false
    seconds:
      description: How long the look took.
      type: float
      returned: always
      sample: 0.03
    problem:
      description: Why C(py-spy), which is there, was not used or did not answer; V(null) when there was no problem.
      type: str
      returned: always
      sample: /usr/local/bin/py-spy gave no answer within 5.0 s and was killed
"""

import functools
import os
from dataclasses import replace
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils import (
    _process_evidence,
    _process_gpu,
    _process_proof,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig, parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_file import lock_path
from ansible_collections.ringrift.recovery.plugins.module_utils._process_gpu import GpuMemory
from ansible_collections.ringrift.recovery.plugins.module_utils._process_proof import Proof
from ansible_collections.ringrift.recovery.plugins.module_utils._process_stop import (
    StopResult,
    failure,
    plan,
    stop,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import (
    Sighting,
    TrainingProcess,
    look,
    running,
    shorten,
)


def see(module: AnsibleModule, config: TrainingConfig, gpu: Optional[GpuMemory] = None) -> Sighting:
    gone = module.params["assume_gone"] if module.check_mode else ()
    sighting = look(config, module.params["within"], gone, module.params["service_path"])
    if gpu:
        processes = (replace(process, gpu_memory=gpu.of(process.pid)) for process in sighting.processes)
        sighting = replace(sighting, processes=tuple(processes))
    return sighting.with_unknown() if module.params["include_unknown"] else sighting


def lines(processes: List[TrainingProcess]) -> str:
    return "".join(f"{process.pid} {' '.join(shorten(process.cmdline))}\n" for process in processes)


def result_of(
    module: AnsibleModule,
    seen: Sighting,
    outcome: StopResult,
    after: List[TrainingProcess],
    proof: Optional[Proof] = None,
) -> Dict[str, Any]:
    result = {
        "changed": outcome.signalled,
        "processes": [process.as_dict() for process in seen.processes],
        "running": running(after),
        "unknown": [process.as_dict() for process in seen.unknown],
        "unidentified": [process.as_dict() for process in seen.unidentified],
        "unseen": seen.unseen,
        "stopped": [process.as_dict() for process in outcome.stopped],
        "survivors": [process.as_dict() for process in outcome.survivors],
        "units": [unit.as_dict() for unit in outcome.units],
        "proof": proof and proof.as_dict(),
    }
    if module._diff and module.params["state"] == "stopped":
        before = [process for process in seen.processes if process.alive]
        result["diff"] = {"before": lines(before), "after": lines([one.process for one in outcome.survivors])}
    return result


def keep_evidence(module: AnsibleModule, seen: Sighting) -> List[Dict[str, Any]]:
    if not module.params["evidence"]:
        return []
    folders = [os.path.join(module.params["service_path"], "venv", "bin")]
    return [one.as_dict() for one in _process_evidence.collect(seen.processes, folders)]


def warn(module: AnsibleModule, seen: Sighting, gpu: Optional[GpuMemory], result: Dict[str, Any]) -> None:
    if seen.unknown:
        pids = ", ".join(str(process.pid) for process in seen.unknown)
        module.warn(f"Trainings whose command line does not say its config run too, and were left alone: pid {pids}.")
    if gpu and gpu.problem and not gpu.absent:
        module.warn(f"Which processes hold GPU memory is not known: {gpu.problem}.")
    elif gpu and not gpu.absent and result["proof"] and result["proof"]["gpu_free"] is None:
        module.warn(f"Whether GPU memory is free is not known: {'; '.join(result['proof']['unseen'])}.")
    if result["proof"] and result["proof"]["flock_free"] is None:
        module.warn(f"Who keeps the training lock is not known: {'; '.join(result['proof']['unseen'])}.")
    for unit in result["units"]:
        if unit["problem"]:
            module.warn(
                f"{unit['name']} was not stopped by systemd, so its processes were signalled: {unit['problem']}."
            )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["query", "stopped"], "default": "query"},
            "grace": {"type": "float", "default": 30.0},
            "within": {"type": "path"},
            "include_unknown": {"type": "bool", "default": False},
            "gpu": {"type": "bool", "default": False},
            "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
            "evidence": {"type": "bool", "default": False},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "assume_gone": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    message: Optional[str] = None
    if params["state"] == "stopped" and params["include_unknown"] and not params["within"]:
        module.fail_json(msg="include_unknown would stop every train.py on this node. Say whose with within=DIRECTORY.")
    try:
        config = parse_config(params["config"])
        gpu_look = functools.partial(_process_gpu.look, params["nvidia_smi"])
        gpu = gpu_look() if params["gpu"] else None
        seen = see(module, config, gpu)
        evidence = keep_evidence(module, seen)
        lock = lock_path(params["service_path"], config.name)
        if params["state"] == "query":
            result = result_of(module, seen, StopResult(), list(seen.processes))
        else:
            tree = _process_proof.tree_of(seen.processes)
            prove = functools.partial(_process_proof.prove, tree, lock_path=lock, gpu_before=gpu, gpu_look=gpu_look)
            if module.check_mode:
                outcome = plan(seen.processes)
                now = replace(seen, processes=())
                assumed = {one.process.pid for one in outcome.stopped} | set(params["assume_gone"])
                proof = prove(outcome, now, assumed=assumed)
                result = result_of(module, seen, outcome, [one.process for one in outcome.survivors], proof)
            else:
                outcome = stop(seen.processes, params["grace"], find=lambda: see(module, config, gpu).processes)
                now = see(module, config)
                proof = prove(outcome, now)
                result = result_of(module, seen, outcome, list(now.processes), proof)
                result["unidentified"] = [process.as_dict() for process in now.unidentified]
            message = failure(config.name, outcome, now) or _process_proof.failure(proof, tree, lock)
        result["evidence"] = evidence
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    warn(module, seen, gpu, result)
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

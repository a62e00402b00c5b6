#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_evidence
short_description: Everything that a diagnosis needs from one node, in one execution
version_added: 0.1.0
description:
  - Runs all probes of a node side by side, each in a thread of its own, and waits for all of them together for at
    most O(timeout).
  - A probe that overruns or cannot look is named in RV(errors) and hides nothing of what the others saw. The probes run
    in a process of their own, so that one that hangs in the kernel does not hold up the module either.
  - What this user may not see is listed in RV(unseen), with what to do about it.
  - Nothing on the node is changed, and nothing is read that could run code.
  - The filter P(ringrift.recovery.verdict#filter) turns the evidence of a fleet into findings.
author: The ringrift.recovery authors (@ringrift)
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
  - ringrift.recovery._service
  - ringrift.recovery._service.path
options:
  probes:
    description:
      - What to look at. The default is for a training node; of a coordinator, V(games), V(daemons), V(wiring) and
        V(triggers) tell more.
      - V(progress) is where the training stands, from its processes, events, log and newest checkpoint.
      - V(processes) are the trainers, workers and launchers, watched for half a second; without any it takes no time.
      - V(events) is the event log of the service, V(log) the end of the training log.
      - V(locks) are the training locks, V(gpu) the GPUs, V(kernel) the kernel log since boot.
      - V(data) is the training file, V(checkpoints) the canonical model and the two newest checkpoints.
      - V(disk), V(memory) and V(host) are the room, the memory, and the clock and load of the machine.
      - V(games) are the replay databases.
      - V(daemons) are the daemons of the service, V(wiring) the subscribers of its training events, V(triggers) what
        may keep it from starting a training by itself.
    type: list
    elements: str
    choices:
      - progress
      - processes
      - events
      - locks
      - gpu
      - log
      - kernel
      - data
      - checkpoints
      - disk
      - memory
      - host
      - games
      - daemons
      - wiring
      - triggers
    default: [progress, processes, events, locks, gpu, log, kernel, data, checkpoints, disk, memory, host]
  timeout:
    description:
      - Seconds that all probes together may take, at most 3600.
    type: float
    default: 20
  reference_time:
    description:
      - What the clock of the controller says, in seconds since 1970. RV(host) then has C(clock_offset), which the time
        that it takes to reach the node is a part of.
    type: float
  coordination_dir:
    description:
      - The directory of the service's C(events.db). By default where the service looks itself.
    type: path
  within:
    description:
      - Count only trainers whose working directory is below this path.
    type: path
  after:
    description:
      - The C(cursor) of an earlier RV(progress), which then says whether training has moved since.
    type: dict
  nvidia_smi:
    description:
      - The GPU tool, by name or by path.
    type: str
    default: nvidia-smi
  gpu_samples:
    description:
      - How often to look at the GPUs, half a second apart.
    type: int
    default: 2
  kernel_log:
    description:
      - A file to read as kernel log in place of that of the running kernel, as
        M(ringrift.recovery.kernel_events) takes it.
    type: path
  checkpoint_depth:
    description:
      - V(quick) looks at the structure of the model and the checkpoints, V(full) at every byte.
      - V(auto) looks at every byte only where there is reason. Reasons are a problem that the quick look finds; a log
        that tells of a checkpoint or of weights that could not be loaded, or since the last progress of a failed
        training; events that end with a failure; a stalled training; and no trainer on a node where one ran before,
        since the next one begins from these files. What could not be seen counts as a reason too.
    type: str
    choices: [auto, quick, full]
    default: auto
  redis_url:
    description:
      - Where Redis locks are, for example V(redis://cache:6379/0). Without it only file locks are looked at.
    type: str
  stall_after:
    description:
      - Seconds without progress after which a live trainer counts as stalled.
    type: float
    default: 1800
  min_samples:
    description:
      - Fewest samples that the training file may have.
    type: int
    default: 100
  min_games:
    description:
      - Fewest finished games that the replay databases should hold.
    type: int
    default: 50
  disk_needed:
    description:
      - Bytes that should be free for checkpoints and for data.
    type: int
    default: 10737418240
  health_url:
    description:
      - Where the service tells of its daemons, for V(daemons).
    type: str
    default: http://localhost:8790
  p2p_url:
    description:
      - Where the orchestrator is, for V(wiring).
    type: str
    default: http://localhost:8770
seealso:
  - module: ringrift.recovery.training_progress
  - module: ringrift.recovery.training_events
  - module: ringrift.recovery.training_lock
  - module: ringrift.recovery.training_log
  - module: ringrift.recovery.gpu_status
  - module: ringrift.recovery.kernel_events
  - module: ringrift.recovery.npz_inspect
  - module: ringrift.recovery.checkpoint_verify
  - module: ringrift.recovery.game_databases
"""

EXAMPLES = r"""
- name: Look at a node
  ringrift.recovery.node_evidence:
    config: hex8_2p

- name: Look at what the coordinator has, and at nothing else
  ringrift.recovery.node_evidence:
    config: hex8_2p
    probes: [locks, data, games, daemons, wiring, triggers, disk, host]
    reference_time: "{{ now().timestamp() }}"

- name: Read every byte of the model and the newest checkpoints
  ringrift.recovery.node_evidence:
    config: hex8_2p
    probes: [checkpoints]
    checkpoint_depth: full
    timeout: 120
"""

RETURN = r"""
progress:
  description: As the module M(ringrift.recovery.training_progress) returns it.
  returned: when the probe V(progress) answered
  type: dict
  sample: {"running": false, "verdict": "not_running", "reason": "no trainer of hex8_2p runs here"}
processes:
  description: The live trainers, workers and launchers of the config.
  returned: when the probe V(processes) answered
  type: dict
  sample: {"processes": [], "window": 0.0, "doubts": null}
  contains:
    processes:
      description: Each process, at most 64.
      type: list
      elements: dict
      returned: always
      contains:
        pid:
          description: Its number.
          type: int
          returned: always
        role:
          description: C(trainer), C(worker) or C(launcher).
          type: str
          returned: always
        state:
          description: The letter of the kernel, such as C(R) running, C(S) sleeping or C(D) uninterruptible sleep.
          type: str
          returned: always
        wchan:
          description: Where in the kernel it waits; V(null) where it does not, or this user may not know.
          type: str
          returned: always
        cpu_seconds:
          description: Processor time since its start.
          type: float
          returned: always
        cpu_percent:
          description: Processor time over the window, in percent of one core. V(null) where it ended meanwhile.
          type: float
          returned: always
        moving:
          description:
            - Whether it used the processor during the window, or was about to. V(null) where it ended meanwhile.
          type: bool
          returned: always
        threads:
          description: How many threads it has.
          type: int
          returned: always
        rss:
          description: Resident memory in bytes.
          type: int
          returned: always
        open_files:
          description:
            - Open files below O(service_path), or that end with C(.npz), C(.pth) or C(.log), at most 50.
          type: list
          elements: str
          returned: always
        open_file_count:
          description: How many files it has open; V(null) where this user may not see them.
          type: int
          returned: always
        start_time:
          description: When it was started, in seconds since 1970.
          type: float
          returned: always
        cmdline:
          description: Its command line, cut at 100 words of 300 characters.
          type: list
          elements: str
          returned: always
    window:
      description: Seconds for which they were watched; V(0) where there are none.
      type: float
      returned: always
    doubts:
      description: Why it is not certain that these are all; V(null) where it is.
      type: str
      returned: always
events:
  description:
    - As the module M(ringrift.recovery.training_events) returns it, of the events that this node wrote. Without
      O(coordination_dir) the event log is where a trainer that runs writes it.
  returned: when the probe V(events) answered
  type: dict
  sample: {"database": "/tmp/ringrift_coordination/events.db", "exists": true, "state": "running"}
locks:
  description: Each lock of the config that was found, as C(locks) of the module M(ringrift.recovery.training_lock).
  returned: when the probe V(locks) answered
  type: list
  elements: dict
  sample: [{"backend": "file", "verdict": "free", "releasable": false}]
gpu:
  description: As the module M(ringrift.recovery.gpu_status) returns it.
  returned: when the probe V(gpu) answered
  type: dict
  sample: {"verdict": "idle", "gpus": []}
log:
  description: As the module M(ringrift.recovery.training_log) returns it.
  returned: when the probe V(log) answered
  type: dict
  sample: {"exists": true, "findings": []}
kernel:
  description:
    - As the module M(ringrift.recovery.kernel_events) returns it, since boot, with the newest 50 events at most.
  returned: when the probe V(kernel) answered
  type: dict
  sample: {"verdict": "clean", "source": "journald", "events": []}
data:
  description:
    - As the module M(ringrift.recovery.npz_inspect) returns it, with C(path), and C(exists) V(false) where there is
      no file.
  returned: when the probe V(data) answered
  type: dict
  sample: {"exists": true, "valid": true, "samples": 601}
checkpoints:
  description:
    - The canonical model and the two newest checkpoints, the newest first, each as the module
      M(ringrift.recovery.checkpoint_verify) returns it.
  returned: when the probe V(checkpoints) answered
  type: list
  elements: dict
  sample: [{"path": "models/canonical_hex8_2p.pth", "valid": true, "depth": "quick"}]
  contains:
    path:
      description: The file.
      type: str
      returned: always
    valid:
      description: Whether it is whole; V(null) where it could not be read, and then C(problems) say why.
      type: bool
      returned: always
    depth:
      description: C(quick) or C(full); V(null) where it could not be read.
      type: str
      returned: always
    examined_because:
      description: Why every byte was read.
      type: str
      returned: when C(depth) is C(full)
    problems:
      description:
        - As of M(ringrift.recovery.checkpoint_verify), and the warnings C(unreadable) and C(not_examined_in_full), the
          latter where there was not the time for it.
      type: list
      elements: dict
      returned: always
disk:
  description: The room for what a training writes.
  returned: when the probe V(disk) answered
  type: dict
  sample: {"verdict": "ok", "reason": "the least room is 41.2 GiB, on /srv/ai-service/checkpoints (checkpoints, data)"}
  contains:
    filesystems:
      description: Each file system once.
      type: list
      elements: dict
      returned: always
      contains:
        path:
          description: The directory that was looked at, or the nearest above it that exists.
          type: str
          returned: always
        uses:
          description: What lies on it, of C(checkpoints), C(data), C(logs) and C(tmp).
          type: list
          elements: str
          returned: always
        total:
          description: Its size in bytes.
          type: int
          returned: always
        free:
          description: Bytes that an ordinary user may still write.
          type: int
          returned: always
        free_inodes:
          description: How many more files it can hold; V(null) where it does not count them.
          type: int
          returned: always
        total_inodes:
          description: How many files it can hold at all; V(null) where it does not count them.
          type: int
          returned: always
        read_only:
          description: Whether it is mounted read-only.
          type: bool
          returned: always
        device:
          description: The number of its device.
          type: int
          returned: always
    needed:
      description: The same as O(disk_needed).
      type: int
      returned: always
    verdict:
      description:
        - C(full) where the one for checkpoints or for data has less than 1 GiB left, is 95 % used or more, has no inode
          left, or is read-only; the service saves no checkpoint then.
        - C(low) where one of these has less than O(disk_needed) left, or the one for logs or temporary files is full.
        - C(ok) otherwise.
      type: str
      returned: always
    reason:
      description: Why, in words.
      type: str
      returned: always
memory:
  description: The memory of the machine, in bytes.
  returned: when the probe V(memory) answered
  type: dict
  sample: {"total": 270000000000, "available": 240000000000, "verdict": "ok"}
  contains:
    total:
      description: How much it has.
      type: int
      returned: always
    available:
      description: How much a program could still take without swapping.
      type: int
      returned: always
    swap_total:
      description: How much swap it has.
      type: int
      returned: always
    swap_free:
      description: How much of that is free.
      type: int
      returned: always
    cgroup:
      description: The control group of this module's process; V(null) where there is none that tells.
      type: dict
      returned: always
      contains:
        limit:
          description: The least limit of it and of those above it; V(null) where there is none.
          type: int
          returned: always
        usage:
          description: What it uses, cache included.
          type: int
          returned: always
        oom_kills:
          description: How many of its processes the kernel killed for want of memory; V(null) where it does not count.
          type: int
          returned: always
    verdict:
      description:
        - C(low) where less than 1 GiB or less than 5 % is available, of the machine or of the limit of the control
          group. C(ok) otherwise.
      type: str
      returned: always
    reason:
      description: Why, in words.
      type: str
      returned: always
host:
  description: The machine, and who looks at it.
  returned: when the probe V(host) answered
  type: dict
  sample: {"hostname": "gpu-3", "uptime": 86400.5, "root": false, "clock_offset": 0.21}
  contains:
    hostname:
      description: Its name, as the service knows it.
      type: str
      returned: always
    now:
      description: What its clock says, in seconds since 1970.
      type: float
      returned: always
    boot_id:
      description: The identity of this boot; V(null) where the kernel does not tell.
      type: str
      returned: always
    booted_at:
      description: When it was started, in seconds since 1970.
      type: float
      returned: always
    uptime:
      description: Seconds since then.
      type: float
      returned: always
    load:
      description: The load of the last 1, 5 and 15 minutes.
      type: list
      elements: float
      returned: always
    cpus:
      description: How many processors it has.
      type: int
      returned: always
    user:
      description: The user that looks.
      type: str
      returned: always
    root:
      description: Whether that is root.
      type: bool
      returned: always
    clock_offset:
      description: Seconds by which the clock is ahead of O(reference_time); V(null) without that.
      type: float
      returned: always
    clock_synchronized:
      description: V(true) where systemd-timesyncd has set the clock; V(null) where that is not known.
      type: bool
      returned: always
games:
  description: As the module M(ringrift.recovery.game_databases) returns it.
  returned: when the probe V(games) answered
  type: dict
  sample: {"games": 60, "enough": true}
daemons:
  description: The daemons of the service, as its health endpoint tells.
  returned: when the probe V(daemons) answered
  type: dict
  sample: {"url": "http://localhost:8790", "reachable": true, "running": true, "down": []}
  contains:
    url:
      description: Where it was asked.
      type: str
      returned: always
    reachable:
      description: Whether it answered.
      type: bool
      returned: always
    reason:
      description: Why it did not; V(null) where it did.
      type: str
      returned: always
    running:
      description: Whether the daemon manager runs; V(null) where that is not known.
      type: bool
      returned: always
    daemons:
      description: The state of each daemon, by name.
      type: dict
      returned: always
    down:
      description: Those of C(event_router), C(feedback_loop) and C(data_pipeline) that do not run.
      type: list
      elements: str
      returned: always
wiring:
  description: Who listens to the training events, as the orchestrator tells.
  returned: when the probe V(wiring) answered
  type: dict
  sample: {"url": "http://localhost:8770", "reachable": true, "missing": [], "verdict": "wired"}
  contains:
    url:
      description: Where it was asked.
      type: str
      returned: always
    reachable:
      description: Whether it answered.
      type: bool
      returned: always
    reason:
      description: Why it did not; V(null) where it did.
      type: str
      returned: always
    events:
      description:
        - C(subscribers), a number or V(null), and C(handlers), a list of names, of each of C(TRAINING_STARTED),
          C(TRAINING_COMPLETED) and C(TRAINING_FAILED).
      type: dict
      returned: always
    missing:
      description: The events without any subscriber.
      type: list
      elements: str
      returned: always
    verdict:
      description: C(wired), C(unwired) or C(unknown).
      type: str
      returned: always
triggers:
  description: What the service keeps of its automatic trainings.
  returned: when the probe V(triggers) answered
  type: dict
  sample: {"exists": true, "training_in_progress": false, "paused": false}
  contains:
    database:
      description: The file.
      type: str
      returned: always
    exists:
      description: Whether it is there.
      type: bool
      returned: always
    training_in_progress:
      description: Whether a training of the config counts as running; V(null) where that is not known.
      type: bool
      returned: always
    paused:
      description: Whether automatic trainings of the config are paused; V(null) where that is not known.
      type: bool
      returned: always
    intensity:
      description: The intensity as the service calls it.
      type: str
      returned: always
    last_training_time:
      description: When the last training was, in seconds since 1970.
      type: float
      returned: always
    consecutive_failures:
      description: How many trainings failed in a row.
      type: int
      returned: always
    problems:
      description: What could not be read.
      type: list
      elements: dict
      returned: always
errors:
  description: The reason, by name, of each probe that gave no answer.
  returned: always
  type: dict
  sample: {"gpu": "no answer within 20 s"}
unseen:
  description: What this user could not see of what was looked at, and how to see it.
  returned: always
  type: list
  elements: dict
  sample: []
  contains:
    probe:
      description: The probe that would have seen it.
      type: str
      returned: always
    what:
      description: What could not be seen.
      type: str
      returned: always
    hint:
      description: What to do about it.
      type: str
      returned: always
seconds:
  description: Seconds that each probe took, of those that gave an answer or a reason.
  returned: always
  type: dict
  sample: {"progress": 0.021}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._node_evidence import (
    PROBES,
    TRAINING_NODE,
    EvidenceRequest,
    collect,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "probes": {"type": "list", "elements": "str", "choices": list(PROBES), "default": list(TRAINING_NODE)},
            "timeout": {"type": "float", "default": 20},
            "reference_time": {"type": "float"},
            "coordination_dir": {"type": "path"},
            "within": {"type": "path"},
            "after": {"type": "dict"},
            "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
            "gpu_samples": {"type": "int", "default": 2},
            "kernel_log": {"type": "path"},
            "checkpoint_depth": {"type": "str", "choices": ["auto", "quick", "full"], "default": "auto"},
            # A URL may carry a password.
            "redis_url": {"type": "str", "no_log": True},
            "stall_after": {"type": "float", "default": 1800},
            "min_samples": {"type": "int", "default": 100},
            "min_games": {"type": "int", "default": 50},
            "disk_needed": {"type": "int", "default": 10737418240},
            "health_url": {"type": "str", "default": "http://localhost:8790"},
            "p2p_url": {"type": "str", "default": "http://localhost:8770"},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    deadline = options.pop("timeout")
    try:
        request = EvidenceRequest(
            **{**options, "config": parse_config(options["config"]), "probes": tuple(options["probes"])}
        )
        evidence = collect(request, deadline)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **evidence)


if __name__ == "__main__":
    main()

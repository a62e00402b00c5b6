#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_events
short_description: What the kernel log of a node says of its memory, GPUs and storage
version_added: 0.1.0
description:
  - Reads the kernel log from journald, C(dmesg), C(/dev/kmsg) or a file, and returns kills for want of memory, errors
    of the NVIDIA driver (XIDs, SXids, lost GPUs), hung tasks, NFS servers that do not answer, and errors of file
    systems and disks.
  - For each XID it says what the code means, what to do, and whether the tools of the field agree on that.
  - A log that cannot be read is RV(source=null) and RV(verdict=unknown), and one that begins too late is never
    RV(verdict=clean).
  - Time, bytes and lines are bounded. Where there is too much, the newest is kept.
author: The ringrift.recovery authors (@ringrift)
options:
  since:
    description:
      - From when on, as V(boot), unix seconds, or ISO 8601. A time without zone is UTC.
      - Only journald and files know of the time before the last boot.
    type: str
    default: boot
  source:
    description:
      - Where to read. V(auto) takes the first of V(journald), V(dmesg) and V(kmsg) that works, and RV(tried) says why
        one did not.
    type: str
    choices: [auto, journald, dmesg, kmsg]
    default: auto
  path:
    description:
      - Read this file on the node, and no O(source). It may be what syslog keeps, as C(/var/log/kern.log) or
        C(/var/log/syslog), or the saved output of C(dmesg), C(dmesg -T) or C(journalctl -k -o short-iso).
      - Times without a zone are taken as local, and times without a year as the last such time.
      - In a file that syslog writes for all programs, who may write to syslog can pretend to be the kernel.
    type: path
  timeout:
    description:
      - Seconds for all sources together, at most 600.
    type: float
    default: 10
  kinds:
    description:
      - Look for these only. Everything else in the result is then about these too.
    type: list
    elements: str
    choices:
      - oom_kill
      - xid
      - sxid
      - gpu_lost
      - hung_task
      - soft_lockup
      - nfs_stall
      - filesystem_error
      - block_io_error
      - nvme_error
    default:
      - oom_kill
      - xid
      - sxid
      - gpu_lost
      - hung_task
      - soft_lockup
      - nfs_stall
      - filesystem_error
      - block_io_error
      - nvme_error
  max_events:
    description:
      - How many events to return at most, the newest. RV(summary) and RV(repeats) count all of them.
      - At most 10000.
    type: int
    default: 200
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
notes:
  - Messages that a program has written into the kernel log are left out.
  - Where C(kernel.dmesg_restrict) is set, only root and, for journald, members of C(adm) or C(systemd-journal) may
    read the log.
seealso:
  - module: ringrift.recovery.gpu_status
  - module: ringrift.recovery.node_evidence
"""

EXAMPLES = r"""
- name: See what the kernel has noticed since boot
  ringrift.recovery.kernel_events:
  become: true
  register: kernel

- name: See whether the kernel has killed the trainer since it was started
  ringrift.recovery.kernel_events:
    since: "{{ trainer.start_time | string }}"
    kinds: [oom_kill]
  become: true
  register: kernel

- name: Refuse to start training on a node whose GPUs need more than a restart of the program
  ringrift.recovery.kernel_events:
    kinds: [xid, sxid, gpu_lost]
  become: true
  register: kernel
  failed_when: kernel.source is none or kernel.worst_action in ["drain", "reset", "reboot", "replace"]

- name: Read what syslog has kept, where journald and dmesg are closed to this user
  ringrift.recovery.kernel_events:
    path: /var/log/kern.log
  register: kernel
"""

RETURN = r"""
verdict:
  description:
    - The worst severity of the events, V(error) or V(warning); V(clean) where there is none.
    - V(unknown) where none was found in a log that could not be read or that is not complete.
  type: str
  returned: success
  sample: warning
msg:
  description: What was read and found, in one sentence.
  type: str
  returned: always
  sample: "2104 kernel messages from journald: 3 xid; the most that is asked for is restart_app."
source:
  description: Where the log was read, V(journald), V(dmesg), V(kmsg) or V(file); V(null) where it could not be read.
  type: str
  returned: success
  sample: journald
tried:
  description: The sources that were asked.
  type: list
  elements: dict
  returned: success
  contains:
    source:
      description: Its name.
      type: str
      returned: success
      sample: journald
    reason:
      description: Why it could not be used; V(null) where it could.
      type: str
      returned: success
      sample: journalctl is not installed
events:
  description: What happened, the oldest first. Further keys depend on RV(events[].kind).
  type: list
  elements: dict
  returned: success
  contains:
    kind:
      description: One of O(kinds).
      type: str
      returned: success
      sample: xid
    time:
      description: When, in UTC; V(null) where that is not known.
      type: str
      returned: success
      sample: "2026-03-01T12:00:00.123Z"
    seconds_since_boot:
      description: The time stamp of the kernel, which does not count the time that the machine was suspended.
      type: float
      returned: success
      sample: 4711.25
    severity:
      description: V(info), V(warning) or V(error).
      type: str
      returned: success
      sample: warning
    message:
      description: The message, up to 500 characters, with control characters escaped.
      type: str
      returned: success
      sample: "NVRM: Xid (PCI:0000:00:06): 43, pid=1410, name=python3, channel 0x0000000a"
    action:
      description:
        - What to do, from the least to the most, V(ignore), V(restart_app), V(drain), V(reset), V(reboot), V(replace).
        - V(null) where the message alone does not tell, as with an XID that is in no table.
      type: str
      returned: success
      sample: restart_app
    code:
      description: Number of the error.
      type: int
      returned: for xid and sxid
      sample: 31
    known:
      description: Whether the table of XIDs has the code.
      type: bool
      returned: for xid
      sample: true
    name:
      description: Name of the code in the driver; V(null) where it is not known.
      type: str
      returned: for xid
      sample: FIFO_ERROR_MMU_ERR_FLT
    meaning:
      description: The code in words; V(null) where it is not known.
      type: str
      returned: for xid
      sample: a program touched memory that is not mapped
    field_agrees:
      description: Whether NVIDIA and the tools that name the code treat it alike; V(null) where it is not known.
      type: bool
      returned: for xid
      sample: true
    bus_id:
      description: The GPU or switch, as domain, bus and device; V(null) where the message does not name it.
      type: str
      returned: for xid, sxid and gpu_lost
      sample: "0000:00:06"
    gpu_uuid:
      description: UUID of the GPU, where the log names it.
      type: str
      returned: for xid and gpu_lost
      sample: GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f
    gpu_instance:
      description: Number of the MIG GPU instance.
      type: int
      returned: for xid
      sample: 5
    compute_instance:
      description: Number of the MIG compute instance.
      type: int
      returned: for xid
      sample: 0
    pid:
      description: The process; for an XID the one that owns the channel. V(null) where the message does not name it.
      type: int
      returned: for xid, oom_kill, hung_task and soft_lockup
      sample: 1346
    process_name:
      description: Name of the process, as the kernel has it.
      type: str
      returned: for xid, oom_kill, hung_task and soft_lockup
      sample: python3
    caused_by:
      description: The XID that this one follows from.
      type: int
      returned: for xid
      sample: 149
    recovery_action:
      description: What the driver itself asks for from now on, in the words of XID 154.
      type: str
      returned: for xid
      sample: GPU Reset Required
    unit:
      description: The failing part of the GPU, for XID 13.
      type: str
      returned: for xid
      sample: GPC 1, TPC 4, SM 0
    link:
      description: Number of the NVLink.
      type: int
      returned: for xid and sxid
      sample: 8
    fatal:
      description: Whether the message calls the error fatal; V(null) where it does not say.
      type: bool
      returned: for xid and sxid
      sample: true
    subcode:
      description: Part of an NVLink 5 error.
      type: int
      returned: for xid
      sample: 37
    switch:
      description: Number of the NVSwitch.
      type: int
      returned: for sxid
      sample: 3
    uid:
      description: User of the victim.
      type: int
      returned: for oom_kill
      sample: 1000
    constraint:
      description: Whose memory was used up, V(machine), V(cgroup), V(cpuset) or V(memory_policy).
      type: str
      returned: for oom_kill
      sample: cgroup
    cgroup:
      description: The control group whose limit was reached.
      type: str
      returned: for oom_kill
      sample: /system.slice/trainer.service
    task_cgroup:
      description: The control group of the victim.
      type: str
      returned: for oom_kill
      sample: /system.slice/trainer.service
    total_vm_kb:
      description: Virtual memory of the victim in KiB.
      type: int
      returned: for oom_kill
      sample: 52428800
    anon_rss_kb:
      description: Memory of its own that the victim had in use, in KiB.
      type: int
      returned: for oom_kill
      sample: 33554432
    file_rss_kb:
      description: Memory of files that the victim had in use, in KiB.
      type: int
      returned: for oom_kill
      sample: 1024
    shmem_rss_kb:
      description: Shared memory that the victim had in use, in KiB.
      type: int
      returned: for oom_kill
      sample: 0
    blocked_seconds:
      description: How long the task or the CPU has made no progress.
      type: int
      returned: for hung_task and soft_lockup
      sample: 120
    cpu:
      description: Number of the CPU.
      type: int
      returned: for soft_lockup
      sample: 3
    server:
      description: Name of the NFS server.
      type: str
      returned: for nfs_stall
      sample: storage-1
    state:
      description: V(not_responding), V(timed_out) or, when it answers again, V(ok).
      type: str
      returned: for nfs_stall
      sample: not_responding
    device:
      description: The disk or partition.
      type: str
      returned: for filesystem_error, block_io_error and nvme_error
      sample: nvme0n1p1
    filesystem:
      description: Type of the file system.
      type: str
      returned: for filesystem_error
      sample: ext4
    read_only:
      description: V(true) where it was made read-only because of the error; V(null) where the message does not say.
      type: bool
      returned: for filesystem_error
      sample: true
    sector:
      description: The sector or block that could not be read or written.
      type: int
      returned: for block_io_error
      sample: 123456
summary:
  description: How many events of each kind there are.
  type: dict
  returned: success
  sample: {oom_kill: 0, xid: 3}
repeats:
  description:
    - Places that fail again and again. One fault often writes several XIDs, so lines of one code on one GPU within a
      second of each other are one incident.
  type: list
  elements: dict
  returned: success
  contains:
    rule:
      description: V(same_tpc), V(same_gpu), V(same_link) or V(burst).
      type: str
      returned: success
      sample: same_gpu
    code:
      description: The XID.
      type: int
      returned: success
      sample: 31
    bus_id:
      description: The GPU.
      type: str
      returned: success
      sample: "0000:00:06"
    place:
      description: The part of the GPU or the link; V(null) where the rule is about the whole GPU.
      type: str
      returned: success
      sample: GPC 1, TPC 4
    incidents:
      description: How many there were within the window of the rule.
      type: int
      returned: success
      sample: 2
    first:
      description: When the first of them was.
      type: str
      returned: success
      sample: "2026-03-01T12:00:00.123Z"
    last:
      description: When the last of them was.
      type: str
      returned: success
      sample: "2026-03-01T14:00:00.123Z"
    action:
      description: What to do, as in RV(events[].action).
      type: str
      returned: success
      sample: drain
    meaning:
      description: What it means.
      type: str
      returned: success
      sample: page faults on the same GPU
worst_action:
  description:
    - The most that events and repeats ask for; V(null) where there are none, or their action is not known.
    - A reset or reboot that XID 154 has withdrawn does not count any more.
  type: str
  returned: success
  sample: restart_app
gpus:
  description: UUIDs of GPUs by bus id, as far as the log names them.
  type: dict
  returned: success
  sample: {"0000:00:06": GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f}
oldest:
  description: Time of the oldest message that was read.
  type: str
  returned: success
  sample: "2026-03-01T08:00:00.000Z"
newest:
  description: Time of the newest message that was read.
  type: str
  returned: success
  sample: "2026-03-01T14:00:00.123Z"
complete:
  description: Whether the log reaches back to O(since).
  type: bool
  returned: success
  sample: true
truncated:
  description: Whether the oldest part of the log, or of the events, was left out.
  type: bool
  returned: success
  sample: false
problems:
  description: What limits the answer, errors first.
  type: list
  elements: dict
  returned: success
  sample: []
  contains:
    code:
      description:
        - Stable name of the problem. C(no_source), C(log_incomplete), C(truncated), C(unknown_xid), C(unparsed_xid).
      type: str
      returned: success
    message:
      description: The problem in words.
      type: str
      returned: success
    severity:
      description: V(error) or V(warning).
      type: str
      returned: success
    member:
      description: Not used here.
      type: str
      returned: success
    offset:
      description: Not used here.
      type: int
      returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._kernel_events import KINDS, collect
from ansible_collections.ringrift.recovery.plugins.module_utils._kernel_log import SOURCES, parse_since

MAX_TIMEOUT = 600
MAX_EVENTS = 10000


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "since": {"type": "str", "default": "boot"},
            "source": {"type": "str", "choices": ["auto", *SOURCES], "default": "auto"},
            "path": {"type": "path"},
            "timeout": {"type": "float", "default": 10},
            "kinds": {"type": "list", "elements": "str", "choices": list(KINDS), "default": list(KINDS)},
            "max_events": {"type": "int", "default": 200},
        },
        supports_check_mode=True,
    )
    params = module.params
    # Not a number fails this too.
    if not 0 < params["timeout"] <= MAX_TIMEOUT:
        module.fail_json(msg=f"timeout is {params['timeout']}. Give seconds, more than 0 and at most {MAX_TIMEOUT}.")
    if not 0 <= params["max_events"] <= MAX_EVENTS:
        module.fail_json(msg=f"max_events is {params['max_events']}. Give a number from 0 to {MAX_EVENTS}.")
    source = None if params["source"] == "auto" else params["source"]
    if params["path"] is not None and source is not None:
        module.fail_json(msg=f"path is {params['path']} and source is {source}. Give one of them.")
    try:
        since = parse_since(params["since"])
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    report = collect(source, since, params["timeout"], params["kinds"], params["max_events"], params["path"])
    module.exit_json(changed=False, **report.as_dict())


if __name__ == "__main__":
    main()

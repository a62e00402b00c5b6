#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_status
short_description: Say whether the GPUs of a node are busy, idle, wedged or sick
version_added: 0.1.0
description:
  - Asks NVML through nvidia-ml-py where an interpreter has it, else C(nvidia-smi), a few times over a short window.
    Judges each GPU by utilization, power, memory traffic, processes and what the driver says of its health.
  - Utilization alone is no proof of work. A kernel that waits for ever in a collective shows 100 % at the power of an
    idle GPU; such a GPU is V(wedged).
  - A driver that does not answer costs O(timeout) and no more. It is a finding, RV(problems) with the code
    C(driver_hung), and not a failure. What could not be seen is V(null) or V(unknown), never V(0) or V(idle).
author: The ringrift.recovery authors (@ringrift)
options:
  nvidia_smi:
    description:
      - The GPU tool, by name or by path. A name is searched for on C(PATH) and in the usual directories.
    type: str
    default: nvidia-smi
  source:
    description:
      - Whom to ask. V(auto) asks NVML, and C(nvidia-smi) where NVML is not there or cannot be started.
      - Where NVML hangs, C(nvidia-smi) would hang too, and is not asked.
    type: str
    choices: [auto, nvml, nvidia_smi]
    default: auto
  python:
    description:
      - An interpreter that may have nvidia-ml-py, for example that of the service. It is tried before the module's own.
    type: path
  progress_file:
    description:
      - A file that the trainer writes to while it makes progress, such as its log. It is a witness against V(wedged).
    type: path
  timeout:
    description:
      - Seconds for all calls together, at most 3600. Samples that would not fit in are left out.
      - Without C(nvidia-persistenced), each call may take 3 seconds.
    type: float
    default: 10
  samples:
    description:
      - How often to look. A GPU is never V(wedged) on the strength of one sample.
    type: int
    default: 3
  interval:
    description:
      - Seconds from one sample to the next.
    type: float
    default: 0.5
  busy_utilization:
    description:
      - Percent of utilization from which on a GPU is V(busy).
    type: float
    default: 5
  wedged_utilization:
    description:
      - Percent of utilization that a V(wedged) GPU shows at least, in every sample.
    type: float
    default: 90
  wedged_power_fraction:
    description:
      - Share of its power limit that a V(wedged) GPU draws at most, in every sample.
      - An H200 of 700 W draws 120 to 137 W while a kernel only spins, and 250 W in a small training.
    type: float
    default: 0.25
  wedged_memory_utilization:
    description:
      - Percent of memory traffic that a V(wedged) GPU shows at most, in every sample that tells it.
    type: float
    default: 5
  wedged_tensor_activity:
    description:
      - Percent of tensor activity that a V(wedged) GPU shows at most, where it is offered.
      - An H200 shows 0 while a kernel only spins, and 8 in a small training.
    type: float
    default: 1
  progress_age:
    description:
      - Seconds. Where O(progress_file) was written to more recently than this, a GPU is not V(wedged).
    type: float
    default: 60
  leaked_memory:
    description:
      - MiB in use from which on memory is V(leaked_memory), where no process is on the GPU and nobody holds one open.
      - Grace Hopper is exempt, as its GPU memory also belongs to the operating system.
    type: float
    default: 1024
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._attributes.info
seealso:
  - module: ringrift.recovery.training_progress
  - module: ringrift.recovery.node_evidence
"""

EXAMPLES = r"""
- name: See what the GPUs do
  ringrift.recovery.gpu_status:
  register: gpu

- name: Refuse to start training on a node whose GPUs cannot work
  ringrift.recovery.gpu_status:
  register: gpu
  failed_when: gpu.verdict in ["lost", "sick", "wedged", "unknown", "none"]

- name: Look for ten seconds before calling a GPU wedged
  ringrift.recovery.gpu_status:
    samples: 20
    interval: 0.5
    timeout: 30
  register: gpu
"""

RETURN = r"""
verdict:
  description:
    - The worst that one of the GPUs is, in this order. V(lost), V(sick), V(wedged), V(leaked_memory), V(unknown),
      V(idle_with_process), V(busy), V(idle).
    - V(none) where the node has no GPU tool or no GPU. V(unknown) also where the driver gave no answer.
  type: str
  returned: always
  sample: busy
gpus:
  description: The GPUs.
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: Number of the GPU; V(null) where the driver has no handle for it.
      type: int
      returned: always
      sample: 0
    uuid:
      description: Identity of the GPU.
      type: str
      returned: always
      sample: GPU-90577486-7b1e-536b-1630-e2dacab55bb7
    bus_id:
      description: Its place on the PCI bus.
      type: str
      returned: always
      sample: "00000000:3B:00.0"
    name:
      description: Its product name.
      type: str
      returned: always
      sample: NVIDIA H100 80GB HBM3
    serial:
      description: Serial number of its board.
      type: str
      returned: always
      sample: "1650000000001"
    architecture:
      description: Its architecture; V(null) where the source does not say.
      type: str
      returned: always
      sample: Hopper
    tensor_activity:
      description:
        - How much the tensor cores worked over the window, in percent.
        - V(null) where it is not offered, as by C(nvidia-smi).
      type: float
      returned: always
      sample: 93.66
    sm_activity:
      description:
        - How much its multiprocessors worked over the window, in percent.
        - V(null) where it is not offered, as by C(nvidia-smi).
      type: float
      returned: always
      sample: 93.66
    dram_activity:
      description:
        - How much its memory bus worked over the window, in percent.
        - V(null) where it is not offered, as by C(nvidia-smi).
      type: float
      returned: always
      sample: 93.66
    memory_reserved:
      description: Memory that the driver keeps for itself, in MiB; not part of RV(gpus[].memory_used).
      type: float
      returned: always
      sample: 616.0
    temperature_memory:
      description: Temperature of its memory in degrees Celsius.
      type: float
      returned: always
      sample: 61.0
    clock_sm:
      description: Clock of its multiprocessors in MHz.
      type: float
      returned: always
      sample: 1980.0
    clock_sm_max:
      description: Highest clock of its multiprocessors in MHz.
      type: float
      returned: always
      sample: 1980.0
    clock_memory:
      description: Clock of its memory in MHz.
      type: float
      returned: always
      sample: 3201.0
    persistence_mode:
      description: Whether the driver stays loaded while nobody uses the GPU.
      type: bool
      returned: always
      sample: true
    compute_mode:
      description: Who may compute on it, for example V(Default) or V(Prohibited).
      type: str
      returned: always
      sample: Default
    ecc_mode:
      description: Whether its memory is checked for errors.
      type: bool
      returned: always
      sample: true
    ecc:
      description: Memory errors; empty for a lost GPU.
      type: dict
      returned: always
      contains:
        volatile:
          description: Since the driver was loaded.
          type: dict
          returned: always
          contains:
            corrected:
              description: Errors that were corrected.
              type: int
              returned: always
            uncorrected:
              description: Errors that could not be corrected.
              type: int
              returned: always
        aggregate:
          description: Over its life.
          type: dict
          returned: always
          contains:
            corrected:
              description: Errors that were corrected.
              type: int
              returned: always
            uncorrected:
              description: Errors that could not be corrected.
              type: int
              returned: always
    remapped_rows:
      description: Rows of its memory that were replaced; empty for a lost GPU.
      type: dict
      returned: always
      sample: {correctable: 0, uncorrectable: 0}
      contains:
        correctable:
          description: Rows replaced for correctable errors.
          type: int
          returned: always
        uncorrectable:
          description: Rows replaced for uncorrectable errors.
          type: int
          returned: always
    retired_pages:
      description: Pages of memory out of use; V(null) where it replaces rows instead.
      type: dict
      returned: always
      sample: {single_bit: 0, double_bit: 0, pending: false}
      contains:
        single_bit:
          description: Pages retired for several single bit errors.
          type: int
          returned: always
        double_bit:
          description: Pages retired for a double bit error.
          type: int
          returned: always
        pending:
          description: Whether pages are to be retired at the next reboot.
          type: bool
          returned: always
    nvlink:
      description: Its NVLinks; V(null) where there are none to be seen.
      type: dict
      returned: always
      sample: {links: 18, active: 18}
      contains:
        links:
          description:
            - How many there are. V(null) where none is up and C(nvidia-smi) was asked, which then does not count them.
          type: int
          returned: always
        active:
          description: How many of them are up.
          type: int
          returned: always
    pcie:
      description: Its PCIe link; empty for a lost GPU.
      type: dict
      returned: always
      sample: {generation: 5, generation_max: 5, width: 16, width_max: 16}
      contains:
        generation:
          description: Generation in use; lower while it is idle.
          type: int
          returned: always
        generation_max:
          description: Highest generation here.
          type: int
          returned: always
        width:
          description: Lanes in use.
          type: int
          returned: always
        width_max:
          description: Most lanes here.
          type: int
          returned: always
    mig_instances:
      description: Its MIG instances.
      type: list
      elements: dict
      returned: always
      sample: []
      contains:
        uuid:
          description: Identity; V(null) where the source does not say.
          type: str
          returned: always
        gpu_instance:
          description: Number of the GPU instance.
          type: int
          returned: always
        compute_instance:
          description: Number of the compute instance.
          type: int
          returned: always
        memory_used:
          description: Memory in use in MiB.
          type: float
          returned: always
        memory_total:
          description: Memory in MiB.
          type: float
          returned: always
    numa_node:
      description: The NUMA node that its memory is; V(null) where it is none, or the source does not say.
      type: int
      returned: always
      sample: 1
    unavailable:
      description:
        - Why readings are missing, by their name. V(not_available) (N/A), V(not_supported), V(unknown_error),
          V(no_permission), V(lost) or V(requires_reset). These are different things.
      type: dict
      returned: always
      sample: {retired_pending: not_supported}
    utilization:
      description: Share of the time in which a kernel ran, in percent, median of the samples. V(null) with MIG on.
      type: float
      returned: always
      sample: 97.0
    utilization_memory:
      description: Share of the time in which its memory was read or written, in percent, median of the samples.
      type: float
      returned: always
      sample: 41.0
    memory_used:
      description: Memory in use in MiB, median of the samples.
      type: float
      returned: always
      sample: 61173.0
    memory_total:
      description: Memory in MiB.
      type: float
      returned: always
      sample: 81559.0
    power:
      description: Power draw in W, median of the samples.
      type: float
      returned: always
      sample: 605.0
    power_limit:
      description: Power limit in W.
      type: float
      returned: always
      sample: 700.0
    temperature:
      description: Temperature in degrees Celsius.
      type: float
      returned: always
      sample: 64.0
    pstate:
      description: Performance state, from V(P0) (fastest) to V(P15).
      type: str
      returned: always
      sample: P0
    ecc_uncorrected_volatile:
      description: Memory errors since the driver was loaded that could not be corrected.
      type: int
      returned: always
      sample: 0
    clock_reasons:
      description:
        - What held its clocks down in all samples, of C(idle), C(application_clocks), C(sw_power_cap),
          C(hw_slowdown), C(sync_boost), C(sw_thermal_slowdown), C(hw_thermal_slowdown), C(hw_power_brake_slowdown),
          C(display_clocks).
      type: list
      elements: str
      returned: always
      sample: [sw_power_cap]
    remapped_rows_pending:
      description: Whether rows of its memory are to be remapped at its next reset.
      type: bool
      returned: always
      sample: false
    remapped_rows_failure:
      description: Whether remapping has failed, so that the GPU has to be replaced.
      type: bool
      returned: always
      sample: false
    mig_mode:
      description: Whether it is divided into MIG instances.
      type: bool
      returned: always
      sample: false
    recovery_action:
      description: What the driver asks for to recover it, for example V(Reset); drivers before 565 do not say.
      type: str
      returned: always
      sample: None
    coherent:
      description: Whether its memory also belongs to the operating system, as on Grace Hopper.
      type: bool
      returned: always
      sample: false
    processes:
      description: The compute processes on it; V(null) where they could not be listed.
      type: list
      elements: dict
      returned: always
      sample: [{pid: 4711, name: /usr/bin/python3, memory_used: 61169.0, here: true}]
      contains:
        pid:
          description: Number of the process, as the driver gives it.
          type: int
          returned: always
        name:
          description: Its program.
          type: str
          returned: always
        memory_used:
          description: GPU memory that it uses, in MiB.
          type: float
          returned: always
        here:
          description: Whether this process is one of this node, or of this container, and lives.
          type: bool
          returned: always
        cpu_seconds:
          description: CPU time that it spent over the window, in seconds; V(null) where it is not known.
          type: float
          returned: always
    samples:
      description: How many samples this rests on.
      type: int
      returned: always
      sample: 3
    verdict:
      description:
        - V(busy), it works. V(idle), nothing is on it. V(idle_with_process), a process is on it and does not use it.
        - V(wedged), it claims to work and draws no power. V(leaked_memory), memory is in use that nobody uses.
        - V(sick), the driver asks for a reset, or its memory fails. V(lost), it has fallen off the bus.
        - V(unknown), it cannot be told, and RV(gpus[].reason) says why.
      type: str
      returned: always
      sample: busy
    reason:
      description: The verdict in words.
      type: str
      returned: always
      sample: 97 % utilization, 605 W
driver_version:
  description: Version of the driver; V(null) where it did not say.
  type: str
  returned: always
  sample: 570.133.20
source:
  description: Path of the tool or the interpreter that was asked; V(null) where there is none.
  type: str
  returned: always
  sample: /usr/bin/nvidia-smi
method:
  description: How it was asked, V(nvml) or V(nvidia_smi); V(null) where there was nothing to ask.
  type: str
  returned: always
  sample: nvidia_smi
nvml:
  description: Why NVML gave no answer; V(null) where it did or was not asked.
  type: str
  returned: always
  sample: null
left_behind:
  description: Processes of this look that the kernel did not release when they were killed.
  type: list
  elements: dict
  returned: always
  sample: []
  contains:
    pid:
      description: Number of the process.
      type: int
      returned: always
    state:
      description: Its state, for example V(D) for uninterruptible sleep.
      type: str
      returned: always
    wchan:
      description: Where in the kernel it waits.
      type: str
      returned: always
problems:
  description: What is wrong with driver and GPUs, errors first.
  type: list
  elements: dict
  returned: always
  sample: []
  contains:
    code:
      description:
        - Stable name of the problem.
        - Of the tool and the driver, C(no_driver_tool), C(driver_hung), C(driver_not_loaded), C(driver_mismatch),
          C(driver_error), C(no_devices), C(no_permission), C(library_missing), C(library_too_old), C(bad_argument),
          C(not_available), C(not_understood), C(tool_killed), C(power_cable), C(interrupt_problem),
          C(inforom_corrupt), C(no_time), C(nvml_missing),
          C(left_behind).
        - Of one GPU, C(gpu_lost), C(gpu_sick), C(ecc_uncorrected), C(remap_pending), C(throttled),
          C(pcie_degraded), C(unknown_error),
          C(recovery_action_unknown), C(process_unassigned).
      type: str
      returned: always
    message:
      description: The problem in words.
      type: str
      returned: always
    severity:
      description: V(error) or V(warning).
      type: str
      returned: always
    member:
      description: UUID or bus id of the GPU that it is about, or V(null).
      type: str
      returned: always
    offset:
      description: Always V(null).
      type: int
      returned: always
window_seconds:
  description: Seconds from the first sample to the last.
  type: float
  returned: always
  sample: 1.021
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu import Thresholds, collect

THRESHOLDS = (
    "busy_utilization",
    "wedged_utilization",
    "wedged_power_fraction",
    "wedged_memory_utilization",
    "wedged_tensor_activity",
    "progress_age",
    "leaked_memory",
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
            "source": {"type": "str", "choices": ["auto", "nvml", "nvidia_smi"], "default": "auto"},
            "python": {"type": "path"},
            "progress_file": {"type": "path"},
            "timeout": {"type": "float", "default": 10},
            "samples": {"type": "int", "default": 3},
            "interval": {"type": "float", "default": 0.5},
            "busy_utilization": {"type": "float", "default": 5},
            "wedged_utilization": {"type": "float", "default": 90},
            "wedged_power_fraction": {"type": "float", "default": 0.25},
            "wedged_memory_utilization": {"type": "float", "default": 5},
            "wedged_tensor_activity": {"type": "float", "default": 1},
            "progress_age": {"type": "float", "default": 60},
            "leaked_memory": {"type": "float", "default": 1024},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        report = collect(
            params["nvidia_smi"],
            timeout=params["timeout"],
            samples=params["samples"],
            interval=params["interval"],
            thresholds=Thresholds(**{name: params[name] for name in THRESHOLDS}),
            source=params["source"],
            python=params["python"],
            progress_file=params["progress_file"],
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **report.as_dict())


if __name__ == "__main__":
    main()

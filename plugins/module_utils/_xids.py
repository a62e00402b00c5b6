# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the XIDs of the NVIDIA driver mean, and what to do about each: data only.

Names are those of the driver's ``nverror.h`` (595.45.04) and of NVIDIA's XID catalog, without ROBUST_CHANNEL; those of
173 to 176 describe the code. ``agreed`` says whether NVIDIA
and the tools that name the code treat it alike; ``source`` says how each of them treats it. This util is private to the
collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

IGNORE = "ignore"
RESTART_APP = "restart_app"
DRAIN = "drain"
RESET = "reset"
REBOOT = "reboot"
REPLACE = "replace"
# From the least to the most that may be needed. To drain is to take no new work, and to reset when the rest has ended.
ACTIONS = (IGNORE, RESTART_APP, DRAIN, RESET, REBOOT, REPLACE)


@dataclass(frozen=True)
class Xid:
    """One code: its name in the driver, its meaning, and what to do about it."""

    code: int
    name: str
    meaning: str
    action: str
    agreed: bool
    source: str


_ROWS = (
    (8, "FIFO_ERROR_IDLE_TIMEOUT", "a channel made no progress", RESTART_APP, False,
     "NVIDIA restart, gpud warn, gcm critical"),
    (13, "GR_EXCEPTION", "graphics engine exception, such as an address out of range", RESTART_APP, True,
     "NVIDIA restart, gpud and gcm warn, AWS monitor"),
    (31, "FIFO_ERROR_MMU_ERR_FLT", "a program touched memory that is not mapped", RESTART_APP, True,
     "NVIDIA restart, DCGM, gpud and gcm warn, AWS monitor"),
    (32, "PBDMA_ERROR", "bad stream of commands", RESTART_APP, False,
     "NVIDIA restart, DCGM warn, gpud fatal, gcm critical"),
    (38, "FECS_ERR_WATCHDOG_TIMEOUT", "firmware watchdog of the graphics engine", IGNORE, False,
     "NVIDIA ignore, DCGM warn, gpud fatal, gcm critical"),
    (39, "CE0_ERROR", "copy engine exception", RESTART_APP, False, "NVIDIA restart, DCGM calls it a PCIe event"),
    (43, "RESETCHANNEL_VERIF_ERROR", "a channel was stopped after a fault of its program", IGNORE, True,
     "NVIDIA ignore, DCGM, gpud and gcm warn, AWS monitor"),
    (44, "GR_FAULT_DURING_CTXSW", "fault during a context switch", IGNORE, False,
     "NVIDIA ignore, gpud fatal, gcm critical"),
    (45, "PREEMPTIVE_REMOVAL", "cleanup of channels after another error or a kill", IGNORE, True,
     "NVIDIA follow the cause, gpud ignore, gcm warn"),
    (46, "GPU_TIMEOUT_ERROR", "the GPU stopped processing", RESET, True, "NVIDIA reset, gpud fatal, gcm critical"),
    (48, "GPU_ECC_DBE", "double-bit ECC error", RESET, True,
     "NVIDIA workflow, DCGM fail, gpud fatal, AWS reset, gcm critical, Azure and imbue fail"),
    (54, "PWR_REDUCED_CLOCKING", "auxiliary power is not connected", REPLACE, False,
     "NVIDIA check the mechanics, DCGM and gpud warn, AWS isolate, gcm critical"),
    (56, "DISPLAY_CHANNEL_EXCEPTION", "error of the display engine", IGNORE, False,
     "NVIDIA unused, DCGM calls it a clock event, Azure fail"),
    (57, "FB_LINK_TRAINING_FAILURE_ERROR", "video memory could not be set up", RESET, False,
     "NVIDIA unused, DCGM calls it a clock event, Azure fail"),
    (58, "FB_MEMORY_ERROR", "video memory is unstable", RESET, False,
     "NVIDIA unused, DCGM calls it a clock event, Azure fail"),
    (61, "PMU_BREAKPOINT", "power management controller stopped at a breakpoint", RESET, False,
     "NVIDIA support, DCGM warn, gpud fatal, gcm critical"),
    (62, "PMU_HALT_ERROR", "power management controller halted", RESET, False,
     "NVIDIA reset, DCGM warn, gpud fatal, gcm critical, Azure and imbue fail"),
    (63, "INFOROM_DRAM_RETIREMENT_EVENT", "a row of memory is to be remapped at the next reset", IGNORE, False,
     "NVIDIA ignore, DCGM and gcm warn, gpud fatal, AWS monitor, Azure and imbue fail"),
    (64, "INFOROM_DRAM_RETIREMENT_FAILURE", "a row of memory could not be remapped", REPLACE, False,
     "NVIDIA reset and support, DCGM fail, gpud fatal, AWS isolate, gcm critical, Azure and imbue fail"),
    (65, "NVENC1_ERROR", "video encoder exception", RESTART_APP, False, "NVIDIA unused, Azure fail"),
    (68, "NVDEC0_ERROR", "video decoder exception", RESTART_APP, False,
     "NVIDIA restart, gpud fatal, gcm warn, Azure and imbue fail"),
    (69, "GR_CLASS_ERROR", "graphics engine class error", RESTART_APP, False,
     "NVIDIA restart, gpud fatal, gcm critical, Azure and imbue fail"),
    (73, "NVENC2_ERROR", "video encoder exception", RESTART_APP, False, "NVIDIA unused, Azure fail"),
    (74, "NVLINK_ERROR", "NVLink error", RESET, True,
     "NVIDIA workflow, DCGM fail, gpud fatal, AWS reset, gcm critical, Azure and imbue fail"),
    (79, "GPU_HAS_FALLEN_OFF_THE_BUS", "the GPU cannot be reached over PCIe", REBOOT, True,
     "NVIDIA and AWS reboot, DCGM fail, gpud fatal, gcm critical, Azure and imbue fail"),
    (80, "PBDMA_PUSHBUFFER_CRC_MISMATCH", "corrupt data was sent to the GPU", RESTART_APP, False,
     "NVIDIA restart, Azure fail"),
    (81, "VGA_SUBSYSTEM_ERROR", "VGA subsystem error", IGNORE, False, "NVIDIA unused, Azure fail"),
    (92, "EXCESSIVE_SBE_INTERRUPTS", "many corrected single-bit ECC errors", IGNORE, False,
     "NVIDIA and gpud ignore, AWS monitor, gcm warn, Azure and imbue fail"),
    (94, "CONTAINED_ERROR", "uncorrectable memory error, contained in one program", RESTART_APP, False,
     "NVIDIA restart, DCGM warn, gpud fatal, AWS monitor, gcm critical, imbue fail"),
    (95, "UNCONTAINED_ERROR", "uncorrectable memory error that any program may have read", RESET, True,
     "NVIDIA and AWS reset, DCGM fail, gpud fatal, gcm critical, imbue fail"),
    (109, "CTXSW_TIMEOUT_ERROR", "a context switch did not end", RESET, False,
     "NVIDIA and AWS reset, gpud and gcm warn"),
    (110, "SEC_FAULT_ERROR", "security fault", RESET, True,
     "NVIDIA and AWS reset, gpud fatal, gcm critical, imbue fail"),
    (119, "GSP_RPC_TIMEOUT", "the GPU's system processor gave no answer", RESET, True,
     "NVIDIA and AWS reset, DCGM fail, gpud fatal, gcm critical, Azure and imbue fail"),
    (120, "GSP_ERROR", "the GPU's system processor failed", RESET, True,
     "NVIDIA and AWS reset, DCGM fail, gpud fatal, gcm critical, Azure and imbue fail"),
    (121, "C2C_ERROR", "corrected error of the link between Grace and Hopper", IGNORE, False,
     "NVIDIA ignore, DCGM warn, gpud fatal, AWS monitor, gcm critical"),
    (136, "ALI_TRAINING_FAIL", "training of an NVLink failed", RESET, False,
     "NVIDIA and AWS reset, gpud warn, gcm critical"),
    (137, "NVLINK_PRIV_ERR", "a program had no right to access over NVLink", IGNORE, False,
     "NVIDIA ignore, DCGM and gpud warn, gcm critical"),
    (140, "UNRECOVERABLE_ECC_ERROR_ESCAPE", "ECC error that was not recovered", RESET, True,
     "NVIDIA and AWS reset, DCGM fail, gpud fatal, gcm critical"),
    (143, "GPU_INIT_ERROR", "the GPU could not be initialized", RESET, True,
     "NVIDIA and AWS reset, gpud fatal, gcm critical"),
    (144, "NVLINK_SAW_ERROR", "NVLink 5 error", RESET, False,
     "NVIDIA workflow, gpud by rule, AWS monitor, gcm critical"),
    (145, "NVLINK_RLW_ERROR", "NVLink 5 error", RESET, False,
     "NVIDIA workflow, gpud by rule, AWS monitor, gcm critical"),
    (146, "NVLINK_TLW_ERROR", "NVLink 5 error", RESET, False,
     "NVIDIA workflow, gpud by rule, AWS monitor, gcm critical"),
    (147, "NVLINK_TREX_ERROR", "NVLink 5 error", RESET, False,
     "NVIDIA workflow, gpud by rule, AWS monitor, gcm critical"),
    (148, "NVLINK_NVLPW_CTRL_ERROR", "NVLink 5 error", RESET, False,
     "NVIDIA workflow, gpud by rule, AWS monitor, gcm critical"),
    (149, "NVLINK_NETIR_ERROR", "NVLink 5 error", RESET, False,
     "NVIDIA workflow, gpud by rule, AWS monitor, gcm critical"),
    (150, "NVLINK_MSE_ERROR", "NVLink 5 error", RESET, False,
     "NVIDIA workflow, gpud by rule, AWS monitor, gcm critical"),
    (151, "KEY_ROTATION_ERROR", "keys of confidential computing could not be changed", REBOOT, False,
     "NVIDIA and AWS reboot, gpud warn, gcm critical"),
    (154, "GPU_RECOVERY_ACTION_CHANGED", "what the driver itself asks for, in its text", IGNORE, False,
     "NVIDIA and AWS by its text, gpud warn, gcm critical"),
    (155, "NVLINK_SW_DEFINED_ERROR", "NVLink error that software defines", RESET, False,
     "NVIDIA and AWS reset, gpud warn or reboot, gcm critical"),
    (156, "RESOURCE_RETIREMENT_EVENT", "a part of the GPU is to be retired at the next reset", RESET, False,
     "NVIDIA and AWS reset, gpud warn or reboot, gcm critical"),
    (157, "RESOURCE_RETIREMENT_FAILURE", "a part of the GPU could not be retired", DRAIN, False,
     "NVIDIA ignore and support, gpud info, AWS monitor, gcm critical"),
    (158, "GPU_FATAL_TIMEOUT", "the GPU gave no answer in time", RESET, False,
     "NVIDIA and AWS reset, gpud warn or reboot, gcm critical"),
    (159, "CHI_NON_DATA_ERROR", "error of the bus to Grace", RESET, False,
     "NVIDIA and AWS reset with unified memory, gpud warn, gcm critical"),
    (167, "PCIE_FATAL_TIMEOUT", "a PCIe transfer did not end", REBOOT, False, "gpud reboot, gcm critical"),
    (168, "REDUCED_GPU_MEMORY_CAPACITY", "less memory after errors in a protected region", REBOOT, False,
     "NVIDIA boot again or enable ECC, gpud warn, AWS reboot, gcm critical"),
    (171, "UNCORRECTABLE_DRAM_ERROR", "detail of code 48: DRAM", RESET, False, "gpud warn or reboot, gcm critical"),
    (172, "UNCORRECTABLE_SRAM_ERROR", "detail of code 48: SRAM", RESET, False, "gpud warn or reboot, gcm critical"),
    (173, "C2C_FATAL_LINK_FAILURE", "the link between Grace and Hopper failed", REBOOT, True,
     "gpud reboot, gcm critical"),
    (174, "KILL_PROCESS_SILENT", "the driver ended a process", RESTART_APP, False, "gcm critical only"),
    (175, "MEMORY_SUBSYSTEM_ERROR", "error of the memory subsystem", DRAIN, False, "gcm critical only"),
    (176, "PCIE_CORRECTABLE_ERROR", "corrected PCIe error", IGNORE, False, "gcm critical only"),
)  # fmt: skip

XIDS: Dict[int, Xid] = {row[0]: Xid(*row) for row in _ROWS}

# Of XID 154, by its words. Drivers since 600 write some of them anew.
RECOVERY_ACTIONS: Dict[str, str] = {
    "none": IGNORE,
    "gpu reset required": RESET,
    "pf flr": RESET,
    "node reboot required": REBOOT,
    "os reboot": REBOOT,
    "drain p2p": DRAIN,
    "drain and reset": DRAIN,
    "recover imex domain": DRAIN,
}

# Lines with one code on one GPU that follow each other within this many seconds are one incident.
INCIDENT_GAP = 1.0
DAY = 86400.0


@dataclass(frozen=True)
class RepeatRule:
    """What it means when one place fails again.

    ``codes`` is None for all codes. ``unit`` is what must be the same: ``gpu``, ``tpc`` (a part of the GPU) or
    ``link``. At least ``count`` incidents within ``window`` seconds are a hit.
    """

    name: str
    codes: Optional[Tuple[int, ...]]
    unit: str
    count: int
    window: float
    action: str
    meaning: str
    source: str


REPEAT_RULES = (
    RepeatRule(
        "same_tpc", (13,), "tpc", 2, DAY, DRAIN,
        "graphics exceptions on the same unit: the hardware rather than the program; run diagnostics",
        "NVIDIA XID catalog, code 13",
    ),
    RepeatRule(
        "same_gpu", (31,), "gpu", 2, DAY, DRAIN,
        "page faults on the same GPU: the hardware if another GPU runs the program well; run diagnostics",
        "NVIDIA XID catalog, code 31",
    ),
    RepeatRule(
        "same_link", (74,), "link", 3, DAY, DRAIN,
        "errors of the same NVLink more than twice: the link or its partner; run diagnostics",
        "NVIDIA XID catalog, code 74",
    ),
    RepeatRule(
        "burst", None, "gpu", 10, 300.0, DRAIN,
        "the same code on the same GPU again and again: a restart does not help",
        "own choice",
    ),
)  # fmt: skip


def worse(one: Optional[str], other: Optional[str]) -> Optional[str]:
    """The action of two that does more; None is less than any."""
    return max((one, other), key=lambda action: -1 if action is None else ACTIONS.index(action))

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel log of a node: a file as rsyslog keeps it, since the nodes share the machine's own kernel."""

from __future__ import annotations

import datetime
import os
import pathlib
import re
import time
from typing import Iterable, List, Optional, Sequence, Tuple

from lab.instance import Node
from lab.nodes.base import Driver

KERNEL = "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115) (gcc-13 (Ubuntu 13.2.0)) #45-Ubuntu SMP"
BOOT: Tuple[Tuple[float, str], ...] = (
    (0.0, KERNEL),
    (0.0, "Command line: BOOT_IMAGE=/vmlinuz-6.8.0-45-generic root=UUID=0f3a ro console=tty1 console=ttyS0"),
    (0.021377, "Memory: 1056463612K/1073741824K available"),
    (4.118204, "EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Quota mode: none."),
    (11.902716, "nvidia: loading out-of-tree module taints kernel."),
    (12.340995, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sun Mar 30 03:30:49 UTC 2025"),
    (13.006431, "nvidia-uvm: Loaded the UVM driver, major device number 508."),
)


def boot_time() -> float:
    """When this machine, and so every node, was started."""
    match = re.search(r"^btime (\d+)$", pathlib.Path("/proc/stat").read_text(), re.M)
    return float(match.group(1)) if match else 0.0


def line(host: str, moment: float, text: str, boot: Optional[float] = None) -> str:
    """A line of the classic form, with the kernel's own stamp of that boot."""
    when = datetime.datetime.fromtimestamp(moment)
    stamp = max(0.0, moment - (boot_time() if boot is None else boot))
    return f"{when:%b} {when.day:2d} {when:%H:%M:%S} {host} kernel: [{stamp:12.6f}] {text}\n"


def beginning(host: str, boot: Optional[float] = None) -> str:
    """What the kernel says when it starts."""
    start = boot_time() if boot is None else boot
    return "".join(line(host, start + seconds, text, start) for seconds, text in BOOT)


def install(driver: Driver, node: Node) -> None:
    """Give a node that is not started yet its log."""
    driver.put(node, driver.kernel_log(node), beginning(node.name), 0o644)


def write(driver: Driver, node: Node, texts: Iterable[str], moment: Optional[float] = None) -> None:
    """Let the kernel of the node say something, now or at another moment of this boot."""
    when = time.time() if moment is None else moment
    with open(path(driver, node), "a") as stream:
        stream.writelines(line(node.name, when, text) for text in texts)


def write_before(driver: Driver, node: Node, texts: Sequence[str]) -> None:
    """Let it have said something two hours before this boot, in a boot of six hours."""
    boot, log = boot_time(), path(driver, node)
    earlier, moment = boot - 8 * 3600, boot - 2 * 3600
    old: List[str] = [beginning(node.name, earlier), *(line(node.name, moment, text, earlier) for text in texts)]
    old.append(line(node.name, boot - 60, "reboot: Restarting system", earlier))
    staged = log.with_name(log.name + ".new")
    staged.write_text("".join(old) + log.read_text())
    os.replace(staged, log)


def reset(driver: Driver, node: Node) -> None:
    """Nothing but the start of this boot."""
    path(driver, node).write_text(beginning(node.name))


def path(driver: Driver, node: Node) -> pathlib.Path:
    return driver.path(node, driver.kernel_log(node))


def bus_id(node: Node) -> str:
    """The node's GPU, as the driver writes it."""
    return "0009:3b:00" if node.gpu.startswith("gh200") else "0000:3b:00"

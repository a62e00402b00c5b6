# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that NVIDIA's drivers write into the kernel log: XIDs, SXids and lost GPUs.

A message must begin with what the driver writes first, so that a process whose name looks like such a line is none.
Every expression is bounded, nothing here raises. This util is private to the collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Optional, Union

MAX_LINE = 2000
# As the kernel has it, with room for drivers that keep more of it.
MAX_NAME = 100

_BUS = r"(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2,4}:[0-9a-fA-F]{2}"
_XID = re.compile(
    rf"\ANVRM: Xid \((?:PCI:)?({_BUS})(?:\.[0-7])?(?: GPU-I:(\d{{1,5}}))?(?: GPU-CI:(\d{{1,5}}))?\): "
    r"(\d{1,6})(?:, |,?\Z)",
    re.ASCII,
)
# A place that is written in another way does not take away the code.
_XID_ANYWHERE = re.compile(r"\ANVRM: Xid \([^()\n]{0,80}\): (\d{1,6})(?:, |,?\Z)", re.ASCII)
_PID = re.compile(r"\Apid=(?:(\d{1,10})|'?<unknown>'?)(?:, |\Z)", re.ASCII)
_CAUSED_BY = re.compile(r" ?caused by previous Xid (\d{1,6})\Z", re.ASCII)
_RECOVERY = re.compile(
    r"\AGPU recovery action changed from 0x[0-9a-fA-F]{1,8} \(([^()\n]{1,60})\) "
    r"to 0x[0-9a-fA-F]{1,8} \(([^()\n]{1,60})\)",
    re.ASCII,
)
_PLACE = re.compile(r"\(GPC (\d{1,4}), TPC (\d{1,4}), SM (\d{1,4})\)", re.ASCII)
_LINK = re.compile(r"\b[Ll]ink (-?\d{1,4})\b", re.ASCII)
_RESETS = re.compile(r"\bRST: (Yes|No), D-RST: (Yes|No)", re.ASCII)
_NVLINK5 = re.compile(
    r"\A([A-Z0-9_/]{1,60}) {1,8}(Fatal|Nonfatal) {1,8}XC\d {1,8}i\d{1,3} {1,8}"
    r"Link (-?\d{1,4}) {1,8}\((0x[0-9a-fA-F]{1,8})",
    re.ASCII,
)
_SXID = re.compile(
    rf"\Anvidia-nvswitch(\d{{1,4}}): SXid \(PCI:({_BUS})(?:\.[0-7])?\): (\d{{1,6}}), "
    r"(?:(Fatal|Non-fatal)(?:, |\Z))?(?:Link (\d{1,4})\b)?",
    re.ASCII,
)
_LOST = (
    re.compile(rf"\ANVRM: GPU ({_BUS})(?:\.[0-7])?: GPU has fallen off the bus\b", re.ASCII),
    re.compile(
        rf"\ANVRM: The NVIDIA GPU ({_BUS})(?:\.[0-7])?\s[^\x00]{{0,300}}?fallen off the bus and is not responding",
        re.ASCII,
    ),
)
# The same in records of their own.
_LOST_BEGINS = re.compile(rf"\ANVRM: The NVIDIA GPU ({_BUS})(?:\.[0-7])?(?:\s|\Z)", re.ASCII)
_LOST_ENDS = re.compile(r"\ANVRM: fallen off the bus and is not responding", re.ASCII)
_IDENTITY = re.compile(rf"\ANVRM: GPU at (?:PCI:)?({_BUS})(?:\.[0-7])?: (GPU-[0-9a-fA-F-]{{1,60}})\s*\Z", re.ASCII)


@dataclass(frozen=True)
class XidLine:
    """One XID. None is what the line does not say; ``pid`` and ``process_name`` are those of the channel's owner.

    ``unit`` is the part of the GPU, such as ``GPC 1, TPC 4, SM 0``; ``link`` the number of the NVLink. ``needs_reset``
    and ``needs_drain`` are what a memory error says of itself; ``fatal`` and ``subcode`` are of NVLink 5.
    """

    code: int
    bus_id: Optional[str] = None
    gpu_instance: Optional[int] = None
    compute_instance: Optional[int] = None
    pid: Optional[int] = None
    process_name: Optional[str] = None
    details: str = ""
    caused_by: Optional[int] = None
    recovery_action: Optional[str] = None
    unit: Optional[str] = None
    link: Optional[int] = None
    needs_reset: Optional[bool] = None
    needs_drain: Optional[bool] = None
    fatal: Optional[bool] = None
    subcode: Optional[int] = None


@dataclass(frozen=True)
class SxidLine:
    """One SXid of an NVSwitch; ``fatal`` is None on the lines with registers that follow it."""

    code: int
    switch: int
    bus_id: str
    fatal: Optional[bool]
    link: Optional[int]


@dataclass(frozen=True)
class LostLine:
    """A GPU has fallen off the bus. ``part`` is ``begin`` or ``end`` where that takes several records."""

    bus_id: Optional[str]
    part: Optional[str] = None


@dataclass(frozen=True)
class IdentityLine:
    """The UUID of a GPU, which the driver writes before the first XID."""

    bus_id: str
    uuid: str


Line = Union[XidLine, SxidLine, LostLine, IdentityLine]


def parse(message: str) -> Optional[Line]:
    """What a message of the kernel log says of a GPU; None when it is no such line.

    :param message: the message without time and facility
    """
    message = message[:MAX_LINE].rstrip()
    if message.startswith("NVRM: "):
        return _parse_nvrm(message)
    match = _SXID.match(message)
    if match is None:
        return None
    switch, bus, code, fatal, link = match.groups()
    return SxidLine(int(code), int(switch), normal_bus(bus), None if fatal is None else fatal == "Fatal", _number(link))


def is_xid(message: str) -> bool:
    """Whether a message begins like an XID, even if the rest cannot be read."""
    return message.startswith("NVRM: Xid")


def normal_bus(bus: str) -> str:
    """One spelling for each GPU: ``0000:b3:00``, whatever zeros, case and function the driver writes."""
    domain, _colon, rest = bus.rpartition(":")[0].rpartition(":")
    device = bus.rpartition(":")[2]
    if not domain and len(rest) > 2:
        # The oldest drivers have domain and bus in one.
        domain, rest = rest[:-2], rest[-2:]
    return f"{int(domain or '0', 16):04x}:{int(rest, 16):02x}:{device.lower()}"


def _parse_nvrm(message: str) -> Optional[Line]:
    if is_xid(message):
        return _parse_xid(message)
    match = _IDENTITY.match(message)
    if match:
        return IdentityLine(normal_bus(match.group(1)), match.group(2))
    for pattern in _LOST:
        match = pattern.match(message)
        if match:
            return LostLine(normal_bus(match.group(1)))
    match = _LOST_BEGINS.match(message)
    if match:
        return LostLine(normal_bus(match.group(1)), "begin")
    return LostLine(None, "end") if _LOST_ENDS.match(message) else None


def _parse_xid(message: str) -> Optional[XidLine]:
    # A newline can only come from what a process chose, and everything of interest is on the first line.
    message = message.split("\n", 1)[0]
    match = _XID.match(message)
    if match is None:
        match = _XID_ANYWHERE.match(message)
        if match is None:
            return None
        bus, instance, compute, code = None, None, None, int(match.group(1))
    else:
        bus, instance, compute = normal_bus(match.group(1)), _number(match.group(2)), _number(match.group(3))
        code = int(match.group(4))
    details = message[match.end() :]
    pid = name = None
    owner = _PID.match(details)
    if owner:
        pid = _number(owner.group(1))
        details = details[owner.end() :]
        if details.startswith("name="):
            name, _comma, details = details[len("name=") :].partition(", ")
            name = None if name == "<unknown>" else name[:MAX_NAME]
    return XidLine(code, bus, instance, compute, pid, name, details, **_read_details(code, details))


def _read_details(code: int, details: str) -> Dict[str, Any]:
    """What a code says beyond its head; only of the codes that say it."""
    found: Dict[str, Any] = {}
    if code == 45:
        match = _CAUSED_BY.search(details[-60:])
        found["caused_by"] = int(match.group(1)) if match else None
    elif code == 154:
        match = _RECOVERY.match(details)
        found["recovery_action"] = match.group(2) if match else None
    elif code == 13:
        match = _PLACE.search(details)
        found["unit"] = "GPC {}, TPC {}, SM {}".format(*match.groups()) if match else None
    elif code == 74:
        match = _LINK.search(details)
        found["link"] = int(match.group(1)) if match else None
    elif code in (94, 95):
        match = _RESETS.search(details)
        if match:
            found["needs_reset"], found["needs_drain"] = (word == "Yes" for word in match.groups())
    elif 144 <= code <= 150:
        match = _NVLINK5.match(details)
        if match:
            found["fatal"] = match.group(2) == "Fatal"
            found["link"] = int(match.group(3))
            found["subcode"] = int(match.group(4), 16) >> 20 & 0x3F
    return found


def _number(text: Optional[str]) -> Optional[int]:
    return None if text is None else int(text)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which systemd unit and which container a process belongs to, by its control group.

Both versions of control groups are read: ``/proc/<pid>/cgroup`` has a line for each hierarchy of version 1, of which
``name=systemd`` is the one that systemd keeps, and one with the number 0 for version 2. This util is private to the
collection.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Dict, FrozenSet, List, Optional

MAX_TEXT = 64 * 1024
MAX_MOUNTS = 1 << 20
# A group of a training has few others below it; one of a whole machine has thousands.
MAX_GROUPS = 256

SYSTEMD = "name=systemd"
FROZEN_V1 = "freezer"
UNIT = re.compile(r"\A(?=[^-])[A-Za-z0-9:_.\\@-]{1,250}\.(?:service|scope)\Z")
USER_MANAGER = re.compile(r"\Auser@[0-9]+\.service\Z")
ID = "([0-9a-f]{64})"
# By what stands before the id of the container; Kubernetes itself names only the pod.
CONTAINERS = (
    ("docker", re.compile(rf"(?:\A|/|:)docker[-/:]{ID}(?:\.scope)?(?:/|\Z)")),
    ("podman", re.compile(rf"(?:\A|/)libpod(?:-conmon)?-{ID}(?:\.scope)?(?:/|\Z)")),
    ("containerd", re.compile(rf"(?:\A|/|:)(?:cri-)?containerd[-/:]{ID}(?:\.scope)?(?:/|\Z)")),
    ("cri-o", re.compile(rf"(?:\A|/|:)crio[-/:]{ID}(?:\.scope)?(?:/|\Z)")),
    ("kubernetes", re.compile(rf"/kubepods[^/]*/(?:.*/)?{ID}(?:/|\Z)")),
    ("lxc", re.compile(r"(?:\A|/)lxc(?:\.payload)?[./]([A-Za-z0-9_.-]{1,63})(?:/|\Z)")),
)


@dataclass(frozen=True)
class Group:
    """Where a process stands.

    ``unit`` is the innermost service or scope, ``user_unit`` whether a user's own systemd runs it rather than that of
    the machine. ``container`` is ``<runtime>://<id>``. ``paths`` are its groups by hierarchy, version 2 as ``""``.
    """

    unit: Optional[str] = None
    user_unit: bool = False
    container: Optional[str] = None
    paths: Optional[Dict[str, str]] = None

    @property
    def unit_path(self) -> Optional[str]:
        """The group of the unit itself, in the hierarchy that systemd keeps."""
        path = _systemd_path(self.paths or {})
        parts = path.split("/") if path and self.unit else []
        return "/".join(parts[: len(parts) - parts[::-1].index(self.unit)]) if self.unit in parts else None


def read(pid: int) -> Group:
    """The group of a process; an empty one when it is gone or may not be seen."""
    return parse(_text(f"/proc/{pid}/cgroup", MAX_TEXT))


def parse(text: str) -> Group:
    """Read the lines of ``/proc/<pid>/cgroup``."""
    paths: Dict[str, str] = {}
    for line in text.splitlines():
        _number, _colon, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and path.startswith("/"):
            for controller in controllers.split(","):
                paths[controller] = path
    parts = [part for part in (_systemd_path(paths) or "").split("/") if part]
    unit = next((part for part in reversed(parts) if UNIT.match(part)), None)
    user_unit = any(USER_MANAGER.match(part) for part in parts) and not USER_MANAGER.match(unit or "")
    return Group(unit, user_unit, _container(paths), paths)


def members(hierarchy: str, path: str) -> Optional[FrozenSet[int]]:
    """The processes of a group and of those below it; None when they cannot be told.

    :param hierarchy: a controller or ``name=systemd``; ``""`` for version 2
    """
    root = mount_of(hierarchy)
    if root is None:
        return None
    found: List[int] = []
    waiting = [os.path.normpath(f"{root}/{path}")]
    for _turn in range(MAX_GROUPS):
        if not waiting:
            return frozenset(found)
        folder = waiting.pop()
        try:
            with open(f"{folder}/cgroup.procs") as stream:
                found += [int(line) for line in stream.read(1 << 20).split()]
            waiting += [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except (OSError, ValueError):
            return None
    return None


def unit_members(group: Group) -> Optional[FrozenSet[int]]:
    """The processes of the unit that a process belongs to; None when they cannot be told."""
    path, paths = group.unit_path, group.paths or {}
    if path is None:
        return None
    return members(SYSTEMD if paths.get(SYSTEMD) == _systemd_path(paths) else "", path)


def frozen_by(pid: int) -> Optional[str]:
    """The file that thaws a process whose group of version 1 is frozen; SIGKILL waits for that. None otherwise."""
    path = (read(pid).paths or {}).get(FROZEN_V1)
    root = mount_of(FROZEN_V1) if path else None
    # A group is frozen with the one above it, and is thawed there.
    while root and path and path != "/":
        folder = f"{root}{path}"
        if _text(f"{folder}/freezer.self_freezing", 16).strip() == "1":
            return f"{folder}/freezer.state"
        path = os.path.dirname(path)
    return None


def mount_of(hierarchy: str) -> Optional[str]:
    """Where a hierarchy is mounted; None when it is not, or only in part."""
    for line in _text("/proc/self/mountinfo", MAX_MOUNTS).splitlines():
        before, _dash, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) < 5 or len(more) < 3 or fields[3] != "/":
            continue
        wanted = more[0] == "cgroup2" if not hierarchy else more[0] == "cgroup" and hierarchy in more[2].split(",")
        if wanted:
            return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
    return None


def _systemd_path(paths: Dict[str, str]) -> Optional[str]:
    """The path in the hierarchy of systemd; that of version 2 where the other does not tell."""
    named = paths.get(SYSTEMD)
    return named if named not in (None, "/") else paths.get("", named)


def _container(paths: Dict[str, str]) -> Optional[str]:
    for path in paths.values():
        for runtime, pattern in CONTAINERS:
            match = pattern.search(path)
            if match:
                return f"{runtime}://{match.group(1)}"
    return None


def _text(path: str, limit: int) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""

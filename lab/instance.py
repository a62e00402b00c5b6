# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab consists of, and the file that remembers it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Iterator, List, Optional

from lab.errors import LabError
from lab.processes import Mark, boot_id

VERSION = 1
STATE = "instance.json"
ROOT = pathlib.Path(__file__).resolve().parent.parent


@dataclass
class Node:
    """A machine of the lab. Paths are as the node itself sees them."""

    name: str
    group: str
    gpu: str
    address: str = "127.0.0.1"
    p2p_port: int = 8770
    health_port: int = 8790
    home: str = "/root"
    service: str = "/root/ringrift/ai-service"
    nvidia_smi: str = "/usr/local/bin/nvidia-smi"
    netns: str = ""
    interface: str = ""
    supervisor: Optional[Mark] = None
    init: Optional[Mark] = None

    @property
    def trains(self) -> bool:
        return self.group != "coordinator"


@dataclass
class Instance:
    """A lab: its parameters, its nodes and how far it has come."""

    directory: pathlib.Path
    driver: str
    api: str = "ringrift"
    config: str = "hex8_2p"
    training: bool = True
    phase: str = "starting"
    boot: str = ""
    bridge: str = ""
    subnet: str = ""
    nodes: List[Node] = field(default_factory=list)

    @property
    def id(self) -> str:
        return instance_id(self.directory)

    @property
    def coordinator(self) -> Node:
        return next(node for node in self.nodes if not node.trains)

    @property
    def training_nodes(self) -> List[Node]:
        return [node for node in self.nodes if node.trains]

    @property
    def inventory(self) -> pathlib.Path:
        return self.directory / "inventory" / "hosts.yml"

    @property
    def key(self) -> pathlib.Path:
        return self.directory / "keys" / "id_ed25519"

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise LabError(f"The lab has no node {name!r}; it has {known}.")

    def home(self, node: Node) -> pathlib.Path:
        """What the lab keeps of a node, on this machine."""
        return self.directory / "nodes" / node.name

    def save(self) -> None:
        """Write the state beside the old one and put it in its place."""
        data = asdict(self)
        del data["directory"]
        staged = self.directory / (STATE + ".new")
        staged.write_text(json.dumps({"version": VERSION, **data}, indent=1) + "\n")
        os.replace(staged, self.directory / STATE)


def instance_id(directory: pathlib.Path) -> str:
    """Six hexadecimal digits that name the bridge and the namespaces of the lab in this directory."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:6]


def default_dir() -> pathlib.Path:
    """RINGRIFT_LAB_DIR, else a directory of this user."""
    return pathlib.Path(os.environ.get("RINGRIFT_LAB_DIR") or f"/var/tmp/ringrift-lab-{os.getuid()}")


def check_dir(path: pathlib.Path) -> pathlib.Path:
    """The resolved directory of a lab, or a refusal of a place where no lab can be."""
    resolved = pathlib.Path(os.path.realpath(path))
    # Overlay options, ssh options and the inventory all carry this path.
    if not re.fullmatch(r"/[A-Za-z0-9._+@/-]+", str(resolved)):
        raise LabError(f"--dir {str(resolved)!r}: use only letters, digits and . _ + @ - in the path.")
    if resolved == ROOT or ROOT in resolved.parents or resolved in ROOT.parents:
        raise LabError(
            f"--dir {resolved} and the checkout {ROOT} must not contain each other; /var/tmp is a good place."
        )
    return resolved


def load(directory: pathlib.Path) -> Optional[Instance]:
    """The lab in this directory, or None when there is none."""
    path = directory / STATE
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as exc:
        raise LabError(f"{path} belongs to another user; choose a directory of your own with --dir.") from exc
    try:
        data = json.loads(text)
        if data.pop("version") != VERSION:
            raise ValueError("it was written by another version of the lab")
        nodes = [_node(entry) for entry in data.pop("nodes")]
        return Instance(directory=directory, nodes=nodes, **data)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        way = f"`python -m lab down --dir {directory}` removes this lab"
        raise LabError(f"{path} cannot be used ({exc}); {way}.") from exc


def _node(data: Dict[str, Any]) -> Node:
    marks = {name: Mark(**data[name]) for name in ("supervisor", "init") if data.get(name)}
    return Node(**{**data, **marks})


def require(directory: pathlib.Path) -> Instance:
    """The lab in this directory, which must be up."""
    instance = load(directory)
    if instance is None:
        raise LabError(f"No lab is up in {directory}. Start one: python -m lab up --dir {directory}")
    if instance.boot != boot_id():
        raise LabError(f"The lab in {directory} was lost when this machine restarted. Run `python -m lab up` again.")
    if instance.phase != "up":
        raise LabError(f"The lab in {directory} is only half built. Run `python -m lab up` again.")
    return instance


def is_lab(directory: pathlib.Path) -> bool:
    """Whether the directory was made by the lab."""
    return (directory / STATE).is_file()


@contextlib.contextmanager
def claim(directory: pathlib.Path, create: bool) -> Iterator[None]:
    """Hold the directory, so that two commands never build or remove the same lab at the same time."""
    if create:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except PermissionError as exc:
        raise LabError(f"{directory} belongs to another user; choose a directory of your own with --dir.") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise LabError(
                f"Another command is at work on the lab in {directory}; wait until it has finished."
            ) from exc
        _check_owner(directory, os.fstat(fd), create)
        yield
    finally:
        os.close(fd)


def _check_owner(directory: pathlib.Path, info: os.stat_result, create: bool) -> None:
    if info.st_uid != os.getuid():
        raise LabError(f"{directory} belongs to another user (uid {info.st_uid}); choose another one with --dir.")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LabError(f"{directory} can be written by others; choose a directory of your own with --dir.")
    if create and not is_lab(directory) and any(directory.iterdir()):
        raise LabError(f"{directory} holds files that are not the lab's; choose an empty or new directory with --dir.")


def remove(directory: pathlib.Path, keep: bool = False) -> None:
    """Delete what is in the directory of a lab, and unless it is kept the directory; refused while it holds a mount."""
    below = [path for path in mounts() if path == str(directory) or path.startswith(f"{directory}/")]
    if below:
        raise LabError(f"{below[0]} is still mounted, so {directory} was not deleted. Unmount it and run down again.")
    # The state goes last: what a crash leaves here can still be recognised as the lab's.
    for path in sorted(directory.iterdir(), key=lambda entry: entry.name == STATE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not keep:
        directory.rmdir()


def mounts() -> List[str]:
    """Every mount point of this process."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return [line.split()[4] for line in lines]

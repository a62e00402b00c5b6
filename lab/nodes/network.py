# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a lab: a bridge, and per node a network namespace with one end of a veth pair."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import pathlib
import subprocess
from typing import Iterable, Iterator, List, Optional, Sequence

from lab.errors import LabError
from lab.instance import Instance, Node

# The addresses that labs share out: 64 networks, of which the directory's id picks the first one to try.
POOL = ipaddress.ip_network("10.64.0.0/10")
SPACES = pathlib.Path("/run/netns")


def ip(*words: str, batch: Optional[Sequence[str]] = None) -> str:
    """Run ip(8), once or with a batch of commands."""
    argv = ["ip", *words, "-batch", "-"] if batch is not None else ["ip", *words]
    text = "\n".join(batch) + "\n" if batch is not None else None
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        reason = (done.stderr.strip() or "it gave no reason").splitlines()[0]
        raise LabError(f"{' '.join(argv)} failed: {reason}")
    return done.stdout


def bridge_name(instance_id: str) -> str:
    return f"rr-{instance_id}"


def space_prefix(instance_id: str) -> str:
    return f"rr-{instance_id}-"


def spaces(instance_id: str) -> List[str]:
    """The network namespaces that carry the id of this lab."""
    try:
        return sorted(name for name in os.listdir(SPACES) if name.startswith(space_prefix(instance_id)))
    except FileNotFoundError:
        return []


def remains(instance_id: str) -> bool:
    """Whether anything on this machine carries the id of this lab."""
    return bool(spaces(instance_id)) or exists(bridge_name(instance_id))


def exists(link: str) -> bool:
    return pathlib.Path("/sys/class/net", link).exists()


def assign(instance: Instance, taken: Iterable[ipaddress.IPv4Network]) -> None:
    """Give the lab a subnet that overlaps nothing, and every node a name and an address in it."""
    subnet = choose(instance.id, list(taken), os.environ.get("RINGRIFT_LAB_SUBNET"))
    if subnet.num_addresses < len(instance.nodes) + 10:
        raise LabError(
            f"{subnet} is too small for {len(instance.nodes)} nodes; set RINGRIFT_LAB_SUBNET to a larger one."
        )
    instance.subnet = str(subnet)
    instance.bridge = bridge_name(instance.id)
    for number, node in enumerate(instance.nodes):
        node.address = str(subnet[number + 10])
        node.netns = space_prefix(instance.id) + node.name
        node.interface = f"rr{instance.id}n{number}"


def choose(
    instance_id: str, taken: Sequence[ipaddress.IPv4Network], wanted: Optional[str] = None
) -> ipaddress.IPv4Network:
    """The wanted subnet, or the first free one of the pool from a place that the id gives."""
    if wanted:
        try:
            candidates = [ipaddress.IPv4Network(wanted)]
        except ValueError as exc:
            raise LabError(f"RINGRIFT_LAB_SUBNET is {wanted!r}, which is no network such as 192.168.77.0/24.") from exc
    else:
        pool = list(POOL.subnets(new_prefix=16))
        first = int(instance_id, 16) % len(pool)
        candidates = pool[first:] + pool[:first]
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    clash = next(network for network in taken if network.overlaps(candidates[0]))
    raise LabError(
        f"This machine already routes {clash}, which overlaps {wanted or POOL}. "
        "Set RINGRIFT_LAB_SUBNET to a free network of at least 256 addresses."
    )


def networks_in_use() -> List[ipaddress.IPv4Network]:
    """Every IPv4 network that the machine has an address in or a route to, but for the default route."""
    found = []
    for entry in json.loads(ip("-j", "-4", "addr") or "[]"):
        for address in entry.get("addr_info", []):
            found.append(ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False))
    for route in json.loads(ip("-j", "-4", "route", "show", "table", "all") or "[]"):
        with contextlib.suppress(ValueError, KeyError):
            found.append(ipaddress.ip_network(route["dst"], strict=False))
    return [network for network in found if network.prefixlen > 0]


@contextlib.contextmanager
def claimed() -> Iterator[None]:
    """Hold the choice of a subnet, so that two labs that start together do not choose the same one."""
    # A lock on a directory that is there anyway leaves no file behind.
    fd = os.open("/run/lock" if os.path.isdir("/run/lock") else "/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def create_bridge(instance: Instance) -> None:
    subnet = ipaddress.IPv4Network(instance.subnet)
    ip(
        batch=[
            f"link add {instance.bridge} type bridge",
            f"addr add {subnet[1]}/{subnet.prefixlen} dev {instance.bridge}",
            f"link set {instance.bridge} up",
        ]
    )


def connect(instance: Instance) -> None:
    """Make a namespace for every node and plug it into the bridge."""
    prefix = ipaddress.IPv4Network(instance.subnet).prefixlen
    lines = []
    for node in instance.nodes:
        lines += [
            f"netns add {node.netns}",
            f"link add {node.interface} type veth peer name eth0 netns {node.netns}",
            f"link set {node.interface} master {instance.bridge} up",
        ]
    ip(batch=lines)
    for node in instance.nodes:
        commands = [f"addr add {node.address}/{prefix} dev eth0", "link set eth0 up", "link set lo up"]
        ip("-n", node.netns, batch=commands)


def plug(node: Node, connected: bool) -> None:
    """Put the node's cable in, or pull it out."""
    ip("link", "set", node.interface, "up" if connected else "down")


def remove(instance_id: str) -> None:
    """Delete everything that carries the id of this lab."""
    for name in spaces(instance_id):
        with contextlib.suppress(LabError):
            ip("netns", "del", name)
    stem = f"rr{instance_id}n"
    links = [name for name in os.listdir("/sys/class/net") if name.startswith(stem)]
    for name in [*links, bridge_name(instance_id)]:
        # The other end of a pair goes with its namespace, a moment later and by itself.
        with contextlib.suppress(LabError):
            if exists(name):
                ip("link", "del", name)

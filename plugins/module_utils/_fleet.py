# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet that the playbooks work on: hosts, groups and variables. This util is private to the collection.

Out of what the orchestrator says, what the service's hosts file says, or both. Who is left out of ``training`` is not
asked to stop; so a node is left out only where something says that it cannot train, never because it is silent.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet_hosts import (
    GONE,
    WITHOUT_TRAINING,
    Listed,
    is_address,
    provider_of,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet_status import Peer, Status
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_view import many

COORDINATOR = "coordinator"
TRAINING = "training"
ALIVE, STALE, DEAD, RETIRED, UNKNOWN = "alive", "stale", "dead", "retired", "unknown"
HEALTHS = (ALIVE, STALE, DEAD, RETIRED, UNKNOWN)
CONNECT = ("ssh_host", "tailscale_ip")
WARNED = 5

_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_GROUP = re.compile(r"\A[a-z][a-z0-9_]{0,63}\Z")
_NUMBER = re.compile(r"\A(0x[0-9a-f.x]*|[0-9.]+)\Z", re.I)
_GPU = re.compile(
    r"(?<![A-Z0-9])"
    r"(G[BH][2-9]\d\d|[ABHLPTV]\d{1,3}S?|MI\d{3}[A-Z]?|(?:RTX|GTX)[ _-]*(?:PRO[ _-]*)?A?\d{4,5})"
    r"(?![A-Z0-9])",
    re.I,
)


@dataclass(frozen=True)
class Options:
    """What an operator chooses; see the documentation of the inventory plugin."""

    hostvars_prefix: str = "p2p_"
    group_prefix: str = "p2p_"
    connect_with: str = "ssh_host"
    stale_after: float = 300.0
    training_health: Tuple[str, ...] = HEALTHS
    gone_status: Tuple[str, ...] = GONE
    coordinator: Tuple[str, ...] = ()
    allow_no_peers: bool = False


@dataclass(frozen=True)
class Host:
    """A host of the inventory; ``from_wire`` are the settings of Ansible whose value a peer chose."""

    name: str
    groups: Tuple[str, ...]
    variables: Mapping[str, Any]
    from_wire: FrozenSet[str] = frozenset()


@dataclass(frozen=True)
class Fleet:
    """All hosts, in a fixed order; ``children`` are the groups below ``training``, ``notes`` are worth a warning."""

    hosts: Tuple[Host, ...]
    children: Tuple[str, ...]
    coordinators: Tuple[str, ...]
    notes: Tuple[str, ...]


@dataclass
class _Node:
    name: str
    peer: Optional[Peer]
    listed: Optional[Listed]
    health: str = UNKNOWN
    age: Optional[float] = None
    gpu: Optional[str] = None
    gpu_type: Optional[str] = None
    has_gpu: Optional[bool] = None
    trains: bool = True
    reason: str = ""
    # None where the source that would tell was not asked.
    seen: Optional[bool] = None
    is_listed: Optional[bool] = None
    leads: Optional[bool] = None


def build(
    status: Optional[Status],
    hosts: Optional[Mapping[str, Listed]],
    options: Options,
    waited: float = 0.0,
    reserved: Sequence[str] = (),
) -> Fleet:
    """The fleet out of one or both.

    :param waited: seconds since the orchestrator answered, for an answer that was kept
    :param reserved: names that no host can have, because a group or the controller has them
    :raises RecoveryError: that is no fleet to recover; the message says why
    """
    _check(options)
    _check_peers(status, hosts, options)
    names = list(hosts or {})
    names += sorted(name for name in (status.peers if status else {}) if name not in (hosts or {}))
    nodes = [_judge(_look(name, status, hosts, options, waited), options) for name in names]
    notes: List[str] = []
    coordinators = _coordinators(nodes, status, options, notes)
    if not any(node.trains for node in nodes):
        why = Counter(node.reason for node in nodes).most_common(WARNED)
        raise RecoveryError(
            f"None of the {many(len(nodes), 'node')} can train: "
            + "; ".join(f"{many(count, 'node')}: {reason}" for reason, count in why)
            + ". Correct the hosts file, training_health or gone_status, or ask another orchestrator."
        )
    groups = {node.name: _groups(node, options) for node in nodes}
    taken = {"all", "ungrouped", "localhost", COORDINATOR, TRAINING, *reserved}
    taken.update(group for found in groups.values() for group in found)
    safe = {node.name: _safe_name(node.name, taken) for node in nodes}
    doubled = [name for name, count in Counter(safe.values()).items() if count > 1]
    if doubled:
        raise RecoveryError(f"Two nodes have the name {doubled[0]!r}. Give one of them another name.")
    renamed = [f"{name!r} is {shown}" for name, shown in safe.items() if name != shown]
    _note(notes, renamed, "has a name that is not safe as the name of a host; it is renamed")
    _note(notes, _without_address(nodes), "has no address; Ansible connects by its name")
    _note(notes, _same_address(nodes), "share an address; one machine under two names would be handled twice")
    if hosts is not None and status is not None:
        _note(notes, [repr(name) for name in names if name not in hosts], "is not in the hosts file")
    children = sorted({node.gpu_type for node in nodes if node.trains and node.gpu_type})
    made = [_host(node, safe[node.name], groups[node.name], options) for node in nodes]
    return Fleet(tuple(made), tuple(children), tuple(safe[name] for name in coordinators), tuple(notes))


def _check(options: Options) -> None:
    for name in ("hostvars_prefix", "group_prefix"):
        if _GROUP.match(getattr(options, name)) is None:
            raise RecoveryError(
                f"{name} is {getattr(options, name)!r}; "
                "use small letters, digits and _, beginning with a letter, such as p2p_."
            )
    if options.hostvars_prefix.startswith(("ansible_", "ringrift_")):
        raise RecoveryError(
            "hostvars_prefix begins with ansible_ or ringrift_, which are settings; use another, such as p2p_."
        )
    unknown = [health for health in options.training_health if health not in HEALTHS]
    if unknown:
        raise RecoveryError(f"training_health has {unknown[0]!r}; use {', '.join(HEALTHS)}.")
    if options.connect_with not in CONNECT:
        raise RecoveryError(f"connect_with is {options.connect_with!r}; use {' or '.join(CONNECT)}.")
    if not options.stale_after > 0:
        raise RecoveryError(f"stale_after is {options.stale_after}; use seconds above 0.")


def _check_peers(status: Optional[Status], hosts: Optional[Mapping[str, Listed]], options: Options) -> None:
    if status is None and hosts is None:
        raise RecoveryError(
            "Neither url nor hosts_file is set, so nothing says which nodes there are. Set at least one."
        )
    if status is None or hosts is not None or len(status.peers) > 1 or options.allow_no_peers:
        return
    raise RecoveryError(
        f"The orchestrator of {status.node!r} knows no peer: it is cut off from them, has just started, or is alone. "
        "Ask another node, give the hosts_file too, or set allow_no_peers where there is only this node."
    )


def gpu_type(name: Optional[str]) -> Optional[str]:
    """``h100`` out of ``NVIDIA H100 80GB HBM3``, ``rtx_4090`` out of ``RTX 4090``; None where it names no type."""
    found = _GPU.search(name or "")
    if found is None:
        return None
    return re.sub(r"(RTX|GTX)_*", r"\1_", re.sub(r"[ -]+", "_", found.group(1).upper())).lower()


def _look(
    name: str, status: Optional[Status], hosts: Optional[Mapping[str, Listed]], options: Options, waited: float
) -> _Node:
    node = _Node(name, status.peers.get(name) if status else None, (hosts or {}).get(name))
    peer, listed = node.peer, node.listed
    node.seen = peer is not None if status is not None else None
    node.is_listed = listed is not None if hosts is not None else None
    node.leads = status.leader == name if status is not None and status.leader is not None else None
    if peer is not None and peer.age is not None:
        node.age = peer.age + waited
    node.health = _health(node, options)
    told = peer.facts.get("gpu_name") if peer else None
    node.gpu = told or (listed.gpu if listed else None)
    node.gpu_type = gpu_type(told) or gpu_type(listed.gpu if listed else None)
    # A GPU that fell off the bus is not told of; the file still has it.
    says = [peer.facts.get("has_gpu") if peer else None, True if node.gpu else None, listed.has_gpu if listed else None]
    node.has_gpu = True if True in says else False if False in says else None
    return node


def _health(node: _Node, options: Options) -> str:
    peer = node.peer
    if _is_gone(node.listed, options) and not (peer and peer.alive):
        return RETIRED
    if peer is None:
        return UNKNOWN
    if peer.facts.get("retired") and not peer.answered:
        return RETIRED
    if peer.alive is False:
        return DEAD
    if node.age is not None and node.age > options.stale_after:
        return STALE
    return ALIVE if peer.alive and node.age is not None else UNKNOWN


def _is_gone(listed: Optional[Listed], options: Options) -> bool:
    return listed is not None and listed.status is not None and listed.status in options.gone_status


def _judge(node: _Node, options: Options) -> _Node:
    """Whether it belongs to ``training``, and why."""
    listed = node.listed
    jobs = node.peer.facts.get("training_jobs") if node.peer else None
    if listed is not None and node.health == RETIRED and _is_gone(listed, options):
        node.trains, node.reason = False, f"the hosts file has it as {listed.status}"
    elif node.health not in options.training_health:
        node.trains, node.reason = False, f"its health is {node.health}, which training_health leaves out"
    elif jobs:
        node.trains, node.reason = True, "it reports a training job"
    elif listed is not None and listed.trains is False:
        node.trains, node.reason = False, "the hosts file has training_enabled: false"
    elif listed is not None and listed.role in WITHOUT_TRAINING:
        node.trains, node.reason = False, f"the hosts file has it as {listed.role}"
    elif node.has_gpu is False:
        node.trains, node.reason = False, "it has no GPU"
    elif node.has_gpu is None:
        node.trains, node.reason = True, "nothing says that it has no GPU"
    else:
        node.trains, node.reason = True, "it has a GPU"
    return node


def _coordinators(
    nodes: Sequence[_Node], status: Optional[Status], options: Options, notes: List[str]
) -> Tuple[str, ...]:
    """Who runs the orchestrator and the exporter, the leader first."""
    names = [node.name for node in nodes]
    leader = status.leader if status else None
    if options.coordinator:
        for name in options.coordinator:
            if name not in names:
                raise RecoveryError(
                    f"coordinator names {name!r}, which neither the orchestrator nor the hosts file has."
                )
        return options.coordinator
    listed = [
        node.name
        for node in nodes
        if node.listed and node.listed.role == COORDINATOR and not _is_gone(node.listed, options)
    ]
    if listed:
        return tuple(sorted(listed, key=lambda name: name != leader))
    if leader in names:
        return (str(leader),)
    if status is None:
        raise RecoveryError(
            "The hosts file has no host with role: coordinator. Give one that role, or set coordinator."
        )
    notes.append(
        f"No node leads; {status.node!r}, which answered, is the coordinator. Set coordinator if that is wrong."
    )
    return (status.node,)


def _groups(node: _Node, options: Options) -> Tuple[str, ...]:
    prefix, peer, listed = options.group_prefix, node.peer, node.listed
    gpu = node.gpu_type or ("other" if node.has_gpu else "unknown" if node.has_gpu is None else "none")
    provider = (listed.provider if listed else None) or provider_of(node.name) or UNKNOWN
    roles = {listed.role if listed else None, _word(peer.facts.get("role")) if peer else None} - {None}
    found = [f"{prefix}health_{node.health}", f"{prefix}gpu_{gpu}", f"{prefix}provider_{provider}"]
    found += sorted(f"{prefix}role_{role}" for role in roles)
    if node.trains:
        # The type is a child of training, so that only who trains may be in it.
        found.append(node.gpu_type or TRAINING)
    return tuple(found)


def _word(text: Optional[str]) -> Optional[str]:
    # A peer chooses it; what is no word makes no group.
    return text if text is not None and _GROUP.match(text) else None


def _safe_name(name: str, taken: Any) -> str:
    """The name, or where it is a group, the controller or not a plain name, one made of it that cannot be another's."""
    if _NAME.match(name) and name not in taken and name.lower() not in taken and not _is_loopback(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:60].strip("_.-") or "node"
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:10]}"


def _is_loopback(text: Optional[str]) -> bool:
    if text is None:
        return False
    if text.lower().split(".")[0] in ("localhost", "ip6-localhost"):
        return True
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        # 127.1 and 2130706433 are loopback too.
        return _NUMBER.match(text) is not None
    return address.is_loopback or address.is_unspecified


def _address(node: _Node, options: Options) -> Tuple[Optional[str], bool]:
    """Where ssh goes to, and whether a peer said so."""
    listed, peer = node.listed, node.peer
    order = sorted(CONNECT, key=lambda key: key != options.connect_with)
    if listed is not None:
        for key in order:
            if getattr(listed, key):
                return getattr(listed, key), False
    if peer is not None:
        for key in ("tailscale_ip", "host") if options.connect_with == "tailscale_ip" else ("host", "tailscale_ip"):
            found = peer.facts.get(key)
            # Its own loopback is ours, seen from here.
            if is_address(found) and not _is_loopback(found):
                return found, True
    return None, False


def _host(node: _Node, name: str, groups: Tuple[str, ...], options: Options) -> Host:
    listed, peer = node.listed, node.peer
    address, told = _address(node, options)
    variables: Dict[str, Any] = {"ansible_host": address}
    facts: Dict[str, Any] = dict(peer.facts) if peer else {}
    if listed is not None:
        variables.update(
            ansible_port=listed.port, ansible_user=listed.user, ansible_ssh_private_key_file=listed.key,
            ringrift_service_path=listed.path, ringrift_python=listed.python,
        )  # fmt: skip
    kept = listed.facts if listed else {}
    shown = {
        **facts,
        "node": node.name,
        "health": node.health,
        "heartbeat_age": None if node.age is None else round(node.age, 1),
        "seen": node.seen,
        "listed": node.is_listed,
        "leader": node.leads,
        "listed_role": listed.role if listed else None,
        "listed_status": listed.status if listed else None,
        "provider": (listed.provider if listed else None) or provider_of(node.name),
        "region": kept.get("region"),
        "ephemeral": kept.get("ephemeral"),
        "gpu_name": node.gpu,
        "gpu_type": node.gpu_type,
        "gpu_memory_gb": kept.get("gpu_vram_gb"),
        "has_gpu": node.has_gpu,
        "memory_gb": facts.get("memory_gb") or kept.get("memory_gb"),
        "nat_blocked": facts["nat_blocked"] if facts.get("nat_blocked") is not None else kept.get("nat_blocked"),
        "tailscale_ip": (listed.tailscale_ip if listed else None) or facts.get("tailscale_ip"),
        "trains": node.trains,
        "trains_because": node.reason,
    }
    variables.update((f"{options.hostvars_prefix}{key}", value) for key, value in shown.items())
    known = {key: value for key, value in variables.items() if value is not None}
    return Host(name, groups, known, frozenset({"ansible_host"} if told else ()))


def _without_address(nodes: Sequence[_Node]) -> List[str]:
    return [repr(node.name) for node in nodes if node.trains and _address(node, Options())[0] is None]


def _same_address(nodes: Sequence[_Node]) -> List[str]:
    owners: Dict[str, List[str]] = {}
    for node in nodes:
        address = _address(node, Options())[0]
        port = node.listed.port if node.listed else None
        # Two containers of one host share its address and have ports of their own.
        if address is not None and node.trains:
            owners.setdefault(f"{address} {port or 22}", []).append(repr(node.name))
    return [" and ".join(names) for names in owners.values() if len(names) > 1]


def _note(notes: List[str], found: Sequence[str], what: str) -> None:
    if found:
        more = f" and {len(found) - WARNED} more" if len(found) > WARNED else ""
        notes.append(f"{what[0].upper()}{what[1:]}: {', '.join(found[:WARNED])}{more}.")

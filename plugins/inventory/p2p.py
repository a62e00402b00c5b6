# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
---
name: p2p
short_description: The fleet as the P2P orchestrator and the service's hosts file have it
version_added: 0.1.0
description:
  - Builds the inventory that the playbooks of this collection need, with the groups C(coordinator) and C(training),
    from C(GET /status) of the P2P orchestrator, from the service's C(distributed_hosts.yaml), or from both.
  - The configuration file is named C(p2p.yml) or ends in C(.p2p.yml) (or C(.yaml)).
  - What is broken is an error with its reason, never a smaller inventory, because a host that is missing here is a host
    that nobody stops. By itself Ansible only warns of a source that failed. So set
    E(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED) to V(true), as the C(ansible.cfg) of this collection does.
  - Nothing that the orchestrator or the hosts file says is ever evaluated as a template.
author: The ringrift.recovery authors (@ringrift)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description:
      - Says that the file is for this plugin.
    type: str
    required: true
    choices: [ringrift.recovery.p2p]
  url:
    description:
      - Where orchestrators listen, as seen from the controller, for example V(http://192.0.2.10:8770). They are asked
        in this order until one gives a whole answer.
      - Any node answers, but only the leader has heard of all others itself.
      - At least one of O(url) and O(hosts_file) is needed.
    type: list
    elements: str
    default: []
    env:
      - name: RINGRIFT_P2P_URL
  token:
    description:
      - The token of the cluster. The service does not ask for it to show its status; what stands in front of it may.
      - Keep it in the environment or in a vault. It is never printed and never cached.
    type: str
    env:
      - name: RINGRIFT_CLUSTER_AUTH_TOKEN
  hosts_file:
    description:
      - The service's C(distributed_hosts.yaml) on the controller; a relative path begins at the folder of the
        configuration file. It may be encrypted with Ansible Vault.
      - Keep it outside of a folder that is given as an inventory, where it would be taken for one.
      - It says how a node is reached (C(ssh_host), C(ssh_port), C(ssh_user), C(ssh_key), C(tailscale_ip)), where the
        service is there (C(ringrift_path), C(venv_activate)), and what the node is. For these it outranks the
        orchestrator.
    type: str
  timeout:
    description:
      - Seconds for one URL, from connecting to the last byte.
    type: float
    default: 10
  require_status:
    description:
      - V(true) makes it an error when no URL gives a whole answer.
      - V(false) goes on with O(hosts_file) alone then, with a warning; the health of every node is C(unknown). That is
        for the recovery of a fleet whose orchestrator is down.
    type: bool
    default: true
  allow_no_peers:
    description:
      - V(true) takes an orchestrator that knows no peer for a fleet of one node. Otherwise that is an error where
        O(hosts_file) names no others, because one that is cut off or has just started answers the same.
    type: bool
    default: false
  coordinator:
    description:
      - The hosts of the group C(coordinator). The default are those that the hosts file gives the role C(coordinator),
        the leader first; else the leader; else the node that answered.
    type: list
    elements: str
    default: []
  training_health:
    description:
      - Which nodes are in the group C(training), by their health. All of them by default, because what is silent may
        still train, and a recovery may only go on once the stop is proven on every node.
      - V(alive) was heard of within O(stale_after); V(stale) was heard of before; V(dead) is not alive as the
        orchestrator has it; V(retired) was given up; V(unknown) is everything else, such as a node that only the hosts
        file has.
      - Leave V(retired) out where the orchestrator gives up only machines that are gone. By itself it retires whoever
        is silent for long.
    type: list
    elements: str
    choices: [alive, stale, dead, retired, unknown]
    default: [alive, stale, dead, retired, unknown]
  gone_status:
    description:
      - A node with one of these as its C(status) in O(hosts_file) is not in C(training), unless the orchestrator has it
        alive. They are the word of a person, or of the provider, that the machine is no more. Add V(offline) or
        V(setup) where they mean that too.
    type: list
    elements: str
    default: [terminated, retired, archived]
  stale_after:
    description:
      - Seconds after which a node that was not heard of is no longer C(alive). An answer from the cache ages too.
    type: float
    default: 300
  connect_with:
    description:
      - Which address C(ansible_host) gets where a node has both. An address that a peer tells is taken only where the
        hosts file has none, and never one of the loopback.
    type: str
    choices: [ssh_host, tailscale_ip]
    default: ssh_host
  hostvars_prefix:
    description:
      - What the names of the variables begin with.
    type: str
    default: p2p_
  group_prefix:
    description:
      - What the names of the groups by health, GPU, provider and role begin with. The names of C(coordinator),
        C(training) and its children do not change.
    type: str
    default: p2p_
notes:
  - Groups are C(coordinator); C(training) with one child for each type of GPU, such as C(h100) and C(gh200); and, of
    all hosts, C(p2p_health_*), C(p2p_gpu_*), C(p2p_provider_*) and C(p2p_role_*). C(docs/inventory.md) of the
    collection lists them with all variables.
  - A node that reports no GPU, or that the hosts file has with C(training_enabled=false) or as coordinator or proxy, is
    not in C(training), unless it reports a training job. C(p2p_trains_because) says why a host is in it or not.
  - A name that is not safe as the name of a host, or that a group or the controller has, is replaced by one made of it.
    C(p2p_node) has the name as it was told.
seealso:
  - name: The inventory of the fleet
    description: Groups, variables and errors.
    link: https://github.com/ringrift/recovery/blob/main/docs/inventory.md
"""

EXAMPLES = r"""
# fleet.p2p.yml: what the orchestrator knows, and how the hosts file says that its nodes are reached
plugin: ringrift.recovery.p2p
url: http://192.0.2.10:8770
hosts_file: ~/ringrift/ai-service/config/distributed_hosts.yaml
---
# The orchestrator alone; a second node is asked where the first does not answer
plugin: ringrift.recovery.p2p
url:
  - http://192.0.2.10:8770
  - http://192.0.2.11:8770
---
# The hosts file alone, for a fleet whose orchestrator is down
plugin: ringrift.recovery.p2p
hosts_file: distributed_hosts.yaml
---
# Groups and variables of one's own, and an answer that is kept for a minute
plugin: ringrift.recovery.p2p
url: http://192.0.2.10:8770
hosts_file: distributed_hosts.yaml
strict: true
compose:
  ringrift_stop_grace: 120 if p2p_gpu_type | default('') == 'gh200' else 30
groups:
  large: p2p_gpu_memory_gb | default(0) >= 90
keyed_groups:
  - key: p2p_region | default('nowhere')
    prefix: region
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ringrift-inventory
cache_timeout: 60
"""

import hashlib
import os
import time
from typing import Any, Dict, List, Optional, Tuple

from ansible import constants as C
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.group import to_safe_group_name
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.ringrift.recovery.plugins.module_utils import _fleet, _fleet_hosts, _fleet_status
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import check_url
from ansible_collections.ringrift.recovery.plugins.plugin_utils._hosts_file import parse_yaml

CACHED = 1


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "ringrift.recovery.p2p"
    # Peers say most of it.
    trusted_by_default = False

    @staticmethod
    def _sanitize_group_name(name: Any) -> str:
        # A key of a group may be what a peer says.
        return to_safe_group_name(str(name), force=True, silent=True)

    def verify_file(self, path: str) -> bool:
        name = os.path.basename(path)
        ours = any(name == f"p2p{end}" or name.endswith(f".p2p{end}") for end in (".yml", ".yaml"))
        return super().verify_file(path) and ours

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self.templar.available_variables = self._vars
        self._read_config_data(path)
        before = set(self.inventory.hosts), set(self.inventory.groups)
        try:
            fleet = self._fleet(path, cache)
            for note in fleet.notes:
                self.display.warning(f"{os.path.basename(path)}: {note}")
            self._fill(fleet)
        except RecoveryError as exc:
            self._undo(*before)
            raise AnsibleParserError(str(exc)) from exc
        except AnsibleError:
            self._undo(*before)
            raise

    def _fleet(self, path: str, cache: bool) -> _fleet.Fleet:
        # Whatever is wrong with the file at hand is said before anybody is asked.
        hosts = self._hosts(path)
        status, waited = self._status(path, cache, hosts is not None)
        names = ("hostvars_prefix", "group_prefix", "connect_with", "stale_after", "allow_no_peers")
        lists = ("training_health", "gone_status", "coordinator")
        options = _fleet.Options(
            **{name: self._option(name) for name in names}, **{name: tuple(self._option(name)) for name in lists}
        )
        reserved = [*C.LOCALHOST, *self.inventory.groups, *map(self._sanitize_group_name, self.get_option("groups"))]
        return _fleet.build(status, hosts, options, waited, reserved)

    def _option(self, name: str) -> Any:
        """An option, with templates of whoever wrote the configuration file evaluated."""
        return self.templar.template(self.get_option(name))

    def _hosts(self, path: str) -> Optional[Dict[str, _fleet_hosts.Listed]]:
        named = self._option("hosts_file")
        if not named:
            return None
        file = os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(str(named)))
        source = f"The hosts file {file}"
        if not os.path.isfile(file):
            raise RecoveryError(f"{source} is not there or is no file. Set hosts_file to its path on the controller.")
        try:
            text = self.loader.get_text_file_contents(file)
        except (AnsibleError, ValueError) as exc:
            raise RecoveryError(f"{source} cannot be read: {exc}") from exc
        return _fleet_hosts.read_hosts(parse_yaml(str(text), source), source)

    def _status(self, path: str, cache: bool, can_do_without: bool) -> Tuple[Optional[_fleet_status.Status], float]:
        """What the orchestrator says, and how many seconds ago it said so."""
        urls = [check_url(str(url).strip()) for url in self._option("url")]
        if not urls:
            return None, 0.0
        now = time.time()
        use_cache = self.get_option("cache")
        key = self.get_cache_key(path)
        # Another orchestrator has another answer, although the file has the same path.
        asked = hashlib.sha256("\n".join(urls).encode()).hexdigest()
        if use_cache and cache:
            kept = self._kept(key, asked, now)
            if kept is not None:
                return kept
        try:
            url, status = _fleet_status.fetch(urls, self._token(), self._option("timeout"))
        except _fleet_status.NoStatusError as exc:
            if not can_do_without:
                raise
            if self._option("require_status"):
                more = (
                    "To go on with the hosts file alone, each node's health being unknown, set require_status to false."
                )
                raise RecoveryError(f"{exc} {more}") from None
            self.display.warning(f"{exc} Going on with the hosts file alone; the health of each node is unknown.")
            return None, 0.0
        self.display.vvv(f"The orchestrator at {url} told of {len(status.peers)} nodes.")
        if use_cache:
            self._cache[key] = {"version": CACHED, "asked": asked, "at": now, "page": status.page}
        return status, 0.0

    def _kept(self, key: str, asked: str, now: float) -> Optional[Tuple[_fleet_status.Status, float]]:
        # What cannot be used as it stands is no answer at all, and the orchestrator is asked.
        try:
            kept = self._cache[key]
        except KeyError:
            return None
        if not isinstance(kept, dict) or (kept.get("version"), kept.get("asked")) != (CACHED, asked):
            return None
        at = kept.get("at")
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 < at <= now:
            return None
        try:
            return _fleet_status.read_page(kept.get("page")), now - at
        except RecoveryError:
            return None

    def _token(self) -> Optional[str]:
        token = self._option("token")
        return str(token).strip() or None if token is not None else None

    def _fill(self, fleet: _fleet.Fleet) -> None:
        for group in (_fleet.COORDINATOR, _fleet.TRAINING, *fleet.children):
            self.inventory.add_group(group)
        for child in fleet.children:
            self.inventory.add_child(_fleet.TRAINING, child)
        others = set(self.inventory.hosts)
        for host in fleet.hosts:
            self.inventory.add_host(host.name)
            for group in host.groups:
                self.inventory.add_host(host.name, group=self.inventory.add_group(group))
            known = self.inventory.get_host(host.name).vars if host.name in others else {}
            for name, value in host.variables.items():
                # What a person wrote in another source outranks what a peer says.
                if not (name in host.from_wire and name in known):
                    self.inventory.set_variable(host.name, name, value)
        # The playbooks take the first one.
        for name in fleet.coordinators:
            self.inventory.add_host(name, group=_fleet.COORDINATOR)
        self._construct([host.name for host in fleet.hosts])

    def _construct(self, names: List[str]) -> None:
        strict = self.get_option("strict")
        compose, groups, keyed = (self.get_option(name) for name in ("compose", "groups", "keyed_groups"))
        for name in names if compose else ():
            self._set_composite_vars(compose, self.inventory.get_host(name).get_vars(), name, strict=strict)
        for name in names if groups else ():
            self._add_host_to_composed_groups(groups, {}, name, strict=strict)
        for name in names if keyed else ():
            self._add_host_to_keyed_groups(keyed, {}, name, strict=strict)
        clash = sorted(set(names) & set(self.inventory.groups))
        if clash:
            raise RecoveryError(
                f"keyed_groups make a group with the name of the host {clash[0]!r}. Set a prefix for it."
            )

    def _undo(self, hosts: set, groups: set) -> None:
        # Where Ansible only warns of the error it would go on with what is there.
        for name in set(self.inventory.hosts) - hosts:
            self.inventory.remove_host(self.inventory.hosts[name])
        for name in set(self.inventory.groups) - groups:
            self.inventory.remove_group(self.inventory.groups[name])

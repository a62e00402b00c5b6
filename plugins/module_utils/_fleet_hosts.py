# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes that the service's ``distributed_hosts.yaml`` lists. This util is private to the collection.

A person keeps that file, so that a value that cannot be used is refused by name; one that is passed over would be a
node that nobody reaches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet_status import whole
from ansible_collections.ringrift.recovery.plugins.module_utils._http import join_host
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p_view import as_number, as_text

NAME_LIMIT = 300
PROVIDERS = (
    "aws", "azure", "coreweave", "crusoe", "gcp", "hetzner", "lambda", "nebius", "paperspace", "runpod", "vast",
    "vultr",
)  # fmt: skip
# A person, or the service that asked the provider, has said with these that the machine is no more.
GONE = ("terminated", "retired", "archived")
WITHOUT_TRAINING = ("coordinator", "proxy")

_WORD = re.compile(r"\A[a-z][a-z0-9_]{0,63}\Z")
_USER = re.compile(r"\A[A-Za-z_][A-Za-z0-9._-]{0,63}\$?\Z")
# Goes into an option of ssh in double quotes.
_PATH = re.compile(r"\A[^\x00-\x1f\x7f\"\\-][^\x00-\x1f\x7f\"\\]{0,1023}\Z")
_VENV = re.compile(r"(?:\A|&&\s*|;\s*)(?:source|\.)\s+([~/][^\s;&|$`\"'\\]*)/bin/activate\s*\Z")
_NO_GPU = ("none", "null", "n/a", "no", "cpu")


@dataclass(frozen=True)
class Listed:
    """A host of the file; ``facts`` have what is only shown."""

    name: str
    ssh_host: Optional[str] = None
    tailscale_ip: Optional[str] = None
    port: Optional[int] = None
    user: Optional[str] = None
    key: Optional[str] = None
    path: Optional[str] = None
    python: Optional[str] = None
    role: Optional[str] = None
    status: Optional[str] = None
    provider: Optional[str] = None
    gpu: Optional[str] = None
    has_gpu: Optional[bool] = None
    trains: Optional[bool] = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_hosts(data: Any, source: str) -> Dict[str, Listed]:
    """The hosts in the parsed file, in its order.

    :param source: how a message names the file
    :raises RecoveryError: it is not such a file, or a value in it cannot be used
    """
    hosts = data.get("hosts") if isinstance(data, Mapping) else None
    if not isinstance(hosts, Mapping):
        raise RecoveryError(
            f"{source} has no dictionary of hosts. Give the service's config/distributed_hosts.yaml, "
            "which has one host below hosts for each node."
        )
    if not hosts:
        raise RecoveryError(f"{source} lists no host. Fill in the nodes below hosts.")
    return dict(_read_host(name, row, source) for name, row in hosts.items())


def _read_host(name: Any, row: Any, source: str) -> Tuple[str, Listed]:
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT:
        raise RecoveryError(f"{source} has a host with the name {str(name)[:60]!r}; write a name in quotes.")
    if not isinstance(row, Mapping):
        raise RecoveryError(f"{source}: host {name!r} has no settings; give it at least ssh_host.")
    entry = _Entry(name, row, source)
    role, gpu = entry.word("role"), "none" if row.get("gpu") is False else as_text(row.get("gpu"))
    memory = as_number(row.get("gpu_vram_gb"))
    path = entry.text("ringrift_path", _PATH, "a path")
    host = Listed(
        name=name,
        ssh_host=entry.address("ssh_host"),
        tailscale_ip=entry.address("tailscale_ip"),
        port=entry.port(),
        user=entry.text("ssh_user", _USER, "a user name"),
        key=entry.text("ssh_key", _PATH, "a path"),
        path=path,
        python=_python(row.get("venv_activate"), path),
        role=role,
        status=entry.word("status"),
        provider=_provider(name, row),
        gpu=None if (gpu or "none").strip().lower() in _NO_GPU else gpu,
        has_gpu=_has_gpu(gpu, memory, role),
        trains=row["training_enabled"] if isinstance(row.get("training_enabled"), bool) else None,
        facts={
            "gpu_vram_gb": whole(memory),
            "memory_gb": whole(as_number(row.get("memory_gb"))),
            "cpus": whole(as_number(row.get("cpus"))),
            "region": as_text(row.get("region")),
            "ephemeral": row["is_ephemeral"] if isinstance(row.get("is_ephemeral"), bool) else None,
            "nat_blocked": row["nat_blocked"] if isinstance(row.get("nat_blocked"), bool) else None,
        },
    )
    return name, host


@dataclass(frozen=True)
class _Entry:
    name: str
    row: Mapping[str, Any]
    source: str

    def _refuse(self, key: str, what: str) -> RecoveryError:
        shown = repr(str(self.row.get(key))[:60])
        return RecoveryError(f"{self.source}: {key} of host {self.name!r} is {shown}, which is not {what}. Correct it.")

    def text(self, key: str, pattern: Any, what: str) -> Optional[str]:
        value = self.row.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str) or pattern.match(value) is None:
            raise self._refuse(key, what)
        return value

    def word(self, key: str) -> Optional[str]:
        value = self.row.get(key)
        if isinstance(value, str):
            value = value.strip().lower().replace("-", "_").replace(" ", "_")
        if value is None or value == "":
            return None
        if not isinstance(value, str) or _WORD.match(value) is None:
            raise self._refuse(key, "a word of letters, digits and _")
        return value

    def address(self, key: str) -> Optional[str]:
        value = self.row.get(key)
        if value is None or value == "":
            return None
        if not is_address(value):
            raise self._refuse(key, "a host name or an address")
        address: str = value
        return address

    def port(self) -> Optional[int]:
        value = self.row.get("ssh_port")
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
            value = int(value)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
            raise self._refuse("ssh_port", "a port, 1 to 65535")
        return value


def is_address(value: Any) -> bool:
    """Whether it is a host name or an address, and cannot be taken for an option of ssh."""
    return isinstance(value, str) and join_host(value, 22) is not None


def provider_of(name: str) -> Optional[str]:
    """The provider that a name begins with, as the service's own names do."""
    first = re.split(r"[-_.]", name, maxsplit=1)[0].lower()
    return first if first in PROVIDERS else None


def _provider(name: str, row: Mapping[str, Any]) -> Optional[str]:
    named = as_text(row.get("provider"))
    if named and _WORD.match(named.lower()):
        return named.lower()
    for provider in PROVIDERS:
        if any(row.get(f"{provider}{end}") not in (None, "") for end in ("_id", "_instance_id")):
            return provider
    return provider_of(name)


def _has_gpu(gpu: Optional[str], memory: Optional[float], role: Optional[str]) -> Optional[bool]:
    # The file writes none as a text where a node has no GPU.
    if gpu is not None and gpu.strip().lower() not in _NO_GPU:
        return True
    if memory:
        return True
    if gpu is not None or memory == 0 or (role or "").startswith("cpu_"):
        return False
    return True if (role or "").startswith(("gpu_", "nn_")) else None


def _python(activate: Any, path: Optional[str]) -> Optional[str]:
    # Only where it differs from what the collection takes by itself.
    found = _VENV.search(activate) if isinstance(activate, str) else None
    if found is None or (path is not None and found.group(1) == f"{path.rstrip('/')}/venv"):
        return None
    return f"{found.group(1)}/bin/python"

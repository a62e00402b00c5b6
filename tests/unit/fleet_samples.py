# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet for the tests of the inventory: status pages out of captured ones, and a hosts file."""

from __future__ import annotations

import copy
import json
import pathlib

CAPTURES = pathlib.Path(__file__).parent / "plugins" / "inventory"
H100 = "NVIDIA H100 80GB HBM3"
GH200 = "NVIDIA GH200 480GB"


def captured(version="head"):
    """What a real orchestrator answered, of its first version (``dec28``) or of a later one, less what is not read."""
    return json.loads((CAPTURES / f"captured_status_{version}.json").read_text())


def peer(name, gpu=H100, age=3.0, **more):
    """A peer as the status has it: a captured node, and what only peers have."""
    row = copy.deepcopy(captured()["self"])
    row.update(node_id=name, role="follower", host=f"100.64.0.{1 + sum(name.encode()) % 250}", gpu_name=gpu)
    row.update(has_gpu=bool(gpu), last_heartbeat=row["last_heartbeat"] - age)
    row.update(is_alive=True, seconds_since_heartbeat=age, endpoint_conflict=False, leader_eligible=True)
    row.update(more)
    return row


def page(*peers, **more):
    """The status of ``coordinator-1``, which leads and has no GPU, with these peers; without any, of three."""
    found = peers or (peer("nebius-h100-3"), peer("runpod-h100", host="100.64.0.8"), peer("lambda-gh200-b-new", GH200))
    made = captured()
    made["self"].update(node_id="coordinator-1", host="100.64.0.2", has_gpu=False, gpu_name="")
    everyone = {row["node_id"]: row for row in found}
    made.update(
        node_id="coordinator-1", leader_id="coordinator-1", effective_leader_id="coordinator-1",
        alive_peers=len(everyone), peers=everyone, all_peers=copy.deepcopy(everyone),
    )  # fmt: skip
    made.update(more)
    return made


HOSTS = {
    "coordinator-1": {
        "ssh_host": "192.0.2.10",
        "ssh_user": "ubuntu",
        "ringrift_path": "~/ringrift/ai-service",
        "venv_activate": "source ~/ringrift/ai-service/venv/bin/activate",
        "gpu": "none",
        "role": "coordinator",
        "status": "ready",
    },
    "nebius-h100-3": {
        "ssh_host": "192.0.2.21",
        "tailscale_ip": "100.64.0.21",
        "ssh_port": 22,
        "ssh_user": "ubuntu",
        "ssh_key": "~/.ssh/id_cluster",
        "ringrift_path": "~/ringrift/ai-service",
        "memory_gb": 200,
        "gpu": "H100 SXM",
        "gpu_vram_gb": 80,
        "role": "gpu_training_primary",
        "status": "ready",
        "nebius_id": "computeinstance-x",
        "region": "eu-north1",
    },
    "runpod-h100": {
        "ssh_host": "192.0.2.22",
        "ssh_port": 30755,
        "ssh_user": "root",
        "ringrift_path": "/workspace/ringrift/ai-service",
        "venv_activate": "source /workspace/venv/bin/activate",
        "gpu": "H100 PCIe",
        "gpu_vram_gb": 80,
        "role": "gpu_selfplay_primary",
        "status": "ready",
        "runpod_id": "x",
    },
    "hetzner-cpu-1": {"ssh_host": "192.0.2.4", "ssh_user": "root", "role": "cpu_selfplay", "status": "ready"},
    "aws-proxy": {"ssh_host": "192.0.2.5", "ringrift_path": None, "role": "proxy", "status": "proxy_only"},
    "vast-old": {"ssh_host": "ssh1.vast.ai", "ssh_port": 12345, "gpu": "RTX 4090", "status": "terminated"},
}


def hosts(**changes):
    """The hosts file as data; a host that is None is left out, others are changed or added."""
    found = copy.deepcopy(HOSTS)
    for name, row in changes.items():
        name = name.replace("_", "-")
        if row is None:
            del found[name]
        else:
            found[name] = {**found.get(name, {}), **row}
    return {"hosts": found}

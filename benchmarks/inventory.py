#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory plugin costs, for an orchestrator that knows 10 to 10,000 peers.

    .venv/bin/python benchmarks/inventory.py                 10, 100, 1,000 and 10,000 peers, three times
    .venv/bin/python benchmarks/inventory.py --peers 1000    one size

A server on loopback gives the status; peers are captured nodes, and each stands in it twice, as in the real one.
`ansible-inventory` runs as a process of its own: with the plugin, and with a YAML file of the same hosts and
variables, which is what Ansible costs by itself. The best of the repetitions counts; CPU is the processor time of the
process, which other work on the machine hardly changes. *Of it ours* is measured in this process: asking, reading,
judging and building the hosts, without Ansible.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "playbooks/collections")]

from ansible_collections.ringrift.recovery.plugins.module_utils import _fleet, _fleet_hosts, _fleet_status  # noqa: E402

from tests.unit.fleet_samples import GH200, H100, page, peer  # noqa: E402
from tests.unit.p2p_servers import Scripted  # noqa: E402


def status_of(count: int) -> dict:
    return page(*[peer(f"nebius-node-{number:05d}", (H100, GH200)[number % 2]) for number in range(count)])


def hosts_of(count: int) -> dict:
    return {
        "coordinator-1": {"ssh_host": "192.0.2.10", "role": "coordinator"},
        **{
            f"nebius-node-{number:05d}": {
                "ssh_host": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "ssh_user": "ubuntu",
                "ssh_port": 22, "gpu": "H100 SXM", "gpu_vram_gb": 80, "role": "gpu_training_primary", "status": "ready",
            }
            for number in range(count)
        },
    }  # fmt: skip


class Cost(NamedTuple):
    """Seconds by the clock, and of processor time."""

    seconds: float
    cpu: float


def best(costs: list[Cost]) -> Cost:
    return Cost(min(cost.seconds for cost in costs), min(cost.cpu for cost in costs))


def listed(path: pathlib.Path) -> tuple[Cost, bytes]:
    """What an ansible-inventory costs, and what it prints."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections")}
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, str(pathlib.Path(sys.executable).parent / "ansible-inventory"), "-i", str(path), "--list"],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    output, errors = process.communicate(timeout=600)
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(errors.decode())
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), output


def own(url: str, rows: dict) -> Cost:
    begun, before = time.monotonic(), time.process_time()
    _url, status = _fleet_status.fetch([url], None, 60)
    _fleet.build(status, _fleet_hosts.read_hosts({"hosts": rows}, "the file"), _fleet.Options())
    return Cost(time.monotonic() - begun, time.process_time() - before)


def measure(count: int, repeat: int, folder: pathlib.Path) -> None:
    told, rows = status_of(count), hosts_of(count)
    raw = json.dumps(told).encode()
    server = Scripted({("GET", "/status"): (200, raw)})
    try:
        (folder / "hosts.json").write_text(json.dumps({"hosts": rows}))
        source = folder / "fleet.p2p.yml"
        source.write_text(f"plugin: ringrift.recovery.p2p\nurl: {server.url}\nhosts_file: hosts.json\n")
        mine = [listed(source) for _turn in range(repeat)]
        (folder / "static.json").write_text(json.dumps(as_static(json.loads(mine[0][1]))))
        static = [listed(folder / "static.json") for _turn in range(repeat)]
        alone = [own(server.url, rows) for _turn in range(repeat)]
    finally:
        server.close()
    ours, plain, part = best([cost for cost, _text in mine]), best([cost for cost, _text in static]), best(alone)
    print(
        f"| {count} | {len(raw) / 1e6:.2f} | {ours.seconds:.2f} | {ours.cpu:.2f} | {plain.seconds:.2f} "
        f"| {plain.cpu:.2f} | {ours.cpu / plain.cpu:.2f} | {part.seconds:.2f} | {part.cpu:.2f} |",
        flush=True,
    )


def as_static(found: dict) -> dict:
    """The same hosts, variables and groups as an inventory of YAML."""
    values = found["_meta"]["hostvars"]
    groups = {
        name: {
            "hosts": dict.fromkeys(group.get("hosts", ()), {}),
            "children": dict.fromkeys(group.get("children", ()), {}),
        }
        for name, group in found.items()
        if name not in ("_meta", "all")
    }
    hosts = {name: {key: unmarked(value) for key, value in row.items()} for name, row in values.items()}
    return {"all": {"hosts": hosts, "children": groups}}


def unmarked(value: object) -> object:
    return value["__ansible_unsafe"] if isinstance(value, dict) and "__ansible_unsafe" in value else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="10,100,1000,10000", help="how many peers, with commas")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    heads = ("peers", "status MB", "plugin s", "CPU s", "YAML s", "CPU s", "CPU ratio", "of it ours s", "CPU s")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for count in (int(word) for word in options.peers.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            measure(count, options.repeat, pathlib.Path(folder))


if __name__ == "__main__":
    main()

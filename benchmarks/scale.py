#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a diagnosis of N nodes costs, against a bare ping, an ssh loop and a parallel ssh tool on the same nodes.

    .venv/bin/python benchmarks/scale.py                     3, 20, 50 and 100 nodes
    .venv/bin/python benchmarks/scale.py --nodes 3,20        fewer
    .venv/bin/python benchmarks/scale.py --silent            50 nodes of which 5 are cut off and 2 hang
    .venv/bin/python benchmarks/scale.py --settings          20 nodes with other settings of Ansible
    .venv/bin/python benchmarks/scale.py --floor             20 nodes: of what the time of a diagnosis is made
    .venv/bin/python benchmarks/scale.py --judge             the verdict and the page of up to 10,000 nodes

Nodes and controller share the processors of one machine, so that what a node computes is paid here too; the columns of
processor time are of the controller and its ssh clients alone, which is what they pay where a node has its own. Needs
root for the lab's netns driver; parallel-ssh is Debian's package pssh.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
SERVICE = "/root/ringrift/ai-service"
CONFIG = "hex8_2p"
# The runbook's looks at a node, repaired where the printed ones fail.
LOOKS = (
    'ps aux | grep -E "train|training" | grep -v grep',
    "/usr/local/bin/nvidia-smi --query-gpu=memory.used,memory.total,utilization.gpu --format=csv",
    f"tail -50 {SERVICE}/logs/training.log 2>/dev/null || echo No training log",
    "dmesg 2>/dev/null | tail -20 | grep -i oom",
    f'grep -i "cuda out of memory" {SERVICE}/logs/training.log 2>/dev/null',
    f"cat {SERVICE}/data/locks/training_{CONFIG}.lock 2>/dev/null",
    f"ls -l {SERVICE}/data/training/{CONFIG}.npz {SERVICE}/models {SERVICE}/checkpoints 2>/dev/null | tail -5",
    f"df -h {SERVICE}",
)
TASK = "- hosts: training\n  gather_facts: false\n  tasks:\n    - {}\n"
PING = TASK.format("ansible.builtin.ping:")


def run(*argv: str, timeout: float = 900, **environment: str) -> tuple[float, subprocess.CompletedProcess]:
    begun = time.monotonic()
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
    )  # fmt: skip
    return time.monotonic() - begun, done


class Lab:
    def __init__(self, directory: pathlib.Path, nodes: int, api: str = "ringrift") -> None:
        self.directory = directory
        self.nodes = nodes
        self("up", "--driver", "netns", "--nodes", str(nodes), "--api", api)
        _seconds, done = run("ansible-inventory", "-i", str(self.inventory), "--list")
        listed = json.loads(done.stdout)["_meta"]["hostvars"]
        self.coordinator = listed["coordinator-1"]
        self.hosts = {name: values for name, values in listed.items() if name != "coordinator-1"}

    def __call__(self, *words: str) -> str:
        _seconds, done = run(sys.executable, "-m", "lab", *words, "--dir", str(self.directory))
        if done.returncode:
            raise SystemExit(f"lab {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def inventory(self) -> pathlib.Path:
        return self.directory / "inventory"

    def options(self) -> list[str]:
        values = next(iter(self.hosts.values()))
        return ["-i", values["ansible_ssh_private_key_file"], *values["ansible_ssh_common_args"].split()]

    def received(self, name: str) -> int:
        """Bytes that a node has received since it was started."""
        table = subprocess.run(
            ["ssh", *self.options(), f"root@{self.hosts[name]['ansible_host']}", "cat /proc/net/dev"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        line = next(entry for entry in table.stdout.splitlines() if entry.strip().startswith("eth0:"))
        return int(line.split(":")[1].split()[0])


class Cost(NamedTuple):
    """Seconds by the clock, and of processor time that the controller and its ssh clients used."""

    seconds: float
    cpu: float


def used() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def play(lab: Lab, *words: str, **environment: str) -> Cost:
    before = used()
    environment = {"ANSIBLE_FORKS": "20", **environment}
    seconds, done = run("ansible-playbook", "-i", str(lab.inventory), *words, **environment)
    if done.returncode:
        raise SystemExit(f"ansible-playbook {' '.join(words)}: {done.stdout[-1500:]}{done.stderr[-500:]}")
    return Cost(seconds, used() - before)


def diagnose(lab: Lab, **environment: str) -> Cost:
    words = ("playbooks/diagnose.yml", "-e", f"config={CONFIG}", "-e", "ringrift_report_dir=")
    return play(lab, *words, **environment)


def loop(lab: Lab) -> float:
    begun = time.monotonic()
    for values in lab.hosts.values():
        for look in LOOKS:
            subprocess.run(
                ["ssh", *lab.options(), f"root@{values['ansible_host']}", look],
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
    return time.monotonic() - begun


def side_by_side(lab: Lab) -> float | None:
    tool = shutil.which("parallel-ssh")
    if tool is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".hosts") as hosts:
        hosts.write("".join(f"root@{values['ansible_host']}\n" for values in lab.hosts.values()))
        hosts.flush()
        begun = time.monotonic()
        for look in LOOKS:
            words = [tool, "-h", hosts.name, "-p", "20", "-t", "60", "-x", " ".join(lab.options()), "-i", look]
            subprocess.run(words, capture_output=True, timeout=600, check=False)
        return time.monotonic() - begun


def measure(nodes: int, with_loop: bool) -> None:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-scale-", dir="/var/tmp"))
    lab = Lab(directory, nodes)
    try:
        ping = directory / "ping.yml"
        ping.write_text(PING)
        play(lab, str(ping))
        name = next(iter(lab.hosts))
        bare = min(play(lab, str(ping)) for _round in range(2))
        before = lab.received(name)
        ours = diagnose(lab)
        sent = lab.received(name) - before
        ours = min(ours, diagnose(lab))
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        apart = side_by_side(lab)
        one_by_one = loop(lab) if with_loop else None
        cells = [f"{nodes}", f"{bare.seconds:.1f}", f"{ours.seconds:.1f}", f"{ours.seconds / bare.seconds:.2f}"]
        cells += [f"{bare.cpu:.1f}", f"{ours.cpu:.1f}", f"{ours.cpu / bare.cpu:.2f}"]
        cells += ["-" if value is None else f"{value:.1f}" for value in (one_by_one, apart)]
        print("| " + " | ".join([*cells, f"{memory}", f"{sent // 1024}"]) + " |", flush=True)
    finally:
        lab("down")
        shutil.rmtree(directory, ignore_errors=True)


def silent(nodes: int = 50, cut: int = 5, hung: int = 2) -> None:
    """The same fleet with and without nodes that say nothing."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-scale-", dir="/var/tmp"))
    lab = Lab(directory, nodes)
    try:
        diagnose(lab)
        whole = diagnose(lab).seconds
        names = list(lab.hosts)[-(cut + hung) :]
        for name in names[:cut]:
            lab("break", "unreachable", name)
        for name in names[cut:]:
            lab("break", "hung-ssh", name)
        broken = diagnose(lab).seconds
        told = f"{cut} of them cut off and {hung} hung: {broken:.1f} s ({broken - whole:+.1f} s)"
        print(f"{nodes} nodes: {whole:.1f} s; {told}")
    finally:
        lab("down")
        shutil.rmtree(directory, ignore_errors=True)


# Environment by what it is called; ansible.cfg has pipelining and a connection that stays for two minutes.
SETTINGS = {
    "as in ansible.cfg, 20 forks": {},
    "5 forks, Ansible's own default": {"ANSIBLE_FORKS": "5"},
    "50 forks": {"ANSIBLE_FORKS": "50"},
    "strategy ansible.builtin.free": {"ANSIBLE_STRATEGY": "ansible.builtin.free"},
    "without pipelining": {"ANSIBLE_PIPELINING": "False"},
    "a new connection each time": {"ANSIBLE_SSH_ARGS": "-C -o ControlMaster=no -o ControlPath=none"},
    "without compression": {"ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=120s"},
}


def settings(nodes: int = 20) -> None:
    """The same diagnosis with other settings, twice each in turn, connections being open where they may stay."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-scale-", dir="/var/tmp"))
    lab = Lab(directory, nodes)
    seldom = (ROOT / "ansible.cfg").read_text()
    often = directory / "ansible.cfg"
    often.write_text(re.sub(r"^internal_poll_interval = .*", "", seldom, flags=re.M))
    tried = {
        **SETTINGS,
        "asking whether tasks have ended 1,000 times a second, Ansible's own default": {
            "ANSIBLE_CONFIG": str(often), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
        },
    }  # fmt: skip
    strategies = mitogen_strategies()
    if strategies is not None:
        tried["strategy mitogen_linear"] = {
            "ANSIBLE_STRATEGY": "mitogen_linear", "ANSIBLE_STRATEGY_PLUGINS": strategies,
            "ANSIBLE_HOST_KEY_CHECKING": "False",
        }  # fmt: skip
    try:
        diagnose(lab)
        costs: dict[str, list[Cost]] = {name: [] for name in tried}
        for _round in range(2):
            for name, environment in tried.items():
                costs[name].append(diagnose(lab, **environment))
        print(f"| {nodes} nodes | diagnose s | processor time of the controller s |\n| --- | --- | --- |")
        for name, found in costs.items():
            best = min(found)
            print(f"| {name} | {best.seconds:.1f} | {best.cpu:.1f} |", flush=True)
    finally:
        lab("down")
        shutil.rmtree(directory, ignore_errors=True)


def floor(nodes: int = 20) -> None:
    """From a ping to a diagnosis: what it costs to carry the code there, to look, and to tell; the best of three."""
    sys.path.insert(0, str(ROOT))
    from tests.node_pythons import ENGINES, sent

    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-scale-", dir="/var/tmp"))
    lab = Lab(directory, nodes)
    engines = sent("node_evidence")
    size = sum((ROOT / f"plugins/module_utils/{name}.py").stat().st_size for name in engines) // 1024
    plays = {
        "`ansible.builtin.ping`": PING,
        f"a module that only loads the {len(engines)} engines of `node_evidence`, {size} KiB": TASK.format("loads:"),
        "`node_evidence`": TASK.format(f"ringrift.recovery.node_evidence: {{config: {CONFIG}}}"),
    }
    lines = ["#!/usr/bin/python", "from ansible.module_utils.basic import AnsibleModule"]
    lines += [f"from {ENGINES} import {name}" for name in sorted(engines)]
    lines += ["AnsibleModule({}).exit_json(changed=False)", ""]
    (directory / "library").mkdir()
    (directory / "library/loads.py").write_text("\n".join(lines))
    try:
        print(f"| {nodes} nodes | s | times a ping |\n| --- | --- | --- |")
        bare = 0.0
        for name, text in plays.items():
            playbook = directory / "play.yml"
            playbook.write_text(text)
            tries = [play(lab, str(playbook), ANSIBLE_LIBRARY=str(directory / "library")) for _round in range(3)]
            best = min(tries).seconds
            bare = bare or best
            print(f"| {name} | {best:.1f} | {best / bare:.2f} |", flush=True)
        best = min(diagnose(lab) for _round in range(3)).seconds
        print(f"| `diagnose.yml` | {best:.1f} | {best / bare:.2f} |")
    finally:
        lab("down")
        shutil.rmtree(directory, ignore_errors=True)


def mitogen_strategies() -> str | None:
    """Where Mitogen's strategies are; None where it is not installed."""
    found = importlib.util.find_spec("ansible_mitogen")
    return None if found is None else str(pathlib.Path(found.origin).parent / "plugins/strategy")


def judge(counts: tuple[int, ...] = (100, 1000, 10000)) -> None:
    """What the controller computes from the evidence of many nodes: that of three real looks, again and again."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-scale-", dir="/var/tmp"))
    lab = Lab(directory, 3)
    try:
        kept = directory / "reports"
        play(lab, "playbooks/diagnose.yml", "-e", f"config={CONFIG}", "-e", f"ringrift_report_dir={kept}")
        seen = json.loads(next(kept.glob("*-evidence.json")).read_text())
    finally:
        lab("down")
        shutil.rmtree(directory, ignore_errors=True)
    sys.path.insert(0, str(ROOT / "playbooks/collections"))
    from ansible_collections.ringrift.recovery.plugins.module_utils import _report_html, _verdict

    print("| nodes | evidence MB | verdict s | page s | page MB | largest process MiB |")
    print("| --- " * 6 + "|", flush=True)
    looks = list(seen["hosts"].values())
    for count in counts:
        evidence = {**seen, "hosts": {f"node-{n:05}": looks[n % len(looks)] for n in range(count)}}
        begun = time.monotonic()
        verdict = _verdict.verdict(evidence).as_dict()
        judged = time.monotonic()
        page = _report_html.diagnosis_html(verdict, evidence)
        drawn = time.monotonic()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        cells = [len(json.dumps(evidence)) / 1e6, judged - begun, drawn - judged, len(page) / 1e6]
        print("| " + " | ".join([str(count), *(f"{cell:.2f}" for cell in cells), str(memory)]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="3,20,50,100", help="how many, separated by commas")
    parser.add_argument(
        "--no-loop", action="store_true", help="leave the ssh loop out, which takes minutes at 100 nodes"
    )
    parser.add_argument("--silent", action="store_true", help="measure nodes that do not answer instead")
    parser.add_argument("--settings", action="store_true", help="measure other settings of Ansible instead")
    parser.add_argument("--floor", action="store_true", help="measure of what the time is made instead")
    parser.add_argument("--judge", action="store_true", help="measure verdict and page of many nodes instead")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("Root is needed: the nodes are network namespaces.")
    for instead in (silent, settings, floor, judge):
        if getattr(chosen, instead.__name__):
            instead()
            return
    heads = ["nodes", "ping s", "diagnose s", "ratio"]
    heads += ["ping CPU s", "diagnose CPU s", "CPU ratio", "ssh loop s", "parallel-ssh s", "largest process MiB"]
    print("| " + " | ".join([*heads, "KiB sent per node"]) + " |")
    print("| --- " * (len(heads) + 1) + "|", flush=True)
    for count in chosen.nodes.split(","):
        measure(int(count), not chosen.no_loop)


if __name__ == "__main__":
    main()

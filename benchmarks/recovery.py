#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the command to proven progress, split by step; and the runbook's own commands in a script, on the same lab.

    .venv/bin/python benchmarks/recovery.py              three nodes, each way three times, in turn
    .venv/bin/python benchmarks/recovery.py --repeat 1

Each time the lab is new and lock, checkpoint and training file are broken. The script is the runbook's procedure as far
as it runs; what had to be repaired is said beside each command (docs/recovery_time.md). It verifies nothing, and
its proof is the first epoch in the log that was not there before. Needs root for the lab's netns driver.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import scale

ROLE = re.compile(r"^(?:ringrift[.]recovery[.])?([a-z_.]+) -+ ([\d.]+)s", re.M)
FAULTS = ("lock", "checkpoint", "data")
BOARD, PLAYERS = "hex8", "2"
HERE = f"cd {scale.SERVICE} && export PATH=$PWD/venv/bin:$PATH && "
NPZ = f"data/training/{scale.CONFIG}.npz"
POST = "curl -s -X POST http://localhost:8770/{} -H 'Content-Type: application/json' -d '{{\"config\": \"hex8_2p\"}}'"
# As step, where, and what; where is every node, or the coordinator, from which rsync goes to every node.
RUNBOOK = (
    # Printed: pkill -f "train.py", which ends the shell that runs it and no trainer.
    ("stop", "nodes", "pkill -9 -f '[a]pp.training.train' || true"),
    # Printed: training_lock() and force_release(), which the service does not have.
    ("clear", "nodes", f"rm -f {scale.SERVICE}/data/locks/training_{scale.CONFIG}.lock"),
    ("clear", "coordinator", POST.format("clear_training_state")),
    # Printed without --allow-noncanonical; in parallel, as printed, it writes an encoding that no model here has.
    ("data", "coordinator", HERE + f"rm -f {NPZ} && (python scripts/export_replay_dataset.py --use-discovery "
     f"--allow-noncanonical --single-threaded --board-type {BOARD} --num-players {PLAYERS} --output {NPZ} || true) "
     f"&& chmod 644 {NPZ}"),
    ("data", "rsync", NPZ),
    # Printed for a name that nothing reads; without it the trainer starts from the canonical model in any case.
    ("checkpoint", "nodes", HERE + "for f in checkpoints/checkpoint_epoch_*.pth; do mv $f $f.corrupt || true; done"),
    ("restart", "coordinator", POST.format("dispatch_training")),
)  # fmt: skip


class Bench:
    """A lab of three nodes whose training is broken."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ringrift-bench-", dir="/var/tmp")
        self.directory = pathlib.Path(self.folder.name) / "lab"
        self.lab = scale.Lab(self.directory, 3, "runbook")
        self.lab("break", *FAULTS)
        self.coordinator = self.lab.coordinator["ansible_host"]
        self.nodes = [values["ansible_host"] for values in self.lab.hosts.values()]

    def close(self) -> None:
        self.lab("down")
        self.folder.cleanup()

    def ours(self) -> dict[str, float]:
        """Seconds by role, and in all."""
        seconds, done = scale.run(
            "ansible-playbook", "-i", str(self.lab.inventory), "playbooks/full_recovery.yml",
            "-e", f"config={scale.CONFIG}", "-e", f"ringrift_report_dir={self.folder.name}",
            ANSIBLE_CALLBACKS_ENABLED="ansible.posix.profile_roles",
        )  # fmt: skip
        if done.returncode or "progress is proven" not in done.stdout:
            raise SystemExit(f"full_recovery ended with {done.returncode}: {done.stdout[-2000:]}")
        roles = {name: float(value) for name, value in ROLE.findall(done.stdout)}
        named = {name: roles.get(name, 0.0) for name in roles_in_order()}
        # Start-up, argument checks and what belongs to no role.
        return {**named, "the rest": seconds - sum(named.values()), "in all": seconds}

    def runbook(self) -> dict[str, float]:
        """The same with the commands of the runbook, one after the other as a person types them."""
        begun = time.monotonic()
        seconds: dict[str, float] = {}
        for step, where, command in RUNBOOK:
            since = time.monotonic()
            for host in self._hosts(where):
                self._command(where, host, command)
            seconds[step] = seconds.get(step, 0.0) + time.monotonic() - since
        since = time.monotonic()
        self._await_epoch()
        return {**seconds, "monitor": time.monotonic() - since, "in all": time.monotonic() - begun}

    def _hosts(self, where: str) -> list[str]:
        return [self.coordinator] if where == "coordinator" else self.nodes

    def _command(self, where: str, host: str, command: str) -> str:
        remote = ["ssh", *self.lab.options()]
        if where == "rsync":
            shell = " ".join(["ssh", *self.lab.options(), "-o", "ControlMaster=no"])
            to = f"root@{host}:{scale.SERVICE}/{command}"
            command = f"cd {scale.SERVICE} && rsync -avz -e '{shell}' {command} {to}"
            host = self.coordinator
        done = subprocess.run(
            [*remote, f"root@{host}", command], capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{command} on {host} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _await_epoch(self) -> None:
        count = f"grep -c 'Epoch \\[' {scale.SERVICE}/logs/training.log || true"
        before = [int(self._command("node", host, count) or 0) for host in self.nodes]
        end = time.monotonic() + 60
        while [int(self._command("node", host, count) or 0) for host in self.nodes] == before:
            if time.monotonic() > end:
                raise SystemExit("The runbook's procedure brought no epoch within 60 s.")
            time.sleep(0.5)


def roles_in_order() -> tuple[str, ...]:
    """The roles of a recovery, in the order in which they run."""
    return ("preflight", "diagnose", "journal", "stop_training", "clear_state", "prepare_data", "restart_training",
            "monitor", "report")  # fmt: skip


def once(way: str) -> dict[str, float]:
    bench = Bench()
    try:
        return bench.ours() if way == "ours" else bench.runbook()
    finally:
        bench.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    taken: dict[str, list[dict[str, float]]] = {"ours": [], "runbook": []}
    for number in range(options.repeat):
        for way, found in taken.items():
            print(f"{way}, {number + 1} of {options.repeat}", file=sys.stderr, flush=True)
            found.append(once(way))
    for way, title in (("ours", "full_recovery"), ("runbook", "the runbook's commands")):
        print(f"\n| {title} | seconds (median of {options.repeat}) |\n| --- | --- |")
        for step in taken[way][0]:
            print(f"| {step} | {statistics.median(run[step] for run in taken[way]):.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

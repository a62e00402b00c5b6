# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that look at files run unchanged on every Python that a node may have, and say the same there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy
import pytest
import yaml

from tests.node_pythons import interpreters
from tests.unit.checkpoint_files import content, flipped, save

pytestmark = pytest.mark.torch

# What tells of the moment or of the place, and not of the file.
VOLATILE = ("age", "mtime", "invocation", "warnings", "deprecations")


def test_the_same_answers_everywhere(tmp_path, root):
    found = interpreters()
    hosts = {
        f"python_{version.replace('.', '_')}": {"ansible_connection": "local", "ansible_python_interpreter": place}
        for version, place in found.items()
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    service = tmp_path / "ai-service"
    for folder in ("models", "checkpoints"):
        (service / folder).mkdir(parents=True)
    for epoch in range(8):
        path = save(service / f"checkpoints/checkpoint_epoch_{epoch}.pth", content(epoch=epoch, metadata=True))
        os.utime(path, (1_700_000_000 + epoch,) * 2)
    flipped(save(service / "models/checkpoint_hex8_2p.pth", content(epoch=7, metadata=True)), "data/0")
    features = numpy.random.default_rng(1).random((200, 4, 9, 9), "f4")
    numpy.savez_compressed(tmp_path / "hex8_2p.npz", features=features, values=numpy.ones(200))
    tasks = [
        {"ringrift.recovery.checkpoint_verify": {"path": f"{service}/checkpoints/checkpoint_epoch_3.pth"}},
        {"ringrift.recovery.checkpoint_verify": {"path": f"{service}/models/checkpoint_hex8_2p.pth"}},
        {"ringrift.recovery.npz_inspect": {"path": f"{tmp_path}/hex8_2p.npz", "depth": "full", "scan_values": True}},
        {
            "ringrift.recovery.checkpoint_restore": {
                "path": "models/checkpoint_hex8_2p.pth",
                "candidates": ["checkpoints/*.pth"],
                "service_path": str(service),
            },
            "check_mode": True,
        },
        {
            "ringrift.recovery.checkpoint_retention": {
                "patterns": ["checkpoints/*.pth"],
                "service_path": str(service),
                "keep": 5,
            },
            "check_mode": True,
            # One at a time: what another one is reading counts as open, and is kept.
            "throttle": 1,
        },
    ]
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "ansible-playbook")]
        + ["-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml")],
        cwd=root,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(root / "playbooks/collections"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout[done.stdout.index("{") :])
    results = []
    for task in seen["plays"][0]["tasks"]:
        answers = {}
        for host, answer in task["hosts"].items():
            kept = {key: value for key, value in answer.items() if key not in VOLATILE}
            # The names of quarantined files hold the second of the run.
            answers[host] = json.dumps([kept["changed"], kept.get("problems"), kept.get("msg")], sort_keys=True)
        assert set(answers) == set(hosts)
        assert len(set(answers.values())) == 1, answers
        results.append(next(iter(task["hosts"].values())))
    whole, damaged, training, restored, pruned = results
    assert (whole["valid"], whole["integrity"], whole["epoch"]) == (True, "verified", 3)
    assert [problem["code"] for problem in damaged["problems"]] == ["crc_mismatch"]
    assert (training["valid"], training["samples"]) == (True, 200)
    assert (restored["changed"], restored["checkpoint"]["epoch"]) == (True, 7)
    assert len(pruned["pruned"]) == 3

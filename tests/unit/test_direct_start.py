# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role starts a trainer with, for each kind of board and each version of the service."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

# Options that only the newer service knows; the older one ends at them with exit code 2.
NEWER = ("--no-auto-tune-batch-size", "--safe-mode", "--target-memory-fraction", "--gradient-checkpointing")
ROLE = "ringrift.recovery.restart_training"
CASES = {
    # host: config, whether the service is a newer one, the epoch of the checkpoint
    "hex_newer": ("hex8_2p", True, 9),
    "square_older": ("square19_4p", False, 9),
    "square_weights": ("square8_3p", True, None),
}


def service(root: pathlib.Path, newer: bool) -> pathlib.Path:
    (root / "app/training").mkdir(parents=True)
    (root / "app/training/train.py").write_text("from app.training.train_cli import parse_args\n")
    options = ["--batch-size", "--allow-stale-data", "--save-path", *NEWER[: len(NEWER) if newer else 0]]
    lines = "".join(f'    parser.add_argument("{option}")\n' for option in options)
    (root / "app/training/train_cli.py").write_text(f"def parse_args():\n{lines}")
    (root / "venv/bin").mkdir(parents=True)
    (root / "venv/bin/python").symlink_to(sys.executable)
    return root


@pytest.fixture(scope="module")
def commands(root, tmp_path_factory):
    base = tmp_path_factory.mktemp("direct")
    plays = []
    for host, (config, newer, epoch) in CASES.items():
        settings = {
            "restart_training_config": config,
            "restart_training_coordinator": host,
            "restart_training_service_path": str(service(base / host, newer)),
            "restart_training_node": host,
            "restart_training_via": "direct",
            "restart_training_batch_size": 256,
            "restart_training_checkpoint": {"checkpoint": {"epoch": epoch}},
            "restart_training_within": str(base / host),
        }
        parts = ("batch_size_seen", "batch_size", "direct")
        tasks = [{"ansible.builtin.include_role": {"name": ROLE, "tasks_from": part}} for part in parts]
        plays.append({"hosts": host, "gather_facts": False, "vars": settings, "tasks": tasks})
    (base / "play.yml").write_text(json.dumps(plays))
    extra = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    argv = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), str(base / "play.yml"), "--check"]
    argv += ["-i", ",".join(CASES), "-e", json.dumps(extra)]
    environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_NOCOLOR": "1"}
    environment.update(HOME=str(base), ANSIBLE_LOCAL_TEMP=str(base / "tmp"), ANSIBLE_REMOTE_TMP=str(base / "remote"))
    done = subprocess.run(argv, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout[done.stdout.index("{\n") :])
    return {
        host: result["cmdline"]
        for play in document["plays"]
        for task in play["tasks"]
        for host, result in task["hosts"].items()
        if "keeper_pid" in result
    }


@pytest.mark.parametrize("host", CASES)
def test_flags(commands, host):
    config, newer, epoch = CASES[host]
    board, players = config[:-1].rsplit("_", 1)
    words = commands[host]
    options = dict(zip(words, words[1:]))
    assert words[1:3] == ["-m", "app.training.train"]
    assert (options["--board-type"], options["--num-players"], options["--batch-size"]) == (board, players, "256")
    assert (options["--data-path"], options["--epochs"]) == (f"data/training/{config}.npz", "50")
    # A node that was only sent the file has no game databases, and would be refused without this.
    assert "--allow-stale-data" in words
    assert options["--save-path"] == f"models/candidate_{config}.pth"
    # The service resumes on square boards only, and weights alone tell no epoch to resume from.
    resumes = board.startswith("square") and epoch is not None
    start = f"models/checkpoint_{config}.pth"
    assert (options.get("--resume"), options.get("--init-weights")) == ((start, None) if resumes else (None, start))
    assert [word for word in words if word in NEWER] == list(NEWER[: 1 if newer else 0])

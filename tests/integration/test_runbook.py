# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runbook's own commands, verbatim, on the lab: where they fail, they fail here; ours do what they mean."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.integration.harness import CONFIG, Lab, run

pytestmark = pytest.mark.lab

JOBS = r"""curl -s http://localhost:8770/status | python3 -c '
import sys, json
d = json.load(sys.stdin)
for job in d.get("jobs", []):
    if "training" in job.get("type", ""):
        print(f"{job[\"id\"]}: {job[\"status\"]} - {job.get(\"node_id\")}")
'"""

LAST_TRAINING = r"""curl -s http://localhost:8770/status | python3 -c '
import sys, json
d = json.load(sys.stdin)
print(f"Last training: {d.get(\"last_training_time\", \"unknown\")}")
'"""

LOCK_CHECK = """python -c "
from app.coordination.distributed_lock import training_lock
lock = training_lock()
print(f'Locked: {lock.is_locked()}')
print(f'Lock holder: {lock.get_holder()}')
"
"""

LOCK_RELEASE = """python -c "
from app.coordination.distributed_lock import training_lock
lock = training_lock()
lock.force_release()
print('Lock released')
"
"""

SUBSCRIBERS = """python -c "
from app.coordination.event_router import get_router
router = get_router()
print(f'TRAINING_COMPLETED subscribers: {len(router.get_subscribers(\\"TRAINING_COMPLETED\\"))}')
"
"""

COOLDOWN = """python -c "
from scripts.p2p.managers import TrainingCoordinator
# Check cooldown status in state manager
print('Cooldown check requires P2P orchestrator access')
"
"""

GAMES = """python -c "
from app.utils.game_discovery import GameDiscovery
d = GameDiscovery()
for db in d.find_databases_for_config('hex8', 2):
    print(f'{db.path}: {db.game_count} games')
"
"""

SAMPLES = """python -c "
import numpy as np
data = np.load('data/training/hex8_2p.npz')
print(f'Samples: {len(data[\\"features\\"])}')
"
"""

CHECKPOINT = """python -c "
import torch
from app.utils.torch_utils import safe_load_checkpoint
try:
    cp = safe_load_checkpoint('models/checkpoint_hex8_2p.pth')
    print(f'Checkpoint OK: {cp.keys()}')
except Exception as e:
    print(f'Checkpoint corrupt: {e}')
"
"""

SMALLER_BATCH = r"""python -m app.training.train \
  --board-type hex8 --num-players 2 \
  --batch-size 256 \  # Reduced from 512
  --data-path data/training/hex8_2p.npz"""

EXPORT = """python scripts/export_replay_dataset.py \\
  --use-discovery \\
  --board-type hex8 --num-players 2 \\
  --output data/training/hex8_2p.npz"""

DISPATCH = """curl -s -X POST http://localhost:8770/dispatch_training \\
  -H "Content-Type: application/json" \\
  -d '{"config": "hex8_2p", "force": true}'"""

CLEAR = """curl -s -X POST http://localhost:8770/clear_training_state \\
  -H "Content-Type: application/json" """


@pytest.fixture(scope="module")
def trained(lab: Lab) -> Lab:
    if lab.driver != "netns":
        pytest.skip("the runbook's pkill would reach beyond a node that is only a directory")
    lab.fresh()
    return lab


def shell(lab: Lab, node: str, command: str) -> subprocess.CompletedProcess:
    """Type a command on a node, in the service's directory, with its interpreter first on PATH."""
    line = f"cd ~/ringrift/ai-service && export PATH=$PWD/venv/bin:$PATH\n{command}"
    return run("python", "-m", "lab", "ssh", "--dir", str(lab.directory), node, line, timeout=60)


def ask(lab: Lab, node: str, module: str, arguments: str) -> dict:
    """What one of our modules answers there."""
    done = run(
        "ansible", node, "-i", str(lab.inventory), "-m", f"ringrift.recovery.{module}", "-a", arguments, "-o",
        ANSIBLE_LOAD_CALLBACK_PLUGINS="1", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.oneline",
    )  # fmt: skip
    text = done.stdout
    assert "=> {" in text, text
    return json.loads(text[text.index("=> ") + 3 : text.rindex("}") + 1])


def test_1_jobs_are_not_in_status_and_ours_sees_them(trained):
    done = shell(trained, "coordinator-1", JOBS)
    assert "SyntaxError" in done.stdout or done.stdout.strip() == ""
    answer = ask(trained, "coordinator-1", "p2p_training", f"config={CONFIG}")
    assert [job["status"] for job in answer["active"]] == ["running"]


def test_6_smaller_batch_command_breaks_at_its_comment(trained):
    done = shell(trained, trained.trainers()[0][0], SMALLER_BATCH)
    assert "unrecognized arguments" in done.stdout
    assert "--data-path: command not found" in done.stdout
    assert done.returncode == 127


@pytest.mark.parametrize("command", [LOCK_CHECK, LOCK_RELEASE], ids=["7-check", "8-release"])
def test_lock_commands_raise_and_ours_names_the_holder(trained, command):
    node, pid = trained.trainers()[0]
    done = shell(trained, node, command)
    assert "TypeError" in done.stdout
    assert done.returncode != 0
    answer = ask(trained, node, "training_lock", f"config={CONFIG}")
    assert answer["lock"]["held"] is True
    assert answer["lock"]["holder"]["pid"] == pid
    assert answer["lock"]["releasable"] is False


def test_9_game_discovery_works_and_ours_counts_the_same(trained):
    done = shell(trained, "coordinator-1", GAMES)
    counted = sum(
        int(line.rsplit(": ", 1)[1].split()[0]) for line in done.stdout.splitlines() if line.endswith(" games")
    )
    assert counted > 0
    assert ask(trained, "coordinator-1", "game_databases", f"config={CONFIG}")["games"] == counted


def test_10_sample_count_works_and_ours_counts_the_same(trained):
    node = trained.trainers()[0][0]
    samples = int(shell(trained, node, SAMPLES).stdout.split("Samples: ")[1])
    answer = ask(trained, node, "npz_inspect", "path=~/ringrift/ai-service/data/training/hex8_2p.npz")
    assert answer["samples"] == samples


def test_11_export_ends_with_samples_modulo_256(trained):
    before = ask(trained, "coordinator-1", "npz_inspect", "path=~/ringrift/ai-service/data/training/hex8_2p.npz")
    done = shell(trained, "coordinator-1", EXPORT)
    assert done.returncode == before["samples"] % 256 != 0


def test_12_cooldown_check_prints_a_constant(trained):
    done = shell(trained, "coordinator-1", COOLDOWN)
    assert "Cooldown check requires P2P orchestrator access" in done.stdout


def test_13_last_training_time_is_not_in_status(trained):
    done = shell(trained, "coordinator-1", LAST_TRAINING)
    assert "SyntaxError" in done.stdout or "Last training: unknown" in done.stdout


@pytest.mark.parametrize("command", [DISPATCH, CLEAR], ids=["14-dispatch", "21-clear"])
def test_orchestrator_calls_are_not_found(trained, command):
    assert "404: Not Found" in shell(trained, "coordinator-1", command).stdout


def test_15_subscribers_cannot_be_asked(trained):
    assert "has no attribute 'get_subscribers'" in shell(trained, "coordinator-1", SUBSCRIBERS).stdout


def test_16_daemons_cannot_be_restarted_so(trained):
    done = shell(
        trained, "coordinator-1", "python scripts/launch_daemons.py --restart EVENT_ROUTER FEEDBACK_LOOP DATA_PIPELINE"
    )
    assert done.returncode == 2
    assert "unrecognized arguments: --restart" in done.stdout


def test_17_checkpoint_of_that_name_does_not_exist_and_a_flipped_byte_passes(trained):
    node = trained.trainers()[0][0]
    assert "Checkpoint corrupt: " in shell(trained, node, CHECKPOINT).stdout
    name = re.search(r"checkpoints/checkpoint_epoch_\d+\.pth", trained("break", "checkpoint")).group()
    assert not ask(trained, node, "checkpoint_verify", f"path=~/ringrift/ai-service/{name}")["valid"]
    there = CHECKPOINT.replace("models/checkpoint_hex8_2p.pth", name).replace("import torch\n", "")
    assert "Checkpoint OK" in shell(trained, node, there).stdout


def test_19_pkill_kills_its_own_shell_and_no_trainer_and_ours_stops_it(trained):
    before = trained.trainers()
    node = before[0][0]
    done = run("python", "-m", "lab", "ssh", "--dir", str(trained.directory), node, 'pkill -f "train.py" || true')
    assert done.returncode in (143, 255)
    assert trained.trainers() == before
    play = trained.play("stop_training")
    assert play.rc == 0, play.output
    assert trained.trainers() == []

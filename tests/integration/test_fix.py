# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick fixes on the lab, and a diagnosis that is judged again from its file."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.integration.harness import Lab, run

pytestmark = pytest.mark.lab
LONG = pytest.mark.skipif("SOAK" not in os.environ, reason="a minute more: make soak")


@pytest.fixture(scope="module")
def locked(lab: Lab) -> Lab:
    lab.fresh(nodes=1)
    lab("break", "lock")
    return lab


def test_exit_code_tells_what_was_found(locked):
    play = locked.play("diagnose", "-e", "fail_on=critical")
    assert play.rc == 2
    assert "FINDINGS (fail_on=critical): critical lock_held on nebius-h100-3" in play.flat
    verdict = locked.diagnosis()
    assert (verdict["stalled"], verdict["findings"][0]["cause"]) == (True, "lock_held")
    assert verdict["findings"][0]["fix"] == "fix.yml -e config=hex8_2p -e cause=lock_held"


def test_an_old_incident_is_judged_from_its_file(locked, tmp_path):
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(locked.diagnosis("evidence")))
    play = locked.play("diagnose", "-e", f"evidence={saved}", "-e", "fail_on=warning")
    assert play.rc == 2
    assert "CRITICAL  lock_held on nebius-h100-3" in play.output
    assert "Look at every node" not in play.output.replace("skipping", "") or "ok: [nebius" not in play.output


def test_evidence_that_is_none_is_refused(locked, tmp_path):
    saved = tmp_path / "saved.json"
    saved.write_text('{"config": ')
    play = locked.play("diagnose", "-e", f"evidence={saved}")
    assert play.rc == 2
    assert f"{saved} is none" in play.flat
    play = locked.play("diagnose", "-e", f"evidence={tmp_path}/nowhere.json")
    assert play.rc == 2
    assert f"{tmp_path}/nowhere.json cannot be read on the controller, or is empty" in play.flat


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="make faults plays it, and make soak")
def test_the_lock_is_released_and_nothing_else(locked):
    """Check tells what the run then does; a second run has nothing to do."""
    planned = locked.play("fix", "-e", "cause=lock_held", "--check")
    assert planned.rc == 0, planned.output
    done = locked.play("fix", "-e", "cause=lock_held")
    assert done.rc == 0, done.output
    assert "lock_held is fixed" in done.flat
    assert {host for host, count in planned.changed.items() if count} == {
        host for host, count in done.changed.items() if count
    }
    again = locked.play("fix", "-e", "cause=lock_held")
    assert set(again.changed.values()) == {0}, again.output
    assert locked.trainers() == []


def test_a_cause_without_a_quick_fix_is_refused(locked):
    play = locked.play("fix", "-e", "cause=not_running")
    assert play.rc != 0
    assert "which has no quick fix. One of: gpu_oom" in play.flat
    assert set(play.changed.values()) == {0}


def test_daemons_that_may_not_be_restarted_cost_no_node_its_part_in_the_recovery(lab):
    """What trains on the coordinator would be ended by a restart of its orchestrator, so that is refused."""
    lab.fresh(nodes=2)
    lab("break", "kill", "events")
    orphan = "cd ringrift/ai-service && (exec setsid python3 -c 'import time; time.sleep(300)' scripts/train_other.py"
    orphan += " </dev/null >/dev/null 2>&1 & echo $!)"
    pid = run(sys.executable, "-m", "lab", "ssh", "--dir", str(lab.directory), "coordinator-1", orphan).stdout.strip()
    play = lab.play("full_recovery", "-e", "restart_via=direct", "-e", "train_on=runpod-h100")
    assert f"would end pid {pid} (python3 -c import time; time.sleep(300) scripts/train_other.py)" in play.flat
    assert "The events could not be mended, and training is restarted without" in play.flat
    # What was printed of it fits a screen.
    printed = play.output.split("PLAY [Mend the events]")[1].split("\nPLAY ")[0]
    assert printed.count("\n") < 80, printed
    assert play.rc == 0, play.output
    assert "recovered, progress is proven" in play.flat
    assert [node for node, _pid in lab.trainers()] == ["runpod-h100"]


@pytest.mark.soak
@LONG
def test_out_of_memory_is_restarted_with_half_the_batch(lab):
    lab.fresh(nodes=1)
    lab("break", "oom")
    play = lab.play("fix")
    assert play.rc == 0, play.output
    assert "gpu_oom is fixed" in play.flat
    assert "batch size 256 instead of 512" in play.flat
    lab.wait_for_trainer()


@pytest.mark.soak
@LONG
def test_nothing_is_fixed_where_training_moves(lab):
    play = lab.play("fix")
    assert play.rc == 0, play.output
    assert "nothing to fix" in play.flat
    assert set(play.changed.values()) == {0}, play.output

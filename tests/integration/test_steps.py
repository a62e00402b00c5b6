# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each playbook alone, and the direct start, on the lab."""

from __future__ import annotations

import time

import pytest

from tests.integration.harness import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def steps(lab: Lab) -> Lab:
    lab.fresh()
    return lab


def test_steps_one_by_one_each_twice(steps):
    """The runbook's five steps by hand; a second run of each changes nothing."""
    was = steps.trainers()
    for name, words in (
        ("stop_training", ()),
        ("clear_state", ()),
        ("prepare_data", ()),
        # More epochs than it can finish before the last of these tests, however slow the machine is.
        ("restart_training", ("-e", "restart_via=direct", "-e", "train_on=runpod-h100", "-e", "epochs=100000")),
        ("monitor", ()),
    ):
        play = steps.play(name, *words)
        assert play.rc == 0, play.output
        play = steps.play(name, *words) if name != "stop_training" else play
        assert play.rc == 0, play.output
        if name != "stop_training":
            assert set(play.changed.values()) == {0}, play.output
        else:
            assert steps.trainers() == []
    now = steps.trainers()
    assert [node for node, _pid in now] == ["runpod-h100"]
    assert now != was


def test_the_directly_started_trainer_outlives_the_play(steps):
    first = steps.wait_for_trainer()
    epoch = next(node["epoch"] for node in steps.status()["nodes"] if node["name"] == first[0])
    end = time.monotonic() + 30
    while time.monotonic() < end:
        later = next(node for node in steps.status()["nodes"] if node["name"] == first[0])
        if later["trainer_pid"] == first[1] and later["epoch"] > epoch:
            return
        time.sleep(0.3)
    raise AssertionError(f"the trainer {first} made no epoch after {epoch}")


def test_clear_state_refuses_under_a_live_trainer(steps):
    before = steps.trainers()
    assert before
    play = steps.play("clear_state")
    assert play.rc != 0
    assert "Stop them first" in play.flat
    assert set(play.changed.values()) == {0}
    assert steps.trainers() == before


def test_monitor_says_that_nothing_trains(steps):
    assert steps.play("stop_training").rc == 0
    play = steps.play("monitor")
    assert play.rc != 0
    assert "No trainer of hex8_2p is seen" in play.flat


def test_monitor_says_that_the_budget_is_used_up(lab):
    lab.fresh()
    lab("break", "hang")
    play = lab.play("monitor", "-e", "ringrift_monitor_timeout=3")
    assert play.rc != 0
    assert "was proven within 3 s" in play.flat


def test_hung_trainer_is_recovered(lab):
    was = lab.trainers()
    play = lab.play("full_recovery")
    assert play.rc == 0, play.output
    assert len(lab.trainers()) == 1
    assert lab.trainers() != was


def test_bad_data_on_one_node_is_replaced_and_the_old_file_kept(lab):
    lab("break", "data")
    play = lab.play("prepare_data")
    assert play.rc == 0, play.output
    play = lab.play("prepare_data")
    assert set(play.changed.values()) == {0}, play.output

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each playbook alone, and the direct start, on the lab."""

from __future__ import annotations

import os
import pathlib
import shutil
import time

import pytest

from lab import cluster
from lab.nodes import driver_of
from tests.integration.harness import CONFIG, Lab

pytestmark = pytest.mark.lab
DATA, INCOMING = f"{CONFIG}.npz", f".{CONFIG}.npz.incoming"


def training_folder(lab: Lab, name: str) -> pathlib.Path:
    instance = cluster.running(lab.directory)
    node = next(node for node in instance.nodes if node.name == name)
    return driver_of(instance).service(node, "data", "training")


@pytest.fixture(scope="module")
def steps(lab: Lab) -> Lab:
    lab.fresh(nodes=2)
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


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="make faults plays it, and make soak")
def test_hung_trainer_is_recovered(lab):
    was = lab.trainers()
    play = lab.play("full_recovery")
    assert play.rc == 0, play.output
    assert len(lab.trainers()) == 1
    assert lab.trainers() != was


def test_bad_data_is_replaced_and_one_bad_node_does_not_spoil_the_others(lab):
    lab("break", "data")
    folders = {node: training_folder(lab, node) for node in ("nebius-h100-3", "runpod-h100", "lambda-gh200-b-new")}
    good, bad, cut = folders.values()
    damaged = {node: (folder / DATA).read_bytes() for node, folder in folders.items()}
    # Nothing can be copied to one node, and to another an earlier copy was cut off.
    (bad / INCOMING / DATA / "in the way").mkdir(parents=True)
    (cut / INCOMING).write_bytes(damaged["lambda-gh200-b-new"])
    play = lab.play("prepare_data")
    assert play.rc != 0
    assert (
        f"{CONFIG}.npz could not be put in place on runpod-h100, where the old file is as it was; 2 other" in play.flat
    )
    assert "-e exclude=runpod-h100" in play.flat
    fresh = (good / DATA).read_bytes()
    assert fresh not in damaged.values()
    assert (cut / DATA).read_bytes() == fresh
    assert (bad / DATA).read_bytes() == damaged["runpod-h100"]
    for node in ("nebius-h100-3", "lambda-gh200-b-new"):
        assert (folders[node] / f"{DATA}.previous").read_bytes() == damaged[node]
        assert not (folders[node] / INCOMING).exists()
    shutil.rmtree(bad / INCOMING)
    play = lab.play("prepare_data")
    assert play.rc == 0, play.output
    # Nodes that have the right bytes are skipped.
    assert {host for host, count in play.changed.items() if count} == {"runpod-h100"}, play.output
    assert (bad / DATA).read_bytes() == fresh

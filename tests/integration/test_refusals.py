# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that cannot be meant: a clear message, a non-zero exit, nothing touched."""

from __future__ import annotations

import os

import pytest

from tests.integration.harness import run

pytestmark = pytest.mark.lab


@pytest.fixture
def untouched(healthy):
    """The same trainer runs before and after, and no playbook has changed a file."""
    before = healthy.trainers()
    yield healthy
    assert healthy.trainers() == before


# Of every other kind: test_survey.py.
@pytest.mark.parametrize("config", ["nonsense", "hex8_2p; rm -rf x"])
def test_bad_config(untouched, config):
    play = untouched.play("full_recovery", config=config)
    assert play.rc != 0
    assert "which is not <board>_<players>p" in play.flat
    assert "Nothing was touched" in play.flat
    assert "PLAY [Diagnose]" not in play.output


def test_no_config_at_all(untouched):
    done = run("ansible-playbook", "-i", str(untouched.inventory), "playbooks/full_recovery.yml")
    assert done.returncode != 0
    assert "-e config=hex8_2p" in done.stdout


def test_unknown_target(untouched):
    play = untouched.play("full_recovery", "-e", "target=typo")
    assert play.rc != 0
    assert "No node matches" in play.flat


def test_unknown_node_in_limit(untouched):
    play = untouched.play("full_recovery", "-l", "no-such-node")
    assert play.rc != 0
    assert "Could not match supplied host pattern, ignoring: no-such-node" in play.flat


def test_limit_that_leaves_no_training_node(untouched):
    play = untouched.play("full_recovery", "-l", "coordinator-1")
    assert play.rc != 0
    assert "No node matches" in play.flat


def test_unknown_excluded_node(untouched):
    play = untouched.play("full_recovery", "-e", "exclude=no-such-node")
    assert play.rc != 0
    assert "not in this inventory" in play.flat


def test_empty_inventory(untouched, tmp_path):
    empty = tmp_path / "hosts.yml"
    empty.write_text("---\ntraining:\n  hosts: {}\ncoordinator:\n  hosts: {}\n")
    done = run("ansible-playbook", "-i", str(empty), "playbooks/full_recovery.yml", "-e", "config=hex8_2p")
    assert done.returncode != 0
    assert "No node matches" in " ".join(done.stdout.split())


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="make faults plays it, and make soak")
def test_stopped_orchestrator(lab):
    lab.fresh()
    lab("break", "lock", "orchestrator")
    play = lab.play("full_recovery")
    assert play.rc != 0
    assert "orchestrator_down" in play.flat
    assert "-e restart_via=direct" in play.flat
    assert "Nothing was touched" in play.flat
    assert set(play.changed.values()) <= {0}, play.output
    # What the refusal advises works.
    play = lab.play("full_recovery", "-e", "restart_via=direct")
    assert play.rc == 0, play.output
    assert len(lab.trainers()) == 1


def test_limit_leaves_the_job_of_another_node_alone(untouched):
    busy = untouched.trainers()[0][0]
    idle = next(node["name"] for node in untouched.status()["nodes"] if node["name"] not in (busy, "coordinator-1"))
    play = untouched.play("full_recovery", "-l", idle)
    assert play.rc != 0
    assert f"A job of hex8_2p is with {busy}" in play.flat
    assert set(play.changed.values()) == {0}, play.output

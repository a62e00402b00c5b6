# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stopped, proven gone on every node, then released: whatever happens on the way, and whoever goes on from there."""

from __future__ import annotations

import os
import re
from typing import Dict

import pytest

from tests.integration import test_stopping
from tests.integration.harness import CONFIG, QUICK, Lab

pytestmark = pytest.mark.lab


@pytest.fixture
def cut(lab):
    """A fresh lab whose nodes have a network that can be cut."""
    if lab.driver != "netns":
        pytest.skip("a node of the local driver has no network of its own to cut")
    lab.fresh(nodes=2)
    yield lab
    lab("down")


def locks(lab: Lab) -> Dict[str, str]:
    """The hash of each node's lock file, by node."""
    found = {}
    for node, state in lab.snapshot().items():
        for path, digest in state["files"].items():
            if path.endswith(f"data/locks/training_{CONFIG}.lock"):
                found[node] = digest
    return found


def other_than(lab: Lab, *names: str) -> str:
    """A training node that is none of these."""
    nodes = [node["name"] for node in lab.status()["nodes"]]
    return next(node for node in nodes if node not in ("coordinator-1", *names))


def test_no_lock_is_released_while_a_node_is_silent_and_exclude_goes_on(cut):
    holder = cut.wait_for_trainer()[0]
    silent = other_than(cut, holder)
    cut("break", "lock")
    before = locks(cut)
    assert holder in before
    cut("break", "unreachable", silent)
    play = cut.play("full_recovery", **QUICK)
    assert play.rc != 0
    assert f"{silent} does not answer" in play.flat
    assert "Nothing was touched" in play.flat
    assert set(play.changed.values()) == {0}, play.output
    for name, words in (
        ("stop_training", "no lock will be released"),
        ("clear_state", f"{silent}: FAILED: it does not answer any more"),
        ("monitor", f"{silent}: FAILED: it does not answer any more"),
    ):
        play = cut.play(name, **QUICK)
        assert play.rc != 0, play.output
        assert words in play.flat
        assert locks(cut) == before, name
    play = cut.play("full_recovery", "-e", f"exclude={silent}")
    assert play.rc == 0, play.output
    assert len(cut.trainers()) == 1


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="a minute more: make soak")
def test_a_node_that_comes_back_with_a_live_trainer(cut):
    """What was stopped elsewhere meanwhile does not make its lock anybody's to release."""
    node, pid = cut.wait_for_trainer()
    before = locks(cut)
    cut("break", "unreachable", node)
    play = cut.play("stop_training", **QUICK)
    assert play.rc != 0
    assert f"-e exclude={node}" in play.flat
    cut("mend", "unreachable", node)
    assert cut.trainers() == [(node, pid)]
    play = cut.play("clear_state")
    assert play.rc != 0
    assert "Stop them first" in play.flat
    assert locks(cut) == before
    play = cut.play("full_recovery", "-e", "force=true")
    assert play.rc == 0, play.output
    ((_node, now),) = cut.trainers()
    assert now != pid


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="two minutes more: make soak")
def test_a_trainer_that_refuses_to_die_keeps_its_lock(cut):
    if not test_stopping._stopping.FREEZER.joinpath("cgroup.procs").exists():
        pytest.skip("freezing a trainer for good needs control groups of version 1")
    node, _pid = cut.wait_for_trainer()
    before = locks(cut)
    assert "frozen" in cut("break", "unkillable")
    play = cut.play("full_recovery", "-e", "force=true", "-e", "stop_training_grace=1")
    assert play.rc != 0
    assert re.search(r"pid \d+ \(state D, waits in ", play.flat), play.output
    assert "eboot the node" in play.flat
    assert f"of {CONFIG} is still there" in play.flat or f"of {CONFIG} are still there" in play.flat
    play = cut.play("clear_state")
    assert play.rc != 0
    assert locks(cut) == before
    assert node in cut("mend", "unkillable")
    play = cut.play("full_recovery", "-e", "force=true")
    assert play.rc == 0, play.output
    assert len(cut.trainers()) == 1

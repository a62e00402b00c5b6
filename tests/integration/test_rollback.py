# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recovery replaced is put back, what was damaged is left, and what has changed since is untouched."""

from __future__ import annotations

import os
import sys

import pytest

from lab.snapshot import difference
from tests.integration.harness import CONFIG, Lab, run

pytestmark = pytest.mark.lab


def on(lab: Lab, node: str, command: str) -> None:
    """Run a command among the training files of a node."""
    words = ("ssh", "--dir", str(lab.directory), node, f"cd ringrift/ai-service/data/training && {command}")
    done = run(sys.executable, "-m", "lab", *words)
    assert done.returncode == 0, done.stdout


def hashes(lab: Lab, ending: str | tuple[str, ...]) -> dict[tuple[str, str], str]:
    """The files whose names end so, by node and name."""
    return {
        (node, name): digest
        for node, seen in lab.snapshot().items()
        for name, digest in seen["files"].items()
        if name.endswith(ending)
    }


@pytest.fixture(scope="module")
def replaced(lab: Lab) -> dict:
    """A run that exported anew where the training files were good; training is stopped afterwards."""
    lab.fresh(nodes=2)
    before = hashes(lab, f"{CONFIG}.npz")
    fresh = lab.play("fix", "-e", "cause=data_not_ready", "-e", "refresh=always")
    assert fresh.rc == 0, fresh.output
    after = hashes(lab, f"{CONFIG}.npz")
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    refused = lab.play("rollback")
    stopped = lab.play("stop_training")
    assert stopped.rc == 0, stopped.output
    return {"before": before, "after": after, "refused": refused, "run": lab.reports()[-2]["run"]}


def test_refused_under_a_live_trainer(replaced):
    play = replaced["refused"]
    assert play.rc != 0
    assert f"Stop it first: ansible-playbook stop_training.yml -e config={CONFIG}. Nothing was touched." in play.flat
    assert set(play.changed.values()) == {0}


def test_what_was_replaced_is_put_back_and_the_new_one_kept(lab, replaced):
    """Check, run, run again."""
    world = lab.snapshot()
    planned = lab.play("rollback", "--check", "--diff")
    assert planned.rc == 0, planned.output
    assert difference(world, lab.snapshot()) == []
    done = lab.play("rollback")
    assert done.rc == 0, done.output
    assert planned.changed == done.changed
    assert sum(done.changed.values()) == len(replaced["before"])
    assert hashes(lab, f"{CONFIG}.npz") == replaced["before"]
    kept = {(node, name[: -len(".previous")]): found for (node, name), found in hashes(lab, ".npz.previous").items()}
    assert kept == replaced["after"]
    report = lab.reports()[-1]
    assert (report["outcome"], report["fleet"]["rollback_of"]["id"]) == ("put back", replaced["run"])
    again = lab.play("rollback")
    assert again.rc == 0, again.output
    assert "put back already" in again.flat
    assert set(again.changed.values()) == {0}
    replaced["undo"] = report["run"]


def test_what_cannot_be_put_back_is_said_and_keeps_no_other(lab, replaced):
    """The undo is undone where that can be: not where the file has changed since, or what is kept is damaged."""
    changed, damaged = sorted(node for node, _name in replaced["before"] if not node.startswith("coordinator"))[:2]
    on(lab, changed, f"cp {CONFIG}.npz.previous other && mv other {CONFIG}.npz && echo >> {CONFIG}.npz")
    on(lab, damaged, f"truncate -s 1000 {CONFIG}.npz.previous")
    world = hashes(lab, f"{CONFIG}.npz")
    play = lab.play("rollback", "-e", f"run={replaced['undo']}", "-e", "force=true")
    assert play.rc != 0
    assert f"{changed}: NOT PUT BACK /" in play.flat
    assert "has changed since that run: it is another file now" in play.flat
    assert f"{damaged}: NOT PUT BACK /" in play.flat
    assert "is not what that run kept" in play.flat
    now = hashes(lab, f"{CONFIG}.npz")
    for place, digest in now.items():
        assert digest == (world if place[0] in (changed, damaged) else replaced["after"])[place], place


def test_an_unknown_run_and_another_controller(lab, tmp_path):
    unknown = lab.play("rollback", "-e", "run=20260101T000000Z-0000")
    elsewhere = lab.play("rollback", "-e", f"ringrift_report_dir={tmp_path}")
    for play in (unknown, elsewhere):
        assert play.rc != 0
        assert "name it with -e run=FILE. Nothing was touched" in play.flat
        assert set(play.changed.values()) == {0}
    assert "none of them is of the run '20260101T000000Z-0000'" in unknown.flat


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="two minutes more: make soak")
def test_what_was_damaged_is_left_unless_it_is_forced(lab, replaced):
    """Training files and the checkpoints that training starts from, cut off."""
    lab("break", "data")
    start_points = [node for node, _name in hashes(lab, f"models/checkpoint_{CONFIG}.pth")]
    assert start_points
    for node in start_points:
        on(lab, node, f"truncate -s 5000 ../../models/checkpoint_{CONFIG}.pth")
    broken = set(hashes(lab, (".npz", ".pth")).values())
    for cause, file in (("data_not_ready", f"{CONFIG}.npz"), ("checkpoint_corrupt", f"models/checkpoint_{CONFIG}.pth")):
        cut = hashes(lab, file)
        fixed = lab.play("fix", "-e", f"cause={cause}")
        assert fixed.rc == 0, fixed.output
        assert not set(cut.values()) & set(hashes(lab, file).values())
        left = lab.play("rollback")
        assert left.rc == 0, left.output
        assert "it was replaced because it is damaged" in left.flat
        assert "nothing was put back" in left.flat
        assert set(left.changed.values()) == {0}
        forced = lab.play("rollback", "-e", "force=true")
        assert forced.rc == 0, forced.output
        now = hashes(lab, file)
        assert {place: now[place] for place in cut} == cut
    assert broken <= set(hashes(lab, "").values())

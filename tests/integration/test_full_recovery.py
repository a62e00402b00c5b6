# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: three faults together, the plan, the recovery, the proof, and a second run that changes nothing.

With the runbook's API, while most other tests have that of the service.
"""

from __future__ import annotations

import json
import pathlib
import re
import socket

import pytest

from lab import cluster
from tests.faults import fidelity, world
from tests.faults.play import compared
from tests.integration.harness import RECAP, Lab, Play

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def story(lab: Lab) -> dict:
    """Break the lab, look, plan, recover, recover again; the tests below read what happened."""
    lab.fresh(api="runbook")
    instance = cluster.running(lab.directory)
    seen = {"before": lab.status(), "was": lab.trainers()}
    lab("break", "lock", "checkpoint", "data")
    seen["broken"] = world.look(instance)
    seen["diagnosis"] = lab.play("diagnose")
    seen["verdict"] = lab.diagnosis()
    plan = lab.directory / "plan.json"
    seen["plan"] = lab.play("full_recovery", "--check", "--diff", "-e", f"plan_file={plan}")
    seen["saved"] = json.loads(plan.read_text())
    seen["planned"] = world.look(instance)
    size = fidelity.log_size(instance)
    seen["recovery"] = lab.play("full_recovery", "-e", f"plan={plan}")
    seen["recovered"] = world.look(instance)
    seen["heard"] = fidelity.log_since(instance, size)
    seen["report"] = lab.reports()[-1]
    seen["instance"] = instance
    seen["now"] = lab.trainers()
    seen["second"] = lab.play("full_recovery")
    seen["stale"] = lab.play("full_recovery", "-e", f"plan={plan}", "-e", "force=true")
    seen["still"] = lab.trainers()
    return seen


def test_diagnosis_names_each_fault(story):
    play: Play = story["diagnosis"]
    assert play.rc == 0, play.output
    assert "hex8_2p: training is STALLED" in play.flat
    node = story["was"][0][0]
    assert f"lock_held on {node}" in play.flat
    assert f"checkpoint_corrupt on {node}" in play.flat
    for host in ("nebius-h100-3", "runpod-h100", "lambda-gh200-b-new"):
        assert ("data_not_ready", host) in [(entry["cause"], entry["host"]) for entry in story["verdict"]["findings"]]


def test_check_mode_writes_nothing(story):
    assert story["plan"].rc == 0, story["plan"].output
    assert story["planned"].nodes == story["broken"].nodes


def test_check_mode_reads_as_the_plan(story):
    plan = story["plan"].flat
    node = story["was"][0][0]
    for words in (
        f"{node}: would stop pid",
        # Without nodes of their own, all have the host name of this machine.
        f"{node}: would release the lock of {node if story['instance'].driver == 'netns' else socket.gethostname()}:",
        f"{node}: would quarantine",
        "would put verified samples in place",
        "fleet: would export verified samples",
        "fleet: would dispatch a training job",
        "plan only, nothing was changed",
    ):
        assert words in plan, words


def test_recovery_proves_progress(story):
    play: Play = story["recovery"]
    assert play.rc == 0, play.output
    report = story["report"]
    assert report["outcome"] == "recovered, progress is proven"
    proofs = [entry for steps in report["nodes"].values() for entry in steps.get("monitor", {}).get("proof", [])]
    assert proofs
    assert story["now"]
    assert story["now"] != story["was"]


def page_of(play: Play) -> str:
    path = re.search(r"report page: (\S+[.]html)", play.output)
    assert path, play.output
    return pathlib.Path(path.group(1)).read_text()


def test_the_checkpoint_and_what_is_lost_are_told(story):
    """From which file training goes on, its hash, epoch and age, and how many epochs are lost."""
    steps = [step for node in story["report"]["nodes"].values() for step in node.values() if step.get("restored")]
    assert steps
    for text in (story["recovery"].flat, page_of(story["recovery"])):
        for step in steps:
            kept = step["checkpoint"]
            assert f"restored {kept['path']} from {step['source']}, of " in text
            assert f"ago, sha256 {kept['sha256']}" in text
        assert re.search(r"lost (no epoch|\d+ epochs?|an unknown number of epochs): ", text)


def test_the_page_has_the_diagnosis_and_the_steps(story):
    page = page_of(story["recovery"])
    for words in ("Training diagnosis before the recovery", "recovered, progress is proven", "lock_held", "<svg"):
        assert words in page, words
    assert "report page" not in story["plan"].output


def test_what_the_plan_predicted_is_what_the_run_changed(story):
    planned, done = story["plan"].changed, story["recovery"].changed
    assert {host for host, count in planned.items() if count} == {host for host, count in done.items() if count}


def test_file_by_file_and_request_by_request(story):
    """What the world shows of files, processes, jobs and requests is what the plan names, neither more nor less."""
    instance, before = story["instance"], story["planned"]
    said = fidelity.predicted(story["saved"], instance.coordinator.name, before)
    assert {what for _host, what, _of in said} >= {"file", "process ends", "dispatch"}
    wrong, trained = compared(instance, said, story["report"], before, story["recovered"], story["heard"])
    assert not wrong
    assert trained


def test_a_plan_is_carried_out_as_it_was_saved_and_only_in_its_own_world(story):
    """The run that was given the plan changed what it predicts; in a world that has moved on it is refused."""
    predicted = {
        (host, step) for host, steps in story["saved"]["nodes"].items() for step in steps if _changes(steps[step])
    }
    made = {(host, step) for host, steps in story["report"]["nodes"].items() for step in steps if _changes(steps[step])}
    assert predicted == made
    assert {step for step, told in story["saved"]["fleet"].items() if _changes(told)} == {
        step for step, told in story["report"]["fleet"].items() if _changes(told)
    }
    play: Play = story["stale"]
    assert play.rc != 0
    for words in (
        "the world has changed",
        "the option force was false, and is true",
        "processes was",
        "Nothing was touched",
    ):
        assert words in play.flat, words
    assert set(play.changed.values()) == {0}, play.output


def _changes(told: dict) -> bool:
    return bool(told.get("changed"))


def test_a_further_node_costs_what_is_done_on_it_and_not_what_is_done_once(story):
    """Of some 90 tasks; each is a process of the controller for each node that works through it."""
    nodes = set(story["report"]["nodes"])
    worked = sorted(int(found[1]) for found in RECAP.findall(story["recovery"].output) if found[0] in nodes)
    assert len(worked) == 3
    assert max(worked[:-1]) <= 40, story["recovery"].output


def test_second_run_changes_nothing(story):
    play: Play = story["second"]
    assert play.rc == 0, play.output
    assert set(play.changed.values()) == {0}, play.output
    assert story["still"] == story["now"]
    assert len(story["still"]) == 1

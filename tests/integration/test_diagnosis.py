# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The diagnosis names the cause of what was broken; all scenarios with `make soak`, some of them always."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

import pytest

from lab import faults
from tests.integration.conftest import netns_works
from tests.integration.diagnosis_player import Stage, judge
from tests.integration.diagnosis_scenarios import FEW, SCENARIOS, Scenario, named


@pytest.fixture(scope="module")
def stage():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-diagnosis-", dir="/var/tmp"))
    made = Stage(directory, "netns" if netns_works() else "local")
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(directory, ignore_errors=True)


def check(stage: Stage, scenario: Scenario) -> None:
    outcome = stage.play(scenario)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert not outcome.wrong, "\n".join(outcome.wrong)


@pytest.mark.lab
@pytest.mark.parametrize("name", FEW)
def test_the_cause_comes_first(stage, name):
    check(stage, named(name))


@pytest.mark.lab
@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="all scenarios take a quarter of an hour: make soak")
@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.name not in FEW], ids=lambda one: one.name)
def test_the_cause_comes_first_in_every_scenario(stage, scenario):
    check(stage, scenario)


def test_the_table_is_whole():
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names)) >= 40
    assert set(FEW) <= set(names)
    assert {fault for scenario in SCENARIOS for fault, _node in scenario.faults} <= set(faults.names())
    for scenario in SCENARIOS:
        assert not set(scenario.tops) & set(scenario.never), scenario.name
        assert not set(scenario.also) & set(scenario.never), scenario.name
    with pytest.raises(KeyError, match="no scenario"):
        named("absent")


def test_a_wrong_verdict_is_seen():
    scenario = Scenario("x", (), "lock_held", True, host="a", also=("disk_full",), never=("gpu_oom",))
    found = [{"cause": "lock_held", "host": "b"}, {"cause": "gpu_oom", "summary": "s", "evidence": ["f"]}]
    outcome = judge(scenario, {"stalled": None, "findings": found}, 1.0)
    assert outcome.right
    assert len(outcome.wrong) == 4
    outcome = judge(scenario, {"stalled": False, "findings": found}, 1.0)
    assert (outcome.got, outcome.right) == ("not_stalled", False)
    good = [{"cause": "lock_held", "host": "a"}, {"cause": "disk_full", "host": "a"}]
    assert judge(scenario, {"stalled": True, "findings": good}, 1.0).wrong == ()
    assert judge(scenario, {}, 1.0).got == "nothing"

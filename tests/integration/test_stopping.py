# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trainers that are hard to stop, each in a namespace of its own: ours, and the runbook's pkill on the same ones."""

from __future__ import annotations

import os

import pytest

from benchmarks import _stopping

REASON = _stopping.available()
pytestmark = [pytest.mark.soak, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

# Only these are said to be stopped by a pkill, and only where the command line has the words.
WORDS = _stopping.SCRIPT


# Both forms of each case under `make soak`, in turn otherwise.
FORMS = [
    pytest.param(case, form, id=f"{case.name}-{at}")
    for number, case in enumerate(_stopping.CASES)
    for at, form in enumerate(_stopping.FORMS)
    if os.environ.get("SOAK") or number % 2 == at
]


@pytest.mark.parametrize(("case", "form"), FORMS)
def test_ours_has_the_right_outcome_in_bounded_time(case, form):
    outcome = _stopping.run_case(case, _stopping.OURS, form)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.verdict == case.expected, outcome
    assert outcome.seconds < _stopping.BOUND
    assert outcome.harmed == []
    # What is left is never called stopped, and is named.
    assert (outcome.left == 0) is (case.expected == _stopping.STOPPED)
    if case.expected == _stopping.UNKILLABLE:
        ((pid, state, wchan, unkillable),) = outcome.survivors
        assert (state, unkillable, bool(wchan)) == ("D", True, True)
        assert f"pid {pid} (state D, waits in {wchan})" in outcome.message
        assert "eboot the node" in outcome.message
    if case.expected == _stopping.IN_DOUBT:
        assert "under the title 'ringrift: training hex8_2p'" in outcome.message


@pytest.mark.parametrize("case", _stopping.CASES[:: 1 if os.environ.get("SOAK") else 5], ids=lambda case: case.name)
def test_the_runbooks_pkill_stops_none_of_them_and_ends_its_own_shell(case):
    outcome = _stopping.run_case(case, _stopping.PKILL)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.left > 0
    assert "its own shell" in outcome.harmed
    assert "`tail -f train.py`" in outcome.harmed


def test_the_runbooks_pkill_ends_the_trainer_of_another_config():
    outcome = _stopping.run_case(_stopping.CASES[0], _stopping.PKILL, WORDS)
    assert outcome.left == 0
    assert "the trainer of another config" in outcome.harmed


@pytest.mark.lab
def test_a_lab_with_an_unkillable_trainer_can_be_taken_down(lab):
    if lab.driver != "netns" or not _stopping.FREEZER.joinpath("cgroup.procs").exists():
        pytest.skip("freezing a trainer for good needs root and control groups of version 1")
    lab.fresh()
    lab.wait_for_trainer()
    lab("break", "unkillable")
    lab("down")
    _stopping.wait_for(lambda: not list(_stopping.FREEZER.glob("ringrift-lab-*")), "the group to be removed")

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the matrix of faults; `make faults` plays all of it."""

from __future__ import annotations

import os
import pathlib
import tempfile

import pytest

from tests.faults.cases import DURING, SAMPLE, STATES
from tests.faults.play import Kills, play_during, tasks_of_a_recovery
from tests.faults.stage import Stage
from tests.integration.conftest import netns_works

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not netns_works(), reason="needs nodes with networks and disks of their own, and so root"),
]


@pytest.fixture(scope="module")
def stage():
    with Stage(pathlib.Path(tempfile.mkdtemp(prefix="ringrift-faults-", dir="/var/tmp"))) as made:
        yield made


def test_the_sample_is_of_the_matrix_and_no_name_is_there_twice():
    names = [case.name for case in (*STATES, *DURING)]
    assert len(names) == len(set(names))
    assert set(SAMPLE) <= {case.name for case in DURING}


@pytest.mark.parametrize("case", [case for case in DURING if case.name in SAMPLE], ids=lambda case: case.name)
def test_nothing_is_lost_and_run_again_it_ends_well(stage, case):
    outcome = play_during(stage, case)
    assert not outcome.wrong, outcome


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="test_journal.py kills one too; make faults")
def test_a_controller_that_dies_after_the_copy(stage):
    kills = Kills(stage)
    tasks = tasks_of_a_recovery(stage)
    number = next(index for index, task in enumerate(tasks, 1) if "Copy the training file" in task)
    outcome = kills.play(number, tasks[number - 1])
    assert outcome.first == "killed"
    assert not outcome.wrong, outcome

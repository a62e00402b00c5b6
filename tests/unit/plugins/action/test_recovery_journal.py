# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal as Ansible keeps it: check, run, check, run, and a controller that was killed."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.modules import recovery_journal

from tests.unit.ansible_tasks import run_tasks

KEYS = set(yaml.safe_load(recovery_journal.RETURN)["journal"]["contains"])


@pytest.fixture
def keep(tmp_path):
    """Tasks with these states of a run, all of one controller; whether each worked, and its result."""

    def call(*tasks):
        tasks = [
            {
                "ringrift.recovery.recovery_journal": {
                    "config": "hex8_2p", "directory": str(tmp_path / "recovery"), **options
                },
                "check_mode": check,
            }
            for check, options in tasks
        ]  # fmt: skip
        return [(not found.get("failed"), found) for found in run_tasks(tmp_path, tasks)[0]]

    return call


def predicted(**options):
    return True, options


def done(**options):
    return False, options


def test_check_run_check_run(keep, tmp_path):
    elsewhere = str(tmp_path / "elsewhere")
    (worked, would), (begun, found) = keep(
        predicted(state="begun", run="one", directory=elsewhere), done(state="begun", run="one", user="operator")
    )
    assert (worked, would["changed"], would["journal"]["allowed"]) == (True, False, True)
    assert not (tmp_path / "elsewhere").exists()
    assert (begun, found["changed"], found["journal"]["allowed"], found["run"]) == (True, False, True, "one")
    assert set(found["journal"]) == KEYS
    # The controller of that task has ended, so its run has died: the same again says so, and begins.
    (_, would), (_, begun), (ended, _), (_, seen), (worked, refused) = keep(
        predicted(state="begun", run="two"),
        done(state="begun", run="two"),
        done(state="ended", run="two", outcome="failed in monitor"),
        done(),
        done(state="step", run="one", step="monitor"),
    )
    assert (would["journal"]["allowed"], would["journal"]["broken_off"]["run"]) == (True, "one")
    assert would["journal"]["broken_off"]["who"]["user"] == "operator"
    assert begun["journal"]["allowed"]
    assert ended
    assert seen["journal"]["in_vain"] == 1
    assert not worked
    assert "has taken the place of this run (one) with two" in refused["msg"]


def test_a_controller_elsewhere_is_not_taken_for_dead(keep):
    _, (worked, found), (_, taken) = keep(
        done(state="begun", run="one", who={"host": "another-laptop"}),
        done(state="begun", run="two"),
        done(state="begun", run="two", takeover=["one"]),
    )
    assert (worked, found["journal"]["allowed"], found["journal"]["refused"]) == (True, False, "running")
    assert "-e takeover=one" in found["journal"]["reason"]
    assert taken["journal"]["allowed"]


BAD = [
    ({"state": "begun"}, "run"),
    ({"state": "begun", "run": "../x"}, "It has letters, digits"),
    ({"state": "ended", "run": "one"}, "outcome"),
    ({"config": "hex8"}, "is not <board>_<players>p"),
    ({"max_attempts": 0}, "max_attempts is 0. It must be from 1"),
    ({"state": "begun", "run": "one", "wait": -1}, "wait is -1 s"),
]


def test_bad_options_write_nothing(keep, tmp_path):
    for (worked, found), (options, words) in zip(keep(*(done(**options) for options, _words in BAD)), BAD, strict=True):
        assert not worked, options
        assert words in found["msg"]
    assert not (tmp_path / "recovery").exists()

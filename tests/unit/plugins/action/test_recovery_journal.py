# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal as Ansible keeps it: check, run, check, run, and a controller that was killed."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.modules import recovery_journal

ROOT = pathlib.Path(__file__).resolve().parents[4]
KEYS = set(yaml.safe_load(recovery_journal.RETURN)["journal"]["contains"])


@pytest.fixture
def keep(tmp_path):
    """One task with this state of a run; whether it worked, and its result."""

    def call(*words, **options):
        options = {"config": "hex8_2p", "directory": str(tmp_path / "recovery"), **options}
        command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "ringrift.recovery.recovery_journal"]
        done = subprocess.run(
            [*command, *words, "-a", json.dumps(options), "-e", f"ansible_python_interpreter={sys.executable}"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        document = json.loads(done.stdout[done.stdout.index("{\n") :])
        return done.returncode == 0, document["plays"][0]["tasks"][0]["hosts"]["localhost"]

    return call


def test_check_run_check_run(keep, tmp_path):
    worked, found = keep("--check", state="begun", run="one")
    assert (worked, found["changed"], found["journal"]["allowed"]) == (True, False, True)
    assert list(tmp_path.iterdir()) == []
    worked, found = keep(state="begun", run="one", user="operator")
    assert (worked, found["changed"], found["journal"]["allowed"], found["run"]) == (True, False, True, "one")
    assert set(found["journal"]) == KEYS
    # The controller of that task has ended, so its run has died: the same again says so, and begins.
    worked, found = keep("--check", state="begun", run="two")
    assert (found["journal"]["allowed"], found["journal"]["broken_off"]["run"]) == (True, "one")
    assert found["journal"]["broken_off"]["who"]["user"] == "operator"
    worked, found = keep(state="begun", run="two")
    assert found["journal"]["allowed"]
    worked, found = keep(state="ended", run="two", outcome="failed in monitor")
    assert worked
    assert keep()[1]["journal"]["in_vain"] == 1
    worked, found = keep(state="step", run="one", step="monitor")
    assert not worked
    assert "has taken the place of this run (one) with two" in found["msg"]


def test_a_controller_elsewhere_is_not_taken_for_dead(keep):
    keep(state="begun", run="one", who={"host": "another-laptop"})
    worked, found = keep(state="begun", run="two")
    assert (worked, found["journal"]["allowed"], found["journal"]["refused"]) == (True, False, "running")
    assert "-e takeover=one" in found["journal"]["reason"]
    worked, found = keep(state="begun", run="two", takeover=["one"])
    assert found["journal"]["allowed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"state": "begun"}, "run"),
        ({"state": "begun", "run": "../x"}, "It has letters, digits"),
        ({"state": "ended", "run": "one"}, "outcome"),
        ({"config": "hex8"}, "is not <board>_<players>p"),
        ({"max_attempts": 0}, "max_attempts is 0. It must be from 1"),
        ({"state": "begun", "run": "one", "wait": -1}, "wait is -1 s"),
    ],
)
def test_bad_options_write_nothing(keep, tmp_path, options, words):
    worked, found = keep(**options)
    assert not worked
    assert words in found["msg"]
    assert list(tmp_path.iterdir()) == []

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table as a person gets it, and as a program does."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._verdict import verdict

ROOT = pathlib.Path(__file__).resolve().parents[4]
VERDICT = verdict({"config": "hex8_2p", "hosts": {"a": {"unreachable": True, "msg": "no route \x1b[31m"}}}).as_dict()


def show(value, **environment):
    words = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "ringrift.recovery.show_diagnosis"]
    done = subprocess.run(
        [*words, "-a", json.dumps({"verdict": value})],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_pipe_gets_plain_lines():
    said = show(VERDICT, ANSIBLE_NOCOLOR="1")
    assert "CRITICAL  node_unreachable on a: does not answer" in said
    assert "\x1b" not in said


def test_a_terminal_gets_colour_and_nothing_of_a_node_can_colour_it():
    said = show(VERDICT, ANSIBLE_FORCE_COLOR="1")
    assert "\x1b[1;31m" in said
    assert "no route \x1b[31m" not in said


@pytest.mark.parametrize("callback", ["ansible.posix.json", "json"])
def test_a_callback_for_programs_gets_no_line_between(callback):
    said = show(VERDICT, ANSIBLE_STDOUT_CALLBACK=callback, ANSIBLE_NOCOLOR="1")
    assert "\nhex8_2p: UNKNOWN" not in said


def test_what_is_no_verdict_is_refused():
    assert "is not what the filter ringrift.recovery.verdict returns" in " ".join(show({"config": "x"}).split())

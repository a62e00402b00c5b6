# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The molecule scenarios, on a lab of their own: prepare, check, converge, idempotence, verify."""

from __future__ import annotations

import re

import pytest

from tests.integration.harness import run

pytestmark = pytest.mark.lab


def test_every_scenario(lab):
    if lab.driver != "netns":
        pytest.skip("the scenarios start the lab with its default driver, which needs root here")
    directory = lab.directory.with_name(f"{lab.directory.name}-molecule")
    done = run("molecule", "test", "--all", timeout=400, RINGRIFT_LAB_DIR=str(directory), NO_COLOR="1")
    assert done.returncode == 0, done.stdout[-8000:]
    # An inventory without hosts, or a scenario without tests, would pass as well.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    for action in ("prepare", "check", "converge", "idempotence", "verify"):
        assert re.search(rf"full_recovery\W+{action}\W+Executed: Successful", plain), plain[-8000:]
    assert re.search(r"\b8 passed\b", plain), plain[-8000:]

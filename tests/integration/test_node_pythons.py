# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines on the oldest Python of nodes; `make release-check` takes all six, and all examples."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import node_pythons


def test_what_is_sent_works_on_the_oldest(root):
    found = node_pythons.interpreters()
    oldest = next((version for version in node_pythons.VERSIONS if version in found), None)
    if oldest in (None, "{}.{}".format(*sys.version_info)):
        pytest.skip("there is no older Python than this one on this machine")
    done = subprocess.run(
        [sys.executable, "-m", "tests.node_pythons", "--few", "--python", oldest],
        cwd=root, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Python {oldest}: passed: " in done.stdout

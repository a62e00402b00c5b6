# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines on the oldest and the newest Python of nodes; `make release-check` takes all six, and all examples."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import node_pythons


def test_what_is_sent_works_on_the_oldest_and_the_newest(root):
    found = [version for version in node_pythons.VERSIONS if version in node_pythons.interpreters()]
    # On this one the whole of the tests runs.
    ends = {found[0], found[-1]} - {"{}.{}".format(*sys.version_info)}
    if not ends:
        pytest.skip("there is no older and no newer Python than this one on this machine")
    words = [word for version in sorted(ends) for word in ("--python", version)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.node_pythons", "--few", *words],
        cwd=root, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for version in ends:
        assert f"Python {version}: passed: " in done.stdout

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines on the oldest and the newest Python of nodes; `make release-check` takes all, and all examples."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import node_pythons


def test_what_is_sent_works_on_the_oldest_and_the_newest(root):
    own = "{}.{}".format(*sys.version_info)
    others = [version for version in node_pythons.VERSIONS if version in node_pythons.interpreters() and version != own]
    if not others:
        pytest.skip("there is no other Python on this machine")
    asked = [word for version in sorted({others[0], others[-1]}, key=others.index) for word in ("--python", version)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.node_pythons", "--few", "--jobs", "2", *asked],
        cwd=root, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": passed: ") == len(asked) // 2

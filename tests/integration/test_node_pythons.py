# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines on every other Python of nodes, each with a share of the tests; `make release-check` takes all."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from tests import node_pythons


def test_what_is_sent_works_on_every_other_python(root):
    here = node_pythons.interpreters()
    # On this one the whole of the tests runs.
    others = [version for version in node_pythons.VERSIONS if version in here and version != f"3.{sys.version_info[1]}"]
    if not others:
        pytest.skip("there is no other Python than this one on this machine")
    words = [word for version in others for word in ("--python", version)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.node_pythons", "--few", *words],
        cwd=root, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for version in others:
        assert f"Python {version}: passed: " in done.stdout
    again = [line for line in done.stdout.splitlines() if "when run once more" in line]
    if again:
        # Said in the summary, as nobody sees what a worker prints.
        warnings.warn("\n".join(again), stacklevel=1)

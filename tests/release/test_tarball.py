# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tarball of this checkout is one that others would install; `make release-check` asks more, of a commit."""

from __future__ import annotations

import pytest

from tests.integration.harness import ROOT, run

COULD_NOT_LOOK = 3


@pytest.mark.parametrize("check", ["sanity-2.21", "sanity-2.19", "importer"])
def test_the_tarball_passes(check):
    if not (ROOT / ".venv-release").is_dir():
        pytest.skip("what it looks with is not installed: tools/setup.sh release")
    done = run(str(ROOT / "tools/release_check.sh"), "--checkout", check, timeout=1200)
    if done.returncode == COULD_NOT_LOOK:
        pytest.skip(" ".join(done.stdout.split()))
    assert done.returncode == 0, done.stdout

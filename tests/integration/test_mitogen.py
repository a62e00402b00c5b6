# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A diagnosis with Mitogen's strategy, for those who want it: the same verdict, and nothing unseen."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

pytestmark = pytest.mark.lab


def test_the_same_verdict_and_nothing_unseen(healthy):
    if healthy.driver != "netns":
        pytest.skip("without ssh there is nothing for it to do")
    package = pathlib.Path(importlib.util.find_spec("ansible_mitogen").origin).parent
    play = healthy.play(
        "diagnose",
        ANSIBLE_STRATEGY="mitogen_linear",
        ANSIBLE_STRATEGY_PLUGINS=str(package / "plugins/strategy"),
        ANSIBLE_HOST_KEY_CHECKING="False",
    )
    assert play.rc == 0, play.output
    verdict = healthy.diagnosis()
    assert (verdict["stalled"], verdict["unknown"]) == (False, []), play.output

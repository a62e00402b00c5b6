# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same recovery where the orchestrator speaks the API that the runbook prints."""

from __future__ import annotations

import pytest

from tests.integration.harness import CONFIG

pytestmark = pytest.mark.lab


def test_recovery_through_the_runbooks_api(lab):
    lab("down")
    lab("up", "--driver", lab.driver, "--config", CONFIG, "--api", "runbook")
    lab("break", "lock")
    plan = lab.play("full_recovery", "--check", "--diff")
    assert plan.rc == 0, plan.output
    assert "/dispatch_training" in plan.flat
    play = lab.play("full_recovery")
    assert play.rc == 0, play.output
    report = lab.reports()[-1]
    assert report["fleet"]["dispatch"]["profile"] == "runbook"
    assert report["outcome"] == "recovered, progress is proven"
    assert len(lab.trainers()) == 1
    lab("down")

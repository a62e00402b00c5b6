# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading
import time

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._probes import run_probes


def raises(exc):
    def probe():
        raise exc

    return probe


def test_results_and_reasons_by_name():
    results, errors, seconds = run_probes(
        {"good": lambda: {"a": 1}, "refused": raises(RecoveryError("no such file")), "broken": raises(KeyError("x"))}, 5
    )
    assert results == {"good": {"a": 1}}
    assert errors == {"refused": "no such file", "broken": "KeyError: 'x'"}
    assert set(seconds) == {"good", "refused", "broken"}


def test_a_hung_probe_costs_its_deadline_and_hides_nothing():
    release = threading.Event()
    begun = time.monotonic()
    try:
        results, errors, seconds = run_probes({"hung": lambda: release.wait(30), "good": lambda: 1}, 0.3)
        assert time.monotonic() - begun < 5
        assert results == {"good": 1}
        assert errors == {"hung": "no answer within 0.3 s"}
        assert "hung" not in seconds
    finally:
        release.set()


def test_probes_run_side_by_side():
    barrier = threading.Barrier(3)
    results, errors, _seconds = run_probes({str(i): lambda: barrier.wait(5) >= 0 for i in range(3)}, 10)
    assert errors == {}
    assert results == {"0": True, "1": True, "2": True}

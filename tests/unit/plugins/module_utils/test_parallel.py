# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import threading

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _parallel
from ansible_collections.ringrift.recovery.plugins.module_utils._parallel import cores, each


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_keep_their_order(workers):
    assert each(lambda item: item * 2, list(range(20)), cost=lambda item: item % 7, workers=workers) == [
        item * 2 for item in range(20)
    ]
    assert each(lambda item: item, [], cost=lambda item: 1, workers=workers) == []


def test_costliest_first():
    begun = []
    gate = threading.Barrier(2, timeout=10)

    def work(item):
        begun.append(item)
        if item in (8, 9):
            gate.wait()

    each(work, [1, 9, 2, 8], cost=lambda item: item, workers=2)
    assert set(begun[:2]) == {8, 9}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_failure_in_order_is_raised(workers):
    def work(item):
        if item > 1:
            raise ValueError(str(item))

    with pytest.raises(ValueError, match="2"):
        each(work, [1, 2, 3], cost=lambda item: item, workers=workers)


def test_one_core_takes_no_thread(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert cores() == 1
    here = threading.get_ident()
    assert each(lambda item: threading.get_ident(), [1, 2], cost=lambda item: 1) == [here, here]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(96)))
    assert cores() == _parallel.MAX_WORKERS

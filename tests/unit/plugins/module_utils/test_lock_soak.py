# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of random interleavings around a release: no live holder ever loses its lock, no dead lock is left.

``make soak`` plays all of them, ``make test`` a part. ``SOAK_SEED`` repeats a run; a failure names the command that
repeats its interleaving alone.
"""

from __future__ import annotations

import os
from typing import Iterator

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._lock import RELEASABLE

from tests.unit import lock_world
from tests.unit.checkpoint_files import soak, soak_seed
from tests.unit.lock_world import BACKENDS, CLEANUP, FILE, OLDER, OURS, PID_EXISTS, REDIS, TAKEOVER

# On each backend; both together are the 10,000.
INTERLEAVINGS = 5000
# So many have met everything in MET with each seed that was tried.
PART = 25
FEW = 40

# What every run comes across, apart from what is rare.
MET = {
    FILE: {
        "free",
        "held_live",
        "held_live_foreign",
        "orphan_fd",
        "orphan_file",
        "stale_expired",
        "stale_pid_reused",
        "stale_prior_boot",
    },
    REDIS: {"free", "held_live", "held_live_foreign", "stale_dead"},
}

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        os.geteuid() != 0 and not lock_world.room(),
        reason="this user may neither look into every process nor have a PID namespace",
    ),
]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with lock_world.redis_server() as url:
        yield url


def url_for(backend: str, redis_url: str) -> str:
    if backend == REDIS and redis_url is None:
        pytest.skip("redis-server is not installed")
    return redis_url if backend == REDIS else ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_live_holder_loses_its_lock_and_no_dead_lock_is_left(backend, redis_url, capsys):
    count, seed = soak(INTERLEAVINGS, PART), soak_seed()
    with capsys.disabled():
        print(f"\n{count} interleavings on {backend}, SOAK_SEED={seed}")
    tally = lock_world.run(OURS, backend, count, seed, url_for(backend, redis_url))
    assert tally.problems == [], tally.story()
    assert (tally.wrong, tally.double, tally.left, tally.blocked) == (0, 0, 0, 0), tally.story()
    assert tally.interleavings == count
    assert tally.released > count
    assert MET[backend] <= set(tally.verdicts) <= set(RELEASABLE)
    assert set(tally.ops) == set(lock_world.OPS) - ({"torn"} if backend == REDIS else set())
    # What is left when all are dead is left for want of proof: of another host, or of a number that is used again.
    assert not any(RELEASABLE[verdict] for verdict in tally.kept_as)


@pytest.mark.parametrize(
    ("rule", "backend", "faults"),
    [
        (CLEANUP, FILE, ("wrong", "double")),
        (CLEANUP, REDIS, ("left",)),
        (TAKEOVER, FILE, ("wrong", "double")),
        (PID_EXISTS, FILE, ("wrong", "double")),
        (OLDER, FILE, ("wrong", "left")),
        (OLDER, REDIS, ("wrong", "left")),
    ],
)
def test_the_world_notices_what_other_rules_do_wrong(rule, backend, faults, redis_url):
    tally = lock_world.run(rule, backend, FEW, soak_seed(), url_for(backend, redis_url), worlds=3)
    assert tally.problems == [], tally.story()
    assert [fault for fault in faults if not getattr(tally, fault)] == []
    assert f"--rule {rule} --backend {backend} --seed {soak_seed()} --number" in tally.story()


def test_a_schedule_follows_from_its_seed_and_number():
    first = [lock_world.schedule(1, FILE, number) for number in range(50)]
    assert first == [lock_world.schedule(1, FILE, number) for number in range(50)]
    assert first != [lock_world.schedule(2, FILE, number) for number in range(50)]
    assert len({len(steps) for steps in first}) == 7

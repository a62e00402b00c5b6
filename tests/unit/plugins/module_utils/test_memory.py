# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _memory
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._memory import (
    LOW,
    OK,
    GroupMemory,
    Memory,
    parse_meminfo,
    read_group,
)
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
MEMINFO = """MemTotal:       263853192 kB
MemFree:        12345678 kB
MemAvailable:   200000000 kB
HugePages_Total:       0
SwapTotal:       8388604 kB
SwapFree:        8000000 kB
"""


def test_meminfo():
    memory = parse_meminfo(MEMINFO)
    assert (memory.total, memory.available) == (263853192 * 1024, 200000000 * 1024)
    assert (memory.swap_total, memory.swap_free, memory.cgroup) == (8388604 * 1024, 8000000 * 1024, None)
    assert memory.as_dict()["verdict"] == OK


def test_this_machine():
    memory = _memory.look()
    assert 0 < memory.available <= memory.total
    shown = memory.as_dict()
    assert set(shown) == {
        *("total", "available", "swap_total", "swap_free", "cgroup", "verdict", "reason"),
    }
    assert shown["cgroup"] is None or set(shown["cgroup"]) == {"limit", "usage", "oom_kills"}


@given(st.text() | st.from_regex(r"MemTotal: +\d+ kB\n", fullmatch=True))
def test_anything_else_is_refused(text):
    with pytest.raises(RecoveryError, match="/proc/meminfo does not tell"):
        parse_meminfo(text)


@pytest.mark.parametrize(
    ("total", "available", "verdict"),
    [(256, 13, OK), (256, 12.7, LOW), (8, 1, OK), (8, 0.99, LOW), (0.5, 0.5, LOW)],
)
def test_verdict(total, available, verdict):
    assert Memory(int(total * GIB), int(available * GIB), 0, 0).judge()[0] == verdict


@pytest.mark.parametrize(
    ("limit", "usage", "cache", "verdict"),
    [
        (None, 60, 0, OK),
        (64, 10, 0, OK),
        (64, 63.5, 0, LOW),
        # What it gives back by itself is as good as free.
        (64, 63.5, 20, OK),
        (64, 70, 0, LOW),
    ],
)
def test_the_limit_of_the_group_counts_too(limit, usage, cache, verdict):
    group = GroupMemory(limit and limit * GIB, int(usage * GIB), 0, cache * GIB)
    found = Memory(256 * GIB, 100 * GIB, 0, 0, group).judge()
    assert found[0] == verdict
    assert ("of this control group" in found[1]) == (limit is not None)


def test_group_of_version_2_and_the_limit_above_it(tmp_path):
    inner = tmp_path / "user.slice/session.scope"
    inner.mkdir(parents=True)
    (inner / "memory.current").write_text("1000\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.stat").write_text("anon 5\ninactive_file 300\n")
    (inner / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")
    (tmp_path / "user.slice/memory.max").write_text("5000\n")
    assert read_group(str(inner), str(tmp_path)) == GroupMemory(5000, 1000, 3, 300)
    (inner / "memory.max").write_text("4000\n")
    assert read_group(str(inner), str(tmp_path)).limit == 4000


def test_group_of_version_1(tmp_path):
    inner = tmp_path / "docker"
    inner.mkdir()
    (inner / "memory.usage_in_bytes").write_text("1000\n")
    (inner / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (inner / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n")
    (inner / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 200\n")
    assert read_group(str(inner), str(tmp_path)) == GroupMemory(None, 1000, 7, 200)
    assert GroupMemory(None, 1000, 7, 200).as_dict() == {"limit": None, "usage": 1000, "oom_kills": 7}


def test_no_group_that_tells(tmp_path):
    assert read_group(str(tmp_path), str(tmp_path)) is None

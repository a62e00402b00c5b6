# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.filter import recovery

FILTERS = recovery.FilterModule().filters()


def test_nothing_seen_is_unknown():
    verdict = FILTERS["verdict"]({"config": "hex8_2p", "hosts": {}, "coordinator": {}})
    assert verdict["stalled"] is None
    assert verdict["headline"].startswith("hex8_2p: UNKNOWN")
    assert FILTERS["fail_on"](verdict, "critical") == ["too little could be seen"]
    assert FILTERS["fail_on"](verdict, "never") == []


def test_report_and_its_lines_fit_together():
    report = FILTERS["run_report"]({}, config="hex8_2p", outcome="nothing")
    assert FILTERS["report_lines"](report) == ["hex8_2p: nothing"]


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize("value", [None, "text", 3, ["list"]])
def test_anything_else_is_refused_by_name(name, value):
    with pytest.raises(AnsibleFilterError, match=f"ringrift.recovery.{name} needs"):
        FILTERS[name](value)


def test_gpu_memory_fit_says_what_and_why():
    log = {"findings": [{"code": "cuda_oom", "after_progress": True}], "batch_size": 512, "mtime": 1.0}
    node = {"log": log, "gpu": {"gpus": [{"index": 0, "memory_total": 81559.0}]}}
    result = FILTERS["gpu_memory_fit"]({"hosts": {"a": node}, "node": "a"}, auto_tunes=True)
    assert sorted(result) == [
        *("batch_size", "changed", "extra_args", "floor_reached", "instead_of", "message", "reasons", "source"),
    ]
    assert (result["batch_size"], result["source"]) == (256, "halved")
    assert result["extra_args"] == ["--no-auto-tune-batch-size"]
    assert result["message"].startswith("batch size 256 instead of 512: it ran out of GPU memory with 512 on a")


@pytest.mark.parametrize(
    ("evidence", "options", "words"),
    [
        ({}, {"batch_size": "many"}, "batch_size is 'many'; it must be a whole number from 1 to 65536"),
        ({}, {"floor": 100}, "floor is 100; it must be a power of two, for example 64"),
        ({"hosts": 3}, {}, "hosts is 3; it must map each host"),
    ],
)
def test_gpu_memory_fit_refuses_what_it_cannot_use(evidence, options, words):
    with pytest.raises(AnsibleFilterError, match=words):
        FILTERS["gpu_memory_fit"](evidence, **options)

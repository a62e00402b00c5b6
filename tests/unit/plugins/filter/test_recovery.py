# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.filter import recovery
from ansible_collections.ringrift.recovery.plugins.module_utils._report_html import diagnosis_html

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


SHA = "02cbda159d740efb3d4fd4a2a28c74d2ee64b1708f9c29da8cc07202c7523f8a"


def restored(**more):
    """Variables of a node whose start point was damaged."""
    kept = {"path": "/s/models/checkpoint_hex8_2p.pth", "epoch": 9, "sha256": SHA, "size": 1, "format": "torch_zip"}
    quarantined = [{"path": "/s/checkpoints/checkpoint_epoch_15.pth", "to": "x", "reason": "crc", "sha256": None}]
    result = {"changed": True, "restored": True, "source": "/s/checkpoints/checkpoint_epoch_10.pth"}
    result.update(checkpoint={**kept, "written_at": 1773216900.5}, quarantined=quarantined, epochs_lost=5)
    return {"inventory_hostname": "a", "restart_training_checkpoint": {**result, **more}}


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (5, "lost 5 epochs: training goes on from epoch 9"),
        (1, "lost 1 epoch: training goes on from epoch 9"),
        (0, "lost no epoch: training goes on from epoch 9"),
        (None, "lost an unknown number of epochs: not every file tells which one it is from"),
    ],
)
def test_a_restored_checkpoint_says_where_it_is_from_and_what_is_lost(lost, words):
    """In the text and on the page."""
    about = {"config": "hex8_2p", "outcome": "done", "at": "2026-03-11T08:25:00Z"}
    report = FILTERS["run_report"]({"a": restored(epochs_lost=lost)}, **about)
    lines = [
        "a: quarantined /s/checkpoints/checkpoint_epoch_15.pth",
        "a: restored /s/models/checkpoint_hex8_2p.pth from /s/checkpoints/checkpoint_epoch_10.pth, of epoch 9, "
        f"written 2026-03-11 08:15:00 UTC, 10 min ago, sha256 {SHA}",
        f"a: {words}",
    ]
    assert FILTERS["report_lines"](report) == ["hex8_2p: done", *lines]
    verdict = FILTERS["verdict"]({"config": "hex8_2p", "hosts": {}, "coordinator": {}})
    page = diagnosis_html(verdict, None, report)
    for line in lines:
        assert f"<div>{line[3:]}</div>" in page
    planned = FILTERS["report_lines"]({**report, "check_mode": True})
    assert planned[3].startswith("a: would lose ")


def test_a_start_point_that_is_new_has_lost_nothing():
    node = restored(epochs_lost=None, quarantined=[])
    node["restart_training_checkpoint"]["checkpoint"].update(epoch=None, written_at=None)
    lines = FILTERS["report_lines"](FILTERS["run_report"]({"a": node}, config="hex8_2p", outcome="done"))
    assert len(lines) == 2
    assert f"checkpoint_epoch_10.pth, of an epoch that it does not tell, sha256 {SHA}" in lines[1]


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

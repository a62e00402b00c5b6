# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognising trainers and their progress."""

from __future__ import annotations

import pytest

from lab.processes import Mark, Process
from lab.training import descendants, is_orphan, is_trainer, option

ARGV = ["venv/bin/python", "-m", "app.training.train", "--board-type", "hex8", "--num-players", "2"]


def process(pid: int, ppid: int, group: int, state: str = "S") -> Process:
    return Process(pid, ppid, group, state, 1, 0, tuple(ARGV), Mark(pid, 1))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (ARGV, True),
        ([*ARGV[:3], "--board-type=hex8", "--num-players=2"], True),
        ([*ARGV[:4], "square8", *ARGV[5:]], False),
        ([*ARGV[:-1], "3"], False),
        (["python", "-m", "app.coordination.training_launcher", "--config", "hex8_2p", "--", *ARGV], False),
        (["bash", "-c", " ".join(ARGV)], False),
        (["tail", "-f", "app.training.train"], False),
        ([], False),
    ],
)
def test_a_trainer_is_known_by_its_arguments(argv, expected):
    assert is_trainer(argv, "hex8_2p") is expected


def test_an_option_at_the_end_has_no_value():
    assert option(["--epochs"], "--epochs") == ""
    assert option(["--epochs", "5"], "--absent") is None


def test_all_descendants_are_found():
    family = [process(10, 1, 10), process(11, 10, 10), process(12, 11, 10), process(13, 1, 13)]
    assert [found.pid for found in descendants(family[0], family)] == [11, 12]


def test_a_stopped_worker_without_its_trainer_is_no_trainer():
    worker = process(11, 1, 10, "T")
    assert is_orphan(worker, [worker])
    assert is_orphan(process(11, 999, 10, "T"), [worker])
    leader = process(10, 1, 10, "T")
    assert not is_orphan(leader, [leader])
    trainer = process(11, 10, 10, "T")
    assert not is_orphan(trainer, [process(10, 1, 10), trainer])

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots and what differs between two of them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

import pytest

from lab import fleet
from lab.instance import Instance
from lab.nodes import driver_of
from lab.snapshot import TRAINING, VOLATILE, difference, snapshot


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Instance:
    made = Instance(tmp_path, "local", nodes=fleet.plan(2))
    driver_of(made).prepare()
    for node in made.nodes:
        service = pathlib.Path(node.service)
        for name in (
            "logs/p2p_orchestrator.log",
            "data/a.db",
            "data/a.db-shm",
            "checkpoints/c.pth",
            "app/__pycache__/x.pyc",
        ):
            (service / name).parent.mkdir(parents=True, exist_ok=True)
            (service / name).write_text(name)
        (service / "link").symlink_to("data")
    return made


def test_two_moments_without_a_change_are_equal(instance):
    one, other = snapshot(instance), snapshot(instance)
    assert one == other
    assert difference(one, other) == []
    files = one["coordinator-1"]["files"]
    assert set(files) == {"ringrift/ai-service/" + name for name in ("data/a.db", "checkpoints/c.pth", "link")}


def test_volatile_files_do_not_count(instance):
    before = snapshot(instance)
    for name in ("logs/p2p_orchestrator.log", "data/a.db-shm", "app/__pycache__/y.pyc"):
        pathlib.Path(instance.coordinator.service, name).write_text("changed")
    assert difference(before, snapshot(instance)) == []


def test_every_kind_of_change_is_seen(instance):
    before = snapshot(instance)
    service = pathlib.Path(instance.nodes[1].service)
    (service / "data/a.db").write_text("changed")
    (service / "checkpoints/c.pth").unlink()
    (service / "new").write_text("")
    (service / "link").unlink()
    (service / "link").symlink_to("logs")
    pathlib.Path(instance.nodes[2].home, ".ansible").mkdir()
    pathlib.Path(instance.nodes[2].home, ".ansible", "left").write_text("")
    assert difference(before, snapshot(instance)) == [
        "nebius-h100-3: ringrift/ai-service/checkpoints/c.pth was deleted",
        "nebius-h100-3: ringrift/ai-service/data/a.db was changed",
        "nebius-h100-3: ringrift/ai-service/link was changed",
        "nebius-h100-3: ringrift/ai-service/new was created",
        "runpod-h100: .ansible/left was created",
    ]


def test_what_a_trainer_writes_can_be_left_out(instance):
    before = snapshot(instance, (*VOLATILE, *TRAINING))
    pathlib.Path(instance.nodes[1].service, "checkpoints/c.pth").unlink()
    assert difference(before, snapshot(instance, (*VOLATILE, *TRAINING))) == []


def test_processes_that_begin_and_end_are_seen(instance):
    before = snapshot(instance)
    one = subprocess.Popen(["sleep", "60"], cwd=instance.nodes[1].service)
    try:
        during = snapshot(instance)
        assert difference(before, during) == [f"nebius-h100-3: process {one.pid} began: sleep 60"]
    finally:
        one.kill()
        one.wait(10)
    assert difference(during, snapshot(instance)) == [f"nebius-h100-3: process {one.pid} ended: sleep 60"]


def test_a_node_of_twenty_megabytes_takes_less_than_a_second(instance):
    for number in range(40):
        pathlib.Path(instance.nodes[1].service, f"big{number}").write_bytes(os.urandom(1 << 19))
    begun = time.monotonic()
    snapshot(instance)
    assert time.monotonic() - begun < 1

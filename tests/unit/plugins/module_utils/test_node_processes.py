# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _node_processes
from ansible_collections.ringrift.recovery.plugins.module_utils._node_processes import open_files, watch

from tests.unit.training_processes import as_nobody, tree_of, wait_for

BUSY = "import sys\nprint('ready', flush=True)\nwhile True: pass"


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


def test_without_a_training_it_takes_no_time(tmp_path):
    begun = time.monotonic()
    assert watch([], str(tmp_path), window=5) == ()
    assert time.monotonic() - begun < 1


def test_one_that_waits(tree):
    data = tree.root / "data/training/hex8_2p.npz"
    started = tree.train(mode=f"workers=1 open={data}")
    seen: list = []

    def both_wait() -> bool:
        seen[:] = watch(tree.look().processes, str(tree.root), 0.2)
        # On a busy machine it is long in starting.
        return len(seen) == 2 and not seen[0].moving

    wait_for(both_wait)
    trainer, worker = seen
    assert (trainer.pid, trainer.role, worker.role) == (started.pid, "trainer", "worker")
    assert (trainer.state, trainer.moving) == ("S", False)
    assert trainer.cpu_percent < 20
    assert str(data) in trainer.open_files
    assert trainer.open_file_count == len(os.listdir(f"/proc/{started.pid}/fd"))
    assert 1 << 20 < trainer.rss < 1 << 30
    assert trainer.cmdline[-4:] == ("--board-type", "hex8", "--num-players", "2")
    json.dumps(trainer.as_dict())


def test_one_that_computes(tree):
    (tree.root / "train.py").write_text(BUSY)
    tree.run([sys.executable, "-S", "train.py", "--board-type", "hex8", "--num-players", "2"])
    (trainer,) = watch(tree.look().processes, str(tree.root), 0.3)
    assert trainer.moving is True
    assert trainer.cpu_percent > 10


def test_one_in_uninterruptible_sleep_delays_nothing(tree):
    started = tree.train(mode="blocked", ready=False)
    wait_for(lambda: tree.state(started.pid) == "D")
    begun = time.monotonic()
    seen = {process.pid: process for process in watch(tree.look().processes, str(tree.root), 0.1)}
    assert time.monotonic() - begun < 4
    assert (seen[started.pid].state, seen[started.pid].moving) == ("D", False)


def test_one_that_ends_meanwhile(tree):
    started = tree.train()
    processes = tree.look().processes
    started.kill()
    started.wait(20)
    (seen,) = watch(processes, str(tree.root), 0.05)
    assert (seen.cpu_percent, seen.moving, seen.open_file_count, seen.rss) == (None, None, None, None)


def test_open_files_are_chosen_and_bounded(tmp_path, monkeypatch):
    (tmp_path / "service").mkdir()
    names = ["service/any", "outside.npz", "outside.pth", "outside.log", "outside.txt"]
    held = [open(tmp_path / name, "w") for name in names]
    try:
        (tmp_path / "outside.pth").unlink()
        found, count = open_files(os.getpid(), str(tmp_path / "service"))
        ours = [path for path in found if path.startswith(str(tmp_path))]
        assert ours == [
            str(tmp_path / name) for name in ("outside.log", "outside.npz", "outside.pth (deleted)", "service/any")
        ]
        assert abs(count - len(os.listdir("/proc/self/fd"))) <= 1
        monkeypatch.setattr(_node_processes, "MAX_FILES", 2)
        assert len(open_files(os.getpid(), str(tmp_path))[0]) == 2
    finally:
        for stream in held:
            stream.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_does_not_see_the_files_of_others(tree):
    tree.train()
    processes = tree.look().processes
    said = as_nobody(lambda: json.dumps([one.as_dict() for one in watch(processes, str(tree.root), 0.05)]).encode())
    (seen,) = json.loads(said)
    assert (seen["open_files"], seen["open_file_count"]) == ([], None)
    assert (seen["state"], seen["moving"]) == ("S", False)
    assert seen["rss"] > 0

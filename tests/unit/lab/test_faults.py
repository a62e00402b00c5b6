# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults: what needs no lab to be tested."""

from __future__ import annotations

import pathlib
import zipfile

import pytest

from lab import faults, fleet
from lab.errors import LabError, UsageError
from lab.faults import checkpoint, disk
from lab.instance import Instance
from lab.nodes import driver_of

EXPECTED = {
    "lock",
    "kill",
    "checkpoint",
    "data",
    "hang",
    "orchestrator",
    "unreachable",
    "wedge",
    "lost",
    "hung-gpu",
    "oom",
}


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Instance:
    made = Instance(tmp_path, "local", nodes=fleet.plan(3))
    driver_of(made).prepare()
    return made


def test_every_fault_is_a_file_with_one_line_of_help():
    found = faults.registry()
    assert found.keys() >= EXPECTED
    for name, module in found.items():
        assert callable(module.apply), name
        assert module.__doc__, name
        assert module.__doc__.strip().endswith("."), name
    assert len(faults.summary()) == len(found)


def test_faults_are_read_in_their_order_and_with_their_nodes(instance):
    words = ["lock", "wedge", "runpod-h100", "kill", "hung-gpu", "nebius-h100-3"]
    orders = [("lock", None), ("wedge", "runpod-h100"), ("kill", None), ("hung-gpu", "nebius-h100-3")]
    assert faults.parse(words, instance) == orders


@pytest.mark.parametrize(
    "words", [["nonsense"], ["runpod-h100"], ["kill", "absent"], ["kill", "runpod-h100", "coordinator-1"]]
)
def test_what_is_unknown_is_refused_with_what_is_known(instance, words):
    with pytest.raises(UsageError, match=r"Faults: .*lock.*Nodes: .*runpod-h100"):
        faults.parse(words, instance)


@pytest.mark.parametrize("name", ["kill", "lock", "hang", "oom"])
def test_without_a_trainer_there_is_none_to_break(instance, name):
    with pytest.raises(LabError, match="No trainer of hex8_2p runs on any node"):
        list(faults.apply(instance, [(name, None)]))


def test_without_a_file_there_is_none_to_damage(instance):
    for name, message in (("checkpoint", "no checkpoints"), ("data", "No node has"), ("disk", "no directory")):
        with pytest.raises(LabError, match=message):
            list(faults.apply(instance, [(name, None)]))


def test_a_directory_has_no_network_cable(instance):
    with pytest.raises(LabError, match="netns"):
        list(faults.apply(instance, [("unreachable", "runpod-h100")]))
    with pytest.raises(LabError, match="Which node"):
        list(faults.apply(instance, [("unreachable", None)]))


def test_what_recovery_is_for_is_not_mended(instance):
    with pytest.raises(LabError, match="what the collection is for"):
        list(faults.mend(instance, [("kill", None)]))


def test_data_is_cut_to_the_share(instance):
    driver = driver_of(instance)
    paths = [driver.service(node, "data", "training", "hex8_2p.npz") for node in instance.nodes[:2]]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(range(100)))
    (line,) = faults.apply(instance, [("data", None)])
    assert [path.read_bytes() for path in paths] == [bytes(range(60))] * 2
    assert "coordinator-1 (100 -> 60 bytes)" in line


def make_checkpoint(path: pathlib.Path, extra: bytes = b"") -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("x/data.pkl", b"pickle"), ("x/data/0", b"a" * 10), ("x/data/1", b"b" * 1000)):
            entry = zipfile.ZipInfo(name)
            entry.extra = extra
            archive.writestr(entry, data)
    return path


@pytest.mark.parametrize("extra", [b"", b"FB\x20\x00" + b"Z" * 32])
def test_exactly_one_byte_of_the_largest_tensor_is_flipped(tmp_path, extra):
    path = make_checkpoint(tmp_path / "checkpoint_epoch_1.pth", extra)
    before, times = path.read_bytes(), path.stat()
    name, offset = checkpoint.flip(path)
    after = path.read_bytes()
    assert name == "x/data/1"
    assert [position for position in range(len(after)) if before[position] != after[position]] == [offset]
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "x/data/1"


def test_what_is_no_checkpoint_is_not_damaged(tmp_path):
    path = tmp_path / "checkpoint_epoch_1.pth"
    path.write_bytes(b"garbage")
    with pytest.raises(LabError, match="not a checkpoint"):
        checkpoint.flip(path)
    assert path.read_bytes() == b"garbage"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"")
    with pytest.raises(LabError, match="no tensor"):
        checkpoint.flip(path)


def test_filling_ends_when_nothing_fits(monkeypatch, tmp_path):
    room = 150_000

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def write(self, chunk):
            nonlocal room
            if len(chunk) > room:
                raise OSError(28, "No space left on device")
            room -= len(chunk)

    monkeypatch.setattr("builtins.open", lambda *_args, **_more: Full())
    disk.fill("x")
    assert room == 0

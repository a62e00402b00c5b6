# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults: what needs no lab to be tested."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
import zipfile

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_events

from lab import faults, fleet, gpu, kernel_log
from lab.errors import LabError, UsageError
from lab.faults import _oom_lines, _orders, checkpoint, clock, disk, inodes
from lab.faults._scene import Scene
from lab.instance import Instance
from lab.nodes import driver_of
from tests.unit.lab.service_tree import Service, wait_for

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
    "xid",
    "xid-gsp",
    "xid-lost",
    "xid-app",
    "old-xid",
    "host-oom",
    "other-oom",
    "old-oom",
    "log-rotated",
    "clock",
    "inodes",
    "slow",
    "compile",
    "evaluate",
    "foreign-lock",
    "remote-lock",
    "no-games",
    "missing-data",
    "bad-data",
    "truncated-checkpoint",
    "old-checkpoint",
    "model",
    "no-leader",
    "train-fails",
    "finished",
    "no-login",
    "no-python",
    "hung-ssh",
    "duplicate",
    "tenant",
}
OURS = "nebius-h100-3"


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Instance:
    made = Instance(tmp_path, "local", nodes=fleet.plan(3))
    driver_of(made).prepare()
    return made


def test_every_fault_is_a_file_with_one_line_of_help():
    found = {name: faults.load(name) for name in faults.names()}
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


@pytest.mark.parametrize(
    "name",
    ["kill", "lock", "hang", "oom", "host-oom", "old-oom", "slow", "compile", "evaluate", "train-fails", "finished"],
)
def test_without_a_trainer_there_is_none_to_break(instance, name):
    with pytest.raises(LabError, match="No trainer of hex8_2p runs on any node"):
        list(faults.apply(instance, [(name, None)]))


def test_without_a_file_there_is_none_to_damage(instance):
    for name, message in (
        ("checkpoint", "no checkpoints"),
        ("truncated-checkpoint", "no checkpoints"),
        ("old-checkpoint", "no two checkpoints"),
        ("model", "no models/canonical_hex8_2p.pth"),
        ("data", "No node has"),
        ("missing-data", "No node has"),
        ("bad-data", "No node has"),
        ("no-games", "No node has"),
        ("log-rotated", "no logs/training.log"),
        ("disk", "no directory"),
        ("inodes", "no directory"),
    ):
        with pytest.raises(LabError, match=message):
            list(faults.apply(instance, [(name, None)]))


def test_a_directory_has_no_network_cable(instance):
    with pytest.raises(LabError, match="netns"):
        list(faults.apply(instance, [("unreachable", "runpod-h100")]))
    with pytest.raises(LabError, match="Which node"):
        list(faults.apply(instance, [("unreachable", None)]))


@pytest.mark.parametrize("name", ["no-login", "no-python", "hung-ssh", "clock"])
def test_what_the_nodes_share_is_not_broken(instance, name):
    with pytest.raises(LabError, match="Use --driver netns"):
        list(faults.apply(instance, [(name, OURS)]))


def test_a_python_that_finds_the_hook_is_an_hour_ahead(tmp_path):
    (tmp_path / clock.NAME).write_text(clock.HOOK.format(seconds=clock.AHEAD))
    script = "import time; time.sleep(0.01); print(time.time(), time.time_ns())"
    before = time.time()
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    seconds, nanoseconds = map(float, done.stdout.split())
    assert 3600 <= seconds - before < 3620
    assert abs(nanoseconds / 1e9 - seconds) < 1


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


# The kernel log


@pytest.fixture
def kernel(instance):
    """The instance with kernel logs and GPUs, and what the collection reads there on the first node."""
    driver = driver_of(instance)
    for node in instance.nodes:
        kernel_log.install(driver, node)
        if node.gpu:
            gpu.install(driver, node, driver.within(node))

    def events():
        path = driver.kernel_log(instance.node(OURS))
        return _kernel_events.collect(None, None, 5.0, _kernel_events.KINDS, 50, path).as_dict()

    return instance, events


def test_the_log_begins_with_the_boot_and_nothing_is_wrong(kernel):
    _instance, events = kernel
    seen = events()
    assert (seen["source"], seen["verdict"], seen["complete"]) == ("file", "clean", True)


@pytest.mark.parametrize(
    ("fault", "codes", "action"),
    [
        ("xid", [48, 154], "reset"),
        ("xid-gsp", [119], "reset"),
        ("xid-lost", [79, None, 154], "reboot"),
        ("xid-app", [31, 45], "restart_app"),
        ("old-xid", [], None),
    ],
)
def test_the_driver_says_what_it_says_on_a_real_node(kernel, fault, codes, action):
    instance, events = kernel
    list(faults.apply(instance, [(fault, OURS)]))
    seen = events()
    assert [event.get("code") for event in seen["events"]] == codes
    assert (seen["worst_action"], seen["complete"]) == (action, True)
    assert {event["bus_id"] for event in seen["events"]} <= {"0000:3b:00"}
    assert "unparsed_xid" not in [problem["code"] for problem in seen["problems"]]
    list(faults.mend(instance, [(fault, OURS)]))
    assert events()["verdict"] == "clean"


def test_the_kernel_log_names_the_gpu_as_nvidia_smi_does(kernel):
    instance, _events = kernel
    driver = driver_of(instance)
    for node in instance.training_nodes:
        done = subprocess.run(
            [sys.executable, node.nvidia_smi, "--query-gpu=pci.bus_id", "--format=csv,noheader"],
            env={"LAB_GPU_STATE": str(driver.path(node, gpu.state_path(node)))}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert done.stdout.strip().lower() == f"0000{kernel_log.bus_id(node)}.0"


def test_a_kill_of_another_process_is_of_that_one(kernel):
    instance, events = kernel
    list(faults.apply(instance, [("other-oom", OURS)]))
    (event,) = events()["events"]
    assert (event["kind"], event["pid"], event["process_name"]) == ("oom_kill", 30217, "chrome")
    kernel_log.write(driver_of(instance), instance.node(OURS), _oom_lines.lines("python", 4711, 192))
    assert [(one["pid"], one["constraint"]) for one in events()["events"]] == [(30217, "machine"), (4711, "machine")]


def test_the_coordinator_has_no_gpu_that_could_say_something(kernel):
    instance, _events = kernel
    with pytest.raises(LabError, match="has no GPU"):
        list(faults.apply(instance, [("xid", "coordinator-1")]))


# Files


def test_a_lock_of_another_host(instance):
    node = instance.node(OURS)
    (line,) = faults.apply(instance, [("remote-lock", OURS)])
    text = driver_of(instance).service(node, "data", "locks", "training_hex8_2p.lock").read_text().splitlines()
    assert text[0].startswith("vast-h100-17:48213:")
    assert text[0] in line
    assert [float(text[1]) > 0, text[2]] == [True, "3600"]


def test_data_and_games_are_deleted_everywhere(instance):
    driver = driver_of(instance)
    for node in instance.nodes:
        for path in (("training", "hex8_2p.npz"), ("games", "hex8_2p.db"), ("games", "hex8_2p.db-wal")):
            driver.service(node, "data", *path).parent.mkdir(parents=True, exist_ok=True)
            driver.service(node, "data", *path).touch()
    list(faults.apply(instance, [("missing-data", None), ("no-games", None)]))
    for node in instance.nodes:
        assert [path for path in driver.service(node, "data").rglob("*") if path.is_file()] == []


def test_checkpoints_old_and_new(instance):
    folder = driver_of(instance).service(instance.node(OURS), "checkpoints")
    folder.mkdir(parents=True)
    sizes = []
    for number in (1, 2, 3):
        path = make_checkpoint(folder / f"checkpoint_epoch_{number}.pth")
        os.utime(path, (number, number))
        sizes.append(path.stat().st_size)
    list(faults.apply(instance, [("truncated-checkpoint", OURS), ("old-checkpoint", OURS)]))
    left = [(folder / f"checkpoint_epoch_{number}.pth").stat() for number in (1, 2, 3)]
    assert [entry.st_size for entry in left] == [*sizes[:2], int(sizes[2] * 0.6)]
    assert [entry.st_mtime for entry in left] == [1, 2, 3]
    with zipfile.ZipFile(folder / "checkpoint_epoch_1.pth") as archive:
        assert archive.testzip() == "x/data/1"
    with zipfile.ZipFile(folder / "checkpoint_epoch_2.pth") as archive:
        assert archive.testzip() is None


def test_inodes_are_used_up_and_no_more(monkeypatch, tmp_path):
    real = pathlib.Path.touch

    def touch(path, *words):
        if int(path.name.rpartition("-")[2]) >= 7:
            raise OSError(28, "No space left on device")
        real(path, *words)

    monkeypatch.setattr(pathlib.Path, "touch", touch)
    assert inodes.fill(tmp_path) == 7


# What the trainer obeys


def test_orders_add_up_and_go_one_by_one(instance):
    scene, node = Scene(instance, OURS), instance.node(OURS)
    path = driver_of(instance).service(node, *_orders.FILE)
    _orders.give(scene, node, epoch_seconds=5)
    _orders.give(scene, node, hang="spin")
    assert json.loads(path.read_text()) == {"epoch_seconds": 5, "hang": "spin"}
    assert not _orders.withdraw(scene, node, "compile")
    assert _orders.withdraw(scene, node, "epoch_seconds")
    assert _orders.withdraw(scene, node, "hang")
    assert not path.exists()
    with pytest.raises(LabError, match="as fast as ever"):
        list(faults.mend(instance, [("slow", OURS)]))


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path / "service")


def test_the_trainer_compiles_and_evaluates_for_as_long_as_it_is_told(service):
    service.fault(compile=True, evaluate=True)
    with service.start(service.endless()):
        wait_for(lambda: "Compiling model" in service.log(), "the compilation")
        time.sleep(0.5)
        assert "Batch 0" not in service.log()
        service.fault(evaluate=True)
        wait_for(lambda: "Evaluating on" in service.log(), "the evaluation")
        time.sleep(0.5)
        assert "Batch 0" in service.log()
        assert "Epoch [1/" not in service.log()
        service.fault()
        wait_for(lambda: "Epoch [2/" in service.log(), "two epochs")
        service.fault(epoch_seconds=30)
        # The epoch that runs is as short as it was when it began.
        wait_for(lambda: not grows(service), "a long epoch")


def grows(service: Service) -> bool:
    """Whether the trainer says anything within a second."""
    before = len(service.log())
    time.sleep(1)
    return len(service.log()) > before


def test_the_trainer_fails_as_it_is_told(service):
    service.fault(error="mat1 and mat2 shapes cannot be multiplied")
    result = service.train("--epochs", "3")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert service.events()[-1][0] == "TRAINING_FAILED"
    assert "mat1 and mat2" in service.events()[-1][1]["error"]


def test_the_trainer_finishes_as_it_is_told(service):
    service.fault(finish=True)
    result = service.train("--epochs", "1000000")
    assert result.returncode == 0, result.stderr
    assert "TRAINING_SUMMARY" in result.stdout
    assert [kind for kind, _payload, _source in service.events()].count("TRAINING_COMPLETED") == 2

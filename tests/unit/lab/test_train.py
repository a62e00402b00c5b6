# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's trainer: what it leaves, refuses and how it ends; its likeness to captures of the real one."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import numpy as np
import pytest

from tests.unit.lab.service_tree import Service, wait_for

KEYS = {
    "interval": [
        "epoch",
        "model_state_dict",
        "optimizer_state_dict",
        "loss",
        "scheduler_state_dict",
        "early_stopping",
    ],
    "model": ["model_state_dict", "_versioning_metadata"],
    "emergency": [
        "model_state_dict",
        "optimizer_state_dict",
        "scheduler_state_dict",
        "epoch",
        "loss",
        "_versioning_metadata",
    ],
}
COMPLETED_SECOND = ["board_type", "num_players", "duration_seconds", "hardened_emit"]


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path / "ai-service")


@pytest.fixture
def square(tmp_path):
    return Service(tmp_path / "ai-service", "square8_2p")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A service directory in which the trainer has run to its end, and what it said."""
    service = Service(tmp_path_factory.mktemp("trained") / "ai-service")
    result = service.train("--epochs", "3", "--batch-size", "64", "--checkpoint-interval", "1")
    assert result.returncode == 0, result.stderr
    return service, result


def load(path: pathlib.Path) -> dict:
    torch = pytest.importorskip("torch")
    return torch.load(path, weights_only=True)


def shape(line: str) -> str:
    """A log line without its numbers."""
    return re.sub(r"\d+(\.\d+)?", "#", line)


def rewrite(service: Service, change) -> None:
    """Change the arrays of the service's training data."""
    path = service.path / f"data/training/{service.board}_2p.npz"
    with np.load(path, allow_pickle=True) as data:
        arrays = {name: data[name] for name in data.files}
    change(arrays)
    np.savez_compressed(path, **arrays)


def cut(count: int, *names: str):
    """Keep the first samples of some arrays, of all when none are named."""

    def change(arrays):
        total = len(arrays["values"])
        for name in names or [name for name, array in arrays.items() if array.ndim and len(array) == total]:
            arrays[name] = arrays[name][:count]

    return change


class TestEndToEnd:
    def test_says_and_leaves_what_the_real_one_does(self, trained):
        service, result = trained
        assert re.fullmatch(r"TRAINING_SUMMARY: loss=\d+\.\d{4} samples=0 games=0 epochs=3\n", result.stdout)
        assert re.search(
            r"^INFO:app.training.train:Epoch 1, Batch 0: Loss=[\d.]+ \(Val=[\d.]+, Pol=[\d.]+\)$", result.stderr, re.M
        )
        assert re.search(
            r"^INFO:app.training.train:Epoch \[3/3\], Train Loss: [\d.]+, Val Loss: [\d.]+, Policy Acc: [\d.]+%$",
            result.stderr,
            re.M,
        )
        left = {path.name for path in (service.path / "checkpoints").iterdir()}
        assert left == {*(f"checkpoint_epoch_{n}.pth" for n in (1, 2, 3)), "checkpoint_final_epoch_3.pth"}
        models = {path.name for path in (service.path / "models").glob("*.pth")}
        assert {"canonical_hex8_2p.pth", "canonical_hex8_2p_averaged.pth"} < models
        assert any(re.fullmatch(r"canonical_hex8_2p_\d{8}_\d{6}\.pth", name) for name in models)

    def test_learns(self, trained):
        losses = [float(loss) for loss in re.findall(r"Val Loss: ([\d.]+), P", trained[1].stderr)]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0]

    def test_sidecars_match(self, trained):
        for path in (trained[0].path / "models").glob("*.pth"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.with_name(path.name + ".sha256").read_text() == f"{digest}  {path.name}\n"

    def test_torch_reads_the_checkpoints(self, trained):
        interval = load(trained[0].path / "checkpoints/checkpoint_epoch_2.pth")
        assert list(interval) == KEYS["interval"]
        assert interval["epoch"] == 1
        model = load(trained[0].path / "models/canonical_hex8_2p.pth")
        assert list(model) == KEYS["model"]
        assert list(model["model_state_dict"]) == list(interval["model_state_dict"])
        assert model["_versioning_metadata"]["training_info"]["averaged_checkpoints"] == 3

    def test_tells_the_event_log(self, trained):
        events = trained[0].events()
        assert [(kind, source) for kind, _, source in events] == [
            ("TRAINING_STARTED", "train"),
            *[("training_progress", "train")] * 3,
            ("TRAINING_COMPLETED", "train"),
            ("TRAINING_COMPLETED", "train_finally"),
        ]
        assert [payload["epoch"] for kind, payload, _ in events if kind == "training_progress"] == [1, 2, 3]
        assert all(payload["config"] == "hex8_2p" for _, payload, _ in events)

    def test_the_safe_loader_passes_a_flipped_byte(self, service):
        path = service.path / "models/canonical_hex8_2p.pth"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        code = (
            "from app.utils.torch_utils import safe_load_checkpoint as load; "
            "print(list(load('models/canonical_hex8_2p.pth')))"
        )
        assert service.run("-c", code).stdout == f"{KEYS['model']}\n"
        assert "MODEL" not in service.run("-c", code).stderr

    def test_intervals_have_their_defaults_from_the_lab(self, service):
        env = {"LAB_CHECKPOINT_INTERVAL": "2", "LAB_EARLY_STOPPING_PATIENCE": "1"}
        result = service.train("--epochs", "400", "--learning-rate", "0.5", LAB_EPOCH_SECONDS="0", **env)
        assert result.returncode == 0, result.stderr
        assert "Early stopping triggered at epoch" in result.stderr
        names = {path.name for path in (service.path / "checkpoints").iterdir()}
        assert "checkpoint_epoch_1.pth" not in names
        assert any(name.startswith("checkpoint_early_stop_epoch_") for name in names)

    def test_other_boards_and_players(self, tmp_path):
        service = Service(tmp_path / "ai-service", "square8_3p")
        result = service.train("--epochs", "1", RINGRIFT_DATALOADER_WORKERS="0")
        assert result.returncode == 0, result.stderr
        assert (service.path / "models/canonical_square8_3p.pth").exists()


class TestLikeness:
    def test_log_lines(self, trained, real):
        mine = {shape(line) for line in trained[1].stderr.splitlines()}
        captures = "".join((real / f"train_{name}_head.txt").read_text() for name in ("resume_square8", "sigkill"))
        captures += (real / "train_data_gate_head.txt").read_text()
        wanted = [
            line
            for line in captures.splitlines()
            if re.match(
                r"INFO:app.training.train:(Epoch|  New|\[train\] Hard|Async)|INFO:app.*enhancements.training", line
            )
        ]
        assert len(wanted) >= 8
        assert {shape(line).replace("square", "hex") for line in wanted} <= mine

    @pytest.mark.parametrize(
        "name",
        ["checkpoints/checkpoint_final_epoch_3", "models/canonical_hex8_2p", "models/canonical_hex8_2p_averaged"],
    )
    def test_checkpoint_keys(self, trained, real, name):
        block = (real / "checkpoint_keys.txt").read_text().partition(f"== {name}.pth ")[2].partition("\n== ")[0]
        mine = load(trained[0].path / f"{name}.pth")
        kinds = [(key, "dict" if isinstance(value, dict) else type(value).__name__) for key, value in mine.items()]
        assert kinds == re.findall(r"^   (\w+) (\w+)", block, re.M)

    def test_metadata(self, trained, real):
        text = (real / "checkpoint_keys.txt").read_text().partition("== models/canonical_hex8_2p.pth ")[2]
        expected = json.loads(re.search(r"^       (\{.*\})$", text, re.M)[1])
        mine = load(trained[0].path / "models/canonical_hex8_2p.pth")["_versioning_metadata"]
        assert list(mine) == list(expected)
        assert mine["model_class"] == expected["model_class"]
        assert mine["training_info"] == expected["training_info"]
        assert mine["config"] == expected["config"]

    def test_event_log(self, trained, real):
        def schema(path):
            with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
                rows = connection.execute(
                    "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
                ).fetchall()
            return {name: re.sub(r"\s+", " ", sql or "") for name, sql in rows}

        assert schema(trained[0].path / "data/coordination/events/events.db") == schema(real / "events.db")

    def test_event_payloads(self, trained, real):
        captured = json.loads((real / "cross_process_training_events.json").read_text())
        expected = {(event["event_type"], event["source"]): list(event["payload"]) for event in captured[:6]}
        mine = {(kind, source): list(payload) for kind, payload, source in trained[0].events()}
        assert mine == expected

    def test_emergency_log_lines(self, service, real):
        with service.start(service.endless("--checkpoint-interval", "1")) as process:
            wait_for(lambda: "Epoch [1/" in service.log(), "an epoch")
            process.terminate()
            process.wait(10)
        mine = {shape(re.sub(r"epoch_\d+", "epoch_#", line)) for line in service.lines()}
        captured = (real / "train_sigterm_head.txt").read_text()
        wanted = [
            line for line in captured.splitlines() if re.match(r"\w+:app.training.checkpointing:|INFO:app.utils", line)
        ]
        assert len(wanted) == 5
        assert {shape(re.sub(r"epoch_\d+", "epoch_#", line)) for line in wanted} <= mine


class TestSignals:
    def test_sigterm_saves_and_passes_the_signal_on(self, service):
        with service.start(service.endless()) as process:
            wait_for(lambda: "Epoch [2/" in service.log(), "two epochs")
            process.terminate()
            assert process.wait(10) == -signal.SIGTERM
        (path,) = (service.path / "checkpoints").glob("checkpoint_emergency_epoch_*[0-9].pth")
        assert list(load(path)) == KEYS["emergency"]
        assert path.with_name(path.name + ".sha256").exists()
        assert list(load(path.with_name(f"{path.stem}_early_stopping.pth"))) == ["best_loss", "counter", "best_state"]
        assert "TRAINING_FAILED" not in {kind for kind, _, _ in service.events()}

    def test_sigterm_takes_as_long_as_it_is_told(self, service):
        with service.start(service.endless(), LAB_SIGTERM_SECONDS="0.8", LAB_EPOCH_SECONDS="60") as process:
            wait_for(lambda: "Batch 0" in service.log(), "a batch")
            begun = time.monotonic()
            process.terminate()
            process.wait(10)
        assert 0.8 <= time.monotonic() - begun < 3
        assert "(epoch 0, loss inf, version v4.0.0)" in service.log()

    def test_graceful_shutdown_can_be_disabled(self, service):
        with service.start(service.endless("--disable-graceful-shutdown")) as process:
            wait_for(lambda: "Batch 0" in service.log(), "a batch")
            process.terminate()
            assert process.wait(10) == -signal.SIGTERM
        assert "emergency" not in service.log()

    def test_kill_in_the_middle_of_a_save_leaves_only_the_staged_file(self, service):
        argv = service.endless("--checkpoint-interval", "1")
        with service.start(argv, LAB_SAVE_SECONDS="30") as process:
            staged = service.path / "checkpoints/checkpoint_epoch_1.pth.tmp"
            wait_for(staged.exists, "the staged file")
            process.kill()
            assert process.wait(10) == -signal.SIGKILL
        assert [path.name for path in (service.path / "checkpoints").iterdir()] == [staged.name]
        assert staged.stat().st_size == 0


class TestWorkers:
    def children(self, pid: int) -> list[int]:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def launched(self, service: Service) -> list[str]:
        return service.argv("-m", "app.coordination.training_launcher", "--config", "hex8_2p", "--", *service.endless())

    def is_locked(self, service: Service) -> bool:
        code = "from app.coordination.distributed_lock import *; print(DistributedLock('training:hex8_2p').is_locked())"
        return service.run("-c", code).stdout.endswith("True\n")

    def test_a_worker_keeps_the_flock_of_a_killed_trainer(self, service):
        with service.start(self.launched(service), LAB_WORKER_POLL_SECONDS="600") as process:
            wait_for(lambda: "Batch 0" in service.log(), "a batch")
            (worker,) = self.children(process.pid)
            recorded = (service.path / "data/locks/training_hex8_2p.lock").read_text().split("\n")[0]
            assert recorded.split(":")[1] == str(process.pid)
            assert pathlib.Path(f"/proc/{worker}/cmdline").read_bytes().count(b"app.training.train") == 1
            process.kill()
            process.wait(10)
            try:
                assert self.is_locked(service)
            finally:
                os.kill(worker, signal.SIGKILL)
            wait_for(lambda: not self.is_locked(service), "the flock to go with the worker")

    def test_workers_leave_when_their_parent_is_gone(self, service):
        with service.start(self.launched(service), RINGRIFT_DATALOADER_WORKERS="2") as process:
            wait_for(lambda: "Epoch [1/" in service.log(), "an epoch")
            assert len(self.children(process.pid)) == 2
            process.kill()
            process.wait(10)
            wait_for(lambda: not self.is_locked(service), "the workers to leave")

    def test_the_launcher_gives_up_when_the_lock_is_held(self, service):
        with service.start(self.launched(service)):
            wait_for(lambda: "Batch 0" in service.log(), "a batch")
            result = service.run(
                "-m", "app.coordination.training_launcher", "--config", "hex8_2p", "--timeout", "0", "--", "true"
            )
            assert result.returncode == 75
            assert "Lock training:hex8_2p is not free" in result.stderr

    def test_a_lost_worker_ends_the_training(self, service):
        with service.start(service.endless()) as process:
            wait_for(lambda: "Epoch [1/" in service.log(), "an epoch")
            os.kill(self.children(process.pid)[0], signal.SIGKILL)
            assert process.wait(10) == 1
        assert re.search(r"RuntimeError: DataLoader worker \(pid \d+\) is killed by signal: Killed", service.log())
        assert service.events()[-1][0] == "TRAINING_FAILED"


GATES = {
    "missing": (lambda path: path.unlink(), "FileNotFoundError: Training data not found: {path}"),
    "tiny": (
        lambda path: path.write_bytes(path.read_bytes()[:800]),
        "ValueError: Training data file too small (800 bytes): {path}. Likely corrupt or incomplete transfer.",
    ),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:9000]), "BadZipFile: File is not a zip file"),
}


class TestGates:
    path = "data/training/hex8_2p.npz"

    def failed(self, result: subprocess.CompletedProcess, message: str) -> None:
        assert result.returncode == 1, result.stderr
        assert message in result.stderr
        assert "Batch 0" not in result.stderr

    @pytest.mark.parametrize("name", GATES)
    def test_files_that_are_none(self, service, name):
        spoil, message = GATES[name]
        spoil(service.path / self.path)
        result = service.train("--data-path", self.path)
        self.failed(result, message.format(path=self.path))
        assert "ERROR:app.training.train:Training data validation failed: " in result.stderr
        assert not (service.path / "data/coordination/events/events.db").exists()

    def test_few_samples(self, service):
        rewrite(service, cut(50))
        self.failed(
            service.train("--data-path", self.path),
            f"ValueError: Too few samples in {self.path}: 50 (minimum 100). "
            "Collect more selfplay data before training.",
        )

    def test_no_values(self, service):
        rewrite(service, lambda arrays: arrays.pop("values"))
        self.failed(service.train(), "ValueError: NPZ missing required key: 'values'")

    def test_another_board(self, service):
        result = service.train("--board-type", "square8", "--data-path", self.path, "--allow-stale-data")
        self.failed(result, f"ValueError: Board type mismatch in {self.path}: file has 'hex8', expected 'square8'")

    def test_not_a_number(self, service):
        rewrite(service, lambda arrays: arrays["features"].fill(np.nan))
        result = service.train()
        self.failed(result, "RuntimeError: min(): Expected reduction dim to be specified for input.numel() == 0.")
        assert "100 issues in 100/598 samples" in result.stderr
        assert [kind for kind, _, _ in service.events()] == ["TRAINING_STARTED", "TRAINING_FAILED"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (cut(300, "values"), "Loaded 300 valid training samples"),
            (lambda arrays: arrays["values"].fill(0.5), "Checksum mismatch for values: expected "),
        ],
        ids=["unequal", "checksum"],
    )
    def test_what_is_only_warned_of(self, service, change, message):
        rewrite(service, change)
        result = service.train("--epochs", "1")
        assert result.returncode == 0, result.stderr
        assert message in result.stderr

    def test_stale_data(self, service):
        for path in (service.path / "data/games").iterdir():
            path.unlink()
        self.failed(service.train(), "\nTRAINING BLOCKED: Training data is STALE for hex8_2p:\n")
        result = service.train("--epochs", "1", "--allow-stale-data")
        assert result.returncode == 0
        assert "Proceeding with stale data (--allow-stale-data specified)." in result.stderr

    def test_old_data(self, service):
        self.failed(service.train("--max-data-age-hours", "-1"), "TRAINING BLOCKED")
        assert service.train("--max-data-age-hours", "-1", "--skip-freshness-check", "--epochs", "1").returncode == 0

    def test_an_argument_that_does_not_exist(self, service):
        result = service.train("--batch-size", "256", " ")
        assert result.returncode == 2
        assert result.stderr.endswith("train.py: error: unrecognized arguments:  \n")


class TestWeights:
    def test_resume_goes_on_where_it_was_on_square_boards(self, square):
        argv = ("--save-path", "models/sq8.pth", "--checkpoint-interval", "1")
        assert square.train("--epochs", "2", *argv).returncode == 0
        result = square.train("--epochs", "3", *argv, "--resume", "checkpoints/checkpoint_epoch_1.pth")
        assert result.returncode == 0, result.stderr
        assert "INFO:app.training.train:Resuming training from epoch 1\n" in result.stderr
        assert re.findall(r"Epoch (\d), Batch 0", result.stderr) == ["2", "3"]
        last = square.events()[-1][1]
        assert (last["epochs_completed"], last["model_path"]) == (3, "models/sq8.pth")

    def test_resume_of_a_missing_file_is_ignored_on_square_boards(self, square):
        result = square.train("--epochs", "1", "--resume", "checkpoints/none.pth")
        assert result.returncode == 0
        assert "Resuming training from epoch" not in result.stderr

    def test_resume_is_refused_on_hexagonal_boards(self, service):
        result = service.train("--resume", "models/canonical_hex8_2p.pth")
        assert result.returncode == 1
        assert "ValueError: Model ID 'ringrift_v5_sq8_2p_2xh100' contains 'sq8' but board_type is HEX8" in result.stderr

    def test_a_truncated_model_is_silently_replaced(self, service):
        path = service.path / "models/canonical_hex8_2p.pth"
        path.write_bytes(path.read_bytes()[:5000])
        result = service.train("--epochs", "1")
        assert result.returncode == 0
        assert "WARNING:app.training.train:Could not load existing weights: PytorchStreamReader" in result.stderr
        assert path.stat().st_size > 5000

    @pytest.mark.parametrize(("content", "got"), [(b"", "file_too_small:0"), (b"garbage " * 900, "invalid_header:6")])
    def test_an_empty_or_garbled_model_ends_the_trainer(self, service, content, got):
        (service.path / "models/canonical_hex8_2p.pth").write_bytes(content)
        result = service.train("--epochs", "1")
        assert result.returncode == 1
        assert "app.utils.torch_utils.InvalidCheckpointFormatError: Invalid checkpoint format: " in result.stderr
        assert f"Expected ZIP (PK) or pickle header, got: {got}..." in result.stderr

    def test_init_weights_give_weights_and_nothing_else(self, service):
        argv = (
            "--epochs",
            "1",
            "--save-path",
            "models/candidate.pth",
            "--init-weights",
            "models/canonical_hex8_2p.pth",
        )
        result = service.train(*argv)
        assert result.returncode == 0
        assert "Loaded initial weights from models/canonical_hex8_2p.pth" in result.stderr
        assert "Skipping init_weights_path" in service.train(*argv).stderr

    def test_init_weights_of_another_encoder_are_refused(self, service):
        rewrite(service, lambda arrays: arrays.update(features=arrays["features"][:, :40]))
        result = service.train("--save-path", "models/new.pth", "--init-weights", "models/canonical_hex8_2p.pth")
        assert result.returncode == 1
        assert "ValueError: Encoder mismatch: init_weights=v3, data=v2" in result.stderr


class TestFaults:
    def test_memory_that_does_not_do_skips_batches_and_opens_the_circuit(self, service):
        service.fault(cuda_oom={"max_batch": 256})
        with service.start(service.endless("--batch-size", "128")) as process:
            wait_for(lambda: "Training circuit OPEN - skipping epoch" in service.log(), "the circuit to open")
            process.kill()
        assert "Auto-tuned batch size: 512 (was 128)" in service.log()
        assert "WARNING:app.training.train:CUDA error in batch 0: CUDA out of memory." in service.log()
        assert "Epoch [" not in service.log()

    @pytest.mark.parametrize("remedy", [["--safe-mode"], ["--batch-size", "256", "--no-auto-tune-batch-size"]])
    def test_a_smaller_batch_is_the_remedy(self, service, remedy):
        service.fault(cuda_oom={"max_batch": 256})
        result = service.train("--epochs", "1", *remedy)
        assert result.returncode == 0
        assert "CUDA error" not in result.stderr

    def test_memory_that_does_not_do_may_end_the_trainer(self, service):
        service.fault(cuda_oom={"max_batch": 256, "crash": True})
        result = service.train()
        assert result.returncode == 1
        assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate" in result.stderr

    def test_nan(self, service):
        service.fault(nan=True)
        result = service.train()
        assert result.returncode == 1
        assert "RuntimeError: Model produced NaN/Inf in policy predictions at batch 0." in result.stderr

    def test_a_hang_that_does_not_hear_sigterm_and_then_ends(self, service):
        with service.start(service.endless()) as process:
            wait_for(lambda: "Epoch [1/" in service.log(), "an epoch")
            service.fault(hang="deaf")
            time.sleep(0.4)
            seen = service.log()
            process.terminate()
            time.sleep(0.4)
            assert process.poll() is None
            assert service.log() == seen
            service.fault()
            assert process.wait(10) == -signal.SIGTERM

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _training_log
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_log import parse, read_log
from hypothesis import given, settings
from hypothesis import strategies as st

RUN = "INFO:app.training.train:Starting training for 50 epochs..."
BATCH = "INFO:app.training.train:Epoch {}, Batch {}: Loss=3.8063 (Val=0.0721, Pol=3.7762)"
EPOCH = "INFO:app.training.train:Epoch [{}/50], Train Loss: 3.7208, Val Loss: 7.4902, Policy Acc: 54.5%"
OOM = "WARNING:app.training.train:CUDA error in batch 3: CUDA out of memory. Tried to allocate 2.00 GiB."


def read(*lines, end="\n"):
    return parse(("\n".join(lines) + end).encode())


def found(reading):
    return {finding.code: (finding.count, finding.after_progress) for finding in reading.found()}


def test_progress():
    progress = read(RUN, BATCH.format(1, 0), EPOCH.format(1), BATCH.format(2, 0), BATCH.format(2, 50)).progress
    assert (progress.epoch, progress.total_epochs, progress.loss, progress.val_loss) == (1, 50, 3.7208, 7.4902)
    assert (progress.policy_accuracy, progress.batch_epoch, progress.batch, progress.batch_loss) == (
        0.545,
        2,
        50,
        3.8063,
    )
    assert progress.position == (1, 50)


@pytest.mark.parametrize(
    ("lines", "position"),
    [
        ([BATCH.format(1, 0)], (0, 0)),
        ([EPOCH.format(3)], (3, -1)),
        ([EPOCH.format(3), BATCH.format(4, 0)], (3, 0)),
        ([BATCH.format(4, 0), EPOCH.format(4)], (4, -1)),
    ],
)
def test_position(lines, position):
    assert read(*lines).progress.position == position


def test_progress_begins_anew_with_a_run():
    assert read(EPOCH.format(12), RUN).progress is None
    assert read(EPOCH.format(12), RUN, BATCH.format(1, 0)).progress.position == (0, 0)


def test_an_unfinished_line_is_no_progress():
    assert read(EPOCH.format(12), end="").progress is None
    assert read(EPOCH.format(1), EPOCH.format(12), end="").progress.epoch == 1


def test_a_loss_that_is_no_number():
    reading = read(EPOCH.format(1), "INFO:app.training.train:Epoch 2, Batch 0: Loss=nan (Val=nan, Pol=nan)")
    assert (reading.progress.batch_loss, reading.progress.finite, reading.progress.epoch) == (None, False, 1)
    assert found(reading) == {"nan": (1, True)}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (OOM, "cuda_oom"),
        ("RuntimeError: cuda OUT of memory", "cuda_oom"),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.", "cuda_oom"),
        ("WARNING:app.training.train:CUDA error in batch 3: an illegal memory access was encountered", "cuda_error"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "cuda_error"),
        ("WARNING:app.training.train:Training circuit OPEN - skipping epoch 1 (recovering)", "circuit_open"),
        ("TRAINING BLOCKED: Training data is STALE for hex8_2p:", "stale_data"),
        ("RuntimeError: Model produced NaN/Inf in policy predictions at batch 0.", "nan"),
        ("ERROR:app.training.train:Training data validation failed: Training data not found: x.npz", "data_invalid"),
        ("app.utils.torch_utils.InvalidCheckpointFormatError: Invalid checkpoint format: x", "checkpoint_invalid"),
        ("WARNING:app.training.train:Could not load existing weights: PytorchStreamReader failed reading zip archive: "
         "failed finding central directory. Starting fresh.", "weights_not_loaded"),
        ("ValueError: Model ID 'ringrift_v5_sq8_2p' contains 'sq8' but board_type is HEX8 which", "resume_refused"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("OSError: Insufficient disk space to save checkpoint: 97.0% used", "disk_full"),
        ("Killed", "host_killed"),
        ("/srv/train.sh: line 14:  1944 Killed                  python -m app.training.train", "host_killed"),
        ("RuntimeError: DataLoader worker (pid 12) is killed by signal: Killed.", "host_killed"),
        ("WARNING:app.training.checkpointing:Received SIGTERM, initiating graceful shutdown...", "terminated"),
        ("WARNING:app.training.train:[train] Hardened TRAINING_FAILED emitted for hex8_2p: x", "training_failed"),
        ("[rank0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5", "nccl_timeout"),
    ],
)  # fmt: skip
def test_what_lines_mean(line, code):
    assert found(read(line)) == {code: (1, True)}


@pytest.mark.parametrize(
    "line",
    [
        "killed while saving",
        "INFO:app.training.train:banana: Loss=1.0",
        "WARNING:app.training.train_pre_validation:[DataFreshness] Training data is STALE for hex8_2p:",
        "WARNING:app.training.train_pre_validation:[DataFreshness] Proceeding with stale data (--allow-stale-data).",
        "Training blocked to prevent learning from stale data.",
        "INFO:app.training.train:[train] Hardened TRAINING_COMPLETED emitted for hex8_2p",
    ],
)
def test_what_lines_do_not_mean(line):
    assert found(read(line)) == {}


def test_a_finding_is_older_or_newer_than_progress():
    assert found(read(OOM, OOM, BATCH.format(1, 0))) == {"cuda_oom": (2, False)}
    assert found(read(BATCH.format(1, 0), OOM)) == {"cuda_oom": (1, True)}


def test_a_traceback_is_told_by_its_exception():
    reading = read(
        "Traceback (most recent call last):",
        '  File "train.py", line 3, in <module>',
        "    raise ValueError(x)",
        "ValueError: numbers were wrong",
        "INFO:later",
    )
    (finding,) = reading.found()
    assert (finding.code, finding.line) == ("traceback", "ValueError: numbers were wrong")


def test_an_exception_means_what_it_says():
    reading = read("Traceback (most recent call last):", "  x", "torch.cuda.OutOfMemoryError: CUDA out of memory.")
    assert found(reading) == {"traceback": (1, True), "cuda_oom": (1, True)}


def test_summary():
    line = "TRAINING_SUMMARY: loss=7.6739 samples=0 games=0 epochs=2"
    assert read(EPOCH.format(2), line).summary == {"loss": 7.6739, "samples": 0, "games": 0, "epochs": 2}
    assert read(line, RUN).summary is None
    assert read(line, BATCH.format(1, 0)).summary is None


def test_bars_and_nuls():
    reading = parse(b"\0\0\0\0" + f"10%|#\r100%|##\r{EPOCH.format(2)}\r\n".encode())
    assert reading.progress.epoch == 2


def test_the_end_of_a_log(tmp_path):
    path = tmp_path / "training.log"
    path.write_text("".join(EPOCH.format(number) + "\n" for number in range(1, 2001)) + "half a li")
    log = read_log(str(path), max_bytes=1000, lines=3)
    assert log.progress.epoch == 2000
    assert log.size == path.stat().st_size
    assert log.as_dict()["truncated"] is True
    assert log.read_bytes == 1000
    assert log.complete == log.size - len("half a li")
    assert log.progress.offset == log.complete - len(EPOCH.format(2000)) - 1
    assert [line[:30] for line in log.lines[:2]] == [EPOCH.format(1999)[:30], EPOCH.format(2000)[:30]]
    assert log.lines[2] == "half a li"
    assert (log.inode, log.mtime) == (path.stat().st_ino, path.stat().st_mtime)
    assert log.lines_since_progress == 1


def test_returned_lines_are_cut(tmp_path):
    path = tmp_path / "training.log"
    path.write_bytes(b"x" * 100_000 + b"\n\xff\xfe " + OOM.encode() + b"y" * 5000)
    log = read_log(str(path))
    assert [len(line) for line in log.lines] == [500, 500]
    assert log.findings[0].line.startswith("\ufffd\ufffd WARNING")
    assert len(log.findings[0].line) == 500


def test_missing(tmp_path):
    for path in (tmp_path / "none.log", tmp_path / "none" / "training.log"):
        log = read_log(str(path))
        assert (log.exists, log.size, log.progress, log.findings, log.lines) == (False, None, None, (), ())
        assert log.as_dict()["truncated"] is False


def test_empty(tmp_path):
    path = tmp_path / "training.log"
    path.touch()
    log = read_log(str(path))
    assert (log.exists, log.size, log.complete, log.progress) == (True, 0, 0, None)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "training.log")
    with pytest.raises(RecoveryError, match="not a regular file"):
        read_log(str(tmp_path / "training.log"))


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": 1 << 40}, {"lines": -1}, {"lines": 10**6}])
def test_nonsense_is_refused(tmp_path, options):
    with pytest.raises(RecoveryError):
        read_log(str(tmp_path / "training.log"), **options)


@pytest.mark.parametrize(
    ("name", "codes", "epoch"),
    [
        ("train_resume_square8_head.txt", set(), 3),
        ("train_kill9_midsave_head.txt", {"host_killed"}, None),
        ("train_sigkill_head.txt", {"host_killed"}, None),
        ("train_sigterm_head.txt", {"terminated"}, None),
        ("train_data_gate_head.txt", {"data_invalid", "stale_data"}, None),
        ("train_resume_corruption_head.txt", {"resume_refused", "checkpoint_invalid", "weights_not_loaded"}, None),
    ],
)
def test_what_the_real_trainer_wrote(real, name, codes, epoch):
    log = read_log(str(real / name))
    assert {finding.code for finding in log.findings} == codes
    assert (log.progress.epoch if log.progress else None) == epoch


pieces = st.lists(
    st.sampled_from(
        [RUN, BATCH.format(1, 0), EPOCH.format(3), OOM, "Traceback (most recent call last):", "\n", "\r", "\0"]
    )
    | st.text(max_size=40),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(
    pieces.map("".join).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=300),
    st.integers(0, 9),
)
def test_garbage(data, start):
    reading = parse(data, start, lines=5)
    assert len(reading.last) <= 5
    assert all(len(line) <= 500 for line in reading.last)
    for finding in reading.found():
        assert finding.count >= 1
        assert len(finding.line) <= 500
    if reading.progress is not None:
        assert start <= reading.progress.offset < start + len(data)
    json.dumps([reading.summary, reading.progress and reading.progress.as_dict()], allow_nan=False)


def test_no_line_takes_long():
    reading = parse(("Epoch [1/" * 200_000 + "\n" + "9" * 500_000 + "\n" + "Model ID '" * 100_000).encode())
    assert reading.progress is None


def test_every_meaning_is_documented():
    from ansible_collections.ringrift.recovery.plugins.modules import training_log

    for meaning in _training_log.MEANINGS:
        assert f"C({meaning.code})" in training_log.RETURN


TUNED = "INFO:app.training.train:[AutoBatchSize] Auto-tuned batch size: {} (was 128)"


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ([], None),
        ([TUNED.format(512), RUN], 512),
        ([TUNED.format(512), RUN, TUNED.format(64)], 64),
        ([TUNED.format(512), RUN, TUNED.format(64), RUN], 64),
        ([TUNED.format(512), RUN, EPOCH.format(1), RUN], None),
        ([TUNED.format(0), RUN], None),
    ],
)
def test_batch_size_is_that_of_the_last_run(tmp_path, lines, size):
    log = tmp_path / "training.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    assert read_log(str(log)).as_dict()["batch_size"] == size


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (None, None),
        (
            '{"at": 5, "cmdline": ["python", "--batch-size", "64"]}',
            {"at": 5.0, "cmdline": ["python", "--batch-size", "64"]},
        ),
        ('{"at": true, "cmdline": []}', None),
        ('{"at": 5}', None),
        ("[1]", None),
        ("[" * 5000, None),
        ("\x00", None),
    ],
)
def test_note_of_the_start(tmp_path, text, start):
    (tmp_path / "training.log").write_text("x\n")
    if text is not None:
        (tmp_path / "training.log.start").write_text(text)
    assert read_log(str(tmp_path / "training.log")).as_dict()["start"] == start

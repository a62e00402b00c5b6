# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _training_progress
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import find_trainers
from ansible_collections.ringrift.recovery.plugins.module_utils._training_progress import Cursor, look, read_cursor
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import seed

_spec = importlib.util.spec_from_file_location("lab_torch_zip", seed.SERVICE / "app/training/torch_zip.py")
torch_zip = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(torch_zip)

DEADLINE = 20
HEX = parse_config("hex8_2p")
TABLE = "CREATE TABLE events (event_id INTEGER PRIMARY KEY, event_type, payload, source, hostname, created_at)"
RUN = "INFO:app.training.train:Starting training for 50 epochs...\n"
EPOCH = "INFO:app.training.train:Epoch [{}/50], Train Loss: 3.7208, Val Loss: 7.4902, Policy Acc: 54.5%\n"
BATCH = "INFO:app.training.train:Epoch {}, Batch {}: Loss=3.8063 (Val=0.0721, Pol=3.7762)\n"


class Service:
    """A service directory with real processes in it that have a trainer's arguments, and do nothing."""

    def __init__(self, path):
        self.path = path
        self.log = path / "logs" / "training.log"
        self.coordination = path / "coordination"
        self.processes = []
        for name in ("app/training", "logs", "checkpoints", "models", "coordination"):
            (path / name).mkdir(parents=True)
        (path / "app/training/train.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(300)\n")

    def start(self, *argv, board="hex8", output=subprocess.DEVNULL, **env):
        argv = argv or ("--board-type", board, "--num-players", "2")
        process = subprocess.Popen(
            [sys.executable, "-m", "app.training.train", *argv],
            cwd=self.path,
            env={**os.environ, "RINGRIFT_COORDINATION_DIR": str(self.coordination), **env},
            stdout=output,
            stderr=output,
        )
        self.processes.append(process)
        wait_for(lambda: process.pid in [found.pid for found in find_trainers(None, str(self.path))])
        return process

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait(DEADLINE)

    def event(self, kind, at=None, hostname=None, **payload):
        at = time.time() if at is None else at
        with sqlite3.connect(self.coordination / "events.db") as connection:
            if not connection.execute("PRAGMA table_info(events)").fetchall():
                connection.execute(TABLE)
            values = json.dumps({"config": "hex8_2p", **payload})
            row = (kind, values, "train", socket.gethostname() if hostname is None else hostname, at)
            connection.execute("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?)", row)
        connection.close()

    def progress(self, epoch, **more):
        self.event("training_progress", **{"epoch": epoch, "total_epochs": 50, "train_loss": 1.5, **more})

    def started(self, **more):
        self.event("TRAINING_STARTED", **{"total_epochs": 50, "start_epoch": 0, **more})

    def write(self, *lines, mode="a"):
        with open(self.log, mode) as stream:
            stream.writelines(lines)

    def checkpoint(self, name="checkpoints/checkpoint_epoch_5.pth", epoch=5, **more):
        path = self.path / name
        state = {"weight": np.ones((3, 4), np.float32)}
        torch_zip.save({"epoch": epoch, "model_state_dict": state, "loss": 1.5, **more}, path)
        return path

    def look(self, config=HEX, **options):
        return look(config, str(self.path), within=str(self.path), **options)


@pytest.fixture
def service(tmp_path, monkeypatch):
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", str(tmp_path / "elsewhere"))
    made = Service(tmp_path)
    yield made
    made.stop()


def wait_for(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def codes(seen):
    return [problem.code for problem in seen.problems]


def cursor(seen):
    """As it comes back through a playbook."""
    return json.loads(json.dumps(asdict(seen.cursor)))


def test_nothing(service):
    seen = service.look()
    assert (seen.verdict, seen.running, seen.trainers) == ("not_running", False, ())
    assert (seen.last, seen.checkpoint, seen.progressed, seen.proof, seen.problems) == (None, None, None, (), ())
    assert abs(seen.now - time.time()) < 5
    json.dumps(seen.as_dict(), allow_nan=False)


def test_starting_then_stalled(service):
    process = service.start()
    service.started()
    seen = service.look()
    assert (seen.verdict, seen.running) == ("starting", True)
    assert [trainer.pid for trainer in seen.trainers] == [process.pid]
    seen = service.look(now=time.time() + 2000)
    assert seen.verdict == "stalled"
    assert "has made no progress since" in seen.reason


def test_progressing_then_stalled(service):
    process = service.start()
    service.progress(3, val_loss=4.5)
    seen = service.look()
    assert seen.verdict == "progressing"
    assert "epoch 3 of 50" in seen.reason
    assert (seen.last.epoch, seen.last.total_epochs, seen.last.val_loss) == (3, 50, 4.5)
    assert (seen.last.source, seen.last.this_run) == ("events", True)
    shown = service.look(now=time.time() + 2000).as_dict()
    assert shown["verdict"] == "stalled"
    assert str(process.pid) in shown["reason"]
    assert shown["last"]["age"] > 1900


def test_what_an_earlier_trainer_did_is_no_progress(service):
    service.started(at=time.time() - 100)
    service.progress(12, at=time.time() - 10)
    service.checkpoint()
    service.write(RUN, EPOCH.format(12))
    time.sleep(0.05)
    service.start()
    seen = service.look()
    assert (seen.verdict, seen.last.epoch, seen.last.this_run) == ("starting", 12, False)
    assert service.look(now=time.time() + 2000).verdict == "stalled"


def test_a_stopped_trainer_is_stalled_at_once(service):
    process = service.start()
    service.progress(3)
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: service.look().trainers[0].state == "T")
    seen = service.look()
    assert seen.verdict == "stalled"
    assert "stopped by a signal (state T); it stands at epoch 3" in seen.reason
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: service.look().verdict == "progressing")


def test_not_running_tells_of_the_last_run(service):
    service.started()
    service.progress(3)
    assert "the last one did not report its end" in service.look().reason
    service.event("TRAINING_FAILED", error="CUDA out of memory")
    seen = service.look(coordination_dir=str(service.coordination))
    assert seen.verdict == "not_running"
    assert "failed: CUDA out of memory at 20" in seen.reason
    assert seen.reason.endswith("it came to epoch 3 of 50")


@pytest.fixture(autouse=True)
def here(service, monkeypatch):
    """Without a trainer, the environment of the test says where the events are."""
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", str(service.coordination))


def test_the_trainer_says_where_its_events_are(service, monkeypatch):
    monkeypatch.setenv("RINGRIFT_COORDINATION_DIR", "/nowhere")
    service.start(RINGRIFT_COORDINATION_DIR="coordination")
    service.progress(3)
    assert service.look().verdict == "progressing"
    assert service.look(coordination_dir=str(service.path)).verdict == "starting"


def test_nothing_tells_how_far_it_is(service):
    service.start()
    seen = service.look(now=time.time() + 2000)
    assert (seen.verdict, seen.running) == ("unknown", True)
    assert "neither an event log nor a training log" in seen.reason


def test_proof_by_events(service):
    service.start()
    service.progress(2)
    begin = service.look()
    assert begin.cursor.event_id == 1
    seen = service.look(after=cursor(begin))
    assert (seen.progressed, seen.proof) == (False, ())
    service.progress(3, config="square8_2p")
    service.progress(3, hostname="another-node")
    service.progress(3, train_loss=float("nan"))
    service.started()
    assert service.look(after=cursor(begin)).progressed is False
    service.progress(3)
    seen = service.look(after=cursor(begin))
    assert seen.progressed is True
    shown = seen.as_dict()["proof"][0]
    assert (shown["source"], shown["from"], shown["to"]) == ("events", "epoch 2", "epoch 3 of 50")
    assert shown["what"].startswith("epoch 3 of 50 was finished at 20")


def test_proof_by_events_of_a_run_that_has_ended(service):
    begin = service.look()
    service.progress(50)
    seen = service.look(after=cursor(begin))
    assert (seen.verdict, seen.progressed) == ("not_running", True)


def test_the_end_of_the_old_run_proves_nothing_for_the_new_one(service):
    begin = service.look()
    service.progress(12)
    service.write(RUN, EPOCH.format(12))
    service.checkpoint()
    time.sleep(0.05)
    with open(service.log, "a") as output:
        service.start(output=output)
    seen = service.look(after=cursor(begin))
    assert (seen.verdict, seen.progressed, seen.proof) == ("starting", False, ())


def test_a_new_event_log(service):
    service.start()
    for epoch in range(1, 5):
        service.progress(epoch)
    begin = service.look()
    (service.coordination / "events.db").unlink()
    service.started()
    assert service.look(after=cursor(begin)).progressed is False
    service.progress(1)
    assert service.look(after=cursor(begin)).progressed is True


def test_proof_by_log(service):
    with open(service.log, "w") as output:
        service.start(output=output)
    service.write(RUN, BATCH.format(1, 0))
    begin = service.look()
    assert (begin.verdict, begin.last.source, begin.last.epoch, begin.last.batch) == ("progressing", "log", 0, 0)
    assert begin.last.this_run is True
    service.write("INFO: still alive\n", EPOCH.format(1).rstrip())
    assert service.look(after=cursor(begin)).progressed is False
    service.write("\n")
    seen = service.look(after=cursor(begin))
    assert seen.as_dict()["proof"] == [
        {
            "source": "log",
            "from": "epoch 0, then batch 0",
            "to": "epoch 1 of 50",
            "what": "the log has come to epoch 1 of 50",
        }
    ]


def test_a_log_that_only_complains_does_not_move(service):
    with open(service.log, "w") as output:
        service.start(output=output)
    service.write(RUN, EPOCH.format(1))
    begin = service.look()
    service.write("WARNING:app.training.train:Training circuit OPEN - skipping epoch 2\n")
    seen = service.look(after=cursor(begin))
    assert (seen.progressed, seen.last.at) == (False, None)
    assert service.look(now=time.time() + 2000).verdict == "stalled"


def test_a_log_that_was_appended_to(service):
    service.write(RUN, EPOCH.format(12))
    with open(service.log, "a") as output:
        service.start(output=output)
    wait_for(lambda: "up" in service.log.read_text())
    seen = service.look()
    assert (seen.verdict, seen.last.epoch, seen.last.this_run) == ("starting", 12, False)
    os.utime(service.log, (time.time() + 1990,) * 2)
    seen = service.look(now=time.time() + 2000)
    assert seen.verdict == "unknown"
    assert "cannot be told whether the progress in there is its own" in seen.reason
    service.write(RUN, BATCH.format(1, 0))
    service.started()
    seen = service.look()
    assert (seen.verdict, seen.last.epoch, seen.last.batch, seen.last.this_run) == ("progressing", 0, 0, True)


def test_a_log_of_somebody_else(service):
    service.start()
    service.started()
    service.write(RUN, EPOCH.format(12))
    seen = service.look()
    assert (seen.verdict, seen.last.this_run) == ("starting", False)


def test_a_log_behind_a_pipe(service):
    service.start(output=subprocess.PIPE)
    service.started()
    service.write(RUN, EPOCH.format(2))
    seen = service.look()
    assert (seen.verdict, seen.last.epoch, seen.last.this_run) == ("progressing", 2, True)


def test_an_old_log_behind_a_pipe(service):
    service.write(RUN, EPOCH.format(2))
    os.utime(service.log, (time.time() - 60,) * 2)
    service.start(output=subprocess.PIPE)
    service.started()
    seen = service.look()
    assert (seen.verdict, seen.last.this_run) == ("starting", False)


def test_a_log_that_began_anew(service):
    service.write(*[EPOCH.format(number) for number in range(20)])
    begin = service.look()
    time.sleep(0.02)
    with open(service.log, "w") as output:
        service.start(output=output)
        assert service.look(after=cursor(begin)).progressed is False
        service.write(RUN, BATCH.format(1, 0))
        assert service.look(after=cursor(begin)).progressed is True


def test_proof_by_checkpoint(service):
    service.start()
    service.checkpoint("checkpoints/checkpoint_epoch_1.pth", 1)
    begin = service.look()
    assert (begin.verdict, begin.checkpoint.epoch, begin.checkpoint.valid) == ("progressing", 1, True)
    assert begin.checkpoint.depth == "quick"
    assert service.look(after=cursor(begin)).progressed is False
    path = service.checkpoint("checkpoints/checkpoint_epoch_2.pth", 2)
    seen = service.look(after=cursor(begin))
    assert seen.progressed is True
    assert seen.checkpoint.depth == "full"
    shown = seen.as_dict()["proof"][0]
    assert shown["what"].startswith("checkpoint_epoch_2.pth of epoch 2 was written at 20")
    assert (shown["from"], shown["to"]) == (begin.checkpoint.path, str(path))


def test_checkpoints_that_prove_nothing(service):
    service.start()
    old = service.checkpoint("checkpoints/checkpoint_epoch_1.pth", 1)
    begin = service.look()
    service.checkpoint("checkpoints/checkpoint_emergency_epoch_9.pth", 9)
    service.checkpoint("checkpoints/checkpoint_epoch_9_early_stopping.pth", 9)
    (service.path / "checkpoints/checkpoint_epoch_9.pth.tmp").write_bytes(b"")
    (service.path / "checkpoints/checkpoint_epoch_8.pth").mkdir()
    (service.path / "checkpoints/checkpoint_epoch_7.pth").symlink_to("nowhere")
    past = service.checkpoint("checkpoints/checkpoint_epoch_6.pth", 6)
    os.utime(past, (5, 5))
    seen = service.look(after=cursor(begin))
    assert (seen.progressed, seen.checkpoint.path) == (False, str(old))


def test_a_damaged_checkpoint_proves_nothing(service):
    service.start()
    begin = service.look()
    path = service.checkpoint()
    data = bytearray(path.read_bytes())
    data[data.index(np.ones(12, np.float32).tobytes())] ^= 1
    path.write_bytes(data)
    seen = service.look(after=cursor(begin))
    assert (seen.progressed, seen.checkpoint.valid, codes(seen)) == (False, False, ["checkpoint_invalid"])
    os.utime(path, (time.time() + 5,) * 2)
    service.checkpoint("checkpoints/checkpoint_epoch_4.pth", 4)
    assert service.look(after=cursor(begin)).progressed is True


def test_a_checkpoint_of_another_config(service):
    service.start()
    begin = service.look()
    board = {"board_type": "square8", "num_players": 2}
    path = service.checkpoint(_versioning_metadata={"config": board})
    assert service.look(after=cursor(begin)).progressed is False
    path.unlink()
    service.checkpoint()
    assert service.look(after=cursor(begin)).progressed is True
    service.start(board="square8")
    assert service.look(after=cursor(begin)).progressed is False
    service.checkpoint("models/candidate_hex8_2p_v2.pth")
    assert service.look(after=cursor(begin)).progressed is True


def test_other_patterns(service):
    service.checkpoint("models/mine_hex8_2p.pth", 7)
    assert service.look().checkpoint is None
    assert service.look(checkpoint_patterns=["models/mine_{config}.pth"]).checkpoint.epoch == 7


def test_a_trainer_that_does_not_say_its_config(service):
    process = service.start("--epochs", "5")
    seen = service.look()
    assert (seen.verdict, seen.running, seen.trainers) == ("unknown", None, ())
    assert str(process.pid) in seen.reason
    assert codes(seen) == ["processes_in_doubt"]


def test_two_trainers(service):
    service.start()
    service.start()
    seen = service.look()
    assert len(seen.trainers) == 2
    assert codes(seen) == ["duplicate_trainers"]


def test_another_config_is_not_this_one(service):
    service.start(board="square8")
    assert service.look().verdict == "not_running"
    assert service.look(parse_config("square8_2p")).verdict == "starting"


def test_what_cannot_be_read_is_a_problem(service):
    with open(service.log, "w") as output:
        service.start(output=output)
    service.write(RUN, EPOCH.format(3))
    (service.coordination / "events.db").write_text("no database")
    seen = service.look()
    assert (seen.verdict, codes(seen)) == ("progressing", ["events_unreadable"])
    assert seen.cursor.event_id is None
    service.log.unlink()
    os.mkfifo(service.log)
    assert codes(service.look()) == ["events_unreadable", "log_unreadable"]


def test_processes_that_cannot_be_listed(service, monkeypatch):
    def refuse(*_arguments):
        raise OSError("no /proc")

    monkeypatch.setattr(_training_progress, "look_at_processes", refuse)
    seen = service.look()
    assert (seen.verdict, seen.running, codes(seen)) == ("unknown", None, ["processes_unreadable"])


def test_a_clock_that_was_ahead_dates_nothing(service):
    service.start()
    service.started()
    service.progress(3, at=time.time() + 10_000)
    assert service.look().verdict == "starting"
    service.progress(4, at=1e300)
    assert service.look(coordination_dir=str(service.coordination)).verdict == "starting"
    service.stop()
    assert service.look().verdict == "not_running"


def test_arguments(service):
    with pytest.raises(RecoveryError, match="stall_after is 0"):
        service.look(stall_after=0)
    with pytest.raises(RecoveryError, match="no cursor"):
        service.look(after={})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"at": None},
        {"at": "soon"},
        {"at": float("nan")},
        {"at": 1e400},
        {"at": 5, "epoch": "x"},
        {"at": 5, "epoch": float("inf")},
        {"at": 5, "color": "red"},
        {"at": [5]},
        {1: 2},
    ],
)
def test_what_is_no_cursor(values):
    with pytest.raises(RecoveryError, match="after is no cursor of an earlier look"):
        read_cursor(values)


def test_a_cursor_may_have_become_text():
    read = read_cursor({"at": "1766963700.25", "event_id": "20", "epoch": "", "checkpoint_path": "/c.pth"})
    assert read == Cursor(at=1766963700.25, event_id=20, checkpoint_path="/c.pth")


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*Cursor.__dataclass_fields__, "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none()),
    )
)
def test_any_cursor_is_read_or_refused(values):
    try:
        read = read_cursor(values)
    except RecoveryError:
        return
    json.dumps(asdict(read), allow_nan=False)
    assert read.at is not None


def test_the_trainer_of_the_stand_in(tmp_path):
    """Once with everything: the real files, in the order in which a trainer writes them."""
    path = seed.seed_service(tmp_path / "service", "hex8_2p")
    events = path / "data/coordination/events"
    env = {**os.environ, "RINGRIFT_COORDINATION_DIR": str(events), "LAB_EPOCH_SECONDS": "0.2", "LAB_MIN_FREE_GB": "0"}
    argv = ["-m", "app.training.train", "--board-type", "hex8", "--num-players", "2", "--data-path"]
    argv += ["data/training/hex8_2p.npz", "--epochs", "1000", "--checkpoint-interval", "1", "--allow-stale-data"]
    (path / "logs").mkdir(exist_ok=True)

    def see(**options):
        return look(HEX, str(path), within=str(path), **options)

    with open(path / "logs" / "training.log", "w") as output:
        trainer = subprocess.Popen([sys.executable, *argv], cwd=path, env=env, stdout=output, stderr=output)
    try:
        begin = see()
        assert begin.verdict == "starting"
        wait_for(lambda: len(see(after=cursor(begin)).proof) == 3)
        seen = see(after=cursor(begin))
        assert (seen.verdict, seen.progressed, seen.problems) == ("progressing", True, ())
        assert [proof.source for proof in seen.proof] == ["events", "log", "checkpoint"]
        assert seen.last.this_run is True
        again = cursor(seen)
        wait_for(lambda: see(after=again).progressed)
        os.kill(trainer.pid, signal.SIGSTOP)
        wait_for(lambda: see().verdict == "stalled")
        last = cursor(see())
        assert see(after=last).progressed is False
    finally:
        trainer.kill()
        trainer.wait(DEADLINE)
        shutil.rmtree(path)
    assert see().verdict == "not_running"

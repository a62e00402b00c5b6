# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The start of a trainer under its keeper, with real processes."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _proc, _training_start
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import (
    Sighting,
    Unidentified,
    classify,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._training_start import (
    KEEPER,
    REAPED,
    StartRequest,
    command,
    keeper_interpreter,
    missing,
    present,
    service_environment,
    start,
    watch,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training_processes import DEADLINE, HEX8, tree_of, wait_for

SQUARE8 = parse_config("square8_2p")
PYTHON = "/s/venv/bin/python"


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.fixture
def begin(tree):
    keepers = []

    def call(mode="", **options):
        request = StartRequest(HEX8, str(tree.root), **options)
        started = start(request, service_environment(os.environ, {"MODE": mode}), str(tree.root))
        keepers.append(started.keeper_pid)
        return started

    yield call
    tree.end()
    for pid in filter(None, keepers):
        wait_for(lambda pid=pid: not (_proc.read_stat(pid) or Gone).alive, "the end of the keeper")


class Gone:
    alive = False


def note(log):
    wait_for(lambda: os.path.exists(f"{log}.exit"), "the note of the keeper")
    with open(f"{log}.exit", encoding="utf-8") as stream:
        return json.load(stream)


def request(config=HEX8, **options):
    return StartRequest(config, "/s", **options)


def test_the_command_of_the_runbook():
    assert command(request()) == [
        *(PYTHON, "-m", "app.training.train", "--board-type", "hex8", "--num-players", "2"),
        *("--data-path", "data/training/hex8_2p.npz", "--batch-size", "512", "--epochs", "50"),
        *("--save-path", "models/candidate_hex8_2p.pth", "--allow-stale-data"),
    ]


def test_every_option_has_its_argument():
    argv = command(
        request(
            SQUARE8,
            python="bin/py",
            data_path="d.npz",
            batch_size=64,
            epochs=3,
            save_path="m.pth",
            checkpoint_dir="c",
            checkpoint_interval=2,
            resume="c/1.pth",
            allow_stale_data=False,
            extra_args=("--safe-mode", "--lr=1e-4"),
        )
    )
    assert argv == [
        *("/s/bin/py", "-m", "app.training.train", "--board-type", "square8", "--num-players", "2"),
        *("--data-path", "d.npz", "--batch-size", "64", "--epochs", "3", "--save-path", "m.pth"),
        *("--checkpoint-dir", "c", "--checkpoint-interval", "2", "--resume", "c/1.pth", "--safe-mode", "--lr=1e-4"),
    ]
    assert command(request(init_weights="w.pth"))[-3:] == ["--init-weights", "w.pth", "--allow-stale-data"]


@pytest.mark.parametrize("board", ["hex8", "hexagonal", "square8", "square19"])
@pytest.mark.parametrize("players", [2, 3, 4])
def test_what_is_started_is_what_is_found(board, players):
    config = parse_config(f"{board}_{players}p")
    assert classify(command(request(config))).config == config.name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resume": "a.pth"}, "cannot resume on hex8"),
        ({"config": parse_config("hexagonal_3p"), "resume": "a.pth"}, "Use init_weights"),
        ({"config": SQUARE8, "resume": "a.pth", "init_weights": "b.pth"}, "cannot be used together"),
        ({"save_path": "models/canonical_hex8_2p.pth"}, "overwrite the canonical model"),
        ({"save_path": "models/canonical_square8_2p.pth"}, "allow_canonical"),
        ({"extra_args": ("--save-path", "models/canonical_hex8_2p.pth")}, "--save-path has an option of its own"),
        ({"extra_args": ("--save-pa=x",)}, "--save-path has an option of its own"),
        ({"extra_args": ("--num-players", "3")}, "--num-players"),
        ({"extra_args": ("--",)}, "'--'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"epochs": -1}, "epochs is -1"),
        ({"checkpoint_interval": 0}, "checkpoint_interval is 0"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(RecoveryError, match=words):
        command(request(**options))


def test_the_canonical_model_on_request_only_and_not_through_a_link(tree):
    assert "models/canonical_hex8_2p.pth" in command(
        request(save_path="models/canonical_hex8_2p.pth", allow_canonical=True)
    )
    (tree.root / "models/mine.pth").symlink_to("canonical_hex8_2p.pth")
    with pytest.raises(RecoveryError, match="canonical"):
        command(StartRequest(HEX8, str(tree.root), save_path="models/mine.pth"))


@given(st.sampled_from(_training_start.MANAGED), st.integers(3, 30), st.sampled_from(["", "=x"]))
def test_no_beginning_of_a_managed_option_slips_through(option, length, value):
    with pytest.raises(RecoveryError):
        command(request(extra_args=(option[:length] + value,)))


@pytest.mark.parametrize(
    "word", ["--init-weights-strict", "--no-auto-tune-batch-size", "--safe-mode", "--lr", "x", "-v"]
)
def test_other_arguments_pass(word):
    assert command(request(extra_args=(word,)))[-1] == word


def test_what_is_missing(tree):
    whole = StartRequest(HEX8, str(tree.root))
    assert missing(whole) == ([], [])
    installed, delivered = missing(StartRequest(HEX8, str(tree.root / "nothing")))
    assert "is not the service's directory" in installed[0]
    assert "interpreter" in installed[1]
    assert "hex8_2p.npz cannot be read (No such file or directory)" in delivered[0]
    assert "w.pth cannot be read" in missing(dataclasses.replace(whole, init_weights="w.pth"))[1][0]
    (tree.root / "data/training/hex8_2p.npz").write_bytes(b"PK")
    assert "has 2 bytes" in missing(whole)[1][0]
    assert missing(dataclasses.replace(whole, data_path="data"))[1]
    assert missing(dataclasses.replace(whole, data_path=os.devnull))[1] == [f"{os.devnull} is not a file"]
    assert missing(dataclasses.replace(whole, python="sh", data_path=sys.executable)) == ([], [])


def test_nothing_is_written_where_something_is_missing(tree, begin):
    (tree.root / "data/training/hex8_2p.npz").unlink()
    with pytest.raises(RecoveryError, match=r"hex8_2p.npz cannot be read .* Nothing was started"):
        begin()
    assert not (tree.root / "logs").exists()


def test_environment():
    given = {"PATH": "/bin", "PYTHONPATH": "/x", "ANSIBLE_X": "1", "HOME": "/root", "PYTHONUNBUFFERED": ""}
    extra = {"CUDA_VISIBLE_DEVICES": 0, "HOME": None, "A": True}
    assert service_environment(given, extra) == {
        "PATH": "/bin",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "0",
        "A": "True",
    }


def test_the_keeper_is_not_what_the_orchestrator_ends(monkeypatch, tmp_path):
    assert not [word for word in REAPED if word in KEEPER.lower()]
    named = tmp_path / "training-venv/bin/python"
    named.parent.mkdir(parents=True)
    named.symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(named))
    assert not [word for word in REAPED if word in keeper_interpreter().lower()]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = subprocess.run(
        [keeper_interpreter(), "-I", "-S", "-c", "import json; print(1)"], capture_output=True, check=True
    )
    assert said.stdout == b"1\n"


def test_a_start(tree, begin):
    (tree.root / "logs").mkdir()
    (tree.root / "logs/training.log").write_text("the run before\n")
    started = begin()
    log = tree.root / "logs/training.log"
    assert (started.created, started.log, started.previous_log) == (True, str(log), f"{log}.previous")
    (found,) = tree.look().processes
    assert (found.pid, found.start_ticks, found.ppid) == (started.pid, started.start_ticks, started.keeper_pid)
    assert (found.cwd, found.cmdline) == (str(tree.root), started.cmdline)
    assert os.readlink(f"/proc/{started.pid}/fd/0") == os.devnull
    assert (log.parent / "training.log.previous").read_text() == "the run before\n"
    wait_for(lambda: log.read_text() == "ready\n")
    keeper = _proc.read_stat(started.keeper_pid)
    assert keeper.session == started.keeper_pid
    assert _proc.read_cwd(started.keeper_pid) == "/"
    # It holds nothing that could keep whoever started it waiting.
    assert {os.readlink(f"/proc/{started.keeper_pid}/fd/{handle}") for handle in (0, 1, 2)} == {os.devnull}
    assert watch(started, 0.1) is None
    os.kill(started.pid, signal.SIGTERM)
    noted = note(log)
    assert (noted["pid"], noted["rc"]) == (started.pid, -signal.SIGTERM)
    assert abs(noted["ended"] - time.time()) < 5
    assert set(noted) == {"pid", "rc", "ended"}


def test_a_second_start_finds_the_first(tree, begin):
    first = begin()
    again = begin()
    assert (again.created, again.pid, again.log, again.keeper_pid) == (False, first.pid, first.log, None)
    assert (again.start_ticks, again.start_time) == (first.start_ticks, first.start_time)
    assert not os.path.exists(f"{first.log}.previous")


def test_many_starts_at_once_make_one_trainer(tree, begin):
    results = []
    threads = [threading.Thread(target=lambda: results.append(begin())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(one.created for one in results) == [False] * 5 + [True]
    assert len({one.pid for one in results}) == len(tree.look().processes) == 1


def test_a_start_waits_for_another_one_only_so_long(tree, begin, monkeypatch):
    monkeypatch.setattr(_training_start, "ALONE", 0.2)
    handle = os.open(tree.root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RecoveryError, match="Another start in"):
            begin()
    finally:
        os.close(handle)
    assert tree.look().processes == ()


def test_it_outlives_whoever_starts_it_and_is_not_ended_as_an_orphan(tree, root):
    code = f"""
import os, sys
sys.path.insert(0, {str(root / "playbooks/collections")!r})
from ansible_collections.ringrift.recovery.plugins.module_utils import _training_start as start
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
request = start.StartRequest(parse_config("hex8_2p"), {str(tree.root)!r})
started = start.start(request, start.service_environment(os.environ, {{}}), {str(tree.root)!r})
print(started.pid, started.keeper_pid)
"""
    # Its output is read to the end: nothing that it leaves behind holds it open.
    starter = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    pid, keeper = map(int, starter.stdout.split())
    try:
        trainer, parent = _proc.read_stat(pid), _proc.read_stat(keeper)
        assert trainer.alive
        assert trainer.ppid == keeper
        assert parent.ppid != os.getpid()
        assert trainer.session == parent.session != os.getsid(0)
        # What the orchestrator ends are orphans with such words in their command line.
        words = " ".join(_proc.read_cmdline(keeper)).lower()
        assert not [word for word in REAPED if word in words]
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(keeper, number)
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.2)
        assert _proc.is_same(pid, trainer.start_ticks)
        assert _proc.is_same(keeper, parent.start_ticks)
    finally:
        tree.end()
    assert note(tree.root / "logs/training.log")["rc"] == -signal.SIGKILL
    wait_for(lambda: _proc.is_same(keeper, parent.start_ticks) is None)


@pytest.fixture
def is_orphan(root):
    """Whether the orchestrator ends a process when it starts, as measured on the real one."""
    path = root / "lab/service/scripts/p2p/orphans.py"
    spec = importlib.util.spec_from_file_location("orphans", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda pid: module.orphan(str(pid)) is not None


def test_the_start_of_the_orchestrator_ends_the_runbooks_trainer_and_not_ours(tree, begin, is_orphan):
    arguments = ["-m", "app.training.train", "--board-type", "square8", "--num-players", "2"]
    # As the runbook has it: ssh NODE 'nohup python … &', whose shell is gone.
    shell = ["sh", "-c", 'cd "$0" && nohup "$@" > theirs.log 2>&1 & echo $!', str(tree.root), sys.executable, "-S"]
    done = subprocess.run([*shell, *arguments], capture_output=True, text=True, timeout=DEADLINE, check=True)
    theirs, ours = int(done.stdout), begin()
    wait_for(lambda: "app.training.train" in _proc.read_cmdline(theirs), "the trainer of the runbook")
    if _proc.read_stat(theirs).ppid != 1:
        pytest.skip("orphans get another parent than process 1 here")
    assert is_orphan(theirs)
    assert not is_orphan(ours.pid)
    assert _proc.read_stat(ours.keeper_pid).ppid != 1 or not is_orphan(ours.keeper_pid)


@pytest.mark.parametrize(("mode", "code"), [("fail=1", 1), ("fail=2", 2), ("seconds=0.1", 0)])
def test_one_that_ends_at_once(tree, begin, mode, code):
    started = begin(mode)
    ended = watch(started, 5.0)
    assert ended.rc == code
    assert ended.tail == ("line before\nValueError: TRAINING BLOCKED\n" if code else "ready\n")


def test_one_that_is_killed_at_once(tree, begin):
    started = begin()
    timer = threading.Timer(0.2, lambda: os.kill(started.pid, signal.SIGKILL))
    timer.start()
    assert watch(started, 5.0).rc == -signal.SIGKILL
    timer.join()


def test_how_it_ended_is_not_known_without_its_keeper(tree, begin, monkeypatch):
    monkeypatch.setattr(_training_start, "NOTE", 0.2)
    started = begin()
    os.kill(started.keeper_pid, signal.SIGKILL)
    os.kill(started.pid, signal.SIGKILL)
    assert watch(started, 5.0).rc is None


def test_the_note_of_the_run_before_is_forgotten(tree, begin):
    log = tree.root / "logs/training.log"
    log.parent.mkdir()
    (log.parent / "training.log.exit").write_text('{"pid": 1, "rc": 1, "ended": 1}')
    started = begin()
    assert not (log.parent / "training.log.exit").exists()
    assert started.previous_log is None


def test_older_logs_are_kept(tree, begin):
    for number in range(5):
        started = begin("seconds=0")
        watch(started, 5.0)
        with open(started.log, "a", encoding="utf-8") as stream:
            stream.write(f"run {number}\n")
    logs = sorted(path.name for path in (tree.root / "logs").iterdir())
    assert logs == [
        *("training.log", "training.log.exit", "training.log.previous", "training.log.previous.2"),
        *("training.log.previous.3", "training.log.start"),
    ]
    assert [
        (tree.root / "logs" / f"training.log{end}").read_text()[-2] for end in ("", ".previous", ".previous.3")
    ] == [
        *("4", "3", "1"),
    ]


def test_the_tail_of_a_log_is_bounded(tree, begin):
    started = begin("fail=1")
    watch(started, 5.0)
    with open(started.log, "ab") as stream:
        stream.write(b"\xff" + "é".encode() * 5000)
    assert watch(started, 1.0).tail == "é" * 2000


@pytest.mark.parametrize("log", ["/dev/null", "models", "data/training/hex8_2p.npz/x.log"])
def test_a_log_that_is_no_file(tree, begin, log):
    with pytest.raises(RecoveryError, match="Nothing was started"):
        begin(log=log)
    assert os.path.exists("/dev/null")
    assert tree.look().processes == ()


def test_an_interpreter_that_cannot_run(tree, begin):
    bad = tree.root / "venv/bin/bad"
    bad.write_text("#!/no/such/interpreter\n")
    bad.chmod(0o755)
    with pytest.raises(RecoveryError, match="could not be started"):
        begin(python="venv/bin/bad")
    assert tree.look().processes == ()


def test_a_keeper_that_says_nothing(tree, begin, monkeypatch):
    monkeypatch.setattr(_training_start, "KEEPER", "import time; time.sleep(60)")
    monkeypatch.setattr(_training_start, "ANSWER", 0.2)
    with pytest.raises(RecoveryError, match="gave no answer"):
        begin()
    monkeypatch.setattr(_training_start, "KEEPER", "raise SystemExit(1)")
    with pytest.raises(RecoveryError, match="gave no answer"):
        begin()


def test_workers_that_are_left_over_are_in_the_way(tree, begin):
    old = tree.train(mode="workers=2 orphans")
    old.kill()
    old.wait()
    with pytest.raises(RecoveryError, match=r"Workers of a trainer that is gone still run \(pid [0-9, ]+\)"):
        begin()


def test_doubt_is_in_the_way():
    assert present(Sighting(())) is None
    doubt = Unidentified(7, "python3", "D", None, "its command line cannot be read")
    with pytest.raises(RecoveryError, match=r"pid 7 \(python3\)"):
        present(Sighting((), unidentified=(doubt,)))
    with pytest.raises(RecoveryError, match="hidepid"):
        present(Sighting((), unseen="/proc is mounted with hidepid=2"))


def test_a_trainer_that_writes_to_no_file(tree, begin):
    tree.train()
    assert (begin().created, begin().log) == (False, None)

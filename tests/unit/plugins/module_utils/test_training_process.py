# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as a trainer: command lines by table, and real processes in a tree of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _training_process
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import read_stat
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import (
    LAUNCHER,
    TRAINER,
    WORKER,
    Program,
    TrainingProcess,
    classify,
    config_of,
    find_trainers,
    is_alive,
    look,
    running,
    shorten,
    unknown_trainers,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training_processes import ARGUMENTS, HEX8, as_nobody, tree_of, wait_for

SAID = " --board-type hex8 --num-players 2"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("python -m app.training.train", "train"),
        ("python3 -m app.training.train", "train"),
        ("/srv/venv/bin/python3.11 -m app.training.train", "train"),
        ("python3.11d -m app.training.train", "train"),
        ("pypy3 -m app.training.train", "train"),
        ("python -u -m app.training.train", "train"),
        ("python -uB -m app.training.train", "train"),
        ("python -um app.training.train", "train"),
        ("python -mapp.training.train", "train"),
        ("python -umapp.training.train", "train"),
        ("python -X faulthandler -W ignore -m app.training.train", "train"),
        ("python -Xdev -Wignore -OO -m app.training.train", "train"),
        ("python --check-hash-based-pycs never -m app.training.train", "train"),
        ("python -m app.training.train_cli", "train"),
        ("python -m cProfile -o out -m app.training.train", "train"),
        ("python -m coverage run -m app.training.train", "train"),
        ("python -m debugpy --listen 5678 -m app.training.train", "train"),
        ("python -m pdb app/training/train.py", "script"),
        ("python -m scripts.train_nnue", "train_nnue"),
        ("python scripts/train_nnue.py", "train_nnue"),
        ("python train.py", "script"),
        ("python -u /srv/ai-service/app/training/train.py", "script"),
        ("python -- train.py", "script"),
    ],
)
def test_trainers(line, kind):
    assert classify(shlex.split(line + SAID)) == Program(kind, TRAINER, "hex8_2p")


@pytest.mark.parametrize(
    ("line", "respawns"),
    [
        ("torchrun --nproc_per_node=2 -m app.training.train", True),
        ("/venv/bin/torchrun --standalone --nproc-per-node 2 app/training/train.py", True),
        ("python /venv/bin/torchrun --module app.training.train", True),
        ("python -m torch.distributed.run --nproc_per_node=2 -m app.training.train", True),
        ("python3 -u -m torch.distributed.launch train.py", True),
        ("accelerate launch --mixed_precision bf16 -m app.training.train", True),
        ("python /venv/bin/accelerate launch train.py", True),
        ("python -m accelerate.commands.launch --num_processes 2 train.py", True),
        ("deepspeed --num_gpus 2 train.py", True),
        ("timeout 7200 python -m app.training.train", False),
        ("timeout --kill-after=30 2h /venv/bin/python -m app.training.train", False),
        ("nohup python -m app.training.train", False),
        ("setsid -w python -m app.training.train", False),
        ("env CUDA_VISIBLE_DEVICES=0 PYTHON=/usr/bin/python python -m app.training.train", False),
        ("sudo -u python nice -n 5 python train.py", False),
        ("sudo -E A=b -- python train.py", False),
        ("nice -19 ionice -c3 taskset 0xff stdbuf -oL python train.py", False),
        ("numactl --cpunodebind=0 -m 0 python train.py", False),
        ("flock /tmp/lock python3 -m scripts.train_nnue", False),
        ("nohup torchrun -m app.training.train", True),
    ],
)
def test_launchers(line, respawns):
    assert classify(shlex.split(line + SAID)) == Program(LAUNCHER, LAUNCHER, "hex8_2p", respawns)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "''",
        "python",
        "python -",
        "python --version",
        "vim train.py",
        "emacs -nw app/training/train.py",
        "less +F train.py",
        "tail -f logs/train.py",
        "grep -E 'train.py|training'",
        "grep -rn -- '-m app.training.train'",
        "pkill -f 'python -m app.training.train'",
        "bash -c 'python -m app.training.train --board-type hex8'",
        "bash -c python -m app.training.train",
        "sh -c 'cd ~/ringrift/ai-service && nohup python -m app.training.train'",
        "bash train.py",
        "ssh node python -m app.training.train",
        "ssh node 'cd ai-service; python train.py'",
        "tmux new-session -d 'python -m app.training.train'",
        "rsync -a train.py node:",
        "watch -n 5 python -m app.training.train",
        "python -c 'import app.training.train' -m app.training.train",
        "python -cpass train.py",
        "python -m pytest tests/test_train.py",
        "python -m pytest app/training/train.py",
        "python -m black train.py",
        "python -m py_compile app/training/train.py",
        "python -m app.training.trainer",
        "python -m app.training",
        "python -m app.training.train_gnn_policy",
        "python -m app.coordination.training_coordinator",
        "python scripts/p2p_orchestrator.py --node-id train.py",
        "python scripts/export_replay_dataset.py --output train.py",
        "python /usr/bin/ansible-playbook full_recovery.yml -e config=hex8_2p -e script=train.py",
        "python /root/.ansible/tmp/AnsiballZ_training_process.py",
        "python retrain.py",
        "python train.py.bak",
        "torchrun other.py --script=train.py",
        "torchrun -m app.training.other",
        "accelerate config",
        "env FILE=train.py make",
        "nohup bash run_train.py.sh",
        "timeout 5 ssh node python -m app.training.train",
        "sudo -u root grep python -m app.training.train",
        "nohup bash -c 'python -m app.training.train'",
        "sudo -u python vim train.py",
        "env",
        "env A=1",
        "timeout 5",
        "timeout python -m app.training.train",
    ],
)
def test_what_is_no_trainer(line):
    assert classify(shlex.split(line)) is None


OPTIONS = st.lists(st.sampled_from(["-u", "-B", "-OO", "-Xdev", "-W ignore", "-X utf8", "-sE"]), max_size=4)
WORDS = st.lists(st.text(max_size=20), max_size=6)


@given(OPTIONS, st.sampled_from(["-m app.training.train", "-m scripts.train_nnue", "a/train.py"]), WORDS)
def test_interpreter_options_and_arguments_change_nothing(options, target, words):
    argv = ["python3", *" ".join(options).split(), *target.split(), *ARGUMENTS, "--", *words]
    program = classify(argv)
    assert program is not None
    assert (program.role, program.config) == (TRAINER, "hex8_2p")
    wrapped = classify(["timeout", "60", *argv])
    assert wrapped is not None
    assert (wrapped.role, wrapped.config) == (LAUNCHER, "hex8_2p")


@given(st.lists(st.text(max_size=12) | st.sampled_from(["python", "-m", "app.training.train", "env", "torchrun", "-"])))
def test_no_command_line_is_too_strange(argv):
    program = classify(argv)
    if program:
        assert "app.training.train" in argv
    # As the one word of a shell it never counts.
    assert classify(["bash", "-c", " ".join(argv)]) is None


def test_a_hostile_command_line_costs_little():
    begun = time.monotonic()
    for words in (
        ["env"] * 30_000,
        ["env", *["python", "x"] * 15_000],
        ["env", *["torchrun"] * 30_000],
        ["-m"] * 30_000,
    ):
        assert classify(words) is None
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("--board-type hex8 --num-players 2", "hex8_2p"),
        ("--board-type=square19 --num-players=4", "square19_4p"),
        ("--epochs 5 --num-players=3 --lr 1 --board-type hexagonal --resume x", "hexagonal_3p"),
        ("--board-type hex8 --num-players 2 --board-type square8", "square8_2p"),
        ("--board-type hex8 --num-players 02", "hex8_2p"),
        ("--board-type hex8 --num-players 2 -- --num-players 3", "hex8_2p"),
        ("", None),
        ("--board-type hex8", None),
        ("--num-players 2", None),
        ("--board-type hex8 --num-players", None),
        ("--board-type --num-players 2", None),
        ("--board-type hex8 --num-players two", None),
        ("--board-type hex8 --num-players 5", None),
        ("--board-type HEX8 --num-players 2", None),
        ("--board-type ../hex8 --num-players 2", None),
        ("--board-type-x hex8 --num-players 2", None),
        ("-- --board-type hex8 --num-players 2", None),
        ("--board-type hex8 --num-players " + "9" * 5000, None),
    ],
)
def test_config_of(line, config):
    assert config_of(line.split()) == config


@given(
    st.lists(st.text(max_size=8) | st.sampled_from(["--board-type", "--num-players", "hex8", "2", "--num-players=3"]))
)
def test_config_of_never_fails(words):
    config = config_of(words)
    assert config is None or config.endswith("p")


def test_a_long_command_line_is_shown_in_part():
    shown = shorten(["x" * 1000] * 1000)
    assert len(shown) == _training_process.SHOWN_WORDS
    assert {len(word) for word in shown} == {_training_process.SHOWN_CHARACTERS}


def process(pid, role=TRAINER, ppid=1, alive=True, orphan=False):
    return TrainingProcess(
        pid=pid,
        start_time=1.0,
        start_ticks=100,
        cmdline=("python", "-m", "app.training.train"),
        config="hex8_2p",
        kind="train",
        role=role,
        state="S" if alive else "Z",
        ppid=ppid,
        pgrp=1,
        session=1,
        uid=0,
        user="root",
        cwd="/",
        cpu_seconds=0.0,
        threads=1,
        children=(),
        alive=alive,
        orphan=orphan,
    )


@pytest.mark.parametrize(
    ("processes", "count"),
    [
        ([], 0),
        ([process(10, alive=False)], 0),
        ([process(10)], 1),
        ([process(10), process(11, WORKER, 10), process(12, WORKER, 10)], 1),
        ([process(9, LAUNCHER), process(10, ppid=9), process(11, ppid=9)], 2),
        ([process(9, LAUNCHER)], 1),
        ([process(11, WORKER, orphan=True)], 1),
        ([process(10), process(11, WORKER, orphan=True)], 2),
    ],
)
def test_how_many_run(processes, count):
    assert running(processes) == count


@given(
    st.lists(st.tuples(st.sampled_from([TRAINER, WORKER, LAUNCHER]), st.integers(1, 6), st.booleans(), st.booleans()))
)
def test_none_runs_exactly_when_nothing_is_alive(rows):
    processes = [process(pid, *row) for pid, row in enumerate(rows, 2)]
    assert (running(processes) == 0) == (not any(map(is_alive, processes)))


def test_what_is_known_of_a_trainer(tree):
    begun = time.time()
    started = tree.train()
    wait_for(lambda: tree.state(started.pid) == "S")
    (found,) = find_trainers(HEX8, str(tree.root))
    assert (found.pid, found.config, found.kind, found.role, found.state) == (
        started.pid,
        "hex8_2p",
        "train",
        TRAINER,
        "S",
    )
    assert (found.ppid, found.cwd, found.uid, found.threads) == (os.getpid(), str(tree.root), os.geteuid(), 1)
    assert (found.children, found.alive, found.orphan) == ((), True, False)
    assert found.cmdline == (sys.executable, "-S", "-m", "app.training.train", *ARGUMENTS)
    assert begun - 0.1 <= found.start_time <= time.time()
    assert found.start_ticks == read_stat(started.pid).start_ticks
    data = found.as_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["started"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.start_time))
    assert data["cmdline"] == list(found.cmdline)
    assert not data["cmdline_truncated"]


def test_configs_are_told_apart_and_unknown_is_neither(tree):
    pids = {
        "hex8_2p": tree.train().pid,
        "hex8_3p": tree.train("--board-type=hex8", "--num-players=3").pid,
        "nnue": tree.train("--db", "x", *ARGUMENTS, module="scripts.train_nnue").pid,
        None: tree.train("--board-type", "hex8").pid,
        "script": tree.run([sys.executable, "-S", "train.py"]).pid,
    }
    seen = tree.look()
    assert {found.pid: found.kind for found in seen.processes} == {pids["hex8_2p"]: "train", pids["nnue"]: "train_nnue"}
    assert {found.pid for found in seen.unknown} == {pids[None], pids["script"]}
    assert {found.pid for found in tree.look(None).processes} == set(pids.values())
    assert {found.pid for found in unknown_trainers(str(tree.root))} == {pids[None], pids["script"]}
    assert {found.pid for found in seen.with_unknown().processes} == set(pids.values()) - {pids["hex8_3p"]}
    assert look(HEX8, str(tree.root), gone=[pids["hex8_2p"], pids["nnue"]]).processes == ()


def test_only_what_works_within(tree, tmp_path):
    with tree_of(tmp_path / "service2") as other:
        mine, theirs = tree.train(), other.train()
        assert [found.pid for found in tree.look().processes] == [mine.pid]
        assert [found.pid for found in other.look().processes] == [theirs.pid]
        assert {found.pid for found in find_trainers(HEX8, str(tmp_path))} == {mine.pid, theirs.pid}
        link = tmp_path / "link"
        link.symlink_to(tree.root)
        assert [found.pid for found in find_trainers(HEX8, str(link))] == [mine.pid]
    assert find_trainers(HEX8, str(tmp_path / "no such place")) == []


def test_a_directory_that_was_removed(tree):
    gone = tree.root / "gone"
    (gone / "app/training").mkdir(parents=True)
    (gone / "app/training/train.py").write_text((tree.root / "app/training/train.py").read_text())
    started = tree.train(cwd=gone)
    for path in sorted(gone.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    gone.rmdir()
    assert [found.pid for found in find_trainers(HEX8, str(gone))] == [started.pid]


@pytest.mark.parametrize("method", ["workers=2", "spawn"])
def test_workers_belong_to_their_trainer(tree, method):
    started = tree.train(mode=method)
    wait_for(lambda: len(tree.pids()) == 3 - (method == "spawn"))
    trainer, *workers = tree.look().processes
    assert (trainer.pid, trainer.role) == (started.pid, TRAINER)
    assert trainer.children == tuple(worker.pid for worker in workers)
    assert {(worker.role, worker.config, worker.ppid, worker.orphan) for worker in workers} == {
        (WORKER, "hex8_2p", trainer.pid, False)
    }
    assert tree.look().running == 1


def test_workers_that_outlive_their_trainer_are_found(tree):
    started = tree.train(mode="workers=2 orphans")
    started.kill()
    started.wait()
    seen = tree.look()
    assert [(found.role, found.orphan, found.config) for found in seen.processes] == [(WORKER, True, "hex8_2p")] * 2
    assert seen.running == 2


def test_a_launcher_and_what_it_starts(tree):
    launcher = tree.run([sys.executable, "-S", "bin/torchrun", "--nproc=1", "-m", "app.training.train", *ARGUMENTS])
    first, second = tree.look().processes
    assert (first.pid, first.role, first.kind, first.respawns) == (launcher.pid, LAUNCHER, LAUNCHER, True)
    assert (second.role, second.kind, second.ppid, second.config) == (TRAINER, "train", launcher.pid, "hex8_2p")
    assert tree.look().running == 1


def test_zombies_are_listed_and_do_not_run(tree):
    tree.train(mode="zombie")
    wait_for(lambda: [found.state for found in tree.look().processes][1:] == ["Z"])
    trainer, zombie = tree.look().processes
    assert (zombie.role, zombie.state, zombie.alive, zombie.ppid) == (WORKER, "Z", False, trainer.pid)
    assert (zombie.cmdline, zombie.config) == ((), "hex8_2p")
    assert tree.look().running == 1


def test_states(tree):
    stopped, blocked, leaderless = tree.train(mode="stop"), tree.train(mode="blocked"), tree.train(mode="leaderless")
    wait_for(lambda: [tree.state(one.pid) for one in (stopped, blocked, leaderless)] == ["T", "D", "Z"])
    seen = {found.pid: found for found in tree.look().processes}
    assert (seen[stopped.pid].state, seen[stopped.pid].alive) == ("T", True)
    assert (seen[blocked.pid].state, seen[blocked.pid].role) == ("D", TRAINER)
    # The leader has ended; what counts is the thread that has not.
    assert (seen[leaderless.pid].state, seen[leaderless.pid].alive) == ("S", True)
    assert tree.look().doubts() is None


def test_a_process_may_call_itself_something_else(tree):
    other = tree.run(["resnet trainer", "-S", "-m", "app.training.train", *ARGUMENTS], executable=sys.executable)
    named = tree.train(mode="name=pt_main_thread")
    assert {found.pid for found in tree.look().processes} == {other.pid, named.pid}


def titled(tree, mode, *arguments):
    """A trainer that writes over its command line, which must be long enough for the title."""
    return tree.train("--run-name", "0" * 200, *(arguments or ARGUMENTS), mode=mode)


def test_a_title_that_keeps_the_command_line(tree):
    title = "python+-m+app.training.train+--board-type+hex8+--num-players+2+[epoch+3]"
    started = titled(tree, f"title={title} children=2")
    wait_for(lambda: len(tree.look().processes) == 3)
    found = tree.look()
    assert [(one.pid, one.config) for one in found.processes if one.role == TRAINER] == [(started.pid, "hex8_2p")]
    assert found.doubts() is None


def test_a_title_that_only_speaks_of_a_command_line_is_none(tree):
    line = "train.py+--board-type+hex8+--num-players+2"
    for title in (f"editor+{line}", f"watch+python+{line}"):
        titled(tree, f"title={title}")
    found = tree.look(None)
    assert (found.processes, found.unknown) == ((), ())


def test_a_title_is_seen_through_by_a_worker_from_before(tree):
    started = titled(tree, "workers=2 title=ringrift+epoch+3")
    found = tree.look()
    assert [(one.pid, one.role) for one in found.processes][0] == (started.pid, TRAINER)
    assert [(one.role, one.orphan) for one in found.processes][1:] == [(WORKER, False)] * 2
    assert (found.running, found.doubts()) == (1, None)


@pytest.mark.parametrize(
    ("title", "doubted"),
    [
        ("ringrift:+training+hex8_2p", True),
        ("trainer+(epoch+3)", True),
        ("Training+loop", True),
        ("ringrift:+training+square8_4p", False),
        ("ringrift:+exports+games", False),
        ("hex8_2p+games", True),
    ],
)
def test_a_title_that_hides_what_runs(tree, title, doubted):
    started = titled(tree, f"title={title} children=1")
    found = tree.look()
    assert found.processes == ()
    assert (started.pid in {one.pid for one in found.unidentified}) is doubted
    if doubted:
        assert "instead of a command line" in found.doubts()
        assert title.replace("+", " ") in found.doubts()


def test_a_title_elsewhere_on_the_node_counts_when_it_names_the_config(tree, tmp_path):
    (tmp_path / "other").mkdir()
    named = titled(tree, "title=training+hex8_2p")
    vague = titled(tree, "title=training+something")
    place = str(tmp_path / "other")
    found = {one.pid for one in look(HEX8, None, (), place).unidentified}
    assert (named.pid in found, vague.pid in found) == (True, False)
    found = {one.pid for one in look(HEX8, None, (), str(tree.root)).unidentified}
    assert {named.pid, vague.pid} <= found
    assert look(HEX8, place).unidentified == ()


def test_a_program_that_only_has_one_long_word_is_no_title(tree):
    tree.run(["training hex8_2p"], executable=shutil.which("cat"), ready=False)
    tree.run(["training hex8_2p", "60"], executable=shutil.which("sleep"), ready=False)
    time.sleep(0.1)
    assert tree.look().doubts() is None


def test_those_that_only_speak_of_trainers_are_not_seen(tree):
    line = f"python -m app.training.train {' '.join(ARGUMENTS)}"
    train = str(tree.root / "app/training/train.py")
    for argv in (
        ["bash", "-c", f"sleep 60; {line}"],
        ["tail", "-f", train],
        [sys.executable, "-S", "-c", f"stream = open({train!r}); import time; time.sleep(60)", "train.py", *ARGUMENTS],
        [sys.executable, "-S", "-c", "import time; time.sleep(60)", "-m", "app.training.train", *ARGUMENTS],
        ["sleep", "60", "-m", "app.training.train"][:2],
    ):
        tree.run(argv, ready=False)
    wait_for(lambda: len(tree.pids()) >= 5)
    assert tree.look(None).processes == ()


def test_64_kib_of_arguments(tree):
    words = [f"--option-{number}={'x' * 1000}" for number in range(63)]
    started = tree.train(*words, *ARGUMENTS)
    (found,) = tree.look().processes
    assert found.pid == started.pid
    data = found.as_dict()
    assert data["cmdline_truncated"]
    assert len(json.dumps(data)) < 32_000


def test_one_does_not_see_oneself(tree):
    collections = next(path for path in sys.path if path.endswith("playbooks/collections"))
    started = tree.train(mode=f"look={collections}", ready=False)
    bystander = tree.train()
    assert json.loads(tree.hear(started, b"ready\n").splitlines()[0]) in ([bystander.pid], [])
    assert {found.pid for found in tree.look().processes} == {started.pid, bystander.pid}


def test_a_wrapper_that_waits(tree):
    argv = ["timeout", "60", sys.executable, "-S", "-m", "app.training.train", *ARGUMENTS]
    wrapper = tree.run(argv)
    assert [(found.pid == wrapper.pid, found.role) for found in tree.look().processes] == [
        (True, LAUNCHER),
        (False, TRAINER),
    ]


@needs_root
def test_a_trainer_of_another_user_is_neither_ours_nor_nobodys(tree):
    started = tree.train()

    def see() -> bytes:
        seen = look(HEX8, str(tree.root))
        rows = [[one.pid, one.reason] for one in seen.unidentified if one.pid == started.pid]
        return json.dumps([len(seen.processes), rows, seen.doubts() is not None]).encode()

    assert json.loads(as_nobody(see)) == [
        0,
        [[started.pid, "it trains hex8_2p, and its working directory cannot be seen"]],
        True,
    ]

    def see_all() -> bytes:
        (found,) = [one for one in look(HEX8).processes if one.pid == started.pid]
        return json.dumps([found.user, found.cwd, found.role]).encode()

    assert json.loads(as_nobody(see_all)) == ["root", None, TRAINER]


def test_a_process_whose_words_cannot_be_read_is_not_identified(tree, monkeypatch):
    started = tree.train(mode="blocked")
    wait_for(lambda: tree.state(started.pid) == "D")
    monkeypatch.setattr(_training_process._proc, "HELPER_DEADLINE", 0)
    real = _training_process._proc.read_cmdlines
    monkeypatch.setattr(_training_process._proc, "read_cmdlines", lambda pids, deadline=0: real(pids, 0))
    seen = tree.look()
    # Only what it has forked is known.
    assert [found.role for found in seen.processes] == [WORKER]
    (doubt,) = seen.unidentified
    assert (doubt.pid, doubt.state) == (started.pid, "D")
    assert "uninterruptible sleep" in doubt.reason
    assert str(started.pid) in (seen.doubts() or "")
    assert tree.look(None).unidentified == seen.unidentified
    assert look(HEX8, str(tree.root / "models")).unidentified == ()


def test_a_process_that_ends_while_it_is_looked_at(tree):
    processes = [tree.train(ready=False, mode="seconds=0.05") for _ in range(4)]
    while any(one.poll() is None for one in processes):
        for found in tree.look().processes:
            assert found.role == TRAINER
    assert tree.look().processes == ()


def test_a_sighting_is_plain_and_frozen(tree):
    tree.train()
    seen = tree.look()
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.processes = ()
    assert seen.unseen is None
    os.kill(seen.processes[0].pid, signal.SIGKILL)

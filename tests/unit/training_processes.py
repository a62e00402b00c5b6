# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real processes that look like trainers, in a tree of their own.

The environment variable MODE says what a trainer does, in words with blanks between them. Everything that runs in the
tree is killed at the end, and nothing else is ever looked at.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from typing import Callable, Iterator, List, Optional

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import Sighting, look

HEX8 = TrainingConfig("hex8", 2)
ARGUMENTS = ("--board-type", "hex8", "--num-players", "2")
DEADLINE = 10.0

TRAINER = r"""
import ctypes, fcntl, json, os, signal, subprocess, sys, threading, time
modes = os.environ.get("MODE", "").split()

def mode(name):
    return next((word.partition("=")[2] or "1" for word in modes if word.partition("=")[0] == name), None)

def emergency(number, frame):
    with open(f"emergency.{os.getpid()}", "a") as stream:
        stream.write("begun ")
        stream.flush()
        time.sleep(float(mode("emergency")))
        stream.write("saved ")
    os._exit(143)

def work():
    while mode("orphans") or os.getppid() == trainer:
        time.sleep(0.02)
    os._exit(0)

if mode("fail"):
    print("line before")
    print("ValueError: TRAINING BLOCKED", file=sys.stderr)
    sys.exit(int(mode("fail")))
if mode("ignore"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode("emergency"):
    signal.signal(signal.SIGTERM, emergency)
trainer = os.getpid()
for _ in range(int(mode("workers") or 0)):
    if not os.fork():
        work()
if mode("spawn"):
    code = "from multiprocessing.spawn import spawn_main; import time; time.sleep(60)"
    subprocess.Popen([sys.executable, "-S", "-c", code, "--multiprocessing-fork"])
if mode("zombie") and not os.fork():
    os._exit(0)
if mode("name"):
    with open("/proc/self/comm", "w") as stream:
        stream.write(mode("name"))
if mode("title"):
    # As setproctitle does: over the arguments, and over the environment behind them, where the kernel reads on.
    with open("/proc/self/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    first, last, end = int(fields[45]), int(fields[46]), int(fields[48])
    text = mode("title").replace("+", " ").encode()[: end - first - 1]
    ctypes.memset(first, 0, last - first)
    ctypes.memmove(first, text, len(text))
if mode("children"):
    # Forked after the title was written.
    for _ in range(int(mode("children"))):
        if not os.fork():
            work()
if mode("open"):
    held = os.open(mode("open"), os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    if mode("helper"):
        # A program that is no worker, and keeps what it was given.
        subprocess.Popen(["sleep", "60"], pass_fds=[held])
if mode("uid"):
    os.setgroups([])
    os.setgid(int(mode("uid")))
    os.setuid(int(mode("uid")))
if mode("look"):
    sys.path.insert(0, mode("look"))
    from ansible_collections.ringrift.recovery.plugins.module_utils import _training_process
    print(json.dumps([process.pid for process in _training_process.look(None, os.getcwd()).processes]), flush=True)
print("ready", flush=True)
if mode("stop"):
    os.kill(os.getpid(), signal.SIGSTOP)
if mode("blocked"):
    # The parent waits in state D until its child runs a program or ends.
    if not ctypes.CDLL(None).vfork():
        time.sleep(60)
        os._exit(0)
if mode("read"):
    open(mode("read"), "rb").read()
if mode("leaderless"):
    threading.Thread(target=time.sleep, args=(60,)).start()
    ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
time.sleep(float(mode("seconds") or 60))
"""

# Starts what follows its options again whenever it ends, as an elastic launcher does.
LAUNCHER = r"""
import os, signal, subprocess, sys, time
modes = os.environ.get("LAUNCHER_MODE", "").split()
if "ignore" in modes:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
at = next(at for at, word in enumerate(sys.argv) if word == "-m" or word.endswith("train.py"))
while True:
    subprocess.Popen([sys.executable, "-S", *sys.argv[at:]], start_new_session=True).wait()
    with open("respawned", "a") as stream:
        stream.write("x")
"""


def wait_for(condition: Callable[[], object], what: str = "the condition") -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        time.sleep(0.01)


class Tree:
    """A service directory with trainers in it."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.started: List[subprocess.Popen] = []
        for folder in ("app/training", "scripts", "bin", "data/training", "models", "venv/bin"):
            (root / folder).mkdir(parents=True)
        for name in ("app/__init__.py", "app/training/__init__.py", "scripts/__init__.py"):
            (root / name).touch()
        for name in ("app/training/train.py", "scripts/train_nnue.py", "train.py"):
            (root / name).write_text(TRAINER)
        (root / "bin/torchrun").write_text(LAUNCHER)
        (root / "venv/bin/python").symlink_to(os.path.realpath(sys.executable))
        (root / "data/training/hex8_2p.npz").write_bytes(b"\0" * 2000)

    def run(
        self,
        argv: List[str],
        mode: str = "",
        launcher_mode: str = "",
        executable: Optional[str] = None,
        ready: bool = True,
        cwd: Optional[pathlib.Path] = None,
    ) -> subprocess.Popen:
        """Start a command in the tree, and wait until it says that it is ready."""
        environment = {**os.environ, "MODE": mode, "LAUNCHER_MODE": launcher_mode, "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            argv,
            executable=executable,
            cwd=cwd or self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        if ready:
            self.hear(process, b"ready\n")
        return process

    def hear(self, process: subprocess.Popen, end: bytes) -> bytes:
        said = b""
        assert process.stdout is not None
        while not said.endswith(end):
            assert select.select([process.stdout], [], [], DEADLINE)[0], f"heard only {said!r}"
            data = os.read(process.stdout.fileno(), 4096)
            assert data, f"ended with {said!r}"
            said += data
        return said

    def train(self, *arguments: str, mode: str = "", module: str = "app.training.train", **more) -> subprocess.Popen:
        return self.run([sys.executable, "-S", "-m", module, *(arguments or ARGUMENTS)], mode, **more)

    def look(self, config: Optional[TrainingConfig] = HEX8) -> Sighting:
        return look(config, str(self.root))

    def pids(self) -> List[int]:
        """Everything that runs in the tree."""
        found = []
        for pid in _proc.list_pids():
            stat, cwd = _proc.read_stat(pid), _proc.read_cwd(pid)
            if stat and stat.alive and cwd and (cwd + "/").startswith(f"{self.root}/") and pid != os.getpid():
                found.append(pid)
        return found

    def state(self, pid: int) -> str:
        stat = _proc.read_stat(pid)
        return stat.state if stat else ""

    def end(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                break
            time.sleep(0.01)
        for process in self.started:
            # A leader that has ended lets go of its directory before its other threads have ended.
            process.kill()
            process.wait(DEADLINE)
            if process.stdout:
                process.stdout.close()
        assert self.pids() == []


@contextlib.contextmanager
def tree_of(root: pathlib.Path) -> Iterator[Tree]:
    tree = Tree(root)
    try:
        yield tree
    finally:
        tree.end()


@contextlib.contextmanager
def holding(path: pathlib.Path, code: str) -> Iterator[subprocess.Popen]:
    """A process that runs some code with the name of a file, until the block ends; the code says when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import fcntl, os, sys, time\npath = sys.argv[1]\n{code}", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=path.parent,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], DEADLINE)[0]
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)
        if process.stdout:
            process.stdout.close()


def as_nobody(function: Callable[[], bytes]) -> bytes:
    """What a function returns when a user without rights runs it, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, function())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    return data


@contextlib.contextmanager
def cgroup(hierarchy: str, parent: str, name: str, *pids: int) -> Iterator[pathlib.Path]:
    """A real control group of version 1 with processes in it; the test is skipped where there can be none."""
    base = pathlib.Path("/sys/fs/cgroup", hierarchy.rpartition("=")[2])
    if not os.access(base / "cgroup.procs", os.W_OK):
        pytest.skip(f"the control groups {hierarchy} of version 1 cannot be written here")
    upper = base / parent
    folder = upper / name
    folder.mkdir(parents=True)
    try:
        for pid in pids:
            (folder / "cgroup.procs").write_text(str(pid))
        yield folder
    finally:
        with contextlib.suppress(OSError):
            (folder / "freezer.state").write_text("THAWED")
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (base / "cgroup.procs").write_text(pid)
        wait_for(lambda: not (folder / "cgroup.procs").read_text().strip(), "the group to be empty")
        folder.rmdir()
        while upper != base:
            # One that was there before has others in it, or is left as systemd made it.
            with contextlib.suppress(OSError):
                upper.rmdir()
            upper = upper.parent

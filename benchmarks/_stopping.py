# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trainers that are hard to stop, and two ways to stop them: ours, and the runbook's ``pkill -f "train.py"``.

Each case runs in a PID and mount namespace of its own, so that a pkill hits nothing else and nothing is left behind.
The trainers are those of the unit tests; what would be theirs is looked at in /proc afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Callable, Dict, Iterator, List, Optional, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "playbooks/collections")]

from ansible_collections.ringrift.recovery.plugins.module_utils import _process_stop  # noqa: E402
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import look  # noqa: E402

from tests.unit.training_processes import ARGUMENTS, HEX8, Tree, wait_for  # noqa: E402

OURS = "ours"
PKILL = "pkill"
MODULE = "python -m app.training.train"
SCRIPT = "python app/training/train.py"
FORMS = {MODULE: ["-m", "app.training.train"], SCRIPT: ["app/training/train.py"]}

STOPPED = "stopped"
UNKILLABLE = "unkillable"
IN_DOUBT = "in doubt"

GRACE = 1.0
KILL_WAIT = 2.0
# Three rounds of grace and waiting for SIGKILL, for trainers, launchers and workers, are never needed here.
BOUND = 15.0
TIMEOUT = 40.0
FREEZER = pathlib.Path("/sys/fs/cgroup/freezer")
NOBODY = 65534


@dataclass(frozen=True)
class Outcome:
    """What was left. ``harmed`` names what has nothing to do with the training and was ended too."""

    case: str
    method: str
    form: str
    seconds: float
    left: int
    survivors: List[List[object]]
    message: Optional[str]
    harmed: List[str]
    skipped: Optional[str] = None

    @property
    def verdict(self) -> str:
        """What the way of stopping can say of it."""
        if any(unkillable for _pid, _state, _wchan, unkillable in self.survivors):
            return UNKILLABLE
        return IN_DOUBT if self.message else STOPPED if not self.left else "left running"


class Scene:
    """Where the trainers of a case are started."""

    def __init__(self, tree: Tree, form: str, freezer: pathlib.Path) -> None:
        self.tree = tree
        self.form = form
        self.freezer = freezer

    def argv(self, *arguments: str) -> List[str]:
        return [sys.executable, "-S", *FORMS[self.form], *(arguments or ARGUMENTS)]

    def train(self, mode: str = "", *before: str) -> subprocess.Popen:
        return self.tree.run([*before, *self.argv()], mode)

    def title(self, mode: str) -> None:
        """A title needs room: the kernel shows as much as the arguments took."""
        self.tree.run(self.argv("--epochs", "0" * 200, *ARGUMENTS), mode)


def obeys(scene: Scene) -> None:
    scene.train()


def ignores(scene: Scene) -> None:
    scene.train("ignore")


def stopped(scene: Scene) -> None:
    started = scene.train("stop")
    wait_for(lambda: scene.tree.state(started.pid) == "T")


def leaderless(scene: Scene) -> None:
    started = scene.train("leaderless")
    wait_for(lambda: scene.tree.state(started.pid) == "Z")


def double_forked(scene: Scene) -> None:
    scene.train("", "sh", "-c", '("$@" &) ; exit 0', "sh")


def respawned(scene: Scene) -> None:
    argv = [sys.executable, "-S", "bin/torchrun", "--nproc=1", *FORMS[scene.form], *ARGUMENTS]
    scene.tree.run(argv)


def titled(scene: Scene) -> None:
    scene.title(f"title=python+{'+'.join(FORMS[scene.form])}+--board-type+hex8+--num-players+2+[epoch+3]")


def hidden_title(scene: Scene) -> None:
    scene.title("workers=1 title=ringrift:+training+hex8_2p")


def hidden_alone(scene: Scene) -> None:
    scene.title("title=ringrift:+training+hex8_2p")


def many_workers(scene: Scene) -> None:
    scene.train("workers=200 orphans")
    wait_for(lambda: len(scene.tree.pids()) >= 201)


def long_line(scene: Scene) -> None:
    words = [f"--option-{number}={'x' * 1000}" for number in range(64)]
    scene.tree.run(scene.argv(*words, *ARGUMENTS))


def another_user(scene: Scene) -> None:
    scene.train(f"uid={NOBODY}")


def in_container(scene: Scene) -> None:
    scene.train("", "unshare", "--pid", "--fork", "--mount-proc")


def vfork(scene: Scene) -> None:
    started = scene.train("blocked")
    wait_for(lambda: scene.tree.state(started.pid) == "D")


def dead_mount(scene: Scene) -> None:
    place = scene.tree.root / "mount"
    place.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-S", str(ROOT / "benchmarks/_dead_mount.py"), str(place)], stdout=subprocess.PIPE, cwd="/"
    )
    scene.tree.hear(server, b"ready\n")
    scene.train(f"read={place / 'file'}")
    scene.tree.hear(server, b"read\n")


def frozen(scene: Scene) -> None:
    started = scene.train()
    (scene.freezer / "cgroup.procs").write_text(str(started.pid))
    (scene.freezer / "freezer.state").write_text("FROZEN")
    wait_for(lambda: scene.tree.state(started.pid) == "D")


@dataclass(frozen=True)
class Case:
    """A trainer. ``expected`` is what ours must say of it, ``needs`` a path without which it cannot be made."""

    name: str
    start: Callable[[Scene], None]
    expected: str = STOPPED
    needs: Optional[str] = None


CASES: Tuple[Case, ...] = (
    Case("obeys SIGTERM", obeys),
    Case("ignores SIGTERM", ignores),
    Case("stopped (T)", stopped),
    Case("zombie with live threads", leaderless),
    Case("double-forked, re-parented to init", double_forked),
    Case("started again by its launcher (torchrun)", respawned),
    Case("renamed by setproctitle, command line kept in the title", titled),
    Case("renamed by setproctitle, with a worker from before", hidden_title),
    Case("renamed by setproctitle, nothing else to know it by", hidden_alone, IN_DOUBT),
    Case("200 workers that outlive it", many_workers),
    Case("64 KB command line", long_line),
    Case("another user's", another_user),
    Case("first process of a container's PID namespace", in_container),
    Case("D state that SIGKILL ends (vfork)", vfork),
    Case("D state: reads from a dead FUSE mount", dead_mount, UNKILLABLE, "/dev/fuse"),
    Case("D state: frozen control group (v1)", frozen, UNKILLABLE, str(FREEZER / "cgroup.procs")),
)
BY_NAME: Dict[str, Case] = {case.name: case for case in CASES}


def available() -> Optional[str]:
    """Why no case can run here; None when they can."""
    if os.geteuid() != 0:
        return "only root can make a PID namespace"
    if shutil.which("unshare") is None or shutil.which("pkill") is None:
        return "unshare or pkill is not installed"
    done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else f"no PID namespace: {done.stderr.decode(errors='replace').strip()}"


def run_case(case: Case, method: str, form: str = MODULE) -> Outcome:
    """Run one case in a namespace of its own."""
    if case.needs and not os.path.exists(case.needs):
        return Outcome(case.name, method, form, 0.0, 0, [], None, [], f"{case.needs} is not there")
    root = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-stopping-"))
    freezer = FREEZER / root.name
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, __file__, "--inside"]
    command += [case.name, method, form, str(root), str(freezer)]
    try:
        if case.start is frozen:
            freezer.mkdir()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=ROOT)
        try:
            line = process.stdout.readline()
        finally:
            # A frozen process would keep its namespace, and that its parent, for ever.
            _thaw(freezer)
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
    finally:
        _remove(freezer)
        shutil.rmtree(root, ignore_errors=True)
    if not line.startswith("{"):
        raise RuntimeError(f"{case.name}, {method}: no outcome; {line!r}")
    return Outcome(**json.loads(line))


def _thaw(freezer: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        (freezer / "freezer.state").write_text("THAWED")


def _remove(freezer: pathlib.Path) -> None:
    deadline = time.monotonic() + 5
    while freezer.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            freezer.rmdir()
        time.sleep(0.05)


@contextlib.contextmanager
def bystanders(scene: Scene) -> Iterator[Dict[str, int]]:
    """What must live on: an editor's like, a shell that speaks of trainers, a trainer of another config."""
    train = str(scene.tree.root / "app/training/train.py")
    shell = f"sleep 60; : python -m app.training.train {' '.join(ARGUMENTS)}; : train.py"
    found = {
        "`tail -f train.py`": scene.tree.run(["tail", "-f", train], ready=False),
        "a shell that names it": scene.tree.run(["bash", "-c", shell], ready=False),
        "the trainer of another config": scene.tree.run(scene.argv("--board-type", "hex8", "--num-players", "4")),
    }
    wait_for(lambda: len(scene.tree.pids()) == len(found) + 1, "the child of the shell")
    yield {name: process.pid for name, process in found.items()}


def stop_ours(scene: Scene) -> Tuple[List[List[object]], Optional[str], List[str]]:
    """Ours, as the module does it."""

    def find():
        return look(HEX8, None, (), str(scene.tree.root)).processes

    result = _process_stop.stop(find(), GRACE, KILL_WAIT, find)
    message = _process_stop.failure(HEX8.name, result, look(HEX8, None, (), str(scene.tree.root)))
    return [[one.process.pid, one.state, one.wchan, one.unkillable] for one in result.survivors], message, []


def stop_pkill(scene: Scene) -> Tuple[List[List[object]], Optional[str], List[str]]:
    """The runbook's line, as ssh runs it on the node, and as long as ours may take."""
    del scene
    done = subprocess.run(["bash", "-c", 'pkill -f "train.py" || true'], check=False, cwd="/", timeout=TIMEOUT)
    time.sleep(GRACE + KILL_WAIT)
    return [], None, ["its own shell"] if done.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM) else []


def inside(case: Case, method: str, form: str, root: str, freezer: str) -> Outcome:
    """The case itself, as the first process of its namespace."""
    os.chmod(root, 0o755)
    scene = Scene(Tree(pathlib.Path(root) / "service"), form, pathlib.Path(freezer))
    with bystanders(scene) as others:
        before = scene.tree.pids()
        case.start(scene)
        begun = time.monotonic()
        survivors, message, harmed = {OURS: stop_ours, PKILL: stop_pkill}[method](scene)
        seconds = time.monotonic() - begun
        alive = scene.tree.pids()
        harmed += [name for name, pid in others.items() if pid not in alive]
        left = [pid for pid in alive if pid not in before]
    return Outcome(case.name, method, form, round(seconds, 2), len(left), survivors, message, harmed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inside", nargs=5, required=True)
    name, method, form, root, freezer = parser.parse_args().inside
    print(json.dumps(asdict(inside(BY_NAME[name], method, form, root, freezer))), flush=True)
    # What was started ends with the namespace.
    os._exit(0)


if __name__ == "__main__":
    main()

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself, with both drivers: up, status, ssh, every fault, down, and nothing left behind."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

import pytest

from lab import cluster, operation, training
from lab.errors import LabError
from lab.instance import Instance, instance_id, load, mounts
from lab.nodes import driver_of, network
from lab.nodes.base import Driver
from lab.nodes.local import carries, inside
from lab.nodes.netns import NetnsDriver
from lab.processes import pids, read, wait_until
from lab.snapshot import TRAINING, VOLATILE, difference, snapshot

pytestmark = pytest.mark.lab

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = "hex8_2p"


def new_directory() -> pathlib.Path:
    """Overlays need a real file system, which pytest's own directory need not be on."""
    return pathlib.Path(tempfile.mkdtemp(prefix="ringrift-lab-test-", dir="/var/tmp"))


def permitted(driver: str) -> None:
    """Skip, with the reason, where this machine does not let the driver work."""
    if driver == "netns":
        directory = new_directory()
        try:
            NetnsDriver(Instance(directory, driver)).check()
        except LabError as exc:
            pytest.skip(str(exc))
        finally:
            shutil.rmtree(directory)


def lab(directory: pathlib.Path, *words: str, timeout: float = 120) -> subprocess.CompletedProcess:
    """Run the lab's command line as a person would."""
    argv = [sys.executable, "-m", "lab", words[0], "--dir", str(directory), *words[1:]]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
    )


def good(directory: pathlib.Path, *words: str) -> str:
    done = lab(directory, *words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def leftovers(directory: pathlib.Path) -> list:
    """Everything on this machine that still belongs to the lab of a directory."""
    name = instance_id(directory)
    found = [f"namespace {space}" for space in network.spaces(name)]
    found += [f"link {link}" for link in os.listdir("/sys/class/net") if name in link]
    found += [f"mount {mount}" for mount in mounts() if mount.startswith(f"{directory}/")]
    for pid in pids():
        process = read(pid)
        if process is not None and process.state not in "ZX" and (carries(pid, directory) or inside(pid, directory)):
            found.append(f"process {pid}: {' '.join(process.argv)}")
    if directory.exists():
        found.append(f"directory {directory}")
    return found


ONLY_NETNS = pytest.mark.parametrize("running", ["netns"], indirect=True)
ONLY_LOCAL = pytest.mark.parametrize("running", ["local"], indirect=True)


class Running:
    """A lab that is up, and what the tests ask it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.instance: Instance = cluster.running(directory)
        self.driver: Driver = driver_of(self.instance)

    def heal(self) -> training.Trainer:
        """One trainer that makes progress, whatever the test before has left."""
        for found in training.find(self.instance, self.driver):
            if found.process.state in "Tt":
                good(self.directory, "mend", "hang")
        if not training.find(self.instance, self.driver):
            operation.train(self.instance, self.driver)
        return training.find(self.instance, self.driver)[0]

    def status(self) -> dict:
        return json.loads(good(self.directory, "status", "--json"))

    def node_status(self, name: str) -> dict:
        return next(node for node in self.status()["nodes"] if node["name"] == name)


# As root the other driver is for `make soak`: test_demo.py uses it all the same, as an ordinary user.
DRIVERS = ["netns", "local"] if os.geteuid() or "SOAK" in os.environ else ["netns"]


@pytest.fixture(scope="module", params=DRIVERS)
def running(request):
    permitted(request.param)
    directory = new_directory()
    try:
        begun = time.monotonic()
        good(directory, "up", "--nodes", "3", "--driver", request.param)
        assert time.monotonic() - begun < 30
        yield Running(directory)
    finally:
        good(directory, "down")
        assert leftovers(directory) == []


# A lab that is up


def test_the_status_shows_a_healthy_cluster_that_trains(running):
    running.heal()
    status = running.status()
    assert status["phase"] == "up"
    nodes = {node["name"]: node for node in status["nodes"]}
    assert list(nodes) == ["coordinator-1", "nebius-h100-3", "runpod-h100", "lambda-gh200-b-new"]
    assert all(node["up"] and node["orchestrator_healthy"] and node["ssh"] is not False for node in nodes.values())
    trains = [node for node in nodes.values() if node["trainer_pid"]]
    assert len(trains) == 1
    assert trains[0]["epoch"] >= 2
    assert trains[0]["checkpoints"] >= 2
    assert trains[0]["last_trainer_pid"] == trains[0]["trainer_pid"]
    assert all(node["gpu"] for node in nodes.values() if node["name"] != "coordinator-1")
    table = good(running.directory, "status")
    assert all(name in table for name in nodes)


def test_every_node_has_what_training_needs(running):
    for node in running.instance.nodes:
        service = running.driver.service(node)
        for path in (f"data/games/{CONFIG}.db", f"data/training/{CONFIG}.npz", f"models/canonical_{CONFIG}.pth"):
            assert (service / path).stat().st_size > 0, (node.name, path)


def test_a_second_up_does_nothing_and_one_with_other_parameters_is_refused(running):
    before = running.status()
    assert "already up" in good(running.directory, "up")
    assert "already up" in good(running.directory, "up", "--nodes", "3", "--config", CONFIG)
    for words in (["--nodes", "4"], ["--config", "square8_2p"], ["--api", "runbook"], ["--no-training"]):
        refused = lab(running.directory, "up", *words)
        assert refused.returncode == 1
        assert "down" in refused.stderr
    pids_before, pids_after = (
        [node["orchestrator_pid"] for node in status["nodes"]] for status in (before, running.status())
    )
    assert pids_before == pids_after


def test_ssh_runs_a_command_on_the_node_and_hands_its_status_on(running):
    for node in running.instance.nodes:
        done = lab(running.directory, "ssh", node.name, "echo $RINGRIFT_NODE_ID; cd ~ && pwd; exit 7")
        assert done.returncode == 7
        assert done.stdout.split() == [node.name, node.home]
    done = lab(running.directory, "ssh", "absent", "true")
    assert done.returncode == 1
    assert "runpod-h100" in done.stderr


def test_the_directory_may_stand_behind_the_node(running):
    argv = [sys.executable, "-m", "lab", "ssh", "coordinator-1", "--dir", str(running.directory), "echo", "--dir"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "--dir"


def test_ansible_reaches_every_node(running):
    inventory = good(running.directory, "inventory").strip()
    ansible = pathlib.Path(sys.executable).with_name("ansible")
    if not ansible.exists():
        pytest.skip("ansible is not installed")
    argv = [str(ansible), "-i", inventory, "all", "-o", "-m", "ansible.builtin.stat", "-a",
            "path={{ ringrift_service_path }}/venv/bin/python"]  # fmt: skip
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"exists": true') == 4


def test_the_orchestrators_know_their_leader(running):
    for node in running.instance.nodes:
        assert operation.ask(f"{running.driver.url(node)}/status")["leader_id"] == "coordinator-1"


@ONLY_NETNS
def test_namespaced_nodes_are_machines_of_their_own(running):
    one, other = running.instance.training_nodes[:2]
    assert good(running.directory, "ssh", one.name, "hostname").strip() == one.name
    good(running.directory, "ssh", one.name, "touch /tmp/mine /root/mine /etc/mine")
    assert lab(running.directory, "ssh", other.name, "ls /tmp/mine /root/mine /etc/mine").stdout == ""
    assert not pathlib.Path("/etc/mine").exists()
    listing = good(
        running.directory, "ssh", other.name, "cat /proc/1/cmdline | tr '\\0' ' '; ls -d /proc/[0-9]* | wc -l"
    )
    assert "node-init" in listing
    assert int(listing.split()[-1]) < 20
    assert good(running.directory, "ssh", "coordinator-1", f"ssh {other.name} hostname").strip() == other.name
    good(running.directory, "ssh", one.name, "rm /root/mine /etc/mine")


@ONLY_NETNS
def test_orphans_of_a_namespaced_node_are_buried(running):
    node = running.instance.training_nodes[1]
    good(running.directory, "ssh", node.name, "(sleep 0.1 &) ; (sleep 0.1 &)")
    assert wait_until(lambda: not [p for p in running.driver.processes(node) if p.state == "Z" or "sleep" in p.argv], 5)


def test_two_labs_live_side_by_side(running):
    directory = new_directory()
    try:
        good(directory, "up", "--nodes", "1", "--driver", running.instance.driver, "--no-training")
        other = cluster.running(directory)
        assert other.id != running.instance.id
        assert running.driver.url(running.instance.coordinator) != driver_of(other).url(other.coordinator)
        assert len(json.loads(good(directory, "status", "--json"))["nodes"]) == 2
    finally:
        good(directory, "down")
    assert leftovers(directory) == []
    assert all(node["up"] for node in running.status()["nodes"])


# Faults


def test_an_unknown_fault_is_refused_with_the_known_ones(running):
    done = lab(running.directory, "break", "nonsense")
    assert done.returncode == 2
    assert "Faults: bad-data, checkpoint, " in done.stderr


def test_kill_leaves_no_trainer_and_no_work(running):
    trainer = running.heal()
    line = good(running.directory, "break", "kill")
    assert str(trainer.process.pid) in line
    assert trainer.node.name in line
    assert training.find(running.instance, running.driver) == []
    assert operation.open_work(running.instance, running.driver) == []
    again = lab(running.directory, "break", "kill")
    assert again.returncode == 1
    assert "No trainer" in again.stderr


def test_hang_stops_the_trainer_and_all_it_started(running):
    trainer = running.heal()
    good(running.directory, "break", "hang")
    found = training.find(running.instance, running.driver)[0]
    assert [process.state for process in found.family] == ["T"] * (1 + len(trainer.workers))
    assert running.node_status(trainer.node.name)["trainer_state"] == "T"
    good(running.directory, "mend", "hang")
    epoch = running.node_status(trainer.node.name)["epoch"]
    assert wait_until(lambda: running.node_status(trainer.node.name)["epoch"] > epoch, 20, 0.2)


def test_lock_is_held_by_a_worker_whose_trainer_is_dead(running):
    trainer = running.heal()
    good(running.directory, "break", "lock")
    processes = {process.pid: process for process in running.driver.processes(trainer.node)}
    assert trainer.process.pid not in processes
    assert processes[trainer.workers[0].pid].state == "T"
    lock = running.driver.service(trainer.node, f"data/locks/training_{CONFIG}.lock")
    assert f":{trainer.process.pid}:" in lock.read_text().splitlines()[0]
    taken = lab(
        running.directory, "ssh", trainer.node.name, f"flock -n {trainer.node.service}/data/locks/{lock.name} true"
    )
    assert taken.returncode == 1
    assert training.find(running.instance, running.driver) == []
    # So that the tests after this one can train.
    assert running.driver.processes(trainer.node)
    worker = processes[trainer.workers[0].pid].mark.pid
    os.kill(worker, signal.SIGKILL)
    assert wait_until(lambda: read(worker) is None or read(worker).state in "ZX", 20, 0.05)


def test_checkpoint_has_one_byte_that_its_crc_contradicts(running):
    node = running.heal().node
    good(running.directory, "break", "kill", "checkpoint")
    newest = training.checkpoints(running.driver, node)[0]
    with zipfile.ZipFile(newest) as archive:
        assert "/data/" in archive.testzip()
    for path in training.checkpoints(running.driver, node)[1:]:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None, path
    newest.unlink()


def test_oom_says_so_in_the_log_and_leaves_no_trainer(running):
    trainer = running.heal()
    log = running.driver.service(trainer.node, "logs/training.log")
    begin = log.stat().st_size
    good(running.directory, "break", "oom")
    text = log.read_bytes()[begin:].decode()
    assert "CUDA error in batch 0: CUDA out of memory" in text
    assert "Training circuit OPEN" in text
    assert training.find(running.instance, running.driver) == []


def test_the_orchestrator_is_gone_and_comes_back(running):
    trainer = running.heal()
    good(running.directory, "break", "orchestrator")
    assert running.node_status("coordinator-1")["orchestrator_pid"] is None
    assert operation.health(running.driver, running.instance.coordinator) is None
    assert training.find(running.instance, running.driver)[0].process.pid == trainer.process.pid
    assert lab(running.directory, "break", "orchestrator").returncode == 1
    good(running.directory, "mend", "orchestrator")
    assert running.node_status("coordinator-1")["orchestrator_healthy"]


def records(running) -> list:
    url = running.driver.url(running.instance.coordinator)
    return operation.ask(f"{url}/training/status")["jobs"]


@pytest.mark.parametrize(("fault", "state"), [("stale-record", "running"), ("cooldown", "completed")])
def test_the_leader_remembers_a_job_that_nobody_runs(running, fault, state):
    running.heal()
    line = good(running.directory, "break", fault)
    assert training.find(running.instance, running.driver) == []
    newest = max(records(running), key=lambda record: record["created_at"])
    assert newest["status"] == state
    assert newest["job_id"] in line
    assert f"{newest['board_type']}_{newest['num_players']}p" == CONFIG


def test_events_lose_their_subscribers_and_get_them_back(running):
    def count() -> int:
        url = running.driver.url(running.instance.coordinator)
        entry = operation.ask(f"{url}/subscriptions")["all_subscriptions"].get("TRAINING_COMPLETED", {})
        return entry.get("count", 0)

    assert count() > 0
    good(running.directory, "break", "events")
    assert count() == 0
    good(running.directory, "mend", "events")
    assert count() > 0


@ONLY_NETNS
def test_an_unreachable_node_is_off_the_network_and_runs_on(running):
    node = running.instance.training_nodes[2]
    good(running.directory, "break", "unreachable", node.name)
    status = running.node_status(node.name)
    assert status["up"] is True
    assert status["ssh"] is False
    assert status["orchestrator_pid"] is not None
    assert status["orchestrator_healthy"] is False
    good(running.directory, "mend", "unreachable", node.name)
    assert good(running.directory, "ssh", node.name, "hostname").strip() == node.name


@ONLY_NETNS
def test_a_full_disk_takes_no_byte_and_has_room_again(running):
    node = running.heal().node
    good(running.directory, "break", "kill", "disk")
    folder = f"{node.service}/checkpoints"
    assert "No space left" in lab(running.directory, "ssh", node.name, f"echo x >{folder}/new").stderr
    assert good(running.directory, "ssh", node.name, f"ls {folder} | grep -c checkpoint_epoch").strip() != "0"
    good(running.directory, "mend", "disk")
    good(running.directory, "ssh", node.name, f"echo x >{folder}/new && rm {folder}/new")


@ONLY_LOCAL
@pytest.mark.parametrize("fault", ["unreachable", "disk"])
def test_what_directories_cannot_have_is_refused(running, fault):
    running.heal()
    done = lab(running.directory, "break", fault, "nebius-h100-3")
    assert done.returncode == 1
    assert "--driver netns" in done.stderr


@pytest.mark.parametrize("fault", ["wedge", "lost", "hung-gpu", "sick", "leak", "no-driver", "throttle"])
def test_a_gpu_breaks_and_is_mended(running, fault):
    name = "runpod-h100"
    before = running.node_status(name)["gpu"]
    good(running.directory, "break", fault, name)
    broken = running.node_status(name)["gpu"]
    assert broken != before
    good(running.directory, "mend", fault, name)
    assert running.node_status(name)["gpu"] == before


def test_a_snapshot_is_fast_and_sees_nothing_where_nothing_happens(running):
    running.heal()
    # The last destructive fault of this file: nothing heals the data.
    good(running.directory, "break", "kill", "data")
    begun = time.monotonic()
    before = snapshot(running.instance)
    assert time.monotonic() - begun < 2
    assert {f"ringrift/ai-service/data/training/{CONFIG}.npz"} < set(before["coordinator-1"]["files"])
    time.sleep(1)
    assert difference(before, snapshot(running.instance)) == []
    good(running.directory, "ssh", "runpod-h100", "touch ~/left")
    after = snapshot(running.instance, (*VOLATILE, *TRAINING))
    assert "runpod-h100: left was created" in difference(before, after)


# Beginnings and ends


@pytest.mark.parametrize("driver", ["netns", "local"])
@pytest.mark.parametrize("after", [0.1, 0.7])
def test_down_clears_away_what_a_killed_up_has_left(driver, after):
    permitted(driver)
    directory = new_directory()
    argv = [sys.executable, "-m", "lab", "up", "--nodes", "2", "--driver", driver, "--dir", str(directory)]
    up = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(after)
    finally:
        up.kill()
        up.wait(10)
    good(directory, "down")
    assert leftovers(directory) == []


@pytest.mark.parametrize("driver", ["netns", "local"])
def test_an_up_that_is_told_to_end_takes_down_what_it_has_built(driver):
    permitted(driver)
    directory = new_directory()
    argv = [sys.executable, "-m", "lab", "up", "--nodes", "2", "--driver", driver, "--dir", str(directory)]
    up = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert "in place" in up.stdout.readline()
        up.terminate()
        assert up.wait(60) == 128 + signal.SIGTERM
    finally:
        up.kill()
        up.communicate()
    assert leftovers(directory) == []


def test_up_rebuilds_a_lab_that_was_lost_with_the_machine():
    directory = new_directory()
    try:
        good(directory, "up", "--nodes", "1", "--driver", "local", "--no-training")
        instance = load(directory)
        instance.boot = "another"
        instance.save()
        assert lab(directory, "status").returncode == 1
        assert "clearing it away" in good(directory, "up", "--nodes", "1", "--driver", "local", "--no-training")
        good(directory, "status")
    finally:
        good(directory, "down")
    assert leftovers(directory) == []


def test_down_needs_no_readable_state():
    directory = new_directory()
    good(directory, "up", "--nodes", "1", "--driver", "local", "--no-training")
    (directory / "instance.json").write_text("garbage")
    assert lab(directory, "status").returncode == 1
    good(directory, "down")
    assert leftovers(directory) == []


def test_down_twice_is_no_error():
    directory = new_directory()
    good(directory, "down")
    assert "No lab" in good(directory, "down")


def test_down_touches_no_directory_that_is_not_the_labs(tmp_path):
    directory = tmp_path / "mine"
    directory.mkdir(mode=0o700)
    (directory / "precious").write_text("x")
    assert lab(directory, "down").returncode == 1
    assert lab(directory, "up", "--driver", "local").returncode == 1
    assert (directory / "precious").read_text() == "x"


def test_down_spares_the_shell_from_which_it_is_called():
    directory = new_directory()
    good(directory, "up", "--nodes", "1", "--driver", "local", "--no-training")
    script = (
        f"cd {directory} && PYTHONPATH={ROOT}:$PYTHONPATH {sys.executable} -m lab down --dir {directory}; echo alive"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split()[-1] == "alive"
    assert leftovers(directory) == []


def test_nothing_is_up_where_nothing_was_started(tmp_path):
    for words in (["status"], ["inventory"], ["break", "kill"], ["ssh", "coordinator-1"]):
        done = lab(tmp_path / "absent", *words)
        assert done.returncode == 1
        assert "lab up" in done.stderr


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["up", "--driver", "docker"], ["up", "--nodes", "x"], ["up", "--nodes", "0"],
              ["up", "--config", "hex8"], ["break"]],
)  # fmt: skip
def test_bad_usage_is_2(words, tmp_path):
    argv = [sys.executable, "-m", "lab", *words, *(["--dir", str(tmp_path / "x")] if words else [])]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr
    assert not (tmp_path / "x").exists()


def test_an_unknown_board_is_refused_and_leaves_nothing():
    directory = new_directory()
    done = lab(directory, "up", "--driver", "local", "--config", "chess_2p")
    assert done.returncode == 1
    assert "chess_2p" in done.stderr
    assert leftovers(directory) == []


def test_missing_tools_are_named_with_their_package(monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("the question comes up for root only")
    directory = new_directory()
    monkeypatch.setattr("shutil.which", lambda tool, path=None: None if tool in ("sshd", "rsync") else f"/bin/{tool}")
    try:
        with pytest.raises(LabError, match=r"rsync.*openssh-server"):
            NetnsDriver(Instance(directory, "netns")).check()
    finally:
        directory.rmdir()


@pytest.mark.parametrize("capability", ["sys_admin", "net_admin"])
def test_a_machine_that_permits_no_nodes_is_told_so(capability):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("root and setpriv are needed to give up a capability")
    directory = new_directory()
    drop = ["setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}"]
    argv = [*drop, sys.executable, "-m", "lab", "up", "--driver", "netns", "--dir", str(directory)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "does not let the netns driver" in done.stderr
    assert "--driver local" in done.stderr
    assert leftovers(directory) == []


def unprivileged() -> list:
    """A command prefix that gives up root, or nothing where there is none to give up."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is needed to become an ordinary user")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def test_an_ordinary_user_has_a_lab_too():
    import numpy

    directory = new_directory()
    home = new_directory()
    packages = pathlib.Path(numpy.__file__).parents[1]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = unprivileged()
    python = sys.executable if not prefix else f"/usr/bin/{version}"
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{packages}"}
    if prefix:
        for path in (directory, home):
            os.chown(path, 65534, 65534)

    def run(*words: str) -> subprocess.CompletedProcess:
        argv = [*prefix, python, "-m", "lab", words[0], "--dir", str(directory), *words[1:]]
        return subprocess.run(argv, cwd="/", env=env, capture_output=True, text=True, timeout=120, check=False)

    missing = None
    try:
        probe = [*prefix, python, "-c", "import numpy, lab"]
        if subprocess.run(probe, cwd="/", env=env, capture_output=True, timeout=60, check=False).returncode:
            missing = "an ordinary user cannot read the checkout and its packages"
    except OSError as exc:
        missing = f"no Python for an ordinary user: {exc}"
    if missing:
        directory.rmdir()
        home.rmdir()
        pytest.skip(missing)
    try:
        refused = run("up", "--driver", "netns", "--nodes", "1")
        assert refused.returncode == 1
        assert "needs root" in refused.stderr
        assert not directory.exists()
        directory.mkdir(mode=0o700)
        if prefix:
            os.chown(directory, 65534, 65534)
        done = run("up", "--nodes", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        status = json.loads(run("status", "--json").stdout)
        assert status["driver"] == "local"
        assert status["nodes"][1]["epoch"] >= 2
        assert run("break", "kill", "checkpoint", "data").returncode == 0
    finally:
        ended = run("down")
        shutil.rmtree(home)
    assert ended.returncode == 0, ended.stderr
    assert leftovers(directory) == []

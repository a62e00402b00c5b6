# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch as Ansible runs it: on a node of its own, with the modules that look, at a real process and a real log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import find_trainers
from ansible_collections.ringrift.recovery.plugins.module_utils._watch import ARGUMENT_SPEC
from ansible_collections.ringrift.recovery.plugins.modules import watch_training

from tests.unit.ansible_tasks import JSON, run_tasks

KEYS = set(yaml.safe_load(watch_training.RETURN)) - {"msg"}
EPOCH = "INFO:app.training.train:Epoch [{}/50], Train Loss: 0.8123, Val Loss: 0.9001\n"


class Service:
    """A service directory, a process with a trainer's arguments, and the log that it would write."""

    def __init__(self, path):
        self.path = path
        self.process = None
        for name in ("app/training", "logs", "checkpoints", "coordination"):
            (path / name).mkdir(parents=True)
        (path / "app/training/train.py").write_text("import time\ntime.sleep(300)\n")

    def start(self):
        argv = [sys.executable, "-m", "app.training.train", "--board-type", "hex8", "--num-players", "2"]
        with open(self.path / "logs/training.log", "w") as log:
            self.process = subprocess.Popen(argv, cwd=self.path, stdout=log, stderr=log)
        end = time.monotonic() + 10
        while self.process.pid not in [found.pid for found in find_trainers(None, str(self.path))]:
            assert time.monotonic() < end
            time.sleep(0.02)

    def epoch(self, number):
        with open(self.path / "logs/training.log", "a") as log:
            log.write(EPOCH.format(number))

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path / "ai-service")
    yield made
    made.stop()


@pytest.fixture
def watch(tmp_path, service):
    """Run one task; its result, and all that was printed."""

    def run(*arguments, python=sys.executable, callback=JSON, task=None, **options):
        path = str(service.path)
        options = {"config": "hex8_2p", "service_path": path, "within": path, "interval": 0.2, "gpu": False, **options}
        options.setdefault("coordination_dir", f"{path}/coordination")
        the_task = {"ringrift.recovery.watch_training": options, **(task or {})}
        results, printed = run_tasks(tmp_path, [the_task], *arguments, python=python, callback=callback)
        return (results or [None])[0], printed

    return run


class Looks:
    """An interpreter that counts its runs, so that a test acts after a look and not after a time."""

    def __init__(self, folder):
        self.count = folder / "looks"
        self.python = folder / "counting-python"
        self.python.write_text(f'#!/bin/sh\necho >> {self.count}\nexec {sys.executable} "$@"\n')
        self.python.chmod(0o755)

    def then(self, *acts):
        """Do each of these in turn, once a look that had begun before has ended."""

        def work():
            for act in acts:
                seen = self.seen()
                end = time.monotonic() + 40
                while self.seen() < seen + 2 and time.monotonic() < end:
                    time.sleep(0.05)
                act()

        threading.Thread(target=work, daemon=True).start()

    def seen(self):
        return len(self.count.read_text().splitlines()) if self.count.exists() else 0


def test_progress_is_shown_and_proven(service, watch, tmp_path):
    service.start()
    service.epoch(3)
    looks = Looks(tmp_path)
    looks.then(lambda: service.epoch(4))
    result, printed = watch(timeout=30, python=looks.python)
    assert (result["outcome"], result["progressed"], result["changed"]) == ("proven", True, False)
    assert KEYS - set(result) == set()
    assert result["last"]["epoch"] == 4
    assert result["proof"][0]["source"] == "log"
    assert (result["cursor"]["log_epoch"], result["running"]) == (3, True)
    first, *_between, last = result["lines"]
    assert "epoch 3/50  loss 0.8123 (val 0.9001)" in first
    assert "epoch 4/50" in last
    assert "progress is proven" in last
    # One line for each change, and not one for each look; and none that spoils the JSON.
    assert len(result["lines"]) <= 3
    assert "node  hex8_2p" not in printed.split('"lines"')[0]


def test_lines_are_printed_for_people(service, watch):
    service.start()
    service.epoch(3)
    printed = watch(timeout=3, callback="ansible.builtin.default")[1]
    assert [line for line in printed.splitlines() if line.startswith("node  hex8_2p  epoch 3/50  loss 0.8123")]
    assert "\x1b" not in printed


def test_a_trainer_that_is_gone_ends_the_watch(service, watch):
    result, _printed = watch(timeout=30)
    assert (result["outcome"], result["progressed"], result["running"]) == ("ended", False, False)
    assert result["verdict"] == "not_running"


def test_follow_goes_on_until_the_trainer_ends(service, watch, tmp_path):
    service.start()
    service.epoch(3)
    looks = Looks(tmp_path)
    looks.then(lambda: service.epoch(4), service.stop)
    result, _printed = watch(timeout=30, follow=True, python=looks.python)
    assert (result["outcome"], result["progressed"], result["running"]) == ("ended", True, False)
    assert result["proof"]


def test_the_budget_is_kept_and_check_mode_looks_once(service, watch):
    service.start()
    result, _printed = watch(timeout=1.5)
    assert (result["outcome"], result["progressed"], result["verdict"]) == ("timeout", False, "starting")
    assert 1.5 <= result["seconds"] < 15
    result, _printed = watch("--check", timeout=600)
    assert (result["outcome"], len(result["lines"])) == (None, 1)
    assert "A real run would watch hex8_2p until an epoch" in result["msg"]
    assert KEYS - set(result) == set()


def test_a_node_that_hangs_counts_as_not_seen_and_is_seen_again(service, watch, tmp_path):
    """The second look hangs, the third one is answered again; what the second one started is gone."""
    service.start()
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
n=$(cat {tmp_path}/n 2>/dev/null || echo 0)
echo $((n + 1)) > {tmp_path}/n
[ "$n" != 1 ] || {{ echo $$ > {tmp_path}/hung; exec sleep 300; }}
[ "$n" -lt 3 ] || kill {service.process.pid}
exec {sys.executable} "$@"
"""
    )
    python.chmod(0o755)
    # As long as the slowest look may take on a busy machine; the fourth one begins after the third has been told.
    result, _printed = watch(timeout=50, look_timeout=8, python=python)
    assert result["outcome"] == "ended", result
    assert [line for line in result["lines"] if "not seen: the node did not answer within 8 s" in line]
    starting = [line for line in result["lines"] if "starting" in line]
    assert len(starting) == 2, result["lines"]
    subprocess.run(["kill", (tmp_path / "hung").read_text().strip()], check=False, capture_output=True)


def test_a_node_that_stays_away_is_unreachable_at_the_end(service, watch, tmp_path):
    service.start()
    python = tmp_path / "python"
    flag = tmp_path / "flag"
    python.write_text(f'#!/bin/sh\n[ -e {flag} ] && exit 7\ntouch {flag}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    # Long enough for a second look, however slow the machine is.
    result, _printed = watch(timeout=10, python=python)
    assert (result["outcome"], result["progressed"], result["verdict"]) == ("unreachable", False, "unknown")
    assert len([line for line in result["lines"] if "not seen" in line]) == 1
    assert "ringrift.recovery.training_progress failed on the node" in result["reason"]


def test_the_timeout_of_the_task_stays_in_force(service, watch):
    service.start()
    result, _printed = watch(timeout=50, task={"timeout": 3})
    assert result["failed"]
    assert "Timed out after 3 second" in result["msg"]


def test_gpus_that_cannot_be_seen_end_nothing(service, watch, tmp_path):
    service.start()
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    result, _printed = watch(timeout=1, gpu=True, nvidia_smi=str(tool))
    assert result["outcome"] == "timeout"
    assert "GPU ?" in result["lines"][0]


def test_bad_options_fail_at_once(tmp_path):
    bad = [
        ({"config": "hex8"}, "is not <board>_<players>p"),
        ({"interval": 0}, "interval is 0 s. It must be from 0.1 to 3600."),
        ({"begin": {"last": {}}}, "it has no cursor"),
        ({"begin": {"cursor": {"moon": 1}}}, "after is no cursor of an earlier look: it has moon"),
        ({"stall_after": 0}, "stall_after is 0 s"),
        ({"colour": "blue"}, "Unsupported parameters"),
    ]
    tasks = [
        {"ringrift.recovery.watch_training": {"config": "hex8_2p", "timeout": 30, **options}} for options, _words in bad
    ]
    begin = time.monotonic()
    for result, (options, words) in zip(run_tasks(tmp_path, tasks)[0], bad, strict=True):
        assert result["failed"], options
        assert words in result["msg"]
    assert time.monotonic() - begin < 30


def test_the_documentation_is_that_of_the_arguments():
    options = yaml.safe_load(watch_training.DOCUMENTATION)["options"]
    # The fragment documents it.
    documented = {**options, "config": {"type": "str", "required": True}}
    assert set(documented) == set(ARGUMENT_SPEC)
    for name, spec in ARGUMENT_SPEC.items():
        for key in ("type", "default", "elements", "required"):
            assert documented[name].get(key) == spec.get(key), (name, key)


def test_the_module_file_says_where_the_work_is_done(root):
    command = [sys.executable, "-m", "ansible_collections.ringrift.recovery.plugins.modules.watch_training"]
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"config": "hex8_2p"}})
    environment = {**os.environ, "PYTHONPATH": str(root / "playbooks" / "collections")}
    done = subprocess.run(command, input=arguments, env=environment, capture_output=True, text=True, timeout=30)
    answer = json.loads(done.stdout)
    assert (answer["failed"], "action plugin" in answer["msg"]) == (True, True)

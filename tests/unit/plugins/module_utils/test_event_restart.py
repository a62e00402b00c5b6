# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarting what wires the events: real processes, real HTTP, and a stand-in for systemctl where systemd owns them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _event_restart, _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._event_restart import (
    RestartFailed,
    RestartRequest,
    orphans,
    restart,
)

from tests.unit.p2p_servers import Scripted, free_port, wait_for
from tests.unit.training_processes import cgroup

DAEMONS = ("event_router", "feedback_loop", "data_pipeline")
LAUNCHER = """
import pathlib, sys, time
here = pathlib.Path("calls")
with here.open("a") as stream:
    stream.write(" ".join(sys.argv[1:]) + "\\n")
mode = pathlib.Path("mode").read_text().split()
if "--help" in sys.argv:
    print("usage: launch_daemons.py [--status] [--no-auto-restart]")
    print("  --restart DAEMON" if "restart" in mode else "  --auto-restart")
    sys.exit(3 if "badhelp" in mode else 0)
if "hang" in mode:
    time.sleep(60)
if "fail" in mode:
    print("no manager")
    sys.exit(4)
if "nothing" not in mode:
    pathlib.Path("mended").touch()
"""


class World:
    """A service of which each part obeys: an orchestrator, a health page, a launcher."""

    def __init__(self, root):
        self.root = root
        (root / "scripts").mkdir()
        (root / "scripts/launch_daemons.py").write_text(LAUNCHER)
        self.mode("")
        self.wired = self.up = True
        self.started = time.time() - 1000
        self.server = Scripted(
            {
                ("GET", "/subscriptions"): lambda body: self.subscriptions(),
                ("GET", "/status"): lambda body: self.status(),
                ("GET", "/health"): lambda body: (200, {"uptime_seconds": time.time() - self.started}),
                ("GET", "/admin/restart"): (405, "405: Method Not Allowed"),
                ("POST", "/admin/restart"): lambda body: self.again(),
            }
        )

    @property
    def mended(self):
        return (self.root / "mended").exists()

    def mode(self, text):
        (self.root / "mode").write_text(text)

    def calls(self):
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def subscriptions(self):
        count = 1 if self.wired or self.mended else 0
        names = ("TRAINING_STARTED", "TRAINING_COMPLETED")
        return 200, {"all_subscriptions": {name: {"count": count, "handlers": []} for name in names}}

    def status(self):
        state = "running" if self.up or self.mended else "stopped"
        return 200, {"running": True, "daemons": {name: {"state": state} for name in DAEMONS}}

    def again(self):
        def later():
            self.started = time.time()
            (self.root / "mended").touch()

        threading.Timer(0.3, later).start()
        return 200, {"success": True, "message": "Restart scheduled"}

    def restart(self, dry_run=False, **options):
        options = {"timeout": 5.0, "within": str(self.root), "python": sys.executable, **options}
        request = RestartRequest(str(self.root), self.server.url, self.server.url, **options)
        return restart(request, dry_run)

    def posts(self):
        return [path for path, _body in self.server.sent("POST")]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.server.close()


@pytest.fixture
def orphan(tmp_path):
    """Starts processes whose parent is process 1, as nohup and a logout leave them."""
    started = []

    def start(*words, cwd=tmp_path):
        code = "import os, time; open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'born'); time.sleep(60)"
        argv = [sys.executable, "-S", "-c", code, *words]
        subprocess.run(["setsid", "-f", *argv], cwd=cwd, check=True, stdin=subprocess.DEVNULL, timeout=10)
        wait_for(lambda: (cwd / "born").exists(), what="the orphan")
        pid = int((cwd / "born").read_text())
        (cwd / "born").unlink()
        started.append(pid)
        wait_for(lambda: _proc.read_stat(pid).ppid != os.getpid(), what="another parent")
        if _proc.read_stat(pid).ppid != 1:
            pytest.skip("orphans do not go to process 1 here")
        return pid

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)


def test_what_is_well_is_left_alone(world):
    for dry_run in (False, True):
        outcome = world.restart(dry_run)
        assert (outcome.changed, outcome.restarted, outcome.via, outcome.tried) == (False, False, None, ())
        assert outcome.diff()["before"] == outcome.diff()["after"]
    assert world.calls() == []
    assert world.posts() == []


@pytest.mark.parametrize("broken", ["wired", "up"])
def test_the_launcher_of_the_runbook_comes_first_and_a_second_run_does_nothing(world, broken):
    setattr(world, broken, False)
    world.mode("restart")
    predicted = world.restart(dry_run=True)
    assert (predicted.changed, predicted.via) == (True, "launcher")
    assert world.calls() == ["--help"]
    outcome = world.restart()
    assert world.calls()[-1] == "--restart EVENT_ROUTER FEEDBACK_LOOP DATA_PIPELINE"
    assert (outcome.via, outcome.restarted, outcome.after.good, outcome.before.good) == ("launcher", True, True, False)
    assert predicted.diff() == outcome.diff()
    assert [attempt.as_dict() for attempt in predicted.tried] == [attempt.as_dict() for attempt in outcome.tried]
    assert world.restart().changed is False
    assert world.posts() == []


def test_the_real_launcher_has_no_restart_so_the_orchestrator_is_asked(world):
    world.wired = False
    predicted = world.restart(dry_run=True)
    assert (predicted.via, world.posts()) == ("http", [])
    outcome = world.restart(token="t0ken", admin_token="adm1n")
    assert outcome.via == "http"
    assert [(attempt.via, attempt.done) for attempt in outcome.tried] == [
        ("launcher", False),
        ("unit", False),
        ("http", True),
    ]
    assert outcome.tried[0].reason == "scripts/launch_daemons.py has no --restart"
    assert world.calls() == ["--help"] * 2
    (headers,) = [headers for method, _path, headers, _body in world.server.seen if method == "POST"]
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["X-Admin-Token"] == "adm1n"
    assert "t0ken" not in repr(RestartRequest("/x", token="t0ken", admin_token="adm1n"))


def test_a_launcher_that_fails_makes_room_for_the_next_way(world):
    world.wired = False
    world.mode("restart fail")
    outcome = world.restart()
    assert (outcome.via, outcome.restarted) == ("http", True)
    assert outcome.tried[0].reason == "scripts/launch_daemons.py --restart failed with 4: no manager"


@pytest.mark.parametrize(
    ("mode", "reason"), [("restart fail", "failed with 4: no manager"), ("restart hang", "no answer within 1")]
)
def test_a_launcher_that_fails_alone_is_named_and_counts_as_a_change(world, mode, reason):
    world.wired = False
    world.mode(mode)
    with pytest.raises(RestartFailed, match=reason) as caught:
        world.restart(via="launcher", timeout=1.0)
    assert caught.value.outcome.changed
    assert not caught.value.outcome.restarted


@pytest.mark.parametrize("via", ["auto", "launcher", "unit", "http"])
def test_where_no_way_leads_all_that_was_tried_is_named(world, via):
    world.wired = False
    world.mode("badhelp")
    del world.server.answers["GET", "/admin/restart"]
    with pytest.raises(RestartFailed) as caught:
        world.restart(via=via)
    message = str(caught.value)
    assert "nobody listens to TRAINING_STARTED, TRAINING_COMPLETED" in message
    for word in ("launcher", "unit", "http") if via == "auto" else (via,):
        assert f"{word}: " in message
    assert not caught.value.outcome.changed
    assert world.posts() == []


def test_without_a_service_nothing_can_be_restarted(tmp_path):
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RestartFailed, match="does not exist.*does not answer: connection refused"):
        restart(RestartRequest(str(tmp_path), nobody, nobody, within=str(tmp_path)))


def test_what_is_not_proven_fails_with_the_evidence(world):
    world.wired = world.up = False
    world.mode("restart nothing")
    begun = time.monotonic()
    with pytest.raises(RestartFailed, match="after 1 s nobody listens.*event_router is stopped") as caught:
        world.restart(timeout=1.0)
    assert 0.9 < time.monotonic() - begun < 3
    assert caught.value.outcome.restarted
    assert caught.value.outcome.after.daemons.down == DAEMONS


def test_the_last_look_has_time_for_an_answer(world):
    """One that has none would say that nothing is known, of what was seen a moment before."""
    world.wired = world.up = False
    world.mode("restart nothing")
    quick = world.subscriptions
    world.subscriptions = lambda: time.sleep(0.2) or quick()
    with pytest.raises(RestartFailed, match="after 1 s nobody listens.*event_router is stopped"):
        world.restart(timeout=1.0)


def test_an_orchestrator_that_did_not_restart_is_no_proof(world):
    world.server.answers["POST", "/admin/restart"] = (200, {"success": True})
    with pytest.raises(RestartFailed, match="the orchestrator that answers was not restarted"):
        world.restart(via="http", force=True, timeout=1.0)
    world.server.answers["POST", "/admin/restart"] = lambda body: world.again()
    outcome = world.restart(via="http", force=True)
    assert (outcome.changed, outcome.after.good) == (True, True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"error": "unauthorized"}), "401: unauthorized; give token, and admin_token"),
        ((200, {"success": False, "error": "not now"}), "answered 200: not now"),
        ((500, "boom"), "answered 500: boom"),
        (b"\x00", "answered nothing"),
    ],
)
def test_a_refused_restart_is_named(world, answer, message):
    world.wired = False
    world.server.answers["POST", "/admin/restart"] = answer
    with pytest.raises(RestartFailed, match=message) as caught:
        world.restart(via="http")
    # What gave no whole answer may have begun.
    assert caught.value.outcome.changed is isinstance(answer, bytes)


def test_an_orchestrator_that_does_not_tell_is_not_restarted_for_nothing(world):
    del world.server.answers["GET", "/subscriptions"]
    world.mode("restart")
    with pytest.raises(RestartFailed, match="has no /subscriptions.*force: true"):
        world.restart()
    assert world.calls() == []
    world.up = False
    outcome = world.restart(force=True)
    assert (outcome.via, outcome.after.daemons.up, outcome.after.wiring.verdict) == ("launcher", True, "unknown")


def test_what_trains_under_process_1_is_never_ended_unasked(world, orphan):
    world.wired = False
    pid = orphan("app.training.train", "--board-type", "hex8")
    for dry_run in (True, False):
        with pytest.raises(RestartFailed, match=rf"would end pid {pid} \(.*python.*force_orphans") as caught:
            world.restart(dry_run)
        assert not caught.value.outcome.changed
    assert world.posts() == []
    # The launcher restarts no orchestrator.
    world.mode("restart")
    assert world.restart().via == "launcher"
    world.mode("")
    (world.root / "mended").unlink()
    assert world.restart(force_orphans=True).via == "http"


def test_who_would_be_ended(world, orphan, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    reaped = [orphan("app.training.train"), orphan("SELFPLAY"), orphan("--mode=gauntlet"), orphan("export_replay.py")]
    orphan("harmless")
    own = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)", "train"], cwd=tmp_path)
    try:
        assert sorted(pid for pid, _line in orphans(str(tmp_path))[0]) == sorted(reaped)
        assert orphans(str(elsewhere))[0] == []
        assert {pid for pid, _line in orphans()[0]} >= set(reaped)
    finally:
        own.kill()
        own.wait()


def test_the_orchestrator_itself_is_no_orphan(tmp_path):
    program = tmp_path / "scripts" / "p2p_orchestrator.py"
    program.parent.mkdir()
    program.write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    argv = ["setsid", "-f", sys.executable, "-S", "scripts/p2p_orchestrator.py", "--training-only"]
    subprocess.run(argv, cwd=tmp_path, check=True, stdin=subprocess.DEVNULL, timeout=10)
    pid = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    try:
        assert orphans(str(tmp_path))[0] == []
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        (["venv/bin/python", "scripts/p2p_orchestrator.py", "--training-only"], "p2p_orchestrator.py"),
        (["/usr/bin/python3.11", "-u", "/x/scripts/master_loop.py"], "master_loop.py"),
        (["python3", "-m", "scripts.launch_daemons", "--all"], "launch_daemons.py"),
        (["vim", "scripts/p2p_orchestrator.py"], None),
        (["python3", "-c", "p2p_orchestrator.py"], None),
        (["python3", "train.py", "p2p_orchestrator.py"], None),
        ([], None),
    ],
)
def test_the_programs_of_the_service(argv, program):
    assert _event_restart._program(argv) == program


@pytest.mark.parametrize(
    "options",
    [
        {"via": "ssh"},
        {"timeout": 0},
        {"timeout": 1e9},
        {"timeout": float("nan")},
        {"token": "a b"},
        {"admin_token": "a\nX-Evil: 1"},
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_asked(world, options):
    with pytest.raises(RecoveryError) as caught:
        world.restart(**options)
    assert "Evil" not in str(caught.value)
    assert world.server.seen == []


# Units of systemd

SYSTEMCTL = """#!{python} -S
import json, sys, time
with open({here!r} + "/systemctl.calls", "a") as stream:
    stream.write(" ".join(sys.argv[1:]) + "\\n")
known = json.load(open({here!r} + "/units"))
if known is None:
    sys.exit("System has not been booted with systemd as init system")
if sys.argv[1] == "show":
    print("LoadState=" + ("loaded" if sys.argv[-1] in known else "not-found"))
if sys.argv[1] == "restart":
    if "refuse" in known:
        sys.exit("Failed to restart: Access denied")
    # No restart is done in less time than an answer takes.
    time.sleep(0.3)
    open({here!r} + "/mended", "w").close()
    open({here!r} + "/started", "w").write(str(time.time()))
"""


@pytest.fixture
def systemd(world, monkeypatch, tmp_path):
    tool = tmp_path / "bin" / "systemctl"
    tool.parent.mkdir()
    tool.write_text(SYSTEMCTL.format(python=sys.executable, here=str(tmp_path)))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    started = tmp_path / "started"

    def health(_body):
        begun = float(started.read_text()) if started.exists() else world.started
        return 200, {"uptime_seconds": time.time() - begun}

    world.server.answers["GET", "/health"] = health

    def know(*units):
        (tmp_path / "units").write_text(json.dumps(units))

    know.calls = lambda: (tmp_path / "systemctl.calls").read_text().splitlines()
    return know


def test_a_unit_whose_programs_are_dead_is_found_by_name(world, systemd):
    world.wired = False
    systemd("ringrift-p2p.service", "master-loop.service")
    predicted = world.restart(dry_run=True)
    assert predicted.via == "unit"
    assert all(call.startswith("show ") for call in systemd.calls())
    outcome = world.restart()
    assert outcome.via == "unit"
    assert systemd.calls()[-1] == ("restart --no-block --no-ask-password -- ringrift-p2p.service master-loop.service")
    assert predicted.tried[-1].what == "systemctl restart ringrift-p2p.service master-loop.service"
    assert world.posts() == []


def test_where_only_daemons_are_down_the_orchestrator_is_left_alone(world, systemd):
    world.up = False
    systemd("ringrift-p2p.service", "master-loop.service")
    assert world.restart().tried[-1].what == "systemctl restart master-loop.service"


def test_a_unit_that_may_not_be_restarted_makes_room_for_the_next_way(world, systemd):
    world.wired = False
    systemd("ringrift-p2p.service", "refuse")
    outcome = world.restart()
    assert (outcome.via, outcome.tried[1].done) == ("http", False)
    assert "Access denied" in outcome.tried[1].reason


def test_the_guard_holds_for_units_too(world, systemd, orphan):
    world.wired = False
    systemd("ringrift-p2p.service")
    pid = orphan("app.training.train")
    with pytest.raises(RestartFailed, match=rf"systemctl restart ringrift-p2p.service would end pid {pid} "):
        world.restart()
    assert all(call.startswith("show ") for call in systemd.calls())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make control groups")
def test_the_unit_is_that_in_which_the_orchestrator_runs(world, systemd):
    world.wired = False
    systemd()
    program = world.root / "scripts" / "p2p_orchestrator.py"
    program.write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    argv = [sys.executable, "-S", "scripts/p2p_orchestrator.py"]
    process = subprocess.Popen(argv, cwd=world.root, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        with pytest.raises(RestartFailed, match=rf"p2p_orchestrator.py \(pid {process.pid}\) runs in "):
            world.restart(via="unit")
        with cgroup("name=systemd", "system.slice", "ringrift-p2p-orchestrator.service", process.pid):
            outcome = world.restart(via="unit")
        assert outcome.tried[-1].what == "systemctl restart ringrift-p2p-orchestrator.service"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

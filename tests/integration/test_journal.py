# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two recoveries at once, a controller that was killed, and one that is tried in vain again and again."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.integration.harness import CONFIG, QUICK, ROOT, Lab, environment, run
from tests.integration.listeners import Hook

pytestmark = pytest.mark.lab


def started(lab: Lab, task: str) -> subprocess.Popen:
    """A recovery that has come as far as a task and is held there."""
    controller = subprocess.Popen(
        ["ansible-playbook", "-i", str(lab.inventory), "playbooks/full_recovery.yml", "-e", f"config={CONFIG}"]
        + ["-e", f"ringrift_report_dir={lab.directory / 'reports'}"],
        cwd=ROOT, env=environment(PYTHONUNBUFFERED="1"), start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    for line in controller.stdout:
        if task in line:
            os.killpg(controller.pid, signal.SIGSTOP)
            return controller
    raise AssertionError(f"It ended before {task}")


def end(controller: subprocess.Popen) -> None:
    os.killpg(controller.pid, signal.SIGKILL)
    controller.wait(10)
    controller.stdout.close()


def test_a_second_one_is_refused_and_after_a_kill_the_same_command_goes_on(lab):
    lab.fresh(nodes=1)
    lab("break", "kill")
    controller = started(lab, "[ringrift.recovery.prepare_data")
    try:
        before = lab.snapshot()
        refused = lab.play("full_recovery", **QUICK)
        assert refused.rc != 0
        assert f"{CONFIG} is being recovered by" in refused.flat
        assert "was at prepare_data" in refused.flat, refused.flat
        assert "Nothing was touched" in refused.flat
        assert set(refused.changed.values()) == {0}, refused.output
        assert before.keys() == lab.snapshot().keys()
    finally:
        end(controller)
    resumed = lab.play("full_recovery")
    assert resumed.rc == 0, resumed.output
    assert "This one begins with a diagnosis of what it left" in resumed.flat
    assert len(lab.trainers()) == 1
    # One that dies when training moves already leaves nothing to recover, and is ended by whoever looks next.
    lab.journal("run=died state=begun")
    again = lab.play("full_recovery")
    assert again.rc == 0, again.output
    assert set(again.changed.values()) == {0}, again.output
    *_others, last = lab.journal()["attempts"]
    assert (last["run"], last["state"], last["outcome"]) == ("died", "ended", "died, and training goes on")
    assert last["progressed"]


def test_what_fails_again_and_again_is_refused_with_its_history(lab, serve):
    lab.fresh(nodes=1)
    lab("break", "kill", "missing-data", "no-games")
    hook, port = serve(http.server.ThreadingHTTPServer, Hook)
    told = ("-e", f"ringrift_notify_webhook_url=http://127.0.0.1:{port}/", "-e", "ringrift_report_url=http://reports")
    # What is refused for its cause is no attempt.
    unlisted = lab.play("full_recovery", "-e", "recover_causes=not_running")
    assert unlisted.rc != 0
    assert "recover_causes does not list data_not_ready" in unlisted.flat
    assert set(unlisted.changed.values()) == {0}, unlisted.output
    failed = lab.play("full_recovery", "-e", "recovery_max_attempts=1", *told)
    assert failed.rc != 0
    started, ended = (body for _authorization, body in hook.heard)
    assert (started["event"], ended["event"], ended["outcome"]) == ("started", "ended", "failed in prepare_data")
    assert ended["report"].startswith("http://reports/")
    assert ended["report"].endswith(f"-{CONFIG}.html")
    assert "failed in prepare_data" in failed.flat
    refused = lab.play("full_recovery", "-e", "recovery_max_attempts=1")
    assert refused.rc != 0
    assert f"1 recovery of {CONFIG} within 6 h brought no progress" in refused.flat
    assert "failed in prepare_data (at prepare_data)" in refused.flat
    assert "-e recovery_max_attempts=2" in refused.flat
    assert set(refused.changed.values()) == {0}, refused.output
    words = ("lab", "ssh", "--dir", str(lab.directory), "coordinator-1")
    kept = run(sys.executable, "-m", *words, f"cat ringrift/ai-service/data/recovery/{CONFIG}.jsonl")
    records = [json.loads(line) for line in kept.stdout.splitlines()]
    told = [record.get("step") or record["event"] for record in records]
    assert told == ["begun", "stop_training", "clear_state", "prepare_data", "ended"]


def test_a_run_without_a_person_stops_training_on_few_nodes_unless_the_number_is_confirmed(lab):
    lab.fresh(nodes=2)
    if lab.driver != "netns":
        pytest.skip("all nodes of the local driver see each other's trainers")
    trainer = "app.training.train --board-type hex8 --num-players 2 --epochs 5000 --data-path data/training/hex8_2p.npz"
    another = f"(cd ringrift/ai-service && exec setsid venv/bin/python -m {trainer} --allow-stale-data)"
    another += " </dev/null >/dev/null 2>&1 &"
    run(sys.executable, "-m", "lab", "ssh", "--dir", str(lab.directory), "runpod-h100", another, timeout=30)
    end_of_wait = time.monotonic() + 30
    while len(lab.trainers()) < 2 and time.monotonic() < end_of_wait:
        time.sleep(0.2)
    before = lab.trainers()
    automatic = ("-e", "automatic=true", "-e", "force=true")
    refused = lab.play("full_recovery", *automatic)
    assert refused.rc != 0
    assert "An automatic run may stop training on 1 of 2 nodes" in refused.flat
    assert "-e confirm=2" in refused.flat
    assert set(refused.changed.values()) == {0}, refused.output
    assert lab.trainers() == before
    allowed = lab.play("full_recovery", *automatic, "-e", "confirm=2", "--check")
    assert allowed.rc == 0, allowed.output
    lab("down")

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin as Ansible runs it: on a node of its own, with the module that sends, against real servers."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p import ARGUMENT_SPEC
from ansible_collections.ringrift.recovery.plugins.modules import p2p_training

from tests.unit.ansible_tasks import run_tasks
from tests.unit.p2p_servers import Scripted, StandIn, free_port

TOKEN = "s3cret-t0ken"
KEYS = set(yaml.safe_load(p2p_training.RETURN)) | {"changed"}


@pytest.fixture
def play(tmp_path):
    return functools.partial(run_tasks, tmp_path)


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    root = tmp_path_factory.mktemp("service") / "ai-service"
    node = StandIn(root, "coord", RINGRIFT_IS_COORDINATOR="true", RINGRIFT_CLUSTER_AUTH_TOKEN=TOKEN)
    yield node.ready()
    node.stop()


def task(url, state="query", check=None, **options):
    arguments = {"config": "hex8_2p", "url": url, "state": state, "token": TOKEN, **options}
    keywords = {} if check is None else {"check_mode": check}
    return {"ringrift.recovery.p2p_training": arguments, **keywords}


def test_dispatch_and_clear(play, orchestrator):
    url = orchestrator.url
    tasks = [task(url)]
    tasks += [
        task(url, "dispatched", check, batch_size=256, extra={"learning_rate": 0.001}) for check in (True, False) * 2
    ]
    tasks += [task(url, "cleared", check) for check in (True, False) * 2]
    results, printed = play(tasks, "--diff", "-vvv")
    assert TOKEN not in printed
    assert [result["changed"] for result in results] == [False, True, True, False, False, True, True, False, False]
    assert not [result["msg"] for result in results if result.get("failed")]
    info, predicted, dispatched, _again, kept, _would, cleared, _none, last = results
    for result in results:
        missing = KEYS - set(result)
        assert missing <= {"diff"}
    assert (info["profile"], info["reachable"], info["leader"]["is_leader"]) == ("ringrift", True, True)
    body = predicted["requests"][0]["body"]
    assert body == dispatched["requests"][0]["body"]
    assert body["config"] == {"board_type": "hex8", "num_players": 2, "batch_size": 256, "learning_rate": 0.001}
    job = dispatched["dispatched"]["job_id"]
    assert (dispatched["diff"]["before"], list(dispatched["diff"]["after"]["active"])) == ({"active": {}}, [job])
    assert [row["id"] for row in kept["active"]] == [job]
    assert [(row["id"], row["was"]) for row in cleared["cleared"]] == [(job, "pending")]
    assert (last["active"], last["msg"]) == ([], "No job of hex8_2p is active.")


def test_failures_and_findings(play, orchestrator):
    dead = f"http://127.0.0.1:{free_port()}"
    results, printed = play(
        [
            task(dead),
            task(dead, "dispatched"),
            task(orchestrator.url, "dispatched", token="wr0ng-t0ken"),
            task(orchestrator.url, config="hex8"),
            task(orchestrator.url, profile="moon"),
            task(orchestrator.url, colour="blue"),
            task(orchestrator.url, profile="x", profiles={"x": {"extends": "ringrift", "detect": "status.x"}}),
        ]
    )
    finding, unreachable, refused, config, profile, option, own = results
    assert (finding["reachable"], finding["jobs"], finding.get("failed", False)) == (False, None, False)
    assert "connection refused" in finding["reason"]
    assert (unreachable["failed"], unreachable["changed"]) == (True, False)
    assert "give the right one as token" in refused["msg"]
    assert "is not <board>_<players>p" in config["msg"]
    assert "known are auto, runbook, ringrift" in profile["msg"]
    assert "Unsupported parameters" in option["msg"]
    assert (own["profile"], own.get("failed", False)) == ("x", False)


class Gateway(Scripted):
    """It speaks what the example profile of the inventory says."""

    def __init__(self):
        self.rows = [{"uid": "t/1", "phase": "running", "worker": "nebius-h100-3", "model": "hex8_2p", "created": 5}]
        super().__init__()
        self.answers = {
            ("GET", "/v2/trainings"): lambda body: (
                200,
                {"api": "gateway/v2", "items": self.rows, "next_page": None},
            ),
            ("POST", "/v2/trainings"): self.dispatch,
            ("POST", "/v2/trainings/t%2F1/cancel"): self.cancel,
        }

    def dispatch(self, body):
        self.rows.append({"uid": "t2", "phase": "queued", "model": body["model"], "created": 9})
        return 201, {"uid": "t2", "worker": None}

    def cancel(self, body):
        self.rows[0]["phase"] = "cancelled"
        return 202, ""


def test_the_example_profile_of_the_inventory(play, root):
    """It is loaded from there as a playbook does, and runs against a server that speaks it."""
    gateway = Gateway()
    try:
        asked = {"config": "hex8_2p", "url": gateway.url, "profile": "gateway", "token": TOKEN, "batch_size": 256}
        asked.update(profiles="{{ ringrift_p2p_profiles }}", extra={"rate": 0.001})
        tasks = [
            {"ringrift.recovery.p2p_training": {**asked, "state": state}}
            for state in ("query", "cleared", "dispatched", "dispatched")
        ]
        role = {"name": "ringrift.recovery.restart_training", "tasks_from": "p2p"}
        settings = {"restart_training_config": "hex8_3p", "restart_training_fit": {"batch_size": 512}}
        where = {"inventory": str(root / "inventory"), "host": "coordinator-1", "ringrift_p2p_url": gateway.url}
        where["ringrift_p2p_profile"] = "gateway"
        results, printed = play(tasks, **where)
        planned = play([{"ansible.builtin.include_role": role, "vars": settings}], "--check", **where)[0]
    finally:
        gateway.close()
    assert [result["msg"] for result in results if result.get("failed")] == []
    info, cleared, dispatched, again = results
    assert [(row["id"], row["node"], row["active"]) for row in info["jobs"]] == [("t/1", "nebius-h100-3", True)]
    assert [row["id"] for row in cleared["cleared"]] == ["t/1"]
    assert (dispatched["dispatched"]["job_id"], again["changed"]) == ("t2", False)
    body = {"model": "hex8_2p", "settings": {"batch": 256, "rate": 0.001}}
    assert gateway.sent() == [("/v2/trainings/t%2F1/cancel", None), ("/v2/trainings", body)]
    # The role takes it from the inventory by itself.
    (request,) = next(result["requests"] for result in planned if result.get("profile") == "gateway")
    assert request["body"] == {"model": "hex8_3p", "settings": {"batch": 512, "epochs": 50}}
    sent = {name.lower(): value for name, value in gateway.seen[0][2].items()}
    assert (sent["x-gateway-token"], "authorization" in sent) == (TOKEN, False)
    assert TOKEN not in printed


def test_a_whole_play_in_check_mode_sends_no_post(play, orchestrator):
    before = orchestrator.get("/work/history")[1]["count"]
    tasks = [task(orchestrator.url, state, assume_cleared=["w1"]) for state in ("dispatched", "cleared")]
    dispatched, cleared = play(tasks, "--check")[0]
    assert (dispatched["changed"], cleared["changed"]) == (True, False)
    assert orchestrator.get("/work/history")[1]["count"] == before


def test_the_documentation_is_that_of_the_arguments():
    options = yaml.safe_load(p2p_training.DOCUMENTATION)["options"]
    # The fragment documents it.
    documented = {**options, "config": {"type": "str", "required": True}}
    assert set(documented) == set(ARGUMENT_SPEC)
    for name, spec in ARGUMENT_SPEC.items():
        for key in ("type", "default", "choices", "elements", "required"):
            assert documented[name].get(key) == spec.get(key), (name, key)


def test_the_module_file_says_where_the_work_is_done(root):
    arguments = {"ANSIBLE_MODULE_ARGS": {"config": "hex8_2p"}}
    command = [sys.executable, "-m", "ansible_collections.ringrift.recovery.plugins.modules.p2p_training"]
    environment = {**os.environ, "PYTHONPATH": str(root / "playbooks" / "collections")}
    done = subprocess.run(
        command, input=json.dumps(arguments), env=environment, capture_output=True, text=True, timeout=30
    )
    answer = json.loads(done.stdout)
    assert (answer["failed"], "action plugin" in answer["msg"]) == (True, True)


def test_the_plugin_does_no_io_of_its_own(root):
    tree = ast.parse((root / "plugins" / "action" / "p2p_training.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not names & {"send", "open_url", "urlopen"}

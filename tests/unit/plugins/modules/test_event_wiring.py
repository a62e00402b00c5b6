# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against the stand-in of the service, whose orchestrator and daemons really run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import event_wiring

from tests.unit.p2p_servers import SERVICE, StandIn, free_port, wait_for

DOCUMENTED = yaml.safe_load(event_wiring.RETURN)
TOKENS = {"token": "clust3r", "admin_token": "adm1n"}


class Service:
    """An orchestrator and the daemons beside it, in one service directory."""

    def __init__(self, root, api):
        shutil.copytree(SERVICE, root, ignore=shutil.ignore_patterns("__pycache__"))
        (root / "venv/bin").mkdir(parents=True)
        (root / "venv/bin/python").symlink_to(os.path.realpath(sys.executable))
        (root / "data/lab").mkdir(parents=True)
        (root / "data/lab/api").write_text(api)
        secrets = {"RINGRIFT_CLUSTER_AUTH_TOKEN": "clust3r", "RINGRIFT_ADMIN_TOKEN": "adm1n"}
        self.root, self.node = root, StandIn(root, RINGRIFT_IS_COORDINATOR="true", LAB_API=api, **secrets)
        port, log = free_port(), root / "daemons.log"
        own = {
            "RINGRIFT_HEALTH_PORT": str(port),
            "LAB_HEALTH_HOST": "::1",
            "RINGRIFT_COORDINATION_DIR": str(root / "data/events"),
        }
        with open(log, "w") as stream:
            self.daemons = subprocess.Popen(
                [sys.executable, "scripts/launch_daemons.py", "--profile", "coordinator"],
                cwd=root, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip
        self.node.ready()
        wait_for(lambda: "health server on port" in log.read_text(), what=str(log))
        self.options = {
            "p2p_url": self.node.url,
            "health_url": f"http://localhost:{port}",
            "service_path": str(root),
            "within": str(root),
            "timeout": 20,
        }

    def unwire(self):
        (self.root / "data/lab/p2p_unwired.json").write_text('["TRAINING_COMPLETED"]')

    def take_down(self):
        (self.root / "data/lab/daemons_down.json").write_text('["event_router"]')

    def stop(self):
        self.node.stop()
        self.daemons.kill()
        self.daemons.wait()


@pytest.fixture(params=["ringrift", "runbook"])
def service(request, tmp_path):
    made = Service(tmp_path / "service", request.param)
    made.via = "http" if request.param == "ringrift" else "launcher"
    yield made
    made.stop()


@pytest.fixture
def run(capsys):
    def call(service, **options):
        given = {**service.options, **options}
        with patch_module_args(given), pytest.raises(SystemExit) as stopped:
            event_wiring.main()
        result = json.loads(capsys.readouterr().out)
        check_documented(result, DOCUMENTED)
        return stopped.value.code, result

    return call


def check_documented(result, documented):
    assert set(result) - {"changed", "invocation", "failed", "msg", "diff"} <= set(documented)
    for name, value in result.items():
        below = documented.get(name, {}).get("contains")
        for entry in (value if isinstance(value, list) else [value]) if below else []:
            assert set(entry) == set(below)
            check_documented(entry, below)


def test_broken_predicted_mended_and_left_alone(service, run):
    code, result = run(service)
    assert (code, result["changed"], result["wiring"]["verdict"], result["daemons"]["down"]) == (0, False, "wired", [])
    service.unwire()
    service.take_down()
    broken = run(service)[1]
    assert (broken["wiring"]["verdict"], broken["daemons"]["down"]) == ("unwired", ["event_router"])
    files = sorted(str(path) for path in service.root.rglob("*") if "__pycache__" not in path.parts)
    code, predicted = run(service, state="restarted", _ansible_check_mode=True, _ansible_diff=True, **TOKENS)
    assert (code, predicted["changed"], predicted["restarted"], predicted["via"]) == (0, True, True, service.via)
    assert predicted["wiring"] == predicted["before"]["wiring"] == broken["wiring"]
    assert sorted(str(path) for path in service.root.rglob("*") if "__pycache__" not in path.parts) == files
    code, mended = run(service, state="restarted", _ansible_diff=True, **TOKENS)
    assert (code, mended["changed"], mended["restarted"], mended["via"]) == (0, True, True, service.via)
    assert (mended["wiring"]["verdict"], mended["daemons"]["down"]) == ("wired", [])
    assert mended["diff"] == predicted["diff"]
    assert "TRAINING_COMPLETED: heard by nobody\n" in mended["diff"]["before"]
    for check in (True, False):
        code, again = run(service, state="restarted", _ansible_check_mode=check, **TOKENS)
        assert (code, again["changed"], again["restarted"], again["via"], again["tried"]) == (0, False, False, None, [])


def test_a_restart_without_the_token_fails_with_evidence_and_keeps_secrets(service, run):
    service.unwire()
    for wrong in ({}, {"token": "clust3r", "admin_token": "wr0ng"}):
        code, result = run(service, state="restarted", via="http", **wrong)
        assert (code, result["failed"], result["changed"], result["restarted"]) == (1, True, False, False)
        assert "answered 401" in result["msg"]
        assert result["wiring"]["verdict"] == "unwired"
        # It is printed, so it has no more than fits a screen.
        assert set(result["daemons"]["daemons"]) == {"event_router", "feedback_loop", "data_pipeline"}
        assert "before" not in result
        assert "clust3r" not in json.dumps(result)
        assert "wr0ng" not in json.dumps(result)


def test_bad_options_are_refused(service, run):
    assert "not an http or https URL" in run(service, p2p_url="nonsense")[1]["msg"]
    assert "timeout is 0 s" in run(service, state="restarted", timeout=0)[1]["msg"]
    assert "value of via must be one of" in run(service, via="ssh")[1]["msg"]

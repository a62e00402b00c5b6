# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of events, daemons and triggers: what they leave on the coordinator, as the collection reads it."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._training_triggers import read

from lab import faults, fleet, inventory
from lab.errors import LabError
from lab.faults import _records, daemons, events
from lab.instance import Instance
from lab.nodes import driver_of
from tests.unit.p2p_servers import SERVICE

HEX = parse_config("hex8_2p")


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Instance:
    made = Instance(tmp_path, "local", nodes=fleet.plan(1))
    driver_of(made).prepare()
    return made


@pytest.fixture
def service(instance: Instance) -> pathlib.Path:
    return driver_of(instance).service(instance.coordinator)


def test_the_faults_are_known():
    assert set(faults.names()) >= {"events", "daemons", "paused", "in-progress"}


@pytest.mark.parametrize(("name", "module"), [("events", events), ("daemons", daemons)])
def test_what_is_taken_away_comes_back(instance, service, name, module):
    path = service.joinpath(*module.FILE)
    with pytest.raises(LabError):
        list(faults.mend(instance, [(name, None)]))
    assert "coordinator-1" in "".join(faults.apply(instance, [(name, None)]))
    assert json.loads(path.read_text()) == [getattr(module, "EVENT", None) or module.DAEMON]
    assert "again on coordinator-1" in "".join(faults.mend(instance, [(name, None)]))
    assert not path.exists()
    with pytest.raises(LabError):
        list(faults.mend(instance, [(name, None)]))


def test_a_pause_is_what_the_collection_reads(instance, service):
    list(faults.apply(instance, [("paused", None)]))
    seen = read(HEX, str(service))
    assert (seen.exists, seen.paused, seen.training_in_progress, seen.problems) == (True, True, False, ())
    list(faults.mend(instance, [("paused", None)]))
    assert read(HEX, str(service)).paused is False
    with pytest.raises(LabError, match="already"):
        list(faults.mend(instance, [("paused", None)]))


def test_a_mark_of_a_crash_is_what_the_collection_reads(instance, service, monkeypatch):
    monkeypatch.setattr(_records, "kill_trainer", lambda scene: "killed trainer 1; ")
    (line,) = faults.apply(instance, [("in-progress", None)])
    assert line.startswith("killed trainer 1; ")
    assert read(HEX, str(service)).training_in_progress is True
    list(faults.apply(instance, [("paused", None)]))
    list(faults.mend(instance, [("in-progress", None)]))
    seen = read(HEX, str(service))
    assert (seen.training_in_progress, seen.paused) == (False, True)


def test_every_local_node_has_a_health_page_of_its_own(instance):
    data = yaml.safe_load(inventory.write(instance, driver_of(instance)).read_text())
    values = data["coordinator"]["hosts"]["coordinator-1"]
    assert values["ringrift_health_url"] == f"http://localhost:{instance.coordinator.health_port}"


@pytest.mark.parametrize("api", ["ringrift", "runbook"])
def test_only_the_runbooks_launcher_restarts(tmp_path, api):
    root = tmp_path / "service"
    shutil.copytree(SERVICE, root, ignore=shutil.ignore_patterns("__pycache__"))
    lost = root / "data" / "lab"
    lost.mkdir(parents=True)
    (lost / "api").write_text(api + "\n")
    (lost / "daemons_down.json").write_text('["event_router", "auto_sync"]')
    (lost / "p2p_unwired.json").write_text('["TRAINING_COMPLETED"]')

    def launch(*words: str) -> subprocess.CompletedProcess:
        argv = [sys.executable, "scripts/launch_daemons.py", *words]
        return subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False, timeout=20)

    assert ("--restart" in launch("--help").stdout) == (api == "runbook")
    done = launch("--restart", "EVENT_ROUTER", "FEEDBACK_LOOP", "DATA_PIPELINE")
    if api == "ringrift":
        assert (done.returncode, (lost / "p2p_unwired.json").exists()) == (2, True)
        return
    assert (done.returncode, (lost / "p2p_unwired.json").exists()) == (0, False)
    assert json.loads((lost / "daemons_down.json").read_text()) == ["auto_sync"]
    assert launch("--restart", "NONSENSE").returncode == 1

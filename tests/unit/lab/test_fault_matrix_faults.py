# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that strike while a recovery runs: what the orchestrator answers then, and what the exporter leaves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest

from lab import faults, fleet
from lab.errors import LabError
from lab.faults import _answers, _exporter
from lab.instance import Instance
from lab.nodes import driver_of
from tests.unit.p2p_servers import StandIn

OUTPUT = "out.npz"
REAL = "import pathlib, sys\npathlib.Path(sys.argv[sys.argv.index('--output') + 1]).write_bytes(bytes(1000))\n"


@pytest.fixture
def instance(tmp_path) -> Instance:
    made = Instance(tmp_path, "local", nodes=fleet.plan(1))
    driver_of(made).prepare()
    return made


def test_how_an_orchestrator_answers_can_be_changed_while_it_runs(tmp_path, instance):
    node = StandIn(tmp_path / "service", leader="testnode")
    try:
        node.ready()
        # The fault writes the file of its own lab; the server reads that of its own tree.
        path = node.root.joinpath(*_answers.FILE)
        path.parent.mkdir(parents=True)
        for name, status, kind in (("error-answers", 500, "json"), ("garbage-answers", 200, "plain")):
            list(faults.apply(instance, [(name, None)]))
            shutil.copy(driver_of(instance).service(instance.coordinator, *_answers.FILE), path)
            assert node.ask("GET", "/status")[0] == status
            assert kind in node.ask("GET", "/status")[1]
        list(faults.apply(instance, [("refusing-answers", None)]))
        shutil.copy(driver_of(instance).service(instance.coordinator, *_answers.FILE), path)
        assert node.get("/status")[1]["node_id"] == "testnode"
        assert node.post("/work/add", {"work_type": "training"})[1]["success"] is False
        list(faults.mend(instance, [("refusing-answers", None)]))
        path.unlink()
        assert node.post("/work/add", {"work_type": "training"})[1]["status"] == "added"
        with pytest.raises(LabError, match="answers as it should"):
            list(faults.mend(instance, [("slow-answers", None)]))
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("name", "code", "size"),
    [("export-nothing", 0, None), ("export-code", 89, 1000), ("export-dies", -signal.SIGKILL, 600)],
)
def test_an_exporter_that_goes_wrong_and_is_put_back(instance, tmp_path, name, code, size):
    path = driver_of(instance).service(instance.coordinator, *_exporter.PATH)
    path.parent.mkdir(parents=True)
    path.write_text(REAL)
    list(faults.apply(instance, [(name, None)]))
    done = subprocess.run([sys.executable, str(path), "--output", OUTPUT], cwd=tmp_path, check=False, timeout=30)
    assert done.returncode == code
    written = tmp_path / OUTPUT
    assert (written.stat().st_size if written.exists() else None) == size
    list(faults.mend(instance, [(name, None)]))
    assert path.read_text() == REAL
    with pytest.raises(LabError, match="own"):
        list(faults.mend(instance, [(name, None)]))


def test_what_every_later_trainer_does_is_ordered_and_withdrawn(instance):
    path = driver_of(instance).service(instance.training_nodes[0], "data", "lab", "train_fault.json")
    for name, order in (
        ("trainer-dies", {"error"}),
        ("trainer-one-step", {"error", "error_after"}),
        ("no-checkpoints", {"no_checkpoints"}),
    ):
        list(faults.apply(instance, [(name, None)]))
        assert json.loads(path.read_text()).keys() == order
        list(faults.mend(instance, [(name, None)]))
        assert not path.exists() or "error" not in json.loads(path.read_text())
        path.unlink(missing_ok=True)
        with pytest.raises(LabError):
            list(faults.mend(instance, [(name, None)]))

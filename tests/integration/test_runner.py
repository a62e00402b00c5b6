# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery from Python, through ansible-runner: what it refuses, how it ends, what it leaves behind."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import sys
import tempfile
import threading

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible_collections.ringrift.recovery.plugins.plugin_utils import runner
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.harness import CONFIG, ROOT, run
from tests.integration.test_survey import INVENTORY


@pytest.fixture
def inventory(tmp_path):
    """Nodes that nothing answers for."""
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY)
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where the folders of runs come, to see what is left of them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_refusal_says_what_the_playbook_says(inventory, temporary):
    heard = []
    with pytest.raises(runner.RecoveryRefused, match="restart_via is .*, and must be one of p2p, direct") as refused:
        runner.recover(CONFIG, inventory=inventory, extra_vars={"restart_via": "nowhere"}, on_event=heard.append)
    assert heard[0] == runner.StepBegan("Check the request")
    (failure,) = [event for event in heard if isinstance(event, runner.TaskFailed)]
    assert refused.value.failures == (failure,)
    assert failure.task.endswith("Check the other options")
    assert list(temporary.iterdir()) == []


def test_a_text_is_data_and_secrets_are_seen_by_nobody_else(inventory, temporary, tmp_path):
    witness = tmp_path / "witness"
    seen = []

    def look(event):
        (folder,) = temporary.iterdir()
        files = [path for path in folder.rglob("*") if path.is_file()]
        seen.append(
            (folder.stat().st_mode & 0o777, any("s3cret" in path.read_text(errors="replace") for path in files))
        )

    with pytest.raises(runner.RecoveryRefused) as refused:
        runner.run(
            "{{ lookup('pipe', 'touch " + str(witness) + "') }}", "diagnose", inventory=inventory, on_event=look,
            extra_vars={"ringrift_p2p_token": "s3cret", "exclude": ""},
        )  # fmt: skip
    assert "lookup('pipe'" in str(refused.value)
    assert not witness.exists()
    # By the time that the first play begins, Ansible has read it and it is gone.
    assert seen
    assert set(seen) == {(0o700, False)}
    assert list(temporary.iterdir()) == []


def test_nodes_that_do_not_answer_are_a_finding_and_not_a_healthy_fleet(inventory, temporary):
    events = list(runner.stream(CONFIG, "diagnose", inventory=inventory, extra_vars={"ringrift_report_dir": ""}))
    steps = [event.step for event in events if isinstance(event, runner.StepBegan)]
    assert steps == ["Check the request", "Diagnose"]
    report = events[-1].report
    findings = [event for event in events if isinstance(event, runner.Finding)]
    assert tuple(findings) == report.diagnosis.findings
    assert "node_unreachable" in {finding.cause for finding in findings}
    assert report.diagnosis.stalled is not False
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.outcome = "well"
    with pytest.raises(TypeError):
        report.data["outcome"] = "well"


def test_whoever_cancels_is_told_where_it_was(inventory, temporary):
    cancel = threading.Event()
    with pytest.raises(runner.RecoveryCancelled, match="was cancelled in the step '.*'. Run it again"):
        runner.run(CONFIG, inventory=inventory, cancel=cancel, on_event=lambda event: cancel.set())
    assert list(temporary.iterdir()) == []


def test_the_deadline_ends_it(inventory, temporary):
    with pytest.raises(runner.RecoveryTimedOut, match="did not end within 0.001 s"):
        runner.run(CONFIG, inventory=inventory, timeout=0.001)
    assert list(temporary.iterdir()) == []


def test_whoever_leaves_ends_the_run(inventory, temporary):
    class Enough(Exception):
        """Of the caller."""

    def enough(event):
        raise Enough

    with pytest.raises(Enough):
        runner.run(CONFIG, inventory=inventory, on_event=enough)
    assert list(temporary.iterdir()) == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("recovery of")] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"playbook": "../evil"}, "There is no playbook '../evil' in this collection. It has "),
        ({"playbook": "awx_setup"}, "There is no playbook 'awx_setup'"),
        ({"inventory": "/nowhere/hosts.yml"}, "The inventory /nowhere/hosts.yml is not there"),
        ({"inventory": []}, "No inventory was given"),
        ({"timeout": 0}, "timeout is 0"),
        ({"extra_vars": {"epochs": object()}}, "A value in extra_vars is <object"),
        ({"extra_vars": {3: "x"}}, "A name in extra_vars is 3"),
    ],
    ids=["playbook", "not for runs", "inventory", "no inventory", "timeout", "value", "name"],
)
def test_what_cannot_be_used_is_refused_before_anything_starts(inventory, temporary, options, said):
    with pytest.raises(runner.RunNotStarted, match=re.escape(said)):
        runner.run(CONFIG, **{"inventory": inventory, **options})
    assert list(temporary.iterdir()) == []


def test_an_installation_without_ansible_runner_is_told_so(inventory, monkeypatch):
    monkeypatch.setitem(sys.modules, "ansible_runner", None)
    with pytest.raises(runner.RunNotStarted, match="pip install ansible-runner"):
        runner.run(CONFIG, inventory=inventory)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), VALUES, max_size=4))
def test_whatever_is_given_arrives_as_it_is(tmp_path_factory, values):
    text = runner._as_data(values)
    assert text.isascii()
    assert yaml.load(text, Loader=Plain) == values


class Plain(yaml.SafeLoader):
    """Reads a text that is tagged as data."""


Plain.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def test_ansible_never_takes_it_for_a_template(tmp_path):
    from ansible.template import Templar

    path = tmp_path / "extravars"
    path.write_text(runner._as_data({"a": "{{ 1 + 1 }}", "b": ["{% if x %}"], "c": ""}))
    loader = DataLoader()
    values = loader.load_from_file(str(path), trusted_as_template=True)
    assert Templar(loader=loader).template(values) == {"a": "{{ 1 + 1 }}", "b": ["{% if x %}"], "c": ""}


def example() -> str:
    """The program that the documentation shows."""
    page = (ROOT / "docs/python_api.md").read_text()
    return re.search(r"```python\n(.*?)```", page, re.S).group(1)


@pytest.mark.lab
def test_the_example_of_the_documentation_runs(healthy, tmp_path):
    program = tmp_path / "example.py"
    program.write_text(example())
    done = run(
        sys.executable, str(program), str(next(healthy.inventory.glob("hosts*"))),
        cwd=tmp_path, PYTHONPATH=str(ROOT / "playbooks/collections"), HOME=str(tmp_path),
        # The path of a socket has room for a hundred characters.
        ANSIBLE_SSH_CONTROL_PATH_DIR=str(healthy.directory / "cp"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "step: Diagnose\n" in done.stdout
    assert "healthy, nothing had to be done" in done.stdout


def test_the_root_is_that_of_the_collection():
    assert runner.ROOT == ROOT
    assert pathlib.Path(runner.ROOT / "playbooks/full_recovery.yml").is_file()

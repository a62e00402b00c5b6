# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to call the playbooks that test_docs_commands.py does not type, and AWX's way through ansible-runner."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import tarfile

import pytest
import yaml

from tests.integration.harness import CONFIG, ROOT, Lab, as_awx_hands_on, environment, run

pytestmark = pytest.mark.lab


def arguments(lab: Lab) -> list[str]:
    return [
        "-i",
        str(lab.inventory),
        "-e",
        f"config={CONFIG}",
        "-e",
        f"ringrift_report_dir={lab.directory / 'reports'}",
    ]


def test_bare_command_finds_the_example_inventory():
    done = run("ansible-inventory", "--graph", cwd=ROOT / "playbooks")
    assert "nebius-h100-3" in done.stdout


def test_from_the_installed_tarball(small, installed, tmp_path):
    done = run(
        "ansible-playbook", "ringrift.recovery.full_recovery", *arguments(small),
        cwd=tmp_path, ANSIBLE_COLLECTIONS_PATH=str(installed),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "healthy, nothing had to be done" in done.stdout


def test_from_python_with_the_installed_tarball(installed, tmp_path):
    program = (
        "import sys; from ansible_collections.ringrift.recovery.plugins.plugin_utils import runner\n"
        "try: runner.recover('nonsense', inventory=sys.argv[1])\n"
        "except runner.RecoveryRefused as refusal: print(runner.ROOT, refusal)\n"
    )
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("---\ntraining: {hosts: {node-1: {}}}\ncoordinator: {hosts: {coordinator-1: {}}}\n")
    done = run(sys.executable, "-c", program, str(hosts), cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.stdout.startswith(str(installed)), done.stdout
    assert "which is not <board>_<players>p" in " ".join(done.stdout.split())


def test_tarball_holds_the_product_and_nothing_else(tarball):
    with tarfile.open(tarball) as archive:
        members = archive.getmembers()
    assert {member.name.split("/")[0] for member in members} == {
        "CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md",
        "SECURITY.md", "changelogs", "docs", "extensions", "meta", "playbooks", "plugins", "roles",
    }  # fmt: skip
    assert not [member.name for member in members if "__pycache__" in member.name or member.issym() or member.islnk()]


@pytest.mark.parametrize(
    "module",
    ["checkpoint_verify", "npz_inspect"],
)
def test_module_works_on_localhost_from_the_checkout(module, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"neither of the two")
    done = run("ansible", "localhost", "-m", f"ringrift.recovery.{module}", "-a", f"path={path}")
    assert done.returncode == 0, done.stdout
    assert "valid: false" in done.stdout


def test_module_docs_are_readable():
    names = {f"ringrift.recovery.{path.stem}" for path in (ROOT / "plugins/modules").glob("*.py")}
    done = run("ansible-doc", "-j", *sorted(names))
    assert done.returncode == 0, done.stdout
    docs = json.loads(done.stdout[done.stdout.index("{") :])
    assert set(docs) == names
    for name, doc in docs.items():
        assert doc["doc"]["short_description"], name
        assert doc["examples"].strip(), name
        assert doc["return"], name


def private_data_dir(folder: pathlib.Path, lab: Lab, answers: dict) -> pathlib.Path:
    """AWX's layout: the project without .git, inventory, extra vars and settings as files; cwd is the project."""
    for name in ("env", "inventory"):
        (folder / name).mkdir()
    shutil.copytree(
        ROOT,
        folder / "project",
        symlinks=True,
        ignore=shutil.ignore_patterns(".git", ".venv*", "build", ".*_cache", "tests"),
    )
    shutil.copy(next(lab.inventory.glob("hosts*")), folder / "inventory/hosts.yml")
    for extra in ("group_vars", "host_vars"):
        if (lab.inventory / extra).is_dir():
            shutil.copytree(lab.inventory / extra, folder / "inventory" / extra)
    # What is typed at a launch is data; what the template says is not, here that no report is kept.
    (folder / "env/extravars").write_text(as_awx_hands_on(answers) + "ringrift_report_dir: ''\n")
    (folder / "env/envvars").write_text(
        json.dumps(
            {
                "ANSIBLE_COLLECTIONS_PATH": "/runner/requirements_collections:playbooks/collections",
                "ANSIBLE_FORCE_COLOR": "false",
            }
        )
    )
    return folder


DRY = pytest.mark.skipif("SOAK" not in os.environ, reason="templates of steps are launched so; make soak")


@pytest.mark.parametrize("job_type", [pytest.param("check", marks=[pytest.mark.soak, DRY]), "run"])
def test_through_ansible_runner_as_awx_does(small, tmp_path, monkeypatch, job_type):
    import ansible_runner

    monkeypatch.setenv("PATH", environment()["PATH"])
    # A survey's answers arrive as strings, empty ones too.
    variables = {
        "config": CONFIG, "exclude": "", "restart_via": "p2p", "batch_size": "", "epochs": "5000", "force": "false",
        "expect_holder": "",
    }  # fmt: skip
    small("break", "oom")
    done = ansible_runner.run(
        private_data_dir=str(private_data_dir(tmp_path, small, variables)),
        playbook="playbooks/full_recovery.yml",
        cmdline="--check --diff" if job_type == "check" else None,
        quiet=True,
        timeout=240,
    )
    output = done.stdout.read()
    assert done.rc == 0, output
    assert done.status == "successful"
    finished = [event for event in done.events if event["event"] == "playbook_on_stats"]
    data = finished[0]["event_data"]["artifact_data"]["ringrift_recovery"]
    assert data["config"] == CONFIG
    assert data["check_mode"] is (job_type == "check")
    expected = "plan only, nothing was changed" if job_type == "check" else "recovered, progress is proven"
    assert data["outcome"] == expected, output
    # Nobody said so: it ran out of GPU memory.
    fitted = data["fleet"]["batch_size"]
    assert (fitted["batch_size"], fitted["source"]) == (fitted["instead_of"] // 2, "halved")
    assert f"batch size {fitted['batch_size']} instead of" in output


TEMPLATES = yaml.safe_load((ROOT / "awx/job_templates.yml").read_text())["job_templates"]


# What a step says to a fleet that trains and was never recovered; all others have nothing to say against one.
REFUSALS = {
    "playbooks/clear_state.yml": "Stop them first",
    "playbooks/rollback.yml": "none of them says that a recovery replaced anything",
}


# The whole recovery is above, in both ways; the single steps are for `make soak`.
LAUNCHED = [template for template in TEMPLATES if template["playbook"] != "playbooks/full_recovery.yml"]
if "SOAK" not in os.environ:
    FIRST = ("diagnose", "fix", "rollback", "prevent", "escalate")
    LAUNCHED = [template for template in LAUNCHED if pathlib.Path(template["playbook"]).stem in FIRST]


@pytest.mark.parametrize(
    "template",
    LAUNCHED,
    ids=lambda template: template["name"].rpartition("| ")[2],
)
def test_every_template_starts_with_its_survey_as_it_stands(small, tmp_path, monkeypatch, template):
    """Launched as AWX launches it, with the answers that the survey suggests; what changes something as a dry run."""
    import ansible_runner

    monkeypatch.setenv("PATH", environment()["PATH"])
    before = small.trainers()
    answers = {question["variable"]: question["default"] for question in template["survey_spec"]["spec"]}
    done = ansible_runner.run(
        private_data_dir=str(private_data_dir(tmp_path, small, answers)),
        playbook=template["playbook"],
        cmdline="--check" if template.get("ask_job_type_on_launch") else None,
        quiet=True,
        timeout=120,
    )
    output = done.stdout.read()
    (finished,) = [event["event_data"] for event in done.events if event["event"] == "playbook_on_stats"]
    assert finished["dark"] == {}, output
    refusal = REFUSALS.get(template["playbook"])
    if refusal is None:
        assert done.status == "successful", output
    else:
        assert done.status == "failed", output
        nodes = finished["artifact_data"]["ringrift_recovery"]["nodes"].values()
        assert any(refusal in node.get("failure", {}).get("msg", "") for node in nodes), output
    assert small.trainers() == before


def test_the_event_source_finds_what_it_needs_where_it_is_installed(installed):
    """ansible-rulebook runs the file, and knows nothing of collections."""
    eda = installed / "ansible_collections/ringrift/recovery/extensions/eda"
    assert (eda / "rulebooks/recover_stalled_training.yml").is_file()
    script = (
        "import runpy, sys; found = runpy.run_path(sys.argv[1]); print(found['PLAYBOOKS'], found['Watch'].__module__)"
    )
    done = run(sys.executable, "-c", script, str(eda / "plugins/event_source/stall.py"), cwd=installed)
    assert done.returncode == 0, done.stdout
    folder, module = done.stdout.split()
    assert pathlib.Path(folder) == eda.parents[1] / "playbooks"
    assert module.startswith("ansible_collections.ringrift.recovery.")
    assert {"full_recovery.yml", "escalate.yml", "diagnose.yml"} <= {
        path.name for path in pathlib.Path(folder).iterdir()
    }

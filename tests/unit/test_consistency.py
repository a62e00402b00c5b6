# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the collection agree with each other: metadata, roles, playbooks, links, job templates."""

from __future__ import annotations

import os
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
PLAYBOOKS = sorted(path for path in (ROOT / "playbooks").glob("*.yml"))
TEMPLATES = yaml.safe_load((ROOT / "awx/job_templates.yml").read_text())["job_templates"]


def load(path: pathlib.Path):
    return yaml.safe_load(path.read_text())


def test_action_group_names_every_module_and_no_other():
    assert sorted(load(ROOT / "meta/runtime.yml")["action_groups"]["all"]) == MODULES


def test_the_four_modules_of_the_card_are_there():
    assert {"training_lock", "gpu_status", "npz_inspect", "checkpoint_verify"} <= set(MODULES)


@pytest.mark.parametrize("role", ROLES)
def test_role_documents_every_public_variable(role):
    defaults = set(load(ROOT / "roles" / role / "defaults/main.yml"))
    options = set(load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"])
    assert defaults == options
    assert all(name.startswith(f"{role}_") for name in defaults)


@pytest.mark.parametrize("role", ROLES)
def test_role_has_a_readme(role):
    assert (ROOT / "roles" / role / "README.md").read_text().startswith(f"# {role}\n")


@pytest.mark.parametrize("link", ["extensions", "galaxy.yml", "meta", "plugins", "roles"])
def test_collection_links_resolve(link):
    path = ROOT / "playbooks/collections/ansible_collections/ringrift/recovery" / link
    assert path.is_symlink()
    assert not os.path.isabs(os.readlink(path))
    assert path.resolve() == ROOT / link


@pytest.mark.parametrize("link", ["ansible.cfg", "inventory"])
def test_bare_command_links_resolve(link):
    assert (ROOT / "playbooks" / link).resolve() == ROOT / link


def test_every_role_variable_that_reads_a_setting_reads_one_that_the_inventory_names():
    settings = set(load(ROOT / "inventory/group_vars/all.yml"))
    used = set()
    for path in [*ROOT.glob("roles/*/*/*.yml"), *PLAYBOOKS]:
        used |= set(re.findall(r"\bringrift_(?!recovery\b|diagnosis\b|prevention\b)[a-z0-9_]+", path.read_text()))
    used = {name if name.startswith("ringrift_") else f"ringrift_{name}" for name in used}
    assert used - settings == set()
    assert settings - used == set(), "settings that nothing reads"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template["name"])
def test_job_template_names_a_playbook_and_variables_that_exist(template):
    path = ROOT / template["playbook"]
    text = path.read_text() + "".join(
        (ROOT / "playbooks" / play["ansible.builtin.import_playbook"]).read_text()
        for play in load(path)
        if "ansible.builtin.import_playbook" in play
    )
    for question in template["survey_spec"]["spec"]:
        assert re.search(rf"\b{question['variable']}\b", text), question["variable"]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template["name"])
def test_job_template_is_safe_to_launch(template):
    assert template["job_slice_count"] == 1
    assert template["timeout"] > 0
    changes = template["playbook"] not in ("playbooks/diagnose.yml", "playbooks/monitor.yml")
    assert template["allow_simultaneous"] is not changes
    assert template.get("ask_job_type_on_launch", False) is changes


def test_every_playbook_has_a_job_template():
    # That which puts them into AWX is started outside of it.
    started = {f"playbooks/{path.name}" for path in PLAYBOOKS} - {"playbooks/awx_setup.yml"}
    assert {template["playbook"] for template in TEMPLATES} == started


def test_every_molecule_scenario_has_tests():
    for path in (ROOT / "molecule").glob("*/molecule.yml"):
        if path.parent.name != "default":
            assert list(path.parent.glob("tests/test_*.py")), path.parent


def test_nothing_in_the_product_knows_the_lab():
    for folder in ("extensions", "plugins", "roles", "playbooks"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "collections" not in path.parts and path.suffix in (".py", ".yml", ".md"):
                assert not re.search(r"\blab\b", path.read_text()), path


@pytest.mark.parametrize("name", ["docs/safety.md", "SECURITY.md"])
def test_what_proves_our_safety_is_there(name):
    named = re.findall(r"`(tests/[a-z_/0-9]+[.]py)::(test_[a-z_0-9]+)`", (ROOT / name).read_text())
    assert len(named) > 20
    for path, test in named:
        assert re.search(rf"^ *def {test}\(", (ROOT / path).read_text(), re.M), f"{path}::{test}"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_an_answer_that_is_left_empty_counts_as_not_given(path):
    # AWX hands on an empty answer as `!unsafe ''`, which ansible-core 2.19 reads as null: default() alone keeps that.
    options = "exclude|expect_holder|force|follow|wait|cause|takeover|confirm|epochs|batch_size|restart_via|refresh"
    assert not re.findall(
        rf"\b(?:{options}) \| default\([^()]*\)", re.sub(r"default\([^()]*, true\)", "", path.read_text())
    )

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in awx/ fits the modules that take it, the playbooks that run it, and itself."""

from __future__ import annotations

import importlib
import pathlib
import re
from typing import Any, Dict, List

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.ringrift.recovery.plugins.module_utils import _options

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETUP = yaml.safe_load((ROOT / "playbooks/awx_setup.yml").read_text())[0]
# What is in which list, and the module that takes an entry of it.
LISTS = {
    "organizations": "organization",
    "credential_types": "credential_type",
    "credentials": "credential",
    "execution_environments": "execution_environment",
    "projects": "project",
    "inventories": "inventory",
    "inventory_sources": "inventory_source",
    "labels": "label",
    "job_templates": "job_template",
    "workflow_job_templates": "workflow_job_template",
    "workflow_job_template_nodes": "workflow_job_template_node",
    "schedules": "schedule",
}


class Caught(Exception):
    """The arguments that a module would make its AnsibleModule with."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.kwargs = kwargs


def rendered() -> Dict[str, Any]:
    """All of awx/ with its settings put in, as the play sees it."""
    loader = DataLoader()
    variables: Dict[str, Any] = {}
    for path in SETUP["vars_files"]:
        variables.update(loader.load_from_file(str(ROOT / "playbooks" / path), trusted_as_template=True))
    templar = Templar(loader=loader, variables=variables)
    data = {name: templar.template(variables[name]) for name in (*LISTS, "job_template_defaults", "awx_names")}
    data["job_templates"] = [{**data["job_template_defaults"], **template} for template in data["job_templates"]]
    data["questions"] = {question["variable"]: question for question in variables["x-survey"].values()}
    return data


DATA = rendered()
ENTRIES = [(module, entry) for name, module in LISTS.items() for entry in DATA[name]]
QUESTIONS = [
    (template["name"], question)
    for template in [*DATA["job_templates"], *DATA["workflow_job_templates"]]
    for question in template["survey_spec"]["spec"]
]


def names(kind: str) -> List[str]:
    return [entry.get("name") or entry["identifier"] for entry in DATA[kind]]


def caught(**kwargs: Any) -> None:
    raise Caught(**kwargs)


def validator(name: str) -> ArgumentSpecValidator:
    """That of the installed module, made of what its main() asks for."""
    module = importlib.import_module(f"ansible_collections.awx.awx.plugins.modules.{name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ControllerAPIModule", caught)
        with pytest.raises(Caught) as asked:
            module.main()
    return ArgumentSpecValidator(**asked.value.kwargs)


@pytest.mark.parametrize(
    ("module", "entry"), ENTRIES, ids=[f"{m}-{e.get('name') or e['identifier']}" for m, e in ENTRIES]
)
def test_the_module_of_awx_takes_it(module, entry):
    assert validator(module).validate(dict(entry)).error_messages == []


def test_an_option_that_the_module_has_not_is_found():
    entry = {**DATA["job_templates"][0], "ask_everything_on_launch": True, "job_type": "guess"}
    said = " ".join(validator("job_template").validate(entry).error_messages)
    assert "ask_everything_on_launch" in said
    assert "guess" in said


def test_the_playbook_sets_up_every_list_with_its_module():
    text = (ROOT / "playbooks/awx_setup.yml").read_text()
    for name, module in LISTS.items():
        assert re.search(rf"awx\.awx\.{module}:\n.*\n +loop: \"{{{{ {name} }}}}\"", text), name


@pytest.mark.parametrize("template", DATA["job_templates"], ids=lambda template: template["name"])
def test_what_a_job_template_names_is_there(template):
    assert template["organization"] in names("organizations")
    assert template["project"] in names("projects")
    assert template["inventory"] in names("inventories")
    assert template["execution_environment"] in names("execution_environments")
    assert set(template["credentials"]) <= set(names("credentials"))
    assert set(template["labels"]) <= set(names("labels"))
    assert (ROOT / template["playbook"]).is_file()
    assert not template["ask_variables_on_launch"], "an extra variable outranks every setting of the inventory"


def test_names_are_there_once():
    for name in LISTS:
        assert len(names(name)) == len(set(names(name))), name
    assert {DATA["awx_names"][name] for name in ("machine", "orchestrator", "redis", "vault")} == set(
        names("credentials")
    )


def test_what_the_resources_name_is_there():
    types = {"Machine", "Vault", *names("credential_types")}
    assert {credential["credential_type"] for credential in DATA["credentials"]} <= types
    for source in DATA["inventory_sources"]:
        assert source["inventory"] in names("inventories")
        assert source["source_project"] in names("projects")
        assert (ROOT / source["source_path"]).is_file()


def test_an_injected_variable_is_a_setting_and_its_field_must_be_filled_in():
    settings = yaml.safe_load((ROOT / "inventory/group_vars/all.yml").read_text())
    for kind in DATA["credential_types"]:
        fields = {field["id"] for field in kind["inputs"]["fields"]}
        assert all(field["secret"] for field in kind["inputs"]["fields"])
        # An empty field would be an empty variable, which outranks the inventory's.
        assert set(kind["inputs"]["required"]) == fields
        for variable, template in kind["injectors"]["extra_vars"].items():
            assert variable in settings
            assert re.fullmatch(r"{{ (\w+) }}", template).group(1) in fields


def test_no_secret_is_in_the_files():
    for credential in DATA["credentials"]:
        assert credential["inputs"] == {}
        assert credential["update_secrets"] is False
    tasks = [entry for task in SETUP["tasks"] for entry in task.get("block", [task])]
    task = next(task for task in tasks if "awx.awx.credential" in task)
    assert task["no_log"] is True


def test_a_workflow_runs_what_is_there_and_nothing_before_the_approval_changes_a_node():
    nodes = {node["identifier"]: node for node in DATA["workflow_job_template_nodes"]}
    templates = {template["name"]: template for template in DATA["job_templates"]}
    follows = {
        name: [other for kind in ("success_nodes", "failure_nodes", "always_nodes") for other in node.get(kind, [])]
        for name, node in nodes.items()
    }
    assert {node["workflow_job_template"] for node in nodes.values()} == set(names("workflow_job_templates"))
    assert {other for others in follows.values() for other in others} <= set(nodes)
    first = set(nodes) - {other for others in follows.values() for other in others}
    assert first == {"diagnose"}
    unapproved = set()
    queue = sorted(first)
    while queue:
        name = queue.pop()
        if "approval_node" not in nodes[name]:
            unapproved.add(name)
            queue += follows[name]
    changing = {
        name
        for name, node in nodes.items()
        if node.get("unified_job_template")
        and templates[node["unified_job_template"]]["ask_job_type_on_launch"]
        and node.get("job_type") != "check"
    }
    assert changing == {"recover"}
    assert not changing & unapproved
    for name, node in nodes.items():
        if "job_type" in node:
            assert templates[node["unified_job_template"]]["ask_job_type_on_launch"], name
    # An answer reaches a node only where its template asks the same.
    for workflow in DATA["workflow_job_templates"]:
        for question in workflow["survey_spec"]["spec"]:
            assert question == DATA["questions"][question["variable"]]


def test_a_schedule_gives_what_the_survey_asks_for():
    templates = {template["name"]: template for template in DATA["job_templates"]}
    for schedule in DATA["schedules"]:
        questions = {
            question["variable"]: question
            for question in templates[schedule["unified_job_template"]]["survey_spec"]["spec"]
        }
        assert set(schedule["extra_data"]) <= set(questions), schedule["name"]
        needed = {name for name, question in questions.items() if question["required"]}
        assert needed <= set(schedule["extra_data"]), schedule["name"]
        for name, value in schedule["extra_data"].items():
            assert isinstance(value, str)
            if value and "choices" in questions[name]:
                assert value in questions[name]["choices"]


def test_what_recovers_without_a_person_is_off_and_says_that_it_is():
    (alone,) = [
        schedule for schedule in DATA["schedules"] if schedule["unified_job_template"] == "Training | Full recovery"
    ]
    assert alone["enabled"] is False
    assert alone["extra_data"]["automatic"] == "true"


@pytest.mark.parametrize(("template", "question"), QUESTIONS, ids=[f"{t}-{q['variable']}" for t, q in QUESTIONS])
def test_a_question_offers_what_the_playbooks_take(template, question):
    name = question["variable"]
    choices = question.get("choices", [])
    assert question["default"] == "" or not choices or question["default"] in choices
    if name in ("config", "exclude"):
        return
    # A sentence for people; escalate.yml wants it on one line, and does nothing with it but tell it.
    if name == "reason":
        return
    # No text is left unchecked, and no choice is refused.
    if name not in _options.NAMES:
        assert question["type"] == "multiplechoice", f"{name} is checked nowhere"
        return
    for value in [*choices, question["default"]]:
        assert _options.refused_options({name: value}) == []
    if name in _options.RANGES:
        least, most = _options.RANGES[name]
        if question["type"] == "integer":
            assert (question["min"], question["max"]) == (least, most)


def test_the_whole_text_of_awx_has_no_secret_word():
    for path in sorted((ROOT / "awx").glob("*.yml")):
        assert not re.search(r"(password|token|key_data|url)\s*:\s*[\"']?[A-Za-z0-9+/]{20,}", path.read_text()), path

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is typed into a survey of AWX is refused in words, before any node is looked at."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
import yaml

from tests.integration.harness import ROOT, as_awx_hands_on, run

TEMPLATES = yaml.safe_load((ROOT / "awx/job_templates.yml").read_text())["job_templates"]
# Nodes that nothing answers for: a look at one of them would be seen.
INVENTORY = """---
training:
  hosts:
    node-1: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_connection: ssh}
coordinator:
  hosts:
    coordinator-1: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_connection: ssh}
"""
HOSTILE = {
    "injection": "hex8_2p; rm -rf /",
    "players": "hex8_9p",
    "template": "{{ lookup('pipe', 'touch ' ~ lookup('env', 'WITNESS')) }}",
    "newline": "hex8_2p\nhex8_2p",
    "newline at the end": "hex8_2p\n",
    "long": "hex8_2p" * 3000,
    "unicode": "hex８_2p",
    "number": 8,
}


def launch(folder: pathlib.Path, playbook: str, variables: dict, **extra: str):
    """Run it with extra variables as AWX hands them on; its exit status and its output on one line."""
    (folder / "hosts.yml").write_text(INVENTORY)
    (folder / "extravars").write_text(as_awx_hands_on(variables))
    done = run("ansible-playbook", "-i", str(folder / "hosts.yml"), "-e", f"@{folder / 'extravars'}", playbook, **extra)
    return done.returncode, re.sub(r"\s+", " ", done.stdout)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template["name"].rpartition("| ")[2])
def test_each_answer_of_the_wrong_kind_is_named_and_no_node_is_looked_at(tmp_path, template):
    witness = tmp_path / "witness"
    names = {question["variable"] for question in template["survey_spec"]["spec"]} - {"config", "exclude", "reason"}
    # Where it asks for nothing else, the config is the wrong one.
    bad = dict.fromkeys(names or {"config"}, HOSTILE["template"])
    rc, said = launch(tmp_path, template["playbook"], {"config": "hex8_2p", "exclude": "", **bad}, WITNESS=str(witness))
    assert rc != 0
    assert "Nothing was touched" in said
    # What a playbook checks of its own comes first, and alone.
    assert [name for name in bad if f"{name} is " in said] == (["fail_on"] if "fail_on" in names else list(bad))
    assert "UNREACHABLE" not in said
    assert not witness.exists()


# One run for all of them: the role is what each playbook begins with.
PLAY = """---
- hosts: training
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks: one.yml
      loop: "{{ cases }}"
      loop_control: {loop_var: case, label: "{{ case.name }}"}
    - ansible.builtin.copy:
        content: "{{ said | to_json }}"
        dest: "{{ playbook_dir }}/said.json"
      delegate_to: localhost
      run_once: true
"""
ONE = """---
- block:
    - ansible.builtin.include_role:
        name: ringrift.recovery.preflight
      vars:
        preflight_config: "{{ case.config }}"
        preflight_exclude: "{{ case.exclude | default('', true) | split(',') | map('trim') | select | list }}"
  rescue:
    - ansible.builtin.set_fact:
        said: "{{ said | default({}) | combine({case.name: why}) }}"
      vars:
        why: >-
          {{ ansible_failed_result.results | default([ansible_failed_result])
          | selectattr('failed', 'true') | map(attribute='msg') | first }}
"""


def test_config_and_nodes_of_every_wrong_kind(tmp_path):
    witness = tmp_path / "witness"
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "one.yml").write_text(ONE)
    cases = [
        {"name": f"config {name}", "config": value, "exclude": ""} for name, value in {"empty": "", **HOSTILE}.items()
    ]
    cases += [
        {"name": f"exclude {name}", "config": "hex8_2p", "exclude": value}
        for name, value in HOSTILE.items()
        # A newline at the end of a name is no part of it.
        if isinstance(value, str)
    ]
    cases.append({"name": "good", "config": "hex8_2p", "exclude": "coordinator-1"})
    (tmp_path / "cases").write_text(as_awx_hands_on({"cases": cases}))
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    done = run(
        "ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "-e", f"@{tmp_path / 'cases'}",
        str(tmp_path / "play.yml"), WITNESS=str(witness), ANSIBLE_COLLECTIONS_PATH=str(ROOT / "playbooks/collections"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert set(said) == {case["name"] for case in cases} - {"good"}
    for name, text in said.items():
        assert "Nothing was touched" in text, name
        assert "config is " in text if name.startswith("config") else "which is not in this inventory" in text, name
        # Also of a very long answer.
        assert len(text) < 500, name
    assert "UNREACHABLE" not in done.stdout
    assert not witness.exists()

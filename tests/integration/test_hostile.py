# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node says is shown, kept and handed on, and never obeyed, also where it holds a template."""

from __future__ import annotations

import json
import sys

import pytest

from tests.integration.harness import run
from tests.unit import diagnosis_samples

PYTHON = f"ansible_python_interpreter={sys.executable}"
FORMS = ("{{{{ lookup('pipe', 'touch {0}') }}}}", "{{% set x = lookup('pipe', 'touch {0}') %}}{{{{ x }}}}")
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ringrift.recovery.training_log:
        path: {log}
      register: seen
    - ansible.builtin.set_fact:
        kept: "{{{{ seen }}}}"
    - ansible.builtin.debug:
        msg: "{{{{ kept.lines | join(' ') }}}}"
"""


@pytest.mark.parametrize("form", FORMS, ids=["expression", "statement"])
def test_a_template_in_what_a_node_says_stays_text(tmp_path, form):
    """The whole diagnosis, from evidence in which every text of a log has the template."""
    marker = tmp_path / "obeyed"
    words = form.format(marker)
    _verdict, evidence = diagnosis_samples.small()
    evidence["hosts"]["runpod-h100"]["msg"] = words
    evidence["hosts"]["lambda-gh200-b"]["events"]["last"]["failed"]["error"] = words
    saved = tmp_path / "evidence.json"
    saved.write_text(json.dumps(evidence))
    assert json.dumps(words)[1:-1] in saved.read_text()
    done = run(
        "ansible-playbook", "-i", "inventory", "playbooks/diagnose.yml", "-e", "config=hex8_2p",
        "-e", f"evidence={saved}", "-e", f"ringrift_report_dir={tmp_path / 'reports'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "lookup(" in done.stdout
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMS, ids=["expression", "statement"])
def test_a_template_in_a_log_stays_text_when_it_is_registered_and_kept(tmp_path, form):
    marker = tmp_path / "obeyed"
    log = tmp_path / "training.log"
    log.write_text(f"RuntimeError: {form.format(marker)}\n")
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAY.format(log=log))
    done = run("ansible-playbook", "-i", "localhost,", "-c", "local", str(playbook), "-e", PYTHON)
    assert done.returncode == 0, done.stdout
    assert "lookup(" in done.stdout
    assert not marker.exists()

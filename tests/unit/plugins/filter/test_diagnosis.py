# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.filter import diagnosis

from tests.unit import diagnosis_samples as samples

FILTERS = diagnosis.FilterModule().filters()


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize("value", [None, "text", 3, ["list"], {}, {"findings": []}])
def test_anything_else_is_refused_by_name(name, value):
    with pytest.raises(AnsibleFilterError, match=f"ringrift.recovery.{name} needs what ringrift.recovery.verdict"):
        FILTERS[name](value)


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_another_schema_is_refused(name):
    with pytest.raises(AnsibleFilterError, match="is of schema 2; this version understands 1"):
        FILTERS[name]({**samples.small()[0], "schema": 2})


@pytest.mark.parametrize("name", ["evidence", "run"])
def test_page_refuses_what_is_no_dictionary(name):
    with pytest.raises(AnsibleFilterError, match=f"{name} is no dictionary but str"):
        FILTERS["diagnosis_html"](samples.small()[0], **{name: "evidence.json"})


@pytest.mark.parametrize("width", ["wide", [], float("inf")])
def test_table_refuses_a_width_that_is_none(width):
    with pytest.raises(AnsibleFilterError, match="it must be a number of columns, for example 120"):
        FILTERS["diagnosis_table"](samples.small()[0], width=width)


def test_table_takes_a_width_from_a_template():
    lines = FILTERS["diagnosis_table"](samples.small()[0], width="60")
    assert max(len(line) for line in lines if "ansible-playbook" not in line) <= 60


def test_every_filter_works_in_a_playbook(tmp_path, root):
    verdict, evidence = samples.small("{% raw %}<b>{% endraw %}")
    (tmp_path / "vars.json").write_text(json.dumps({"v": verdict, "e": evidence, "r": samples.run()}))
    content = (
        "{{ (v | ringrift.recovery.diagnosis_table(width=100)) | join('\n') }}\n"
        "{{ v | ringrift.recovery.diagnosis_metrics }}"
        "{{ v | ringrift.recovery.diagnosis_html(e, run=r) }}"
    )
    task = {"ansible.builtin.copy": {"content": content, "dest": str(tmp_path / "out"), "mode": "0600"}}
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-e", "@vars.json", "play.yml"]
    done = subprocess.run(
        [*command],
        cwd=tmp_path,
        env={
            "ANSIBLE_COLLECTIONS_PATH": str(root / "playbooks/collections"),
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "out").read_text()
    assert text.startswith("hex8_2p: training is STALLED\n")
    assert 'ringrift_recovery_training_state{config="hex8_2p",state="stalled"} 1' in text
    assert "last line of the log: &lt;b&gt;" in text
    assert text.rstrip().endswith("</html>")

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""awx_setup.yml against a stand-in for AWX: a dry run writes nothing, a run makes all, another changes nothing."""

from __future__ import annotations

import os
import re
import threading

import pytest

from tests.integration.awx_api import TOKEN, Server
from tests.integration.harness import RECAP, ROOT, run

IMAGE = "registry.example.com/ringrift/recovery-ee:0.1.0"


@pytest.fixture
def awx():
    server = Server(ROOT)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def set_up(server: Server, *words: str, token: str = TOKEN):
    """Run it; the process, and how many tasks changed something.

    It asks by HTTP alone. The authorities of this machine would be read for each request, a quarter of all the time.
    """
    done = run(
        "ansible-playbook", "playbooks/awx_setup.yml", "-e", f"awx_ee_image={IMAGE}", *words,
        CONTROLLER_HOST=server.url, CONTROLLER_OAUTH_TOKEN=token, SSL_CERT_FILE=os.devnull,
    )  # fmt: skip
    found = RECAP.search(done.stdout)
    return done, int(found.group(3)) if found else None


def test_all_of_it_is_made_once(awx):
    done, changed = set_up(awx, "--check")
    assert done.returncode == 0, done.stdout
    assert "is not there yet" in done.stdout
    assert "Training | Full recovery" in " ".join(done.stdout.split())
    assert awx.awx.writes == []

    secret = "the-key-of-the-test"
    inputs = f'{{"awx_machine_inputs": {{"username": "ubuntu", "ssh_key_data": "{secret}"}}}}'
    done, changed = set_up(awx, "-e", inputs)
    assert done.returncode == 0, f"{done.stdout}\n{awx.awx_refused}"
    assert changed > 10
    assert secret not in done.stdout
    made = awx.awx
    templates = made.named("job_templates")
    assert len(templates) >= 8
    for name, template in templates.items():
        changes = template["ask_job_type_on_launch"]
        assert template["job_slice_count"] == 1, name
        assert template["allow_simultaneous"] is not changes, name
        assert made.links("job_templates", name, "labels") == sorted(
            ["training-recovery", "changes-nodes" if changes else "only-looks"]
        )
        assert made.links("job_templates", name, "credentials") == ["Training | SSH key"]
        assert [question["variable"] for question in made.survey(name)["spec"]][0] == "config"
    assert made.named("credentials")["Training | SSH key"]["inputs"] == {
        "username": "ubuntu",
        "ssh_key_data": "$encrypted$",
    }
    assert not made.named("credentials")["Training | Redis"]["inputs"]
    kind = made.named("credential_types")["Training Redis"]
    # AWX renders it, not the run that sets AWX up.
    assert kind["injectors"] == {"extra_vars": {"ringrift_redis_url": "{{ url }}"}}
    follows = {
        name: {
            kind: made.links("workflow_job_template_nodes", name, f"{kind}_nodes")
            for kind in ("success", "always", "failure")
        }
        for name in made.named("workflow_job_template_nodes")
    }
    assert follows == {
        "diagnose": {"success": ["plan"], "always": [], "failure": []},
        "plan": {"success": ["approve"], "always": [], "failure": []},
        "approve": {"success": ["recover"], "always": [], "failure": []},
        "recover": {"success": [], "always": ["look_again"], "failure": []},
        "look_again": {"success": [], "always": [], "failure": []},
    }
    assert made.named("workflow_approval_templates")["Carry out the plan"]["timeout"] == 14400
    assert {name: plan["enabled"] for name, plan in made.named("schedules").items()} == {
        "Training | Look regularly": True,
        "Training | Recover by itself": False,
    }
    assert made.named("schedules")["Training | Recover by itself"]["extra_data"]["automatic"] == "true"

    made.writes.clear()
    done, changed = set_up(awx)
    assert done.returncode == 0, f"{done.stdout}\n{awx.awx_refused}"
    assert changed == 0, done.stdout
    assert made.writes == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-e", "awx_ee_image="), "awx_ee_image is empty"),
        (("-e", "controller_host="), "It is not known which AWX is meant"),
    ],
    ids=["image", "host"],
)
def test_what_is_missing_is_said_before_anything_is_written(awx, words, said):
    done = run(
        "ansible-playbook", "playbooks/awx_setup.yml", "-e", f"awx_ee_image={IMAGE}", *words,
        CONTROLLER_HOST="" if "host" in words[1] else awx.url, CONTROLLER_OAUTH_TOKEN=TOKEN,
    )  # fmt: skip
    assert done.returncode != 0
    assert said in re.sub(r"\s+", " ", done.stdout)
    assert awx.awx.writes == []

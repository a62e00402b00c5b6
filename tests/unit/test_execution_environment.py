# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment holds what the controller needs, in its versions, and ansible-builder makes its context."""

from __future__ import annotations

import json
import pathlib
import re

import ansible_collections.ansible.posix
import pytest
import yaml

from tests.integration.harness import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
EE = yaml.safe_load((ROOT / "execution-environment.yml").read_text())
COLLECTIONS = pathlib.Path(next(iter(ansible_collections.ansible.posix.__path__))).parents[1]


def pins(path: pathlib.Path) -> dict[str, str]:
    """The pinned versions of a file of requirements."""
    return dict(re.findall(r"^([a-z-]+)==(\S+)$", path.read_text(), re.M))


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("context")
    done = run("ansible-builder", "create", "--context", str(folder), "--output-filename", "Containerfile")
    assert done.returncode == 0, done.stdout
    return folder


def test_the_context_asks_for_what_is_named(context):
    build = context / "_build"
    assert pins(build / "requirements.txt") == pins(ROOT / "requirements/ee.txt")
    assert yaml.safe_load((build / "requirements.yml").read_text()) == yaml.safe_load(
        (ROOT / "collections/requirements.yml").read_text()
    )
    assert "openssh-clients" in (build / "bindep.txt").read_text()
    text = (context / "Containerfile").read_text()
    for word in (
        EE["images"]["base_image"]["name"],
        EE["dependencies"]["ansible_core"]["package_pip"],
        EE["dependencies"]["ansible_runner"]["package_pip"],
        EE["dependencies"]["python_interpreter"]["python_path"],
    ):
        assert word in text


def test_it_has_the_versions_that_the_controller_has():
    wanted = pins(ROOT / "requirements/controller.txt")
    has = pins(ROOT / "requirements/ee.txt")
    for name in ("ansible_core", "ansible_runner"):
        has.update([EE["dependencies"][name]["package_pip"].split("==")])
    # The package ansible is there for its collections alone; the next test is about those.
    del wanted["ansible"]
    assert has == wanted


def test_it_has_the_collections_that_the_controller_has():
    asked = yaml.safe_load((ROOT / "collections/requirements.yml").read_text())["collections"]
    for collection in asked:
        manifest = json.loads((COLLECTIONS / collection["name"].replace(".", "/") / "MANIFEST.json").read_text())
        assert collection["version"] == manifest["collection_info"]["version"]
    used = set()
    for folder in ("roles", "playbooks"):
        for path in (ROOT / folder).rglob("*.yml"):
            if "collections" not in path.parts and path.name != "awx_setup.yml":
                used |= set(re.findall(r"^\s*(?:- )?([a-z]+\.[a-z]+)\.[a-z_]+:", path.read_text(), re.M))
    assert used - {"ansible.builtin", "ringrift.recovery"} <= {collection["name"] for collection in asked}
    assert "ansible.posix" in used


def test_the_python_is_one_that_ansible_core_runs_on():
    assert EE["dependencies"]["python_interpreter"]["package_system"] in ("python3.11", "python3.12", "python3.13")


def test_a_collection_that_is_used_is_a_dependency():
    needed = set(yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"])
    used = set()
    for path in [
        *ROOT.glob("roles/*/tasks/*.yml"),
        *ROOT.glob("roles/*/handlers/*.yml"),
        *ROOT.glob("playbooks/*.yml"),
    ]:
        used |= set(re.findall(r"^\s*(?:- )?(\w+\.\w+)\.\w+:", path.read_text(), re.M))
    # awx_setup.yml alone needs awx.awx, and says so; whoever has no AWX does without.
    assert used - {"ansible.builtin", "ringrift.recovery", "awx.awx"} == needed
    listed = yaml.safe_load((ROOT / "collections/requirements.yml").read_text())["collections"]
    assert {entry["name"] for entry in listed} == needed
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in needed)

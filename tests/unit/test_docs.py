# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation names only what there is: pages, playbooks and their options, modules and their options."""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._finding import CAUSES

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")])
FRAGMENTS = ROOT / "plugins/doc_fragments"
# What Ansible itself takes as an extra variable, and settings of the inventory.
SETTINGS = set(yaml.safe_load((ROOT / "inventory/group_vars/all.yml").read_text()))


def commands(page: pathlib.Path) -> list[str]:
    """The lines of a page's console blocks that are typed, without what is only said of them."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.M | re.S)
    return [
        line[2:].split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


def words(page: pathlib.Path, tool: str) -> list[list[str]]:
    """The argument lists of a tool on a page."""
    found = [part for line in commands(page) for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in found if part.split()[:1] == [tool]]


def test_every_cause_has_its_page_and_its_line_in_the_table():
    assert {path.stem for path in ROOT.glob("docs/causes/*.md")} == set(CAUSES)
    table = (ROOT / "docs/diagnosis.md").read_text()
    for cause in CAUSES:
        assert f"`{cause}`" in table, cause


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_playbooks_and_their_options_exist(page):
    for argv in words(page, "ansible-playbook"):
        given = {value for option, value in zip(argv, argv[1:]) if option in ("-i", "-e", "-l")}
        name = next(word for word in argv if not word.startswith("-") and word not in given)
        name = name.rsplit("/", 1)[-1].removesuffix(".yml").rsplit(".", 1)[-1]
        path = ROOT / "playbooks" / f"{name}.yml"
        assert path.exists(), argv
        text = _whole(path)
        for option, value in zip(argv, argv[1:]):
            key = value.split("=")[0]
            if option == "-e" and not value.startswith(("@", "{")) and key not in SETTINGS:
                assert re.search(rf"\b{key}\b", text), f"{key} is no option of {path.name}: {' '.join(argv)}"


def _whole(path: pathlib.Path) -> str:
    """A playbook with what it imports, and the roles' own variables, which may be given too."""
    text = path.read_text()
    for play in yaml.safe_load(text):
        if "ansible.builtin.import_playbook" in play:
            text += _whole(path.parent / play["ansible.builtin.import_playbook"])
    roles = {name for name in re.findall(r"ringrift[.]recovery[.]([a-z_]+)", text) if (ROOT / "roles" / name).is_dir()}
    return text + "".join((ROOT / "roles" / name / "defaults/main.yml").read_text() for name in sorted(roles))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_their_options_exist(page):
    for argv in words(page, "ansible"):
        module = argv[argv.index("-m") + 1]
        if not module.startswith("ringrift.recovery."):
            continue
        path = ROOT / "plugins/modules" / f"{module.rsplit('.', 1)[-1]}.py"
        assert path.exists(), module
        document = yaml.safe_load(re.search(r'DOCUMENTATION = r"""(.*?)"""', path.read_text(), re.S).group(1))
        options = set(document.get("options", {}))
        for fragment in document.get("extends_documentation_fragment", []):
            # The last part may name one of several in a file.
            name = fragment.removeprefix("ringrift.recovery.").split(".")[0]
            options |= set(re.findall(r"^  ([a-z_0-9]+):$", (FRAGMENTS / f"{name}.py").read_text(), re.M))
        given = argv[argv.index("-a") + 1] if "-a" in argv else ""
        for pair in shlex.split(given):
            assert pair.split("=")[0] in options, f"{pair} is no option of {module}"

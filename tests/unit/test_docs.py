# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation names only what there is: pages, playbooks and their options, modules and their options, messages,
and commands, each of which is of a known kind and is tried as far as its kind can be."""

from __future__ import annotations

import ast
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Callable, NamedTuple

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._finding import CAUSES

from lab import seed
from lab.__main__ import parser as lab_parser
from tests.unit import npz_files
from tests.unit.doc_commands import PAGES, ROOT, Command, all_commands, commands

FRAGMENTS = ROOT / "plugins/doc_fragments"
# What Ansible itself takes as an extra variable, and settings of the inventory.
SETTINGS = set(yaml.safe_load((ROOT / "inventory/group_vars/all.yml").read_text()))


def words(page: pathlib.Path, tool: str) -> list[list[str]]:
    """The argument lists of a tool on a page."""
    return [command.argv[1:] for command in commands(page) if command.argv[0] == tool]


def test_every_cause_has_its_page_and_its_line_in_the_table():
    assert {path.stem for path in ROOT.glob("docs/causes/*.md")} == set(CAUSES)
    table = (ROOT / "docs/diagnosis.md").read_text()
    for cause in CAUSES:
        assert f"`{cause}`" in table, cause


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links(page):
        assert (page.parent / target).exists(), target


def links(page: pathlib.Path) -> list[str]:
    """What a page refers to by a path; its pictures, too."""
    return re.findall(r"""(?:\]\(|src="|srcset=")(?!https?:)([^)#"]+)""", page.read_text())


def test_what_a_shipped_page_refers_to_is_shipped_too():
    ignored = yaml.safe_load((ROOT / "galaxy.yml").read_text())["build_ignore"]

    def left_out(path: pathlib.Path) -> bool:
        parts = path.resolve().relative_to(ROOT)
        return any(parent.match(pattern) for parent in [parts, *parts.parents] for pattern in ignored)

    for page in PAGES:
        if not left_out(page):
            wrong = [target for target in links(page) if left_out(page.parent / target)]
            assert not wrong, f"{page.relative_to(ROOT)} refers to {wrong}, which galaxy.yml leaves out"


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
        module = argv[argv.index("-m") + 1] if "-m" in argv else ""
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


# What docs/troubleshooting.md quotes: in blocks "text" the collection and the lab, in blocks "output" Ansible.


def quotes(kind: str) -> list[str]:
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / "docs/troubleshooting.md").read_text(), re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


@functools.cache
def said(*patterns: str) -> list[str]:
    """Every text in these files, with … for what is put into it."""
    found = []
    for path in [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]:
        text = path.read_text()
        if path.suffix == ".py":
            found += _of_python(ast.parse(text))
        elif path.suffix == ".yml":
            found += [re.sub(r"\{\{.*?\}\}", "…", part, flags=re.S) for part in _of_yaml(yaml.safe_load(text))]
            # What an expression puts together.
            found += re.findall(r"'([^'\n]{12,})'", text)
        else:
            found += [f"setup: {part}" for part in re.findall(r'say "([^"]*)"', re.sub(r"\$\{?\w+\}?", "…", text))]
    return [" ".join(text.split()) for text in found]


def _of_python(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"%[rsd]|\{\d?\}", "…", node.value))
    return found


def _of_yaml(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _of_yaml(part)]
    if isinstance(value, list):
        return [text for part in value for text in _of_yaml(part)]
    return [value] if isinstance(value, str) else []


def unsaid(quote: str, texts: list[str]) -> list[str]:
    """The sentences of a quote that no text has."""
    wrong = []
    for sentence in re.split(r"(?<=[.:]) (?=[A-Z])", quote):
        pieces = [piece.strip(" .:,;()") for piece in sentence.split("…")]
        order = re.compile(".*".join(re.escape(piece) for piece in pieces if piece))
        if any(pieces) and not any(order.search(text) for text in texts):
            wrong.append(sentence)
    return wrong


@pytest.mark.parametrize("quote", quotes("text"))
def test_the_code_says_what_the_page_of_troubleshooting_quotes(quote):
    texts = said("plugins/**/*.py", "lab/**/*.py", "roles/**/*.yml", "playbooks/*.yml", "tools/setup.sh")
    assert not unsaid(quote, texts)


@pytest.mark.parametrize("quote", quotes("output"))
def test_ansible_says_what_the_page_of_troubleshooting_quotes(quote):
    import ansible

    files = ("cli/__init__.py", "parsing/mod_args.py", "plugins/loader.py")
    texts = [
        text for name in files for text in _of_python(ast.parse(pathlib.Path(ansible.__path__[0], name).read_text()))
    ]
    assert not unsaid(quote, texts)


# Commands


@functools.cache
def tried(*argv: str, folder: pathlib.Path = ROOT, **settings: str) -> str:
    """What a command prints that must end well."""
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    settings = {"PATH": path, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **settings}
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **settings}, timeout=120, check=False, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(argv)} ended with {done.returncode}: {done.stdout}"
    return done.stdout


def lists_its_tasks(folder: pathlib.Path, installed: pathlib.Path, *argv: str) -> None:
    # The name of a playbook in a collection is that of one which is installed.
    settings = {} if argv[0].endswith(".yml") else {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    assert "TAGS: [" in tried("ansible-playbook", *argv, "--list-tasks", folder=folder, **settings)


def of_playbook(command: Command, files: pathlib.Path) -> None:
    """The playbook is loaded with everything in it, for the nodes of the inventory, once for all its options."""
    argv = _with_inventory(command.argv[1:], files)
    pairs = list(zip(["", *argv], argv))
    values = [word for before, word in pairs if before in ("-i", "-e", "-l")]
    flags = [word for word in argv if word.startswith("-")]
    assert all(flag[:2] in ("-e", "-v") or flag in tried("ansible-playbook", "--help") for flag in flags), command.text
    (playbook,) = [word for word in argv if word not in values and word not in flags]
    folder = command.folder
    if playbook.endswith(".yml") and not (folder / playbook).exists():
        folder = ROOT / "playbooks"
    # These decide on which hosts it is; test_playbooks_and_their_options_exist looks at the others.
    kept = [part for before, word in pairs for part in (before, word) if before in ("-i", "-l")]
    kept += [part for word in values if word.startswith(("exclude=", "target=")) for part in ("-e", word)]
    lists_its_tasks(folder, files / "collections", playbook, *kept)


def of_module(command: Command, files: pathlib.Path) -> None:
    """On this machine it is carried out, on files as they are named; of nodes the inventory must know the pattern."""
    pattern, *rest = command.argv[1:]
    if pattern == "localhost":
        assert "| SUCCESS =>" in tried("ansible", "localhost", *rest, folder=files)
    else:
        assert "hosts (" in tried("ansible", pattern, "--list-hosts")


def as_it_is(command: Command, files: pathlib.Path) -> None:
    tried(*_with_inventory(command.argv, files))


def of_lab(command: Command, files: pathlib.Path) -> None:
    """The lab's own parser takes it; the commands themselves are what tests/integration runs."""
    argv = command.argv[3:] or ["--help"]
    if "--help" in argv:
        tried(*command.argv[:3], *argv)
    else:
        lab_parser().parse_args(argv)


def of_make(command: Command, files: pathlib.Path) -> None:
    """The target is there, and says what it would do."""
    assert tried("make", "-n", *command.argv[1:]).strip()
    targets = [word for word in command.argv[1:] if "=" not in word]
    given = " ".join(word.partition("=")[2] for word in command.argv[1:] if word.startswith("ARGS="))
    assert targets
    if given:
        script = {"bench": "benchmarks/files.py", "faults": "tests/faults/__main__.py",
                  "release-check": "tools/release_check.sh"}[targets[0]]  # fmt: skip
        _knows(script, given)


def of_script(command: Command, files: pathlib.Path) -> None:
    """It is there, and knows the options."""
    argv = [word for word in command.argv if word != "python"]
    script = argv[1].replace(".", "/") + "/__main__.py" if argv[0] == "-m" else argv[0]
    assert (ROOT / script).is_file()
    if script.endswith(".sh"):
        tried("sh", "-n", script)
        assert os.access(ROOT / script, os.X_OK)
        usage = re.search(r"usage: [^}]*", (ROOT / script).read_text()).group() if argv[1:] else ""
        assert all(re.search(rf"\b{word}\b", usage) for word in argv[1:]), command.text
    else:
        _knows(script, " ".join(argv))


def _knows(script: str, words: str) -> None:
    for option in re.findall(r"(?<!\S)--[a-z-]+", words):
        assert f'"{option}"' in (ROOT / script).read_text(), f"{script} has no option {option}"


def of_variables(command: Command, files: pathlib.Path) -> None:
    """Something of ours, or what we hand it on to, reads them."""
    known = {"LC_ALL", "CONTROLLER_HOST", "CONTROLLER_OAUTH_TOKEN"}
    text = "".join(path.read_text() for path in [*ROOT.glob("extensions/**/*.yml"), *ROOT.glob("extensions/**/*.py")])
    assert all(name in known or name in text for name in command.variables), command.text


def of_rulebook(command: Command, files: pathlib.Path) -> None:
    """It is in the collection; tests/integration/test_eda.py runs the real ansible-rulebook on it."""
    name = command.argv[command.argv.index("-r") + 1].rsplit(".", 1)[-1]
    assert (ROOT / "extensions/eda/rulebooks" / f"{name}.yml").is_file()


def of_pip(command: Command, files: pathlib.Path) -> None:
    """The file is there, or the version is the one that the tests use."""
    wanted = command.argv[command.argv.index("install") + 1 :]
    pinned = "\n".join(path.read_text() for path in ROOT.glob("requirements/*.txt"))
    if wanted[0] == "-r":
        assert (ROOT / wanted[1]).is_file()
    else:
        assert all(re.search(rf"\b{re.escape(word)}$", pinned, re.M) for word in wanted), command.text


def of_node(command: Command, files: pathlib.Path) -> None:
    """The example inventory has the node."""
    node = command.argv[-1] if command.argv[0] == "ssh-keygen" else command.argv[1]
    assert node == "NODE" or f" {node}:" in (ROOT / "inventory/hosts.yml").read_text(), command.text


def of_release(command: Command, files: pathlib.Path) -> None:
    """A release is made and installed with these options by a test."""
    _knows("tests/integration/test_signed_release.py", " ".join(command.argv))


class Kind(NamedTuple):
    """A kind of command: how it is known, and how it is tried; None for what is not, with the reason in ``about``."""

    about: str
    pattern: str
    trial: Callable[[Command, pathlib.Path], None] | None


KINDS = (
    Kind("the playbook is loaded with all its tasks", r"ansible-playbook ", of_playbook),
    Kind("carried out where it asks about files of this machine", r"ansible \S+ .*-m ", of_module),
    Kind("carried out", r"ansible --version$|ansible-(doc|inventory) ", as_it_is),
    Kind("its options are parsed", r"python -m lab\b", of_lab),
    Kind("the target is looked up", r"make ", of_make),
    Kind("the script knows the options", r"(python )?(benchmarks|tools|tests)/\S+|python -m tests\.", of_script),
    Kind("the variables are read somewhere", r"export ", of_variables),
    Kind("the rulebook is there", r"ansible-rulebook ", of_rulebook),
    Kind("the pins are those of the tests", r"(python -m )?pip install ", of_pip),
    Kind("the node is in the example inventory", r"ssh |ssh-keygen -R ", of_node),
    Kind(
        "a release is tried with the same options",
        r"gpg |ansible-galaxy collection (verify|install .*--signature)",
        of_release,
    ),
    Kind("not tried: commits, tags, or unpacks one file of a tarball", r"git (commit|tag) |tar -xzf build/", None),
    Kind("not tried: takes minutes; make release-check runs it", r"ansible-test ", None),
    Kind("not tried: installs Debian packages; tools/setup.sh does it in CI", r"apt-get ", None),
    Kind("not tried: asks Galaxy, or publishes to it", r"ansible-galaxy collection (install|publish) ", None),
    Kind("not tried: shows what is installed, which a checkout is not", r"ansible-galaxy collection list ", None),
    Kind("not tried: needs podman; test_execution_environment.py runs `create`", r"ansible-builder |podman ", None),
    Kind(
        "not tried: writes a release; `antsibull-changelog lint` is in tools/lint.sh",
        r"antsibull-changelog release",
        None,
    ),
    Kind("not tried: shows or deletes files of whoever reads", r"find ~/|ls -d /var/tmp/", None),
    Kind("not tried: of the service, or of Python itself", r"python (-m app\.|app/|-I\b)", None),
)
COMMANDS = {command.place + " " + command.text: command for command in all_commands()}


def kind_of(command: Command) -> Kind | None:
    return next((kind for kind in KINDS if re.match(kind.pattern, command.plain)), None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the commands name and the checkout does not have."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "models").mkdir()
    (folder / "data/training").mkdir(parents=True)
    npz_files.write(folder / "data/training/hex8_2p.npz")
    seed.install_service(folder)
    seed.make_canonical(folder, "hex8_2p")
    (folder / "collections/ansible_collections/ringrift").mkdir(parents=True)
    (folder / "collections/ansible_collections/ringrift/recovery").symlink_to(ROOT)
    hosts = {"one": {"ssh_host": "192.0.2.1", "role": "coordinator"}, "two": {"ssh_host": "192.0.2.2", "gpu": "H100"}}
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"hosts": hosts}))
    source = {"plugin": "ringrift.recovery.p2p", "hosts_file": str(folder / "hosts.yaml")}
    (folder / "fleet.p2p.yml").write_text(yaml.safe_dump(source))
    return folder


def _with_inventory(argv: list[str], files: pathlib.Path) -> list[str]:
    """With a fleet of the inventory plugin where one is named, and the example everywhere else."""
    return [str(files / "fleet.p2p.yml") if word == "inventory/fleet.p2p.yml" else word for word in argv]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_of_a_known_kind_and_can_be_typed(name, files):
    command = COMMANDS[name]
    kind = kind_of(command)
    assert kind, f"{command.place}: nothing tries {command.text!r}. Give it a place in KINDS."
    if kind.trial:
        kind.trial(command, files)


def test_every_kind_is_that_of_a_command():
    used = [kind_of(command) for command in COMMANDS.values()]
    assert not [kind.about for kind in KINDS if kind not in used]


def test_every_target_of_make_is_in_the_table_of_what_runs_where():
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    rows = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert set(targets) - {"help", "clean"} <= set(rows)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the documentation that only look, typed as they stand there, on a lab whose trainer was killed."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import tempfile

import pytest

from lab import cluster
from lab.nodes import driver_of
from tests.integration.conftest import netns_works
from tests.integration.harness import CONFIG, ROOT, Lab, run
from tests.unit.doc_commands import Command, all_commands

pytestmark = pytest.mark.lab

# Nodes that the lab has not are played by the one that it has.
NODE = "nebius-h100-3"
OTHERS = re.compile(r"\b(runpod-h100|lambda-gh200-b-new)\b")
LOOKS = re.compile(
    r"ansible-playbook (\S*/)?diagnose\.yml|ansible-playbook .*--check|ansible [a-z]\S* -m|ansible-inventory --graph"
    r"|python -m lab (status|inventory)"
)
# Not here are the fleet of a plugin, an AWX, a recovery to undo, and causes that were not broken. Files of this
# machine are for tests/unit/test_docs.py.
ELSEWHERE = re.compile(r"fleet\.p2p|awx_setup|rollback|cause=(?!lock_held)|ansible localhost")
# Of these options it makes a difference to have tried them; the others are tried where what they do is.
TELLING = re.compile(r"fail_on|evidence")


def chosen() -> dict[str, Command]:
    """The first command of each playbook and module, and of each telling option of it."""
    found: dict[tuple[str, ...], Command] = {}
    for command in all_commands():
        if LOOKS.match(command.plain) and not ELSEWHERE.search(command.plain):
            what = re.search(r"(\w+)\.yml|-m ([\w.]+(?: status| inventory)?)|--graph", command.plain).group()
            found.setdefault((what, *TELLING.findall(command.plain)), command)
    return {f"{command.place} {command.plain}": command for command in found.values()}


COMMANDS = chosen()
# Dry runs are what many other tests do, with the same options and more nodes.
DRY = pytest.mark.skipif("SOAK" not in os.environ, reason="other tests make dry runs; make soak types these too")


@pytest.fixture(scope="module")
def broken():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-test-", dir="/var/tmp"))
    one = Lab(directory, "netns" if netns_works() else "local")
    try:
        one("up", "--driver", one.driver, "--nodes", "1", "--config", CONFIG)
        one("break", "lock")
        one.play("diagnose")
        yield one
    finally:
        one("down")
        shutil.rmtree(directory, ignore_errors=True)


def typed(command: Command, lab: Lab) -> list[str]:
    """As it stands there, but for the inventory, the folder of the lab, and where files are."""
    argv = [OTHERS.sub(NODE, word) for word in command.argv]
    if lab.driver == "local":
        # There a node has no home of its own.
        instance = cluster.running(lab.directory)
        service = driver_of(instance).service(next(node for node in instance.nodes if node.name == NODE))
        argv = [word.replace("~/ringrift/ai-service", str(service)) for word in argv]
    if argv[0] == "python":
        return [*argv, "--dir", str(lab.directory)]
    evidence = next((lab.directory / "reports").glob("*-evidence.json"))
    argv = [f"evidence={evidence}" if word.startswith("evidence=") else word for word in argv]
    if "-i" in argv:
        place = argv.index("-i")
        del argv[place : place + 2]
    report = ["-e", f"ringrift_report_dir={lab.directory / 'reports'}"] if argv[0] == "ansible-playbook" else []
    return [*argv, "-i", str(lab.inventory), *report]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak, DRY] if "--check" in name else []) for name in COMMANDS],
)
def test_it_can_be_typed_as_it_stands_there(name, broken):
    command = COMMANDS[name]
    argv = typed(command, broken)
    folder = command.folder
    if argv[0] == "ansible-playbook" and not any((folder / word).is_file() for word in argv if word.endswith(".yml")):
        folder = ROOT / "playbooks"
    before = broken.trainers()
    done = run(*argv, cwd=folder)
    flat = " ".join(done.stdout.split())
    if "fail_on=" in command.plain:
        assert done.returncode == 2
        assert "FINDINGS (fail_on=critical)" in flat
    else:
        assert done.returncode == 0, done.stdout
    if "diagnose.yml" in command.plain:
        assert "training is STALLED" in flat
    assert broken.trainers() == before == []


def test_there_is_something_of_every_sort():
    plain = " ".join(command.plain for command in COMMANDS.values())
    for sort in ("diagnose.yml", "full_recovery.yml", "prevent.yml", "fix.yml", "-m ringrift", "-m lab status"):
        assert sort in plain

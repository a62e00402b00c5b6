# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to nodes, on every Python that a node may have.

``python -m tests.node_pythons`` runs the tests of the engines that are sent, on each Python of this machine, with the
packages of requirements/nodes.txt alone: a test that asks numpy or torch is skipped there, `make test` runs it.
``--few`` leaves out the long ones, takes few random examples, and of the cases of a test one in three, which are others
on each of three Pythons that follow each other; all Pythons but the oldest share the tests among them, too.
``--imports`` only loads what is sent. It ends with 1 when something failed, with 3 when nothing failed but a Python is
missing here, and says which.
"""

from __future__ import annotations

import argparse
import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional, Set, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
PACKAGES = ROOT / ".venv-nodes"
REQUIREMENTS = ROOT / "requirements/nodes.txt"
# What `make test` has besides, for its oracles; a node has none of it.
LEFT_OUT = {"ansible", "jsonschema", "numpy", "prometheus_client", "safetensors", "torch"}
TESTS = "tests/unit/plugins/module_utils"
ENGINES = "ansible_collections.ringrift.recovery.plugins.module_utils"
LOGS = ROOT / "build/node-pythons"
LIMIT = 3600.0
FEW = 10
SHARE = 3
LATER = VERSIONS[1:]
NOT_SEEN = 3

LOAD = r"""
import importlib, os, pathlib, sys, warnings

root = pathlib.Path(sys.argv[1])
sys.path[:0] = sys.argv[2:]
count = 0
for folder in ("module_utils", "modules"):
    for path in sorted((root / "plugins" / folder).glob("*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compile(path.read_text(encoding="utf-8"), str(path), "exec")
        importlib.import_module("ansible_collections.ringrift.recovery.plugins.%s.%s" % (folder, path.stem))
        count += 1
known = getattr(sys, "stdlib_module_names", None)
if known:
    ours = {"ansible", "ansible_collections", "__main__"}
    foreign = sorted(name for name in {name.partition(".")[0] for name in sys.modules} - set(known) - ours)
    assert not foreign, "loaded besides the standard library: %s" % ", ".join(foreign)
print("%d files loaded" % count)
"""


class Lacking:
    """Whatever imports one of these packages is skipped: the others find them, or they are not here."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in LEFT_OUT:
            import pytest

            pytest.skip(f"needs {name.partition('.')[0]}", allow_module_level=True)


def pytest_addoption(parser: Any) -> None:
    """This file is a plugin of pytest on the Pythons of nodes."""
    parser.addoption("--few", action="store_true", help=f"one case in {SHARE}, at most {FEW} random examples")


def pytest_configure() -> None:
    sys.meta_path.append(Lacking)


def pytest_collection_modifyitems(config: Any, items: List[Any]) -> None:
    if not config.getoption("--few"):
        return
    from hypothesis import settings

    items[:] = share(items, "{}.{}".format(*sys.version_info))

    # What a test says of itself comes before any profile, so it is changed where hypothesis keeps it.
    kept = "_hypothesis_internal_use_settings"
    for function in (getattr(item.obj, "__func__", item.obj) for item in items):
        asked = getattr(function, kept, None)
        if asked is not None:
            setattr(function, kept, settings(asked, max_examples=min(FEW, asked.max_examples)))


def share(items: List[Any], version: str) -> List[Any]:
    """Of each test every third case, beginning with another one on each Python, and at least one.

    What a Python does not have yet, the oldest has all tests for; what one no longer has is seen when all is loaded, so
    that the later ones have one test in five each.
    """
    cases: Dict[str, List[Any]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    groups = list(cases.values())
    if version in LATER:
        groups = groups[LATER.index(version) :: len(LATER)]
    first = int(version.partition(".")[2])
    taken = {id(item) for group in groups for item in group[first % min(SHARE, len(group)) :: SHARE]}
    return [item for item in items if id(item) in taken]


def interpreters() -> Dict[str, str]:
    """The interpreters of this machine by version; the one that runs the tests is always among them."""
    found = {"{}.{}".format(*sys.version_info): sys.executable}
    for version in VERSIONS:
        places = [shutil.which(f"python{version}")]
        places += sorted(map(str, pathlib.Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3")))
        for place in filter(None, places):
            done = subprocess.run(
                [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
            )
            if done.returncode == 0 and done.stdout.strip() == version:
                found.setdefault(version, place)
    return found


def load(python: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Import every engine and every module with nothing but the standard library and what Ansible sends along."""
    import ansible

    link = folder / "ansible"
    if not link.exists():
        link.symlink_to(pathlib.Path(str(ansible.__file__)).parent)
    words = [python, "-I", "-S", "-B", "-c", LOAD, str(ROOT), str(folder), str(ROOT / "playbooks/collections")]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def install() -> None:
    """Put the packages where every Python finds them; they are pure Python."""
    wanted = REQUIREMENTS.read_text()
    stamp = PACKAGES / "requirements.txt"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(PACKAGES, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--no-compile", "--target", str(PACKAGES), "-r", str(REQUIREMENTS)], check=True)
        stamp.write_text(wanted)


def engines(path: pathlib.Path) -> Set[str]:
    """The engines that a file imports; what it only takes an ARGUMENT_SPEC of runs on the controller."""
    found: Set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(ENGINES):
            names = {alias.name for alias in node.names}
            engine = node.module[len(ENGINES) + 1 :]
            found |= names if not engine else {engine} if names != {"ARGUMENT_SPEC"} else set()
    return found


def sent(modules: str = "*") -> Set[str]:
    """The engines that modules need on nodes; ``modules`` is a pattern of their names."""
    found: Set[str] = set()
    new = set().union(*(engines(path) for path in (ROOT / "plugins/modules").glob(f"{modules}.py")))
    while new:
        found |= new
        new = set().union(*(engines(ROOT / f"plugins/module_utils/{name}.py") for name in new)) - found
    return found


def tests_of_what_is_sent() -> List[str]:
    """The test files of those engines; one that is named after no engine is of those that it imports."""
    there = {path.stem for path in (ROOT / "plugins/module_utils").glob("_*.py")}
    wanted, found = sent(), []
    for path in sorted((ROOT / TESTS).glob("test_*.py")):
        named = path.stem[len("test") :]
        if ({named} if named in there else engines(path)) & wanted:
            found.append(str(path.relative_to(ROOT)))
    return found


def run_tests(python: str, files: List[str], *more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES), "PYTHONNOUSERSITE": "1"}
    words = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.node_pythons", *more, *files]
    return subprocess.run(
        words, cwd=ROOT, env=environment, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.node_pythons", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--imports", action="store_true", help="only load what is sent to nodes")
    parser.add_argument("--few", action="store_true", help="no soak, and few examples of each property")
    parser.add_argument("--python", action="append", choices=VERSIONS, help="only this version; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="Pythons at a time")
    parser.add_argument("files", nargs="*", help="only these test files")
    options = parser.parse_args(argv)
    found = interpreters()
    if not options.imports:
        install()
        files = options.files or tests_of_what_is_sent()
    few = ["--few", "-m", "not soak"] if options.few else []
    scratch = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"node-pythons-{os.getpid()}"
    scratch.mkdir()

    def one(version: str) -> Tuple[str, str]:
        python = found.get(version)
        if python is None:
            return "missing", "it is not on this machine, so nothing is known about it"
        begin = time.monotonic()
        try:
            done = load(python, scratch) if options.imports else run_tests(python, files, *few)
        except subprocess.TimeoutExpired as exc:
            return "failed", f"it was not done after {exc.timeout:g} s"
        said = (done.stdout + (done.stderr or "")).strip()
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"{version}.log").write_text(said)
        last = f"{said.splitlines()[-1] if said else 'it says nothing'}; {time.monotonic() - begin:.0f} s"
        if done.returncode and options.few:
            names = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.M)
            done = run_tests(python, names) if names else run_tests(python, files, *few)
            said += f"\n\nOnce more:\n{done.stdout}"
            (LOGS / f"{version}.log").write_text(said)
            if not done.returncode:
                return "passed", f"{last}; when run once more: {', '.join(names) or 'all of it'}"
        if done.returncode:
            where = f"All of it: {LOGS.relative_to(ROOT)}/{version}.log"
            return "failed", "\n".join([last, *re.findall(r"^(?:FAILED|ERROR) .*", said, re.M)[-20:], where])
        return "passed", last

    try:
        with ThreadPoolExecutor(1 if options.imports else options.jobs) as pool:
            versions = options.python or VERSIONS
            states = []
            for version, (state, words) in zip(versions, pool.map(one, versions)):
                print(f"Python {version}: {state}: {words}", flush=True)
                states.append(state)
    finally:
        shutil.rmtree(scratch)
    return 1 if "failed" in states else NOT_SEEN if "missing" in states else 0


if __name__ == "__main__":
    sys.exit(main())

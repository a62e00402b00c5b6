# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._node_gpu import look, may_have_nvml


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """A real one."""
    path = tmp_path_factory.mktemp("service") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True, timeout=120)
    return path


@pytest.fixture
def packages(venv):
    (found,) = venv.glob("lib/python*/site-packages")
    yield found
    shutil.rmtree(found)
    found.mkdir()


def test_one_without_it_is_not_asked(venv, packages, tmp_path):
    assert may_have_nvml(str(venv), "") is False
    report = look(str(venv.parent), str(tmp_path / "no-such-tool"), 1, 5)
    assert (report.nvml, [problem.code for problem in report.problems]) == (None, ["no_driver_tool"])


def test_one_that_has_it_is_asked(venv, packages):
    (packages / "pynvml.py").touch()
    assert may_have_nvml(str(venv), "") is True
    report = look(str(venv.parent), "no-such-tool", 1, 10)
    assert str(venv) in report.nvml or report.source == str(venv / "bin/python")


def test_it_may_be_named_by_a_path_file_or_the_environment(venv, packages, tmp_path):
    (tmp_path / "pynvml").mkdir()
    assert may_have_nvml(str(venv), f"/nowhere:{tmp_path}") is True
    (packages / "more.pth").write_text(f"import os\n{tmp_path}\n")
    assert may_have_nvml(str(venv), "") is True


def test_what_is_not_certain_is_asked(venv, tmp_path):
    assert may_have_nvml(str(tmp_path), "") is True
    settings = venv / "pyvenv.cfg"
    text = settings.read_text()
    settings.write_text(text.replace("false", "true"))
    assert may_have_nvml(str(venv), "") is True
    settings.write_text(text)

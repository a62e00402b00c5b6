# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[4]
NPZ = "/s/data/training/hex8_2p.npz"


@pytest.fixture
def report(tmp_path) -> pathlib.Path:
    published = {"changed": True, "path": NPZ, "previous": f"{NPZ}.previous", "sha256": "b" * 64}
    published["replaced"] = {"sha256": "a" * 64, "valid": True}
    about = {"schema": 1, "config": "hex8_2p", "check_mode": False, "run": "one", "at": "then", "fleet": {}}
    path = tmp_path / "20261128T104027Z-hex8_2p.json"
    path.write_text(json.dumps({**about, "nodes": {"n": {"publish_data": published}, "gone": {}}}))
    return path


def call(cwd: pathlib.Path, *words, **options):
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "ringrift.recovery.replaced_files", *words]
    environment = {**os.environ, "PWD": str(cwd)}
    done = subprocess.run(
        [*command, "-a", json.dumps({"config": "hex8_2p", **options})], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("run", ["", "one", "20261128T104027Z-hex8_2p", "20261128T104027Z-hex8_2p.json"])
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_the_run_is_found(tmp_path, report, run, check):
    """A relative path is meant as the shell would read it."""
    rc, said = call(tmp_path, *check, folder=str(tmp_path), run=run, hosts=["other"])
    assert rc == 0, said
    for words in ("one", str(report), f"{NPZ}.previous", "a" * 64, "left_out"):
        assert words in said, words
    assert "CHANGED" not in said


def test_no_report_is_an_error_with_a_way_on(tmp_path):
    rc, said = call(tmp_path, folder=str(tmp_path))
    assert rc != 0
    assert "-e run=FILE. Nothing was touched." in said

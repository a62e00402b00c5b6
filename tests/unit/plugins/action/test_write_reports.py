# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[4]


def write(*words, **options):
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "ringrift.recovery.write_reports", *words]
    done = subprocess.run(
        [*command, "-a", json.dumps(options)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_files_are_written_whole_and_anew(tmp_path):
    folder = tmp_path / "made"
    rc, said = write(folder=str(folder), files={"a.json": '{"a": 1}\n', "b.html": "<p>é"})
    assert (rc, (folder / "a.json").read_text(), (folder / "b.html").read_text()) == (0, '{"a": 1}\n', "<p>é")
    assert ((folder / "a.json").stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o640, 0o750)
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.html"]
    assert "CHANGED" not in said
    write(folder=str(folder), files={"a.json": "2"}, mode="0644")
    assert ((folder / "a.json").read_text(), (folder / "a.json").stat().st_mode & 0o777) == ("2", 0o644)


def test_check_mode_writes_nothing_and_says_where(tmp_path):
    rc, said = write("--check", folder=str(tmp_path / "made"), files={"a.json": "1"})
    assert (rc, list(tmp_path.iterdir())) == (0, [])
    assert str(tmp_path / "made/a.json") in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"files": {"../a": "1"}}, "no plain file name"),
        ({"files": {"a": {"b": 1}}}, "is no text"),
        ({"files": {"a": "1"}, "mode": "rw"}, "mode is"),
        ({"files": {"a": "1"}, "keep_days": -1}, "keep_days is -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, options, words):
    rc, said = write(folder=str(tmp_path / "made"), **options)
    assert rc != 0
    assert words in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    rc, said = write(folder=str(tmp_path / "file"), files={"a": "1"})
    assert rc != 0
    assert f"Could not write reports to {tmp_path / 'file'}" in said


OLD = "20240101T000000Z"
NEW = "20990101T000000Z"
NOW = "20981231T235959Z"


def test_what_is_outdated_is_removed_and_nothing_else(tmp_path):
    outdated = {f"{OLD}-hex8_2p-evidence.json", f"{OLD}-hex8_2p-diagnosis.json"}
    kept = {
        f"{NEW}-hex8_2p-evidence.json",
        f"{OLD}-hex8_3p-evidence.json",
        f"{OLD}-hex8_2p.json",
        f"{OLD}-hex8_2p-evidence.json.bak",
        "hex8_2p-evidence.json",
        "20249901Z-hex8_2p-evidence.json",
    }
    for name in (*outdated, *kept):
        (tmp_path / name).write_text("x")
    (tmp_path / f"{OLD}-hex8_2p-diagnosis.html").mkdir()
    written = {f"{NOW}-hex8_2p-{kind}": "1" for kind in ("evidence.json", "diagnosis.json", "diagnosis.html")}
    rc, said = write("--check", folder=str(tmp_path), files=written, keep_days=90)
    assert (rc, len(list(tmp_path.iterdir()))) == (0, 9)
    assert all(str(tmp_path / name) in said for name in outdated)
    rc, _said = write(folder=str(tmp_path), files=written)
    assert (rc, len(list(tmp_path.iterdir()))) == (0, 12)
    rc, said = write(folder=str(tmp_path), files=written, keep_days=90)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, *written, f"{OLD}-hex8_2p-diagnosis.html"}
    assert (rc, all(str(tmp_path / name) in said for name in outdated)) == (0, True)
    assert "CHANGED" not in said


def test_a_name_without_a_time_has_no_outdated_ones(tmp_path):
    (tmp_path / f"{OLD}-plan.json").write_text("x")
    assert write(folder=str(tmp_path), files={"plan.json": "1"}, keep_days=1)[0] == 0
    assert (tmp_path / f"{OLD}-plan.json").exists()

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from tests.unit.ansible_tasks import run_tasks


def reports(check=False, **options):
    return {"ringrift.recovery.write_reports": options, "check_mode": check}


def test_files_are_written_whole_and_anew(tmp_path):
    folder = tmp_path / "made"
    anew = str(tmp_path / "anew")
    (first, _there, second), _printed = run_tasks(
        tmp_path,
        [
            reports(folder=str(folder), files={"a.json": '{"a": 1}\n', "b.html": "<p>é"}),
            reports(folder=anew, files={"a.json": "1"}),
            reports(folder=anew, files={"a.json": "2"}, mode="0644"),
        ],
    )
    assert (folder / "a.json").read_text() == '{"a": 1}\n'
    assert (folder / "b.html").read_text() == "<p>é"
    assert ((folder / "a.json").stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o640, 0o750)
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.html"]
    assert (first["changed"], second["changed"]) == (False, False)
    written = tmp_path / "anew/a.json"
    assert (written.read_text(), written.stat().st_mode & 0o777) == ("2", 0o644)


def test_check_mode_writes_nothing_and_says_where(tmp_path):
    folder = tmp_path / "made"
    (result,), printed = run_tasks(tmp_path, [reports(check=True, folder=str(folder), files={"a.json": "1"})])
    assert (result.get("failed", False), folder.exists()) == (False, False)
    assert str(folder / "a.json") in printed


def test_what_cannot_be_meant_is_refused(tmp_path):
    bad = [
        ({"files": {"../a": "1"}}, "no plain file name"),
        ({"files": {"a": {"b": 1}}}, "is no text"),
        ({"files": {"a": "1"}, "mode": "rw"}, "mode is"),
        ({"files": {"a": "1"}, "keep_days": -1}, "keep_days is -1"),
    ]
    (tmp_path / "file").write_text("x")
    bad.append(({"folder": str(tmp_path / "file"), "files": {"a": "1"}}, f"Could not write reports to {tmp_path}/file"))
    folder = str(tmp_path / "made")
    results, _printed = run_tasks(tmp_path, [reports(**{"folder": folder, **options}) for options, _words in bad])
    for result, (options, words) in zip(results, bad, strict=True):
        assert result["failed"], options
        assert words in result["msg"]
    assert not (tmp_path / "made").exists()


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
        f"{OLD}-plan.json",
        "20249901Z-hex8_2p-evidence.json",
    }
    folder = tmp_path / "made"
    folder.mkdir()
    for name in (*outdated, *kept):
        (folder / name).write_text("x")
    (folder / f"{OLD}-hex8_2p-diagnosis.html").mkdir()
    written = {f"{NOW}-hex8_2p-{kind}": "1" for kind in ("evidence.json", "diagnosis.json", "diagnosis.html")}
    there = {path.name for path in folder.iterdir()}
    check = reports(check=True, folder=str(folder), files=written, keep_days=90)
    (would, _first), _printed = run_tasks(tmp_path, [check, reports(folder=str(folder), files=written)])
    assert {path.name for path in folder.iterdir()} == there | set(written)
    (removed, plan), _printed = run_tasks(
        tmp_path,
        [
            reports(folder=str(folder), files=written, keep_days=90),
            reports(folder=str(folder), files={"plan.json": "1"}, keep_days=1),
        ],
    )
    assert {path.name for path in folder.iterdir()} == {*kept, *written, "plan.json", f"{OLD}-hex8_2p-diagnosis.html"}
    for result in (would, removed):
        assert all(str(folder / name) in json.dumps(result) for name in outdated)
        assert (result["changed"], result.get("failed", False)) == (False, False)
    # A name without a time has no outdated ones.
    assert not plan.get("failed")

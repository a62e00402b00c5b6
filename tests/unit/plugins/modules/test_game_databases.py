# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import sqlite3

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import game_databases


def make(path: pathlib.Path, games: int) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE games (game_id TEXT, board_type TEXT, num_players INTEGER, winner INTEGER)")
    database.execute("CREATE TABLE game_moves (game_id TEXT, move_json TEXT)")
    database.executemany("INSERT INTO games VALUES (?, 'hex8', 2, 1)", [(f"g{index}",) for index in range(games)])
    database.commit()
    database.close()
    return path


@pytest.fixture
def run(capsys, tmp_path):
    def call(**more) -> dict:
        with patch_module_args({"config": "hex8_2p", "service_path": str(tmp_path), **more}), pytest.raises(SystemExit):
            game_databases.main()
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize("check", [True, False])
def test_counts_and_touches_nothing(run, tmp_path, check):
    path = make(tmp_path / "data/games/hex8_2p.db", 60)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    result = run(_ansible_check_mode=check)
    assert (result["changed"], result["games"], result["enough"]) == (False, 60, True)
    assert result["databases"] == [{"path": str(path), "games": 60, "problem": None}]
    assert before == {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}


def test_every_key_is_documented(run, tmp_path):
    make(tmp_path / "data/games/hex8_2p.db", 1)
    documented = yaml.safe_load(game_databases.RETURN)
    result = run()
    assert set(result) - {"changed", "invocation"} == set(documented)
    assert set(result["databases"][0]) == set(documented["databases"]["contains"])


def test_too_few_none_and_unknown(run, tmp_path):
    assert (run()["games"], run()["enough"]) == (0, False)
    make(tmp_path / "data/games/hex8_2p.db", 49)
    assert run()["enough"] is False
    assert run(min_games=49)["enough"] is True
    (tmp_path / "data/games/selfplay.db").write_bytes(b"damaged" * 99)
    result = run()
    assert (result["games"], result["enough"], result["uncounted"]) == (49, None, 1)
    assert run(patterns=["data/games/{config}.db"])["enough"] is False
    assert "seconds were over" in run(deadline=0)["incomplete"]


@pytest.mark.parametrize(
    ("change", "words"), [({"config": "x"}, "hex8_2p"), ({"service_path": "/nowhere"}, "Set service_path")]
)
def test_what_is_refused(run, change, words):
    result = run(**change)
    assert result["failed"] is True
    assert words in result["msg"]


def test_the_defaults_are_those_of_the_documentation():
    options = yaml.safe_load(game_databases.DOCUMENTATION)["options"]
    assert {name: option.get("default") for name, option in options.items()} == {
        "patterns": None,
        "min_games": 50,
        "deadline": 30,
    }

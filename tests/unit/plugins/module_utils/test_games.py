# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _games
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._games import count_games, count_in, find_databases
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.game_files import GAMES, MOVES, OLD_MOVES, make

HEX8 = parse_config("hex8_2p")


def tree(folder: pathlib.Path) -> dict:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "data" / "games" / "hex8_2p.db"


class TestCountIn:
    def test_a_database_of_the_real_service(self, real, tmp_path):
        copy = shutil.copy(real / "hex8_2p_games_moves.db", tmp_path)
        assert count_in(str(copy), HEX8).as_dict() == {"path": str(copy), "games": 6, "problem": None}
        assert os.listdir(tmp_path) == ["hex8_2p_games_moves.db"]
        assert count_in(str(copy), parse_config("hex8_3p")).games == 0

    def test_only_finished_games_of_the_config_count(self, path):
        rows = [("hex8", 2, 1, 7), ("hex8", 2, None, 3), ("hex8", 3, 1, 5), ("square8", 2, 2, 4), ("hex8", 2, 0, 1)]
        assert count_in(str(make(path, rows)), HEX8).games == 8

    @pytest.mark.parametrize(
        ("config", "games"), [("hexagonal_2p", 3), ("square8_2p", 5), ("square19_2p", 9), ("hex8_2p", 16)]
    )
    def test_other_names_of_a_board(self, path, config, games):
        rows = [("hex", 2, 1, 1), ("hexagonal", 2, 1, 2), ("sq8", 2, 1, 1), ("square8", 2, 1, 4)]
        rows += [("sq19", 2, 1, 1), ("square19", 2, 1, 8), ("hex8", 2, 1, 16)]
        assert count_in(str(make(path, rows)), parse_config(config)).games == games

    def test_moves_of_the_older_form(self, path):
        assert count_in(str(make(path, schema=(GAMES, OLD_MOVES))), HEX8).games == 60

    @pytest.mark.parametrize(
        ("schema", "words"),
        [
            ((GAMES,), "no table game_moves"),
            ((GAMES, "CREATE TABLE game_moves (game_id TEXT, moves TEXT)"), "neither move_json nor positions"),
            ((GAMES, "CREATE TABLE game_moves (move_type TEXT, position_q TEXT)"), "neither move_json nor positions"),
            ((MOVES,), "no table games"),
            (("CREATE TABLE games (game_id TEXT, board_type TEXT)", MOVES), "no num_players, winner"),
            ((), "no table games"),
        ],
    )
    def test_what_the_exporter_cannot_use_counts_as_none_and_says_why(self, path, schema, words):
        rows = (("hex8", 2, 1, 60),) if GAMES in schema else ()
        found = count_in(str(make(path, rows, schema)), HEX8)
        assert found.games == 0
        assert words in found.problem

    def test_an_empty_file_is_a_database_without_tables(self, path):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        assert count_in(str(path), HEX8).games == 0

    @pytest.mark.parametrize("content", [b"x", b"not a database at all " * 50, b"PK\x03\x04" * 1000])
    def test_something_else(self, path, content):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        found = count_in(str(path), HEX8)
        assert found.games is None
        assert "not an SQLite database" in found.problem

    @pytest.mark.parametrize("keep", [50, 100, 4096, 5000])
    def test_a_truncated_database(self, path, keep):
        make(path, [("hex8", 2, 1, 3000)])
        path.write_bytes(path.read_bytes()[:keep])
        found = count_in(str(path), HEX8)
        assert found.games is None
        assert "damaged" in found.problem

    def test_a_lost_page_never_makes_another_number(self, path):
        data = make(path, [("hex8", 2, 1, 700)]).read_bytes()
        unknown = 0
        for start in range(0, len(data), 4096):
            for content in (bytes(4096), bytes(random.Random(start).randrange(256) for _index in range(4096))):
                path.write_bytes(data[:start] + content + data[start + 4096 :])
                found = count_in(str(path), HEX8)
                assert (found.games, found.problem) == (700, None) or (found.games is None and found.problem)
                unknown += found.games is None
        assert unknown > 4

    @settings(max_examples=40, deadline=None)
    @given(st.binary(max_size=2000))
    @example(b"\x10\x00\x01\x02")
    @example(b"\x10\x00\x02\x01")
    def test_random_bytes_never_raise(self, tmp_path_factory, data):
        path = tmp_path_factory.mktemp("random") / "random.db"
        for head in (b"", b"SQLite format 3\0", b"SQLite format 3\0\x10\x00\x02\x02"):
            path.write_bytes(head + data)
            assert not count_in(str(path), HEX8).games
        assert os.listdir(path.parent) == ["random.db"]

    def test_a_database_that_went_away(self, path):
        found = count_in(str(path), HEX8)
        assert found.games is None
        assert "does not exist" in found.problem

    def test_a_name_with_special_characters(self, tmp_path):
        path = make(tmp_path / "a?b#c%20d&mode=rw.db")
        assert count_in(str(path), HEX8).games == 60


class TestNothingIsTouched:
    @pytest.mark.parametrize("wal", [True, False])
    def test_no_file_is_made_and_none_changes(self, path, wal):
        make(path, wal=wal)
        before = tree(path.parent)
        assert count_in(str(path), HEX8).as_dict() == {"path": str(path), "games": 60, "problem": None}
        assert tree(path.parent) == before

    def test_a_log_that_a_live_writer_still_holds_is_read(self, path):
        make(path, wal=True)
        writer = sqlite3.connect(path)
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("INSERT INTO games VALUES ('new', 'hex8', 2, 1)")
        writer.commit()
        names = sorted(os.listdir(path.parent))
        sizes = [os.path.getsize(path.parent / name) for name in names]
        assert count_in(str(path), HEX8).games == 61
        assert sorted(os.listdir(path.parent)) == names == ["hex8_2p.db", "hex8_2p.db-shm", "hex8_2p.db-wal"]
        assert [os.path.getsize(path.parent / name) for name in names] == sizes
        writer.close()

    def test_a_writer_in_the_middle_of_a_transaction_neither_waits_nor_is_waited_for(self, path):
        make(path, wal=True)
        writer = sqlite3.connect(path, timeout=0)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO games VALUES ('new', 'hex8', 2, 1)")
        begun = time.monotonic()
        assert count_in(str(path), HEX8).games == 60
        assert time.monotonic() - begun < 1.5
        writer.commit()
        assert count_in(str(path), HEX8).games == 61
        writer.close()

    def test_what_a_killed_writer_left_is_read(self, path):
        make(path, wal=True)
        self.crash(path)
        before = sorted(os.listdir(path.parent))
        assert count_in(str(path), HEX8).games == 61
        assert sorted(os.listdir(path.parent)) == before

    def test_a_log_without_its_index_is_said_to_be_left_out(self, path):
        make(path, wal=True)
        self.crash(path)
        pathlib.Path(f"{path}-shm").unlink()
        before = tree(path.parent)
        found = count_in(str(path), HEX8)
        assert found.games == 60
        assert "write-ahead log were not read" in found.problem
        assert tree(path.parent) == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_directory_that_cannot_be_written_to(self, path):
        make(path, wal=True)
        path.parent.chmod(0o500)
        try:
            assert count_in(str(path), HEX8).games == 60
        finally:
            path.parent.chmod(0o700)

    def crash(self, path: pathlib.Path) -> None:
        code = (
            f"import os, sqlite3\nw = sqlite3.connect({str(path)!r})\nw.execute('PRAGMA wal_autocheckpoint=0')\n"
            "w.execute(\"INSERT INTO games VALUES ('new', 'hex8', 2, 1)\")\nw.commit()\nos._exit(9)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 9


class TestUnknownIsNotNothing:
    def test_a_locked_database(self, path, monkeypatch):
        monkeypatch.setattr(_games, "BUSY", 0.1)
        make(path)
        writer = sqlite3.connect(path)
        writer.execute("BEGIN EXCLUSIVE")
        found = count_in(str(path), HEX8)
        assert found.games is None
        assert "locked" in found.problem
        writer.rollback()
        writer.close()
        assert count_in(str(path), HEX8).games == 60

    def test_a_slow_database(self, path):
        database = sqlite3.connect(make(path))
        database.execute("DROP TABLE games")
        # A view that never ends, in the place of a table that is too large.
        database.execute(
            "CREATE VIEW games AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT x AS winner, 'hex8' AS board_type, 2 AS num_players FROM n"
        )
        database.commit()
        database.close()
        begun = time.monotonic()
        found = count_in(str(path), HEX8, deadline=0.3)
        assert 0.2 < time.monotonic() - begun < 3
        assert found.games is None
        assert found.problem == "it gave no answer within 0.3 seconds"

    def test_a_database_that_changes_faster_than_it_can_be_read(self, path, monkeypatch):
        make(path, wal=True)
        real = _games._query

        def query(*args):
            answer = real(*args)
            with open(path, "ab") as file:
                file.write(b"\0")
            return answer

        monkeypatch.setattr(_games, "_query", query)
        assert count_in(str(path), HEX8).games is None

    def test_enough_is_unknown_when_something_was_not_counted(self, tmp_path):
        make(tmp_path / "data/games/hex8_2p.db", [("hex8", 2, 1, 10)])
        (tmp_path / "data/games/canonical_hex8.db").write_bytes(b"garbage" * 100)
        found = count_games(HEX8, str(tmp_path))
        assert (found.games, found.enough, found.uncounted) == (10, None, 1)
        assert found.as_dict()["databases"][0]["games"] is None
        assert count_games(HEX8, str(tmp_path), min_games=10).enough is True
        assert count_games(HEX8, str(tmp_path), patterns=["data/games/hex8_2p.db"]).enough is False

    def test_the_deadline_for_all_of_it(self, tmp_path):
        make(tmp_path / "data/games/hex8_2p.db")
        found = count_games(HEX8, str(tmp_path), deadline=0)
        assert (found.games, found.enough, found.databases) == (0, None, ())
        assert "seconds were over" in found.incomplete

    def test_more_databases_than_are_looked_into(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_games, "MAX_DATABASES", 3)
        for index in range(5):
            make(tmp_path / f"data/games/synced/{index}.db")
        found = count_games(HEX8, str(tmp_path), min_games=1000)
        assert (found.games, found.enough) == (180, None)
        assert "more than 3" in found.incomplete


class TestCountGames:
    PLACES = (
        "data/games/selfplay.db",
        "data/games/jsonl_aggregated.db",
        "data/games/hex8_2p.db",
        "data/games/hex8_2p_games_moves.db",
        "data/games/canonical_hex8.db",
        "data/games/gh200_hex8_2p_synced.db",
        "data/games/tournament_hex8_2p.db",
        "data/games/gauntlet_hex8_2p.db",
        "data/games/synced/a.db",
        "data/games/synced/node/deep/b.db",
        "data/games/fetched/c.db",
        "data/games/owc_imports/d.db",
        "data/selfplay/canonical_hex8_2p.db",
        "data/selfplay/unified_1/games.db",
        "data/selfplay/p2p/hex8_2p_x/s1/games.db",
        "data/selfplay/p2p_gpu/hex8_2p/s1/games.db",
        "data/selfplay/p2p_gpu/s1/hex8_2p/games.db",
        "data/selfplay/slurm_hex8_2p_7/games.db",
        "data/selfplay/slurm_7/hex8_2p/games.db",
        "data/training/x/harvested_games.db",
    )

    def test_the_places_that_the_service_knows(self, tmp_path):
        for place in (*self.PLACES, "data/games/square8_2p.db", "data/other/hex8_2p.db"):
            make(tmp_path / place, [("hex8", 2, 1, 1)])
        found = count_games(HEX8, str(tmp_path), min_games=len(self.PLACES))
        assert sorted(database.path for database in found.databases) == sorted(
            str(tmp_path / place) for place in self.PLACES
        )
        assert (found.games, found.enough) == (len(self.PLACES), True)

    def test_one_database_counts_once_whatever_leads_to_it(self, tmp_path):
        path = make(tmp_path / "data/games/canonical_hex8.db")
        (tmp_path / "data/games/hex8_link.db").symlink_to(path.name)
        os.link(path, tmp_path / "data/games/hex8_hard.db")
        (tmp_path / "data/games/hex8_dangling.db").symlink_to("nowhere")
        (tmp_path / "data/games/hex8_folder.db").mkdir()
        found = count_games(HEX8, str(tmp_path))
        assert (found.games, len(found.databases)) == (60, 1)

    def test_a_copy_counts_again(self, tmp_path):
        path = make(tmp_path / "data/games/hex8_2p.db")
        (tmp_path / "data/games/synced").mkdir()
        shutil.copy(path, tmp_path / "data/games/synced/copy.db")
        assert count_games(HEX8, str(tmp_path)).games == 120

    def test_patterns_of_one_s_own(self, tmp_path):
        make(tmp_path / "here/hex8-2.db")
        make(tmp_path / "here/hex8_2p.db")
        assert count_games(HEX8, str(tmp_path), patterns=["here/{board}-{players}.db"]).games == 60
        assert count_games(HEX8, str(tmp_path), patterns=["here/{config}.db", "here/*.db"]).games == 120

    def test_no_database_at_all(self, tmp_path):
        assert count_games(HEX8, str(tmp_path)).as_dict() == {
            "config": "hex8_2p",
            "service_path": str(tmp_path),
            "games": 0,
            "min_games": 50,
            "enough": False,
            "databases": [],
            "databases_found": 0,
            "uncounted": 0,
            "incomplete": None,
        }

    def test_no_service_is_not_no_games(self, tmp_path):
        with pytest.raises(MissingFileError, match="Set service_path"):
            count_games(HEX8, str(tmp_path / "none"))

    def test_a_service_in_a_directory_with_glob_characters(self, tmp_path):
        make(tmp_path / "[a]*" / "data/games/hex8_2p.db")
        assert count_games(HEX8, str(tmp_path / "[a]*")).games == 60

    def test_a_long_list_is_cut_with_what_matters_first(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_games, "LISTED", 2)
        for index, games in enumerate((1, 5, 3)):
            make(tmp_path / f"data/games/synced/{index}.db", [("hex8", 2, 1, games)])
        (tmp_path / "data/games/synced/broken.db").write_bytes(b"x")
        answer = count_games(HEX8, str(tmp_path)).as_dict()
        assert [entry["games"] for entry in answer["databases"]] == [None, 5]
        assert (answer["databases_found"], answer["games"]) == (4, 9)

    def test_files_are_found_in_a_stable_order(self, tmp_path):
        for name in "cab":
            make(tmp_path / f"data/games/synced/{name}.db")
        assert [
            os.path.basename(found) for found in find_databases(HEX8, str(tmp_path), ["data/games/synced/*.db"])
        ] == [
            "a.db",
            "b.db",
            "c.db",
        ]

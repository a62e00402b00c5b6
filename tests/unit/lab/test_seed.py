# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab puts into a service directory."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime, timezone

import numpy as np
import pytest

from lab import seed


def rows(path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    begun = time.monotonic()
    path = seed.seed_service(tmp_path_factory.mktemp("seed") / "ringrift" / "ai-service")
    return path, time.monotonic() - begun


class TestService:
    def test_is_quick(self, seeded):
        assert seeded[1] < 8  # well under one second on an idle machine

    def test_everything_is_there_and_nothing_else(self, seeded):
        path = seeded[0]
        assert {"app", "scripts", "data", "models", "checkpoints", "logs", "venv"} <= {p.name for p in path.iterdir()}
        assert {p.name for p in (path / "models").iterdir()} == {
            "canonical_hex8_2p.pth",
            "canonical_hex8_2p.pth.sha256",
        }
        assert [p.name for p in (path / "data/training").iterdir()] == ["hex8_2p.npz"]
        assert [p.name for p in (path / "data/games").iterdir()] == ["hex8_2p.db"]
        assert not any((path / "data/coordination").iterdir())
        assert not list(path.rglob("__pycache__"))

    def test_the_data_is_readable_by_others(self, seeded):
        assert (seeded[0] / "data/training/hex8_2p.npz").stat().st_mode & 0o777 == 0o644

    def test_one_sample_for_each_move(self, seeded):
        path = seeded[0]
        (count,) = rows(path / "data/games/hex8_2p.db", "SELECT COUNT(*) FROM game_moves")[0]
        with np.load(path / "data/training/hex8_2p.npz") as data:
            assert data["features"].shape == (count, 64, 9, 9)
            assert set(np.unique(data["values"])) == {-1.0, 1.0}
        assert 550 < count < 650

    def test_installing_again_keeps_the_data(self, seeded):
        before = (seeded[0] / "data/training/hex8_2p.npz").stat().st_mtime_ns
        seed.install_service(seeded[0])
        assert (seeded[0] / "data/training/hex8_2p.npz").stat().st_mtime_ns == before

    def test_the_virtual_environment_is_one_and_sees_numpy(self, seeded):
        path = seeded[0]
        code = "import sys, numpy; print(sys.prefix, sys.prefix != sys.base_prefix, numpy.__version__)"
        result = subprocess.run(
            [path / "venv/bin/python", "-c", code], capture_output=True, text=True, timeout=20, cwd=path, check=True
        )
        assert result.stdout.split() == [str(path / "venv"), "True", np.__version__]

    def test_the_trainer_runs_in_it(self, seeded, tmp_path):
        path = seeded[0]
        argv = ["-m", "app.training.train", "--board-type", "hex8", "--epochs", "1", "--checkpoint-dir", str(tmp_path)]
        result = subprocess.run(
            ["venv/bin/python", *argv, "--save-path", str(tmp_path / "model.pth")],
            cwd=path,
            env={**os.environ, "LAB_EPOCH_SECONDS": "0", "RINGRIFT_COORDINATION_DIR": str(tmp_path / "events")},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert result.returncode == 0, result.stderr


class TestGames:
    def content(self, path):
        return rows(path, "SELECT * FROM games ORDER BY game_id"), rows(
            path, "SELECT * FROM game_moves ORDER BY game_id, move_number"
        )

    def test_the_seed_makes_the_games(self, tmp_path):
        for name, number in (("a", 1), ("b", 1), ("c", 2)):
            seed.make_games(tmp_path / name, "hex8_2p", 5, number, now=1.8e9)
        assert self.content(tmp_path / "a") == self.content(tmp_path / "b") != self.content(tmp_path / "c")

    def test_games_can_be_added(self, tmp_path):
        seed.make_games(tmp_path / "db", "hex8_2p", 3, 1)
        seed.make_games(tmp_path / "db", "hex8_3p", 4, 1)
        assert rows(tmp_path / "db", "SELECT num_players, COUNT(*) FROM games GROUP BY 1") == [(2, 3), (3, 4)]

    def test_the_newest_game_has_just_ended(self, tmp_path):
        seed.make_games(tmp_path / "db", "square8_2p", 3, 1, now=1.8e9)
        (newest,) = rows(tmp_path / "db", "SELECT MAX(completed_at) FROM games")[0]
        age = 1.8e9 - datetime.fromisoformat(newest).replace(tzinfo=timezone.utc).timestamp()
        assert 0 <= age <= 60

    def test_schema_is_the_real_one(self, tmp_path, real):
        seed.make_games(tmp_path / "db", "hex8_2p", 1)

        def schema(path):
            text = "\n".join(sql for (sql,) in rows(path, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
            return re.sub(r"\s+", " ", re.sub(r"--.*", "", text))

        theirs = f"file:{real / 'hex8_2p_games_moves.db'}?immutable=1"
        with closing(sqlite3.connect(theirs, uri=True)) as connection:
            text = "\n".join(
                sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
            )
            (move,) = connection.execute("SELECT move_json FROM game_moves WHERE move_type = 'move_stack'").fetchone()
        assert schema(tmp_path / "db") == re.sub(r"\s+", " ", re.sub(r"--.*", "", text))
        (mine,) = rows(tmp_path / "db", "SELECT move_json FROM game_moves WHERE move_type = 'move_stack'")[0]
        keys = re.compile(r'"(\w+)":')
        assert keys.findall(mine) == keys.findall(move)

    @pytest.mark.parametrize("config", ["hex8", "hex8_5p", "chess_2p", "hex8_2p/../x", ""])
    def test_a_config_that_is_none_is_refused(self, tmp_path, config):
        with pytest.raises(ValueError, match="no config"):
            seed.make_games(tmp_path / "db", config)
        assert not (tmp_path / "db").exists()


class TestErrors:
    def test_training_data_without_games(self, tmp_path):
        seed.install_service(tmp_path)
        with pytest.raises(RuntimeError, match=r"export_replay_dataset.py .*exited with 1"):
            seed.make_npz(tmp_path, "hex8_2p")

    def test_the_same_seed_gives_the_same_model(self, seeded):
        path = seeded[0] / "models/canonical_square8_3p.pth"
        digests = []
        for number in (1, 1, 2):
            seed.make_canonical(seeded[0], "square8_3p", seed=number)
            digests.append(re.search(rb"checksum.{0,12}?([0-9a-f]{64})", path.read_bytes(), re.S)[1])
        path.unlink()
        path.with_name(path.name + ".sha256").unlink()
        assert digests[0] == digests[1] != digests[2]

    def test_another_python(self, tmp_path):
        python = seed.make_venv(tmp_path, sys.executable)
        assert python == tmp_path / "venv/bin/python"
        assert seed.make_venv(tmp_path) == python

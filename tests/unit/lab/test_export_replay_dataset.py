# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's exporter: exit codes that say nothing, files that do; and its likeness to the real exports."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sqlite3
import zipfile
from contextlib import closing

import numpy as np
import pytest

from tests.unit.lab.service_tree import Service, wait_for

OUTPUT = "data/training/hex8_2p.npz"
RUNBOOK = ["--use-discovery", "--board-type", "hex8", "--num-players", "2", "--output", OUTPUT]
SAMPLES = 598


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path / "ai-service")


@pytest.fixture
def output(service):
    return service.path / OUTPUT


def export(service: Service, *argv: str, **env: str):
    return service.run("scripts/export_replay_dataset.py", *RUNBOOK, *argv, **env)


def members(path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return [name.removesuffix(".npy") for name in archive.namelist()]


def kinds(path) -> dict[str, tuple]:
    with np.load(path, allow_pickle=True) as data:
        return {name: (data[name].dtype.str.rstrip("0123456789"), data[name].shape) for name in data.files}


class TestParallel:
    def test_exits_with_the_samples_and_writes_in_place(self, service, output):
        before = output.stat().st_ino
        result = export(service)
        assert result.returncode == SAMPLES % 256
        assert (output.stat().st_ino, output.stat().st_mode & 0o777) == (before, 0o644)
        assert kinds(output)["features"] == ("<f", (SAMPLES, 40, 9, 9))
        assert "data_checksums" not in members(output)

    def test_a_cache_hit_exits_with_0(self, service):
        assert export(service, "--use-cache").returncode == SAMPLES % 256
        result = export(service, "--use-cache")
        assert result.returncode == 0
        assert "[CACHE HIT]" in result.stderr


class TestSingleThreaded:
    def test_moves_the_old_output_away_and_renames(self, service, output):
        old = output.read_bytes()
        result = export(service, "--single-threaded")
        assert result.returncode == 0
        (archived,) = output.parent.glob("hex8_2p.npz.archived_*")
        assert re.fullmatch(r"hex8_2p\.npz\.archived_\d{8}_\d{6}", archived.name)
        assert archived.read_bytes() == old
        assert output.stat().st_mode & 0o777 == 0o600
        assert output.with_name("hex8_2p.npz.lock").exists()
        assert kinds(output)["features"] == ("<f", (SAMPLES, 64, 9, 9))
        assert [(kind, payload["samples_exported"]) for kind, payload, _ in service.events()] == [
            ("NPZ_EXPORT_COMPLETE", SAMPLES)
        ]

    def test_exits_with_0_when_it_is_locked_out_and_the_old_output_is_gone(self, service, output):
        with open(output.with_name("hex8_2p.npz.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = export(service, "--single-threaded")
        assert result.returncode == 0
        assert "[EXPORT SKIPPED] Another export is writing to" in result.stdout
        assert not output.exists()

    def test_exits_with_0_when_there_is_nothing_to_export(self, service, output):
        before = output.read_bytes()
        result = export(service, "--single-threaded", "--min-moves", "999")
        assert result.returncode == 0
        assert "No samples generated from 1 database(s)" in result.stdout
        assert output.read_bytes() == before

    def test_the_trainer_reads_either(self, service):
        for argv in ([], ["--single-threaded"]):
            export(service, *argv)
            result = service.train("--epochs", "1", "--save-path", "models/new.pth")
            assert result.returncode == 0, result.stderr


class TestKilled:
    def kill_while_it_writes(self, service, *argv, begun) -> None:
        command = service.argv("scripts/export_replay_dataset.py", *RUNBOOK, *argv)
        with service.start(command, LAB_EXPORT_SECONDS="30") as process:
            wait_for(begun, "the export to write")
            process.kill()

    def test_the_parallel_mode_leaves_half_a_file(self, service, output):
        self.kill_while_it_writes(service, begun=lambda: output.stat().st_size == 0)
        assert output.read_bytes() == b""

    def test_the_single_threaded_mode_leaves_none(self, service, output):
        staged = output.parent
        self.kill_while_it_writes(service, "--single-threaded", begun=lambda: list(staged.glob(".export_*.npz")))
        assert not output.exists()
        assert len(list(staged.glob("hex8_2p.npz.archived_*"))) == 1


class TestRefusals:
    def test_a_database_that_is_not_in_the_registry(self, service, output):
        before = output.read_bytes()
        shutil.copy(service.path / "data/games/hex8_2p.db", service.path / "data/games/tournament_hex8_2p.db")
        result = export(service)
        assert result.returncode == 1
        assert "Canonical source validation failed:\n- Database 'tournament_hex8_2p.db' not found in registry " in (
            result.stderr
        )
        assert output.read_bytes() == before
        assert export(service, "--allow-noncanonical").returncode == SAMPLES % 256

    def test_autonomous_mode_allows_it(self, service):
        (service.path / "TRAINING_DATA_REGISTRY.md").unlink()
        assert export(service).returncode == 1
        assert export(service, RINGRIFT_AUTONOMOUS_MODE="1").returncode == SAMPLES % 256

    @pytest.mark.parametrize(("argv", "code"), [([], 1), (["--allow-pending-gate"], SAMPLES % 256)])
    def test_a_status_that_is_not_canonical(self, service, argv, code):
        registry = service.path / "TRAINING_DATA_REGISTRY.md"
        registry.write_text(registry.read_text().replace("canonical**", "pending_gate**"))
        assert export(service, *argv).returncode == code

    def test_no_database(self, service):
        (service.path / "data/games/hex8_2p.db").unlink()
        result = export(service)
        assert result.returncode == 1
        assert "[DISCOVERY] No databases found for this configuration" in result.stdout

    def test_games_with_too_few_moves(self, service):
        with closing(sqlite3.connect(service.path / "data/games/hex8_2p.db")) as connection, connection:
            first = "(SELECT game_id FROM games ORDER BY game_id LIMIT 1)"
            connection.execute(f"DELETE FROM game_moves WHERE move_number > 2 AND game_id = {first}")
        result = export(service)
        assert result.returncode == 1
        assert "1/60 games have insufficient move data (<5 moves)" in result.stdout
        assert export(service, "--no-strict").returncode not in (0, 1)

    def test_an_argument_that_does_not_exist(self, service):
        assert export(service, "--none").returncode == 2


class TestLikeness:
    @pytest.fixture
    def exported(self, service, real):
        shutil.rmtree(service.path / "data/games")
        (service.path / "data/games").mkdir()
        shutil.copyfile(real / "hex8_2p_games_moves.db", service.path / "data/games/hex8_2p.db")
        return service

    def test_the_real_games_give_the_real_exit_code(self, exported):
        assert export(exported).returncode == 89

    @pytest.mark.parametrize(
        ("argv", "sample"),
        [([], "hex8_2p_parallel_40ch.npz"), (["--single-threaded"], "hex8_2p_single_64ch.npz")],
    )
    def test_members_and_types_are_the_real_ones(self, exported, output, real, argv, sample):
        export(exported, *argv)
        assert members(output) == members(real / sample)
        assert kinds(output) == kinds(real / sample)

    def test_scalars_are_the_real_ones(self, exported, output, real):
        export(exported, "--single-threaded")
        with np.load(output, allow_pickle=True) as mine, np.load(
            real / "hex8_2p_single_64ch.npz", allow_pickle=True
        ) as theirs:
            for name in theirs.files:
                if theirs[name].shape == () and name not in ("metadata", "data_checksums"):
                    assert mine[name] == theirs[name], name
            assert list(mine["metadata"].item()) == list(theirs["metadata"].item())
            assert mine["metadata"].item()["newest_game_time"] == theirs["metadata"].item()["newest_game_time"]
            assert list(json.loads(str(mine["data_checksums"]))) == list(json.loads(str(theirs["data_checksums"])))
            for name in ("phases", "move_types", "policy_values", "quality_score", "num_players", "opponent_elo"):
                assert sorted(mine[name].ravel().tolist()) == sorted(theirs[name].ravel().tolist()), name

    def test_checksums_are_made_as_the_real_ones(self, service, real):
        code = (
            "import sys; from app.training import train_pre_validation as v, data_quality as q; "
            "arrays = v.read_npz(sys.argv[1]); print(len(arrays), q.checksum_problems(arrays))"
        )
        result = service.run("-c", code, str(real / "hex8_2p_single_64ch.npz"))
        assert result.stdout == "32 []\n", result.stderr

    def test_the_trainer_trains_on_the_real_data(self, service, real):
        result = service.train("--epochs", "1", "--data-path", str(real / "hex8_2p_single_64ch.npz"))
        assert result.returncode == 0, result.stderr
        assert "Train size: 480, Val size: 121" in result.stderr


class TestNnue:
    ARGV = ("--db", "data/games/hex8_2p.db", "--board-type", "hex8", "--num-players", "2", "--epochs", "1")

    def test_trains(self, service):
        result = service.run("-m", "scripts.train_nnue", *self.ARGV)
        assert result.returncode == 0, result.stderr
        assert (service.path / "models/nnue/hex8_2p_auto.pt").exists()

    def test_does_not_know_the_flags_of_the_orchestrator(self, service):
        result = service.run("-m", "scripts.train_nnue", *self.ARGV, "--policy-label-smoothing", "0.05")
        assert result.returncode == 2
        assert "train_nnue.py: error: unrecognized arguments: --policy-label-smoothing 0.05" in result.stderr

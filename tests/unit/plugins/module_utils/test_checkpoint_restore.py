# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import resource
import shutil
import stat
import tempfile
import time
import traceback
import types

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic, _checkpoint
from ansible_collections.ringrift.recovery.plugins.module_utils import _checkpoint_restore as engine
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_restore import (
    NoCandidateError,
    RestoreRequest,
    restore,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

from tests.unit.checkpoint_files import content, flipped, save

NOW = 1_772_000_000.0
STAMP = "20260225T061320Z"
PATH = "models/checkpoint_hex8_2p.pth"
PATTERN = "checkpoints/*.pth"


def snapshot(folder: pathlib.Path) -> dict:
    """Everything about a tree that a write would change, the times of its directories included."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.lstat().st_ino,
            path.read_bytes() if path.is_file() else None,
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def names(folder: pathlib.Path) -> list:
    return sorted(entry.name for entry in folder.iterdir())


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    """Checkpoints of five epochs, the model in them and a checkpoint of another network; made once, then copied."""
    folder = tmp_path_factory.mktemp("made")
    for epoch in range(5):
        save(folder / f"checkpoint_epoch_{epoch + 1}.pth", content(epoch=epoch))
    model = content(epoch=2, metadata=True)
    save(folder / "canonical_hex8_2p.pth", {k: model[k] for k in ("model_state_dict", "_versioning_metadata")})
    save(folder / "other.pth", content(width=9))
    return folder


@pytest.fixture
def service(tmp_path, made):
    """A service directory: epochs 0 to 4 written a minute apart, and a path that is the last of them, cut short."""
    root = tmp_path / "ai-service"
    for name in ("models", "checkpoints"):
        (root / name).mkdir(parents=True)

    def put(name: str, place: str, minute: float) -> pathlib.Path:
        path = root / place
        shutil.copy(made / name, path)
        os.utime(path, (NOW - 6000 + 60 * minute,) * 2)
        return path

    epochs = [put(f"checkpoint_epoch_{n + 1}.pth", f"checkpoints/checkpoint_epoch_{n + 1}.pth", n) for n in range(5)]
    path = put("checkpoint_epoch_5.pth", PATH, 4)
    path.write_bytes(path.read_bytes()[:-700])
    return types.SimpleNamespace(root=root, put=put, epochs=epochs, path=path)


def request(service, *candidates: str, **options) -> RestoreRequest:
    options.setdefault("path", str(service.path))
    return RestoreRequest(candidates=candidates or (PATTERN,), root=str(service.root), **options)


class TestRestored:
    def test_damaged_file_is_replaced_by_the_newest(self, service):
        os.chmod(service.path, 0o640)
        before = service.path.read_bytes()
        result = restore(request(service, reason="diagnosis"), now=NOW)
        newest = service.epochs[4]
        assert service.path.read_bytes() == newest.read_bytes()
        assert stat.S_IMODE(service.path.stat().st_mode) == 0o640
        assert service.path.stat().st_mtime_ns == newest.stat().st_mtime_ns
        assert service.path.with_name(service.path.name + ".sha256").read_text() == (
            f"{sha256(newest)}  {service.path.name}\n"
        )
        moved = service.path.with_name(f"{service.path.name}.corrupt-{STAMP}")
        assert moved.read_bytes() == before
        assert result.as_dict() == {
            "changed": True,
            "restored": True,
            "msg": f"{service.path} comes from {newest} (epoch 4, 0 epochs lost), 1 files quarantined",
            "checkpoint": {
                "path": str(service.path),
                "epoch": 4,
                "sha256": sha256(newest),
                "size": newest.stat().st_size,
                "written_at": newest.stat().st_mtime,
                "format": "torch_zip",
            },
            "source": str(newest),
            "previous": None,
            "quarantined": [
                {
                    "path": str(service.path),
                    "to": str(moved),
                    "reason": result.quarantined[0].reason,
                    "sha256": hashlib.sha256(before).hexdigest(),
                }
            ],
            "replaced": {"sha256": hashlib.sha256(before).hexdigest(), "epoch": 4, "valid": False},
            "epochs_lost": 0,
            "candidates": [{"path": str(newest), "valid": True, "epoch": 4, "problems": []}],
        }
        record = json.loads(moved.with_name(f"{moved.name}.json").read_text())
        assert record["original"] == str(service.path)
        assert (record["sha256"], record["size"]) == (hashlib.sha256(before).hexdigest(), len(before))
        assert (record["requested"], record["time"]) == ("diagnosis", "2026-02-25T06:13:20Z")
        assert (record["epoch"], record["replaced_by"]) == (4, str(newest))
        assert [problem["code"] for problem in record["problems"]] == ["truncated"]
        assert names(service.path.parent) == [
            service.path.name,
            moved.name,
            f"{moved.name}.json",
            f"{service.path.name}.sha256",
        ]
        assert verify(str(service.path)).as_dict()["problems"] == []

    def test_second_run_changes_nothing(self, service):
        restore(request(service), now=NOW)
        before = snapshot(service.root)
        result = restore(request(service), now=NOW)
        assert (result.restored, result.source, result.epochs_lost) == (False, None, 0)
        assert result.as_dict()["checkpoint"]["sha256"] == sha256(service.path)
        assert snapshot(service.root) == before

    def test_check_mode_predicts_all_of_it_and_writes_nothing(self, service):
        for path in (service.epochs[4], service.epochs[3]):
            flipped(path, "data/0")
        pathlib.Path(f"{service.epochs[4]}.sha256").write_text("0" * 64)
        before = snapshot(service.root)
        predicted = restore(request(service), check_mode=True, now=NOW)
        assert snapshot(service.root) == before
        done = restore(request(service), now=NOW)
        assert predicted.as_dict() == done.as_dict()
        assert predicted.diff() == done.diff()
        assert restore(request(service), check_mode=True, now=NOW).as_dict() == restore(request(service)).as_dict()

    def test_damaged_candidates_on_the_way_are_moved_aside(self, service):
        for index in (4, 3):
            flipped(service.epochs[index], "data/0")
        pathlib.Path(f"{service.epochs[4]}.sha256").write_text("0" * 64)
        flipped(service.epochs[1], "data/0")  # older than the good one, so it is not looked at
        result = restore(request(service), now=NOW)
        assert result.source == str(service.epochs[2])
        assert result.epochs_lost == 2
        assert [entry.path for entry in result.quarantined] == [
            str(service.path),
            *map(str, (service.epochs[4], service.epochs[3])),
        ]
        assert names(service.root / "checkpoints") == [
            "checkpoint_epoch_1.pth",
            "checkpoint_epoch_2.pth",
            "checkpoint_epoch_3.pth",
            f"checkpoint_epoch_4.pth.corrupt-{STAMP}",
            f"checkpoint_epoch_4.pth.corrupt-{STAMP}.json",
            f"checkpoint_epoch_5.pth.corrupt-{STAMP}",
            f"checkpoint_epoch_5.pth.corrupt-{STAMP}.json",
            f"checkpoint_epoch_5.pth.corrupt-{STAMP}.sha256",
        ]
        record = json.loads((service.root / f"checkpoints/checkpoint_epoch_4.pth.corrupt-{STAMP}.json").read_text())
        assert record["problems"][0]["code"] == "crc_mismatch"
        assert record["replaced_by"] is None

    def test_missing_file(self, service):
        service.path.unlink()
        pathlib.Path(f"{service.path}.sha256").write_text("0" * 64)
        result = restore(request(service), now=NOW)
        assert (result.before, result.quarantined, result.epochs_lost) == (None, (), None)
        assert verify(str(service.path)).problems == ()
        assert names(service.path.parent) == [service.path.name, f"{service.path.name}.sha256"]

    def test_missing_file_and_a_damaged_candidate(self, service):
        """As on a node whose start point was never made: what the damaged checkpoint had is lost all the same."""
        service.path.unlink()
        flipped(service.epochs[4], "data/0")
        result = restore(request(service))
        assert (result.source, result.after.epoch, result.epochs_lost) == (str(service.epochs[3]), 3, 1)

    def test_dangling_link_and_link_to_a_damaged_file(self, service):
        service.path.unlink()
        service.path.symlink_to("nowhere")
        assert restore(request(service), now=NOW).restored
        assert not service.path.is_symlink()
        target = service.put("checkpoint_epoch_1.pth", "models/target.pth", 0)
        flipped(target, "data/0")
        service.path.unlink()
        service.path.symlink_to(target.name)
        damaged = target.read_bytes()
        result = restore(request(service, "models/*.pth", PATTERN), now=NOW)
        assert [entry.path for entry in result.quarantined] == [str(service.path)]
        assert not service.path.is_symlink()
        assert target.read_bytes() == damaged
        assert os.readlink(result.quarantined[0].to) == target.name

    def test_quarantine_name_that_is_taken(self, service):
        taken = f"{service.path}.corrupt-{STAMP}"
        pathlib.Path(taken).write_text("of an earlier run")
        assert restore(request(service), now=NOW).quarantined[0].to == f"{taken}.1"
        assert pathlib.Path(taken).read_text() == "of an earlier run"

    def test_dangerous_file_is_replaced(self, service):
        save(service.path, {**content(), "x": os.system})
        result = restore(request(service), now=NOW)
        assert result.quarantined[0].reason.startswith("dangerous_pickle")

    def test_diff(self, service):
        diff = restore(request(service), check_mode=True, now=NOW).diff()
        assert set(diff["before"]) == {str(service.path)}
        assert set(diff["after"]) == {str(service.path), f"{service.path}.corrupt-{STAMP}"}
        assert diff["before"][str(service.path)]["valid"] is False
        assert diff["after"][str(service.path)]["valid"] is True


class TestOrder:
    def test_patterns_in_order_then_newest_first(self, service):
        service.put("canonical_hex8_2p.pth", "models/canonical_hex8_2p.pth", 90)
        assert restore(request(service, PATTERN, "models/c*.pth"), check_mode=True).source == str(service.epochs[4])
        result = restore(request(service, "models/canonical_*.pth", PATTERN), check_mode=True)
        assert result.source == str(service.root / "models/canonical_hex8_2p.pth")
        os.utime(service.epochs[1], (NOW, NOW))
        assert restore(request(service), check_mode=True).source == str(service.epochs[1])

    def test_epoch_decides_between_files_of_one_moment(self, service):
        for path in service.epochs:
            os.utime(path, (NOW, NOW))
        service.epochs[0].rename(service.root / "checkpoints/zz.pth")
        assert restore(request(service), check_mode=True).source == str(service.epochs[4])

    def test_names_and_absolute_patterns(self, service):
        result = restore(request(service, "checkpoints/checkpoint_epoch_2.pth"), check_mode=True)
        assert result.source == str(service.epochs[1])
        result = restore(request(service, f"{service.root}/checkpoints/*_3.pth"), check_mode=True)
        assert result.source == str(service.epochs[2])

    def test_directory_with_pattern_characters(self, service):
        moved = service.root.rename(service.root.with_name("ai[1]*service"))
        asked = RestoreRequest(str(moved / PATH), (PATTERN,), str(moved))
        assert restore(asked, check_mode=True).source == str(moved / "checkpoints/checkpoint_epoch_5.pth")

    def test_what_is_no_candidate(self, service):
        folder = service.root / "checkpoints"
        good = service.epochs[4].read_bytes()
        for name in (
            "x.pth.tmp",
            f"x.pth.corrupt-{STAMP}",
            f"x.pth.corrupt-{STAMP}.1",
            "x.pth.sha256",
            ".x.pth.recovery-12-0123abcd",
        ):
            (folder / name).write_bytes(good)
        os.mkfifo(folder / "pipe.pth")
        (folder / "directory.pth").mkdir()
        (folder / "loop.pth").symlink_to("loop.pth")
        (folder / "itself.pth").symlink_to(service.path)
        os.link(service.path, folder / "same.pth")
        result = restore(request(service, "checkpoints/*", "checkpoints/.*"), check_mode=True)
        assert [entry.path for entry in result.candidates] == [str(service.epochs[4])]

    def test_candidate_behind_a_link_is_its_target_once(self, service):
        (service.root / "models/latest.pth").symlink_to(service.epochs[4])
        flipped(service.epochs[4], "data/0")
        result = restore(request(service, "models/latest.pth", PATTERN), now=NOW)
        assert [entry.path for entry in result.candidates] == list(map(str, (service.epochs[4], service.epochs[3])))
        assert not service.epochs[4].exists()


class TestUnfit:
    def unfit(self, service, name: str, **options) -> list:
        result = restore(request(service, f"checkpoints/{name}", PATTERN, **options), now=NOW)
        assert [entry.path for entry in result.quarantined] == [str(service.path)], "it is not damaged"
        assert result.candidates[0].path.endswith(name)
        assert result.candidates[-1].valid
        return [problem.code for problem in result.candidates[0].problems if problem.severity == "error"]

    def test_another_network(self, service):
        service.put("other.pth", "checkpoints/other.pth", 9)
        assert self.unfit(service, "other.pth") == ["different_model"]

    def test_another_network_beside_a_missing_file(self, service):
        """The names do not tell; the canonical model of the config does."""
        service.path.unlink()
        service.put("other.pth", "checkpoints/other.pth", 9)
        service.put("canonical_hex8_2p.pth", "models/canonical_hex8_2p.pth", 0)
        patterns = (PATTERN, "models/canonical_hex8_2p.pth")
        assert restore(request(service, *patterns), check_mode=True).source.endswith("other.pth")
        result = restore(request(service, *patterns, config=parse_config("hex8_2p")))
        assert result.source == str(service.epochs[4])
        assert [problem.code for problem in result.candidates[0].problems] == ["different_model"]

    def test_another_config(self, service):
        service.path.write_bytes(b"")
        service.put("canonical_hex8_2p.pth", "checkpoints/model.pth", 9)
        wanted = request(service, "checkpoints/model.pth", PATTERN, config=parse_config("square8_2p"))
        with pytest.raises(NoCandidateError) as caught:
            restore(wanted, now=NOW)
        first, *others = caught.value.candidates
        assert [problem.code for problem in first.problems] == ["other_config"]
        # Nothing tells for which config the trainer's own checkpoints are, and they must not be guessed at.
        assert {problem.code for entry in others for problem in entry.problems} == {"config_unknown"}

    def test_no_model(self, service):
        save(service.root / "checkpoints/c_early_stopping.pth", {"best_loss": 0.1, "counter": 3})
        assert self.unfit(service, "c_early_stopping.pth") == ["no_model"]

    def test_nan(self, service):
        saved = content()
        saved["model_state_dict"]["0.weight"][0, 0] = float("nan")
        save(service.root / "checkpoints/nan.pth", saved)
        assert self.unfit(service, "nan.pth") == ["not_finite"]

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script")
    def test_torchscript(self, service):
        import torch

        torch.jit.script(torch.nn.Linear(2, 2)).save(str(service.root / "checkpoints/script.pt"))
        assert "wrong_format" in self.unfit(service, "script.pt")

    def test_unreadable(self, service, monkeypatch):
        def look(path, **options):
            if path == str(service.epochs[4]):
                raise RecoveryError("the disk fails")
            return verify(path, **options)

        monkeypatch.setattr(engine, "verify", look)
        result = restore(request(service), now=NOW)
        assert result.source == str(service.epochs[3])
        assert [problem.code for problem in result.candidates[0].problems] == ["unreadable"]
        assert service.epochs[4].exists()

    def test_half_written_by_somebody(self, service):
        half = service.root / "checkpoints/incoming.pth"
        with half.open("wb") as writer:
            writer.write(service.epochs[4].read_bytes()[:1000])
            writer.flush()
            result = restore(request(service, "checkpoints/incoming.pth", PATTERN), now=NOW)
        assert [problem.code for problem in result.candidates[0].problems] == ["being_written"]
        assert half.exists()


class TestNothingGood:
    def test_nothing_is_touched(self, service):
        for path in service.epochs:
            flipped(path, "data/0")
        for check_mode in (True, False):
            before = snapshot(service.root)
            with pytest.raises(NoCandidateError) as caught:
                restore(request(service), check_mode=check_mode)
            assert snapshot(service.root) == before
            assert len(caught.value.candidates) == 5
            message = str(caught.value)
            assert "truncated" in message
            assert "crc_mismatch" in message
            assert "Nothing was changed" in message

    def test_no_match(self, service):
        with pytest.raises(NoCandidateError, match=r"no file under .* matches the candidates \(none/\*\.pth\)"):
            restore(request(service, "none/*.pth"))
        service.path.unlink()
        with pytest.raises(NoCandidateError, match="does not exist, and no file"):
            restore(request(service, "none/*.pth"))

    def test_path_that_is_a_directory_or_in_none(self, service):
        with pytest.raises(RecoveryError, match="it is a directory"):
            restore(request(service, path=str(service.root)))
        with pytest.raises(RecoveryError, match="there is no directory"):
            restore(request(service, path=str(service.root / "none/x.pth")))

    def test_path_that_is_being_written(self, service):
        message = f"process {os.getpid()} is writing it"
        with service.path.open("r+b"), pytest.raises(RecoveryError, match=message):
            restore(request(service))

    def test_many_bad_candidates(self, service, monkeypatch):
        monkeypatch.setattr(engine, "MAX_CANDIDATES", 2)
        for path in service.epochs[2:]:
            path.write_bytes(b"x")
        with pytest.raises(NoCandidateError, match="no candidate verified") as caught:
            restore(request(service))
        assert len(caught.value.candidates) == 2


class TestRefresh:
    def test_good_file_is_kept_without_it(self, service):
        service.put("checkpoint_epoch_2.pth", PATH, 1)
        before = snapshot(service.root)
        result = restore(request(service, "none*"))
        assert (result.restored, result.candidates) == (False, ())
        assert snapshot(service.root) == before

    def test_newer_candidate_replaces_a_good_file(self, service):
        service.put("checkpoint_epoch_2.pth", PATH, 1)
        old = service.path.read_bytes()
        predicted = restore(request(service, refresh=True), check_mode=True, now=NOW)
        result = restore(request(service, refresh=True), now=NOW)
        assert predicted.as_dict() == result.as_dict()
        assert (result.source, result.quarantined, result.epochs_lost) == (str(service.epochs[4]), (), 0)
        assert pathlib.Path(result.previous).read_bytes() == old
        before = snapshot(service.root)
        again = restore(request(service, refresh=True), now=NOW)
        assert (again.restored, again.candidates) == (False, ())
        assert snapshot(service.root) == before

    def test_what_was_chosen_once_is_kept_beside_a_newer_file_that_is_less_wanted(self, service):
        """The order of the patterns decides before the time: a second run finds what the first has chosen in place."""
        (service.root / "models/candidate_hex8_2p.pth").write_bytes(service.epochs[2].read_bytes())
        os.utime(service.root / "models/candidate_hex8_2p.pth", (NOW, NOW))
        wish = request(service, "checkpoints/checkpoint_epoch_*.pth", "models/candidate_*.pth", refresh=True)
        assert restore(wish, now=NOW).source == str(service.epochs[4])
        before = snapshot(service.root)
        again = restore(wish, now=NOW)
        assert (again.restored, again.source) == (False, None)
        assert snapshot(service.root) == before

    def test_damaged_newer_candidate_is_passed_over(self, service):
        service.put("checkpoint_epoch_4.pth", PATH, 3)
        flipped(service.epochs[4], "data/0")
        os.utime(service.epochs[4], (NOW, NOW))
        before = snapshot(service.root)
        result = restore(request(service, refresh=True), now=NOW)
        assert (result.restored, [entry.valid for entry in result.candidates]) == (False, [False])
        assert snapshot(service.root) == before

    def test_same_content_with_a_later_time(self, service):
        service.put("checkpoint_epoch_5.pth", PATH, 1)
        assert not restore(request(service, refresh=True)).restored


class TestEpochsLost:
    def test_unknown_epoch_of_the_damaged_file(self, service):
        service.path.write_bytes(b"")
        assert restore(request(service), check_mode=True).epochs_lost is None

    def test_unknown_epoch_of_a_damaged_candidate(self, service):
        service.epochs[4].write_bytes(b"")
        os.utime(service.epochs[4], (NOW, NOW))
        assert restore(request(service), check_mode=True).epochs_lost is None

    def test_unknown_epoch_of_the_restored_file(self, service, made):
        saved = {"model_state_dict": content()["model_state_dict"]}
        save(service.root / "models/canonical.pth", saved)
        assert restore(request(service, "models/canonical.pth"), check_mode=True).epochs_lost is None


class TestTrouble:
    def test_no_room(self, service, monkeypatch):
        monkeypatch.setattr(_atomic, "free_bytes", lambda path: 1 << 20)
        before = snapshot(service.root)
        with pytest.raises(RecoveryError, match="has 1048576 bytes free"):
            restore(request(service), check_mode=True)
        assert snapshot(service.root) == before
        with pytest.raises(RecoveryError, match="has 1048576 bytes free"):
            restore(request(service))
        assert names(service.path.parent) == [service.path.name]

    def test_disk_that_fills_up_meanwhile(self, service):
        before = service.path.read_bytes()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
            with pytest.raises(RecoveryError, match="Could not write"):
                restore(request(service))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert names(service.path.parent) == [service.path.name]
        assert service.path.read_bytes() == before

    def test_copy_that_is_not_what_was_read(self, service, monkeypatch):
        copy = _atomic.copy_beside

        def bad_memory(src, dest):
            staged = copy(src, dest)
            flipped(pathlib.Path(staged), "data/1")
            return staged

        monkeypatch.setattr(_atomic, "copy_beside", bad_memory)
        before = service.path.read_bytes()
        with pytest.raises(RecoveryError, match="is not what was verified"):
            restore(request(service))
        assert names(service.path.parent) == [service.path.name]
        assert service.path.read_bytes() == before

    @pytest.mark.parametrize("links", [True, False])
    @pytest.mark.parametrize("fails", ["_record", "replace_file"])
    def test_failure_after_the_quarantine_undoes_it(self, service, monkeypatch, links, fails):
        pathlib.Path(f"{service.path}.sha256").write_text("0" * 64)
        before = {path.name: path.read_bytes() for path in service.path.parent.iterdir()}

        def fail(*args):
            raise RecoveryError("no room for it")

        def no_link(*args, **options):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(engine if fails == "_record" else _atomic, fails, fail)
        if not links:
            monkeypatch.setattr(os, "link", no_link)
        with pytest.raises(RecoveryError, match="no room for it"):
            restore(request(service), now=NOW)
        assert {path.name: path.read_bytes() for path in service.path.parent.iterdir()} == before

    def test_file_system_without_hard_links(self, service, monkeypatch):
        def no_link(*args, **options):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", no_link)
        result = restore(request(service), now=NOW)
        assert verify(str(service.path)).valid
        assert verify(result.quarantined[0].to).as_dict()["problems"][0]["code"] == "truncated"

    def test_candidate_that_cannot_be_moved_is_a_warning(self, service, monkeypatch):
        flipped(service.epochs[4], "data/0")
        rename = os.rename

        def deny(source, target):
            if str(source) == str(service.epochs[4]):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            rename(source, target)

        monkeypatch.setattr(os, "rename", deny)
        result = restore(request(service), now=NOW)
        assert result.source == str(service.epochs[3])
        assert [entry.path for entry in result.quarantined] == [str(service.path)]
        assert "Could not quarantine" in result.warnings[0]
        assert not [name for name in names(service.root / "checkpoints") if "corrupt" in name]

    def test_read_only_directory(self, service):
        folder = pathlib.Path(tempfile.mkdtemp())
        try:
            shutil.copytree(service.root, folder / "ai-service")
            os.chmod(folder, 0o755)
            root = folder / "ai-service"
            os.chmod(root / "models", 0o555)
            asked = RestoreRequest(str(root / PATH), (PATTERN,), str(root))
            with unprivileged():
                for check_mode in (True, False):
                    with pytest.raises(RecoveryError, match=r"Could not write .*run it as the user who owns"):
                        restore(asked, check_mode=check_mode)
            assert names(root / "models") == [service.path.name]
            os.chmod(root / "models", 0o755)
            shutil.copy(service.epochs[4], root / PATH)
            os.chmod(root / "models", 0o555)
            with unprivileged():
                assert not restore(asked).restored
        finally:
            os.chmod(root / "models", 0o755)
            shutil.rmtree(folder)


@contextlib.contextmanager
def unprivileged():
    """Permissions do not bind root, so be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def forked(action) -> int:
    """Run something in a child process; returns its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child did not end")


class TestTwoAtOnce:
    def test_second_one_finds_the_work_done(self, service):
        flipped(service.epochs[4], "data/0")
        results = service.root.parent
        pids = []
        for number in range(3):
            pid = os.fork()
            if pid == 0:
                try:
                    outcome = restore(request(service), now=NOW).as_dict()
                    (results / f"{number}.json").write_text(json.dumps(outcome))
                except BaseException:
                    (results / f"{number}.json").write_text(json.dumps({"raised": traceback.format_exc()}))
                finally:
                    os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        outcomes = [json.loads((results / f"{number}.json").read_text()) for number in range(3)]
        assert not [outcome["raised"] for outcome in outcomes if "raised" in outcome]
        assert sorted(outcome["restored"] for outcome in outcomes) == [False, False, True]
        assert verify(str(service.path)).valid
        assert len([name for name in names(service.path.parent) if name.endswith(".json")]) == 1
        assert not [name for name in names(service.path.parent) if name.startswith(".")]

    def test_a_file_that_another_one_replaces_while_it_is_read_is_looked_at_again(self, service, monkeypatch):
        flipped(service.epochs[4], "data/0")
        look = _checkpoint._check_unchanged

        def replaced_meanwhile(path, before):
            monkeypatch.setattr(_checkpoint, "_check_unchanged", look)
            shutil.copy(service.epochs[3], f"{service.path}.new")
            os.replace(f"{service.path}.new", service.path)
            look(path, before)

        monkeypatch.setattr(_checkpoint, "_check_unchanged", replaced_meanwhile)
        outcome = restore(request(service))
        assert not outcome.restored
        assert verify(str(service.path)).valid

    def test_one_that_is_putting_the_file_in_place_is_waited_for(self, service):
        """It has the file open for writing for a moment, and is no trainer that writes."""
        flipped(service.epochs[4], "data/0")
        lock = service.path.with_name(f".{service.path.name}.restore.lock")
        with open(lock, "w") as held, open(service.path, "r+b"):
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(RecoveryError, match="another restore holds"):
                restore(request(service, lock_timeout=0.2))
        lock.unlink()
        assert restore(request(service)).restored

    def test_lock_that_is_held_too_long(self, service):
        lock = service.path.with_name(f".{service.path.name}.restore.lock")
        before = service.path.read_bytes()
        with lock.open("w") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            with pytest.raises(RecoveryError, match="another restore holds"):
                restore(request(service, lock_timeout=0.2))
            assert restore(request(service), check_mode=True).restored
        assert service.path.read_bytes() == before
        assert restore(request(service)).restored
        assert not lock.exists()


class TestKilled:
    """The process dies right before each of its steps that change something, one after the other."""

    STEPS = ("link", "rename", "replace", "unlink", "write", "fsync", "ftruncate", "fchmod")

    def test_next_run_completes_it(self, service, tmp_path):
        flipped(service.epochs[4], "data/0")
        pathlib.Path(f"{service.path}.sha256").write_text("0" * 64)
        pristine = tmp_path / "pristine"
        shutil.copytree(service.root, pristine)
        damaged = service.path.read_bytes()
        good = service.epochs[3].read_bytes()
        step = 0
        while True:
            shutil.rmtree(service.root)
            shutil.copytree(pristine, service.root)
            if forked(lambda limit=step: self.run_and_die(service, limit)) == 0:
                break
            assert service.path.read_bytes() in (damaged, good), f"killed before step {step}"
            result = restore(request(service, PATTERN, "models/*"), now=NOW + 60)
            assert service.path.read_bytes() == good
            assert verify(str(service.path)).valid
            assert not [name for name in names(service.path.parent) if name.startswith(".")], f"step {step}"
            assert result.source in (None, str(service.epochs[3]))
            kept = [name for name in names(service.path.parent) if ".corrupt-" in name and name.endswith("Z")]
            assert len(kept) == 1, f"killed before step {step}"
            assert (service.path.parent / kept[0]).read_bytes() == damaged
            record = json.loads((service.path.parent / f"{kept[0]}.json").read_text())
            assert record["sha256"] == hashlib.sha256(damaged).hexdigest()
            step += 1
        assert step > 12

    def test_the_only_witness_of_the_damage_survives(self, service, tmp_path):
        """A file without checksums inside: only its sidecar tells that it is damaged."""
        save(service.path, content(epoch=4), crc=False)
        pathlib.Path(f"{service.path}.sha256").write_text(f"{sha256(service.path)}  {service.path.name}\n")
        flipped(service.path, "data/0")
        damaged = service.path.read_bytes()
        pristine = tmp_path / "pristine"
        shutil.copytree(service.root, pristine)
        step = 0
        while True:
            shutil.rmtree(service.root)
            shutil.copytree(pristine, service.root)
            if forked(lambda limit=step: self.run_and_die(service, limit)) == 0:
                break
            if service.path.read_bytes() == damaged:
                assert not verify(str(service.path)).valid, f"killed before step {step}"
            restore(request(service, PATTERN, "models/*"), now=NOW + 60)
            assert service.path.read_bytes() == service.epochs[4].read_bytes()
            assert verify(str(service.path)).integrity == "verified"
            step += 1
        assert step > 8

    def run_and_die(self, service, limit: int) -> None:
        left = [limit]

        def deadly(function):
            def call(*args, **options):
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return function(*args, **options)

            return call

        for name in self.STEPS:
            setattr(os, name, deadly(getattr(os, name)))
        restore(request(service), now=NOW)

    def test_leftovers_beside_a_good_file_go_with_the_next_run(self, service):
        restore(request(service), now=NOW)
        leftover = service.path.with_name(f".{service.path.name}.recovery-{2**22 + 7}-0123abcd")
        leftover.write_bytes(b"half")
        lock = service.path.with_name(f".{service.path.name}.restore.lock")
        lock.touch()
        assert not restore(request(service), check_mode=True).restored
        assert leftover.exists()
        assert not restore(request(service)).restored
        assert not leftover.exists()
        assert not lock.exists()

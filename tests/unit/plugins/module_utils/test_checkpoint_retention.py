# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
from dataclasses import replace

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic, _checkpoint_files, _open_files
from ansible_collections.ringrift.recovery.plugins.module_utils import _checkpoint_retention as engine
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_retention import RetentionRequest, prune
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._proc import OpenFiles, open_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.checkpoint_files import content, flipped, save

pytestmark = pytest.mark.torch

EPOCHS = 12
HOUR = 3600.0


def labelled(config: str, epoch: int, width: int = 6) -> dict:
    """A checkpoint whose metadata name a config."""
    saved = content(epoch=epoch, width=width, metadata=True)
    board, players = config[:-1].rsplit("_", 1)
    saved["_versioning_metadata"]["config"].update(board_type=board, num_players=int(players))
    return saved


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    """Checkpoints of two networks, some of which say what they are for; made once, then copied."""
    folder = tmp_path_factory.mktemp("made")
    for epoch in range(EPOCHS):
        save(folder / f"a{epoch}", content(epoch=epoch))
        save(folder / f"b{epoch}", content(epoch=epoch, width=9))
        save(folder / f"hex8_2p-{epoch}", labelled("hex8_2p", epoch))
        save(folder / f"hex8_3p-{epoch}", labelled("hex8_3p", epoch))
        save(folder / f"square8_2p-{epoch}", labelled("square8_2p", epoch, width=9))
    nan = content(epoch=EPOCHS)
    nan["model_state_dict"]["0.weight"][0, 0] = float("nan")
    save(folder / "nan", nan)
    unknown = content()
    del unknown["epoch"]
    save(folder / "no-epoch", unknown)
    return folder


class Service:
    """A service directory that checkpoints are put into, with the time in minutes after a moment four hours ago."""

    def __init__(self, root: pathlib.Path, made: pathlib.Path):
        self.root = root
        self.made = made
        self.start = time.time() - 4 * HOUR
        (root / "models").mkdir()
        (root / "checkpoints").mkdir()

    def put(self, kind: str, place: str, minute: float) -> pathlib.Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.made / kind, path)
        return self.old(path, minute)

    def old(self, path: pathlib.Path, minute: float) -> pathlib.Path:
        os.utime(path, (self.start + 60 * minute,) * 2)
        return path

    def write(self, place: str, minute: float, data: bytes = b"x") -> pathlib.Path:
        path = self.root / place
        path.write_bytes(data)
        return self.old(path, minute)

    def epochs(self, count: int, kind: str = "a", folder: str = "checkpoints") -> list:
        return [self.put(f"{kind}{n}", f"{folder}/checkpoint_epoch_{n + 1}.pth", n) for n in range(count)]

    def request(self, *patterns: str, **options) -> RetentionRequest:
        return RetentionRequest(patterns=patterns or ("checkpoints/*.pth",), root=str(self.root), **options)

    def prune(self, *patterns: str, check_mode: bool = False, now=None, **options):
        return prune(self.request(*patterns, **options), check_mode, now)


@pytest.fixture
def service(tmp_path, made):
    return Service(tmp_path, made)


def names(paths) -> set:
    return {os.path.basename(getattr(path, "path", path)) for path in paths}


def left(folder: pathlib.Path) -> set:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def snapshot(folder: pathlib.Path) -> dict:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino, path.is_file() and path.read_bytes())
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def reasons(result) -> dict:
    return {os.path.basename(entry.path): entry.reason for entry in result.kept}


@pytest.fixture
def holder():
    """Another process that has a file open."""
    children = []

    def call(path: pathlib.Path, code: str = "open({path!r}, 'rb')") -> int:
        program = (
            f"import mmap, os, time; kept = {code.format(path=str(path))}; print('ready', flush=True); time.sleep(60)"
        )
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout.readline() == "ready\n"
        return child.pid

    yield call
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


class TestNewest:
    def test_last_five_stay_and_a_second_run_changes_nothing(self, service):
        paths = service.epochs(9)
        result = service.prune()
        assert names(result.pruned) == {f"checkpoint_epoch_{n}.pth" for n in (1, 2, 3, 4)}
        assert all(path.exists() is (n >= 4) for n, path in enumerate(paths))
        assert result.freed == sum((service.made / f"a{n}").stat().st_size for n in range(4))
        (group,) = result.groups
        assert (group.config, group.checkpoints, group.newest_verified) == (None, 9, str(paths[8]))
        assert reasons(result)["checkpoint_epoch_9.pth"] == "newest_verified"
        again = service.prune()
        assert (again.pruned, again.failed, again.warnings) == ((), (), ())

    @pytest.mark.parametrize("keep", [1, 3, 20])
    def test_keep(self, service, keep):
        service.epochs(6)
        assert len(service.prune(keep=keep).kept) == min(keep, 6)

    def test_a_copy_of_an_old_epoch_does_not_push_out_a_new_one(self, service):
        service.epochs(5)
        service.put("a0", "checkpoints/restored.pth", 50)
        result = service.prune(keep=2)
        assert left(service.root / "checkpoints") == {
            "restored.pth",
            "checkpoint_epoch_4.pth",
            "checkpoint_epoch_5.pth",
        }
        assert not service.prune(keep=2).pruned
        assert result.groups[0].newest_verified.endswith("restored.pth")

    def test_training_that_began_again_keeps_its_low_epochs(self, service):
        for n in range(4):
            service.put(f"a{n + 8}", f"checkpoints/old_{n}.pth", n)
            service.put(f"a{n}", f"checkpoints/new_{n}.pth", 10 + n)
        service.prune(keep=2)
        assert left(service.root / "checkpoints") == {"old_2.pth", "old_3.pth", "new_2.pth", "new_3.pth"}

    def test_unknown_epoch_goes_by_its_time(self, service):
        service.put("no-epoch", "checkpoints/first.pth", 0)
        service.epochs(3)
        service.put("no-epoch", "checkpoints/last.pth", 9)
        result = service.prune(keep=3)
        assert names(result.pruned) == {"first.pth"}
        assert reasons(result)["last.pth"] == "newest_verified"


class TestDamaged:
    def test_damaged_are_not_counted_and_stay_while_they_are_newer(self, service):
        paths = service.epochs(6)
        for path in paths[4:]:
            flipped(path, "data/0")
        result = service.prune(keep=2)
        assert names(result.pruned) == {"checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"}
        assert reasons(result) == {
            "checkpoint_epoch_3.pth": "newest",
            "checkpoint_epoch_4.pth": "newest_verified",
            "checkpoint_epoch_5.pth": "damaged",
            "checkpoint_epoch_6.pth": "damaged",
        }

    def test_damaged_beyond_the_newest_goes(self, service):
        paths = service.epochs(4)
        service.old(paths[0], 0)
        paths[0].write_bytes(paths[0].read_bytes()[:-600])
        service.old(paths[0], 0)
        result = service.prune(keep=2)
        assert [(entry.reason, os.path.basename(entry.path)) for entry in result.pruned] == [
            ("damaged", "checkpoint_epoch_1.pth"),
            ("beyond", "checkpoint_epoch_2.pth"),
        ]

    def test_nothing_verifies(self, service):
        for path in service.epochs(8):
            flipped(path, "data/0")
        service.write("checkpoints/x.pth.tmp", 0)
        before = snapshot(service.root)
        result = service.prune(keep=1)
        assert snapshot(service.root) == before
        assert set(reasons(result).values()) == {"no_verified"}
        assert not result.pruned
        assert "verifies, so none of them was pruned" in result.warnings[0]
        assert "verifies, so none of them was pruned" in result.summary()

    def test_tensors_that_hold_nan_do_not_count(self, service):
        service.epochs(3)
        for n in range(3):
            service.put("nan", f"checkpoints/diverged_{n}.pth", 10 + n)
        result = service.prune(keep=2)
        assert names(result.pruned) == {"checkpoint_epoch_1.pth"}
        assert reasons(result)["diverged_2.pth"] == "not_finite"

    def test_too_many_damaged(self, service, monkeypatch):
        monkeypatch.setattr(engine, "MAX_UNUSABLE", 2)
        paths = service.epochs(8)
        for path in paths[3:7]:
            flipped(path, "data/0")
        result = service.prune(keep=2)
        assert not result.pruned
        assert reasons(result)["checkpoint_epoch_1.pth"] == "not_verified"

    def test_what_cannot_be_read_stays(self, service, monkeypatch):
        paths = service.epochs(4)

        def deny(path, **options):
            if path in (str(paths[0]), str(paths[3])):
                raise RecoveryError("Could not read it.")
            return verify(path, **options)

        monkeypatch.setattr(engine, "verify", deny)
        result = service.prune(keep=1)
        assert reasons(result)["checkpoint_epoch_1.pth"] == reasons(result)["checkpoint_epoch_4.pth"] == "unreadable"
        assert names(result.pruned) == {"checkpoint_epoch_2.pth"}

    @pytest.mark.parametrize("data", [b"", b"PK", b"PK\x03\x04" + bytes(600), bytes(5000), b"\x80\x02}q\0.", b"hello"])
    def test_bad_files_stay(self, service, data):
        service.epochs(3)
        service.write("checkpoints/bad.pth", -60, data)
        result = service.prune(keep=1)
        assert reasons(result)["bad.pth"] in ("not_a_checkpoint", "config_unknown")
        assert len(result.pruned) == 2


class TestConfigs:
    def test_each_config_in_one_directory_keeps_its_own(self, service):
        for kind in ("hex8_2p-", "hex8_3p-", "square8_2p-"):
            for n in range(4):
                service.put(f"{kind}{n}", f"checkpoints/{kind}{n}.pth", n)
        result = service.prune(keep=2)
        assert {group.config: group.checkpoints for group in result.groups} == {
            "hex8_2p": 4,
            "hex8_3p": 4,
            "square8_2p": 4,
        }
        assert len(result.pruned) == 6
        assert left(service.root / "checkpoints") == {
            f"{kind}{n}.pth" for kind in ("hex8_2p-", "hex8_3p-", "square8_2p-") for n in (2, 3)
        }

    def test_networks_in_one_directory_keep_their_own(self, service):
        for kind in "ab":
            for n in range(3):
                service.put(f"{kind}{n}", f"checkpoints/{kind}{n}.pth", n)
        service.put("a9", "checkpoints/sub/a9.pth", 9)
        result = service.prune("checkpoints/**/*.pth", keep=1)
        assert len(result.groups) == 3
        assert left(service.root / "checkpoints") == {"a2.pth", "b2.pth", "sub/a9.pth"}

    def test_a_config_whose_network_tells(self, service):
        service.put("hex8_2p-9", "models/canonical_hex8_2p.pth", 0)
        service.put("square8_2p-9", "models/canonical_square8_2p.pth", 0)
        service.put("hex8_2p-3", "checkpoints/checkpoint_emergency_epoch_4.pth", 3.5)
        for kind in "ab":
            for n in range(4):
                service.put(f"{kind}{n}", f"checkpoints/{kind}{n}.pth", n)
        result = service.prune("checkpoints/*.pth", "models/*.pth", keep=2, config=parse_config("hex8_2p"))
        assert names(result.pruned) == {"a0.pth", "a1.pth"}
        assert {entry.config for entry in result.pruned} == {"hex8_2p"}
        assert [(group.config, group.checkpoints) for group in result.groups] == [("hex8_2p", 1), ("hex8_2p", 4)]
        assert reasons(result)["b0.pth"] == "other_config"
        assert reasons(result)["canonical_hex8_2p.pth"] == "canonical"

    def test_a_network_that_one_config_names_does_not_cost_another_one_its_last(self, service):
        service.epochs(3, folder="checkpoints/hex8_2p")
        for n in range(3):
            service.put(f"a{n}", f"checkpoints/run_of_another/{n}.pth", n - 60)
        service.prune("checkpoints/*/*.pth", keep=2)
        assert left(service.root / "checkpoints/run_of_another") == {"1.pth", "2.pth"}

    def test_a_network_of_two_configs_tells_nothing(self, service):
        service.put("hex8_2p-9", "models/canonical_hex8_2p.pth", 0)
        service.put("hex8_3p-9", "models/canonical_hex8_3p.pth", 0)
        service.epochs(5)
        for config in (None, parse_config("hex8_2p")):
            result = service.prune("checkpoints/*.pth", "models/*.pth", keep=1, config=config)
            assert not result.pruned
            assert reasons(result)["checkpoint_epoch_1.pth"] == "config_unknown"
            assert "hex8_2p, hex8_3p" in next(e.message for e in result.kept if e.reason == "config_unknown")

    def test_nothing_tells(self, service):
        service.epochs(5)
        result = service.prune(keep=1, config=parse_config("hex8_2p"))
        assert not result.pruned
        assert set(reasons(result).values()) == {"config_unknown"}
        assert "Add the canonical models" in result.warnings[0]

    def test_a_directory_named_after_the_config(self, service):
        service.epochs(3, folder="checkpoints/hex8_2p")
        service.epochs(3, folder="checkpoints/hex8_3p")
        service.put("hex8_3p-0", "checkpoints/hex8_2p/stray.pth", 0)
        result = service.prune("checkpoints/*/*.pth", keep=1, config=parse_config("hex8_2p"))
        assert names(result.pruned) == {"checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"}
        assert {pathlib.Path(entry.path).parent.name for entry in result.pruned} == {"hex8_2p"}
        assert reasons(result)["stray.pth"] == "other_config"

    def test_a_directory_above_the_service_tells_nothing(self, tmp_path, made):
        root = tmp_path / "hex8_2p"
        root.mkdir()
        service = Service(root, made)
        service.epochs(3)
        assert not service.prune(keep=1, config=parse_config("hex8_2p")).pruned


class TestNever:
    PATTERN = "checkpoints/*"

    def test_canonical(self, service):
        for n in range(4):
            service.put(f"hex8_2p-{n}", f"checkpoints/canonical_hex8_2p_{n}.pth", n)
        flipped(service.root / "checkpoints/canonical_hex8_2p_0.pth", "data/0")
        service.epochs(3)
        result = service.prune(self.PATTERN, keep=1)
        assert names(result.pruned) == {"checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"}

    @pytest.mark.parametrize(
        "name",
        [
            "c.pth.corrupt-20260225T061320Z",
            "c.pth.corrupt-20260225T061320Z.json",
            "c.pth.corrupt-1.tmp",
            "c.pth.previous",
        ],
    )
    def test_evidence_and_previous(self, service, name):
        path = service.put("a0", f"checkpoints/{name}", -600)
        service.epochs(3)
        result = service.prune(self.PATTERN, keep=1)
        assert path.exists()
        assert reasons(result)[name] in ("quarantined", "previous")
        assert len(result.pruned) == 2

    @pytest.mark.parametrize("code", ["open({path!r}, 'rb')", "open({path!r}, 'ab')"])
    def test_open(self, service, holder, code):
        paths = service.epochs(4)
        pid = holder(paths[1], code)
        result = service.prune(keep=1)
        assert names(result.pruned) == {"checkpoint_epoch_1.pth", "checkpoint_epoch_3.pth"}
        (entry,) = [entry for entry in result.kept if entry.reason == "open"]
        assert entry.message == f"process {pid} has checkpoint_epoch_2.pth open"

    def test_open_under_another_name(self, service, holder, tmp_path):
        paths = service.epochs(3)
        os.link(paths[0], tmp_path / "elsewhere")
        holder(tmp_path / "elsewhere")
        assert reasons(service.prune(keep=1))["checkpoint_epoch_1.pth"] == "open"

    def test_what_stands_beside_is_open(self, service, holder):
        paths = service.epochs(3)
        holder(service.write("checkpoints/checkpoint_epoch_1_early_stopping.pth", 0))
        assert reasons(service.prune(keep=1))["checkpoint_epoch_1.pth"] == "open"
        assert paths[0].exists()

    def test_mapped_but_closed(self, service, holder):
        paths = service.epochs(3)
        mapped = "mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)"
        holder(paths[0], f"[file := open({{path!r}}, 'rb'), {mapped}, os.closerange(3, 99)]")
        assert not open_files(
            {_checkpoint_files.FoundFile(str(paths[0]), paths[0].stat(), False).place: str(paths[0])}
        ).holders
        assert reasons(service.prune(keep=1))["checkpoint_epoch_1.pth"] == "open"

    def test_open_in_a_process_that_cannot_be_seen(self, service, holder, monkeypatch):
        paths = service.epochs(3)
        holder(paths[0])
        monkeypatch.setattr(_open_files, "open_files", lambda wanted: OpenFiles({}, (1,)))
        result = service.prune(keep=1)
        assert reasons(result)["checkpoint_epoch_1.pth"] == "open"
        assert names(result.pruned) == {"checkpoint_epoch_2.pth"}

    def test_neither_proc_nor_the_kernel_tells(self, service, monkeypatch):
        service.epochs(3)

        def deny(fd, command, argument=0):
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(_open_files, "open_files", lambda wanted: OpenFiles({}, (1, 2)))
        monkeypatch.setattr(fcntl, "fcntl", deny)
        result = service.prune(keep=1)
        assert not result.pruned
        assert reasons(result)["checkpoint_epoch_1.pth"] == "may_be_open"
        assert "may not see the open files of 2 processes" in result.unseen
        assert "become" in result.warnings[0]
        monkeypatch.setattr(_open_files, "open_files", lambda wanted: OpenFiles({}))
        assert len(service.prune(keep=1).pruned) == 2

    def test_no_proc(self, service, monkeypatch):
        def fail(wanted):
            raise RecoveryError("/proc cannot be listed.")

        service.epochs(3)
        monkeypatch.setattr(_open_files, "open_files", fail)
        result = service.prune(keep=1)
        assert result.unseen == "/proc cannot be listed."
        assert len(result.pruned) == 2

    def test_symlinks_and_what_they_point_at(self, service):
        paths = service.epochs(6)
        (service.root / "checkpoints/latest.pth").symlink_to("checkpoint_epoch_1.pth")
        (service.root / "checkpoints/unmatched").symlink_to(paths[1])
        (service.root / "models/start.pth").symlink_to("../checkpoints/checkpoint_epoch_3.pth")
        (service.root / "checkpoints/broken.pth").symlink_to("nowhere")
        result = service.prune(keep=1)
        assert names(result.pruned) == {"checkpoint_epoch_4.pth", "checkpoint_epoch_5.pth"}
        assert reasons(result)["latest.pth"] == reasons(result)["broken.pth"] == "symlink"
        for n in (1, 2, 3):
            assert reasons(result)[f"checkpoint_epoch_{n}.pth"] == "link_target"

    def test_behind_a_link_that_a_wildcard_found(self, service, tmp_path):
        service.epochs(3, folder="archive")
        (service.root / "checkpoints/more").symlink_to("../archive")
        assert not service.prune("checkpoints/**/*.pth", keep=1).pruned
        assert not service.prune("checkpoints/*/*.pth", keep=1).pruned
        result = service.prune("checkpoints/more/*.pth", keep=1)
        assert len(result.pruned) == 2

    def test_recent(self, service):
        paths = service.epochs(3)
        os.utime(paths[0])
        service.put("a9", "checkpoints/newest.pth", 239.9)
        service.put("a8", "checkpoints/newer.pth", 300)
        result = service.prune(keep=1)
        assert reasons(result)["checkpoint_epoch_1.pth"] == "recent"
        assert names(result.pruned) == {"checkpoint_epoch_2.pth", "checkpoint_epoch_3.pth"}

    def test_other_kinds_of_files(self, service):
        service.epochs(3)
        service.write("checkpoints/README.md", 0)
        os.mkfifo(service.root / "checkpoints/pipe.pth")
        (service.root / "checkpoints/folder.pth").mkdir()
        save(service.root / "checkpoints/list.pth", [1, 2])
        service.old(service.root / "checkpoints/list.pth", -60)
        result = service.prune(self.PATTERN, keep=1)
        assert len(result.pruned) == 2
        assert reasons(result)["README.md"] == reasons(result)["list.pth"] == "not_a_checkpoint"

    def test_outside_of_the_patterns(self, service):
        service.epochs(4)
        for n in range(3):
            service.put(f"a{n}", f"checkpoints/other_{n}.pth", n)
        service.write("checkpoints/other.pth.tmp", 0)
        service.prune("checkpoints/checkpoint_*.pth", keep=1)
        assert left(service.root) == {
            "checkpoints/checkpoint_epoch_4.pth",
            *(f"checkpoints/other_{n}.pth" for n in range(3)),
            "checkpoints/other.pth.tmp",
        }


class TestBeside:
    def test_goes_with_its_checkpoint(self, service):
        service.epochs(3)
        for n in (1, 3):
            service.write(f"checkpoints/checkpoint_epoch_{n}.pth.sha256", 0)
            save(service.root / f"checkpoints/checkpoint_epoch_{n}_early_stopping.pth", {"best": 1.0})
            service.old(service.root / f"checkpoints/checkpoint_epoch_{n}_early_stopping.pth", 0)
        result = service.prune(keep=1)
        assert [(os.path.basename(entry.path), entry.reason) for entry in result.pruned] == [
            ("checkpoint_epoch_1.pth.sha256", "companion"),
            ("checkpoint_epoch_1_early_stopping.pth", "companion"),
            ("checkpoint_epoch_1.pth", "beyond"),
            ("checkpoint_epoch_2.pth", "beyond"),
        ]
        assert left(service.root / "checkpoints") == {
            "checkpoint_epoch_3.pth",
            "checkpoint_epoch_3.pth.sha256",
            "checkpoint_epoch_3_early_stopping.pth",
        }

    def test_alone_stays(self, service):
        service.epochs(3)
        save(service.root / "checkpoints/gone_early_stopping.pth", {"best": 1.0})
        service.write("checkpoints/gone.pth.sha256", 0)
        service.prune("checkpoints/*", keep=3)
        assert {"gone_early_stopping.pth", "gone.pth.sha256"} <= left(service.root / "checkpoints")


class TestHardLinks:
    def test_freed_bytes_are_those_of_the_last_name(self, service, tmp_path):
        paths = service.epochs(4)
        os.link(paths[0], tmp_path / "elsewhere")
        os.link(paths[1], service.root / "checkpoints/second.pth")
        predicted = service.prune(keep=2, check_mode=True)
        result = service.prune(keep=2)
        assert predicted == result
        assert {os.path.basename(entry.path) for entry in result.pruned} == {
            "checkpoint_epoch_1.pth",
            "checkpoint_epoch_2.pth",
            "second.pth",
        }
        assert {os.path.basename(entry.path): entry.freed for entry in result.pruned}["checkpoint_epoch_1.pth"] == 0
        assert result.freed == (service.made / "a1").stat().st_size
        assert (tmp_path / "elsewhere").exists()

    def test_two_names_count_as_one(self, service):
        paths = service.epochs(4)
        os.link(paths[3], service.root / "checkpoints/best.pth")
        result = service.prune(keep=2)
        assert names(result.kept) == {"checkpoint_epoch_4.pth", "best.pth", "checkpoint_epoch_3.pth"}


class TestLeftovers:
    def test_old_ones_go(self, service):
        service.epochs(2)
        for name in ("checkpoint_epoch_3.pth.tmp", "checkpoint_epoch_4.tmp"):
            service.write(f"checkpoints/{name}", 0)
        service.write("checkpoints/checkpoint_epoch_5.pth.tmp", 230)
        service.write("checkpoints/unrelated.tmp", 0)
        result = service.prune("checkpoints/checkpoint_*.pth")
        assert names(result.pruned) == {"checkpoint_epoch_3.pth.tmp", "checkpoint_epoch_4.tmp"}
        assert {entry.reason for entry in result.pruned} == {"leftover"}
        assert reasons(result)["checkpoint_epoch_5.pth.tmp"] == "recent"
        assert names(service.prune("checkpoints/checkpoint_*.pth", tmp_older_than=60).pruned) == {
            "checkpoint_epoch_5.pth.tmp"
        }

    def test_open_ones_stay(self, service, holder):
        service.epochs(2)
        holder(service.write("checkpoints/checkpoint_epoch_3.pth.tmp", 0), "open({path!r}, 'ab')")
        assert reasons(service.prune())["checkpoint_epoch_3.pth.tmp"] == "open"

    def test_staged_ones_of_a_dead_process(self, service):
        paths = service.epochs(2)
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        mine = pathlib.Path(_atomic.staged_path(str(paths[0])))
        mine.write_bytes(b"x")
        other = paths[0].with_name(f".{paths[0].name}.recovery-{dead.pid}-0123abcd")
        other.write_bytes(b"x")
        sidecar = paths[0].with_name(f".{paths[0].name}.sha256.recovery-{dead.pid}-0123abcd")
        sidecar.write_bytes(b"x")
        service.old(other, 0)
        assert not service.prune().pruned, "a copy carries the time of its source, so its last change counts"
        result = service.prune(now=time.time() + 2 * HOUR)
        assert names(result.pruned) == {other.name, sidecar.name}
        assert reasons(result)[mine.name] == "open"

    def test_of_a_config(self, service):
        service.epochs(2, folder="checkpoints/hex8_2p")
        service.epochs(2, kind="hex8_2p-")
        service.write("checkpoints/hex8_2p/checkpoint_epoch_3.pth.tmp", 0)
        service.write("checkpoints/checkpoint_epoch_3.pth.tmp", 0)
        result = service.prune("checkpoints/**/*.pth", config=parse_config("hex8_2p"))
        assert [entry.path for entry in result.pruned] == [
            str(service.root / "checkpoints/hex8_2p/checkpoint_epoch_3.pth.tmp")
        ]
        assert reasons(result)["checkpoint_epoch_3.pth.tmp"] == "config_unknown"

    def test_no_checkpoint_at_all(self, service):
        service.write("checkpoints/checkpoint_epoch_3.pth.tmp", 0)
        assert reasons(service.prune()) == {"checkpoint_epoch_3.pth.tmp": "no_verified"}


class TestRaces:
    @pytest.fixture
    def between(self, monkeypatch):
        """Something that happens between judging and removing."""

        def call(action):
            make = engine._Plan.make

            def and_then(plan):
                make(plan)
                action()

            monkeypatch.setattr(engine._Plan, "make", and_then)

        return call

    def test_vanished(self, service, between):
        paths = service.epochs(4)
        between(paths[0].unlink)
        result = service.prune(keep=1)
        assert (len(result.pruned), result.failed) == (2, ())

    def test_written_again(self, service, between):
        paths = service.epochs(4)
        between(lambda: paths[0].write_bytes(paths[3].read_bytes()))
        result = service.prune(keep=1)
        assert reasons(result)["checkpoint_epoch_1.pth"] == "changed"
        assert paths[0].exists()

    def test_replaced_by_one_of_the_same_size_and_time(self, service, between):
        paths = service.epochs(4)

        def replace():
            staged = service.put("a0", "staged", 0)
            os.replace(staged, paths[0])

        between(replace)
        assert reasons(service.prune(keep=1))["checkpoint_epoch_1.pth"] == "changed"

    def test_opened_meanwhile(self, service, between, holder):
        paths = service.epochs(4)
        between(lambda: holder(paths[0]))
        assert reasons(service.prune(keep=1))["checkpoint_epoch_1.pth"] == "open"

    def test_looked_at_again_when_it_takes_long(self, service, between, holder, monkeypatch):
        paths = service.epochs(4)
        monkeypatch.setattr(_open_files, "LOOK_AGAIN", -1.0)
        monkeypatch.setattr(fcntl, "fcntl", lambda *_arguments: (_ for _ in ()).throw(OSError(errno.EINVAL, "x")))
        monkeypatch.setattr(_open_files, "open_files", lambda wanted: OpenFiles(open_files(wanted).holders))
        between(lambda: holder(paths[0]))
        assert reasons(service.prune(keep=1))["checkpoint_epoch_1.pth"] == "open"

    def test_one_that_waits_to_open_is_not_lost(self, service):
        """While the file is leased a process that opens it waits, and this one is not ended by the signal of that."""
        (path,) = service.epochs(1)
        with _open_files.leased(str(path)) as free:
            assert free
            thread = threading.Thread(target=path.read_bytes)
            thread.start()
            time.sleep(0.2)
            assert thread.is_alive()
        thread.join(5)
        assert not thread.is_alive()

    def test_failure_of_one_does_not_stop_the_rest(self, service, monkeypatch):
        paths = service.epochs(5)
        unlink = os.unlink

        def deny(path, **options):
            if str(path) == str(paths[1]):
                raise PermissionError(errno.EPERM, "Operation not permitted")
            unlink(path, **options)

        monkeypatch.setattr(os, "unlink", deny)
        result = service.prune(keep=1)
        assert names(result.pruned) == {f"checkpoint_epoch_{n}.pth" for n in (1, 3, 4)}
        (failed,) = result.failed
        assert failed.path == str(paths[1])
        assert "1 files could not be pruned: Could not remove" in result.summary()
        assert "3 files pruned" in result.summary()

    def test_what_stands_beside_cannot_be_removed(self, service, monkeypatch):
        paths = service.epochs(2)
        sidecar = service.write("checkpoints/checkpoint_epoch_1.pth.sha256", 0)
        unlink = os.unlink

        def deny(path, **options):
            if str(path) == str(sidecar):
                raise OSError(errno.EROFS, "Read-only file system")
            unlink(path, **options)

        monkeypatch.setattr(os, "unlink", deny)
        result = service.prune(keep=1)
        assert [entry.path for entry in result.failed] == [str(sidecar)]
        assert paths[0].exists()

    def test_directory_that_cannot_be_written(self, service, monkeypatch):
        service.epochs(3)
        monkeypatch.setattr(os, "access", lambda *_arguments, **_options: False)
        before = snapshot(service.root)
        result = service.prune(keep=1, check_mode=True)
        assert (len(result.failed), result.pruned, result.freed) == (2, (), 0)
        assert snapshot(service.root) == before

    def test_directory_that_cannot_be_flushed(self, service, monkeypatch):
        def fail(path):
            raise RecoveryError("Could not flush the directory.")

        service.epochs(3)
        monkeypatch.setattr(_atomic, "sync_directory", fail)
        result = service.prune(keep=1)
        assert (len(result.pruned), result.warnings) == (2, ("Could not flush the directory.",))

    def test_directories_are_flushed(self, service, monkeypatch):
        flushed = []
        service.epochs(3, folder="checkpoints/x")
        service.epochs(3, folder="checkpoints/y")
        monkeypatch.setattr(_atomic, "sync_directory", lambda path: flushed.append(os.path.dirname(path)))
        service.prune("checkpoints/*/*.pth", keep=1)
        assert sorted(flushed) == [str(service.root / "checkpoints/x"), str(service.root / "checkpoints/y")]

    def test_two_at_once(self, service):
        service.epochs(12)
        results = []
        threads = [threading.Thread(target=lambda: results.append(service.prune(keep=2))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        assert not any(result.failed for result in results)
        pruned = [entry.path for result in results for entry in result.pruned]
        assert len(pruned) == len(set(pruned))
        service.prune(keep=2)
        assert left(service.root / "checkpoints") == {"checkpoint_epoch_11.pth", "checkpoint_epoch_12.pth"}


class TestRequest:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"keep": 0}, "keep is 0"),
            ({"tmp_older_than": -1}, "tmp_older_than is -1"),
            ({"patterns": ()}, "patterns has no entry"),
            ({"patterns": ("",)}, "patterns has no entry"),
            ({"root": "/nowhere"}, "/nowhere is no directory. Check service_path"),
        ],
    )
    def test_refused(self, service, options, message):
        fields = {"patterns": ("checkpoints/*.pth",), "root": str(service.root), **options}
        with pytest.raises(RecoveryError, match=message):
            prune(RetentionRequest(**fields))

    def test_too_many_matches(self, service, monkeypatch):
        monkeypatch.setattr(_checkpoint_files, "MAX_MATCHES", 5)
        service.epochs(6)
        before = snapshot(service.root)
        with pytest.raises(RecoveryError, match="More than 5 files match"):
            service.prune(keep=1)
        assert snapshot(service.root) == before

    def test_nothing_matches(self, service):
        result = service.prune("nowhere/*.pth")
        assert (result.kept, result.pruned, result.summary()) == ((), (), "Nothing matches the patterns")

    def test_absolute_and_overlapping_patterns_and_odd_roots(self, tmp_path, made):
        root = tmp_path / "a[1] *"
        root.mkdir()
        service = Service(root, made)
        service.epochs(3)
        (tmp_path / "link").symlink_to(root)
        for place in (root, tmp_path / "link"):
            patterns = ("checkpoints/*.pth", "./checkpoints//*_epoch_?.pth", "**/*.pth", "**")
            result = prune(RetentionRequest(patterns, str(place), keep=1), check_mode=True)
            assert len(result.pruned) == 2
        result = prune(RetentionRequest((f"{tmp_path}/link/checkpoints/*.pth",), "/nowhere", keep=1))
        assert len(result.pruned) == 2

    def test_names_that_are_not_utf8(self, service):
        service.epochs(3)
        for n in range(2):
            os.rename(
                service.root / f"checkpoints/checkpoint_epoch_{n + 1}.pth",
                os.fsencode(service.root / "checkpoints") + b"/\xff\n%d.pth" % n,
            )
        result = service.prune(keep=1)
        assert len(result.pruned) == 2
        for text in (result.pruned[0].as_dict()["path"], result.diff()["before"], str(result.as_dict())):
            assert text.encode("utf-8")
        assert "\ufffd" in result.diff()["before"]


KINDS = ("a", "b", "hex8_2p-", "hex8_3p-", "square8_2p-")
FILES = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, EPOCHS - 1),
        st.integers(0, 30),
        st.sampled_from(("good", "good", "good", "flipped", "cut")),
        st.sampled_from(("checkpoints", "checkpoints/sub")),
        st.booleans(),
    ),
    max_size=10,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES, keep=st.integers(1, 4))
def test_whatever_is_there(made, files, keep):
    """The newest stay, a good one of each config above all; check mode predicts the run; a second run does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(pathlib.Path(folder), made)
        groups = {}
        for number, (kind, epoch, minute, state, place, sidecar) in enumerate(files):
            path = service.put(f"{kind}{epoch}", f"{place}/{number}.pth", minute)
            if state == "flipped":
                flipped(path, "data/0")
            elif state == "cut":
                path.write_bytes(path.read_bytes()[:-500])
                service.old(path, minute)
            if sidecar:
                service.write(f"{place}/{number}.json", minute)
            entry = types.SimpleNamespace(path=path, epoch=epoch, minute=minute, good=state == "good")
            groups.setdefault((kind, None if kind.endswith("-") else place), []).append(entry)
        untouched = [service.write(name, 0) for name in ("checkpoints/x.txt", "models/y.pth", "z.tmp")]
        before = snapshot(service.root)
        predicted = service.prune("checkpoints/**/*.pth", keep=keep, check_mode=True)
        assert snapshot(service.root) == before
        result = service.prune("checkpoints/**/*.pth", keep=keep)
        # How many processes an ordinary user may not look into changes meanwhile.
        assert replace(predicted, unseen=None) == replace(result, unseen=None)
        assert len(before) - len(snapshot(service.root)) == len(result.pruned)
        assert all(path.exists() for path in untouched)
        assert all(path.endswith(".pth") for path in names(result.pruned))
        for entries in groups.values():
            good = [entry for entry in entries if entry.good]
            if not good:
                assert all(entry.path.exists() for entry in entries)
            for order in ("minute", "epoch"):
                best = sorted((getattr(entry, order) for entry in good), reverse=True)[:keep]
                newest = [entry for entry in good if getattr(entry, order) > best[-1]]
                assert all(entry.path.exists() for entry in newest)
                assert sum(entry.path.exists() for entry in good) >= len(best)
        for group in result.groups:
            if group.newest_verified is not None:
                assert verify(group.newest_verified).valid
        assert not service.prune("checkpoints/**/*.pth", keep=keep).pruned

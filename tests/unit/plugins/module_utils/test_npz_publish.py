# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic, _npz_publish
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError, sha256_file
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_publish import (
    PublishRequest,
    parse_mode,
    publish,
)

HEX8 = parse_config("hex8_2p")


def write(path: pathlib.Path, samples: int = 120, seed: int = 1, board: str = "hex8") -> pathlib.Path:
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 2, (samples, 4, 9, 9)).astype("<f4")
    np.savez_compressed(path, features=features, values=np.zeros(samples, "<f4"), board_type=np.asarray(board))
    return path


def tree(folder: pathlib.Path) -> dict:
    return {
        entry.name: (entry.read_bytes(), stat.S_IMODE(entry.stat().st_mode), entry.stat().st_mtime_ns)
        for entry in folder.iterdir()
    }


@pytest.fixture
def request_(tmp_path: pathlib.Path) -> PublishRequest:
    src = write(tmp_path / "incoming.npz", seed=2)
    return PublishRequest(src=str(src), path=str(tmp_path / "hex8_2p.npz"), config=HEX8)


@pytest.fixture
def present(request_) -> pathlib.Path:
    return write(pathlib.Path(request_.path), samples=110, seed=3)


class TestPublish:
    def test_where_nothing_is(self, request_, tmp_path):
        digest = sha256_file(request_.src)
        done = publish(request_)
        assert done.as_dict() == {
            "changed": True,
            "path": request_.path,
            "previous": None,
            "sha256": digest,
            "samples": 120,
            "replaced": None,
        }
        assert sha256_file(request_.path) == digest
        assert stat.S_IMODE(os.stat(request_.path).st_mode) == 0o644
        assert sorted(os.listdir(tmp_path)) == ["hex8_2p.npz"]

    def test_keeps_what_it_replaces(self, request_, present, tmp_path):
        old = sha256_file(str(present))
        done = publish(request_)
        assert done.previous == f"{present}.previous"
        assert sha256_file(done.previous) == old
        assert (done.replaced.sha256, done.replaced.samples, done.replaced.valid) == (old, 110, True)
        assert sorted(os.listdir(tmp_path)) == ["hex8_2p.npz", "hex8_2p.npz.previous"]
        assert done.diff()["before"]["sha256"] == old
        assert done.diff()["after"]["sha256"] == done.sha256

    def test_moves_without_a_copy(self, request_, present):
        inode = os.stat(request_.src).st_ino
        publish(request_)
        assert os.stat(request_.path).st_ino == inode

    def test_can_keep_the_source(self, request_, present):
        publish(dataclasses.replace(request_, remove_src=False))
        assert sha256_file(request_.src) == sha256_file(request_.path)
        assert os.stat(request_.src).st_ino != os.stat(request_.path).st_ino

    def test_from_another_file_system(self, request_, present, tmp_path):
        shm = pathlib.Path("/dev/shm")
        if not os.access(shm, os.W_OK) or os.stat(shm).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("needs two file systems")
        src = shm / f"{os.getpid()}-incoming.npz"
        shutil.move(request_.src, src)
        try:
            digest = sha256_file(str(src))
            assert publish(dataclasses.replace(request_, src=str(src))).changed
            assert not src.exists()
        finally:
            src.unlink(missing_ok=True)
        assert sha256_file(request_.path) == digest
        assert sorted(os.listdir(tmp_path)) == ["hex8_2p.npz", "hex8_2p.npz.previous"]

    def test_a_damaged_file_in_place_is_replaced_and_kept(self, request_, present):
        present.write_bytes(present.read_bytes()[:1500])
        done = publish(request_)
        assert done.replaced.valid is False
        assert "truncated" in done.replaced.problem or "end of the directory" in done.replaced.problem
        assert os.path.getsize(done.previous) == 1500

    def test_a_link_is_replaced_and_not_its_target(self, request_, tmp_path):
        target = write(tmp_path / "target.npz", seed=9)
        digest = sha256_file(str(target))
        os.symlink(target, request_.path)
        publish(request_)
        assert not os.path.islink(request_.path)
        assert sha256_file(str(target)) == digest

    def test_going_back_to_the_previous_one_swaps_them(self, request_, present):
        """With remove_src, which must not mean that a file is lost."""
        old = sha256_file(str(present))
        new = publish(request_).sha256
        back = publish(dataclasses.replace(request_, src=f"{present}.previous"))
        assert (back.sha256, sha256_file(request_.path), sha256_file(back.previous)) == (old, old, new)

    def test_what_a_killed_run_left_is_cleaned(self, request_, tmp_path, monkeypatch):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        left = tmp_path / f".hex8_2p.npz.recovery-{gone.pid}-00000000"
        left.write_bytes(b"x")
        later = time.time() + 7200
        monkeypatch.setattr(_atomic.time, "time", lambda: later)
        publish(request_, dry_run=True)
        assert left.exists()
        publish(request_)
        assert not left.exists()


class TestIdempotence:
    def test_the_same_bytes_again(self, request_, present):
        digest = publish(request_).sha256
        shutil.copy(request_.path, request_.src)
        before = os.stat(request_.path)
        again = publish(request_)
        assert (again.changed, again.sha256, again.samples, again.replaced) == (False, digest, 120, None)
        assert again.previous == f"{present}.previous"
        assert os.stat(request_.path).st_ino == before.st_ino
        assert not os.path.exists(request_.src)

    def test_known_by_its_checksum_the_source_need_not_be_there(self, request_, present):
        known = dataclasses.replace(request_, sha256=sha256_file(request_.src))
        assert publish(known).changed
        assert not publish(known).changed

    def test_only_the_mode_differs(self, request_):
        known = dataclasses.replace(request_, sha256=sha256_file(request_.src))
        publish(known)
        os.chmod(known.path, 0o600)
        assert publish(known, dry_run=True).changed
        assert stat.S_IMODE(os.stat(known.path).st_mode) == 0o600
        fixed = publish(known)
        assert (fixed.changed, fixed.replaced) == (True, None)
        assert fixed.diff()["before"]["mode"] == "0600"
        assert fixed.diff()["after"]["mode"] == "0644"
        assert stat.S_IMODE(os.stat(known.path).st_mode) == 0o644
        assert not publish(known).changed

    def test_the_right_bytes_that_cannot_be_trained_on(self, request_):
        shutil.copy(request_.src, request_.path)
        with pytest.raises(RecoveryError, match=r"already the file .* has 120 samples"):
            publish(dataclasses.replace(request_, min_samples=500))


class TestRefusal:
    @pytest.fixture(params=[True, False], ids=["move", "copy"])
    def any_request(self, request, request_, present) -> PublishRequest:
        return dataclasses.replace(request_, remove_src=request.param)

    def refuse(self, request: PublishRequest, words: str, error=RecoveryError) -> None:
        folder = pathlib.Path(request.path).parent
        before = tree(folder)
        for dry_run in (True, False):
            with pytest.raises(error, match=words):
                publish(request, dry_run=dry_run)
            assert tree(folder) == before

    def test_a_flipped_bit(self, any_request):
        src = pathlib.Path(any_request.src)
        data = bytearray(src.read_bytes())
        data[len(data) // 2] ^= 4
        src.write_bytes(bytes(data))
        self.refuse(any_request, "cannot be trained on, so .* is untouched")

    def test_half_a_file(self, any_request):
        src = pathlib.Path(any_request.src)
        src.write_bytes(src.read_bytes()[: src.stat().st_size // 2])
        self.refuse(any_request, "cut short")

    def test_an_empty_file(self, any_request):
        pathlib.Path(any_request.src).write_bytes(b"")
        self.refuse(any_request, "empty")

    def test_too_few_samples(self, any_request):
        self.refuse(dataclasses.replace(any_request, min_samples=121), "has 120 samples")

    def test_another_board(self, any_request):
        write(pathlib.Path(any_request.src), board="square8")
        self.refuse(any_request, "for the board square8")

    def test_another_file_than_expected(self, any_request):
        self.refuse(dataclasses.replace(any_request, sha256="0" * 64), "transfer it again")

    def test_no_source(self, any_request):
        os.unlink(any_request.src)
        with pytest.raises(MissingFileError, match="does not exist"):
            publish(any_request)

    def test_a_directory_in_place(self, any_request):
        os.unlink(any_request.path)
        os.mkdir(any_request.path)
        with pytest.raises(RecoveryError, match="not a regular file"):
            publish(any_request)
        assert os.path.exists(any_request.src)

    def test_a_directory_as_source_is_never_removed(self, any_request, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        known = dataclasses.replace(any_request, src=str(folder), sha256=sha256_file(any_request.path))
        assert not publish(known).changed
        assert folder.is_dir()

    def test_no_directory_for_it(self, any_request, tmp_path):
        with pytest.raises(MissingFileError, match="is not a directory"):
            publish(dataclasses.replace(any_request, path=str(tmp_path / "none" / "x.npz")))

    def test_onto_itself(self, any_request):
        self.refuse(dataclasses.replace(any_request, src=any_request.path), "Stage the new file under another name")

    @pytest.mark.parametrize("text", ["", "0" * 63, "A" * 64, "0" * 64 + "\n"])
    def test_no_checksum(self, any_request, text):
        self.refuse(dataclasses.replace(any_request, sha256=text), "64 hexadecimal digits")


class TestDryRun:
    def test_predicts_what_the_real_run_does(self, request_, present, tmp_path):
        before = tree(tmp_path)
        predicted = publish(request_, dry_run=True)
        assert tree(tmp_path) == before
        assert publish(request_).as_dict() == predicted.as_dict()

    def test_without_the_source_when_the_checksum_is_known(self, request_, present):
        digest = sha256_file(request_.src)
        os.unlink(request_.src)
        predicted = publish(dataclasses.replace(request_, sha256=digest), dry_run=True)
        assert (predicted.changed, predicted.sha256, predicted.samples) == (True, digest, None)
        same = publish(dataclasses.replace(request_, sha256=sha256_file(str(present))), dry_run=True)
        assert (same.changed, same.samples) == (False, 110)

    def test_without_source_and_checksum_it_is_another_file(self, request_, present):
        os.unlink(request_.src)
        predicted = publish(request_, dry_run=True)
        assert (predicted.changed, predicted.sha256, predicted.replaced.samples) == (True, None, 110)


def test_killed_before_the_rename_leaves_the_old_file(request_, present):
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from ansible_collections.ringrift.recovery.plugins.module_utils import _npz_publish as engine
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
engine.replace_file = lambda *args: os.kill(os.getpid(), 9)
engine.publish(engine.PublishRequest({request_.src!r}, {request_.path!r}, parse_config("hex8_2p")))
"""
    old = sha256_file(str(present))
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == -9
    assert sha256_file(str(present)) == old
    assert publish(request_).changed
    assert sha256_file(f"{present}.previous") == old


def test_a_file_in_place_that_cannot_be_read_is_replaced_all_the_same(request_, present, monkeypatch):
    real = _npz_publish.inspect

    def inspect(path, **options):
        if path == request_.path:
            raise RecoveryError("Input/output error")
        return real(path, **options)

    monkeypatch.setattr(_npz_publish, "inspect", inspect)
    done = publish(request_)
    assert (done.replaced.valid, done.replaced.sha256, done.replaced.problem) == (None, None, "Input/output error")


@pytest.mark.parametrize(("text", "mode"), [("0644", 0o644), ("640", 0o640), ("0600", 0o600)])
def test_mode(text, mode):
    assert parse_mode(text) == mode


@pytest.mark.parametrize("text", ["420 ", "0o644", "u=rw", "", "64", "0999", "00644"])
def test_no_mode(text):
    with pytest.raises(RecoveryError, match="octal digits"):
        parse_mode(text)

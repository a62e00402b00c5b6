# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import resource
import signal
import stat
import subprocess
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import (
    MissingFileError,
    clean_staged,
    copy_beside,
    discard,
    explain,
    free_bytes,
    is_staged,
    keep_previous,
    replace_file,
    require_space,
    sha256_file,
    staged_path,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def dest(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "hex8_2p.npz"
    path.write_bytes(b"old")
    return path


def names(folder: pathlib.Path) -> list:
    return sorted(entry.name for entry in folder.iterdir())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


class TestSha256:
    def test_reads_beyond_one_chunk(self, tmp_path):
        data = os.urandom(_atomic.CHUNK + 17)
        (tmp_path / "a").write_bytes(data)
        assert sha256_file(str(tmp_path / "a")) == hashlib.sha256(data).hexdigest()

    def test_missing_is_its_own_error(self, tmp_path):
        with pytest.raises(MissingFileError, match="does not exist"):
            sha256_file(str(tmp_path / "none"))

    def test_below_a_file_is_missing_too(self, dest):
        with pytest.raises(MissingFileError):
            sha256_file(str(dest / "below"))

    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(RecoveryError, match="not a regular file"):
            sha256_file(str(tmp_path / "pipe"))

    def test_a_directory_is_refused(self, tmp_path):
        with pytest.raises(RecoveryError, match="not a regular file"):
            sha256_file(str(tmp_path))

    def test_a_path_with_a_nul_is_refused(self):
        with pytest.raises(RecoveryError, match="Check the path"):
            sha256_file("a\0b")


class TestFreeBytes:
    def test_of_a_path_that_does_not_exist_yet(self, tmp_path):
        there = free_bytes(str(tmp_path))
        assert there > 0
        assert abs(free_bytes(str(tmp_path / "a" / "b" / "c")) - there) < there // 2

    def test_of_a_path_below_a_file(self, dest):
        assert free_bytes(str(dest / "below")) > 0

    def test_too_little_is_said_with_both_numbers(self, dest):
        with pytest.raises(RecoveryError, match=r"bytes free, but \d{19} bytes for .* in reserve are needed"):
            require_space(str(dest), 10**18)


class TestStagedNames:
    def test_is_hidden_beside_and_recognised(self, dest):
        path = staged_path(str(dest))
        assert os.path.dirname(path) == str(dest.parent)
        assert os.path.basename(path).startswith(".hex8_2p.npz.recovery-")
        assert is_staged(path)
        assert is_staged(os.path.basename(path))

    @pytest.mark.parametrize(
        "name",
        [
            "hex8_2p.npz",
            ".hex8_2p.npz",
            ".hex8_2p.npz.recovery-1",
            "hex8_2p.npz.recovery-1-00000000",
            ".recovery-1-00000000",
            ".hex8_2p.npz.recovery-1-00000000.npz",
            "",
        ],
    )
    def test_other_names_are_not(self, name):
        assert not is_staged(name)

    @settings(max_examples=60, deadline=None)
    @given(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=300))
    def test_any_name_fits_and_is_recognised(self, name):
        staged = os.path.basename(staged_path("/x/" + name))
        assert len(os.fsencode(staged)) <= 255
        assert is_staged(staged) or name in (".", "..")

    def test_two_are_never_the_same(self, dest):
        assert len({staged_path(str(dest)) for _turn in range(100)}) == 100


class TestCleanStaged:
    def old(self, path: pathlib.Path, pid: int) -> pathlib.Path:
        left = path.parent / f".{path.name}.recovery-{pid}-0123abcd"
        left.write_bytes(b"left behind")
        return left

    def test_removes_what_a_dead_run_left(self, dest):
        left = self.old(dest, dead_pid())
        assert clean_staged(str(dest), now=time.time() + 7200) == [str(left)]
        assert names(dest.parent) == ["hex8_2p.npz"]

    def test_removes_a_staged_directory(self, dest):
        left = dest.parent / f".{dest.name}.recovery-{dead_pid()}-0123abcd"
        left.mkdir()
        (left / "x").write_bytes(b"x")
        assert clean_staged(str(dest), now=time.time() + 7200) == [str(left)]

    def test_keeps_what_is_young(self, dest):
        self.old(dest, dead_pid())
        assert clean_staged(str(dest)) == []

    def test_keeps_what_a_live_process_writes(self, dest):
        self.old(dest, os.getpid())
        assert clean_staged(str(dest), now=time.time() + 7200) == []

    def test_a_copied_modification_time_does_not_make_it_old(self, dest):
        left = self.old(dest, dead_pid())
        os.utime(left, (1, 1))
        assert clean_staged(str(dest)) == []

    def test_keeps_what_belongs_to_another_file(self, dest):
        other = dest.parent / "hex8_2p.np"
        self.old(other, dead_pid())
        self.old(dest.parent / "square8_2p.npz", dead_pid())
        assert clean_staged(str(dest), now=time.time() + 7200) == []

    @pytest.mark.parametrize("digits", [1, 4, 7])
    def test_finds_names_that_had_to_be_cut(self, tmp_path, monkeypatch, digits):
        path = tmp_path / ("n" * 250)
        # Never the pid of this process with another one put in: a longer one would make the name too long.
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 10**digits - 1)
            staged = staged_path(str(path))
        monkeypatch.setattr(_atomic, "runs", lambda pid: pid != 10**digits - 1)
        pathlib.Path(staged).write_bytes(b"")
        assert clean_staged(str(path), now=time.time() + 7200) == [staged]

    def test_a_directory_that_is_not_there_has_none(self, tmp_path):
        assert clean_staged(str(tmp_path / "none" / "file")) == []


class TestCopyBeside:
    def test_copies_bytes_mode_and_time(self, tmp_path, dest):
        src = tmp_path / "src"
        data = os.urandom(_atomic.CHUNK * 2 + 3)
        src.write_bytes(data)
        src.chmod(0o640)
        os.utime(src, ns=(10**18, 10**18 + 7))
        staged = pathlib.Path(copy_beside(str(src), str(dest)))
        assert staged.parent == dest.parent
        assert is_staged(staged.name)
        assert staged.read_bytes() == data
        assert stat.S_IMODE(staged.stat().st_mode) == 0o640
        assert staged.stat().st_mtime_ns == 10**18 + 7
        assert dest.read_bytes() == b"old"

    def test_drops_setuid(self, tmp_path, dest):
        src = tmp_path / "src"
        src.write_bytes(b"x")
        src.chmod(0o4755)
        assert stat.S_IMODE(os.stat(copy_beside(str(src), str(dest))).st_mode) == 0o755

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
    def test_keeps_the_owner_of_the_source(self, tmp_path, dest):
        src = tmp_path / "src"
        src.write_bytes(b"x")
        os.chown(src, 1234, 2345)
        status = os.stat(copy_beside(str(src), str(dest)))
        assert (status.st_uid, status.st_gid) == (1234, 2345)

    def test_a_missing_source_leaves_nothing(self, dest):
        with pytest.raises(MissingFileError):
            copy_beside(str(dest) + ".none", str(dest))
        assert names(dest.parent) == ["hex8_2p.npz"]

    def test_a_missing_directory_is_said(self, tmp_path, dest):
        with pytest.raises(RecoveryError, match="does not exist"):
            copy_beside(str(dest), str(tmp_path / "none" / "file"))

    def test_a_disk_that_fills_up_leaves_nothing(self, tmp_path, dest):
        src = tmp_path / "src"
        src.write_bytes(b"x" * 65536)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(RecoveryError, match="File too large"):
                copy_beside(str(src), str(dest))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert names(dest.parent) == ["hex8_2p.npz", "src"]

    def test_a_source_that_changes_meanwhile_is_refused(self, tmp_path, dest, monkeypatch):
        src = tmp_path / "src"
        src.write_bytes(b"x" * 100)
        real = _atomic.read_chunks

        def growing(fd, path, chunk=_atomic.CHUNK):
            for data in real(fd, path, chunk):
                yield data
                with open(src, "ab") as file:
                    file.write(b"more")
                return

        monkeypatch.setattr(_atomic, "read_chunks", growing)
        with pytest.raises(RecoveryError, match="changed while it was copied"):
            copy_beside(str(src), str(dest))
        assert names(dest.parent) == ["hex8_2p.npz", "src"]


class TestReplaceFile:
    def stage(self, dest: pathlib.Path, data: bytes = b"new") -> str:
        path = staged_path(str(dest))
        pathlib.Path(path).write_bytes(data)
        return path

    def test_replaces_in_one_step(self, dest):
        with open(dest, "rb") as reader:
            replace_file(self.stage(dest), str(dest))
            assert reader.read() == b"old"
        assert dest.read_bytes() == b"new"
        assert names(dest.parent) == ["hex8_2p.npz"]

    def test_sets_the_mode(self, dest):
        replace_file(self.stage(dest), str(dest), mode=0o644)
        assert stat.S_IMODE(dest.stat().st_mode) == 0o644

    def test_creates_where_nothing_is(self, tmp_path):
        target = tmp_path / "target"
        replace_file(self.stage(target), str(target))
        assert target.read_bytes() == b"new"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
    def test_keeps_the_owner_of_what_it_replaces(self, dest):
        os.chown(dest, 1234, 2345)
        replace_file(self.stage(dest), str(dest))
        assert (dest.stat().st_uid, dest.stat().st_gid) == (1234, 2345)

    def test_replaces_a_link_and_not_what_it_points_at(self, tmp_path, dest):
        link = tmp_path / "link"
        link.symlink_to(dest.name)
        replace_file(self.stage(link), str(link))
        assert not link.is_symlink()
        assert dest.read_bytes() == b"old"

    def test_a_directory_is_refused(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        staged = self.stage(folder)
        with pytest.raises(RecoveryError, match="it is a directory"):
            replace_file(staged, str(folder))
        assert os.path.exists(staged)

    def test_a_staged_file_that_is_gone_is_said(self, dest):
        with pytest.raises(MissingFileError):
            replace_file(str(dest) + ".none", str(dest))
        assert dest.read_bytes() == b"old"

    def test_another_file_system_is_said(self, dest):
        shm = pathlib.Path("/dev/shm")
        if not shm.is_dir() or os.stat(shm).st_dev == os.stat(dest.parent).st_dev or not os.access(shm, os.W_OK):
            pytest.skip("needs two file systems")
        staged = shm / os.path.basename(staged_path(str(dest)))
        staged.write_bytes(b"new")
        try:
            with pytest.raises(RecoveryError, match="different file systems"):
                replace_file(str(staged), str(dest))
        finally:
            staged.unlink()
        assert dest.read_bytes() == b"old"

    @pytest.mark.parametrize("step", ["keep", "replace"])
    def test_killed_at_any_step_leaves_the_old_or_the_new(self, dest, step):
        """A process that is killed before or after each step of the sequence leaves one whole file in place."""
        code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic
staged = _atomic.staged_path({str(dest)!r})
open(staged, "wb").write(b"new")
_atomic.keep_previous({str(dest)!r})
if {step!r} == "keep":
    os.kill(os.getpid(), 9)
real = os.replace
def replace(src, target):
    real(src, target)
    os.kill(os.getpid(), 9)
os.replace = replace
_atomic.replace_file(staged, {str(dest)!r})
"""
        assert subprocess.run([sys.executable, "-c", code]).returncode == -9
        assert dest.read_bytes() == (b"old" if step == "keep" else b"new")
        assert pathlib.Path(f"{dest}.previous").read_bytes() == b"old"
        # The next run goes through, whatever was left.
        keep_previous(str(dest))
        replace_file(self.stage(dest, b"newer"), str(dest))
        assert dest.read_bytes() == b"newer"
        assert pathlib.Path(f"{dest}.previous").read_bytes() == (b"old" if step == "keep" else b"new")


class TestKeepPrevious:
    def test_both_names_hold_the_old_one(self, dest):
        previous = keep_previous(str(dest))
        assert previous == f"{dest}.previous"
        assert dest.read_bytes() == pathlib.Path(previous).read_bytes() == b"old"
        replace_file(TestReplaceFile().stage(dest), str(dest))
        assert pathlib.Path(previous).read_bytes() == b"old"

    def test_takes_the_place_of_an_older_one(self, dest):
        older = pathlib.Path(f"{dest}.previous")
        older.write_bytes(b"older")
        keep_previous(str(dest))
        assert older.read_bytes() == b"old"
        assert names(dest.parent) == ["hex8_2p.npz", "hex8_2p.npz.previous"]

    def test_twice_is_as_once(self, dest):
        assert keep_previous(str(dest)) == keep_previous(str(dest))
        assert names(dest.parent) == ["hex8_2p.npz", "hex8_2p.npz.previous"]

    def test_nothing_to_keep(self, tmp_path):
        assert keep_previous(str(tmp_path / "none")) is None
        assert names(tmp_path) == []

    def test_a_link_is_kept_as_a_link(self, tmp_path, dest):
        link = tmp_path / "link"
        link.symlink_to(dest.name)
        assert os.readlink(keep_previous(str(link))) == dest.name

    def test_copies_where_links_cannot_be(self, dest, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        previous = pathlib.Path(keep_previous(str(dest)))
        assert previous.read_bytes() == b"old"
        assert previous.stat().st_ino != dest.stat().st_ino

    def test_a_directory_is_refused(self, tmp_path):
        with pytest.raises(RecoveryError, match="it is a directory"):
            keep_previous(str(tmp_path))

    def test_a_name_that_is_a_directory_leaves_nothing(self, dest):
        pathlib.Path(f"{dest}.previous").mkdir()
        with pytest.raises(RecoveryError, match="keep the previous file"):
            keep_previous(str(dest))
        assert names(dest.parent) == ["hex8_2p.npz", "hex8_2p.npz.previous"]


class TestDiscard:
    def test_file_directory_and_nothing(self, tmp_path):
        (tmp_path / "folder" / "below").mkdir(parents=True)
        (tmp_path / "file").write_bytes(b"")
        for name in ("folder", "file", "none"):
            discard(str(tmp_path / name))
        assert names(tmp_path) == []

    def test_a_link_to_a_directory_costs_only_the_link(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("folder")
        discard(str(tmp_path / "link"))
        assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "Make room on the file system of /data"),
        (errno.EDQUOT, "Make room"),
        (errno.EACCES, "become"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "kernel log"),
        (errno.ESTALE, "mount"),
        (errno.ENAMETOOLONG, "run this again"),
    ],
)
def test_an_error_names_the_file_the_reason_and_the_next_step(number, words):
    error = explain("write", "/data/x.npz", OSError(number, os.strerror(number)))
    assert type(error) is RecoveryError
    assert str(error).startswith(f"Could not write /data/x.npz: {os.strerror(number)}. ")
    assert words in str(error)

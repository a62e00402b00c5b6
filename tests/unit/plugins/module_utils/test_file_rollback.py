# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shutil
import tempfile

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _atomic, _file_rollback
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import sha256_file
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_restore import RestoreRequest, restore
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._file_rollback import (
    CHECKPOINT,
    DATA,
    Replaced,
    RollbackRequest,
    differences,
    roll_back,
    roll_back_all,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_publish import PublishRequest, publish
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.checkpoint_files import content, save

HEX8 = parse_config("hex8_2p")
REQUEST = RollbackRequest(HEX8)
FORCE = RollbackRequest(HEX8, force=True)
NOW = 1_795_862_400.0


def write(path: pathlib.Path, seed: int = 1, samples: int = 120) -> pathlib.Path:
    features = np.random.default_rng(seed).integers(0, 2, (samples, 4, 9, 9)).astype("<f4")
    np.savez_compressed(path, features=features, values=np.zeros(samples, "<f4"), board_type=np.asarray("hex8"))
    return path


def contents(folder: pathlib.Path) -> set:
    """What is in the files that stay, whatever their names."""
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix != ".sha256"}


def tree(folder: pathlib.Path) -> dict:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "hex8_2p.npz"


@pytest.fixture
def published(path) -> Replaced:
    """What a run that put a good file in the place of a good one says of it."""
    write(path, 3)
    return publish_over(path, 4)


def publish_over(path: pathlib.Path, seed: int) -> Replaced:
    staged = write(path.with_name(".incoming.npz"), seed)
    done = publish(PublishRequest(str(staged), str(path), HEX8))
    return Replaced(str(path), DATA, done.replaced.sha256, done.sha256, done.previous, done.replaced.problem)


def undo(outcome) -> Replaced:
    return Replaced(outcome.path, outcome.kind, outcome.replaced, outcome.sha256, outcome.kept)


def test_the_old_file_is_back_and_the_new_one_kept(published, path, tmp_path):
    done = roll_back(published, REQUEST)
    assert (done.state, done.sha256, done.replaced) == ("put_back", published.before, published.after)
    assert sha256_file(str(path)) == published.before
    assert sha256_file(done.kept) == published.after
    assert sorted(os.listdir(tmp_path)) == ["hex8_2p.npz", "hex8_2p.npz.previous"]
    before = tree(tmp_path)
    assert roll_back(published, REQUEST).state == "already"
    assert tree(tmp_path) == before


def test_an_undo_can_be_undone_and_leaves_no_litter(published, path, tmp_path):
    entry = published
    for _turn in range(4):
        done = roll_back(entry, REQUEST)
        assert done.state == "put_back"
        assert sha256_file(str(path)) == entry.before
        entry = undo(done)
    assert sorted(os.listdir(tmp_path)) == ["hex8_2p.npz", "hex8_2p.npz.previous"]


def test_the_two_are_not_one_file(published, path):
    """Whoever writes into the file in place writes into no kept one."""
    done = roll_back(published, REQUEST)
    assert os.stat(path).st_ino != os.stat(done.kept).st_ino
    assert os.stat(path).st_nlink == os.stat(done.kept).st_nlink == 1


def test_a_dry_run_tells_the_same_and_writes_nothing(published, tmp_path):
    before = tree(tmp_path)
    predicted = roll_back(published, REQUEST, dry_run=True)
    assert tree(tmp_path) == before
    assert predicted == roll_back(published, REQUEST)


def test_one_that_was_damaged_is_left_unless_it_is_forced(path, tmp_path):
    write(path, 3)
    os.truncate(path, 1500)
    entry = publish_over(path, 4)
    assert entry.problem
    before = tree(tmp_path)
    for seen in (entry, dataclasses.replace(entry, problem=None)):
        left = roll_back(seen, REQUEST)
        assert left.state == "left"
        assert "it was replaced because it is damaged" in left.reason
        assert "-e force=true" in left.reason
    assert tree(tmp_path) == before
    assert roll_back(entry, FORCE).state == "put_back"
    assert path.stat().st_size == 1500


def test_a_file_that_has_changed_since_is_untouched(published, path, tmp_path):
    write(path, 9)
    before = tree(tmp_path)
    for request in (REQUEST, FORCE):
        done = roll_back(published, request)
        assert (done.state, tree(tmp_path)) == ("refused", before)
        assert "it is another file now" in done.reason
    path.unlink()
    assert "it is gone" in roll_back(published, REQUEST).reason


@pytest.mark.parametrize(
    ("damage", "words"), [(os.unlink, "is not there any more"), (None, "is not what that run kept")]
)
def test_what_is_kept_is_not_what_was_kept(published, tmp_path, damage, words):
    if damage is None:
        os.truncate(published.kept, 1000)
    else:
        damage(published.kept)
    before = tree(tmp_path)
    done = roll_back(published, FORCE)
    assert (done.state, tree(tmp_path)) == ("refused", before)
    assert words in done.reason


def test_a_report_that_does_not_say_what_was_there(published):
    done = roll_back(dataclasses.replace(published, before=None), FORCE)
    assert done.state == "refused"
    assert "the report does not say" in done.reason
    assert roll_back(Replaced(published.path, DATA, None, published.after), REQUEST).state == "left"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "hex8_2p.npz"}, "absolute path"),
        ({"path": "/x/../etc/passwd"}, "without detours"),
        ({"kept": "/etc/passwd"}, "no file that is kept beside"),
        ({"path": "/s/x.npz", "kept": "/s/x.npz./../../etc/passwd"}, "no file that is kept beside"),
        ({"before": "abc"}, "64 hexadecimal digits"),
        ({"kind": "model"}, "kind is 'model'"),
    ],
)
def test_what_cannot_be_meant(published, change, words):
    (done,) = roll_back_all([dataclasses.replace(published, **change)], REQUEST)
    assert done.state == "refused"
    assert words in done.reason


def test_a_full_disk_loses_nothing(published, path, tmp_path, monkeypatch):
    before = tree(tmp_path)
    monkeypatch.setattr(_atomic, "free_bytes", lambda where: 10)
    for dry_run in (True, False):
        (done,) = roll_back_all([published], REQUEST, dry_run)
        assert (done.state, tree(tmp_path)) == ("refused", before)
        assert "Make room there" in done.reason


def test_one_that_is_being_written_is_left_alone(published, path, tmp_path):
    with open(path, "r+b"):
        done = roll_back(published, REQUEST)
    assert done.state == "refused"
    assert f"process {os.getpid()} is writing" in done.reason


def test_one_that_fails_keeps_no_other(published, tmp_path):
    bad = Replaced(
        str(tmp_path / "nowhere" / "x.npz"), DATA, "0" * 64, "1" * 64, str(tmp_path / "nowhere/x.npz.previous")
    )
    assert [entry.state for entry in roll_back_all([bad, published], REQUEST)] == ["refused", "put_back"]


def test_where_no_second_name_can_be_given_it_is_copied(published, path, monkeypatch):
    def link(*_args, **_options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    done = roll_back(published, REQUEST)
    assert (sha256_file(str(path)), sha256_file(done.kept)) == (published.before, published.after)


class TestCheckpoint:
    @pytest.fixture
    def service(self, tmp_path):
        (tmp_path / "models").mkdir()
        for epoch in (1, 2):
            save(tmp_path / f"checkpoint_{epoch}.pth", content(epoch=epoch))
            os.utime(tmp_path / f"checkpoint_{epoch}.pth", (NOW - 100 + epoch, NOW - 100 + epoch))
        shutil.copy2(tmp_path / "checkpoint_1.pth", tmp_path / "models/x.pth")
        digest = sha256_file(str(tmp_path / "models/x.pth"))
        (tmp_path / "models/x.pth.sha256").write_text(f"{digest}  x.pth\n")
        return tmp_path

    def restored(self, service) -> Replaced:
        path = service / "models/x.pth"
        done = restore(RestoreRequest(str(path), ("checkpoint_*.pth",), str(service), refresh=True), now=NOW).as_dict()
        aside = done["quarantined"][0] if done["quarantined"] else {}
        return Replaced(
            str(path),
            CHECKPOINT,
            done["replaced"]["sha256"],
            done["checkpoint"]["sha256"],
            aside.get("to", done["previous"]),
            aside.get("reason"),
        )

    def test_a_good_one_is_back_with_its_sidecar(self, service):
        entry = self.restored(service)
        assert (entry.kept, entry.problem) == (f"{entry.path}.previous", None)
        assert roll_back(entry, REQUEST).state == "put_back"
        report = verify(entry.path, checksum=True)
        assert (report.sha256, report.valid, report.sidecar.matches) == (entry.before, True, True)
        assert roll_back(entry, REQUEST).state == "already"

    def test_a_quarantined_one_is_left_and_forced_the_witness_stays(self, service):
        os.truncate(service / "models/x.pth", 700)
        entry = self.restored(service)
        before = tree(service / "models")
        left = roll_back(entry, REQUEST)
        assert (left.state, tree(service / "models")) == ("left", before)
        assert entry.problem in left.reason
        done = roll_back(entry, FORCE, now=NOW)
        assert done.state == "put_back"
        assert os.path.getsize(entry.path) == os.path.getsize(entry.kept) == 700
        assert os.path.exists(f"{entry.kept}.json")
        assert done.kept == f"{entry.path}.replaced-20261128T104000Z"
        assert not verify(entry.path).valid
        assert roll_back(entry, FORCE).state == "already"
        assert roll_back(undo(done), REQUEST).state == "put_back"
        assert verify(entry.path).valid

    def test_a_sidecar_that_alone_tells_of_the_damage_is_not_mended(self, service):
        """It is back by hand, with the sidecar that it had, which does not match."""
        os.truncate(service / "models/x.pth", 700)
        entry = self.restored(service)
        shutil.copy(entry.kept, entry.path)
        shutil.move(f"{entry.kept}.sha256", f"{entry.path}.sha256")
        witness = pathlib.Path(f"{entry.path}.sha256").read_bytes()
        assert roll_back(entry, FORCE).state == "already"
        assert pathlib.Path(f"{entry.path}.sha256").read_bytes() == witness

    def test_a_dangerous_one_is_left(self, service):
        entry = self.restored(service)
        evil = b"cposix\nsystem\n(S'true'\ntR."
        pathlib.Path(entry.kept).write_bytes(evil)
        entry = dataclasses.replace(entry, before=hashlib.sha256(evil).hexdigest())
        assert roll_back(entry, REQUEST).state == "left"


def forked(action) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


STEPS = ("link", "rename", "replace", "unlink", "write", "fsync", "fchmod", "utime")


def run_and_die(limit: int, action) -> None:
    """Carry it out in this process, which dies right before its step number ``limit`` that changes something."""
    left = [limit]

    def deadly(function):
        def call(*args, **options):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return function(*args, **options)

        return call

    for name in STEPS:
        setattr(os, name, deadly(getattr(os, name)))
    action()


def test_killed_at_any_step_it_is_the_old_or_the_new_and_the_next_run_ends_it(published, path, tmp_path):
    pristine = tmp_path.parent / f"{tmp_path.name}-pristine"
    shutil.copytree(tmp_path, pristine)
    both = {published.before, published.after}
    step = 0
    while True:
        shutil.rmtree(tmp_path)
        shutil.copytree(pristine, tmp_path)
        if forked(lambda limit=step: run_and_die(limit, lambda: roll_back(published, REQUEST))) == 0:
            break
        assert sha256_file(str(path)) in both, f"killed before step {step}"
        assert both <= contents(tmp_path), f"killed before step {step}"
        predicted = roll_back(published, REQUEST, dry_run=True)
        done = roll_back(published, REQUEST)
        assert (done.state, done.sha256) == (predicted.state, published.before), f"killed before step {step}"
        assert sha256_file(str(path)) == published.before
        assert sha256_file(f"{path}.previous") == published.after, f"killed before step {step}"
        assert sorted(os.listdir(tmp_path)) == ["hex8_2p.npz", "hex8_2p.npz.previous"], f"killed before step {step}"
        step += 1
    assert step > 5


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good training files, and one that is none."""
    folder = tmp_path_factory.mktemp("files")
    made = [write(folder / f"{seed}.npz", seed).read_bytes() for seed in range(3)]
    return [*made, made[0][:900]]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, 2), st.none() | st.integers(0, 12)),
            st.tuples(st.just("rollback"), st.integers(0, 5), st.none() | st.integers(0, 25)),
            st.tuples(st.just("scribble"), st.integers(0, 3), st.none()),
        ),
        max_size=7,
    )
)
def test_no_rollback_loses_anything_whatever_was_before(files, steps):
    """Publishing, rolling back any earlier step with force, and being killed in both, in any order."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = folder / "hex8_2p.npz"
        path.write_bytes(files[0])
        known = []
        for what, number, kill in steps:
            if what == "scribble":
                path.write_bytes(files[number])
                continue
            before = contents(folder)
            if what == "publish":
                staged = folder / ".incoming.npz"
                staged.write_bytes(files[number])
                old = sha256_file(str(path))
                request = PublishRequest(str(staged), str(path), HEX8)
                act(kill, lambda request=request: publish(request))
                now_there = sha256_file(str(path))
                if now_there != old:
                    known.append(Replaced(str(path), DATA, old, now_there, f"{path}.previous"))
                staged.unlink(missing_ok=True)
                # Of two files before it, publishing keeps the last.
                assert old in contents(folder)
            elif known:
                entry = known[number % len(known)]
                act(kill, lambda entry=entry: roll_back(entry, FORCE))
                assert before <= contents(folder)
                done = roll_back(entry, FORCE)
                assert before <= contents(folder)
                if done.state in ("put_back", "already"):
                    assert sha256_file(str(path)) == entry.before
                assert roll_back(entry, FORCE).state != "put_back"


def act(kill, action) -> None:
    if kill is not None:
        assert forked(lambda: run_and_die(kill, action)) in (0, 1, 9)


def test_what_cannot_be_read_is_told(published, path, monkeypatch):
    def refuse(where):
        raise RecoveryError(f"Could not read {where}: Input/output error.")

    monkeypatch.setattr(_file_rollback._atomic, "sha256_file", refuse)
    (done,) = roll_back_all([published], REQUEST)
    assert (done.state, done.reason) == ("refused", f"Could not read {path}: Input/output error.")


def test_what_is_shown_of_files_that_change_places(published, path):
    done = roll_back(published, REQUEST, now=NOW)
    shown = differences([done])
    assert shown["before"] == {str(path): published.after, done.kept: published.before}
    assert shown["after"] == {str(path): published.before, done.kept: published.after}
    assert done.as_dict()["state"] == "put_back"
    again = roll_back(published, REQUEST, now=NOW)
    assert (again.state, differences([again])) == ("already", {"before": {}, "after": {}})


def test_a_path_that_cannot_be_looked_at(tmp_path):
    path = tmp_path / ("x" * 300)
    (done,) = roll_back_all([Replaced(str(path), DATA, "0" * 64, "1" * 64, f"{path}.previous", None)], REQUEST)
    assert done.state == "refused"
    assert "File name too long" in done.reason

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporters here are real scripts, one for each way in which the service's own is known to behave."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _npz_export
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError, sha256_file
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_export import (
    ExportError,
    ExportRequest,
    export,
    run_bounded,
)

from tests.unit.game_files import make

HEX8 = parse_config("hex8_2p")
PRELUDE = """
import argparse, os, shutil, signal, subprocess, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--use-discovery", action="store_true", required=True)
parser.add_argument("--board-type", required=True)
parser.add_argument("--num-players", type=int, required=True)
parser.add_argument("--output", required=True)
parser.add_argument("--skip-remote-check", action="store_true", required=True)
parser.add_argument("--single-threaded", action="store_true")
parser.add_argument("--allow-noncanonical", action="store_true")
parser.add_argument("--max-games", type=int)
args = parser.parse_args()
"""


def write(
    path: pathlib.Path, samples: int = 120, seed: int = 1, board: str = "hex8", newest: object = None
) -> pathlib.Path:
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 2, (samples, 4, 9, 9)).astype("<f4")
    arrays = {"features": features, "values": np.zeros(samples, "<f4"), "board_type": np.asarray(board)}
    if newest is not None:
        # As the service writes it: a dict that numpy pickles.
        arrays["metadata"] = np.asarray({"newest_game_time": newest, "sample_count": samples}, dtype=object)
    np.savez_compressed(path, **arrays)
    return path


class Service:
    """A service directory whose exporter does what it is told."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        (root / "scripts").mkdir(parents=True)
        self.folder = root / "data" / "training"
        self.folder.mkdir(parents=True)
        self.target = self.folder / "hex8_2p.npz"
        self.fresh = write(root / "fresh.npz", seed=2)
        self.games = make(root / "data/games/hex8_2p.db")

    def exporter(self, body: str) -> None:
        (self.root / "scripts" / "export_replay_dataset.py").write_text(PRELUDE + textwrap.dedent(body))

    def request(self, **changes) -> ExportRequest:
        options = {"python": sys.executable, "min_free": 0, "timeout": 20.0, **changes}
        return ExportRequest(config=HEX8, service_path=str(self.root), **options)

    def left(self) -> list:
        """What is beside the training file; the lock file stays, as that of the service does."""
        return [name for name in os.listdir(self.folder) if not name.endswith(".npz.lock")]

    def tree(self) -> dict:
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.name.endswith(".npz.lock"):
                continue
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(self.root))] = (content, status.st_mode, status.st_mtime_ns)
        return found


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Service:
    made = Service(tmp_path / "ai service")
    made.exporter("shutil.copy('fresh.npz', args.output)")
    return made


def wait_until_gone(pids, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(os.path.exists(f"/proc/{pid}") and not zombie(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def zombie(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class TestJudgedByTheFile:
    def test_a_parallel_exporter_exits_with_the_samples_modulo_256(self, service):
        service.exporter(
            """
            shutil.copy("fresh.npz", args.output)
            print("[PARALLEL] Using 1 worker processes for encoding")
            sys.exit(601 % 256)
            """
        )
        done = export(service.request(single_threaded=False))
        assert (done.changed, done.exported, done.reason, done.run.rc) == (True, True, "missing", 89)
        assert sha256_file(str(service.target)) == done.as_dict()["sha256"] == sha256_file(str(service.fresh))
        assert "--single-threaded" not in done.argv
        assert done.run.stdout.startswith("[PARALLEL]")

    def test_a_single_threaded_one_leaves_much_beside_and_a_private_file(self, service):
        service.exporter(
            """
            import fcntl, tempfile
            lock = open(args.output + ".lock", "w")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fd, temporary = tempfile.mkstemp(suffix=".npz", dir=os.path.dirname(args.output))
            open(args.output + ".archived_20260101_000000", "w").write("x")
            os.makedirs(os.path.join(os.path.dirname(args.output), "cache", "deep"))
            shutil.copyfile("fresh.npz", temporary)
            os.replace(temporary, args.output)
            """
        )
        export(service.request())
        assert service.left() == ["hex8_2p.npz"]
        assert stat.S_IMODE(service.target.stat().st_mode) == 0o644

    @pytest.mark.parametrize("rc", [0, 1, 2])
    def test_nothing_written(self, service, rc):
        service.exporter(f"print('[EXPORT SKIPPED] Another export is writing'); sys.exit({rc})")
        write(service.target, samples=50)
        before = service.tree()
        with pytest.raises(ExportError) as caught:
            export(service.request())
        assert f"wrote no file (exit code {rc})" in str(caught.value)
        assert "[EXPORT SKIPPED]" in str(caught.value)
        assert f"{service.target} is untouched" in str(caught.value)
        result = caught.value.result
        assert (result["changed"], result["exported"], result["reason"]) == (False, False, "too_few_samples")
        assert (result["rc"], result["samples"], result["before"]["valid"]) == (rc, 50, False)
        assert service.tree().keys() == before.keys()
        assert {k: v for k, v in service.tree().items() if k.endswith(".npz")} == {
            k: v for k, v in before.items() if k.endswith(".npz")
        }

    def test_half_a_file_and_death(self, service):
        service.exporter(
            """
            open(args.output, "wb").write(open("fresh.npz", "rb").read()[:1500])
            sys.stderr.write("Traceback (most recent call last):\\nMemoryError\\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        write(service.target)
        old = sha256_file(str(service.target))
        with pytest.raises(ExportError, match=r"cannot be trained on: .* \(exit code -9\).*MemoryError"):
            export(service.request(refresh="always"))
        assert sha256_file(str(service.target)) == old
        assert service.left() == ["hex8_2p.npz"]

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"samples": 99}, "99 samples"), ({"board": "square8"}, "for the board square8")],
    )
    def test_a_file_that_is_whole_and_wrong(self, service, options, words):
        write(service.fresh, **options)
        with pytest.raises(ExportError, match=words):
            export(service.request())
        assert service.left() == []

    def test_a_directory_instead_of_a_file(self, service):
        service.exporter("os.mkdir(args.output)")
        with pytest.raises(ExportError, match="cannot be read"):
            export(service.request())
        assert service.left() == []

    def test_the_registry_refuses(self, service):
        service.exporter("sys.exit('Canonical source validation failed: Database x.db not found in registry')")
        with pytest.raises(ExportError, match="Set allow_noncanonical"):
            export(service.request())
        with pytest.raises(ExportError) as caught:
            export(service.request(allow_noncanonical=True))
        assert "Set allow_noncanonical" not in str(caught.value)


class TestTime:
    def test_a_hang_ends_with_all_its_children(self, service):
        service.exporter(
            """
            open("pids", "w").write(str(os.getpid()))
            for stubborn in range(2):
                child = os.fork()
                if child == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    open("pids", "a").write(f" {os.getpid()}")
                    time.sleep(60)
                    os._exit(0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open("ready", "w")
            time.sleep(60)
            """
        )
        write(service.target, samples=50)
        old = sha256_file(str(service.target))
        begun = time.monotonic()
        with pytest.raises(ExportError, match="stopped after 0.7 s; exit code -9.*longer timeout") as caught:
            export(service.request(timeout=0.7), grace=0.3)
        assert time.monotonic() - begun < 8
        assert caught.value.result["timed_out"] is True
        pids = [int(pid) for pid in (service.root / "pids").read_text().split()]
        assert len(pids) == 3
        assert wait_until_gone(pids)
        assert sha256_file(str(service.target)) == old
        assert service.left() == ["hex8_2p.npz"]

    def test_a_hang_after_a_whole_file_is_a_success(self, service):
        service.exporter("shutil.copy('fresh.npz', args.output); time.sleep(60)")
        done = export(service.request(timeout=0.7))
        assert (done.changed, done.run.timed_out, done.run.rc) == (True, True, -15)
        assert sha256_file(str(service.target)) == sha256_file(str(service.fresh))

    def test_what_outlives_the_exporter_is_ended_and_not_waited_for(self, service):
        service.exporter(
            """
            child = os.fork()
            if child == 0:
                open("pids", "w").write(str(os.getpid()))
                time.sleep(60)
            while not os.path.exists("pids") or not open("pids").read():
                time.sleep(0.01)
            shutil.copy("fresh.npz", args.output)
            """
        )
        begun = time.monotonic()
        assert export(service.request()).changed
        assert time.monotonic() - begun < 8
        assert wait_until_gone([int((service.root / "pids").read_text())])

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_told_to_end_it_ends_the_exporter(self, service, number):
        service.exporter("open('pids', 'w').write(str(os.getpid())); time.sleep(60)")
        code = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {sys.path!r}
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_export import ExportRequest, export
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
export(ExportRequest(parse_config("hex8_2p"), {str(service.root)!r}, python={sys.executable!r}, min_free=0))
"""
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        pids = service.root / "pids"
        end = time.monotonic() + 20
        while time.monotonic() < end and not (pids.exists() and pids.read_text()):
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(20) != 0
        assert wait_until_gone([int(pids.read_text())])
        assert service.left() == []

    def test_a_killed_run_leaves_the_old_file_and_the_next_one_goes_through(self, service):
        service.exporter("os.getppid() == 1 or os.kill(os.getppid(), signal.SIGKILL); time.sleep(0.1)")
        write(service.target, samples=50)
        old = sha256_file(str(service.target))
        code = f"""
import sys
sys.path[:0] = {sys.path!r}
from ansible_collections.ringrift.recovery.plugins.module_utils._npz_export import ExportRequest, export
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
export(ExportRequest(parse_config("hex8_2p"), {str(service.root)!r}, python={sys.executable!r}, min_free=0))
"""
        assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == -9
        assert sha256_file(str(service.target)) == old
        service.exporter("shutil.copy('fresh.npz', args.output)")
        assert export(service.request()).changed


class TestHowItIsRun:
    def test_the_command_line(self, service):
        service.exporter(
            """
            import json
            facts = {"argv": [sys.executable, *sys.argv], "cwd": os.getcwd(), "session": os.getsid(0) == os.getpid(),
                     "stdin": sys.stdin.read()}
            json.dump(facts, open("facts.json", "w"))
            shutil.copy("fresh.npz", args.output)
            """
        )
        done = export(service.request(allow_noncanonical=True, extra_args=("--max-games", "7")))
        facts = json.loads((service.root / "facts.json").read_text())
        assert facts["cwd"] == str(service.root)
        assert facts["session"] is True
        assert facts["stdin"] == ""
        output = done.argv[done.argv.index("--output") + 1]
        assert os.path.dirname(os.path.dirname(output)) == str(service.folder)
        assert list(done.argv) == [
            sys.executable,
            "scripts/export_replay_dataset.py",
            "--use-discovery",
            "--board-type",
            "hex8",
            "--num-players",
            "2",
            "--output",
            output,
            "--skip-remote-check",
            "--single-threaded",
            "--allow-noncanonical",
            "--max-games",
            "7",
        ]
        assert facts["argv"][1:] == list(done.argv)[1:]

    def test_any_amount_of_output(self, service):
        service.exporter(
            """
            sys.stdout.buffer.write(b"a" * 5_000_000 + b"\\xff\\xfe end of out")
            sys.stderr.buffer.write(b"b" * 5_000_000 + b" end of err")
            shutil.copy("fresh.npz", args.output)
            """
        )
        run = export(service.request()).run
        assert run.stdout.endswith("\ufffd\ufffd end of out")
        assert run.stderr.endswith("end of err")
        assert len(run.stdout) == len(run.stderr) == 2000

    def test_the_service_s_own_interpreter_is_the_default(self, service):
        request = ExportRequest(HEX8, str(service.root))
        assert request.interpreter == str(service.root / "venv" / "bin" / "python")
        assert ExportRequest(HEX8, "~/x").root == os.path.expanduser("~/x")
        assert ExportRequest(HEX8, "/s", path="a/b.npz").target == "/s/a/b.npz"
        assert ExportRequest(HEX8, "/s", path="/a/b.npz").target == "/a/b.npz"
        assert ExportRequest(HEX8, "/s", python="/usr/bin/python3").interpreter == "/usr/bin/python3"

    def test_a_virtual_environment_is_run_by_its_link(self, service):
        folder = service.root / "venv" / "bin"
        folder.mkdir(parents=True)
        (folder / "python").symlink_to(sys.executable)
        done = export(service.request(python=None))
        assert done.argv[0] == str(folder / "python")


@contextlib.contextmanager
def another_export(service):
    """Holds the lock as the service's own exporter does."""
    with open(f"{service.target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


class TestTheLockOfTheExporter:
    def test_another_export_is_waited_for_only_so_long(self, service):
        service.exporter("open('ran', 'w')")
        write(service.target, samples=50)
        with another_export(service):
            before = service.tree()
            with pytest.raises(RecoveryError) as caught:
                export(service.request(lock_timeout=0.2))
            assert service.tree() == before
        assert f"Another export to {service.target} has held" in str(caught.value)
        assert "for 0.2 s; nothing was exported" in str(caught.value)
        assert not (service.root / "ran").exists()

    def test_who_holds_it_is_named(self, service):
        code = (
            "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
            "print(flush=True); sys.stdin.read()"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", code, f"{service.target}.lock"], **pipes) as holder:
            holder.stdout.readline()
            with pytest.raises(RecoveryError, match=f"by process {holder.pid} for 0 s"):
                export(service.request(lock_timeout=0))
            holder.stdin.close()
        assert export(service.request(lock_timeout=0)).exported

    def test_what_the_other_one_made_is_taken(self, service):
        service.exporter("open('ran', 'w')")
        waiting = threading.Event()
        results = []

        def run():
            waiting.set()
            results.append(export(service.request()))

        with another_export(service):
            thread = threading.Thread(target=run)
            thread.start()
            assert waiting.wait(10)
            time.sleep(0.3)
            assert not results
            write(service.root / "theirs.npz", seed=3)
            os.rename(service.root / "theirs.npz", service.target)
        thread.join(10)
        (done,) = results
        assert (done.changed, done.exported, done.reason, done.after.samples) == (False, False, "present", 120)
        assert not (service.root / "ran").exists()

    def test_it_is_held_while_the_exporter_runs_and_free_afterwards(self, service):
        service.exporter(f"""
            import fcntl
            with open({str(service.target) + ".lock"!r}, "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    open("skipped", "w")
            shutil.copy("fresh.npz", args.output)
        """)
        assert export(service.request()).exported
        assert (service.root / "skipped").exists()
        with another_export(service):
            pass

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs as somebody else than the service")
    def test_it_belongs_to_the_service_where_root_makes_it(self, service):
        os.chown(service.folder, 4711, 4712)
        export(service.request())
        status = os.stat(f"{service.target}.lock")
        assert (status.st_uid, status.st_gid) == (4711, 4712)

    def test_a_dry_run_takes_no_lock(self, service):
        with another_export(service):
            before = service.tree()
            assert export(service.request(lock_timeout=0), dry_run=True).changed
            assert service.tree() == before
        os.unlink(f"{service.target}.lock")
        export(service.request(), dry_run=True)
        assert not os.path.exists(f"{service.target}.lock")

    def test_a_link_in_its_place_is_not_followed(self, service):
        victim = service.root / "victim"
        victim.write_text("kept")
        os.symlink(victim, f"{service.target}.lock")
        with pytest.raises(RecoveryError, match="open the export lock"):
            export(service.request())
        assert victim.read_text() == "kept"


class TestFresherThanTheOld:
    OLD, NEW = "2026-11-23T21:16:11.187753", "2026-11-24T08:00:00+00:00"

    def test_a_step_back_is_refused(self, service):
        write(service.target, newest=self.NEW)
        write(service.fresh, seed=2, newest=self.OLD)
        before = service.target.read_bytes()
        with pytest.raises(ExportError) as caught:
            export(service.request(refresh="always"))
        assert "older than the one in place: its newest game is of 2026-11-23T21:16:11.187753" in str(caught.value)
        assert "a game database may be missing" in str(caught.value)
        assert service.target.read_bytes() == before
        assert not os.path.exists(f"{service.target}.previous")

    @pytest.mark.parametrize(
        ("old", "new"), [(OLD, NEW), (NEW, NEW), (None, OLD), (NEW, None), (NEW, "soon"), (17, OLD), (OLD, NEW[:19])]
    )
    def test_all_else_is_taken(self, service, old, new):
        write(service.target, newest=old)
        write(service.fresh, seed=2, newest=new)
        assert export(service.request(refresh="always")).exported

    def test_what_a_damaged_file_says_does_not_count(self, service):
        write(service.target, samples=50, newest=self.NEW)
        write(service.fresh, seed=2, newest=self.OLD)
        assert export(service.request()).reason == "too_few_samples"


class TestWhenOneIsMade:
    def test_auto_leaves_a_good_file_alone(self, service):
        service.exporter("open('ran', 'w')")
        write(service.target)
        before = service.tree()
        done = export(service.request())
        assert (done.changed, done.exported, done.reason, done.argv) == (False, False, "present", ())
        assert (done.as_dict()["samples"], done.as_dict()["rc"], done.as_dict()["valid"]) == (120, None, True)
        assert service.tree() == before

    @pytest.mark.parametrize(
        ("old", "reason"),
        [
            ({"samples": 99}, "too_few_samples"),
            ({"board": "square8"}, "wrong_config"),
            ({"board": "square8", "samples": 50}, "damaged"),
        ],
    )
    def test_auto_replaces_a_bad_one(self, service, old, reason):
        write(service.target, **old)
        digest = sha256_file(str(service.target))
        done = export(service.request())
        assert (done.changed, done.reason) == (True, reason)
        assert done.previous == f"{service.target}.previous"
        assert sha256_file(done.previous) == digest == done.as_dict()["before"]["sha256"]
        assert not export(service.request()).changed

    def test_auto_replaces_a_truncated_one(self, service):
        service.target.write_bytes(service.fresh.read_bytes()[:-30])
        assert export(service.request()).reason == "damaged"

    def test_always_replaces_a_good_one(self, service):
        write(service.target)
        done = export(service.request(refresh="always"))
        assert (done.changed, done.reason) == (True, "always")

    @pytest.mark.parametrize("present", [True, False])
    def test_never_only_verifies(self, service, present):
        if present:
            write(service.target, samples=50)
        done = export(service.request(refresh="never"))
        assert (done.changed, done.reason, done.argv) == (False, "never", ())
        assert done.as_dict()["valid"] is (False if present else None)
        assert (done.as_dict()["before"] is None) is not present

    def test_never_needs_no_exporter(self, tmp_path):
        done = export(ExportRequest(HEX8, str(tmp_path), refresh="never"))
        assert done.as_dict()["samples"] is None


class TestDryRun:
    @pytest.mark.parametrize("present", [True, False])
    def test_runs_nothing_and_says_what_it_would(self, service, present):
        service.exporter("open('ran', 'w')")
        if present:
            write(service.target, samples=50)
        before = service.tree()
        done = export(service.request(), dry_run=True)
        assert service.tree() == before
        assert (done.changed, done.exported) == (True, False)
        assert done.reason == ("too_few_samples" if present else "missing")
        assert (done.previous is None) is not present
        assert done.argv[done.argv.index("--output") + 1].endswith(".hex8_2p.npz.recovery-<pid>-<random>/hex8_2p.npz")
        assert "scripts/export_replay_dataset.py --use-discovery" in done.diff()["after"]["exported by"]

    def test_promises_nothing_where_there_is_no_game(self, service):
        service.games.unlink()
        before = service.tree()
        with pytest.raises(RecoveryError, match="holds a finished game of hex8_2p.* Play games first"):
            export(service.request(), dry_run=True)
        assert service.tree() == before
        # What cannot be counted may hold some, and so may what the exporter is given by name.
        assert export(service.request(extra_args=("--db", "elsewhere.db")), dry_run=True).changed
        service.games.write_bytes(b"no database")
        assert export(service.request(), dry_run=True).changed

    def test_has_the_keys_of_a_real_run(self, service):
        predicted = export(service.request(), dry_run=True).as_dict()
        done = export(service.request()).as_dict()
        assert predicted.keys() == done.keys()
        assert (predicted["changed"], predicted["reason"]) == (done["changed"], done["reason"])


class TestRefusal:
    @pytest.mark.parametrize("dry_run", [True, False])
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"python": "/nowhere/python"}, "There is no Python at /nowhere/python"),
            ({"path": "nowhere/hex8_2p.npz"}, "is not a directory"),
            ({"path": "data/training/hex8_2p"}, "end in .npz"),
            ({"min_free": 10**18}, "bytes free"),
            ({"timeout": 0.0}, "more than 0"),
            ({"refresh": "sometimes"}, "one of auto, always, never"),
            ({"extra_args": ("--output=/x",)}, "around the verification"),
            ({"extra_args": ("--out", "/x")}, "around the verification"),
            ({"extra_args": ("--append",)}, "around the verification"),
        ],
    )
    def test_before_anything_is_run(self, service, changes, words, dry_run):
        before = service.tree()
        with pytest.raises(RecoveryError, match=words) as caught:
            export(service.request(**changes), dry_run=dry_run)
        assert not isinstance(caught.value, ExportError)
        assert service.tree() == before

    def test_no_exporter(self, service):
        (service.root / "scripts" / "export_replay_dataset.py").unlink()
        with pytest.raises(MissingFileError, match="Set service_path"):
            export(service.request())

    def test_something_that_cannot_be_executed(self, service):
        fake = service.root / "python"
        fake.write_text("#!/nowhere\n")
        fake.chmod(0o755)
        with pytest.raises(RecoveryError, match="Could not run"):
            export(service.request(python=str(fake)))
        assert service.left() == []

    def test_a_directory_in_place(self, service):
        service.target.mkdir()
        with pytest.raises(RecoveryError, match="not a regular file"):
            export(service.request())


def test_run_bounded_reports_the_exit_code_and_the_time(tmp_path):
    run = run_bounded([sys.executable, "-S", "-c", "import sys; print('o'); sys.exit(3)"], str(tmp_path), 20)
    assert (run.rc, run.stdout, run.stderr, run.timed_out) == (3, "o\n", "", False)
    assert 0 < run.seconds < 20


def test_the_flags_that_argparse_would_take_for_the_output(tmp_path):
    for argument in ("--o", "--ou", "--output", "--output=x", "--ap", "--append"):
        assert _npz_export._means(argument, "--output", 3) or _npz_export._means(argument, "--append", 4)
    for argument in ("--", "--a", "--max-games", "--allow-pending-gate", "--outputs", "x"):
        assert not _npz_export._means(argument, "--output", 3)
        assert not _npz_export._means(argument, "--append", 4)

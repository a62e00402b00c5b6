# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's own lock API in both shapes, in an interpreter of its own, with services that misbehave."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from typing import Callable, Iterator

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _lock, _lock_api
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_api import ApiLock, ApiUnusable, Service

NOISE = 'print("[Tournament] Warning: optional dependencies are not available")\n'

# As the runbook has it: the lock is an object that tells its holder, kept here in a file beside the service.
RUNBOOK = """
import json, pathlib
STATE = pathlib.Path("holder.json")

class Lock:
    def is_locked(self):
        return self.get_holder() is not None
    def get_holder(self):
        return json.loads(STATE.read_text()) if STATE.exists() else None
    def force_release(self):
        STATE.unlink()

def training_lock(PARAMETER):
    return Lock()
"""


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Callable[..., Service]:
    def make(source: str, timeout: float = 10.0, **options: object) -> Service:
        package = tmp_path / "app" / "coordination"
        package.mkdir(parents=True, exist_ok=True)
        for folder in (tmp_path / "app", package):
            (folder / "__init__.py").write_text("")
        (package / "distributed_lock.py").write_text(NOISE + textwrap.dedent(source))
        return Service(str(tmp_path), sys.executable, timeout=timeout, **options)

    return make


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait(10)
    return process.pid


@pytest.fixture
def stand_in(tmp_path: pathlib.Path, root: pathlib.Path) -> Service:
    """The service of the lab, which has today's shape."""
    (tmp_path / "app").symlink_to(root / "lab" / "service" / "app")
    return Service(str(tmp_path), sys.executable, timeout=10.0)


def hold(service: Service, holder: object) -> None:
    (pathlib.Path(service.path) / "holder.json").write_text(json.dumps(holder))


def runbook(service: Callable[..., Service], parameter: str = "") -> Service:
    return service(RUNBOOK.replace("PARAMETER", parameter))


def look(service: Service, **options: object) -> _lock.LockReport:
    return _lock.inspect_all("hex8_2p", service.path, service=service, **{"backend": "api", **options})


@pytest.mark.parametrize(("parameter", "whole"), [("", True), ("config_key=None, timeout=60", False)])
def test_the_runbooks_lock_that_is_free(service, parameter, whole):
    api = runbook(service, parameter)
    seen = _lock_api.ask(api, "training:hex8_2p", "hex8_2p")
    assert seen == ApiLock("runbook", holder=None, locked=False, whole_service=whole)
    report = look(api)
    assert (report.lock.verdict, report.lock.backend, report.lock.held) == ("free", "api", False)
    assert report.chosen.backend == "api"
    assert ("takes no config" in report.chosen.reason) is whole


def test_the_runbooks_lock_of_a_dead_holder_is_released(service, dead):
    api = runbook(service)
    token = f"{socket.gethostname()}:{dead}:0ef85993"
    hold(api, token)
    lock = look(api).lock
    assert (lock.verdict, lock.token, lock.held, lock.record) == ("stale_dead", token, True, (token,))
    assert f"the API of {api.root}" in lock.place
    assert _lock.release(lock) is None
    assert not (pathlib.Path(api.path) / "holder.json").exists()
    assert look(api).lock.verdict == "free"


def test_the_runbooks_lock_of_a_live_holder_is_not(service):
    api = runbook(service)
    token = f"{socket.gethostname()}:{os.getpid()}:0ef85993"
    hold(api, token)
    report = look(api)
    assert (report.lock.verdict, report.lock.releasable) == ("held_live", False)
    assert [process.pid for process in report.lock.holder.family.processes] == [os.getpid()]
    assert f"expect_holder={token}" in _lock.refusal(report, force=True)
    hold(api, "another-host:1:0ef85993")
    assert look(api).lock.verdict == "held_live_foreign"


def test_a_holder_that_changes_before_the_release(service, dead):
    api = runbook(service)
    hold(api, f"{socket.gethostname()}:{dead}:0ef85993")
    lock = look(api).lock
    hold(api, f"{socket.gethostname()}:{dead}:11111111")
    assert _lock.release(lock) == "it has another holder"
    assert (pathlib.Path(api.path) / "holder.json").exists()
    (pathlib.Path(api.path) / "holder.json").unlink()
    assert _lock.release(lock) == "it has no holder any more"


def test_a_force_release_that_does_nothing(service, dead):
    api = service(RUNBOOK.replace("PARAMETER", "").replace("STATE.unlink()", "pass"))
    hold(api, f"{socket.gethostname()}:{dead}:0ef85993")
    with pytest.raises(ApiUnusable, match="left vm|left .* in place"):
        _lock.release(look(api).lock)


def test_a_class_may_need_the_config(service, dead):
    api = service(
        """
        class training_lock:
            def __init__(self, config_key): self.config = config_key
            def get_holder(self): return "somebody with " + self.config
            def force_release(self): pass
        """
    )
    report = look(api)
    assert (report.lock.verdict, report.lock.token) == ("unknown", "somebody with hex8_2p")


@pytest.mark.parametrize("head", ["def", "@contextlib.contextmanager\ndef", "async def"])
def test_what_may_acquire_is_never_called(service, tmp_path, head):
    body = "open('acquired', 'w'); yield" if "context" in head else "open('acquired', 'w')"
    api = service(f"import contextlib\n{head} training_lock(config_key, timeout=60):\n    {body}\n")
    with pytest.raises(ApiUnusable, match="neither DistributedLock nor"):
        look(api)
    assert not (tmp_path / "acquired").exists()


@pytest.mark.parametrize(
    ("holder", "verdict"),
    [
        ({"hostname": "HOST", "pid": "DEAD"}, "stale_dead"),
        ({"lock_id": "HOST:1:0ef85993", "pid": "DEAD"}, "held_live"),
        ({"host": "HOST", "holder_pid": "ME", "acquired_at": "LONG AGO"}, "stale_prior_boot"),
        ({"host": "HOST", "holder_pid": "ME", "acquired_at": "A MOMENT BEFORE"}, "stale_pid_reused"),
        ({"host": "HOST", "holder_pid": "ME", "acquired_at": "NOW"}, "held_live"),
        # A monotonic clock, or the birth of something else, is no time at which the lock was taken.
        ({"host": "HOST", "holder_pid": "ME", "acquired_at": 5000.0}, "held_live"),
        ({"host": "HOST", "holder_pid": "ME", "created_at": "LONG AGO"}, "held_live"),
        ({"host": "HOST"}, "unknown"),
        # No numbers of processes, whatever str.isdigit() says of the first one.
        ({"host": "HOST", "pid": "\u00b9"}, "unknown"),
        ({"host": "HOST", "pid": "1" * 5000}, "unknown"),
        ("somebody", "unknown"),
        (12345, "unknown"),
        (["HOST", 1], "unknown"),
    ],
)
def test_what_a_holder_may_look_like(service, dead, holder, verdict):
    api = runbook(service)
    started = _lock._lock_holder.read_stat(os.getpid()).start_time
    words = {
        **{"HOST": socket.gethostname(), "DEAD": dead, "ME": os.getpid(), "LONG AGO": 1_500_000_001.0},
        **{
            "A MOMENT BEFORE": started - 30,
            "NOW": time.time(),
            "HOST:1:0ef85993": f"{socket.gethostname()}:1:0ef85993",
        },
    }
    if isinstance(holder, dict):
        holder = {name: words.get(part, part) for name, part in holder.items()}
    if started - 30 < _lock.boot_time():
        pytest.skip("this machine was started only just before")
    hold(api, holder)
    report = look(api)
    assert report.lock.verdict == verdict, report.lock.reason
    assert report.lock.holder is not None
    # Also a holder that cannot be read has a token, so that an operator can name it.
    assert report.lock.token
    assert _lock.refusal(report, report.lock.token, force=True) is None


def test_nobody_is_named_and_yet_it_is_locked(service):
    api = service(RUNBOOK.replace("PARAMETER", "").replace("return self.get_holder() is not None", "return True"))
    report = look(api)
    assert (report.lock.verdict, report.lock.held, report.lock.token) == ("unknown", None, None)
    assert "names no holder" in _lock.refusal(report, "anything", force=True)


def test_todays_shape_is_only_constructed(stand_in, dead):
    """Its is_locked() would take the flock, and training_lock() acquires."""
    root = pathlib.Path(stand_in.path)
    seen = _lock_api.ask(stand_in, "training:hex8_2p", "hex8_2p")
    assert (seen.shape, seen.backend) == ("DistributedLock", "file")
    assert seen.path.endswith("data/locks/training_hex8_2p.lock")
    assert not (root / "data").exists()
    report = look(stand_in)
    assert (report.lock.backend, report.chosen.backend) == ("file", "file")
    assert report.lock.path == seen.path
    assert "it selects file" in report.chosen.reason


def test_a_dead_holder_of_todays_file(stand_in, tmp_path, dead, monkeypatch):
    monkeypatch.setenv("AI_SERVICE_DATA_DIR", str(tmp_path / "elsewhere"))
    path = tmp_path / "elsewhere" / "locks" / "training_hex8_2p.lock"
    path.parent.mkdir(parents=True)
    path.write_text(f"{socket.gethostname()}:{dead}:0ef85993\n{time.time() - 5}\n3600\n")
    for backend in ("api", "auto"):
        report = look(stand_in, backend=backend)
        assert (report.lock.verdict, report.lock.path) == ("orphan_file", str(path))
    assert _lock.release(report.lock) is None
    assert look(stand_in).lock.verdict == "free"


def test_the_first_shape_of_distributed_lock_has_no_backend(service):
    source = """
    LOCK_DIR = "/nowhere/locks"
    REDIS_URL = "redis://:s3cret@cache:6379/0"
    class DistributedLock:
        def __init__(self, name):
            self._redis_client = CLIENT
    """
    seen = _lock_api.ask(service(source.replace("CLIENT", "None")), "training:hex8_2p", "hex8_2p")
    assert (seen.backend, seen.path, seen.redis_url) == ("file", "/nowhere/locks/training_hex8_2p.lock", None)
    seen = _lock_api.ask(service(source.replace("CLIENT", "object()")), "training:hex8_2p", "hex8_2p")
    assert (seen.backend, seen.key, seen.redis_url) == (
        "redis",
        "lock:training:hex8_2p",
        "redis://:s3cret@cache:6379/0",
    )
    assert "s3cret" not in repr(seen)


def test_a_backend_that_only_the_service_knows(service):
    api = service("class DistributedLock:\n    backend = 'raft'\n    def __init__(self, name): pass\n")
    report = look(api, backend="auto")
    assert [(lock.backend, lock.verdict) for lock in report.locks] == [("file", "free"), ("api", "unknown")]
    assert report.chosen.backend == "raft"
    assert "raft, which cannot be looked at" in report.lock.reason


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('no torch')", "RuntimeError: no torch"),
        ("raise ValueError('bad url redis://:s3cret@cache:6379/0')", r"redis://\*\*\*@cache"),
        ("import os; os._exit(3)", "gave no answer"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("x = 1", "neither DistributedLock nor"),
        ("class DistributedLock:\n    def __init__(self, name): pass", "does not tell which backend"),
        ("def training_lock():\n    raise OSError('full')", "OSError: full"),
    ],
)
def test_what_cannot_be_used(service, source, message):
    api = service(source)
    with pytest.raises(ApiUnusable, match=message) as caught:
        look(api)
    assert "s3cret" not in str(caught.value)
    report = look(api, backend="auto")
    assert [finding["code"] for finding in report.findings] == ["api_unusable"]
    assert (report.chosen.backend, report.lock.backend) == ("file", "file")
    assert "was not asked" in report.chosen.reason


def test_noise_before_and_after_the_answer(service):
    api = service(
        """
        import atexit, os, threading, time
        atexit.register(print, "bye")
        os.write(1, b"{\\"ringrift_lock\\": 1, \\"shape\\": \\"forged\\"}\\n")
        threading.Thread(target=lambda: [print("noise", flush=True) or time.sleep(0.001) for _ in range(999)]).start()
        def training_lock():
            class Lock:
                def get_holder(self): return None
                def force_release(self): pass
            return Lock()
        """
    )
    assert _lock_api.ask(api, "training:hex8_2p", "hex8_2p").shape == "runbook"


def test_a_service_that_hangs_costs_its_deadline_and_leaves_nothing(service, tmp_path):
    api = service(
        """
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "60"])
        open("pids", "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(60)
        """,
        timeout=1.0,
    )
    begun = time.monotonic()
    with pytest.raises(ApiUnusable, match="did not answer within 1 s; raise api_timeout"):
        look(api)
    assert time.monotonic() - begun < 4
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        deadline = time.monotonic() + 5
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _alive(pid)


def _alive(pid: int) -> bool:
    stat = _lock._lock_holder.read_stat(pid)
    return stat is not None and stat.alive


def test_looking_writes_nothing(service, tmp_path):
    api = runbook(service)
    before = sorted(tmp_path.rglob("*"))
    look(api)
    look(api, backend="auto")
    assert sorted(tmp_path.rglob("*")) == before


def test_where_there_is_no_service(tmp_path):
    api = Service(str(tmp_path), sys.executable)
    with pytest.raises(RecoveryError, match=r"has no app/coordination/distributed_lock\.py"):
        look(api)
    report = look(api, backend="auto")
    assert (report.chosen.backend, report.findings) == ("file", ())
    assert "no redis_url is given" in report.chosen.reason
    with pytest.raises(RecoveryError, match="give python"):
        _lock.inspect_all("hex8_2p", str(tmp_path), backend="api")


def test_an_interpreter_that_is_none(service, tmp_path):
    api = runbook(service)
    (tmp_path / "python").write_text("not a program")
    for python, message in (("absent/python", "cannot be run"), ("python", "cannot be run")):
        with pytest.raises(ApiUnusable, match=message):
            look(Service(api.path, python))
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(ApiUnusable, match="could not be started|gave no answer"):
        look(Service(api.path, "python"))


@pytest.fixture
def redis_url(tmp_path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "s3cret"]
    process = subprocess.Popen([program, *words, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.02)
    yield f"redis://:s3cret@127.0.0.1:{port}/0"
    process.kill()
    process.wait(5)


def test_the_api_says_that_the_service_uses_redis(stand_in, redis_url, monkeypatch, dead):
    """Without redis_url the one that the service itself reads is looked at; its password stays out of the result."""
    monkeypatch.setenv("LAB_REDIS", "1")
    monkeypatch.setenv("REDIS_URL", redis_url)
    from ansible_collections.ringrift.recovery.plugins.module_utils._redis import RedisClient, parse_redis_url

    token = f"{socket.gethostname()}:{dead}:0ef85993"
    with RedisClient(parse_redis_url(redis_url)) as client:
        client.command("SET", "lock:training:hex8_2p", token, "EX", 3600)
    report = look(stand_in, backend="auto")
    assert [(lock.backend, lock.verdict) for lock in report.locks] == [("file", "free"), ("redis", "stale_dead")]
    assert report.chosen.backend == "redis"
    assert "s3cret" not in json.dumps(report.as_dict())
    only = look(stand_in)
    assert [lock.backend for lock in only.locks] == ["redis"]
    path = pathlib.Path(report.locks[0].path)
    assert not path.exists()

    # The service was told by redis_url, not by its environment.
    monkeypatch.delenv("REDIS_URL")
    given = Service(stand_in.path, stand_in.python, redis_url, 10.0)
    assert look(given, backend="auto", redis_url=redis_url).chosen.backend == "redis"
    assert _lock.release(only.lock) is None
    assert look(given, backend="auto", redis_url=redis_url).taken == ()


def test_a_lock_where_the_service_does_not_look(stand_in, redis_url, tmp_path, dead, monkeypatch):
    monkeypatch.setenv("AI_SERVICE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LAB_REDIS", "1")
    path = tmp_path / "data" / "locks" / "training_hex8_2p.lock"
    path.parent.mkdir(parents=True)
    path.write_text(f"{socket.gethostname()}:{dead}:0ef85993\n{time.time() - 5}\n3600\n")
    given = Service(stand_in.path, stand_in.python, redis_url, 10.0)
    report = look(given, backend="auto", redis_url=redis_url)
    assert [finding["code"] for finding in report.findings] == ["other_backend"]
    assert f"file {path}" in report.findings[0]["message"]

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module training_lock, with real locks."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils import _lock_file
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._redis import RedisClient, parse_redis_url
from ansible_collections.ringrift.recovery.plugins.modules import training_lock

KEYS = {
    *("changed", "released", "lock", "after", "locks", "split_brain", "record"),
    *("chosen", "findings", "node"),
}

# Takes the lock as the service does, forks children that inherit it, and waits.
HOLDER = r"""
import fcntl, os, socket, sys, time, uuid
path, children = sys.argv[1], int(sys.argv[2])
handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o755)
fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
token = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
os.write(handle, f"{token}\n{time.time()}\n3600\n".encode())
pids = []
for _ in range(children):
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    pids.append(pid)
print(token, *pids, flush=True)
time.sleep(60)
"""


class Holder:
    def __init__(self, path: pathlib.Path, children: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", HOLDER, str(path), str(children)],
            stdout=subprocess.PIPE,
            encoding="ascii",
        )
        self.token, *pids = self.process.stdout.readline().split()
        self.children = [int(pid) for pid in pids]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def kill_children(self) -> None:
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}/fd/3"):
                time.sleep(0.001)
        self.children = []

    def close(self) -> None:
        self.kill_children()
        self.kill()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "data" / "locks").mkdir(parents=True)
    return tmp_path / "data" / "locks" / "training_hex8_2p.lock"


@pytest.fixture
def hold(path: pathlib.Path) -> Iterator[Any]:
    holders: List[Holder] = []

    def take(children: int = 0) -> Holder:
        holders.append(Holder(path, children))
        return holders[-1]

    yield take
    for holder in holders:
        holder.close()


@pytest.fixture
def call(path: pathlib.Path, tmp_path: pathlib.Path, capsys) -> Any:
    def run(check: bool = False, failed: bool = False, **args: Any) -> Dict[str, Any]:
        args = {"config": "hex8_2p", "service_path": str(tmp_path), **args}
        internal = {"_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args({**args, **internal}), pytest.raises(SystemExit):
            training_lock.main()
        result = json.loads(capsys.readouterr().out)
        assert result.get("failed", False) is failed, result
        return result

    return run


def test_query(call, path, hold):
    result = call()
    assert set(result) - {"invocation"} == KEYS
    assert (result["changed"], result["released"], result["lock"]["verdict"]) == (False, False, "free")
    holder = hold()
    result = call()
    assert result["lock"]["verdict"] == "held_live"
    assert result["lock"]["holder"]["token"] == holder.token
    assert result["lock"]["holder"]["holders"] == [holder.process.pid]
    assert result["after"] == result["lock"]
    assert result["record"]["file"][0] == holder.token
    assert path.exists()


def test_release_in_four_runs(call, path, hold):
    holder = hold()
    holder.kill()
    content = path.read_bytes()
    first = call(check=True, state="released")
    assert path.read_bytes() == content
    second = call(state="released")
    assert path.read_bytes() == b""
    third = call(check=True, state="released")
    fourth = call(state="released")
    results = [first, second, third, fourth]
    assert [result["changed"] for result in results] == [True, True, False, False]
    assert [result["released"] for result in results] == [True, True, False, False]
    assert [result["lock"]["verdict"] for result in results] == ["orphan_file", "orphan_file", "free", "free"]
    for result in results:
        assert set(result) - {"invocation"} == KEYS | {"diff"}
        assert result["after"]["verdict"] == "free"
        assert result["diff"]["before"] == {"locks": result["locks"]}
        assert result["diff"]["after"]["locks"] == [result["after"]]
    assert first["after"] == second["after"]
    assert second["record"]["file"][0] == holder.token
    assert fourth["record"] == {"file": None}


@pytest.mark.parametrize("check", [True, False])
def test_a_live_holder_is_left_alone(call, path, hold, check):
    holder = hold()
    content = path.read_bytes()
    for options in ({}, {"force": True}, {"expect_holder": holder.token}):
        result = call(check=check, failed=True, state="released", **options)
        assert set(result) - {"invocation"} == KEYS | {"diff", "failed", "msg"}
        assert (result["changed"], result["released"]) == (False, False)
        assert result["lock"] == {**result["after"]}
        for part in ("held_live", str(path), str(holder.process.pid), f"-e expect_holder={holder.token} -e force=true"):
            assert part in result["msg"]
    assert path.read_bytes() == content


def test_another_holder_than_expected(call, path, hold):
    holder = hold()
    other = "vm:1:00000000"
    for force in (False, True):
        result = call(failed=True, state="released", expect_holder=other, force=force)
        assert holder.token in result["msg"]
        assert other in result["msg"]
    holder.kill()
    assert "nothing was released" in call(failed=True, state="released", expect_holder=other)["msg"]
    assert path.exists()
    assert call(check=True, state="released", expect_holder=holder.token)["changed"]
    # The permission to break the lock of one holder does not stand in the way of a lock that is left over.
    assert call(state="released", expect_holder=other, force=True)["changed"]


def test_force_with_the_token_in_four_runs(call, path, hold):
    options = {"state": "released", "expect_holder": hold().token, "force": True}
    results = [call(check=check, **options) for check in (True, False, True, False)]
    assert [result["changed"] for result in results] == [True, True, False, False]
    assert results[0]["after"] == results[1]["after"]
    assert not path.exists()


def test_an_orphan_in_four_runs(call, path, hold):
    """A data loader worker keeps the lock of a trainer that was killed."""
    holder = hold(children=2)
    holder.kill()
    result = call(failed=True, state="released")
    assert result["lock"]["verdict"] == "orphan_fd"
    assert result["lock"]["holder"]["holders"] == sorted(holder.children)
    assert all(str(pid) in result["msg"] for pid in holder.children)
    workers = holder.children

    predicted = call(check=True, state="released", assume_gone=workers)
    assert (predicted["changed"], predicted["lock"]["releasable"]) == (True, True)
    assert call(check=True, failed=True, state="released", assume_gone=workers[:1])["lock"]["verdict"] == "orphan_fd"
    # In a real run nobody is taken for dead.
    assert call(failed=True, state="released", assume_gone=workers)["lock"]["verdict"] == "orphan_fd"
    assert path.exists()

    holder.kill_children()
    done = call(state="released")
    for key in ("changed", "released", "after", "record"):
        assert done[key] == predicted[key]
    assert done["lock"]["verdict"] == predicted["lock"]["verdict"] == "orphan_file"
    assert not call(check=True, state="released")["changed"]
    assert not call(state="released")["changed"]


def test_what_changes_meanwhile_is_left_alone(call, path, hold, monkeypatch):
    hold().kill()
    successors: List[Holder] = []

    def late(seen: Any, forced: bool = False) -> Any:
        path.unlink()
        successors.append(hold())
        return really(seen, forced)

    really = _lock_file.release
    monkeypatch.setattr(_lock_file, "release", late)
    result = call(failed=True, state="released")
    assert (result["changed"], result["released"]) == (False, False)
    assert "has changed meanwhile" in result["msg"]
    assert result["after"]["holder"]["token"] == successors[0].token
    assert path.read_text().startswith(successors[0].token)


def test_a_half_written_file_is_unknown_and_an_empty_one_is_free(call, path):
    path.write_text("vm:19")
    result = call(failed=True, state="released", force=True)
    assert result["lock"]["verdict"] == "unknown"
    assert "names no holder" in result["msg"]
    path.write_text("")
    result = call(state="released")
    assert (result["lock"]["verdict"], result["changed"]) == ("free", False)


def test_another_file_than_a_lock_is_never_removed(call, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("root:x:0:0:root:/root:/bin/bash\n")
    result = call(failed=True, state="released", path=str(precious), force=True, expect_holder="root:1:00000000")
    assert result["lock"]["verdict"] == "unknown"
    assert precious.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"config": "hex8"}, "hex8_2p"),
        ({"config": "../../x_2p"}, "hex8_2p"),
        ({"backend": "redis"}, "redis_url"),
        ({"redis_url": "http://hunter2@host"}, "redis://"),
        ({"path": "/proc/1/no/such"}, None),
    ],
)
def test_what_cannot_be_looked_at(call, args, message):
    if message is None:
        assert call(**args)["lock"]["verdict"] == "free"
        return
    result = call(failed=True, **args)
    assert message in result["msg"]
    assert "hunter2" not in json.dumps(result)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    words = [
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(tmp_path_factory.mktemp("redis")),
        "--requirepass",
        "s3cret",
    ]
    for _attempt in range(5):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        process = subprocess.Popen([program, "--port", str(port), *words], stdout=subprocess.DEVNULL)
        url = f"redis://:s3cret@127.0.0.1:{port}/0"
        if answers(process, url):
            break
    yield url
    process.kill()
    process.wait(5)


def answers(process: subprocess.Popen, url: str) -> bool:
    """Whether the server comes up; it does not where somebody else was faster to take the port."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ask(url, "PING")
            return True
        except RecoveryError:
            time.sleep(0.02)
    process.kill()
    process.wait(5)
    return False


def ask(url: str, *words: object) -> Any:
    with RedisClient(parse_redis_url(url)) as client:
        return client.command(*words)


def take(url: str, pid: int, host: str = "") -> str:
    token = f"{host or socket.gethostname()}:{pid}:842da588"
    ask(url, "SET", "lock:training:hex8_2p", token, "EX", 3600)
    return token


def gone_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait(10)
    return process.pid


def test_redis_in_four_runs(call, redis_url):
    token = take(redis_url, gone_pid())
    options = {"state": "released", "backend": "redis", "redis_url": redis_url}
    first = call(check=True, **options)
    assert ask(redis_url, "GET", "lock:training:hex8_2p") == token.encode()
    results = [first, *(call(check=check, **options) for check in (False, True, False))]
    assert [result["changed"] for result in results] == [True, True, False, False]
    assert [result["lock"]["verdict"] for result in results] == ["stale_dead", "stale_dead", "free", "free"]
    assert results[0]["after"] == results[1]["after"]
    assert results[1]["record"] == {"redis": [token]}
    assert ask(redis_url, "EXISTS", "lock:training:hex8_2p") == 0
    assert "s3cret" not in json.dumps(results)


def test_redis_and_a_live_holder(call, redis_url):
    token = take(redis_url, os.getpid())
    options = {"state": "released", "redis_url": redis_url}
    assert "held_live" in call(failed=True, **options)["msg"]
    assert f"expect_holder={token}" in call(failed=True, force=True, **options)["msg"]
    assert call(check=True, assume_gone=[os.getpid()], **options)["lock"]["verdict"] == "stale_dead"
    assert ask(redis_url, "EXISTS", "lock:training:hex8_2p") == 1
    assert call(force=True, expect_holder=token, **options)["changed"]
    assert ask(redis_url, "EXISTS", "lock:training:hex8_2p") == 0


def test_redis_and_another_host(call, redis_url):
    token = take(redis_url, 1, host="nebius-h100-3")
    result = call(failed=True, state="released", redis_url=redis_url)
    assert result["lock"]["verdict"] == "held_live_foreign"
    assert "Ask on host nebius-h100-3" in result["msg"]
    assert call(state="released", redis_url=redis_url, expect_holder=token, force=True)["released"]


def test_file_and_redis_together(call, path, hold, redis_url):
    hold().kill()
    take(redis_url, os.getpid())
    result = call(failed=True, state="released", redis_url=redis_url)
    assert [lock["verdict"] for lock in result["locks"]] == ["orphan_file", "held_live"]
    assert result["lock"]["backend"] == "redis"
    assert path.exists()
    take(redis_url, gone_pid())
    options = {"state": "released", "redis_url": redis_url}
    results = [call(check=check, **options) for check in (True, False, True, False)]
    assert [result["changed"] for result in results] == [True, True, False, False]
    assert results[0]["after"] == results[1]["after"]
    assert set(results[1]["record"]) == {"file", "redis"}
    assert path.read_bytes() == b""
    assert ask(redis_url, "EXISTS", "lock:training:hex8_2p") == 0


def test_split_brain(call, hold, redis_url):
    hold()
    take(redis_url, os.getpid())
    result = call(redis_url=redis_url)
    assert result["split_brain"] is True
    assert [lock["held"] for lock in result["locks"]] == [True, True]
    ask(redis_url, "FLUSHALL")
    assert call(redis_url=redis_url)["split_brain"] is False


def test_a_key_that_changes_meanwhile(call, redis_url, monkeypatch):
    take(redis_url, gone_pid())

    def late(lock: Any, force: bool, timeout: float) -> Any:
        take(redis_url, os.getpid())
        return really(lock, force, timeout)

    really = training_lock.release
    monkeypatch.setattr(training_lock, "release", late)
    result = call(failed=True, state="released", redis_url=redis_url)
    assert (result["changed"], result["released"]) == (False, False)
    assert "has changed meanwhile" in result["msg"]
    assert result["after"]["holder"]["pid"] == os.getpid()
    ask(redis_url, "FLUSHALL")


def test_a_wrong_password_fails_and_is_not_told(call, redis_url):
    url = redis_url.replace("s3cret", "wr0ng-pa55")
    for backend in ("auto", "redis"):
        result = call(failed=True, backend=backend, redis_url=url, state="released")
        assert "refused the logon" in result["msg"]
        assert "wr0ng-pa55" not in json.dumps(result)


def test_a_redis_that_is_down(call, path, hold):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"redis://:s3cret@127.0.0.1:{probe.getsockname()[1]}/0"
        assert "cannot be reached" in call(failed=True, backend="redis", redis_url=url)["msg"]
        hold().kill()
        result = call(failed=True, state="released", redis_url=url)
    assert [lock["verdict"] for lock in result["locks"]] == ["orphan_file", "unknown"]
    assert "leave it aside with backend=file" in result["msg"]
    assert path.exists()
    assert call(state="released")["changed"]


def test_the_documentation_names_every_key(call):
    documented = yaml.safe_load(training_lock.RETURN)
    assert set(documented) == KEYS - {"changed"}
    shown = call()["lock"]
    assert set(documented["lock"]["contains"]) == set(shown)


def test_the_documented_holder(call, hold):
    hold()
    documented = yaml.safe_load(training_lock.RETURN)
    assert set(documented["lock"]["contains"]["holder"]["contains"]) == set(call()["lock"]["holder"])


def test_every_other_key_is_documented(call, hold):
    holder = hold(children=1)
    documented = yaml.safe_load(training_lock.RETURN)
    result = call()
    for name in ("chosen", "node"):
        assert set(documented[name]["contains"]) == set(result[name])
    told = result["lock"]["holder"]
    assert {process["pid"] for process in told["processes"]} == {holder.process.pid, *holder.children}
    assert told["parents"][0]["pid"] == os.getpid()
    contained = documented["lock"]["contains"]["holder"]["contains"]["processes"]["contains"]
    assert set(contained) == set(told["processes"][0])


def test_another_host_that_was_asked_in_four_runs(call, redis_url):
    token = take(redis_url, 1, host="nebius-h100-3")
    answer = {"token": token, "verdict": "dead", "reason": "there is no process 1", "hostname": "nebius-h100-3"}
    options = {"state": "released", "redis_url": redis_url}
    for answers in ([], [{**answer, "verdict": "alive"}], [answer, {"token": token, "host": "silent"}]):
        result = call(failed=True, holder_answers=answers, **options)
        assert result["lock"]["verdict"] == "held_live_foreign"
    assert "silent" in result["msg"]
    assert "'gone'" in call(failed=True, holder_answers=[{**answer, "verdict": "gone"}], **options)["msg"]
    # As the module lock_holder returns it, with keys that are of no interest here.
    raw = {**answer, "changed": False, "failed": False, "keepers": [], "kept": None}
    results = [call(check=check, holder_answers=[raw], **options) for check in (True, False, True, False)]
    assert [result["changed"] for result in results] == [True, True, False, False]
    assert [result["lock"]["verdict"] for result in results[:2]] == ["stale_dead", "stale_dead"]
    assert results[0]["after"] == results[1]["after"]
    assert ask(redis_url, "EXISTS", "lock:training:hex8_2p") == 0


API = """
import pathlib
STATE = pathlib.Path("holder")
print("noise")
class Lock:
    def get_holder(self): return STATE.read_text() if STATE.exists() else None
    def is_locked(self): return bool(self.get_holder())
    def force_release(self): STATE.unlink()
def training_lock(): return Lock()
"""


@pytest.fixture
def api(tmp_path) -> pathlib.Path:
    """A service with the runbook's lock; gives the file in which it keeps the holder."""
    package = tmp_path / "app" / "coordination"
    package.mkdir(parents=True)
    for folder in (tmp_path / "app", package):
        (folder / "__init__.py").write_text("")
    (package / "distributed_lock.py").write_text(API)
    return tmp_path / "holder"


@pytest.mark.parametrize("backend", ["api", "auto"])
def test_the_runbooks_api_in_four_runs(call, api, backend):
    token = f"{socket.gethostname()}:{gone_pid()}:0ef85993"
    api.write_text(token)
    options = {"state": "released", "backend": backend, "python": sys.executable}
    results = [call(check=True, **options)]
    assert api.exists()
    results += [call(check=check, **options) for check in (False, True, False)]
    assert [result["changed"] for result in results] == [True, True, False, False]
    assert [result["lock"]["verdict"] for result in results] == ["stale_dead", "stale_dead", "free", "free"]
    assert results[0]["after"] == results[1]["after"]
    assert results[1]["record"]["api"] == [token]
    assert results[1]["chosen"]["backend"] == "api"
    assert not api.exists()


def test_the_runbooks_api_and_a_live_holder(call, api):
    token = f"{socket.gethostname()}:{os.getpid()}:0ef85993"
    api.write_text(token)
    options = {"state": "released", "backend": "api", "python": sys.executable}
    for extra in ({}, {"force": True}, {"expect_holder": token}, {"force": True, "expect_holder": "x:1:0ef85993"}):
        result = call(failed=True, **options, **extra)
        assert (result["lock"]["verdict"], result["released"]) == ("held_live", False)
        assert api.exists()
    assert call(force=True, expect_holder=token, **options)["released"]
    assert not api.exists()


def test_an_api_that_tells_of_the_lock_file_once_more(call, api, path):
    """The file is released where it is; that the API then has nothing to release is no change meanwhile."""
    source = API.replace('"holder"', '"data/locks/training_hex8_2p.lock"').replace(
        "read_text()", "read_text().partition(chr(10))[0] or None"
    )
    (api.parent / "app" / "coordination" / "distributed_lock.py").write_text(source)
    path.write_text(f"{socket.gethostname()}:{gone_pid()}:0ef85993\n{time.time() - 5}\n3600\n")
    options = {"state": "released", "python": sys.executable}
    results = [call(check=check, **options) for check in (True, False, True, False)]
    assert [result["changed"] for result in results] == [True, True, False, False]
    assert [lock["verdict"] for lock in results[1]["locks"]] == ["orphan_file", "stale_dead"]
    assert results[0]["after"] == results[1]["after"]


def test_an_api_that_cannot_be_asked(call, tmp_path):
    assert "python" in call(failed=True, backend="api")["msg"]
    result = call(backend="auto")
    assert (result["chosen"]["backend"], result["findings"]) == ("file", [])
    assert "was not asked" in result["chosen"]["reason"]

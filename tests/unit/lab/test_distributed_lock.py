# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's lock, in its own process as on a node, against what was measured on the real one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from tests.unit.lab.service_tree import Service, wait_for

NAME = "training:hex8_2p"
HOLD = f"""\
import sys, time
from app.coordination.distributed_lock import DistributedLock
lock = DistributedLock({NAME!r}, lock_timeout=int(sys.argv[1]))
print("acquired", lock.acquire(timeout=0), lock.backend, lock._lock_id, flush=True)
time.sleep(60)
"""
FORK = HOLD.replace("time.sleep", "import os; os.fork(); time.sleep")


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path / "ai-service")


@pytest.fixture
def path(service):
    return service.path / "data/locks/training_hex8_2p.lock"


def ask(service: Service, expression: str, **env: str) -> str:
    """The last line that a fresh process prints."""
    code = f"from app.coordination.distributed_lock import *\nlock = DistributedLock({NAME!r})\nprint({expression})"
    result = service.run("-c", code, **env)
    return (result.stdout if result.returncode == 0 else result.stderr).splitlines()[-1]


def held(service: Service) -> bool:
    return "acquired True" in service.log()


class TestFile:
    def test_the_file_says_who_since_when_and_for_how_long(self, service, path):
        with service.start(service.argv("-c", HOLD, "3600")) as process:
            wait_for(lambda: held(service), "the lock")
            assert service.lines()[0].startswith("[Tournament] Warning: ")
            assert f"acquired True file {socket.gethostname()}:{process.pid}:" in service.log()
            holder, since, timeout, rest = path.read_text().split("\n")
            assert re.fullmatch(rf"{re.escape(socket.gethostname())}:{process.pid}:[0-9a-f]{{8}}", holder)
            assert abs(float(since) - time.time()) < 20
            assert (timeout, rest) == ("3600", "")
            assert path.stat().st_mode & 0o777 == 0o777 & ~_umask()
            assert ask(service, "lock.is_locked(), lock.is_held(), lock.acquire(timeout=0)") == "True False False"

    def test_the_flock_goes_with_its_holder_and_the_file_stays(self, service, path):
        with service.start(service.argv("-c", HOLD, "3600")) as process:
            wait_for(lambda: held(service), "the lock")
            process.kill()
            process.wait(10)
        assert ask(service, "lock.is_locked()") == "False"
        assert path.read_text().split(":")[1] == str(process.pid)
        expected = "{'scanned': 1, 'removed_expired': 0, 'removed_old': 0, 'removed_dead_process': 1, 'errors': 0}"
        assert ask(service, "cleanup_stale_locks()") == expected
        assert not path.exists()
        assert ask(service, "lock.acquire(timeout=0)") == "True"

    def test_cleanup_leaves_a_live_holder_alone(self, service, path):
        with service.start(service.argv("-c", HOLD, "3600")):
            wait_for(lambda: held(service), "the lock")
            assert "'removed_dead_process': 0" in ask(service, "cleanup_stale_locks()")
            assert path.exists()

    def test_a_forked_child_keeps_the_flock(self, service):
        with service.start(service.argv("-c", FORK, "3600")) as process:
            wait_for(lambda: held(service), "the lock")
            children = f"/proc/{process.pid}/task/{process.pid}/children"
            wait_for(lambda: open(children).read(), "the child")
            child = int(open(children).read())
            process.kill()
            process.wait(10)
            try:
                assert ask(service, "lock.is_locked(), lock.acquire(timeout=0)") == "True False"
                assert "'removed_dead_process': 1" in ask(service, "cleanup_stale_locks()")
                assert ask(service, "lock.acquire(timeout=0)") == "True"
            finally:
                os.kill(child, signal.SIGKILL)

    def test_an_expired_live_holder_loses_the_lock_to_a_second_one(self, service, path):
        with service.start(service.argv("-c", HOLD, "0")) as process:
            wait_for(lambda: held(service), "the lock")
            before = path.stat().st_ino
            answer = ask(service, "lock.is_locked(), lock.acquire(timeout=0), lock._path.stat().st_ino")
            assert answer.split()[:2] == ["True", "True"]
            assert int(answer.split()[2]) != before
            assert process.poll() is None

    def test_release_takes_the_file_away(self, service, path):
        assert ask(service, "lock.acquire(), lock._path.exists(), lock.release(), lock._path.exists()") == (
            "True True None False"
        )

    def test_heartbeat_renews(self, service):
        code = "lock.acquire() and lock.heartbeat(), 3590 < lock.get_time_remaining() <= 3600"
        assert ask(service, code) == "True True"

    def test_another_data_directory(self, service, tmp_path):
        assert (
            ask(service, "lock._path", AI_SERVICE_DATA_DIR=str(tmp_path)) == f"{tmp_path}/locks/training_hex8_2p.lock"
        )


class TestRunbook:
    @pytest.mark.parametrize(
        ("expression", "error"),
        [
            ("training_lock()", "TypeError: training_lock() missing 1 required positional argument: 'config_key'"),
            (
                "training_lock('hex8_2p').is_locked()",
                "AttributeError: '_GeneratorContextManager' object has no attribute 'is_locked'",
            ),
            ("lock.get_holder()", "AttributeError: 'DistributedLock' object has no attribute 'get_holder'"),
            ("lock.force_release()", "AttributeError: 'DistributedLock' object has no attribute 'force_release'"),
        ],
    )
    def test_what_it_expects_of_the_lock_does_not_exist(self, service, expression, error):
        assert ask(service, expression) == error

    def test_training_lock_acquires(self, service):
        code = (
            "from app.coordination.distributed_lock import *\n"
            "with training_lock('hex8_2p', timeout=0) as lock: print(lock.name, lock.is_held())"
        )
        assert service.run("-c", code).stdout.endswith("training:hex8_2p True\n")

    def test_subscribers_are_those_of_the_process(self, service):
        code = "from app.coordination.event_router import get_router\nrouter = get_router()\n"
        assert service.run("-c", code + "print(router.has_subscribers('TRAINING_COMPLETED'))").stdout == "False\n"
        result = service.run("-c", code + "router.get_subscribers('TRAINING_COMPLETED')")
        assert result.stderr.endswith(
            "AttributeError: 'UnifiedEventRouter' object has no attribute 'get_subscribers'. "
            "Did you mean: '_subscribers'?\n"
        )

    def test_the_daemons_have_no_restart(self, service):
        result = service.run("scripts/launch_daemons.py", "--restart", "EVENT_ROUTER", "FEEDBACK_LOOP", "DATA_PIPELINE")
        assert result.returncode == 2
        assert result.stderr.endswith(
            "launch_daemons.py: error: unrecognized arguments: --restart EVENT_ROUTER FEEDBACK_LOOP DATA_PIPELINE\n"
        )

    def test_the_daemons_are_stopped_whoever_asks(self, service):
        result = service.run("scripts/launch_daemons.py", "--status")
        assert result.returncode == 0
        assert "Running: False\nTotal: 122 | Running: 0 | Failed: 0 | Stopped: 122\n" in result.stdout
        assert result.stdout.count(": stopped\n") == 122

    def test_the_coordinator_can_be_imported(self, service):
        code = "from scripts.p2p.managers import TrainingCoordinator; print(TrainingCoordinator.__name__)"
        assert service.run("-c", code).stdout == "TrainingCoordinator\n"

    def test_games_are_counted(self, service):
        code = (
            "from app.utils.game_discovery import GameDiscovery\n"
            "for db in GameDiscovery().find_databases_for_config('hex8', 2): print(f'{db.path}: {db.game_count} games')"
        )
        assert service.run("-c", code).stdout == f"{service.path}/data/games/hex8_2p.db: 60 games\n"


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server on this machine")
class TestRedis:
    @pytest.fixture
    def url(self, tmp_path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL,
        )

        def answers() -> bool:
            with socket.socket() as link:
                return link.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_for(answers, "redis")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait(10)

    def test_a_key_outlives_its_holder(self, service, url):
        env = {"LAB_REDIS": "1", "REDIS_URL": url}
        with service.start(service.argv("-c", HOLD, "3600"), **env) as process:
            wait_for(lambda: held(service), "the lock")
            assert "acquired True redis" in service.log()
            process.kill()
            process.wait(10)
        assert ask(service, "lock.backend, lock.is_locked(), lock.acquire(timeout=0)", **env) == "redis True False"
        assert not any((service.path / "data/locks").iterdir())
        assert "'scanned': 0" in ask(service, "cleanup_stale_locks()", **env)
        code = "lock.release(), lock._client.eval('return redis.call(\"ttl\", KEYS[1])', 1, 'lock:training:hex8_2p')"
        assert 3500 < int(ask(service, code, **env).split()[-1]) <= 3600

    def test_release_is_compare_and_delete(self, service, url):
        code = "lock.acquire(), lock.is_locked(), lock.heartbeat(), lock.release(), lock.is_locked()"
        assert ask(service, code, LAB_REDIS="1", REDIS_URL=url) == "True True True None False"

    def test_a_server_that_is_not_there_means_the_file(self, service):
        env = {"LAB_REDIS": "1", "REDIS_URL": "redis://127.0.0.1:1/0"}
        assert ask(service, "lock.backend", **env) == "file"


class TestDaemons:
    def test_health_is_served_on_ipv6_only(self, service):
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6 on this machine")
            port = probe.getsockname()[1]

        def get(page: str) -> str:
            with socket.create_connection(("::1", port), 5) as link, link.makefile("rb") as answer:
                link.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
                return answer.read().decode()

        argv = service.argv("scripts/launch_daemons.py", "--daemon", "EVENT_ROUTER", "--profile", "coordinator")
        with service.start(argv, RINGRIFT_HEALTH_PORT=str(port)) as process:
            wait_for(lambda: "health server on port" in service.log(), "the health server")
            assert '"daemon_count": 122' in get("/status")
            assert '"event_router": {"state": "running"' in get("/status")
            assert '"running_daemons": 5' in get("/ready")
            assert "daemon_manager_running_daemons 5" in get("/metrics")
            assert " 404 " in get("/daemons")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
            process.terminate()
            assert process.wait(10) == 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock in Redis whose holder ran on another node: that node is asked, and only its word makes the lock releasable."""

from __future__ import annotations

import shutil
import sys
import time

import pytest

from tests.integration.harness import CONFIG, QUICK, run

pytestmark = pytest.mark.lab

COORDINATOR = "coordinator-1"
KEY = f"lock:training:{CONFIG}"
LOCK = f"ringrift/ai-service/data/locks/training_{CONFIG}.lock"
PASSWORD = "s3cret"
REDIS = ("-e", f"ringrift_redis_url=redis://:{PASSWORD}@127.0.0.1:6390/0")


def on(lab, node: str, command: str) -> str:
    """What a command prints on a node."""
    done = run(sys.executable, "-m", "lab", "ssh", node, "--dir", str(lab.directory), command, timeout=60)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def redis(lab, words: str) -> str:
    return on(lab, COORDINATOR, f"redis-cli -p 6390 -a {PASSWORD} --no-auth-warning {words}")


@pytest.fixture(scope="module")
def idle(lab):
    """A lab in which nobody trains, with a Redis on its coordinator."""
    if lab.driver != "netns":
        pytest.skip("nodes without a host name of their own: the netns driver needs root")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    lab.fresh(nodes=2)
    lab("break", "kill")
    for node in lab.status()["nodes"][-2:]:
        on(lab, node["name"], f"rm -f {LOCK}")
    options = f"--port 6390 --bind 127.0.0.1 --save '' --requirepass {PASSWORD} --daemonize yes"
    on(lab, COORDINATOR, f"redis-server {options} >/dev/null")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        done = run(sys.executable, "-m", "lab", "ssh", COORDINATOR, "--dir", str(lab.directory),
                   f"redis-cli -p 6390 -a {PASSWORD} --no-auth-warning PING")  # fmt: skip
        if "PONG" in done.stdout:
            break
        time.sleep(0.1)
    yield lab
    lab("down")


def take(lab, node: str, pid: int) -> str:
    token = f"{on(lab, node, 'hostname')}:{pid}:0ef85993"
    assert redis(lab, f"SET {KEY} {token} EX 3600") == "OK"
    return token


def test_dead_there_is_released_and_check_predicts_it(idle):
    node = idle.status()["nodes"][-1]["name"]
    pid = int(on(idle, node, "sh -c 'echo $$'"))
    token = take(idle, node, pid)
    for words in (("--check",), ()):
        play = idle.play("clear_state", *REDIS, *words)
        assert play.rc == 0, play.output
        changed = sum(play.changed.values())
        assert redis(idle, f"EXISTS {KEY}") == ("1" if words else "0")
        assert changed == 1, play.output
    again = idle.play("clear_state", *REDIS)
    assert (again.rc, sum(again.changed.values())) == (0, 0), again.output
    assert token.startswith(f"{node}:")


def test_alive_there_is_refused(idle):
    node = idle.status()["nodes"][-1]["name"]
    pid = int(on(idle, node, "sleep 300 >/dev/null 2>&1 & echo $!"))
    token = take(idle, node, pid)
    try:
        play = idle.play("clear_state", *REDIS)
        assert play.rc != 0
        assert "held_live_foreign" in play.flat
        assert f"process {pid} lives" in play.flat
        assert f"expect_holder={token}" in play.flat
        assert redis(idle, f"GET {KEY}") == token
    finally:
        on(idle, node, f"kill {pid}")
    play = idle.play("clear_state", *REDIS)
    assert play.rc == 0, play.output
    assert redis(idle, f"EXISTS {KEY}") == "0"


def test_unreachable_is_refused(idle):
    node = idle.status()["nodes"][-1]["name"]
    token = take(idle, node, int(on(idle, node, "sh -c 'echo $$'")))
    idle("break", "unreachable", node)
    try:
        play = idle.play("clear_state", *REDIS, "-e", f"exclude={node}", **QUICK)
        assert play.rc != 0
        assert "was asked and did not answer" in play.flat, play.output
        assert redis(idle, f"GET {KEY}") == token
    finally:
        idle("mend", "unreachable", node)
    # A host that the inventory does not have is not asked by anybody.
    other = "absent-node:1993:0ef85993"
    assert redis(idle, f"SET {KEY} {other} EX 3600") == "OK"
    play = idle.play("clear_state", *REDIS)
    assert play.rc != 0
    assert "Ask on host absent-node" in play.flat
    assert redis(idle, f"GET {KEY}") == other


def test_a_lock_file_that_names_another_node(idle):
    """As on a file system that both share: the other one must see the very same file, and that nobody keeps it."""
    mine, other = (node["name"] for node in idle.status()["nodes"][-2:])
    dead = on(idle, other, "sh -c 'echo $$'")
    record = f"{other}:{dead}:0ef85993"
    write = f"mkdir -p $(dirname {LOCK}); printf '{record}\\n%s.5\\n3600\\n' $(date +%s) > {LOCK}"
    on(idle, mine, write)
    play = idle.play("clear_state", "-l", mine)
    assert play.rc != 0
    assert "is not here, or names another holder" in play.flat, play.output
    on(idle, other, write)
    play = idle.play("clear_state", "-l", mine)
    assert play.rc == 0, play.output
    assert sum(play.changed.values()) == 1, play.output
    assert on(idle, mine, f"test -s {LOCK} || echo empty") == "empty"

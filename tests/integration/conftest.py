# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab for all integration tests; each test says which state it needs."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import threading

import pytest

from tests.integration.harness import ROOT, Lab, run

# Minutes of one processor that need no lab: first, so that no worker is left alone with them at the end.
LONG = ("test_sanity.py", "test_node_pythons.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


def netns_works() -> bool:
    return os.geteuid() == 0 and all(
        shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") for tool in ("sshd", "ip", "rsync")
    )


# Not for the session: what comes after these tests would share the processors with a lab that nobody asks.
@pytest.fixture(scope="package")
def lab():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-test-", dir="/var/tmp"))
    instance = Lab(directory, "netns" if netns_works() else "local")
    try:
        yield instance
    finally:
        instance("down")
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def healthy(lab):
    """A lab of three nodes that trains; started anew only where a test before has broken it."""
    return trains(lab, 3)


@pytest.fixture
def small(lab):
    """The same with one node."""
    return trains(lab, 1)


def trains(lab: Lab, count: int) -> Lab:
    if not lab.directory.joinpath("inventory").exists() or not is_healthy(lab.status()["nodes"], count):
        lab.fresh(count)
    return lab


def is_healthy(nodes: list[dict], count: int) -> bool:
    """So many beside the coordinator, one trainer, and every orchestrator answers."""
    if len(nodes) != count + 1:
        return False
    trainers = sum(node["trainer_pid"] is not None for node in nodes)
    return trainers == 1 and all(node["orchestrator_healthy"] for node in nodes)


@pytest.fixture(scope="session")
def tarball(tmp_path_factory) -> pathlib.Path:
    """The collection as it is built from the checkout."""
    folder = tmp_path_factory.mktemp("tarball")
    done = run("ansible-galaxy", "collection", "build", "--output-path", str(folder), str(ROOT))
    assert done.returncode == 0, done.stdout
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def installed(tarball, tmp_path_factory) -> pathlib.Path:
    """A folder for collections with ours in it, as a user gets it."""
    folder = tmp_path_factory.mktemp("installed")
    done = run(
        "ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", str(folder), str(tarball),
        cwd=folder, ANSIBLE_COLLECTIONS_PATH=str(folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def serve():
    """Starts a server of a class of socketserver on a free port of loopback; it, with what it heard, and the port."""
    servers = []

    def start(server, handler):
        made = server(("127.0.0.1", 0), handler)
        made.heard, made.status, made.daemon_threads = [], 200, True
        threading.Thread(target=made.serve_forever, daemon=True).start()
        servers.append(made)
        return made, made.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()

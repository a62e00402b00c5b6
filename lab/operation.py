# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service on the nodes: its environment, its orchestrators, and the training that they start."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Optional

from lab.errors import LabError
from lab.instance import Instance, Node
from lab.nodes.base import Driver
from lab.processes import Process, wait_until
from lab.training import checkpoints, find, progress

EPOCHS = 5000
LOG = "logs/p2p_orchestrator.log"
PROGRAM = "scripts/p2p_orchestrator.py"
DAEMONS_LOG = "logs/daemons.log"
DAEMONS_PROGRAM = "scripts/launch_daemons.py"
# A login lacks the environment of the service, and this file tells it which API is played.
API = ("data", "lab", "api")

# The lab is on this machine: a proxy has no business between its parts.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, body: Optional[Dict[str, Any]] = None, timeout: float = 5.0) -> Dict[str, Any]:
    """GET, or POST with a body; the answer's JSON object.

    :raises LabError: there is no such answer
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with OPENER.open(request, timeout=timeout) as response:
            answer = json.loads(response.read(1 << 20))
    except urllib.error.HTTPError as exc:
        text = exc.read(300).decode(errors="replace")
        raise LabError(f"{url} answered {exc.code}: {text}") from exc
    except (OSError, ValueError) as exc:
        raise LabError(f"{url} did not answer: {getattr(exc, 'reason', exc)}") from exc
    if not isinstance(answer, dict):
        raise LabError(f"{url} answered {str(answer)[:100]!r}, which is no object.")
    return answer


def service_env(instance: Instance, driver: Driver, node: Node) -> Dict[str, str]:
    """What the service's processes on a node find in their environment."""
    env = {**driver.base_env(node), **driver.login_env(node)}
    env["RINGRIFT_P2P_PORT"] = str(node.p2p_port)
    env["RINGRIFT_HEALTH_PORT"] = str(node.health_port)
    env["LAB_API"] = instance.api
    env["LAB_CHECKPOINT_INTERVAL"] = "1"
    if not node.trains:
        env["RINGRIFT_IS_COORDINATOR"] = "true"
    if instance.driver == "local":
        # The daemons' health is for this machine only, as everything of this driver.
        env["LAB_HEALTH_HOST"] = "::1"
    return env


def start_orchestrator(instance: Instance, driver: Driver, node: Node) -> None:
    """Start the orchestrator of one node; the coordinator's is the leader."""
    peers = ",".join(f"{other.name}={driver.url(other)}" for other in instance.nodes)
    bind = "127.0.0.1" if instance.driver == "local" else "0.0.0.0"
    argv = ["venv/bin/python", PROGRAM, "--node-id", node.name, "--host", bind, "--port", str(node.p2p_port),
            "--advertise-host", node.address, "--peers", peers, "--leader", instance.coordinator.name,
            "--training-only"]  # fmt: skip
    driver.spawn(node, argv, service_env(instance, driver, node), LOG)


def start_daemons(instance: Instance, driver: Driver) -> None:
    """Start the daemons of the coordinator, in a process of their own as on a real one."""
    node = instance.coordinator
    path = driver.service(node, *API)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(instance.api + "\n")
    argv = ["venv/bin/python", DAEMONS_PROGRAM, "--profile", "coordinator"]
    driver.spawn(node, argv, service_env(instance, driver, node), DAEMONS_LOG)


def daemons_serve(driver: Driver, node: Node) -> bool:
    """Whether the health server of the daemons has come up; it listens inside the node only."""
    try:
        return "health server on port" in driver.service(node, DAEMONS_LOG).read_text(errors="replace")
    except OSError:
        return False


def orchestrator(driver: Driver, node: Node) -> Optional[Process]:
    """The node's orchestrator, when it runs."""
    for process in driver.processes(node):
        if PROGRAM in process.argv and process.state not in "ZX":
            return process
    return None


def health(driver: Driver, node: Node, timeout: float = 2.0) -> Optional[Dict[str, Any]]:
    """What the node's orchestrator says of its health; None when it says nothing."""
    try:
        return ask(f"{driver.url(node)}/health", timeout=timeout)
    except LabError:
        return None


def side_by_side(function: Callable[[Node], Any], nodes: List[Node]) -> List[Any]:
    """Call a function for every node at the same time."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(function, nodes))


def start_orchestrators(instance: Instance, driver: Driver, timeout: float = 30.0) -> None:
    """Start all orchestrators and wait until each says that it is healthy."""
    start_daemons(instance, driver)
    side_by_side(lambda node: start_orchestrator(instance, driver, node), instance.nodes)
    end = time.monotonic() + timeout + len(instance.nodes)
    waiting = list(instance.nodes)
    while waiting:
        answers = side_by_side(lambda node: health(driver, node), waiting)
        waiting = [node for node, answer in zip(waiting, answers) if not (answer or {}).get("healthy")]
        if waiting and time.monotonic() > end:
            raise LabError(f"The orchestrator of {waiting[0].name} is not healthy: {log_end(driver, waiting[0])}")
        time.sleep(0.05 if waiting else 0)
    if not wait_until(lambda: daemons_serve(driver, instance.coordinator), 10, 0.05):
        raise LabError(
            f"The daemons of {instance.coordinator.name} do not serve their health; see {DAEMONS_LOG} there."
        )


def log_end(driver: Driver, node: Node, length: int = 500) -> str:
    """The last words of a node's orchestrator."""
    try:
        text = driver.service(node, LOG).read_text(errors="replace").strip()
    except OSError:
        return "it has not written a log"
    return f"its log ends with: {text[-length:]}" if text else "its log is empty"


def start_training(instance: Instance, driver: Driver) -> None:
    """Ask the leader for a training of the lab's config, on the first of the training nodes."""
    board, players = instance.config.rsplit("_", 1)
    config = {
        "board_type": board,
        "num_players": int(players.rstrip("p")),
        "epochs": EPOCHS,
        "batch_size": 512,
        # Locks are files of a node: were the others free to take the work, no lock would stop a second trainer.
        "target_node": instance.training_nodes[0].name,
    }
    body = {"work_type": "training", "priority": 50, "config": config, "timeout_seconds": 24 * 3600}
    answer = ask(f"{driver.url(instance.coordinator)}/work/add", body)
    if answer.get("status") != "added":
        raise LabError(f"The leader did not take the training: {json.dumps(answer)[:300]}")


def open_work(instance: Instance, driver: Driver) -> List[Dict[str, Any]]:
    """The items of the leader's queue that train the lab's config, or will."""
    answer = ask(f"{driver.url(instance.coordinator)}/work/status")
    items = [*answer.get("pending", []), *answer.get("running", [])]
    board, players = instance.config.rsplit("_", 1)
    wanted = (board, int(players.rstrip("p")))
    return [item for item in items if (item["config"].get("board_type"), item["config"].get("num_players")) == wanted]


def await_training(instance: Instance, driver: Driver, since: float, timeout: float = 60.0) -> str:
    """Wait until one node has trained two epochs and written two checkpoints since a moment; says where, and what."""
    told: List[str] = []

    def trains() -> bool:
        for trainer in find(instance, driver):
            seen = progress(driver, trainer.node, instance.config) or {"at": 0.0, "epoch": 0}
            files = [path for path in checkpoints(driver, trainer.node) if path.stat().st_mtime >= since]
            if seen["at"] >= since and seen["epoch"] >= 2 and len(files) >= 2:
                where = f"{trainer.node.name} (pid {trainer.process.pid})"
                told.append(f"{instance.config} trains on {where}, epoch {seen['epoch']}, {len(files)} checkpoints")
        return bool(told)

    if not wait_until(trains, timeout, interval=0.1):
        tails = "; ".join(f"{node.name}: {log_end(driver, node, 300)}" for node in instance.nodes[:2])
        raise LabError(f"No training of {instance.config} made two checkpoints within {timeout:g} s. {tails}")
    return told[0]


def train(instance: Instance, driver: Driver) -> str:
    """Start a training and wait until it has made progress."""
    # File times are those of the kernel's last tick, which may lie a little before the clock.
    since = time.time() - 0.02
    start_training(instance, driver)
    return await_training(instance, driver, since)

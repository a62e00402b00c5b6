# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is doing now."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional

from lab import gpu, operation, training
from lab.instance import Instance, Node
from lab.nodes import driver_of
from lab.nodes.base import Driver

COLUMNS = ("node", "address", "up", "ssh", "orchestrator", "trainer", "epoch", "checkpoints", "gpu")


def status(instance: Instance) -> Dict[str, Any]:
    """The lab and its nodes as data."""
    driver = driver_of(instance)
    nodes = operation.side_by_side(lambda node: node_status(instance, driver, node), instance.nodes)
    return {
        "directory": str(instance.directory),
        "driver": instance.driver,
        "api": instance.api,
        "config": instance.config,
        "phase": instance.phase,
        "inventory": str(instance.inventory.parent),
        "nodes": nodes,
    }


def node_status(instance: Instance, driver: Driver, node: Node) -> Dict[str, Any]:
    """One node as data. None where there is nothing to tell."""
    lives = driver.lives(node)
    found: Dict[str, Any] = {
        "name": node.name,
        "group": node.group,
        "address": node.address,
        "up": lives,
        "ssh": None if instance.driver == "local" else driver.reachable(node),
        "orchestrator_pid": None,
        "orchestrator_healthy": False,
        "trainer_pid": None,
        "trainer_state": None,
        "last_trainer_pid": None,
        "epoch": None,
        "epoch_at": None,
        "checkpoints": 0,
        "gpu": None,
    }
    if not lives:
        return found
    process = operation.orchestrator(driver, node)
    if process is not None:
        found["orchestrator_pid"] = process.pid
        found["orchestrator_healthy"] = bool((operation.health(driver, node, 1.0) or {}).get("healthy"))
    if node.trains:
        found.update(_trained(instance, driver, node))
    return found


def _trained(instance: Instance, driver: Driver, node: Node) -> Dict[str, Any]:
    running = training.trainers(driver, node, instance.config)
    seen = training.progress(driver, node, instance.config) or {}
    return {
        "trainer_pid": running[0].process.pid if running else None,
        "trainer_state": running[0].process.state if running else None,
        "last_trainer_pid": _holder(driver, node, instance.config),
        "epoch": seen.get("epoch"),
        "epoch_at": seen.get("at"),
        "checkpoints": len(training.checkpoints(driver, node)),
        "gpu": gpu.state(driver, node),
    }


def _holder(driver: Driver, node: Node, config: str) -> Optional[int]:
    """The process that took the training lock last, which may be long gone."""
    try:
        text = driver.service(node, "data", "locks", f"training_{config}.lock").read_text(errors="replace")
        return int(text.split("\n")[0].split(":")[1])
    except (OSError, ValueError, IndexError):
        return None


def table(data: Dict[str, Any]) -> List[str]:
    """The same for people."""
    rows = [COLUMNS, *(_row(node) for node in data["nodes"])]
    widths = [max(len(row[number]) for row in rows) for number in range(len(COLUMNS))]
    head = f"{data['directory']}  {data['driver']} driver, {data['api']} API, config {data['config']}"
    return [head, *("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)]


def _row(node: Dict[str, Any]) -> List[str]:
    orchestrator = "-"
    if node["orchestrator_pid"] is not None:
        orchestrator = f"{'healthy' if node['orchestrator_healthy'] else 'silent'} ({node['orchestrator_pid']})"
    trainer = "-"
    if node["trainer_pid"] is not None:
        trainer = f"{node['trainer_pid']}{' stopped' if node['trainer_state'] in ('T', 't') else ''}"
    epoch = "-"
    if node["epoch"] is not None:
        epoch = f"{node['epoch']} ({max(0.0, time.time() - node['epoch_at']):.0f} s ago)"
    ssh = "-" if node["ssh"] is None else _yes(node["ssh"])
    checkpoints = str(node["checkpoints"] or "-")
    return [node["name"], node["address"], _yes(node["up"]), ssh, orchestrator, trainer, epoch, checkpoints,
            node["gpu"] or "-"]  # fmt: skip


def _yes(value: bool) -> str:
    return "yes" if value else "NO"

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a lab, and take it away again."""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from dataclasses import dataclass
from typing import Callable, List, Optional

from lab import fleet, inventory, operation
from lab.errors import LabError, UsageError
from lab.furnish import install
from lab.instance import ROOT, Instance, check_dir, claim, instance_id, is_lab, load, remove, require
from lab.nodes import DRIVERS, default_driver, driver_of, network
from lab.processes import boot_id

Say = Callable[[str], None]
DEFAULT_NODES = 3


@dataclass(frozen=True)
class Wish:
    """What a lab shall be like; None leaves it to the lab, or to the one that is already up."""

    driver: Optional[str] = None
    nodes: Optional[int] = None
    api: Optional[str] = None
    config: Optional[str] = None
    training: Optional[bool] = None

    def check(self) -> None:
        """Refuse what no lab can be like, before anything is touched."""
        fleet.plan(DEFAULT_NODES if self.nodes is None else self.nodes)
        if self.config is not None and not re.fullmatch(r"[a-z][a-z0-9]*_[2-4]p", self.config):
            raise UsageError(f"--config {self.config!r} is not <board>_<players>p, such as hex8_2p.")

    def differs(self, instance: Instance) -> List[str]:
        """Where a lab is not as wished."""
        pairs = (
            ("--driver", self.driver, instance.driver),
            ("--nodes", self.nodes, len(instance.training_nodes)),
            ("--api", self.api, instance.api),
            ("--config", self.config, instance.config),
            ("training", self.training, instance.training),
        )
        return [f"{name} {has}, not {wish}" for name, wish, has in pairs if wish is not None and wish != has]


def up(directory: pathlib.Path, wish: Wish, say: Say = print) -> Instance:
    """Start a lab and wait until it trains. A lab that is up already is left as it is."""
    directory = check_dir(directory)
    wish.check()
    with claim(directory, create=True):
        existing = load(directory)
        if existing is not None:
            if existing.phase == "up" and existing.boot == boot_id():
                return _keep(existing, wish, say)
            say(f"The lab in {directory} was not taken down properly; clearing it away first.")
        _clear(directory, keep=True)
        instance = _plan(directory, wish)
        try:
            _build(instance, say)
        except BaseException:
            # Whatever the reason, and be it an impatient Ctrl-C: half a lab is of no use.
            with contextlib.suppress(LabError, OSError):
                _clear(directory)
            raise
    return instance


def down(directory: pathlib.Path, say: Say = print) -> bool:
    """Take a lab away, however far it has come; False when there was none."""
    directory = check_dir(directory)
    if not directory.exists():
        # Somebody may have deleted the directory from under the lab.
        left = network.remains(instance_id(directory))
        _stop(Instance(directory, "netns" if left else "local"))
        say(f"Stopped what was left of the lab in {directory}." if left else f"No lab is up in {directory}.")
        return left
    with claim(directory, create=False):
        if not is_lab(directory) and any(directory.iterdir()):
            raise LabError(f"{directory} was not made by the lab, so it was not touched.")
        _clear(directory)
    say(f"The lab in {directory} is gone.")
    return True


def _keep(instance: Instance, wish: Wish, say: Say) -> Instance:
    differences = wish.differs(instance)
    stop = f"Take it down first: python -m lab down --dir {instance.directory}"
    if differences:
        raise LabError(f"A lab is up in {instance.directory}, but with {'; '.join(differences)}. {stop}")
    driver = driver_of(instance)
    dead = [node.name for node in instance.nodes if not driver.lives(node)]
    if dead:
        raise LabError(f"The lab in {instance.directory} is up, but {', '.join(dead)} does not run. {stop}")
    say(f"The lab in {instance.directory} is already up; nothing was done.")
    return instance


def _plan(directory: pathlib.Path, wish: Wish) -> Instance:
    instance = Instance(
        directory=directory,
        driver=wish.driver or default_driver(),
        api=wish.api or "ringrift",
        config=wish.config or "hex8_2p",
        training=True if wish.training is None else wish.training,
        boot=boot_id(),
        nodes=fleet.plan(DEFAULT_NODES if wish.nodes is None else wish.nodes),
    )
    instance.save()
    return instance


def _build(instance: Instance, say: Say) -> None:
    driver = driver_of(instance)
    begun = time.monotonic()

    def tell(text: str) -> None:
        say(f"[{time.monotonic() - begun:5.1f} s] {text}")

    driver.check()
    driver.prepare()
    install(instance, driver)
    tell(f"service, games, {instance.config}.npz and model are in place")
    driver.start()
    tell(f"{len(instance.nodes)} nodes are up, the coordinator among them ({instance.driver})")
    inventory.write(instance, driver)
    operation.start_orchestrators(instance, driver)
    tell(f"orchestrators are healthy, {instance.coordinator.name} leads ({instance.api} API)")
    if instance.training:
        tell(operation.train(instance, driver))
    instance.phase = "up"
    instance.save()
    shown = instance.inventory.parent
    say(f"Inventory: {shown}")
    say(f"Try, in {ROOT}: ansible-playbook -i {shown} playbooks/diagnose.yml -e config={instance.config}")


def _clear(directory: pathlib.Path, keep: bool = False) -> None:
    """End the processes of a lab and delete what it left; the directory itself goes too, unless it is kept."""
    try:
        instance = load(directory)
    except LabError:
        # An unreadable state costs nothing but the recorded processes, which carry the lab's name besides.
        instance = None
    _stop(instance or Instance(directory, "local"))
    remove(directory, keep)


def _stop(instance: Instance) -> None:
    """Both drivers look: which one was used may not be known any more."""
    netns = DRIVERS["netns"](instance)
    if instance.driver == "netns" or network.remains(instance.id):
        netns.destroy()
    DRIVERS["local"](instance).destroy()


def running(directory: pathlib.Path) -> Instance:
    """The lab that is up in a directory."""
    return require(check_dir(directory))

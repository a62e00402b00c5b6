# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m lab``: a training cluster in a box."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
from typing import List, Optional

from lab import cluster, faults, status
from lab.errors import LabError
from lab.instance import default_dir
from lab.nodes import DRIVERS, driver_of


class Command(argparse.ArgumentParser):
    """A command; the help of those that take faults names all, which are loaded for nothing else."""

    takes_faults = False

    def format_help(self) -> str:
        if self.takes_faults:
            self.epilog = "\n".join(["faults:", *faults.summary()])
        return super().format_help()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m lab", description="A training cluster in a box.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Command)

    def command(name: str, text: str, **more: object) -> Command:
        added = commands.add_parser(name, help=text, description=text, **more)
        where = "where the lab lives (default: RINGRIFT_LAB_DIR, else a directory of yours in /var/tmp)"
        added.add_argument("--dir", type=pathlib.Path, metavar="DIR", help=where)
        return added

    up = command("up", "Start a lab: nodes, service, data, orchestrators, and a training that runs.")
    up.add_argument("--nodes", type=int, metavar="N", help="training nodes besides the coordinator (default: 3)")
    up.add_argument("--driver", choices=sorted(DRIVERS), help="default: netns for root, local for everybody else")
    up.add_argument(
        "--api", choices=["ringrift", "runbook"], help="the HTTP API of the orchestrators (default: ringrift)"
    )
    up.add_argument("--no-training", action="store_true", help="start no training")
    up.add_argument("--config", metavar="CONFIG", help="what to train (default: hex8_2p)")

    command("down", "Take the lab away, however far it has come.")
    command("status", "Show what the lab is doing.").add_argument("--json", action="store_true", help="as JSON")
    command("inventory", "Print the path of the lab's inventory.")

    for name, text in (("break", "Break something."), ("mend", "Undo faults that can be undone from outside.")):
        words = command(name, text, formatter_class=argparse.RawDescriptionHelpFormatter)
        words.takes_faults = True
        words.add_argument(
            "faults", nargs="+", metavar="FAULT [NODE]", help="which fault, and where if not where it trains"
        )

    ssh = command("ssh", "Log in to a node, or run a command there.")
    ssh.add_argument("node")
    ssh.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run; nothing: an interactive shell"
    )
    return top


def main(argv: Optional[List[str]] = None) -> int:
    options = parser().parse_args(argv)
    if options.command == "ssh" and options.words[:1] == ["--dir"] and len(options.words) > 1:
        # Behind the node everything belongs to its command, but for this.
        options.dir, options.words = pathlib.Path(options.words[1]), options.words[2:]
    directory = options.dir or default_dir()
    # A polite end must take half a lab down too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return run(options, directory)
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return exc.code
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


def run(options: argparse.Namespace, directory: pathlib.Path) -> int:
    """Do what the command line asks for."""
    if options.command == "up":
        wish = cluster.Wish(
            options.driver, options.nodes, options.api, options.config, False if options.no_training else None
        )
        cluster.up(directory, wish, say)
    elif options.command == "down":
        cluster.down(directory, say)
    elif options.command == "status":
        data = status.status(cluster.running(directory))
        say(json.dumps(data, indent=1) if options.json else "\n".join(status.table(data)))
    elif options.command == "inventory":
        say(str(cluster.running(directory).inventory.parent))
    elif options.command == "ssh":
        login(directory, options.node, options.words)
    else:
        instance = cluster.running(directory)
        orders = faults.parse(options.faults, instance)
        for line in faults.apply(instance, orders) if options.command == "break" else faults.mend(instance, orders):
            say(line)
    return 0


def login(directory: pathlib.Path, name: str, words: List[str]) -> None:
    """Become ssh, or a shell in the node's directory."""
    instance = cluster.running(directory)
    argv = driver_of(instance).command(instance.node(name), words[1:] if words[:1] == ["--"] else words)
    os.execvp(argv[0], argv)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the daemons of a node and look after them. Part of the stand-in, see `app`.

Measured on the real one, and kept: there is no --restart; --status and --stop act on the manager of their own, fresh
process, hence say that everything is stopped while another process runs them; the health server listens on IPv6 only.
A started daemon does nothing here but be counted.

Of the stand-in alone: the daemons that data/lab/daemons_down.json names do not run. Under the runbook's API (LAB_API,
or what data/lab/api holds) there is the --restart that the runbook prints; it brings these daemons back, and the
subscribers that data/lab/p2p_unwired.json took away. LAB_HEALTH_HOST is where the health server listens.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import signal
import socket
import socketserver
import sqlite3
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.coordination import events_db  # noqa: E402
from app.coordination.daemon_types import DAEMONS, GROUPS, PROFILES  # noqa: E402

DOWN = ROOT / "data" / "lab" / "daemons_down.json"
UNWIRED = ROOT / "data" / "lab" / "p2p_unwired.json"
API = ROOT / "data" / "lab" / "api"

logger = logging.getLogger("__main__")


def down() -> list[str]:
    """Daemons that a fault took away."""
    try:
        return [str(name) for name in json.loads(DOWN.read_text())]
    except (OSError, ValueError):
        return []


def api() -> str:
    try:
        return os.environ.get("LAB_API") or API.read_text().strip()
    except OSError:
        return "ringrift"


class Manager:
    """The daemons of this process."""

    def __init__(self) -> None:
        self.started = dict.fromkeys(DAEMONS, "stopped")

    @property
    def states(self) -> dict[str, str]:
        return {**self.started, **dict.fromkeys(down(), "stopped")}

    @property
    def running(self) -> list[str]:
        return [name for name, state in self.states.items() if state == "running"]

    def show(self, as_json: bool) -> None:
        if as_json:
            daemons = {
                name: {
                    "state": state,
                    "uptime_seconds": 0.0,
                    "restart_count": 0,
                    "last_error": None,
                    "auto_restart": True,
                }
                for name, state in self.states.items()
            }
            print(json.dumps({"running": bool(self.running), "daemons": daemons}, indent=2))
            return
        rule = "=" * 60
        print(f"\n{rule}\nDaemon Status\n{rule}")
        print(f"Running: {bool(self.running)}")
        print(f"Total: {len(self.states)} | Running: {len(self.running)} | Failed: 0 | Stopped: {len(self.states)}\n")
        for name in sorted(self.states):
            print(f"  ○ {name}: {self.states[name]}")
        print(f"\n{rule}")


class Health(BaseHTTPRequestHandler):
    """The health server's pages."""

    manager: Manager

    def do_GET(self) -> None:
        states, now = self.manager.states, time.time()
        running = [name for name, state in states.items() if state == "running"]
        node = os.environ.get("RINGRIFT_NODE_ID", "unknown")
        pages: dict[str, object] = {
            "/health": {"alive": True, "timestamp": now, "node_id": node},
            "/ready": {"ready": True, "running_daemons": len(running), "timestamp": now},
            "/status": {
                "running": True,
                "daemon_count": len(states),
                "daemons": {
                    name: {"state": state, "auto_restart": True, "restart_count": 0} for name, state in states.items()
                },
            },
        }
        if self.path in pages:
            self._answer(200, json.dumps(pages[self.path]), "application/json; charset=utf-8")
        elif self.path == "/metrics":
            lines = [
                "# HELP daemon_manager_running DaemonManager running status",
                "# TYPE daemon_manager_running gauge",
                "daemon_manager_running 1",
                "# HELP daemon_manager_daemons_total Total registered daemons",
                "# TYPE daemon_manager_daemons_total gauge",
                f"daemon_manager_daemons_total {len(states)}",
                "# HELP daemon_manager_running_daemons Number of running daemons",
                "# TYPE daemon_manager_running_daemons gauge",
                f"daemon_manager_running_daemons {len(running)}",
            ]
            self._answer(200, "\n".join(lines) + "\n", "text/plain; charset=utf-8")
        else:
            self._answer(404, "404: Not Found", "text/plain; charset=utf-8")

    def _answer(self, code: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


class HealthServer(ThreadingHTTPServer):
    """IPv6, and not IPv4 along with it."""

    address_family = socket.AF_INET6
    daemon_threads = True

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Not HTTPServer's own: it asks the name service for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class Ipv4HealthServer(HealthServer):
    """For machines without IPv6."""

    address_family = socket.AF_INET


def serve(handler: type[Health], port: int) -> HealthServer:
    """The health server, on IPv6 where there is one."""
    try:
        return HealthServer((os.environ.get("LAB_HEALTH_HOST") or "::", port), handler)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return Ipv4HealthServer(("127.0.0.1", port), handler)


def restart(names: list[str]) -> int:
    """What the runbook expects: the daemons of the process that runs them are started anew, and subscribe again."""
    left = [name for name in down() if name not in names]
    staged = DOWN.with_suffix(".new")
    DOWN.parent.mkdir(parents=True, exist_ok=True)
    staged.write_text(json.dumps(left) + "\n")
    os.replace(staged, DOWN)
    UNWIRED.unlink(missing_ok=True)
    for name in names:
        print(f"Restarted {name}")
    return 0


def run(names: list[str]) -> int:
    """Run daemons until a signal comes."""
    manager = Manager()
    manager.started.update(dict.fromkeys(names, "running"))
    port = int(os.environ.get("RINGRIFT_HEALTH_PORT") or 8790)
    server = serve(type("Handler", (Health,), {"manager": manager}), port)
    try:
        host = socket.gethostname()
        events_db.subscribe("daemon_manager")
        if "event_router" in names:
            events_db.subscribe("event_router", subscriber_id=f"{host}:stable:event_router")
    except (OSError, sqlite3.Error) as error:
        logger.warning("Event log not available: %s", error)

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    logger.info("Started %d daemons, health server on port %d", len(names), port)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        logger.info("Stopped %d daemons", len(names))
    finally:
        server.server_close()
    return 0


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch_daemons.py", description="Launch and manage RingRift daemons", allow_abbrev=False
    )
    parser.add_argument("--daemon", action="append", default=[])
    parser.add_argument("--profile", choices=list(PROFILES))
    parser.add_argument("--stop", action="append", default=[])
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--health-interval", type=float, default=30.0)
    if api() == "runbook":
        parser.add_argument("--restart", nargs="+", default=[], metavar="DAEMON", help="restart daemons")
    for name in (
        *("all", "sync", "training", "monitoring", "events", "p2p", "external", "continuous", "sync-cluster", "status"),
        *("stop-all", "diagnostics", "skip-diagnostics", "watch", "json", "verbose", "no-auto-restart"),
    ):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO)
    args = parse_args(argv)
    if args.status:
        Manager().show(args.json)
        return 0
    if args.stop or args.stop_all:
        for name in args.stop or ["all daemons"]:
            logger.info("Stopped %s", name.lower())
        return 0
    again = [name.lower() for name in getattr(args, "restart", [])]
    names = again or [name.lower() for name in args.daemon]
    unknown = [name for name in names if name not in DAEMONS]
    if unknown:
        print(f"Unknown daemon(s): {', '.join(unknown)}", file=sys.stderr)
        return 1
    if again:
        return restart(again)
    names += DAEMONS if args.all else PROFILES.get(args.profile, [])
    for group, members in GROUPS.items():
        names += members if getattr(args, group) else []
    if not names:
        print("Nothing to start: give --all, --daemon or --profile", file=sys.stderr)
        return 1
    return run(sorted(set(names)))


if __name__ == "__main__":
    raise SystemExit(main())

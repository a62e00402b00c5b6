#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The P2P orchestrator: status, training records and the work queue over HTTP. Part of the stand-in, see `app`.

    python scripts/p2p_orchestrator.py --node-id NAME --host HOST --port PORT --advertise-host ADDRESS
        [--peers name=url,...] [--leader NAME] [--training-only]

It runs in the foreground, in the service directory. The leader is named, nobody is elected. A follower claims work
from the leader and runs its trainer. SIGTERM ends it at once and ends nothing else: a trainer that runs goes on with
pid 1 as its parent, and the next start of an orchestrator on the node sends it SIGTERM, as the real one does.

Environment of the stand-in alone:

    LAB_API              ringrift: the routes of the real service. runbook: besides them jobs and last_training_time in
                         /status, /dispatch_training and /clear_training_state, as the runbook prints them
    LAB_CLAIM_SECONDS    how often a follower looks for work, in seconds (0.6; the real one: 10)
    LAB_COOLDOWN_SECONDS time after a training in which /dispatch_training refuses without force, in seconds (300)
    LAB_HAS_GPU          1 or 0: whether the node has a GPU (all have one but the coordinator)
    data/lab/p2p_records.json   training records that the leader takes into its memory when the file is written
    data/lab/p2p_answers.json   how every request is answered: {"how": "slow"}, error, garbage, or refuse (changes only)
    data/lab/p2p_unwired.json   names of events that have lost their subscribers; deleted at the next start
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import signal
import socketserver
import sys
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.p2p import client, orphans  # noqa: E402
from scripts.p2p.routes import RequestHandler  # noqa: E402
from scripts.p2p.state import Orchestrator  # noqa: E402
from scripts.p2p.worker import Worker  # noqa: E402

HEALTH_PORT = 8772
DEFAULT_PORT = 8770

logger = logging.getLogger("p2p_orchestrator")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    orchestrator: Orchestrator

    def server_bind(self) -> None:
        # Not HTTPServer's own: it asks the name service for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class IsolatedHealth(BaseHTTPRequestHandler):
    """The second port, which answers also when the first one hangs."""

    def do_GET(self) -> None:
        me = self.server.orchestrator
        page = {
            "alive": True,
            "node_id": me.node_id,
            "role": "leader" if me.is_leader else "follower",
            "uptime_seconds": time.time() - me.started,
            "main_port": me.port,
            "isolated_health_server": True,
            "timestamp": datetime.now().isoformat(),
        }
        known = self.path.split("?")[0] == "/health"
        data = json.dumps(page).encode() if known else b"404: Not Found"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", f"{'application/json' if known else 'text/plain'}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="p2p_orchestrator.py", description="P2P orchestrator")
    parser.add_argument("--node-id", required=True)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=int(os.environ.get("RINGRIFT_P2P_PORT") or DEFAULT_PORT))
    parser.add_argument("--advertise-host", default="127.0.0.1")
    parser.add_argument("--advertise-port", type=int)
    parser.add_argument("--peers", default="", help="name=url,...; the node itself may be among them")
    parser.add_argument("--leader", help="the name of the leader; without it a coordinator leads itself")
    parser.add_argument(
        "--auth-token", help="wins over RINGRIFT_CLUSTER_AUTH_TOKEN and RINGRIFT_CLUSTER_AUTH_TOKEN_FILE"
    )
    parser.add_argument("--require-auth", action="store_true")
    parser.add_argument("--isolated-health-port", type=int, help="8772 when the port is 8770, otherwise none")
    parser.add_argument("--training-only", action="store_true", help="the stand-in plays no games in any case")
    return parser.parse_args(argv)


def find_token(args: argparse.Namespace) -> str | None:
    if args.auth_token:
        return args.auth_token
    if os.environ.get("RINGRIFT_CLUSTER_AUTH_TOKEN"):
        return os.environ["RINGRIFT_CLUSTER_AUTH_TOKEN"]
    path = os.environ.get("RINGRIFT_CLUSTER_AUTH_TOKEN_FILE")
    return Path(path).read_text().strip() if path else None


def parse_peers(text: str) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in text.split(",") if "=" in entry)


def serve_isolated_health(orchestrator: Orchestrator, host: str, port: int | None) -> None:
    if port is None and orchestrator.port == DEFAULT_PORT:
        port = HEALTH_PORT
    if port is None:
        return
    try:
        server = Server((host, port), IsolatedHealth)
    except OSError as error:
        logger.warning("No isolated health server on port %d: %s", port, error)
        return
    server.orchestrator = orchestrator
    threading.Thread(target=server.serve_forever, name="isolated-health", daemon=True).start()


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s - %(name)s - %(levelname)s - %(message)s"
    )
    args = parse_args(argv)
    token = find_token(args)
    if args.require_auth and not token:
        logger.error("--require-auth needs a token")
        return 2
    try:
        server = Server((args.host, args.port), RequestHandler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        try:
            status = client.call(f"http://127.0.0.1:{args.port}/health", timeout=2)[0]
        except OSError:
            status = 0
        logger.error("Port %d is in use%s", args.port, ", an orchestrator answers there" if status == 200 else "")
        return 0 if status == 200 else 1
    orphans.reap(ROOT)
    server.orchestrator = orchestrator = Orchestrator(
        root=ROOT,
        node_id=args.node_id,
        host=args.advertise_host,
        port=args.advertise_port or server.server_address[1],
        peers=parse_peers(args.peers),
        leader=args.leader,
        token=token,
        api=os.environ.get("LAB_API") or "ringrift",
        coordinator=os.environ.get("RINGRIFT_IS_COORDINATOR", "").lower() == "true",
    )
    serve_isolated_health(orchestrator, args.host, args.isolated_health_port)
    if not orchestrator.is_leader and not orchestrator.coordinator:
        Worker(orchestrator).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        # No clean-up: whatever runs goes on, and the queue is on disk after every change.
        signal.signal(number, lambda number, frame: os._exit(0))
    logger.info(
        "%s serves %s:%d, leader %s", args.node_id, args.host, server.server_address[1], orchestrator.leader_name
    )
    server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

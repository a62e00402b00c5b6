# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers on loopback for the tests of everything that speaks to the orchestrator."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVICE = pathlib.Path(__file__).resolve().parents[2] / "lab" / "service"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds=10.0, what="it"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds:g} s")


class StandIn:
    """An orchestrator of the lab's service as a process of its own, in a service tree of its own."""

    def __init__(self, root, name="testnode", leader=None, peers=None, port=None, arguments=(), **environment):
        self.root = pathlib.Path(root)
        if not self.root.exists():
            # The parts that the orchestrator imports; tests that train bring the rest.
            shutil.copytree(SERVICE / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.name, self.port = name, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.root / "orchestrator.log"
        command = [sys.executable, "scripts/p2p_orchestrator.py", "--node-id", name, "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--advertise-host", "127.0.0.1", "--training-only", *arguments]
        command += ["--leader", leader] if leader else []
        command += ["--peers", ",".join(f"{peer}={url}" for peer, url in peers.items())] if peers else []
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RINGRIFT_", "LAB_"))}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.root, env={**kept, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ready(self):
        wait_for(self._answers, what=f"{self.name}: {self.log}")
        return self

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            return self.get("/health")[0] == 200
        return False

    def ask(self, method, path, body=None, token=None, headers=None):
        """Status, content type and answer; the answer is parsed when it is JSON."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=sent)
        try:
            response = OPENER.open(request, timeout=10)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            kind, text = response.headers["Content-Type"], response.read()
            return response.status, kind, json.loads(text) if "json" in kind else text.decode()

    def get(self, path):
        status, _kind, answer = self.ask("GET", path)
        return status, answer

    def post(self, path, body=None, token=None):
        status, _kind, answer = self.ask("POST", path, {} if body is None else body, token)
        return status, answer

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)


class Scripted:
    """A server whose answers a test writes: ``{(method, path): answer}``.

    An answer is a ``(status, body)`` or ``(status, body, headers)``, raw bytes, ``silence``, ``drip``, or a function of
    the request's body that returns one of these. ``seen`` has what was asked: method, path with query, headers, body.
    """

    def __init__(self, answers=None):
        self.answers = dict(answers or {})
        self.seen = []
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self):
                outer.handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def handle(self, handler):
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        self.seen.append((handler.command, handler.path, dict(handler.headers), body))
        key = (handler.command, handler.path)
        answer = self.answers.get(
            key, self.answers.get((handler.command, handler.path.split("?")[0]), (404, "404: Not Found"))
        )
        if callable(answer):
            answer = answer(body)
        if answer == "silence":
            self.release.wait(20)
            return
        if answer == "drip":
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
            while not self.release.wait(0.05):
                try:
                    handler.wfile.write(b" ")
                except OSError:
                    return
            return
        if isinstance(answer, bytes):
            with contextlib.suppress(OSError):
                handler.wfile.write(answer)
            return
        status, payload, *more = answer
        data = (
            payload
            if isinstance(payload, bytes)
            else payload.encode()
            if isinstance(payload, str)
            else json.dumps(payload).encode()
        )
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in more[0].items() if more else ():
            handler.send_header(name, value)
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)

    def sent(self, method="POST"):
        """Path and body of the requests of a method."""
        return [(path, body) for asked, path, _headers, body in self.seen if asked == method]

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Those who are told: a web server, a mail server and, behind a proxy that leads nowhere else, Slack; on loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import ssl


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.headers.get("Authorization"), json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_words):
        pass


class SlackBehindAProxy(http.server.BaseHTTPRequestHandler):
    """A proxy that itself answers as the host that it is to connect to, with the server's ``context`` for TLS.

    Heard are host, path and body. Slack answers `ok` to an incoming webhook and JSON to its Web API, with HTTP 200 also
    where it refuses.
    """

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.host = self.path
        with contextlib.suppress(ssl.SSLError):
            self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
            self.handle_one_request()
        self.close_connection = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.heard.append((self.host, self.path, json.loads(body)))
        answer = b"ok" if self.host.startswith("hooks.") else json.dumps(self.server.answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words):
        pass


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as it takes to be given a message."""

    def handle(self):
        with contextlib.suppress(ConnectionResetError):
            self.listen()

    def listen(self):
        self.wfile.write(b"220 here\r\n")
        while True:
            line = self.rfile.readline().strip()
            if line.upper() == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.heard.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
            if not line or line.upper() == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Those who are told: a web server and a mail server on loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.headers.get("Authorization"), json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

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

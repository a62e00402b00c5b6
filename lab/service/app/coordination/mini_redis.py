# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few calls of the redis package that the lock makes, for a lab with a Redis server and without that package.

Used only when LAB_REDIS is set. Part of the stand-in, see `app`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit


class RedisError(Exception):
    """Redis answered with an error, or not at all."""


class Redis:
    """A connection to one server."""

    def __init__(self, host: str, port: int, db: int, password: str, timeout: float) -> None:
        self._address = (host, port)
        self._timeout = timeout
        self._hello = [*([["AUTH", password]] if password else []), *([["SELECT", db]] if db else [])]

    @classmethod
    def from_url(cls, url: str, socket_timeout: float = 5) -> Redis:
        parts = urlsplit(url)
        database = int(parts.path.strip("/") or 0)
        return cls(
            parts.hostname or "localhost", parts.port or 6379, database, unquote(parts.password or ""), socket_timeout
        )

    def ping(self) -> bool:
        return self._call("PING") == "PONG"

    def set(self, key: str, value: str, nx: bool = False, ex: int | None = None) -> bool:
        return self._call("SET", key, value, *(["NX"] if nx else []), *(["EX", ex] if ex else [])) == "OK"

    def exists(self, key: str) -> int:
        return self._call("EXISTS", key)

    def expire(self, key: str, seconds: int) -> int:
        return self._call("EXPIRE", key, seconds)

    def ttl(self, key: str) -> int:
        return self._call("TTL", key)

    def eval(self, script: str, count: int, *arguments: str) -> object:
        return self._call("EVAL", script, count, *arguments)

    def _call(self, *words: object) -> object:
        answer = None
        with socket.create_connection(self._address, self._timeout) as link, link.makefile("rb") as answers:
            for command in [*self._hello, words]:
                link.sendall(_encode(command))
                answer = self._read(answers)
        return answer

    @staticmethod
    def _read(answers) -> object:
        line = answers.readline(1 << 16)
        if not line.endswith(b"\r\n"):
            raise RedisError("Connection closed by server")
        kind, text = line[:1], line[1:-2].decode("utf-8", "replace")
        if kind == b"-":
            raise RedisError(text)
        if kind == b":":
            return int(text)
        if kind == b"$":
            return None if text == "-1" else answers.read(int(text) + 2)[:-2].decode("utf-8", "replace")
        return text


def _encode(words: Iterable[object]) -> bytes:
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)

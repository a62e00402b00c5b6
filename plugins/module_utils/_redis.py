# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of a Redis client (RESP2) as a lock needs, over a plain socket. This util is private to the collection.

Every conversation has one deadline for all of it: name lookup, connection, TLS handshake and answers. Answers are
bounded. No message ever holds a password or the URL that it stood in: an address is named by its ``place``.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any, List, Optional, Tuple, Union
from urllib.parse import parse_qs, unquote, urlsplit

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

DEFAULT_PORT = 6379
# A lock's value has about 40 bytes; whatever is much longer is no lock.
MAX_BULK = 64 * 1024
MAX_LINE = 4 * 1024

# An answer that lists more than this is none that a lock needs.
MAX_LIST = 64
MAX_DEPTH = 2
LISTS = ("HELLO", "EVAL")

Value = Union[None, int, bytes, List[Any]]

# What to do about an error, by its first word.
NEXT_STEPS = {
    "ASK": "give the address of that node of the cluster in redis_url",
    "BUSY": "a script blocks the server; wait for it, or end it with SCRIPT KILL",
    "CLUSTERDOWN": "bring the cluster back",
    "DENIED": "the server is in protected mode; set a password there, or ask from its own host",
    "LOADING": "wait until it has loaded its data",
    "MASTERDOWN": "bring its master back, or give another address in redis_url",
    "MOVED": "give the address of that node of the cluster in redis_url",
    "NOPERM": "let this user run GET, PTTL, OBJECT, EVAL and DEL on lock:*",
    "READONLY": "it is a replica; give the address of its master in redis_url",
}


class RedisUnreachable(RecoveryError):
    """No usable answer: refused, timed out, cut off, or not a Redis server."""


class RedisRefused(RecoveryError):
    """Redis answered with an error. ``code`` is its first word, for example ``NOAUTH`` or ``WRONGTYPE``."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class RedisTooLong(RecoveryError):
    """A value longer than any lock; ``length`` is its length in bytes."""

    def __init__(self, message: str, length: int) -> None:
        super().__init__(message)
        self.length = length


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis database is and how to log on to it. The secrets stay out of ``repr``."""

    host: Optional[str]
    port: Optional[int]
    socket_path: Optional[str] = None
    db: int = 0
    username: Optional[str] = field(default=None, repr=False)
    password: Optional[str] = field(default=None, repr=False)
    tls: bool = False
    tls_verify: bool = True
    tls_ca: Optional[str] = None
    tls_check_hostname: bool = True
    tls_cert: Optional[str] = None
    tls_key: Optional[str] = None

    @property
    def place(self) -> str:
        """The address without secrets, for messages and results."""
        if self.socket_path is not None:
            return f"{self.socket_path}/{self.db}"
        host = f"[{self.host}]" if ":" in (self.host or "") else self.host
        return f"{host}:{self.port}/{self.db}"


def parse_redis_url(url: str) -> RedisAddress:
    """Read ``redis://``, ``rediss://`` (TLS) or ``unix://``, in the form that the service's own client takes.

    User name, password and database may also stand in the query. What this client does not know there is passed over,
    as the service's does with time limits and pool sizes.

    :raises RecoveryError: it is no such URL; the message does not repeat it, for it may hold a password
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    except ValueError:
        # Without the cause: it quotes what stood where the port should be, which may be half a password.
        raise RecoveryError("redis_url has a host or port that cannot be read; give redis://HOST:PORT/DB.") from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise RecoveryError(
            "redis_url has an @ after the host; write / ? # and @ in a password as %2F %3F %23 and %40."
        )
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise RecoveryError("redis_url starts with neither redis://, rediss:// nor unix://; give redis://HOST:PORT/DB.")
    unix = parts.scheme == "unix"
    path = unquote(parts.path)
    database = query.get("db") or (None if unix else path.strip("/")) or "0"
    if not re.match(r"\A[0-9]{1,5}\Z", database):
        raise RecoveryError("redis_url names a database that is not a number; give redis://HOST:PORT/DB.")
    if unix and not path.startswith("/"):
        raise RecoveryError("redis_url names no socket; give unix:///PATH/TO/redis.sock.")
    username, password = query.get("username") or parts.username, query.get("password") or parts.password
    return RedisAddress(
        host=None if unix else parts.hostname or "localhost",
        port=None if unix else port or DEFAULT_PORT,
        socket_path=path if unix else None,
        db=int(database),
        username=unquote(username) if username else None,
        password=unquote(password) if password else None,
        tls=parts.scheme == "rediss",
        tls_verify=query.get("ssl_cert_reqs", "required").lower() != "none",
        tls_ca=query.get("ssl_ca_certs"),
        tls_check_hostname=query.get("ssl_check_hostname", "true").lower() not in ("false", "no", "0"),
        tls_cert=query.get("ssl_certfile"),
        tls_key=query.get("ssl_keyfile"),
    )


class RedisClient:
    """A connection for a few commands, as a context manager.

    :param timeout: seconds for everything from the name lookup to the last answer
    """

    def __init__(self, address: RedisAddress, timeout: float = 5.0) -> None:
        self._address = address
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._socket: Optional[socket.socket] = None
        self._buffer = b""

    def __enter__(self) -> RedisClient:
        try:
            self._socket = self._connect()
            self._log_on()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def command(self, *words: Union[str, bytes, int]) -> Value:
        """Send one command and return its answer: None, an int, bytes, or a list of them.

        :raises RedisRefused: Redis answered with an error
        :raises RedisUnreachable: no usable answer in time
        """
        return self._converse(words, secret=False)

    def _log_on(self) -> None:
        address = self._address
        if address.password is not None:
            self._converse(("AUTH", *((address.username,) if address.username else ()), address.password), secret=True)
        if address.db:
            self._converse(("SELECT", address.db), secret=False)

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise RedisUnreachable(self._no_answer())
        return remaining

    def _no_answer(self) -> str:
        return (
            f"Redis at {self._address.place} did not answer within {self._timeout:g} s; "
            "check that it runs and is reachable from this node, or raise timeout."
        )

    def _connect(self) -> socket.socket:
        address = self._address
        try:
            if address.socket_path is not None:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                return self._open(connection, address.socket_path)
            failure: Optional[OSError] = None
            for family, kind, protocol, _name, target in self._look_up():
                try:
                    connection = self._open(socket.socket(family, kind, protocol), target)
                    return self._start_tls(connection) if address.tls else connection
                except socket.timeout:
                    raise
                except OSError as exc:
                    failure = exc
            raise failure or OSError("its name has no address")
        except socket.timeout as exc:
            raise RedisUnreachable(self._no_answer()) from exc
        except (OSError, ValueError) as exc:
            raise RedisUnreachable(
                f"Redis at {address.place} cannot be reached ({_one_line(str(exc))}); "
                "check redis_url and that Redis runs and listens for this node."
            ) from exc

    def _open(self, connection: socket.socket, target: Any) -> socket.socket:
        try:
            connection.settimeout(self._remaining())
            connection.connect(target)
        except BaseException:
            connection.close()
            raise
        return connection

    def _look_up(self) -> List[Any]:
        """Resolve the host name; the resolver knows no deadline, so it runs in a thread that can be left behind."""
        answers: List[List[Any]] = []
        errors: List[OSError] = []

        def ask() -> None:
            try:
                answers.append(socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as exc:
                errors.append(OSError(str(exc)))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(self._remaining())
        if errors:
            raise errors[0]
        if not answers:
            raise RedisUnreachable(self._no_answer())
        return answers[0]

    def _start_tls(self, connection: socket.socket) -> socket.socket:
        address = self._address
        try:
            context = ssl.create_default_context(cafile=address.tls_ca)
            context.check_hostname = address.tls_verify and address.tls_check_hostname
            if not address.tls_verify:
                context.verify_mode = ssl.CERT_NONE
            if address.tls_cert:
                context.load_cert_chain(address.tls_cert, address.tls_key)
            connection.settimeout(self._remaining())
            return context.wrap_socket(connection, server_hostname=address.host)
        except BaseException:
            connection.close()
            raise

    def _converse(self, words: Tuple[Union[str, bytes, int, None], ...], secret: bool) -> Value:
        if self._socket is None:
            raise RedisUnreachable(f"The connection to Redis at {self._address.place} is closed; ask again.")
        try:
            self._socket.settimeout(self._remaining())
            self._socket.sendall(_encode(words))
            return self._answer(str(words[0]), secret)
        except socket.timeout as exc:
            raise RedisUnreachable(self._no_answer()) from exc
        except OSError as exc:
            raise RedisUnreachable(
                f"Redis at {self._address.place} broke the connection off ({_one_line(str(exc))}); ask again."
            ) from exc

    def _answer(self, command: str, secret: bool, depth: int = 0) -> Value:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b":":
            return self._number(rest)
        if kind == b"$":
            length = self._number(rest)
            if length < 0:
                return None
            if length > MAX_BULK:
                raise RedisTooLong(f"Redis at {self._address.place} holds {length} bytes there, not a lock.", length)
            return self._exactly(length + 2)[:length]
        if kind == b"*" and command in LISTS:
            return self._list(self._number(rest), command, depth)
        if kind == b"-":
            raise self._refusal(command, rest.decode("utf-8", "replace"), secret)
        raise RedisUnreachable(
            f"What listens at {self._address.place} does not speak Redis's protocol; check host and port in redis_url."
        )

    def _list(self, length: int, command: str, depth: int) -> Value:
        if length > MAX_LIST or depth >= MAX_DEPTH:
            raise RedisTooLong(f"Redis at {self._address.place} answered {command} with {length} values.", length)
        return None if length < 0 else [self._answer(command, False, depth + 1) for _number in range(length)]

    def _refusal(self, command: str, text: str, secret: bool) -> RedisRefused:
        place = self._address.place
        code = (re.match(r"[A-Z]{2,32}", text) or [""])[0]
        # Redis repeats the arguments of a command that it does not know, so its words on a logon are never passed on.
        if secret:
            problem = f"Redis at {place} refused the logon ({code or 'no reason'})"
            return RedisRefused(f"{problem}; check the user name and the password in redis_url.", code)
        if code == "NOAUTH":
            return RedisRefused(f"Redis at {place} wants a password; give redis://:PASSWORD@HOST:PORT/DB.", code)
        step = f"; {NEXT_STEPS[code]}." if code in NEXT_STEPS else ""
        return RedisRefused(f"Redis at {place} refused {command}: {_one_line(text).rstrip('.')}{step}", code)

    def _number(self, text: bytes) -> int:
        if not re.match(rb"\A-?[0-9]{1,19}\Z", text):
            raise RedisUnreachable(f"What listens at {self._address.place} does not speak Redis's protocol.")
        return int(text)

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > MAX_LINE:
                raise RedisUnreachable(f"What listens at {self._address.place} does not speak Redis's protocol.")
            self._receive()
        line, _end, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive()
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data

    def _receive(self) -> None:
        data = b""
        if self._socket is not None:
            self._socket.settimeout(self._remaining())
            data = self._socket.recv(65536)
        if not data:
            raise OSError("end of stream")
        self._buffer += data


def _encode(words: Tuple[Union[str, bytes, int, None], ...]) -> bytes:
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _one_line(text: str, limit: int = 200) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:limit]).strip()

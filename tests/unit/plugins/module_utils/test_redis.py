# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Redis client, against a real Redis and against servers that misbehave."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import socket
import subprocess
import threading
import time
from typing import Callable, Iterator, List, Tuple

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _redis
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._redis import (
    RedisAddress,
    RedisClient,
    RedisRefused,
    RedisTooLong,
    RedisUnreachable,
    parse_redis_url,
)

PASSWORD = "s3cret-Pa55/w#rd"
QUOTED = "s3cret-Pa55%2Fw%23rd"


def free_ports(count: int) -> List[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _number in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    return free_ports(1)[0]


def start(directory: pathlib.Path, *options: str, tls: bool = False) -> Tuple[subprocess.Popen, int, int]:
    """A Redis with its port and its TLS port; another one where somebody else was faster to take the port."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    words = ["--bind", "127.0.0.1", "--save", "", "--dir", str(directory), "--unixsocket", str(directory / "s")]
    for _attempt in range(5):
        port, tls_port = free_ports(2)
        ports = ["--port", str(port), *(["--tls-port", str(tls_port)] if tls else [])]
        process = subprocess.Popen([program, *ports, *words, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return process, port, tls_port
            except OSError:
                time.sleep(0.02)
        process.kill()
        process.wait(5)
    pytest.fail("redis-server did not start")


@pytest.fixture(scope="module")
def redis(tmp_path_factory) -> Iterator[Tuple[pathlib.Path, int]]:
    directory = tmp_path_factory.mktemp("redis")
    process, port, _tls_port = start(directory)
    yield directory, port
    process.kill()
    process.wait(5)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Tuple[pathlib.Path, int]]:
    """A Redis with a password, and a second user who may only read."""
    directory = tmp_path_factory.mktemp("guarded")
    process, port, _tls_port = start(
        directory, "--requirepass", PASSWORD, "--user", "reader", "on", f">{PASSWORD}", "~*", "+get", "+select"
    )
    yield directory, port
    process.kill()
    process.wait(5)


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """A server on the loopback that does what the test says with its first connection."""
    listeners = []

    def begin(handle: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            try:
                connection, _peer = listener.accept()
                with connection:
                    handle(connection)
            except OSError:
                pass

        threading.Thread(target=run, daemon=True).start()
        return listener.getsockname()[1]

    yield begin
    for listener in listeners:
        listener.close()


def answer(*replies: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        for reply in replies:
            connection.recv(4096)
            connection.sendall(reply)
        connection.recv(4096)

    return handle


def ask(port: int, *words: object, timeout: float = 2.0, url: str = "redis://127.0.0.1:{}/0"):
    with RedisClient(parse_redis_url(url.format(port)), timeout) as client:
        return client.command(*words)


URLS = [
    ("redis://localhost:6379/0", RedisAddress("localhost", 6379)),
    ("redis://", RedisAddress("localhost", 6379)),
    ("redis://host", RedisAddress("host", 6379)),
    ("redis://host/3", RedisAddress("host", 6379, db=3)),
    ("redis://host:1?db=4", RedisAddress("host", 1, db=4)),
    ("redis://:p%40ss@host:1/2", RedisAddress("host", 1, db=2, password="p@ss")),
    ("redis://user:pass@host", RedisAddress("host", 6379, username="user", password="pass")),
    ("redis://user@host", RedisAddress("host", 6379, username="user")),
    ("redis://[::1]:7000/1", RedisAddress("::1", 7000, db=1)),
    ("rediss://host", RedisAddress("host", 6379, tls=True)),
    ("rediss://host?ssl_cert_reqs=none", RedisAddress("host", 6379, tls=True, tls_verify=False)),
    ("rediss://host?ssl_ca_certs=/etc/ca.pem", RedisAddress("host", 6379, tls=True, tls_ca="/etc/ca.pem")),
    ("unix:///run/redis.sock", RedisAddress(None, None, "/run/redis.sock")),
    ("unix://u:p@/run/redis.sock?db=2", RedisAddress(None, None, "/run/redis.sock", 2, "u", "p")),
    ("redis://host?socket_timeout=5&password=x", RedisAddress("host", 6379, password="x")),
]


@pytest.mark.parametrize(("url", "address"), URLS)
def test_urls(url, address):
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:6379",
        "http://:hunter2@host/",
        "redis://:hunter2@host:port/",
        "redis://:hunter2@host:99999/",
        "redis://:hunter2@host/db",
        "redis://:hunter2@host/-1",
        "redis://:hun/ter2@host/0",
        "redis://u:1?hunter2@host/0",
        "redis://u:1#hunter2@host/0",
        "unix://",
        "redis://:hunter2@[::1/0",
    ],
)
def test_unreadable_urls_are_refused_without_repeating_them(url):
    with pytest.raises(RecoveryError) as caught:
        parse_redis_url(url)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_address_shows_no_secret():
    address = parse_redis_url("redis://user:hunter2@host:1/2")
    assert address.place == "host:1/2"
    assert "hunter2" not in repr(address)
    assert parse_redis_url("redis://[::1]").place == "[::1]:6379/0"
    assert parse_redis_url("unix://u:hunter2@/run/s?db=1").place == "/run/s/1"


def test_commands(redis):
    _directory, port = redis
    assert ask(port, "PING") == b"PONG"
    assert ask(port, "SET", "key", b"\x00\xff\r\n") == b"OK"
    assert ask(port, "GET", "key") == b"\x00\xff\r\n"
    assert ask(port, "GET", "nothing") is None
    assert ask(port, "STRLEN", "key") == 4
    assert ask(port, "GET", "key", url="redis://127.0.0.1:{}/5") is None
    assert ask(port, "SET", "empty", "") == b"OK"
    assert ask(port, "GET", "empty") == b""


def test_a_unix_socket(redis):
    directory, _port = redis
    with RedisClient(parse_redis_url(f"unix://{directory}/s?db=1")) as client:
        assert client.command("PING") == b"PONG"


def test_one_connection_takes_several_commands_and_is_closed_afterwards(redis):
    _directory, port = redis
    with RedisClient(RedisAddress("127.0.0.1", port)) as client:
        assert [client.command("PING") for _number in range(3)] == [b"PONG"] * 3
    with pytest.raises(RedisUnreachable, match="closed"):
        client.command("PING")


def test_a_value_longer_than_any_lock_is_not_read(redis):
    _directory, port = redis
    ask(port, "SET", "long", b"x" * (_redis.MAX_BULK + 1))
    with pytest.raises(RedisTooLong) as caught:
        ask(port, "GET", "long")
    assert caught.value.length == _redis.MAX_BULK + 1


def test_the_wrong_type_is_an_error_with_its_code(redis):
    _directory, port = redis
    ask(port, "RPUSH", "list", "1")
    with pytest.raises(RedisRefused) as caught:
        ask(port, "GET", "list")
    assert caught.value.code == "WRONGTYPE"


def test_logon_with_a_password(guarded):
    _directory, port = guarded
    assert ask(port, "PING", url=f"redis://:{QUOTED}@127.0.0.1:{{}}/3") == b"PONG"
    assert ask(port, "GET", "x", url=f"redis://reader:{QUOTED}@127.0.0.1:{{}}") is None


@pytest.mark.parametrize(
    ("user", "code"), [("", "NOAUTH"), (":wrong-hunter2@", "WRONGPASS"), ("nobody:hunter2@", "WRONGPASS")]
)
def test_a_refused_logon(guarded, user, code):
    _directory, port = guarded
    with pytest.raises(RedisRefused) as caught:
        ask(port, "GET", "x", url=f"redis://{user}127.0.0.1:{{}}")
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value)
    assert "password" in str(caught.value)


def test_a_user_who_may_not(guarded):
    _directory, port = guarded
    with pytest.raises(RedisRefused) as caught:
        ask(port, "EVAL", "return 1", 0, url=f"redis://reader:{QUOTED}@127.0.0.1:{{}}")
    assert caught.value.code == "NOPERM"


def test_a_password_where_none_is_set_is_an_error(redis):
    _directory, port = redis
    with pytest.raises(RedisRefused) as caught:
        ask(port, "PING", url="redis://:hunter2@127.0.0.1:{}")
    assert "hunter2" not in str(caught.value)


def test_a_server_that_repeats_the_password_does_not_make_it_known(serve):
    port = serve(answer(b"-ERR unknown command `AUTH`, with args beginning with: `hunter2`, \r\n"))
    with pytest.raises(RedisRefused) as caught:
        ask(port, "PING", url="redis://:hunter2@127.0.0.1:{}")
    assert "hunter2" not in str(caught.value)


def test_nobody_listens():
    with pytest.raises(RedisUnreachable, match=r"cannot be reached.*check redis_url"):
        ask(free_port(), "PING")
    with pytest.raises(RedisUnreachable, match="cannot be reached"), RedisClient(parse_redis_url("unix:///nowhere/s")):
        pass


def test_a_name_without_an_address():
    with pytest.raises(RedisUnreachable, match="cannot be reached|did not answer"), RedisClient(
        RedisAddress("no-such-host.invalid", 1), timeout=2
    ):
        pass


def test_a_resolver_that_hangs_costs_its_deadline(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: time.sleep(3))
    begun = time.monotonic()
    with pytest.raises(RedisUnreachable, match="did not answer within 0.2 s"), RedisClient(
        RedisAddress("host", 1), timeout=0.2
    ):
        pass
    assert time.monotonic() - begun < 1


def test_a_silent_server_costs_its_deadline(serve):
    port = serve(lambda connection: time.sleep(2))
    begun = time.monotonic()
    with pytest.raises(RedisUnreachable, match="did not answer within 0.3 s"):
        ask(port, "PING", timeout=0.3)
    assert time.monotonic() - begun < 1


def test_a_dripping_server_costs_its_deadline(serve):
    def drip(connection: socket.socket) -> None:
        for _number in range(30):
            connection.sendall(b"+")
            time.sleep(0.1)

    port = serve(drip)
    begun = time.monotonic()
    with pytest.raises(RedisUnreachable, match="did not answer within 0.3 s"):
        ask(port, "PING", timeout=0.3)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$five\r\nhello\r\n",
        b":1e3\r\n",
        b"*1\r\n:1\r\n",
        b"\x00" * 5000,
        b"+" + b"x" * 70000,
        b"\r\n",
    ],
)
def test_what_is_no_redis_is_said_to_be_none(serve, reply):
    port = serve(answer(reply))
    with pytest.raises(RedisUnreachable, match="protocol"):
        ask(port, "PING")


@pytest.mark.parametrize("reply", [b"", b"$10\r\nhal", b"+OK"])
def test_an_answer_that_is_cut_off(serve, reply):
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(reply)

    port = serve(handle)
    with pytest.raises(RedisUnreachable, match="broke the connection off"):
        ask(port, "PING")


def test_an_error_is_shown_on_one_bounded_line(serve):
    port = serve(answer(b"-ERR \x1b[31m" + b"x" * 3000 + b"\r\n"))
    with pytest.raises(RedisRefused) as caught:
        ask(port, "PING")
    assert len(str(caught.value)) < 300
    assert "\x1b" not in str(caught.value)


def test_tls(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
        timeout=20,
    )
    files = ["--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert)]
    process, plain, tls_port = start(tmp_path, "--tls-auth-clients", "no", *files, tls=True)
    try:
        assert ask(tls_port, "PING", url=f"rediss://127.0.0.1:{{}}?ssl_ca_certs={cert}") == b"PONG"
        assert ask(tls_port, "PING", url="rediss://127.0.0.1:{}?ssl_cert_reqs=none") == b"PONG"
        with pytest.raises(RedisUnreachable, match="(?i)certificate"):
            ask(tls_port, "PING", url="rediss://127.0.0.1:{}")
        with pytest.raises(RedisUnreachable):
            ask(tls_port, "PING")
        with pytest.raises(RedisUnreachable):
            ask(plain, "PING", url="rediss://127.0.0.1:{}?ssl_cert_reqs=none", timeout=1)
    finally:
        process.kill()
        process.wait(5)


@pytest.mark.parametrize(
    ("words", "code", "step"),
    [
        ("-LOADING Redis is loading the dataset in memory", "LOADING", "wait until it has loaded"),
        ("-MOVED 1234 10.0.0.7:6379", "MOVED", "that node of the cluster"),
        ("-CLUSTERDOWN The cluster is down", "CLUSTERDOWN", "bring the cluster back"),
        ("-MASTERDOWN Link with MASTER is down", "MASTERDOWN", "bring its master back"),
        ("-READONLY You can't write against a read only replica.", "READONLY", "the address of its master"),
        ("-NOPERM User reader has no permissions", "NOPERM", "let this user run GET, PTTL, OBJECT, EVAL and DEL"),
        ("-DENIED Redis is running in protected mode because", "DENIED", "set a password there"),
        ("-BUSY Redis is busy running a script.", "BUSY", "SCRIPT KILL"),
        ("-NOAUTH Authentication required.", "NOAUTH", "wants a password"),
    ],
)
def test_a_refusal_names_the_next_step(serve, words, code, step):
    port = serve(lambda connection: (connection.recv(1000), connection.sendall(words.encode() + b"\r\n")))
    with pytest.raises(RedisRefused, match=step) as caught:
        ask(port, "GET", "key")
    assert caught.value.code == code


def test_a_list_is_bounded(serve, redis):
    answer = ask(redis[1], "HELLO")
    assert dict(zip(answer[::2], answer[1::2]))[b"role"] == b"master"
    for reply in (b"*65\r\n", b"*1\r\n*1\r\n*1\r\n:1\r\n"):
        port = serve(lambda connection, reply=reply: (connection.recv(1000), connection.sendall(reply)))
        with pytest.raises(RedisTooLong):
            ask(port, "HELLO")


def test_tls_with_a_client_certificate(tmp_path):
    """As redis-server wants it unless it is told otherwise; the certificate is for another name."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        + ["-subj", "/CN=cache", "-addext", "subjectAltName=DNS:cache", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
        timeout=20,
    )
    files = ["--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert)]
    process, _plain, tls_port = start(tmp_path, "--requirepass", PASSWORD, *files, tls=True)
    try:
        base = f"rediss://:{QUOTED}@127.0.0.1:{{}}?ssl_ca_certs={cert}"
        client = f"&ssl_certfile={cert}&ssl_keyfile={key}"
        assert ask(tls_port, "PING", url=f"{base}{client}&ssl_check_hostname=false") == b"PONG"
        for url in (f"{base}{client}", f"{base}&ssl_check_hostname=false"):
            with pytest.raises(RedisUnreachable):
                ask(tls_port, "PING", url=url)
        with pytest.raises(RedisUnreachable, match="cannot be reached"):
            ask(tls_port, "PING", url=f"{base}&ssl_certfile=/nowhere.pem")
        with pytest.raises(RedisRefused, match="refused the logon"):
            ask(tls_port, "PING", url=f"{base}{client}&ssl_check_hostname=false".replace(QUOTED, "wrong"))
    finally:
        process.kill()
        process.wait(5)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bounded JSON requests over HTTP. This util is private to the collection.

Whatever a server does (refuse, hang, drip, redirect, send garbage, send without end) costs at most the deadline of the
request and comes back as data. No proxy is used, no redirect is followed, and the token goes to the given URL only.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SAFE_METHODS = ("GET",)
REQUEST_LIMIT = 256
BODY_LIMIT = 4 * 1024 * 1024
TEXT_LIMIT = 2000
ERROR_LIMIT = 300
DEPTH_LIMIT = 40
PARALLEL = 8

PATH = re.compile(r"\A/[\x21-\x7e]*\Z")
HEADER = re.compile(r"\A[A-Za-z0-9-]{1,100}\Z")
_TOKEN = re.compile(r"\A[\x21-\x7e]+\Z")
_HOST = re.compile(r"\A[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z|\A[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]+)?\Z")


@dataclass(frozen=True)
class Request:
    """One request; ``path`` begins with a slash and may carry a query, ``body`` is sent as JSON."""

    name: str
    method: str
    path: str
    body: Any = None

    @property
    def safe(self) -> bool:
        return self.method in SAFE_METHODS


@dataclass(frozen=True)
class Answer:
    """What came back: ``status`` is None when no HTTP answer came, ``error`` says why the answer is not whole."""

    name: str
    method: str
    path: str
    status: Optional[int] = None
    body: Any = None
    error: Optional[str] = None
    seconds: float = 0.0
    skipped: bool = False

    @property
    def ok(self) -> bool:
        """Whether a whole answer with a 2xx status came."""
        return self.error is None and self.status is not None and 200 <= self.status < 300

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


def join_host(host: Any, port: Any, scheme: Any = "http") -> Optional[str]:
    """A base URL out of the parts that an answer named, or None when one of them is not what it should be."""
    if scheme not in ("http", "https") or not isinstance(host, str) or _HOST.match(host) is None:
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        return None
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def check_url(url: str) -> str:
    """The base URL without a slash at its end.

    :raises RecoveryError: it is not a plain http or https URL
    """
    example = "Give it as http://host:port, such as http://localhost:8770."
    text = url.rstrip("/") if isinstance(url, str) else ""
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise RecoveryError(f"The URL {_cut(url)} cannot be read: {exc}. {example}") from exc
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or _HOST.match(host) is None or port == 0:
        raise RecoveryError(f"The URL {_cut(url)} is not an http or https URL with a host. {example}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise RecoveryError(f"The URL of {host} carries a user, a query or a fragment. {example}")
    if parts.path and PATH.match(parts.path) is None:
        raise RecoveryError(f"The URL {_cut(url)} has a path with characters that no path has. {example}")
    return text


def parse_requests(items: Iterable[Dict[str, Any]]) -> Tuple[Request, ...]:
    """Read the requests out of plain data.

    :raises RecoveryError: there are too many, or one is not what it should be
    """
    requests = []
    for item in items:
        request = Request(
            name=str(item.get("name") or f"{item.get('method')} {item.get('path')}"),
            method=str(item.get("method") or "GET").upper(),
            path=str(item.get("path") or ""),
            body=item.get("body"),
        )
        if request.method not in METHODS:
            raise RecoveryError(
                f"Request {_cut(request.name)} has the method {_cut(request.method)}; use one of {', '.join(METHODS)}."
            )
        if PATH.match(request.path) is None:
            raise RecoveryError(
                f"Request {_cut(request.name)} has the path {_cut(request.path)}; "
                "a path begins with a slash and has no spaces, such as /status."
            )
        requests.append(request)
    if len(requests) > REQUEST_LIMIT:
        raise RecoveryError(
            f"{len(requests)} requests are more than the limit of {REQUEST_LIMIT}; send fewer at a time."
        )
    return tuple(requests)


def send(
    url: str,
    requests: Sequence[Request],
    token: Optional[str] = None,
    timeout: float = 5.0,
    deadline: float = 30.0,
    dry_run: bool = False,
    headers: Optional[Mapping[str, str]] = None,
    limit: Optional[int] = None,
    reader: Optional[Callable[[bytes], Any]] = None,
    token_headers: Sequence[str] = ("Authorization",),
) -> Tuple[Answer, ...]:
    """Send the requests in their order and return one answer for each.

    Neighbouring GETs go side by side, everything else goes alone. With ``dry_run`` only the GETs are sent.

    :param timeout: seconds for one request, from connecting to the last byte
    :param deadline: seconds for all of them; what has not begun by then is not sent
    :param headers: sent with each of them, besides the usual ones
    :param limit: bytes, ``BODY_LIMIT`` by default; a longer answer is not read to its end and not believed
    :param reader: makes the body out of the bytes of an answer; the default is ``decode``
    :param token_headers: where the token goes: as ``Bearer <token>`` into ``Authorization``, alone into all others
    :raises RecoveryError: the URL, the token or a header cannot be used
    """
    base = check_url(url)
    for name in token_headers:
        if HEADER.match(name) is None:
            raise RecoveryError(f"The token cannot go into the header {_cut(name)}; such as X-RingRift-Auth is one.")
    if token and _TOKEN.match(token) is None:
        raise RecoveryError(
            "The token has characters that no HTTP header takes; look for a space or a line break in it."
        )
    for name, value in (headers or {}).items():
        if _TOKEN.match(value) is None:
            raise RecoveryError(
                f"The header {name} has characters that no HTTP header takes; look for a line break in it."
            )
    carried = dict(headers or {})
    for name in token_headers if token else ():
        carried[name] = f"Bearer {token}" if name.lower() == "authorization" else str(token)
    if timeout <= 0 or deadline <= 0:
        raise RecoveryError(f"The timeout is {timeout} s and the deadline {deadline} s; both must be above 0.")
    end = time.monotonic() + deadline
    answers: List[Answer] = []
    for group in _groups(requests):
        if dry_run and not group[0].safe:
            answers.extend(Answer(request.name, request.method, request.path, skipped=True) for request in group)
            continue
        left = min(timeout, end - time.monotonic())
        if left <= 0:
            late = f"not sent: the deadline of {deadline:g} s had passed"
            answers.extend(Answer(request.name, request.method, request.path, error=late) for request in group)
            continue
        answers.extend(_send_group(base, group, left, carried, _Reading(limit or BODY_LIMIT, reader or decode)))
    return tuple(answers)


def _groups(requests: Sequence[Request]) -> Iterable[Tuple[Request, ...]]:
    group: List[Request] = []
    for request in requests:
        if group and (not request.safe or not group[-1].safe or len(group) >= PARALLEL):
            yield tuple(group)
            group = []
        group.append(request)
    if group:
        yield tuple(group)


@dataclass(frozen=True)
class _Reading:
    limit: int
    reader: Callable[[bytes], Any]


def _send_group(
    base: str, group: Sequence[Request], limit: float, headers: Mapping[str, str], reading: _Reading
) -> List[Answer]:
    # A thread can be left behind at its deadline; a socket timeout alone never ends a server that drips bytes.
    started = time.monotonic()
    boxes: List[List[Answer]] = [[] for request in group]
    threads = [
        threading.Thread(target=_exchange, args=(base, request, limit, headers, reading, box), daemon=True)
        for request, box in zip(group, boxes)
    ]
    for thread in threads:
        thread.start()
    answers = []
    for request, thread, box in zip(group, threads, boxes):
        thread.join(max(0.0, started + limit - time.monotonic()))
        late = Answer(request.name, request.method, request.path, error=_late(limit), seconds=round(limit, 3))
        answers.append(box[0] if box else late)
    return answers


def _exchange(
    base: str, request: Request, limit: float, headers: Mapping[str, str], reading: _Reading, box: List[Answer]
) -> None:
    started = time.monotonic()
    status: Optional[int] = None
    body: Any = None
    error: Optional[str] = None
    try:
        with _opener().open(_prepare(base, request, headers), timeout=limit) as response:
            status = response.status
            raw = response.read(reading.limit + 1)
            broken = len(raw) <= reading.limit and response.length not in (None, 0)
        if len(raw) > reading.limit:
            error = f"the answer is longer than {reading.limit} bytes"
        elif broken:
            error = f"the answer broke off after {len(raw)} bytes"
        else:
            body = reading.reader(raw)
    # ValueError: http.client reads header values as numbers; RuntimeError and MemoryError: a hostile answer.
    except (OSError, http.client.HTTPException, ValueError, RuntimeError, MemoryError) as exc:
        error = explain(exc, limit)
    seconds = round(time.monotonic() - started, 3)
    box.append(Answer(request.name, request.method, request.path, status, body, error, seconds))


def _prepare(base: str, request: Request, more: Mapping[str, str]) -> urllib.request.Request:
    headers = {"Accept": "application/json", "User-Agent": "ringrift.recovery", **more}
    data = None
    if request.body is not None or not request.safe:
        data = b"" if request.body is None else json.dumps(request.body).encode("utf-8")
        headers["Content-Type"] = "application/json"
    return urllib.request.Request(base + request.path, data=data, headers=headers, method=request.method)


def _opener() -> urllib.request.OpenerDirector:
    # Only these two handlers: no proxy, no redirect, no file or ftp, and an error status is an answer like any other.
    opener = urllib.request.OpenerDirector()
    opener.addheaders = []
    opener.add_handler(urllib.request.HTTPHandler())
    if hasattr(urllib.request, "HTTPSHandler"):
        opener.add_handler(urllib.request.HTTPSHandler())
    opener.add_handler(urllib.request.UnknownHandler())
    return opener


def decode(raw: bytes) -> Any:
    """The JSON in an answer, or its text cut at ``TEXT_LIMIT`` characters, or None when it is empty."""
    text = raw.decode("utf-8", errors="replace")
    if not text.strip():
        return None
    try:
        return parse(text)
    except (ValueError, RecursionError):
        return text[:TEXT_LIMIT]


def parse(text: str, unique: bool = False) -> Any:
    """The JSON in a text; with ``unique`` an object that names a key twice is refused.

    :raises ValueError: it is not JSON, or nested too deep; RecursionError where it is nested much too deep
    """
    return _clean(json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once if unique else None))


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    # The key is cleaned before it is compared: two that differ in what cannot be printed become one later.
    found: Dict[str, Any] = {}
    for key, value in pairs:
        key = _clean(key)
        if key in found:
            raise ValueError(f"it has {_cut(key)} twice")
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    """NaN and the infinities are not JSON; they count as unknown."""


def _clean(value: Any, depth: int = 0) -> Any:
    # Lone surrogates cannot be printed, and deep nesting breaks whoever walks the answer next.
    if depth > DEPTH_LIMIT:
        raise ValueError(f"nested deeper than {DEPTH_LIMIT}")
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", errors="replace").decode("utf-8")
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_clean(key, depth + 1): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def explain(exc: BaseException, limit: float) -> str:
    """Why no whole answer came, in one bounded line."""
    reason = getattr(exc, "reason", None)
    cause = reason if isinstance(reason, BaseException) else exc
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, (socket.timeout, TimeoutError)):
        return _late(limit)
    if isinstance(cause, socket.gaierror):
        return f"the host name cannot be resolved: {cause.strerror or cause}"[:ERROR_LIMIT]
    if isinstance(cause, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(cause, http.client.IncompleteRead):
        return f"the answer broke off after {len(cause.partial)} bytes"
    if isinstance(cause, http.client.HTTPException):
        return f"the answer is not HTTP ({type(cause).__name__}: {cause})"[:ERROR_LIMIT]
    return f"{type(cause).__name__}: {cause}"[:ERROR_LIMIT]


def _late(limit: float) -> str:
    return f"no whole answer within {limit:.3g} s"


def _cut(text: Any) -> str:
    return repr(str(text)[:ERROR_LIMIT])

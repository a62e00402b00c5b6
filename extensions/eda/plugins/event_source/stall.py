# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
---
module: stall
short_description: Says when the training of a config has stalled
description:
  - Watches configs and emits one event where a diagnosis says that training has stalled, and goes on saying so.
  - Whether training moves can be seen on the nodes only, so it is C(diagnose.yml) that says so, run as a program with a
    deadline. It runs every O(diagnose_every), at once where the orchestrator shows something else than before, and
    where AlertManager says so.
  - C(kind) of an event is V(stall), or V(unseen) where it could not be told for O(unseen_after). It also has C(id),
    C(config), C(since), C(at), C(age) (seconds since the last progress), C(number) (it is the first, second … since
    training moved), C(alert) (whether one asked for it), C(headline), C(running), C(cause) and C(causes), C(recover)
    and C(unlisted) (whether O(recover_causes) has all of them, and what it lacks), C(evidence) (at most 5 lines), and
    C(playbooks), the folder of the collection's playbooks.
  - No text of an event is longer than 200 characters or can be taken for a template. No secret is in an event.
  - The environment has the secrets, E(RINGRIFT_EDA_TOKEN) that of the listener, E(RINGRIFT_P2P_TOKEN) that of the
    orchestrator where it asks for one.
options:
  configs:
    description: The training configs to watch, each C(<board>_<players>p).
    type: list
    elements: str
    required: true
  inventory:
    description: The inventory of the diagnosis. By default that of C(ansible.cfg).
    type: str
    default: ""
  recover_causes:
    description: The causes that may be recovered without a person, as a diagnosis names them. By default none.
    type: list
    elements: str
    default: []
  url:
    description:
      - The orchestrator, as seen from here. Empty where it cannot be reached from here; a stall is then seen at the
        next diagnosis.
    type: str
    default: ""
  profile:
    description: The API of the orchestrator, see M(ringrift.recovery.p2p_training).
    type: str
    default: auto
  interval:
    description: Seconds between two questions to the orchestrator.
    type: float
    default: 60
  diagnose_every:
    description: Seconds after which the nodes are looked at in any case.
    type: float
    default: 600
  confirm_after:
    description: Seconds to the next diagnosis where something is suspicious.
    type: float
    default: 60
  looks:
    description: So many diagnoses in a row must say that training has stalled. After an alert one is enough.
    type: int
    default: 2
  stall_after:
    description: Seconds for which they must have said so. After an alert there is no waiting.
    type: float
    default: 60
  unseen_after:
    description: Seconds for which nothing could be told until an event V(unseen) says so.
    type: float
    default: 1800
  backoff:
    description: Seconds until the next event of a config and kind. It doubles with each; training that moves resets it.
    type: float
    default: 900
  backoff_most:
    description: The longest of these pauses, in seconds.
    type: float
    default: 21600
  diagnose_timeout:
    description: Seconds after which a diagnosis is ended, with all its processes.
    type: float
    default: 300
  listen_port:
    description: Where AlertManager may POST to C(/alerts). V(0) is nowhere. It needs E(RINGRIFT_EDA_TOKEN).
    type: int
    default: 0
  listen_host:
    description: The address to listen at.
    type: str
    default: 127.0.0.1
  certfile:
    description: The certificate of the listener, for https.
    type: str
    default: ""
  keyfile:
    description: The key of that certificate.
    type: str
    default: ""
"""

EXAMPLES = r"""
- ringrift.recovery.stall:
    configs: [hex8_2p, square8_2p]
    inventory: /etc/ringrift/inventory
    url: http://coordinator:8770
    recover_causes: [lock_held, training_failed, not_running]
"""

import asyncio
import contextlib
import hmac
import json
import logging
import os
import pathlib
import shutil
import signal
import ssl
import sys
import tempfile
import time
from datetime import datetime, timezone
from typing import Any, Dict, List, Mapping, Optional

# The program that loads this knows nothing of collections.
HERE = pathlib.Path(__file__).absolute()
PLAYBOOKS = HERE.resolve().parents[4] / "playbooks"
for folder in HERE.parents:
    if folder.name == "ansible_collections" and str(folder.parent) not in sys.path:
        sys.path.append(str(folder.parent))

from ansible_collections.ringrift.recovery.plugins.module_utils import _http, _p2p
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._stall_watch import (
    Settings,
    Sight,
    Watch,
    alerted,
    check_configs,
    safe,
)

LISTENER_TOKEN = "RINGRIFT_EDA_TOKEN"
P2P_TOKEN = "RINGRIFT_P2P_TOKEN"
SHORTEST_TOKEN = 16

# Seconds for all that is asked of the orchestrator in one look, and for a message to be sent here.
ASK_TIMEOUT = 60.0
READ_TIMEOUT = 10.0
# Seconds that a diagnosis which is over its time may take to end before it is killed.
GRACE = 5.0
# Bytes of a message, and of a verdict.
MESSAGE_LIMIT = 256 * 1024
VERDICT_LIMIT = 64 * 1024 * 1024
# So many messages are read at once; AlertManager tries again.
MESSAGES_AT_ONCE = 8

logger = logging.getLogger("ringrift.recovery.stall")


class Source:
    """The configs that are watched, and what they are watched with."""

    def __init__(self, queue: Any, args: Mapping[str, Any]) -> None:
        known = {name for name, _default in DEFAULTS} | {"eda_feedback_queue"}
        strange = sorted(set(args) - known - set(Settings.__dataclass_fields__))
        if strange:
            raise RecoveryError(f"The event source stall has no option {safe(strange[0])!r}.")
        options = {**dict(DEFAULTS), **{name: value for name, value in args.items() if value is not None}}
        self.queue = queue
        self.settings = Settings.of(options)
        self.watches = {name: Watch(name, self.settings) for name in check_configs(options["configs"])}
        self.inventory = str(options["inventory"])
        if self.inventory and not os.path.exists(self.inventory):
            raise RecoveryError(f"The inventory {self.inventory} is not there.")
        self.url = _http.check_url(options["url"]) if options["url"] else ""
        self.profile = str(options["profile"])
        self.diagnose_timeout = float(options["diagnose_timeout"])
        if not 1 <= self.diagnose_timeout <= 3600:
            raise RecoveryError(f"diagnose_timeout is {self.diagnose_timeout:g} s. It is from 1 to 3600.")
        self.port = int(options["listen_port"])
        self.host = str(options["listen_host"])
        self.certificate = (str(options["certfile"]), str(options["keyfile"]) or None)
        self.token = os.environ.get(LISTENER_TOKEN, "")
        if self.port and len(self.token) < SHORTEST_TOKEN:
            raise RecoveryError(
                f"listen_port is {self.port}, and {LISTENER_TOKEN} is not in the environment, or is shorter than "
                f"{SHORTEST_TOKEN} characters. Nobody may start a recovery unasked: give one to both sides."
            )
        self.ask = {
            name: _p2p.Options.from_params(
                {**P2P_PARAMS, "config": name, "url": self.url, "profile": self.profile}, False
            )
            for name in (self.watches if self.url else ())
        }
        self.program = shutil.which("ansible-playbook") or str(pathlib.Path(sys.executable).parent / "ansible-playbook")
        self.diagnosis = PLAYBOOKS / "diagnose.yml"
        if not self.diagnosis.is_file():
            raise RecoveryError(
                f"The playbook {self.diagnosis} is not there; the collection is not whole. Install it anew."
            )
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Watch until it is cancelled."""
        listener = await self._listen() if self.port else None
        try:
            while True:
                self.wake.clear()
                for watch in self.watches.values():
                    await self._look(watch)
                # Whoever has something to say wakes it before its time.
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), self.settings.interval)
        finally:
            if listener is not None:
                await listener.cleanup()

    async def _look(self, watch: Watch) -> None:
        if self.url:
            watch.show(await self._view(watch.config))
        if not watch.due(time.monotonic()):
            return
        watch.begin()
        sight = await self._diagnose(watch.config)
        logger.info("Looked at %s: %s", watch.config, sight.headline)
        event = watch.saw(time.monotonic(), sight)
        if event is not None:
            await self.queue.put({**event, "playbooks": str(PLAYBOOKS)})

    # The orchestrator

    async def _view(self, config: str) -> Optional[Dict[str, Any]]:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(
                loop.run_in_executor(None, _p2p.run, self.ask[config], self._send), ASK_TIMEOUT
            )
        except (RecoveryError, asyncio.TimeoutError) as exc:
            logger.warning("%s: the orchestrator could not be asked: %s", config, safe(exc))
            return None

    def _send(self, batch: Any) -> Any:
        token = os.environ.get(P2P_TOKEN) or None
        return _p2p.Reply(_http.send(batch.url, batch.requests, token, 5.0, 20.0), time.time())

    # The nodes

    async def _diagnose(self, config: str) -> Sight:
        at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        with tempfile.TemporaryDirectory(prefix="ringrift-stall-") as folder:
            try:
                said = await self._run(config, pathlib.Path(folder))
                return Sight.of(said, config, self.settings.recover_causes)
            except (RecoveryError, OSError) as exc:
                return Sight.none(str(exc), at)

    async def _run(self, config: str, folder: pathlib.Path) -> Any:
        """The verdict of ``diagnose.yml``. No secret is in its arguments; the inventory has them."""
        command = [self.program, *(["-i", self.inventory] if self.inventory else []), str(self.diagnosis)]
        command += ["-e", json.dumps({"config": config, "ringrift_report_dir": str(folder)})]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_RETRY_FILES_ENABLED": "0"}
        for secret in (LISTENER_TOKEN, P2P_TOKEN):
            environment.pop(secret, None)
        log = folder / "output"
        with open(log, "wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
                env=environment, start_new_session=True,
            )  # fmt: skip
        try:
            code = await asyncio.wait_for(process.wait(), self.diagnose_timeout)
        except asyncio.TimeoutError as exc:
            raise RecoveryError(f"diagnose.yml was not done within {self.diagnose_timeout:g} s.") from exc
        finally:
            await _end(process)
        paths = sorted(folder.glob(f"*-{config}-diagnosis.json"))
        if not paths:
            raise RecoveryError(f"diagnose.yml gave no verdict (code {code}): {_last_line(log)}")
        if paths[-1].stat().st_size > VERDICT_LIMIT:
            raise RecoveryError(f"The verdict of diagnose.yml is longer than {VERDICT_LIMIT} bytes.")
        try:
            return json.loads(paths[-1].read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as exc:
            raise RecoveryError(f"The verdict of diagnose.yml is no JSON: {exc}") from exc

    # Alerts

    async def _listen(self) -> Any:
        # It comes with ansible-rulebook, and is needed for this alone.
        from aiohttp import web

        reading = asyncio.Semaphore(MESSAGES_AT_ONCE)

        async def alerts(request: Any) -> Any:
            if not hmac.compare_digest(
                request.headers.get("Authorization", "").encode("utf-8", "surrogateescape"),
                f"Bearer {self.token}".encode(),
            ):
                return web.json_response({"error": "unauthorized"}, status=401)
            if reading.locked():
                return web.json_response({"error": "too many messages at once"}, status=503)
            async with reading:
                try:
                    body = await asyncio.wait_for(request.read(), READ_TIMEOUT)
                except asyncio.TimeoutError:
                    return web.json_response({"error": f"no whole message within {READ_TIMEOUT:g} s"}, status=408)
            try:
                found = alerted(_http.decode(body), tuple(self.watches))
            except RecoveryError as exc:
                return web.json_response({"error": safe(exc)}, status=400)
            for config in found:
                self.watches[config].alert()
                # A flood of alerts asks for one diagnosis, and for no question to the orchestrator besides.
                if self.watches[config].due(time.monotonic()):
                    self.wake.set()
            return web.json_response({"configs": found}, status=202)

        app = web.Application(client_max_size=MESSAGE_LIMIT)
        app.router.add_post("/alerts", alerts)
        context = None
        if self.certificate[0]:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self.certificate)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port, ssl_context=context).start()
        logger.info("Alerts are taken at %s:%s.", self.host, self.port)
        return runner


# Those that Settings does not have.
DEFAULTS = (
    ("configs", ()),
    ("inventory", ""),
    ("url", ""),
    ("profile", "auto"),
    ("diagnose_timeout", 300),
    ("listen_port", 0),
    ("listen_host", "127.0.0.1"),
    ("certfile", ""),
    ("keyfile", ""),
)
P2P_PARAMS = {name: spec.get("default") for name, spec in _p2p.ARGUMENT_SPEC.items()}


async def _end(process: Any) -> None:
    """End it with all that it started; what is left of the group is killed even where it has ended by itself."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if process.returncode is None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), seconds)


def _last_line(log: pathlib.Path) -> str:
    with open(log, "rb") as source:
        source.seek(max(0, log.stat().st_size - 4000))
        lines: List[str] = [
            line.strip() for line in source.read().decode("utf-8", "replace").splitlines() if line.strip()
        ]
    told = [line for line in lines if line.startswith(("ERROR", "[ERROR]", "fatal")) or "msg" in line]
    return (told or lines or ["it said nothing"])[-1]


async def main(queue: Any, args: Dict[str, Any]) -> None:
    """Watch until ansible-rulebook ends it."""
    await Source(queue, args).run()

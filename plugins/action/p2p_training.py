# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer
from ansible_collections.ringrift.recovery.plugins.module_utils._p2p import ARGUMENT_SPEC, Batch, Options, Reply, run

REQUEST_MODULE = "ringrift.recovery.p2p_request"
DEADLINE = 60.0


class ActionModule(ActionBase):
    """Sends requests from the node, where the orchestrator's port is reachable, and thinks on the controller."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(ARGUMENT_SPEC)
        collected: dict[str, Any] = {}

        def send(batch: Batch) -> Reply:
            return self._send(batch, params, task_vars, collected)

        try:
            options = Options.from_params(params, self._task.check_mode)
            outcome = run(options, send)
        except RecoveryError as exc:
            outcome = {"changed": False, "failed": True, "msg": str(exc)}
        if not self._task.diff:
            outcome.pop("diff", None)
        # The module that knows the token hides it in its own answers only.
        result.update(remove_values(outcome, [params["token"]] if params["token"] else []))
        result.update(collected)
        return result

    def _send(self, batch: Batch, params: dict[str, Any], task_vars: Any, collected: dict[str, Any]) -> Reply:
        reply = self._execute_module(
            module_name=REQUEST_MODULE,
            module_args={
                "url": batch.url,
                "requests": [
                    {"name": request.name, "method": request.method, "path": request.path, "body": request.body}
                    for request in batch.requests
                ],
                "token": params["token"],
                "token_headers": list(batch.token_headers),
                "timeout": params["timeout"],
                "deadline": max(DEADLINE, params["timeout"]),
            },
            task_vars=task_vars,
        )
        for key in ("ansible_facts", "warnings", "deprecations"):
            if reply.get(key):
                collected[key] = reply[key]
        if "answers" not in reply:
            said = reply.get("msg") or reply.get("module_stderr") or "it returned nothing"
            raise RecoveryError(f"The module {REQUEST_MODULE} did not run on the node: {said}")
        return Reply(tuple(Answer(**answer) for answer in reply["answers"]), float(reply["time"]))

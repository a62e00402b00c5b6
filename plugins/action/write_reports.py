# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from typing import Any

from ansible.plugins.action import ActionBase

ARGUMENT_SPEC = {
    "folder": {"type": "str", "required": True},
    "files": {"type": "dict", "required": True},
    "mode": {"type": "str", "default": "0640"},
    "keep_days": {"type": "int", "default": 0},
}
FOLDER_MODE = 0o750
DAY = 86400
# How a name begins that has the time of the run in it, in UTC.
STAMPED = re.compile(r"\A(?P<time>[0-9]{8}T[0-9]{6}Z)(?P<kind>-.+)\Z")
STAMP_FORMAT = "%Y%m%dT%H%M%SZ"


class ActionModule(ActionBase):
    """Writes on the controller, in this process: a file needs no module that is sent and started for it."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(ARGUMENT_SPEC)
        folder = os.path.abspath(os.path.expanduser(params["folder"]))
        # Reports are what a run leaves, and no state that it changes.
        result.update(changed=False, paths=[], removed=[])
        try:
            mode = int(params["mode"], 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            result.update(
                failed=True, msg=f"mode is {params['mode']!r}. It is octal and in quotes, for example '0640'."
            )
            return result
        if params["keep_days"] < 0:
            result.update(
                failed=True, msg=f"keep_days is {params['keep_days']}. It is a number of days, or 0 for ever."
            )
            return result
        for name, content in params["files"].items():
            if os.path.basename(name) != name or name in ("", ".", ".."):
                result.update(failed=True, msg=f"{name!r} in files is no plain file name. Nothing was written.")
                return result
            if not isinstance(content, str):
                result.update(failed=True, msg=f"The content of {name} is no text. Nothing was written.")
                return result
        result["paths"] = [os.path.join(folder, name) for name in params["files"]]
        if params["keep_days"]:
            before = time.strftime(STAMP_FORMAT, time.gmtime(time.time() - params["keep_days"] * DAY))
            try:
                result["removed"] = _outdated(folder, list(params["files"]), before)
            except FileNotFoundError:
                pass
            except OSError as exc:
                self._display.warning(f"Outdated reports stay, as {folder} cannot be listed: {exc.strerror or exc}.")
        if self._task.check_mode:
            return result
        try:
            os.makedirs(folder, FOLDER_MODE, exist_ok=True)
            for path, content in zip(result["paths"], params["files"].values()):
                _write(path, content, mode)
        except OSError as exc:
            words = f"Could not write reports to {folder}: {exc.strerror or exc}. Choose another folder, or make room."
            result.update(failed=True, msg=words, removed=[])
            return result
        result["removed"] = [path for path in result["removed"] if self._remove(path)]
        return result

    def _remove(self, path: str) -> bool:
        try:
            os.unlink(path)
        except OSError as exc:
            self._display.warning(f"An outdated report stays, remove it by hand: {path}: {exc.strerror or exc}.")
            return False
        return True


def _outdated(folder: str, names: list[str], before: str) -> list[str]:
    """The files whose names are these but for a time that is before another one. Nothing else in the folder is ours."""
    kinds = {match["kind"] for match in map(STAMPED.match, names) if match}
    with os.scandir(folder) as entries:
        found = [(entry, match) for entry in entries if (match := STAMPED.match(entry.name))]
    return sorted(
        entry.path
        for entry, match in found
        if match["kind"] in kinds and match["time"] < before and entry.is_file(follow_symlinks=False)
    )


def _write(path: str, content: str, mode: int) -> None:
    """Write beside and rename, so that nobody reads half a file."""
    handle, staged = tempfile.mkstemp(prefix=".", suffix=".new", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        os.replace(staged, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)
        raise

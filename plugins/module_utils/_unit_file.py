# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words as a systemd unit file has them. This util is private to the collection."""

from __future__ import annotations

from typing import Sequence

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError


def quoted(words: Sequence[str], command: bool = True) -> str:
    """Put each word in quotes, so that systemd reads back just these words.

    :param command: as in C(ExecStart=), where C($) begins a variable; otherwise as in C(Environment=)
    :raises RecoveryError: a word cannot stand in a unit file, or the program is not named by its path
    """
    for word in words:
        if not isinstance(word, str) or not word.isprintable():
            raise RecoveryError(f"{word!r:.80} cannot stand in a unit file; it must be text on one line.")
    # Of the program systemd reads no variable, so that a doubled $ would stay.
    if command and (not words or not words[0].startswith("/") or "$" in words[0]):
        raise RecoveryError(f"{words[0] if words else ''!r:.80} is no program; give its absolute path, without a $.")
    return " ".join(_quoted(word, command) for word in words)


def _quoted(word: str, command: bool) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if command else escaped}"'

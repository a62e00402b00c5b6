# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The training config ``<board>_<players>p``, which an operator types. This util is private to the collection."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

PATTERN = r"\A([a-z][a-z0-9]*)_([2-4])p\Z"


@dataclass(frozen=True)
class TrainingConfig:
    """A board and its number of players, for example ``hex8_2p``."""

    board: str
    players: int

    @property
    def name(self) -> str:
        return f"{self.board}_{self.players}p"


def parse_config(text: str) -> TrainingConfig:
    """Read ``<board>_<players>p``.

    :raises RecoveryError: the text is anything else; it is refused before a node is touched
    """
    match = re.match(PATTERN, text) if isinstance(text, str) else None
    if match is None:
        raise RecoveryError(
            f"config is {text!r}, which is not <board>_<players>p with 2 to 4 players, such as hex8_2p or square8_3p."
        )
    return TrainingConfig(board=match.group(1), players=int(match.group(2)))

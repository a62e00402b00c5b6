# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "board", "players"), [("hex8_2p", "hex8", 2), ("square19_4p", "square19", 4), ("h_3p", "h", 3)]
)
def test_reads_board_and_players(text, board, players):
    config = parse_config(text)
    assert (config.board, config.players, config.name) == (board, players, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "hex8_1p",
        "hex8_5p",
        "hex8_2p\n",
        "hex8_2p; rm -rf x",
        "Hex8_2p",
        "8hex_2p",
        "../hex8_2p",
        "hex8_22p",
        None,
        2,
    ],
)
def test_refuses_anything_else_and_shows_it(text):
    with pytest.raises(RecoveryError, match="such as hex8_2p") as caught:
        parse_config(text)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=30))
def test_whatever_is_accepted_comes_back_unchanged(text):
    try:
        config = parse_config(text)
    except RecoveryError:
        return
    assert config.name == text

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last writer takes the write-ahead log away just when a reader has decided how to open the database."""

from __future__ import annotations

import sqlite3

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _games, _training_events, _training_triggers
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config

from lab import seed
from lab.faults._triggers import SCHEMA

HEX = parse_config("hex8_2p")
EVENTS = """CREATE TABLE events (event_id INTEGER PRIMARY KEY, event_type TEXT, payload TEXT, source TEXT,
hostname TEXT, created_at REAL)"""


def events(folder):
    writer = sqlite3.connect(folder / "events.db")
    writer.execute("PRAGMA journal_mode=wal")
    writer.execute(EVENTS)
    writer.commit()
    return writer, lambda: _training_events.read_events(HEX, path=str(folder / "events.db")).exists


def triggers(folder):
    path = folder / _training_triggers.DATABASE
    path.parent.mkdir(parents=True)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=wal")
    writer.execute(SCHEMA)
    writer.execute("INSERT INTO config_state (config_key) VALUES ('hex8_2p')")
    writer.commit()
    return writer, lambda: _training_triggers.read(HEX, str(folder)).exists


def games(folder):
    seed.make_games(folder / "games.db", "hex8_2p", games=3)
    writer = sqlite3.connect(folder / "games.db")
    writer.execute("PRAGMA journal_mode=wal")
    writer.execute("UPDATE games SET winner = winner")
    writer.commit()
    return writer, lambda: _games.count_in(str(folder / "games.db"), HEX).games == 3


@pytest.mark.parametrize(
    ("reader", "make"), [(_training_events, events), (_training_triggers, triggers), (_games, games)]
)
def test_it_is_read_once_more(tmp_path, monkeypatch, reader, make):
    writer, read = make(tmp_path)
    decide, decided = reader.how_to_open, []

    def decide_and_lose(path):
        decided.append(decide(path))
        writer.close()
        return decided[-1]

    monkeypatch.setattr(reader, "how_to_open", decide_and_lose)
    assert read()
    assert ["immutable" in options for options, _unseen in decided] == [False, True]

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of the NVIDIA driver: every shape in every code, lines that people have reported, and hostile ones."""

from __future__ import annotations

import dataclasses
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _xid_lines, _xids
from ansible_collections.ringrift.recovery.plugins.module_utils._xid_lines import (
    IdentityLine,
    LostLine,
    SxidLine,
    XidLine,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import xid_lines


def test_every_shape_in_every_code():
    assert len(xid_lines.SHAPES) == 9
    for name, template, expected in xid_lines.SHAPES:
        for code in [*_xids.XIDS, 999]:
            line = parse(template.format(code=code))
            assert isinstance(line, XidLine), (name, code)
            wanted = XidLine(code, "0000:3b:00", details="words" if "words" in template else "", **expected)
            assert line == wanted, (name, code)


def test_reported_lines():
    entries = xid_lines.corpus()
    assert sum(entry["source"].startswith("https://github.com/") for entry in entries) >= 50
    names = {field.name for field in dataclasses.fields(XidLine)} - {"details"}
    for entry in entries:
        line = parse(entry["text"])
        assert {name: getattr(line, name) for name in names} == {name: entry["expected"].get(name) for name in names}, (
            entry["text"]
        )


def test_no_other_tool_reads_more_than_ours():
    for name, counts in xid_lines.shape_rows():
        assert counts["ours"] == max(counts.values()), name


def test_a_place_that_cannot_be_read_does_not_take_away_the_code():
    assert parse("NVRM: Xid (PCI:...): 145, RLW_RXPIPE") == XidLine(145, None, details="RLW_RXPIPE")


@pytest.mark.parametrize(
    ("bus", "normal"),
    [
        ("00000000:3B:00", "0000:3b:00"),
        ("0002:00", "0000:02:00"),
        ("01:00", "0000:01:00"),
        ("00010000:01:00", "10000:01:00"),
    ],
)
def test_one_spelling_for_each_gpu(bus, normal):
    assert _xid_lines.normal_bus(bus) == normal


def test_companions():
    assert parse("NVRM: GPU at PCI:0000:00:06: GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f") == IdentityLine(
        "0000:00:06", "GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f"
    )
    assert parse("NVRM: GPU Board Serial Number: 1652326033898") is None


def test_lost():
    assert parse("NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.") == LostLine("0000:01:00")
    whole = (
        "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\n"
        "NVRM: fallen off the bus and is not responding to commands."
    )
    assert parse(whole) == LostLine("0000:b3:00")
    first, _second, third = whole.split("\n")
    assert parse(first) == LostLine("0000:b3:00", "begin")
    assert parse(third) == LostLine(None, "end")


def test_sxid():
    assert parse(
        "nvidia-nvswitch3: SXid (PCI:0000:04:00.0): 22013, Non-fatal, Link 44 Minion Link DLREQ interrupt"
    ) == (SxidLine(22013, 3, "0000:04:00", False, 44))
    assert parse("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up") == (
        SxidLine(20034, 1, "0000:06:00", True, 48)
    )
    registers = "nvidia-nvswitch2: SXid (PCI:0000:07:00.0): 20034, Severity 1 Engine instance 60 Sub-engine instance 00"
    assert parse(registers) == SxidLine(20034, 2, "0000:07:00", None, None)


@pytest.mark.parametrize(
    "text",
    [
        *xid_lines.DECOYS,
        "x NVRM: Xid (PCI:0000:3b:00): 79, words",
        "INFO: task NVRM: Xid (PCI::4711 blocked for more than 120 seconds.",
        "NVRM: Xid : 32, pid=2280636",
        "NVRM: Xid (PCI:0000:66:00): abc, pid=2280636",
        "NVRM: Xid (PCI:0000:66:00): 79x, words",
        "",
    ],
)
def test_what_is_no_xid(text):
    assert parse(text) is None


def test_a_name_cannot_pretend():
    line = parse("NVRM: Xid (PCI:0000:3b:00): 43, pid=1, name=Xid (PCI:00:00), Ch 00000008")
    assert (line.code, line.bus_id, line.process_name) == (43, "0000:3b:00", "Xid (PCI:00:00)")
    line = parse("NVRM: Xid (PCI:0000:3b:00): 43, pid=1, name=a\nNVRM: Xid (PCI:0000:3b:00): 79, b")
    assert (line.code, line.process_name) == (43, "a")
    line = parse("NVRM: Xid (PCI:0000:3b:00): 43, pid=1, name=a, Ch 1 caused by previous Xid 79")
    assert line.caused_by is None, "only a cleanup has a cause"


PIECES = st.sampled_from(
    [
        "NVRM: ",
        "Xid (",
        "PCI:",
        "0000:3b:00",
        " GPU-I:05",
        "): ",
        "13",
        "154",
        ", ",
        "pid=",
        "name=",
        "GPU ",
        "\n",
        "\0",
        "fallen off the bus",
        "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): ",
        "(GPC 1, TPC 4, SM 0)",
        "٣",
        "0" * 400,
    ]
)


@given(
    st.one_of(
        st.text(), st.lists(PIECES, max_size=40).map("".join), st.text().map("NVRM: Xid (PCI:0000:3b:00): ".__add__)
    )
)
def test_never_raises(text):
    line = parse(text)
    if isinstance(line, XidLine):
        assert 0 <= line.code < 10**6
        assert len(line.details) <= _xid_lines.MAX_LINE


def test_long_lines_take_no_time():
    begun = time.monotonic()
    for filler in ("a", " ", "0", "(", "NVRM: ", "GPC 1, ", "\n", ", pid=1", ":" * 3):
        for head in ("NVRM: Xid (PCI:0000:3b:00): 13, ", "NVRM: The NVIDIA GPU 0000:b3:00.0 ", "NVRM: Xid (", ""):
            parse(head + filler * 300_000)
    assert time.monotonic() - begun < 5


def test_the_table_is_sound():
    assert all(xid.action in _xids.ACTIONS and xid.meaning and xid.source for xid in _xids.XIDS.values())
    assert all(action in _xids.ACTIONS for action in _xids.RECOVERY_ACTIONS.values())
    assert all(set(rule.codes or ()) <= set(_xids.XIDS) for rule in _xids.REPEAT_RULES)
    assert len(_xids.XIDS) == len(_xids._ROWS), "a code stands twice"


def test_the_documentation_has_the_tables(root):
    text = (root / "docs/kernel_events.md").read_text().splitlines()
    assert set(xid_lines.xid_table()) <= set(text)
    assert set(xid_lines.shape_table()) <= set(text)

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import unicodedata

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _report_words as words
from ansible_collections.ringrift.recovery.plugins.module_utils._report_table import (
    columns_of,
    diagnosis_table,
    wrap,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import diagnosis_samples as samples

COMMANDS = ("next: ", f"{'':10}fix: ")
ANSI = re.compile(r"\x1b\[[0-9;]{1,5}m")


def harmful(lines):
    return [char for line in lines for char in line if unicodedata.category(char) in words.HARMFUL]


def test_headline_comes_first_and_the_next_command_last():
    lines = diagnosis_table(samples.small()[0])
    assert lines[0] == "hex8_2p: training is STALLED"
    assert lines[-1] == "next: ansible-playbook full_recovery.yml -e config=hex8_2p --check --diff"


def test_a_node_is_one_line():
    lines = diagnosis_table(samples.small()[0])
    start = next(number for number, line in enumerate(lines) if line.startswith("NODE"))
    assert [re.split(r"  +", line) for line in lines[start : start + 6]] == [
        ["NODE", "STATE", "EPOCH", "LOSS", "AGE", "GPU", "DISK FREE", "WORST"],
        ["coordinator *", "not running", "–", "–", "–", "no GPU", "212 GiB", "none"],
        [
            *("nebius-h100-3", "stalled (pid 4711 R)", "17/50", "0.4312", "48 min"),
            *("1x H100 100 % 131 W wedged", "812 GiB", "critical"),
        ],
        ["lambda-gh200-b", "not running", "3/50", "0.4312", "6 h", "1x GH200 0 % 88 W idle", "6.0 GiB", "warning"],
        ["runpod-h100", "unreachable", "–", "–", "–", "–", "–", "warning"],
        ["* coordinator"],
    ]


def test_columns_are_aligned():
    lines = diagnosis_table(samples.small()[0])
    start = next(number for number, line in enumerate(lines) if line.startswith("NODE"))
    for title in ("STATE", "GPU", "WORST"):
        column = lines[start].index(title)
        assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines[start : start + 5])


def test_findings_keep_their_order_and_have_facts_and_fix():
    lines = diagnosis_table(samples.small()[0])
    heads = [line for line in lines if re.match(r"(CRITICAL|WARNING|INFO) ", line)]
    assert [head.split()[1].rstrip(":") for head in heads] == [
        *("gpu_wedged", "process_hung", "gpu_oom", "disk_full", "node_unreachable", "cooldown_active"),
    ]
    assert heads[5] == "INFO      cooldown_active: the orchestrator's cooldown ends in 12 min (medium confidence)"
    at = lines.index(heads[2])
    assert lines[at + 1 : at + 4] == [
        "          - CUDA out of memory. Tried to allocate 2.50 GiB",
        "          - epoch 3 of 50, 6 h ago",
        "          fix: ansible-playbook fix.yml -e config=hex8_2p -e cause=gpu_oom",
    ]


def test_what_was_not_seen_is_told_and_a_silent_node_only_once():
    lines = diagnosis_table(samples.small()[0])
    assert [line for line in lines if line.startswith("NOT SEEN")] == [
        "NOT SEEN  kernel on lambda-gh200-b: the kernel log needs root; run with -b"
    ]


def test_of_many_nodes_only_those_with_something_to_say_are_shown():
    verdict, _evidence = samples.large()
    lines = diagnosis_table(verdict)
    named = {line.split()[0] for line in lines if re.match(r"node-\d+ ", line)}
    assert named == {row["name"] for row in verdict["nodes"] if row["findings"] or row["trainer"]}
    assert f"… and {100 - len(named)} nodes without findings" in lines


def test_a_node_that_was_not_seen_is_never_one_without_findings():
    verdict, _evidence = samples.large()
    verdict["nodes"][1].update(state="unknown", worst=None, findings=0)
    line = next(line for line in diagnosis_table(verdict) if line.startswith("node-001"))
    assert line.split()[1] == "unknown"
    assert line.endswith("unknown")


def test_a_node_with_gaps_is_not_called_clean():
    verdict, _evidence = samples.small()
    verdict["unknown"].append({"host": "coordinator", "probe": "gpu", "reason": "it overran"})
    line = next(line for line in diagnosis_table(verdict) if line.startswith("coordinator"))
    assert line.endswith("gaps")


def test_the_same_finding_on_many_hosts_is_told_once():
    lines = diagnosis_table(samples.large()[0])
    assert [line for line in lines if "disk_full on" in line] == [
        "WARNING   disk_full on node-001, node-009 and 11 more: less space is free than 10 GiB"
    ]
    # Their facts differ, so it is said whose they are.
    assert lines[lines.index("          as on node-001:") + 1] == "          - /data: 1.2 GiB of 3.8 TiB free"
    assert "WARNING   node_unreachable on node-033, node-066 and node-099: it does not answer" in lines


@pytest.mark.parametrize(
    "change", [{"cause": "disk_slow"}, {"severity": "info"}, {"summary": "less space is free than 9 GiB"}]
)
def test_findings_that_differ_are_not_folded(change):
    findings = [samples.finding("disk_full", "warning", host, "less", ["fact"]) for host in ("a", "b")]
    assert len(words.fold(findings)) == 1
    assert len(words.fold([findings[0], {**findings[1], **change}])) == 2


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("sample", [samples.small, samples.large, samples.healthy])
def test_lines_fit_and_commands_are_whole(width, sample):
    lines = diagnosis_table(sample()[0], width)
    assert all(columns_of(line) <= width for line in lines if not line.startswith(COMMANDS))
    assert all("ansible-playbook " in line for line in lines if line.startswith(COMMANDS))


def test_colours_only_when_they_are_asked_for():
    plain, coloured = (diagnosis_table(samples.small()[0], colour=colour) for colour in (False, True))
    assert "\x1b" not in "".join(plain)
    assert [ANSI.sub("", line).rstrip() for line in coloured] == plain
    assert coloured[0].startswith("\x1b[1;31m")


def test_nothing_to_do_has_no_command():
    lines = diagnosis_table(samples.healthy()[0])
    assert lines[0] == "hex8_2p: training is not stalled"
    assert not any(line.startswith("next:") for line in lines)


def test_a_log_line_cannot_reach_the_terminal():
    text = "\n".join(diagnosis_table(samples.small()[0], width=200))
    assert "\\x1b[31;1mred\\x1b[2J\\x0d\\u202egnp.exe" in text
    assert "\x1b" not in text


@settings(max_examples=150, deadline=None)
@given(samples.scrambled(), st.integers(1, 200))
def test_no_text_breaks_the_table(scrambled, width):
    lines = diagnosis_table(scrambled[0], width)
    assert harmful(lines) == []
    assert all(columns_of(line) <= max(40, width) for line in lines if not line.startswith(COMMANDS))
    coloured = [ANSI.sub("", line) for line in diagnosis_table(scrambled[0], width, colour=True)]
    assert harmful(coloured) == []


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=200), st.integers(4, 60))
def test_wrapping_loses_nothing_but_blanks(text, width):
    shown = words.visible(text)
    lines = wrap(shown, width, "- ", "  ")
    assert "".join(line[2:] for line in lines).replace(" ", "") == shown.replace(" ", "")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("a\r\nb", "a ⏎ b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("日本", "日本"),
        (None, ""),
        ("x" * 2001, "x" * 2000 + " … (1 characters more)"),
    ],
)
def test_text_is_made_visible(value, shown):
    assert words.visible(value) == shown


@pytest.mark.parametrize(
    ("gpus", "verdict", "shown"),
    [
        ([], None, "–"),
        ([], "none", "no GPU"),
        ([], "lost", "lost"),
        ([samples.gpu()], "busy", "1x H100 97 % 402 W busy"),
        ([samples.gpu(), samples.idle_gpu(1)], "busy", "2x H100 0–97 % 473 W busy"),
        ([samples.gpu(utilization=None, power=None)], "unknown", "1x H100 ? % ? W unknown"),
        ([samples.gpu(), samples.gpu(1, "NVIDIA GH200 480GB")], "busy", "1x H100 + 1x GH200 97 % 804 W busy"),
    ],
)
def test_gpus_in_words(gpus, verdict, shown):
    assert words.gpu_words({"gpu": gpus, "gpu_verdict": verdict}) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (-1, "–"), (float("nan"), "–"), (0, "0 B"), (6 << 30, "6.0 GiB"), (10**400, "–")]
)
def test_sizes_in_words(value, shown):
    assert words.size(value) == shown


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2026-11-28T05:40:00Z", samples.NOW),
        ("2026-11-28T06:40:00+01:00", samples.NOW),
        (samples.NOW, samples.NOW),
        *((bad, None) for bad in ("soon", "", None, True, -5, 1e300, "9" * 50, "0001-01-01T00:00:00+23:59")),
    ],
)
def test_times_are_read(value, seconds):
    assert words.moment(value) == seconds

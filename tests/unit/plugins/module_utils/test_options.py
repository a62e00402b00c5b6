# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever an option is given, it is taken, or refused in one short sentence that names it."""

from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.filter import options as filters
from ansible_collections.ringrift.recovery.plugins.module_utils._options import CHOICES, NAMES, RANGES, refused_options
from hypothesis import given
from hypothesis import strategies as st

ROOT = pathlib.Path(__file__).resolve().parents[4]
HOSTILE = {
    "injection": "hex8_2p; rm -rf /",
    "substitution": "$(id)",
    "template": "{{ lookup('pipe', 'id') }}",
    "statement": "{% for i in range(9) %}x{% endfor %}",
    "newline": "true\nfalse",
    "newline at the end": "true\n",
    "escape": "\x1b]0;title\x07",
    "nul": "p2p\x00",
    "long": "x" * 100000,
    "unicode": "wörld-ⅷ",
    "digits of elsewhere": "٣",
    "option": "--extra-vars",
    "path": "../../etc/passwd",
    "list": ["true"],
    "dictionary": {"true": 1},
    "fraction": 1.5,
}
TAKEN = [
    ("force", "true"), ("force", "False"), ("force", True), ("force", "yes"), ("automatic", "1"),
    ("restart_via", "p2p"), ("refresh", "always"), ("fail_on", "never"), ("on_other_run", "wait"),
    ("epochs", "50"), ("epochs", 100000), ("recovery_max_attempts", "4"), ("confirm", "0"), ("confirm", 2),
    ("batch_size", "auto"), ("batch_size", "256"), ("batch_size", 256), ("cause", "lock_held"),
    ("run", "20260101T000000Z-0000"), ("run", "~/my reports/x.json"),
    ("prevent_keep", "3"), ("prevent_disk_free", "10 GB"), ("prevent_disk_free", "1.5T"), ("prevent_disk_free", 5000),
    ("prevent_timer_calendar", "*:0/15"), ("prevent_timer_calendar", "Mon..Fri *-*-* 08:00 Europe/Berlin"),
    ("prevent_timer_state", "absent"), ("prevent_timer_scope", "system"),
    ("expect_holder", "vm:1993:0ef85993"), ("train_on", "nebius-h100-3"),
]  # fmt: skip


# A report may be anywhere, and a folder have any name.
PATHS = ("unicode", "digits of elsewhere", "path")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{kind}")
        for name in NAMES
        for kind, value in HOSTILE.items()
        if not (name == "run" and kind in PATHS)
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_short_line(name, value):
    (said,) = refused_options({name: value})
    assert said.startswith(f"{name} is ")
    assert ", and must be " in said
    assert len(said) < 220
    assert said.isascii()
    assert said.isprintable()


@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_what_is_meant_is_taken(name, value):
    assert refused_options({name: value}) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_one_was_not_given(name):
    assert refused_options({name: ""}) == refused_options({name: None}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (least, most) in RANGES.items() for value in (least - 1, most + 1, -1)]
    + [("restart_via", "P2P"), ("force", "maybe"), ("batch_size", "0"), ("batch_size", "-1"), ("fail_on", True)],
)
def test_beyond_the_range_is_refused(name, value):
    assert len(refused_options({name: value})) == 1


def test_all_that_is_wrong_is_said_at_once():
    assert [said.split()[0] for said in refused_options(dict.fromkeys(NAMES, "; id"))] == list(NAMES)


def test_an_unknown_name_is_passed_over():
    assert refused_options({"ringrift_epochs": "; id"}) == []


@given(
    st.sampled_from(NAMES),
    st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.text()), st.floats()),
)
def test_whatever_it_is(name, value):
    said = refused_options({name: value})
    assert len(said) <= 1
    if not said and name in CHOICES and value not in ("", None):
        assert str(value).lower() in CHOICES[name]


def test_the_role_asks_about_each():
    assert tuple(yaml.safe_load((ROOT / "roles/preflight/vars/main.yml").read_text())["__preflight_names"]) == NAMES


def test_the_filter_needs_a_dictionary():
    with pytest.raises(AnsibleFilterError, match="needs a dictionary of options by name"):
        filters.refused_options(["force"])

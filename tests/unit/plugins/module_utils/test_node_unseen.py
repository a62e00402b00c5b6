# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._node_unseen import unseen
from hypothesis import given
from hypothesis import strategies as st

HIDDEN = "/proc is mounted with hidepid=2, which hides the processes of other users"
BLIND = "uid 1000 may not see the open files of 3 processes, so somebody may hold it"


def see(results=None, errors=None, root=False, hidden=None):
    return unseen(results or {}, errors or {}, "ubuntu", root, hidden)


def test_nothing_is_nothing():
    assert see() == []
    assert see({"progress": {}, "gpu": {"gpus": []}, "kernel": {"source": "journald"}, "locks": []}) == []


def test_hidden_processes_concern_what_looks_at_processes():
    found = see({"progress": {}, "locks": [], "disk": {}}, hidden=HIDDEN)
    assert [(entry["probe"], entry["what"], entry["hint"]) for entry in found] == [
        ("progress", HIDDEN, "run with become"),
        ("locks", HIDDEN, "run with become"),
    ]


@pytest.mark.parametrize(
    ("results", "probe", "words", "hint"),
    [
        (
            {"processes": {"processes": [{"pid": 7, "open_file_count": None, "cpu_percent": 3.0}]}},
            "processes",
            "the open files of process 7 are not visible to ubuntu",
            "run with become",
        ),
        (
            {"progress": {"trainers": [{"pid": 7, "user": "root"}]}},
            "progress",
            "trainer 7 runs as root",
            "run with become, or set coordination_dir",
        ),
        (
            {"progress": {"problems": [{"message": "Could not read /x: Permission denied. Run it."}]}},
            "progress",
            "Could not read /x: Permission denied. Run it",
            "run with become",
        ),
        (
            {"progress": {"problems": [{"code": "processes_in_doubt", "message": "It is not certain."}]}},
            "progress",
            "It is not certain",
            "run with become",
        ),
        (
            {"processes": {"processes": [], "doubts": "pid 7 (python): its working directory cannot be seen"}},
            "processes",
            "it is not certain that these are all: pid 7",
            "run with become",
        ),
        ({"locks": [{"verdict": "unknown", "reason": BLIND}]}, "locks", BLIND, "run with become"),
        (
            {"checkpoints": [{"problems": [{"code": "unreadable", "message": "it is not yours; run with become"}]}]},
            "checkpoints",
            "it is not yours",
            "run with become",
        ),
        (
            {"kernel": {"source": None, "msg": "The kernel log could not be read."}},
            "kernel",
            "The kernel log could not be read",
            "run with become, or add the user to the group systemd-journal or adm",
        ),
        (
            {"gpu": {"gpus": [{"index": 0, "reason": "idle; only root can see whether somebody holds the device"}]}},
            "gpu",
            "GPU 0: idle; only root can see",
            "run with become",
        ),
    ],
)
def test_of_an_ordinary_user(results, probe, words, hint):
    (found,) = see(results)
    assert (found["probe"], found["hint"]) == (probe, hint)
    assert found["what"].startswith(words)
    if probe == "kernel":
        (found,) = see(results, root=True)
        assert found["hint"] == "run on the machine itself, outside of the container"
    elif probe != "gpu":
        assert see(results, root=True) == []


def test_not_seen_is_not_the_same_as_gone():
    assert see({"processes": {"processes": [{"pid": 7, "open_file_count": None, "cpu_percent": None}]}}) == []
    assert see({"progress": {"trainers": [{"pid": 7, "user": "ubuntu"}, {"pid": 8, "user": None}]}}) == []


def test_an_error_for_want_of_rights():
    errors = {"log": "Could not read /x: Permission denied. Run it with become.", "gpu": "no answer within 20 s"}
    assert [entry["probe"] for entry in see(errors=errors)] == ["log"]
    assert see(errors=errors, root=True) == []


@pytest.mark.parametrize("root", [True, False])
def test_gpus_in_a_container_and_without_a_list(root):
    reason = "idle and no process listed; processes of another PID namespace cannot be seen from here"
    gpus = [
        {"index": 0, "reason": reason, "processes": [], "verdict": "unknown"},
        {"index": 1, "reason": "it is idle", "processes": None, "verdict": "idle"},
        {"index": 2, "reason": "no handle", "processes": None, "verdict": "lost"},
    ]
    found = see({"gpu": {"gpus": gpus}}, root=root)
    assert [entry["hint"] for entry in found] == [
        "run on the machine itself, outside of the container",
        "run with become",
    ]


def test_the_same_is_told_once():
    lock = {"verdict": "unknown", "reason": BLIND}
    assert len(see({"locks": [lock, lock]})) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
PROBES = st.sampled_from(["progress", "processes", "locks", "kernel", "gpu", "checkpoints"])
KEYS = st.sampled_from(["gpus", "processes", "trainers", "problems", "message", "reason", "source", "verdict"])


@given(st.dictionaries(PROBES, VALUES | st.dictionaries(KEYS, VALUES | st.lists(st.dictionaries(KEYS, VALUES)))))
def test_it_takes_anything(results):
    for entry in see(results, hidden=HIDDEN):
        assert set(entry) == {"probe", "what", "hint"}

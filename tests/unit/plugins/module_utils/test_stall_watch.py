# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._stall_watch import (
    FACTS_LIMIT,
    TEXT_LIMIT,
    Settings,
    Sight,
    Watch,
    alerted,
    check_causes,
    check_configs,
    safe,
    signature,
    unlisted_causes,
)
from hypothesis import given
from hypothesis import strategies as st

CONFIG = "hex8_2p"
SETTINGS = Settings(
    diagnose_every=600, confirm_after=60, looks=2, stall_after=60, unseen_after=1800, backoff=900, backoff_most=3600
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def verdict(stalled=True, *causes, **more):
    findings = [
        {"cause": cause, "severity": "critical", "host": "h100", "summary": f"{cause} was seen"} for cause in causes
    ]
    return {
        "schema": 1, "config": CONFIG, "at": "2026-11-28T10:40:27Z", "stalled": stalled, "running": stalled is False,
        "headline": "a headline", "findings": findings, "unknown": [],
        "nodes": [{"age": 1900.0}, {"age": 70.0}], **more,
    }  # fmt: skip


def sight(stalled=True, *causes, listed=()):
    return Sight.of(verdict(stalled, *causes), CONFIG, listed)


def seen(watch, now, what):
    watch.begin()
    return watch.saw(now, what)


def view(*jobs, reachable=True, complete=True):
    active = [{"kind": "p2p", "id": job, "status": "running", "node": "h100"} for job in jobs]
    return {"reachable": reachable, "complete": complete, "active": active}


def test_one_look_is_no_event_and_two_that_agree_are():
    watch = Watch(CONFIG, SETTINGS)
    assert seen(watch, 0, sight(True, "lock_held")) is None
    assert seen(watch, 59, sight(True, "lock_held")) is None
    event = seen(watch, 61, sight(True, "lock_held"))
    assert (event["kind"], event["config"], event["cause"], event["age"]) == ("stall", CONFIG, "lock_held", 70.0)
    assert (event["number"], event["looks"], event["recover"], event["unlisted"]) == (1, 3, False, ["lock_held"])
    assert event["evidence"] == ["lock_held on h100: lock_held was seen"]
    assert event["id"] == f"{CONFIG}-stall-20261128T104027Z-1"


def test_the_pause_doubles_up_to_its_bound_and_progress_resets_it():
    watch = Watch(CONFIG, SETTINGS)
    spoken = [now for now in range(0, 20000, 100) if seen(watch, now, sight())]
    assert spoken == [100, 1000, 2800, 6400, 10000, 13600, 17200]
    assert seen(watch, 20000, sight(False)) is None
    spoken = [now for now in range(20100, 21000, 100) if seen(watch, now, sight())]
    assert spoken == [20200]


def test_what_moved_in_between_did_not_stall():
    watch = Watch(CONFIG, SETTINGS)
    for now in range(0, 10000, 100):
        assert seen(watch, now, sight(now % 200 == 0)) is None


def test_unknown_is_no_stall_and_after_a_while_an_event_of_its_own():
    watch = Watch(CONFIG, SETTINGS)
    events = [
        (now, event)
        for now in range(0, 8000, 100)
        for event in [seen(watch, now, Sight.none("no login", "T"))]
        if event
    ]
    assert [(now, event["kind"], event["recover"]) for now, event in events] == [
        (1800, "unseen", False),
        (2700, "unseen", False),
        (4500, "unseen", False),
    ]
    assert events[0][1]["evidence"] == ["no login"]


def test_unseen_in_between_neither_confirms_a_stall_nor_keeps_silent_for_ever():
    watch = Watch(CONFIG, SETTINGS)
    events = [seen(watch, now, sight(True if now % 200 else None)) for now in range(0, 1900, 100)]
    assert [event["kind"] for event in events if event] == ["unseen"]


def test_a_stall_is_told_although_it_was_unseen_just_before():
    watch = Watch(CONFIG, SETTINGS)
    for now in range(0, 1900, 100):
        seen(watch, now, sight(None))
    assert seen(watch, 1900, sight()) is None
    assert seen(watch, 2000, sight())["kind"] == "stall"


def test_after_an_alert_one_look_that_agrees_is_enough_and_one_that_does_not_ends_it():
    watch = Watch(CONFIG, SETTINGS)
    assert seen(watch, 0, sight(False)) is None
    watch.alert()
    assert not watch.due(59)
    assert watch.due(60)
    assert seen(watch, 60, sight(False)) is None
    assert seen(watch, 120, sight()) is None
    watch.alert()
    event = seen(watch, 130, sight())
    assert (event["kind"], event["alert"], event["looks"]) == ("stall", True, 2)


def test_an_alert_in_the_middle_of_a_diagnosis_is_for_the_next_one_and_outlives_one_that_failed():
    watch = Watch(CONFIG, SETTINGS)
    watch.begin()
    watch.alert()
    assert watch.saw(10, sight()) is None
    assert watch.due(70)
    assert seen(watch, 70, sight(None)) is None
    assert seen(watch, 80, sight())["alert"] is True


def test_a_thousand_alerts_are_one_event():
    watch = Watch(CONFIG, SETTINGS)
    events = []
    for now in range(1000):
        watch.alert()
        if watch.due(now):
            events.append(seen(watch, now, sight()))
    assert len([event for event in events if event]) == 2
    assert len(events) == 17


def test_what_the_orchestrator_shows_is_a_reason_to_look_only_when_it_changes():
    watch = Watch(CONFIG, SETTINGS)
    watch.show(view("job-1"))
    assert watch.due(0)
    seen(watch, 0, sight(False))
    watch.show(view("job-1"))
    assert not watch.due(599)
    assert watch.due(600)
    for changed in (view(), view("job-2"), view(reachable=False), view("job-2", complete=False)):
        before = signature(changed)
        watch.show(changed)
        assert watch.due(60) is True, before
        seen(watch, 0, sight(False))
        watch.show(changed)
        assert watch.due(60) is False, before


def test_a_stall_is_confirmed_soon_and_what_cannot_be_seen_is_not_looked_at_without_pause():
    watch = Watch(CONFIG, SETTINGS)
    seen(watch, 0, sight(True))
    assert watch.due(60)
    seen(watch, 60, sight(True))
    assert not watch.due(659)
    seen(watch, 660, sight(None))
    assert not watch.due(720)


@pytest.mark.parametrize(
    ("causes", "listed", "unlisted"),
    [
        (["lock_held", "not_running"], ["lock_held"], ()),
        (["not_running"], ["not_running"], ()),
        (["not_running"], ["lock_held"], ("not_running",)),
        (["gpu_sick", "process_hung"], ["process_hung"], ("gpu_sick",)),
        (["gpu_sick", "not_running"], ["not_running"], ("gpu_sick",)),
        ([], ["not_running"], ("no_cause",)),
    ],
)
def test_every_cause_must_be_listed(causes, listed, unlisted):
    assert unlisted_causes(verdict(True, *causes), listed) == unlisted
    watch = Watch(CONFIG, SETTINGS)
    seen(watch, 0, sight(True, *causes, listed=listed))
    assert seen(watch, 60, sight(True, *causes, listed=listed))["recover"] is (unlisted == ())


def test_nobody_listed_anything_so_nothing_is_recovered():
    assert Settings.of({}).recover_causes == ()
    assert unlisted_causes(verdict(True, "lock_held"), ()) == ("lock_held",)


@pytest.mark.parametrize(
    "listed", [["Lock"], ["lock_held; rm"], [1], {"a": 1}, 7, ["{{ x }}"], [None]], ids=lambda value: str(value)
)
def test_what_is_no_list_of_causes_is_refused(listed):
    with pytest.raises(RecoveryError, match="recover_causes has"):
        check_causes(listed)


@pytest.mark.parametrize("configs", [[], None, ["hex8_2p; reboot"], ["{{ x }}_2p"], [["hex8_2p"]], 3, ["hex8_2p\n"]])
def test_what_is_no_list_of_configs_is_refused(configs):
    with pytest.raises(RecoveryError):
        check_configs(configs)


def test_lists_may_come_as_text():
    assert check_configs("hex8_2p, square8_3p") == ("hex8_2p", "square8_3p")
    assert check_causes("lock_held,not_running") == ("lock_held", "not_running")


@pytest.mark.parametrize(
    ("name", "value"),
    [("looks", 0), ("interval", "soon"), ("backoff", float("nan")), ("stall_after", -1), ("confirm_after", True)],
)
def test_a_setting_that_cannot_be_used_is_refused(name, value):
    with pytest.raises(RecoveryError, match=name):
        Settings.of({name: value})


def test_backoff_has_its_bound():
    with pytest.raises(RecoveryError, match="backoff_most"):
        Settings.of({"backoff": 100, "backoff_most": "99"})


def message(*configs, status="firing"):
    return {"version": "4", "alerts": [{"status": status, "labels": {"config": config}} for config in configs]}


def test_an_alert_names_its_config():
    watched = ("hex8_2p", "square8_2p")
    assert alerted(message("square8_2p", "square8_2p"), watched) == ("square8_2p",)
    assert alerted(message("square8_2p", status="resolved"), watched) == ()


@pytest.mark.parametrize(
    "payload",
    [
        message("hex8_2p", "hex8_2p; rm -rf /"),
        message("{{ lookup('pipe', 'id') }}"),
        message("square8_2p"),
        message(["hex8_2p"]),
        message(None),
        message(*["hex8_2p"] * 101),
        {"alerts": "hex8_2p"},
        {"alerts": [{"status": "firing"}]},
        [],
        "text",
        None,
    ],
    ids=lambda payload: str(payload)[:40],
)
def test_one_alert_that_cannot_be_meant_refuses_the_message(payload):
    with pytest.raises(RecoveryError):
        alerted(payload, ("hex8_2p",))


@given(ANYTHING)
def test_any_message_names_watched_configs_or_is_refused(payload):
    for candidate in (payload, {"alerts": [payload]}, {"alerts": [{"status": "firing", "labels": payload}]}):
        try:
            found = alerted(candidate, (CONFIG,))
        except RecoveryError:
            continue
        assert set(found) <= {CONFIG}


@given(st.text(max_size=400) | st.sampled_from(["{{ x }}", "{{{ x", "{% if", "{# no", "{{%", "a\x1b[2J\u202e{{"]))
def test_no_text_is_a_template_or_long_or_a_control(said):
    shown = safe(said)
    assert len(shown) <= TEXT_LIMIT
    assert not any(mark in shown for mark in ("{{", "{%", "{#"))
    assert shown.isprintable() or not shown.isascii()


@given(ANYTHING, ANYTHING)
def test_any_finding_makes_a_bounded_event_or_is_refused(first, second):
    broken = {**verdict(True), "findings": [first, {"severity": "critical", "cause": first, "summary": second}] * 4}
    broken.update(nodes=[second], unknown=[first], headline=second, at=first)
    found = Sight.of(broken, CONFIG)
    watch = Watch(CONFIG, SETTINGS)
    watch.alert()
    event = seen(watch, 0, found)
    assert len(event["evidence"]) <= FACTS_LIMIT
    assert len(json.dumps(event, allow_nan=False)) < 12000


@given(ANYTHING)
def test_what_is_no_verdict_is_refused(said):
    with pytest.raises(RecoveryError):
        Sight.of(said, CONFIG)


def test_the_verdict_of_another_config_is_refused():
    with pytest.raises(RecoveryError, match="hex8_2p was asked for"):
        Sight.of(verdict(config="square8_2p"), CONFIG)


@given(st.lists(st.tuples(st.integers(1, 900), st.sampled_from([True, False, None])), min_size=1, max_size=60))
def test_whatever_is_seen(looks):
    """No event of what moved; pauses that grow; trouble that lasts is told; unknown alone is never a stall."""
    watch, now, trouble, last = Watch(CONFIG, SETTINGS), 0.0, None, {}
    for gap, stalled in looks:
        now += gap
        event = seen(watch, now, sight(stalled))
        if stalled is False:
            trouble, last = None, {}
        elif trouble is None:
            trouble = now
        if event is None:
            told = max((at for at, _number in last.values()), default=trouble)
            assert trouble is None or now - (told or now) < SETTINGS.unseen_after + SETTINGS.backoff_most
            continue
        assert stalled is not False
        assert event["kind"] == ("stall" if stalled else "unseen")
        if event["kind"] in last:
            at, number = last[event["kind"]]
            assert event["number"] == number + 1
            assert now - at >= min(SETTINGS.backoff * 2 ** (number - 1), SETTINGS.backoff_most)
        last[event["kind"]] = (now, event["number"])

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: who may begin, who has died, what counts, and what a killed writer or a full disk leaves of it."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _journal, _journal_file
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._journal import Limits, Moment
from hypothesis import example, given, settings
from hypothesis import strategies as st

WHO = {"user": "operator", "host": "laptop"}
ROOT = pathlib.Path(__file__).resolve().parents[4]


@pytest.fixture
def path(tmp_path):
    return _journal.place(str(tmp_path / "recovery"), "hex8_2p")


def begin(path, run, limits=None, **options):
    return _journal.begin(path, "hex8_2p", run, WHO, limits or Limits(), **options)


def end(path, run, outcome="failed in monitor", progressed=False):
    return _journal.note(path, run, "ended", 60, outcome=outcome, progressed=progressed)


def step(path, run, name):
    return _journal.note(path, run, "step", 60, step=name)


def query(path, limits=None, now=None, gone=()):
    now = now or _journal.this_moment()
    return _journal.decide(_journal.look(path, now, gone), "hex8_2p", limits or Limits(), now)


def test_nothing_was_tried_yet(path):
    assert query(path).as_dict() == {
        "allowed": True, "refused": None, "reason": "", "running": None, "broken_off": None, "attempts": [],
        "in_vain": 0, "history": [], "damaged_lines": 0, "path": path,
    }  # fmt: skip
    assert not os.path.exists(os.path.dirname(path))


def test_a_run_begins_says_where_it_is_and_ends(path):
    assert begin(path, "one").allowed
    step(path, "one", "stop_training")
    running = query(path).journal.running
    assert (running.run, running.step, running.who["user"], running.state) == (
        "one",
        "stop_training",
        "operator",
        "running",
    )
    end(path, "one", "recovered, progress is proven", True)
    found = query(path)
    assert (found.allowed, found.journal.running) == (True, None)
    (attempt,) = found.as_dict()["attempts"]
    assert (attempt["state"], attempt["progressed"], attempt["outcome"]) == (
        "ended",
        True,
        "recovered, progress is proven",
    )
    assert "operator@laptop: recovered, progress is proven (at stop_training)" in found.as_dict()["history"][0]


def test_a_second_run_is_refused_and_told_who_and_how_to_go_on(path):
    begin(path, "one")
    step(path, "one", "prepare_data")
    before = pathlib.Path(path).read_bytes()
    found = begin(path, "two")
    assert (found.allowed, found.refused) == (False, "running")
    for words in (
        "operator@laptop",
        "prepare_data",
        "(one)",
        "-e on_other_run=wait",
        "-e takeover=one",
        "dead in 60 s",
    ):
        assert words in found.reason, words
    assert pathlib.Path(path).read_bytes() == before


def test_it_waits_for_the_other_run_and_begins_after_it(path):
    begin(path, "one")
    threading.Timer(0.3, end, (path, "one")).start()
    begun = time.monotonic()
    assert begin(path, "two", wait=30).allowed
    assert time.monotonic() - begun < 20
    assert query(path).journal.running.run == "two"


def test_of_many_at_once_one_begins(path):
    found = []

    def attempt(number):
        found.append(begin(path, f"run-{number}").allowed)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 19 + [True]


def test_a_run_that_says_nothing_for_its_lease_has_died(path):
    begin(path, "one", Limits(lease=100))
    now = _journal.this_moment()
    later = Moment(now.at, now.boot, now.ticks + 99)
    assert query(path, now=later).refused == "running"
    later = Moment(now.at, now.boot, now.ticks + 101)
    found = query(path, now=later)
    assert (found.allowed, found.journal.broken_off.run) == (True, "one")


@pytest.mark.parametrize("jump", [-86400.0 * 400, -10.0, 86400.0 * 400])
def test_a_clock_that_jumps_kills_and_revives_nobody(path, jump):
    begin(path, "one", Limits(lease=100))
    now = _journal.this_moment()
    assert query(path, now=Moment(now.at + jump, now.boot, now.ticks + 1)).refused == "running"
    assert query(path, now=Moment(now.at + jump, now.boot, now.ticks + 101)).allowed


def test_after_a_boot_of_the_coordinator_the_wall_clock_counts(path):
    begin(path, "one", Limits(lease=100))
    now = _journal.this_moment()
    assert query(path, now=Moment(now.at + 50, "another boot", 5.0)).refused == "running"
    assert query(path, now=Moment(now.at - 50, "another boot", 5.0)).refused == "running"
    assert query(path, now=Moment(now.at + 101, "another boot", 5.0)).allowed


def test_one_that_is_known_to_be_dead_is_replaced_and_stops_where_it_wakes(path):
    begin(path, "one")
    step(path, "one", "restart_training")
    found = begin(path, "two", gone=("one",))
    assert found.allowed
    assert (found.journal.broken_off.run, found.journal.broken_off.step) == ("one", "restart_training")
    said = step(path, "one", "monitor")
    assert "has taken the place of this run (one) with two" in said
    assert step(path, "two", "stop_training") is None
    end(path, "two", "recovered, progress is proven", True)
    # Who took its place knew that it was dead, and everybody does from then on.
    assert begin(path, "three").allowed


def test_after_so_many_in_vain_no_more_until_progress_or_time(path):
    limits = Limits(attempts=3, window=1000)
    for run in ("one", "two", "three"):
        assert begin(path, run, limits).allowed
        end(path, run)
    found = begin(path, "four", limits)
    assert (found.allowed, found.refused, len(found.in_vain)) == (False, "attempts", 3)
    for words in ("3 recoveries of hex8_2p within", "failed in monitor", "diagnose.yml", "-e recovery_max_attempts=4"):
        assert words in found.reason, words
    now = _journal.this_moment()
    assert query(path, limits, Moment(now.at + 1001, now.boot, now.ticks + 1001)).allowed
    assert begin(path, "four", Limits(attempts=4, window=1000)).allowed
    end(path, "four", "recovered, progress is proven", True)
    assert begin(path, "five", limits).allowed


def test_what_began_before_training_moved_was_not_in_vain(path):
    limits = Limits(attempts=1)
    begin(path, "one", limits)
    end(path, "one", "lock_held is fixed")
    now = _journal.this_moment()
    later = Moment(now.at + 100, now.boot, now.ticks + 100)
    assert query(path, Limits(attempts=1, progress_age=50), later).allowed
    assert query(path, Limits(attempts=1, progress_age=150), later).refused == "attempts"
    assert query(path, Limits(attempts=1, progress_age=1e9), later).refused == "attempts"
    with pytest.raises(RecoveryError, match="progress_age is -1 s"):
        Limits(progress_age=-1)


def test_one_that_died_before_it_restarted_anything_counts_for_nothing(path):
    limits = Limits(attempts=1)
    begin(path, "one", limits)
    step(path, "one", "prepare_data")
    found = begin(path, "two", limits, gone=("one",))
    assert found.allowed
    step(path, "two", "restart_training")
    found = begin(path, "three", limits, gone=("one", "two"))
    assert (found.refused, [attempt.run for attempt in found.in_vain]) == ("attempts", ["two"])


def test_what_is_no_recovery_never_counts_and_may_begin_after_too_many(path):
    limits = Limits(attempts=1)
    begin(path, "one", limits)
    end(path, "one")
    assert begin(path, "two", limits).refused == "attempts"
    for run in ("undo", "undo-again"):
        assert _journal.begin(path, "hex8_2p", run, {"user": "operator"}, limits, counts=False).allowed
        assert begin(path, "two", limits).refused == "running"
        end(path, run, "put back")
    found = begin(path, "two", limits)
    assert (found.refused, [attempt.run for attempt in found.in_vain]) == ("attempts", ["one"])
    assert begin(path, "two", Limits(attempts=2)).allowed
    # It is kept apart from a recovery that is under way all the same.
    assert _journal.begin(path, "hex8_2p", "undo", {}, limits, counts=False).refused == "running"


def test_a_run_that_never_began_cannot_go_on(path):
    with pytest.raises(RecoveryError, match="has no run nine. Begin it first"):
        step(path, "nine", "monitor")


RECORDS = st.dictionaries(
    st.sampled_from(["run", "event", "at", "ticks", "lease", "who", "step", "boot", "outcome", "progressed", "x"]),
    st.sampled_from(["one", "begun", "step", "ended", "", None, True, -1, 1e300, float("nan"), 10**400, [], {}])
    | st.integers(0, 2**31),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORDS.map(lambda record: json.dumps(record).encode()) | st.binary(max_size=60), max_size=8))
@example([b'{"run": "one", "event": "begun", "at": 1, "ticks": 1, "lease": Infinity}'])
@example([b"[" * 100000])
@example([b'{"run": "one", "event": "begun", "at": 1, "ticks": 1, "lease": 1' + b"0" * 400 + b"}"])
@example([b'{"run": "one", "event": "begun", "at": 1, "ticks": 1, "lease": 1e5, "who": {"user": NaN, "host": {}}}'])
def test_garbage_hides_nothing(tmp_path_factory, lines):
    path = _journal.place(str(tmp_path_factory.mktemp("journal")), "hex8_2p")
    with _journal_file.locked(path):
        pathlib.Path(path).write_bytes(b"\n".join(lines))
    now = _journal.this_moment()
    runs = [attempt.run for attempt in _journal.look(path, now).attempts]
    assert begin(path, "mine", Limits(attempts=1000), gone=runs).allowed
    end(path, "mine")
    last = query(path, gone=runs).journal.attempts[-1]
    assert (last.run, last.state) == ("mine", "ended")
    json.dumps(query(path).as_dict(), allow_nan=False)


def test_half_a_line_is_ended_before_the_next(path):
    begin(path, "one")
    whole = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(whole + whole[:-40])
    end(path, "one")
    found = query(path)
    assert (found.journal.attempts[-1].state, found.journal.damaged) == ("ended", 1)


def test_a_long_journal_is_put_aside_and_its_end_still_counts(path):
    limits = Limits(attempts=2)
    for run in ("one", "two"):
        begin(path, run, Limits(attempts=9))
        end(path, run)
    with open(path, "ab") as stream:
        stream.write(b" " * _journal_file.KEPT_BYTES + b"\n")
    # What is far back is not read; the last records are.
    for run in ("three", "four"):
        begin(path, run, Limits(attempts=9))
        end(path, run)
    assert os.path.exists(f"{path}.1")
    assert begin(path, "five", limits).refused == "attempts"


def test_what_cannot_be_written_has_not_begun(path, tmp_path):
    (tmp_path / "recovery").write_text("a file where a directory should be")
    with pytest.raises(RecoveryError, match=r"Could not write .*hex8_2p.jsonl.lock"):
        begin(path, "one")


def test_somebody_who_keeps_the_lock_is_named_after_a_while(path):
    with _journal_file.locked(path), pytest.raises(RecoveryError, match="fuser -v"), _journal_file.locked(path, 0.2):
        pass


@pytest.mark.parametrize(
    "options", [{"lease": 0}, {"lease": float("nan")}, {"window": -1}, {"attempts": 0}, {"attempts": 10**9}]
)
def test_limits_that_cannot_be_meant(options):
    with pytest.raises(RecoveryError, match="It must be from 1 to"):
        Limits(**options)


def test_a_writer_killed_at_any_time_leaves_what_can_be_read(path):
    """Writers are killed while they write; every record that one had told of is there, and the next one begins."""
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT / "playbooks/collections")!r})
        from ansible_collections.ringrift.recovery.plugins.module_utils import _journal
        for number in range(10**6):
            run = f"{{sys.argv[1]}}-{{number}}"
            _journal.begin({path!r}, "hex8_2p", run, {{}}, _journal.Limits(attempts=1000))
            _journal.note({path!r}, run, "ended", 60, outcome="x", progressed=True)
            print(run, flush=True)
        """
    )
    told = []
    for turn in range(4):
        process = subprocess.Popen([sys.executable, "-c", program, f"t{turn}"], stdout=subprocess.PIPE, text=True)
        told += [process.stdout.readline().strip() for _line in range(3)]
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        now = _journal.this_moment()
        running = _journal.look(path, now).running
        assert begin(path, f"after-{turn}", gone=(running.run,) if running else ()).allowed
        end(path, f"after-{turn}", "x", True)
    runs = {attempt.run for attempt in query(path).journal.attempts if attempt.state == "ended"}
    assert set(told) <= runs

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_memory_fit import (
    AUTO,
    FIXED,
    Facts,
    facts_of,
    fit,
    ran_out,
    row,
    size_in,
)
from hypothesis import given
from hypothesis import strategies as st

H100, T4, SMALL, GH200, A100 = 81559.0, 15109.0, 8192.0, 97871.0, 40960.0
OOM = {"code": "cuda_oom", "count": 1, "line": "CUDA out of memory", "after_progress": True}
WORDS = ["venv/bin/python", "-m", "app.training.train", "--batch-size", "512", "--epochs", "50"]

sizes = st.integers(1, 65536)
floors = st.sampled_from([1 << power for power in range(13)])
memories = st.none() | st.floats(1, 300_000)


KEYS = ("gpu", "gpus", "log", "findings", "progress", "trainers", "cmdline", "mtime", "batch_size", "code")


def nested(inner):
    return st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner)


def node(memory=H100, log=None, trainers=(), **gpu):
    gpus = [{"index": 0, "memory_total": memory, "processes": [], **gpu}]
    return {"gpu": {"gpus": gpus}, "progress": {"trainers": list(trainers)}, "log": log or {}, "errors": {}}


def out_of_memory(**more):
    return {"findings": [OOM], "mtime": 1000.0, **more}


class TestTables:
    @pytest.mark.parametrize(
        ("memory", "allowed", "table"),
        [
            (None, 256, "runbook_table"),
            (1024.0, 32, "runbook_table"),
            (4096.0, 128, "runbook_table"),
            (SMALL, 256, "runbook_table"),
            (12288.0, 256, "runbook_table"),
            (T4, 512, "runbook_table"),
            (24576.0, 512, "runbook_table"),
            (A100, 1024, "service_table"),
            (H100, 2048, "service_table"),
            (GH200, 4096, "service_table"),
        ],
    )
    def test_row(self, memory, allowed, table):
        assert row(memory)[:2] == (allowed, table)

    @given(st.floats(1, 300_000), st.floats(1, 300_000))
    def test_more_memory_never_allows_less(self, one, other):
        less, more = sorted((one, other))
        assert row(less)[0] <= row(more)[0]

    @given(st.floats(1, 300_000))
    def test_what_is_not_known_allows_no_more_than_a_card_that_the_runbook_names(self, memory):
        if memory >= SMALL:
            assert row(None)[0] <= row(memory)[0]


class TestOutOfMemory:
    def test_half_of_what_ran_out_and_says_so(self):
        result = fit(Facts(H100, "GPU 0 of a", 512, "its job record", "a"))
        assert (result.batch_size, result.changed, result.source, result.floor_reached) == (256, True, "halved", False)
        assert result.message == (
            "batch size 256 instead of 512: it ran out of GPU memory with 512 on a (its job record)"
        )
        assert "ringrift_batch_size: 256" in result.reasons[1]

    def test_a_size_that_is_not_known_counts_as_the_usual_one(self):
        result = fit(Facts(H100, ran_out="a"), usual=384)
        assert (result.batch_size, result.instead_of) == (128, 384)
        assert "the real one is not known" in result.reasons[0]

    @pytest.mark.parametrize(
        ("memory", "source"), [(SMALL, "runbook_table"), (None, "runbook_table"), (A100, "service_table")]
    )
    def test_the_table_may_allow_less_than_half(self, memory, source):
        result = fit(Facts(memory, None, 4096, "its log", "a"))
        assert (result.batch_size, result.source) == (row(memory)[0], source)
        assert "half of that is 2048" in result.reasons[1]

    def test_at_the_floor_it_says_what_else_there_is(self):
        for last in (127, 64):
            result = fit(Facts(H100, None, last, "its log", "a"))
            assert (result.batch_size, result.floor_reached) == (64, True)
            words = " ".join(result.reasons)
            for help_ in ("--safe-mode", "train on another node", "gpu_status"):
                assert help_ in words
        assert "no smaller size left" in words

    def test_what_ran_out_below_the_floor_is_not_raised_to_it(self):
        result = fit(Facts(H100, None, 32, "its log", "a"))
        assert (result.batch_size, result.changed, result.floor_reached) == (32, False, True)

    @given(sizes, floors, memories, st.sampled_from([None, "", AUTO]))
    def test_never_above_half_never_below_the_floor_and_a_power_of_two(self, last, floor, memory, asked):
        batch = fit(Facts(memory, None, last, "x", "a"), asked, floor=floor).batch_size
        assert batch & (batch - 1) == 0
        assert batch <= max(last // 2, min(floor, last))
        assert batch >= min(floor, last // 2 + 1)

    @given(sizes, sizes, floors, memories)
    def test_what_ran_out_with_less_gets_no_more(self, one, other, floor, memory):
        less, more = (fit(Facts(memory, None, last, "x", "a"), floor=floor).batch_size for last in sorted((one, other)))
        assert less <= more

    @given(sizes, floors, memories)
    def test_again_and_again_ends_at_the_floor(self, last, floor, memory):
        for _attempt in range(20):
            result = fit(Facts(memory, None, last, "x", "a"), floor=floor)
            if not result.changed:
                break
            assert result.batch_size < last
            last = result.batch_size
        assert (result.changed, result.floor_reached) == (False, True)


class TestRequested:
    @given(sizes, memories, st.none() | sizes, st.none() | st.just("a"))
    def test_a_number_always_wins(self, asked, memory, last, where):
        for value in (asked, str(asked)):
            result = fit(Facts(memory, None, last, "x", where), value)
            assert (result.batch_size, result.source) == (asked, "requested")

    def test_a_number_that_does_not_fit_is_warned_of(self):
        reasons = fit(Facts(SMALL, None, 512, "its log", "a"), 512).reasons
        assert reasons[1] == "WARNING: 8 GiB of GPU memory allows 256"
        assert reasons[2].startswith("WARNING: it ran out of GPU memory with 512 on a")

    def test_a_number_that_fits_is_not(self):
        assert fit(Facts(H100, None, 512, "its log", "a"), 256, auto_tunes=False).reasons == ("it was asked for",)


class TestUsual:
    def test_nothing_speaks_against_it(self):
        result = fit(Facts(H100))
        assert (result.batch_size, result.changed, result.source, result.extra_args) == (512, False, "default", ())
        assert len(result.reasons) == 1

    def test_a_table_that_allows_less_is_told_and_only_auto_heeds_it(self):
        facts = Facts(SMALL)
        assert fit(facts).batch_size == 512
        assert fit(facts).reasons[1].startswith("WARNING: 8 GiB of GPU memory allows 256")
        assert (fit(facts, AUTO).batch_size, fit(facts, AUTO).source) == (256, "runbook_table")

    def test_auto_keeps_what_the_last_run_had(self):
        result = fit(Facts(H100, None, 256, "its log of a"), AUTO)
        assert result.message == "batch size 256 instead of 512: the last run had it, says its log of a"

    @given(memories, st.none() | sizes, sizes)
    def test_auto_never_goes_up(self, memory, last, usual):
        assert fit(Facts(memory, None, last, "x"), AUTO, usual).batch_size <= (last or usual)

    def test_auto_without_any_knowledge_takes_the_smallest_row(self):
        assert fit(Facts(), AUTO).batch_size == 256


class TestArguments:
    @pytest.mark.parametrize(
        ("auto_tunes", "via", "extra", "said"),
        [
            (True, "direct", (FIXED,), "the service would override"),
            (False, "direct", (), None),
            (None, "direct", (), "could not be told"),
            (True, "p2p", (), "the service tunes the size by itself"),
            (None, "p2p", (), "may tune"),
            (False, "p2p", (), None),
        ],
    )
    def test_which_service_needs_what(self, auto_tunes, via, extra, said):
        result = fit(Facts(H100, None, 512, "x", "a"), auto_tunes=auto_tunes, via=via)
        assert result.extra_args == extra
        assert (said or "floor") in " ".join((*result.reasons, "" if said else "floor"))
        assert said or len(result.reasons) == 2

    def test_the_usual_size_is_left_to_the_service(self):
        assert fit(Facts(H100), auto_tunes=True).extra_args == ()


class TestBadInput:
    @pytest.mark.parametrize("value", ["many", 0, -1, 65537, True, 2.5, "1e3", [256], "²"])
    def test_batch_size(self, value):
        with pytest.raises(RecoveryError, match=r"batch_size is .*; it must be a whole number from 1 to 65536\. Give"):
            fit(Facts(), value)

    @pytest.mark.parametrize(
        ("value", "words"), [(100, "power of two, for example 64"), (0, "from 1 to 4096"), (8192, "4096")]
    )
    def test_floor(self, value, words):
        with pytest.raises(RecoveryError, match=f"floor is {value}; .*{words}"):
            fit(Facts(), floor=value)

    def test_usual(self):
        with pytest.raises(RecoveryError, match="usual is 'auto'.* Set ringrift_batch_size"):
            fit(Facts(), usual="auto")

    def test_via(self):
        with pytest.raises(RecoveryError, match="via is 'ssh'"):
            fit(Facts(), via="ssh")

    @pytest.mark.parametrize(
        ("evidence", "words"),
        [
            ({"hosts": ["a"]}, "hosts is \\['a'\\]"),
            ({"hosts": {"a": 3}}, "hosts has 3 for a"),
            ({"hosts": {"a": {}}, "node": "b"}, "node is 'b', and hosts has only a"),
        ],
    )
    def test_evidence(self, evidence, words):
        with pytest.raises(RecoveryError, match=words):
            facts_of(evidence)


class TestFacts:
    def test_nothing_is_known_of_nothing(self):
        for evidence in (
            {},
            {"hosts": {"a": {"unreachable": True}}},
            {"hosts": {"a": {"gpu": 1, "log": [], "progress": "x"}}},
        ):
            assert facts_of(evidence) == Facts()

    def test_the_smallest_gpu_of_the_nodes_that_may_get_the_job(self):
        hosts = {"a": node(H100), "b": node(SMALL)}
        assert facts_of({"hosts": hosts}).memory_total == SMALL
        assert facts_of({"hosts": hosts}).memory_of == "GPU 0 of b"
        assert facts_of({"hosts": hosts, "node": "a"}).memory_total == H100

    def test_a_gpu_that_the_trainer_is_on_counts_and_no_other(self):
        seen = node(trainers=[{"pid": 7}])
        seen["gpu"]["gpus"] = [
            {"index": 0, "memory_total": SMALL, "processes": []},
            {"index": 1, "memory_total": H100, "processes": [{"pid": 7}]},
        ]
        assert facts_of({"hosts": {"a": seen}}).memory_total == H100

    @pytest.mark.parametrize("other", [node(None), node(H100, mig_mode=True), {}])
    def test_memory_that_is_not_known_of_one_is_not_known(self, other):
        assert facts_of({"hosts": {"a": node(), "b": other}}).memory_total is None

    def test_what_the_log_was_tuned_to_comes_before_what_was_asked_for(self):
        trainer = {"pid": 7, "cmdline": WORDS, "start_time": 1.0}
        hosts = {"a": node(log=out_of_memory(batch_size=4096), trainers=[trainer])}
        assert facts_of({"hosts": hosts}) == Facts(H100, "GPU 0 of a", 4096, "its log", "a")

    def test_a_trainer_that_lives_tells_by_its_command_line(self):
        trainer = {"pid": 7, "cmdline": WORDS, "start_time": 1.0}
        assert facts_of({"hosts": {"a": node(log=out_of_memory(), trainers=[trainer])}}).last == 512

    def test_of_a_dead_one_the_newest_before_the_end_of_the_log_tells(self):
        log = out_of_memory(start={"at": 500.0, "cmdline": [*WORDS[:3], "--batch-size=128"]})
        jobs = [
            {"node": "a", "batch_size": 512, "created_at": 1.0, "started_at": 400.0},
            {"node": "a", "batch_size": 64, "started_at": 2000.0},
            {"node": "b", "batch_size": 32, "started_at": 900.0},
            {"node": "a", "batch_size": None, "started_at": 900.0},
        ]
        facts = facts_of({"hosts": {"a": node(log=log), "b": node()}, "p2p": {"jobs": jobs}})
        assert (facts.last, facts.last_from, facts.ran_out) == (128, "its command line", "a")
        facts = facts_of({"hosts": {"a": node(log=out_of_memory())}, "p2p": {"jobs": jobs}})
        assert (facts.last, facts.last_from) == (512, "its job record")

    def test_a_job_that_was_tried_again_elsewhere_still_tells(self):
        jobs = [
            {"node": "b", "batch_size": 512, "created_at": 100.0, "started_at": 1500.0},
            {"node": "b", "batch_size": 64, "created_at": 1400.0, "started_at": 1500.0},
        ]
        facts = facts_of({"hosts": {"a": node(log=out_of_memory()), "b": node()}, "p2p": {"jobs": jobs}})
        assert (facts.last, facts.last_from, facts.ran_out) == (512, "a job record", "a")

    def test_of_several_nodes_that_ran_out_the_smallest_size_counts(self):
        hosts = {
            "a": node(log=out_of_memory(batch_size=512)),
            "b": node(log=out_of_memory(batch_size=256)),
            "c": node(),
        }
        assert (facts_of({"hosts": hosts}).last, facts_of({"hosts": hosts}).ran_out) == (256, "b")

    def test_without_an_end_in_memory_the_newest_run_of_all_counts(self):
        jobs = [
            {"node": name, "batch_size": size, "started_at": at}
            for name, size, at in (("a", 512, 1.0), ("b", 256, 2.0))
        ]
        facts = facts_of({"hosts": {"a": node(), "b": node()}, "p2p": {"jobs": jobs}})
        assert (facts.last, facts.last_from, facts.ran_out) == (256, "its job record of b", None)

    def test_what_stands_before_the_last_progress_is_over(self):
        assert ran_out({"log": {"findings": [OOM]}})
        assert not ran_out({"log": {"findings": [{**OOM, "after_progress": False}]}})
        assert not ran_out({"log": {"findings": [{**OOM, "code": "nan"}]}})
        assert not ran_out({"log": None})

    @pytest.mark.parametrize(
        ("words", "size"),
        [
            (WORDS, 512),
            (["--batch-size=64"], 64),
            (["--batch-size"], None),
            (["--batch-size", "x"], None),
            (["--batch-size", "0"], None),
            (["--batch-size", "9" * 5000], None),
            (["--epochs", "5"], None),
            ("--batch-size 5", None),
            (None, None),
        ],
    )
    def test_command_lines(self, words, size):
        assert size_in(words) == size

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), nested, max_leaves=20))
    def test_no_node_can_bring_it_down(self, seen):
        if isinstance(seen, dict):
            fit(facts_of({"hosts": {"a": seen}, "p2p": {"jobs": [seen]}}), AUTO)

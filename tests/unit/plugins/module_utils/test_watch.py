# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import math

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._watch import (
    LONGEST_LINE,
    GpuLook,
    Look,
    Pace,
    check_times,
    clean,
    line,
    quiet_line,
    rate,
    remaining,
    unseen_line,
)
from hypothesis import given
from hypothesis import strategies as st

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
LAST = ("epoch", "total_epochs", "batch", "loss", "val_loss", "at", "this_run")


def look(pid=24, **changes):
    """A look at a training that moves."""
    last = {"epoch": 12, "total_epochs": 50, "batch": 340, "loss": 0.8123, "val_loss": 0.9001, "at": 1000.0}
    last.update({"this_run": True}, **{name: value for name, value in changes.items() if name in LAST})
    result = {
        "running": True,
        "verdict": "progressing",
        "progressed": False,
        "trainers": [{"pid": pid, "start_ticks": 7}],
        "checkpoint": {"path": "/s/checkpoint_epoch_10.pth", "mtime": 900.0, "epoch": 10, "valid": True},
        "last": last,
    }
    result.update({name: value for name, value in changes.items() if name not in LAST})
    return Look.of(result)


def gpus(*values, verdict="busy"):
    return GpuLook.of({"verdict": verdict, "gpus": [{"utilization": busy, "power": power} for busy, power in values]})


def test_a_whole_line():
    assert line(look(), gpus((97.0, 402.4)), 1.9 / 60, look(), "hex8_2p") == (
        "hex8_2p  epoch 12/50  batch 340  loss 0.8123 (val 0.9001)  1.9 epochs/min  GPU 97 % 402 W  ~20 min left"
    )


def test_what_is_not_known_is_left_out():
    assert line(Look.of({}), None, None, None, "hex8_2p") == "hex8_2p  no epoch yet  unknown"
    seen = look(total_epochs=None, batch=None, loss=None, val_loss=None)
    assert line(seen, None, 0.1, seen) == "epoch 12  6.0 epochs/min"
    assert line(look(batch=None, loss=None), None, None, None) == "epoch 12/50  val loss 0.9001"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": math.nan}, "loss nan (val 0.9001)"),
        ({"loss": 3e-9}, "loss 3e-09 "),
        ({"this_run": False}, "no epoch yet (before: epoch 12/50)"),
        ({"this_run": False, "running": False, "verdict": "not_running"}, "stood at epoch 12/50  not running"),
        ({"verdict": "stalled"}, "stalled"),
        (
            {"checkpoint": {"path": "/s/b.pth", "mtime": 950.0, "epoch": 12, "valid": True}},
            "new checkpoint of epoch 12",
        ),
        ({"checkpoint": {"path": "/s/b.pth", "mtime": 950.0, "valid": False}}, "new checkpoint is damaged"),
        ({"checkpoint": {"path": "/s/b.pth", "mtime": 950.0, "valid": None}}, "new checkpoint not verified"),
        ({"progressed": True}, "progress is proven"),
    ],
)
def test_words(changes, words):
    assert words in line(look(**changes), None, None, look())


def test_proven_is_said_once():
    assert "proven" not in line(look(progressed=True, epoch=13), None, None, look(progressed=True))


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (gpus((97.0, 402.4)), "GPU 97 % 402 W"),
        (gpus((90.0, 300.0), (10.0, 200.0)), "2 GPUs 10-90 % 500 W"),
        # What is not known of one is not known of all.
        (gpus((90.0, 300.0), (None, 200.0)), "2 GPUs 500 W"),
        (gpus((0.0, 70.0), verdict="idle_with_process"), "GPU 0 % 70 W (idle with process)"),
        (gpus((None, None), verdict="lost"), "GPU lost"),
        (gpus((97.0, 402.4), verdict="unknown"), "GPU ?"),
        (GpuLook.of(None), "GPU ?"),
        (GpuLook.of({"verdict": "none", "gpus": []}), "no GPU"),
    ],
)
def test_gpu_words(gpu, words):
    assert gpu.words() == words


@pytest.mark.parametrize("change", [{"epoch": 13}, {"batch": 350}, {"loss": 0.8}, {"verdict": "stalled"}, {"pid": 25}])
def test_news(change):
    assert look(**change).news != look().news


def test_time_alone_and_the_same_nan_are_no_news():
    assert look(at=2000.0).news == look().news
    assert look(loss=math.nan).news == look(loss=math.nan).news


def test_pace_and_remaining_time():
    pace = Pace()
    for epoch, at in ((10, 1000.0), (10, 1005.0), (11, 1030.0), (12, 1060.0)):
        pace.add(look(epoch=epoch, at=at))
    assert pace.rate == pytest.approx(2 / 60)
    assert remaining(look(epoch=12), pace.rate) == pytest.approx(38 * 30)
    assert remaining(look(epoch=50), pace.rate) is None
    assert remaining(look(this_run=False), pace.rate) is None
    assert remaining(look(total_epochs=None), pace.rate) is None
    # Another trainer has a pace of its own, and so has one that began anew.
    pace.add(look(epoch=13, at=1090.0, pid=25))
    assert pace.rate is None
    pace.add(look(epoch=14, at=1100.0, pid=25))
    assert pace.rate == pytest.approx(0.1)
    pace.add(look(epoch=1, at=1200.0, pid=25))
    assert pace.rate is None


def test_pace_follows_a_training_that_gets_slower():
    pace, at = Pace(), 0.0
    for epoch in range(200):
        at += 1.0 if epoch < 100 else 60.0
        pace.add(look(epoch=epoch, at=at))
    assert pace.rate == pytest.approx(1 / 60)


def test_slow_epochs_are_counted_by_the_hour():
    assert "2.0 epochs/h" in line(look(), None, 2 / 3600)


@given(st.lists(st.tuples(st.integers(-5, 10**6), st.floats(-1e9, 1e9))))
def test_a_rate_is_positive_or_unknown(points):
    found = rate(points)
    assert found is None or found > 0


@given(st.dictionaries(st.sampled_from(("last", "checkpoint", "verdict", "trainers", "running")), ANYTHING), ANYTHING)
def test_any_answer_gives_one_printable_line(result, gpu):
    seen = Look.of(result)
    pace = Pace()
    pace.add(seen)
    said = line(seen, GpuLook.of(gpu if isinstance(gpu, dict) else None), pace.rate, None, "hex8_2p")
    assert said.isprintable()
    assert len(said) <= LONGEST_LINE


@given(st.fixed_dictionaries(dict.fromkeys(LAST, ANYTHING)), st.floats(1e-300, 1e300))
def test_any_position_gives_one_printable_line(last, pace):
    said = line(Look.of({"last": last, "verdict": "\x1b[2J\nprogressing"}), None, pace, None, "hex8_2p")
    assert said.isprintable()
    assert "\x1b" not in said


def test_text_of_a_node_is_text():
    assert clean("a\x1b[31mb\r\nc\u202e") == "a [31mb  c"
    assert unseen_line("hex8_2p", "gone\x07", 90) == "hex8_2p  not seen: gone ; goes on for 90 s"
    assert quiet_line("hex8_2p", 240, -1) == "hex8_2p  nothing new for 4 min; goes on for 0 s"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interval": 0.0}, "interval is 0 s. It must be from 0.1 to 3600."),
        ({"timeout": -1.0}, "timeout is -1 s"),
        ({"look_timeout": math.nan}, "look_timeout is nan s"),
        ({"begin": {"last": {}}}, "begin is not what ringrift.recovery.training_progress returned"),
    ],
)
def test_options_that_cannot_be_used(change, words):
    params = {"interval": 5.0, "timeout": 60.0, "look_timeout": 60.0, "begin": None}
    check_times(params)
    with pytest.raises(RecoveryError, match=words.replace(".", r"\.")):
        check_times({**params, **change})

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.ringrift.recovery.plugins.module_utils._report_metrics import diagnosis_metrics
from hypothesis import given, settings
from prometheus_client.parser import text_string_to_metric_families

from tests.unit import diagnosis_samples as samples

PREFIX = "ringrift_recovery_"


def parse(text):
    """Samples by name and labels, as Prometheus reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type == "gauge"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert sample.name.startswith(PREFIX)
            assert key not in found, "the same sample twice"
            found[key] = sample.value
    return found


def of(found, name, **labels):
    """The values of a metric by its labels, those that are given left out."""
    wanted = {"config": samples.CONFIG, **labels}.items()
    return {
        tuple(value for label in key[1] for value in [label[1]] if label not in wanted): value
        for key, value in found.items()
        if key[0] == PREFIX + name and wanted <= set(key[1])
    }


def metrics(verdict):
    return parse(diagnosis_metrics(verdict))


def test_a_stalled_fleet():
    found = metrics(samples.small()[0])
    assert of(found, "training_state") == {("stalled",): 1, ("not_stalled",): 0, ("unknown",): 0}
    assert of(found, "diagnosis_timestamp_seconds") == {(): samples.NOW}
    assert of(found, "findings", cause="gpu_wedged", severity="critical", host="nebius-h100-3") == {(): 1}
    assert of(found, "findings", cause="cooldown_active", severity="info", host="") == {(): 1}
    assert sum(of(found, "findings").values()) == 6
    assert of(found, "node_state", host="nebius-h100-3")[("stalled",)] == 1
    assert sum(of(found, "node_state").values()) == of(found, "nodes")[()] == 4
    assert of(found, "epoch", host="nebius-h100-3") == {(): 17}
    assert of(found, "loss", host="nebius-h100-3") == {(): 0.4312}
    assert of(found, "progress_age_seconds", host="nebius-h100-3") == {(): 2880}
    assert of(found, "unseen_probes", host="lambda-gh200-b") == {("kernel",): 1}


def test_units_are_base_units():
    found = metrics(samples.small()[0])
    labels = {"host": "nebius-h100-3", "gpu": "0", "model": "NVIDIA H100 80GB HBM3"}
    assert of(found, "gpu_utilization_ratio", **labels) == {(): 1.0}
    assert of(found, "gpu_memory_used_bytes", **labels) == {(): 61440 * 1024 * 1024}
    assert of(found, "gpu_power_watts", **labels) == {(): 131}
    assert of(found, "disk_free_bytes", host="lambda-gh200-b") == {(): 6 << 30}


def test_unknown_is_neither_stalled_nor_healthy():
    verdict = {**samples.small()[0], "stalled": None}
    assert of(metrics(verdict), "training_state") == {("stalled",): 0, ("not_stalled",): 0, ("unknown",): 1}


def test_what_is_not_known_has_no_sample():
    found = metrics(samples.small()[0])
    for name in ("epoch", "loss", "progress_age_seconds", "disk_free_bytes", "gpu_power_watts"):
        assert of(found, name, host="runpod-h100") == {}
    verdict = samples.small()[0]
    verdict["nodes"][1].update(loss=float("nan"), epoch=None)
    verdict["nodes"][1]["gpu"][0]["power"] = None
    found = metrics(verdict)
    assert of(found, "loss", host="nebius-h100-3") == of(found, "gpu_power_watts", host="nebius-h100-3") == {}


def test_a_lost_gpu_is_not_taken_for_another():
    verdict = samples.small()[0]
    verdict["nodes"][1]["gpu"] = [samples.gpu(0), samples.gpu(None, power=5.0), samples.gpu(None, power=6.0)]
    found = of(metrics(verdict), "gpu_power_watts", host="nebius-h100-3", model="NVIDIA H100 80GB HBM3")
    assert found == {("0",): 402, ("unknown-1",): 5, ("unknown-2",): 6}


def test_labels_are_escaped():
    verdict = samples.small()[0]
    verdict["nodes"][1]["name"] = 'a"b\\c\nd'
    assert of(metrics(verdict), "epoch", host='a"b\\c ⏎ d') == {(): 17}


def test_a_state_that_is_new_is_shown_too():
    verdict = samples.small()[0]
    verdict["nodes"][1]["state"] = "paused"
    states = of(metrics(verdict), "node_state", host="nebius-h100-3")
    assert {state for (state,), value in states.items() if value} == {"paused"}


def test_a_hundred_nodes():
    found = metrics(samples.large()[0])
    assert of(found, "nodes") == {(): 100}
    assert sum(of(found, "findings", cause="disk_full", severity="warning").values()) == 13


@settings(max_examples=150, deadline=None)
@given(samples.scrambled())
def test_no_text_breaks_a_line(scrambled):
    text = diagnosis_metrics(scrambled[0])
    text.encode()
    assert text.endswith("\n")
    found = parse(text)
    states = {key: value for key, value in found.items() if key[0] == f"{PREFIX}training_state"}
    assert sorted(states.values()) == [0, 0, 1]

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import (
    _report_html,
    _report_metrics,
    _report_table,
    _verdict,
)

from tests.unit import diagnosis_samples as samples


@pytest.fixture(scope="module")
def validator(root):
    schema = json.loads((root / "docs/diagnosis.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize("sample", [samples.small, samples.large, samples.healthy])
def test_samples_fit_the_schema(validator, sample):
    validator.validate(sample()[0])


@pytest.mark.parametrize("sample", [samples.small, samples.large, samples.healthy])
def test_what_the_collection_really_says_fits_the_schema_and_can_be_shown(validator, sample):
    _verdict_of_sample, evidence = sample()
    verdict = _verdict.verdict(evidence).as_dict()
    validator.validate(json.loads(json.dumps(verdict)))
    assert _report_table.diagnosis_table(verdict)[0] == verdict["headline"]
    assert verdict["headline"] in _report_html.diagnosis_html(verdict, evidence)
    assert "ringrift_recovery_training_state" in _report_metrics.diagnosis_metrics(verdict)


def test_nothing_seen_fits_the_schema(validator):
    validator.validate(json.loads(json.dumps(_verdict.verdict({"config": "hex8_2p", "hosts": {}}).as_dict())))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("stalled",), "no"),
        (("findings", 0, "severity"), "bad"),
        (("findings", 0, "cause"), "GPU OOM"),
        (("findings", 0, "evidence"), None),
        (("nodes", 0, "state"), "fine"),
        (("nodes", 0, "findings"), -1),
        (("nodes", 1, "gpu", 0, "power"), "402 W"),
        (("unknown", 0, "reason"), None),
    ],
)
def test_the_schema_refuses(validator, path, value):
    verdict = copy.deepcopy(samples.small()[0])
    place = verdict
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not validator.is_valid(verdict)


@pytest.mark.parametrize("key", ["schema", "stalled", "findings", "unknown", "nodes", "next"])
def test_the_schema_misses(validator, key):
    verdict = samples.small()[0]
    del verdict[key]
    assert not validator.is_valid(verdict)

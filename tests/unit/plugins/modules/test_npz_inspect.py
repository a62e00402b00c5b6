# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import pathlib
import re

import numpy as np
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils import _npy, _npz, _npz_values, _zip
from ansible_collections.ringrift.recovery.plugins.modules import npz_inspect


def write(path: pathlib.Path, samples: int = 120, **changes) -> pathlib.Path:
    arrays = {
        "features": np.random.default_rng(1).integers(0, 2, (samples, 4, 9, 9)).astype("<f4"),
        "values": np.zeros(samples, "<f4"),
        "board_type": np.asarray("hex8"),
        **changes,
    }
    arrays = {name: array for name, array in arrays.items() if array is not None}
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def run(capsys):
    def call(**options) -> dict:
        with patch_module_args(options), pytest.raises(SystemExit):
            npz_inspect.main()
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return write(tmp_path / "hex8_2p.npz")


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("depth", ["quick", "full"])
def test_a_good_file(run, path, depth, check):
    before = path.stat()
    result = run(path=str(path), expect={"config": "hex8_2p"}, depth=depth, checksum=True, _ansible_check_mode=check)
    assert (result["changed"], result["valid"], result["problems"], result["samples"]) == (False, True, [], 120)
    assert result["arrays"]["features"]["shape"] == [120, 4, 9, 9]
    assert result["scalars"] == {"board_type": "hex8"}
    assert result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_every_key_is_documented(run, path):
    documented = yaml.safe_load(npz_inspect.RETURN)
    assert set(run(path=str(path))) - {"changed", "invocation"} == set(documented)
    path.write_bytes(b"x")
    (first, *_rest) = run(path=str(path))["problems"]
    assert set(first) == set(documented["problems"]["contains"])


def test_every_code_is_documented():
    engines = (_npz, _npy, _npz_values, _zip)
    source = "".join(pathlib.Path(engine.__file__).read_text() for engine in engines)
    codes = set(re.findall(r'\b(?:add|Problem|HeaderError|_problem)\(\s*(?:member, )?"([a-z0-9_]+)"', source))
    description = yaml.safe_load(npz_inspect.RETURN)["problems"]["contains"]["code"]["description"]
    assert len(codes) > 25
    assert codes == set(re.findall(r"C\(([a-z0-9_]+)\)", " ".join(description)))


def test_the_trainer_s_own_limit_is_the_default(run, path):
    write(path, samples=99)
    result = run(path=str(path))
    assert (result["valid"], [problem["code"] for problem in result["problems"]]) == (False, ["too_few_samples"])
    assert run(path=str(path), expect={"min_samples": 0})["valid"] is True


def test_a_damaged_file_is_a_finding(run, path):
    path.write_bytes(path.read_bytes()[:-40])
    result = run(path=str(path))
    assert "failed" not in result
    assert (result["valid"], result["samples"], result["sha256"]) == (False, None, None)


def test_a_missing_file_is_a_failure(run, tmp_path):
    result = run(path=str(tmp_path / "none.npz"))
    assert result["failed"] is True
    assert result["msg"] == f"Could not read {tmp_path / 'none.npz'}: it does not exist. Check the path."


def test_a_config_that_is_none_is_a_failure(run, path):
    result = run(path=str(path), expect={"config": "hex8"})
    assert result["failed"] is True
    assert "hex8_2p" in result["msg"]


def test_a_file_of_another_config(run, path):
    result = run(path=str(path), expect={"config": "square8_2p"})
    assert {problem["code"] for problem in result["problems"]} == {"wrong_config"}


def test_other_arrays(run, path):
    write(path, values=None, labels=np.random.default_rng(1).random(120))
    assert run(path=str(path), expect={"arrays": ["labels"]})["valid"] is True
    result = run(path=str(path), expect={"arrays": ["labels", "weights"]})
    assert [(problem["code"], problem["member"]) for problem in result["problems"]] == [("missing_array", "weights")]


def test_the_values(run, path):
    values = np.ones(120, "<f4")
    values[7] = np.nan
    write(path, values=values)
    assert run(path=str(path), depth="full")["value_scan"] is None
    result = run(path=str(path), depth="full", scan_values=True)
    assert result["value_scan"] == {"scanned": ["features", "values"], "not_scanned": []}
    assert result["msg"] == (
        "cannot be trained on: values.npy: it holds 1 NaN and 0 infinite numbers, the first at index [7]; "
        "the trainer stops at it"
    )


def test_the_values_without_reading_them(run, path):
    result = run(path=str(path), scan_values=True)
    assert result["failed"] is True
    assert result["msg"] == "scan_values needs every byte, but depth is quick. Set depth to full."


def test_the_defaults_are_those_of_the_documentation():
    options = yaml.safe_load(npz_inspect.DOCUMENTATION)["options"]
    assert {name: option.get("default") for name, option in options.items()} == {
        "path": None,
        "samples_from": "features",
        "expect": None,
        "depth": "quick",
        "scan_values": False,
        "checksum": False,
    }
    expect = options["expect"]["suboptions"]
    assert {name: option.get("default") for name, option in expect.items()} == {
        "config": None,
        "min_samples": 100,
        "arrays": ["features", "values"],
    }

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import checkpoint_verify

from tests.unit.checkpoint_files import content, flipped, save

pytestmark = pytest.mark.torch

COMMON = {"changed", "msg", "warnings", "invocation"}


@pytest.fixture
def run(capsys):
    def call(**params):
        with patch_module_args(params), pytest.raises(SystemExit):
            checkpoint_verify.main()
        result = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        return result

    return call


def documented() -> dict:
    return yaml.safe_load(checkpoint_verify.RETURN)


class TestResult:
    def test_whole(self, run, tmp_path):
        path = save(tmp_path / "c.pth", content(epoch=2, metadata=True))
        result = run(path=str(path))
        assert result["changed"] is False
        assert (result["valid"], result["problems"], result["format"]) == (True, [], "torch_zip")
        assert (result["epoch"], result["size"]) == (2, path.stat().st_size)
        assert result["msg"].startswith("whole: torch_zip, epoch 2, ")
        assert set(result) - COMMON == set(documented()) - COMMON

    def test_damaged_is_no_failure(self, run, tmp_path):
        path = flipped(save(tmp_path / "c.pth"), "data/0")
        result = run(path=str(path))
        assert "failed" not in result
        assert (result["valid"], result["integrity"]) == (False, "damaged")
        (problem,) = result["problems"]
        assert set(problem) == set(documented()["problems"]["contains"])
        assert (problem["code"], problem["member"]) == ("crc_mismatch", "c/data/0")

    def test_same_keys_whatever_it_is(self, run, tmp_path):
        whole = set(run(path=str(save(tmp_path / "c.pth"))))
        (tmp_path / "empty").touch()
        assert set(run(path=str(tmp_path / "empty"))) == whole
        assert set(run(path=str(tmp_path))) == whole
        assert set(run(path=str(tmp_path / "c.pth"), _ansible_check_mode=True)) == whole

    def test_check_mode_is_the_same(self, run, tmp_path):
        path = save(tmp_path / "c.pth")
        before = (path.stat(), sorted(os.listdir(tmp_path)))
        predicted, looked = run(path=str(path), _ansible_check_mode=True), run(path=str(path))
        assert abs(predicted.pop("age") - looked.pop("age")) < 60
        assert predicted == looked
        assert (path.stat(), sorted(os.listdir(tmp_path))) == before

    def test_quick_and_checksum(self, run, tmp_path):
        path = flipped(save(tmp_path / "c.pth"), "data/0")
        result = run(path=str(path), depth="quick", checksum=True)
        assert (result["valid"], result["integrity"]) == (True, "not_checked")
        assert result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_sidecar(self, run, tmp_path):
        path = save(tmp_path / "c.pth")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "c.pth.sha256").write_text(f"{digest}  c.pth\n")
        result = run(path=str(path))
        assert result["sidecar"] == {"path": f"{path}.sha256", "matches": True}
        assert result["sha256"] == digest

    def test_tensors_and_values(self, run, tmp_path):
        import torch

        saved = {
            "model_state_dict": {"w": torch.zeros(2, 3), "b": torch.tensor([1.0, float("nan")])},
            "global_step": 70,
        }
        result = run(path=str(save(tmp_path / "c.pth", saved)), scan_values=True, list_tensors=True)
        assert result["tensor_list"] == [
            {"name": "model_state_dict.w", "shape": [2, 3], "dtype": "float32", "storage": "0"},
            {"name": "model_state_dict.b", "shape": [2], "dtype": "float32", "storage": "1"},
        ]
        assert result["value_scan"] == {
            "scanned": 2,
            "not_scanned": [],
            "nan": ["model_state_dict.b"],
            "infinite": [],
            "zero": ["model_state_dict.w"],
        }
        assert set(result["value_scan"]) == set(documented()["value_scan"]["contains"])
        assert set(result["tensor_list"][0]) == set(documented()["tensor_list"]["contains"])
        assert {problem["code"] for problem in result["problems"]} == {"nan_values", "zero_values"}
        assert (result["valid"], result["step"]) == (True, 70)
        assert "torch.FloatStorage" in result["globals"]["allowed"]

    def test_expectations(self, run, tmp_path):
        path = str(save(tmp_path / "c.pth", content(epoch=5, metadata=True)))
        like = str(save(tmp_path / "d.pth", content(epoch=2)))
        good = {"keys": ["optimizer_state_dict"], "min_epoch": 5, "config": "hex8_2p", "like": like}
        assert run(path=path, expect=good)["problems"] == []
        other = str(save(tmp_path / "e.pth", content(epoch=2, width=7)))
        result = run(path=path, expect={"keys": ["x"], "min_epoch": 6, "config": "hex8_3p", "like": other})
        assert result["valid"] is False
        assert result["integrity"] == "verified"
        assert [problem["code"] for problem in result["problems"]] == [
            "key_missing",
            "epoch_too_low",
            "wrong_config",
            "shapes_differ",
        ]
        assert "model_state_dict" not in result["problems"][3]["message"]
        assert "0.weight is float32[5, 6], not float32[5, 7]" in result["problems"][3]["message"]


class TestFailure:
    def test_expectation_that_cannot_be_looked_at(self, run, tmp_path):
        path = str(save(tmp_path / "c.pth"))
        result = run(path=path, expect={"like": str(tmp_path / "none.pth")})
        assert result["failed"] is True
        assert result["msg"] == f"Could not read {tmp_path}/none.pth: it does not exist. Check the path."
        assert "hex8-2p" in run(path=path, expect={"config": "hex8-2p"})["msg"]

    def test_missing(self, run, tmp_path):
        result = run(path=str(tmp_path / "none.pth"))
        assert result["failed"] is True
        assert result["msg"] == f"Could not read {tmp_path}/none.pth: it does not exist. Check the path."

    def test_depth(self, run, tmp_path):
        assert "depth" in run(path=str(tmp_path), depth="deep")["msg"]


def test_documentation_names_every_code():
    """A code that users cannot look up is one that they cannot use in conditions."""
    import pathlib
    import re

    from ansible_collections.ringrift.recovery.plugins.module_utils import _pickle, _zip

    used = set()
    folder = pathlib.Path(_zip.__file__).parent
    engines = [pathlib.Path(engine.__file__) for engine in (_pickle, _zip)]
    for name in ("", "_content", "_expect", "_legacy", "_safetensors", "_tar", "_zip"):
        engines.append(folder / f"_checkpoint{name}.py")
    for engine in engines:
        text = engine.read_text()
        used |= set(re.findall(r'findings\.add\(\s*"(\w+)"', text))
        used |= set(re.findall(r'Problem\(\s*"(\w+)"', text))
        used |= set(re.findall(r'_problem\(member, "(\w+)"', text))
        used |= set(re.findall(r'_Damaged\(\s*"([a-z]+_\w+)"', text))
        used |= {name for name in ("directory_damaged", "local_header_mismatch") if f'"{name}"' in text}
    text = " ".join(documented()["problems"]["contains"]["code"]["description"])
    assert len(used) > 40
    assert {code for code in used if f"V({code})" not in text} == set()


def test_as_an_operator_runs_it(tmp_path, root):
    """Through the command line, in the interpreter of the node, once."""
    path = flipped(save(tmp_path / "c.pth"), "data/0")
    command = [os.path.join(os.path.dirname(sys.executable), "ansible"), "localhost"]
    command += ["-m", "ringrift.recovery.checkpoint_verify", "-a", f"path={path}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "damaged: crc_mismatch in c/data/0" in done.stdout

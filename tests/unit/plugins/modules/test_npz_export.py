# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import npz_export

from tests.unit.game_files import make

EXPORTER = """
import shutil, sys
shutil.copy("fresh.npz", sys.argv[sys.argv.index("--output") + 1])
sys.exit(89)
"""


@pytest.fixture
def service(tmp_path) -> pathlib.Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "data" / "training").mkdir(parents=True)
    make(tmp_path / "data" / "games" / "hex8_2p.db")
    (tmp_path / "scripts" / "export_replay_dataset.py").write_text(EXPORTER)
    features = np.random.default_rng(1).integers(0, 2, (120, 4, 9, 9)).astype("<f4")
    np.savez_compressed(
        tmp_path / "fresh.npz", features=features, values=np.zeros(120, "<f4"), board_type=np.asarray("hex8")
    )
    return tmp_path


@pytest.fixture
def run(capsys, service):
    def call(**more) -> dict:
        options = {"config": "hex8_2p", "service_path": str(service), "python": sys.executable, "min_free": 0, **more}
        with patch_module_args(options), pytest.raises(SystemExit):
            npz_export.main()
        return json.loads(capsys.readouterr().out)

    return call


def tree(folder: pathlib.Path) -> dict:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("refresh", ["auto", "always"])
def test_four_runs(run, service, refresh):
    """Check, run, check again, run again: changed, changed, ok, ok; with always, changed each time."""
    again = refresh == "always"
    before = tree(service)
    predicted = run(refresh=refresh, _ansible_check_mode=True)
    assert tree(service) == before
    assert (predicted["changed"], predicted["exported"], predicted["samples"]) == (True, False, None)
    done = run(refresh=refresh)
    assert (done["changed"], done["exported"], done["samples"], done["rc"]) == (True, True, 120, 89)
    assert predicted["reason"] == done["reason"] == "missing"
    after = tree(service)
    assert run(refresh=refresh, _ansible_check_mode=True)["changed"] is again
    assert tree(service) == after
    assert run(refresh=refresh)["changed"] is again
    assert sorted(os.listdir(service / "data" / "training")) == [
        *("hex8_2p.npz", "hex8_2p.npz.lock"),
        *["hex8_2p.npz.previous"] * again,
    ]


def test_every_key_is_documented_and_there_in_every_case(run):
    documented = set(yaml.safe_load(npz_export.RETURN))
    of_a_file = {"owner", "group", "uid", "gid", "mode", "state"}
    for more in ({"_ansible_check_mode": True}, {}, {}, {"refresh": "never"}):
        keys = set(run(**more)) - {"changed", "failed", "invocation"}
        assert documented - of_a_file <= keys <= documented


def test_diff(run):
    predicted = run(_ansible_check_mode=True, _ansible_diff=True)["diff"]
    assert predicted["before"] == {}
    assert predicted["after"]["because"] == "missing"
    assert "--output" in predicted["after"]["exported by"]
    done = run(_ansible_diff=True)["diff"]
    assert done["after"]["samples"] == 120


def test_a_failed_export_says_all_that_a_good_one_does(run, service):
    (service / "scripts" / "export_replay_dataset.py").write_text("import sys; sys.exit('no games, sorry')")
    result = run()
    assert result["failed"] is True
    assert "no games, sorry" in result["msg"]
    assert (result["changed"], result["exported"], result["rc"]) == (False, False, 1)
    assert result["stderr"] == "no games, sorry\n"
    assert os.listdir(service / "data" / "training") == ["hex8_2p.npz.lock"]


def test_ansible_itself_takes_neither_exit_code_89_nor_none_for_a_failure(service, root):
    options = f"config=hex8_2p service_path={service} python={sys.executable} min_free=0"
    for more, changed in (([], True), (["--check"], False)):
        command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local", *more]
        command += ["-e", f"ansible_python_interpreter={sys.executable}"]
        command += ["-m", "ringrift.recovery.npz_export", "-a", options]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("CHANGED" if changed else "SUCCESS") in done.stdout
        assert "samples: 120" in done.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": "../x_2p"}, "hex8_2p"),
        ({"service_path": "/nowhere"}, "Set service_path"),
        ({"extra_args": ["--output=/etc/passwd"]}, "around the verification"),
        ({"refresh": "now"}, "auto, always, never"),
    ],
)
def test_what_is_refused(run, change, words):
    result = run(**change)
    assert result["failed"] is True
    assert words in result["msg"]


def test_the_defaults_are_those_of_the_documentation():
    options = yaml.safe_load(npz_export.DOCUMENTATION)["options"]
    assert {name: option.get("default") for name, option in options.items()} == {
        "path": None,
        "python": None,
        "min_samples": 100,
        "refresh": "auto",
        "allow_noncanonical": False,
        "single_threaded": True,
        "extra_args": [],
        "timeout": 1800,
        "lock_timeout": 300,
        "min_free": 2147483648,
    }

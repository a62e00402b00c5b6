# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each training node looks like after a recovery."""

from __future__ import annotations


def service(host):
    return host.ansible.get_variables()["ringrift_service_path"]


def test_training_file_is_whole(host):
    path = f"{service(host)}/data/training/hex8_2p.npz"
    result = host.ansible("ringrift.recovery.npz_inspect", f"path={path} depth=full expect=config=hex8_2p", check=False)
    assert result["valid"], result["problems"]
    assert result["samples"] >= 100


def test_previous_training_file_is_kept(host):
    assert host.file(f"{service(host)}/data/training/hex8_2p.npz.previous").exists


def test_canonical_model_is_whole(host):
    path = f"{service(host)}/models/canonical_hex8_2p.pth"
    result = host.ansible("ringrift.recovery.checkpoint_verify", f"path={path}", check=False)
    assert result["valid"], result["problems"]


def test_no_dead_holder_keeps_the_lock(host):
    result = host.ansible(
        "ringrift.recovery.training_lock", f"config=hex8_2p service_path={service(host)}", check=False
    )
    assert result["lock"]["verdict"] in ("free", "held_live")

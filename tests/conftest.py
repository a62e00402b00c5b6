# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures that every test may use."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import HealthCheck, settings

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Beside two other workers any example may be slow; the rest is as hypothesis has it.
settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real() -> pathlib.Path:
    """Captures and sample data that the real service wrote; they stand beside the checkout on some machines only."""
    path = ROOT.parent / "shared" / "real"
    if not path.is_dir():
        pytest.skip("the captures of the real service are not on this machine")
    return path

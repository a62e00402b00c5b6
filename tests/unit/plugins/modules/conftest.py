# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.module_utils.common import warnings


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own():
    """Ansible remembers the warnings of a whole process, in which a module is usually alone."""
    warnings._global_warnings.clear()
    warnings._global_deprecations.clear()

# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machine this is, since when it runs, as whom one looks at it, and what its clock says.

This util is private to the collection.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Optional

from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

# systemd-timesyncd leaves this when it has set the clock. Of other services nothing tells without asking them.
SYNCHRONIZED = "/run/systemd/timesync/synchronized"


def look(reference_time: Optional[float] = None, synchronized: str = SYNCHRONIZED) -> Dict[str, Any]:
    """See this node.

    :param reference_time: unix seconds by another clock, at about this moment
    """
    now = time.time()
    uid = os.geteuid()
    try:
        boot_id: Optional[str] = _proc.boot_id()
    except RecoveryError:
        boot_id = None
    return {
        "hostname": _proc.hostname(),
        "now": round(now, 3),
        "boot_id": boot_id,
        "booted_at": round(_proc.boot_time(), 3),
        "uptime": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        "load": [round(value, 2) for value in os.getloadavg()],
        "cpus": os.cpu_count(),
        "user": _proc.user_names().get(uid, str(uid)),
        "root": uid == 0,
        "clock_offset": None if reference_time is None else round(now - reference_time, 3),
        "clock_synchronized": True if os.path.exists(synchronized) else None,
    }

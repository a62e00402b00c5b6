# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The YAML of the service's hosts file. This util is private to the collection."""

from __future__ import annotations

from typing import Any

import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

TEXT_LIMIT = 16 * 1024 * 1024
REASON_LIMIT = 300


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Plain data only, and no key twice: of two hosts with one name the first would vanish."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _value in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"it has {key.value!r} twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str) -> Any:
    """The data in the text.

    :raises RecoveryError: it is too long, or is not YAML with each key once
    """
    if len(text) > TEXT_LIMIT:
        raise RecoveryError(f"{source} has {len(text)} characters, and more than {TEXT_LIMIT} are not read.")
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        problem = getattr(exc, "problem", None) or str(exc) or type(exc).__name__
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise RecoveryError(f"{source}{where} cannot be read as YAML: {problem[:REASON_LIMIT]}. Correct it.") from exc

#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: training_lock
short_description: Query or release the training lock of a config
version_added: 0.1.0
description:
  - Says who holds the training lock of a config, whether that holder lives, and whether the lock may be released.
  - Releases a lock whose holder is proven gone, by compare and swap, so that a lock which somebody takes at the same
    moment is never touched.
  - The lock is never taken to look at it. For a lock file the kernel is asked through C(/proc) who keeps its
    C(flock); a file that is left over, with nobody keeping its flock, is not a held lock. For Redis the key is read.
  - A free lock does not mean that no trainer runs, and a held lock does not mean that one runs; see
    M(ringrift.recovery.training_process).
author: The ringrift.recovery authors (@ringrift)
options:
  state:
    description:
      - V(query) only looks.
      - V(released) makes sure that nobody who is gone is in the way. A free lock is left alone; one that is
        C(releasable) is released; of any other nothing is touched and the module fails, unless O(expect_holder) and
        O(force) are given.
    type: str
    choices: [query, released]
    default: query
  backend:
    description:
      - Where to look.
      - V(auto) is the lock file, and Redis besides where O(redis_url) is given. A Redis that does not answer is then
        a lock with the verdict V(unknown); with V(redis) it is a failure. A refused logon is always a failure.
    type: str
    choices: [auto, file, redis]
    default: auto
  path:
    description:
      - Another lock file than C(data/locks/training_<config>.lock) in O(service_path).
    type: path
  redis_url:
    description:
      - The Redis that the service uses for its locks, V(redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]), V(rediss://…)
        for TLS, or V(unix://[[USER]:PASSWORD@]/PATH[?db=DB]). The same as its environment variable E(REDIS_URL),
        which is not read here.
      - Write V(/), V(?), V(#) and V(@) in a password percent-encoded.
    type: str
  expect_holder:
    description:
      - The token of the holder that is to be there, as RV(lock.holder.token) gives it.
      - Without O(force), where the lock has another holder, nothing is released and the module fails.
      - With O(force), the one holder whose lock may be broken. A lock of another holder is then released only if it is
        C(releasable), so that the same command can go to many nodes.
    type: str
  force:
    description:
      - Release a lock also when its holder lives or may live. Needs O(expect_holder), which must be the token of just
        that holder; without it the module fails and names the token.
      - A live holder is not stopped by this and does not notice. Stop it first wherever that is possible.
    type: bool
    default: false
  assume_gone:
    description:
      - Processes of this node to be taken for dead, in check mode only, to predict the verdict after an earlier step
        has stopped them. Without effect in a real run.
    type: list
    elements: int
    default: []
  timeout:
    description:
      - Seconds for the whole conversation with Redis.
    type: float
    default: 5.0
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
extends_documentation_fragment:
  - ringrift.recovery._attributes
  - ringrift.recovery._service
  - ringrift.recovery._service.path
notes:
  - What each verdict means, and whether the lock may be released. Age alone never makes a lock releasable.
  - "V(free): not releasable, there is nothing to release. No file, no key."
  - "V(held_live): not releasable. File: a live process keeps the flock. Redis: the recorded process lives on this
    host."
  - "V(held_live_foreign): not releasable. The record names another host, or one that may be another; ask there."
  - "V(orphan_fd): not releasable. File: the recorded process is gone, but another one, such as a data loader worker,
    inherited the flock and keeps it; stop that one."
  - "V(unknown): not releasable. What was seen proves nothing, for example since the open files of other users'
    processes cannot be seen; use C(become)."
  - "V(stale_dead): releasable. Redis: the recorded process of this host is gone, and its key still blocks everybody."
  - "V(stale_pid_reused): releasable. File: nobody keeps the flock, and the recorded number belongs to a process that
    was started after the lock was taken."
  - "V(stale_prior_boot): releasable. File: nobody keeps the flock, and this host was started after the lock was taken."
  - "V(stale_expired): releasable. File: nobody keeps the flock, the recorded process lives, and the lifetime is over."
  - "V(orphan_file): releasable. File: left over; nobody keeps the flock, and the recorded process is gone or has let
    it go, or the record is empty. This is what C(kill -9) and a full disk leave; the service does not count it as
    held."
  - Run it where the processes of the service can be seen, so not in another container on the same node.
  - Locks in the Raft cluster of the P2P orchestrator are not looked at.
seealso:
  - module: ringrift.recovery.training_process
"""

EXAMPLES = r"""
- name: Look who holds the training lock
  ringrift.recovery.training_lock:
    config: hex8_2p
  register: training_lock

- name: Release the lock if its holder is gone, in the file and in Redis
  ringrift.recovery.training_lock:
    config: hex8_2p
    redis_url: "{{ redis_url }}"
    state: released

- name: Break the lock of a holder that somebody has looked at
  ringrift.recovery.training_lock:
    config: hex8_2p
    state: released
    expect_holder: nebius-h100-3:1993:0ef85993
    force: true

- name: Predict in check mode what is left of the lock once two processes are stopped
  ringrift.recovery.training_lock:
    config: hex8_2p
    state: released
    assume_gone: [1993, 2144]
"""

RETURN = r"""
lock:
  description:
    - The lock before anything was done. Of several, the one that stands most in the way of a release.
  type: dict
  returned: always
  contains:
    name:
      description: The name that the service gives the lock.
      type: str
      returned: always
      sample: training:hex8_2p
    backend:
      description: V(file) or V(redis).
      type: str
      returned: always
      sample: file
    path:
      description: The lock file; V(null) for Redis.
      type: str
      returned: always
      sample: /home/ubuntu/ringrift/ai-service/data/locks/training_hex8_2p.lock
    key:
      description: The key in Redis; V(null) for a file.
      type: str
      returned: always
      sample: lock:training:hex8_2p
    server:
      description: Host, port and database of Redis, without user name and password; V(null) for a file.
      type: str
      returned: always
      sample: 127.0.0.1:6379/0
    held:
      description:
        - Whether the service counts the lock as held, so that nobody else gets it. For a file, whether anybody keeps
          its flock; for Redis, whether the key exists. V(null) where that cannot be told.
      type: bool
      returned: always
      sample: true
    holder:
      description: Who took the lock, as far as it is known; V(null) where nobody is.
      type: dict
      returned: always
      contains:
        host:
          description: The recorded host name.
          type: str
          returned: always
          sample: nebius-h100-3
        pid:
          description: The recorded process ID on that host.
          type: int
          returned: always
          sample: 1993
        token:
          description:
            - The record of this one acquisition, C(host:pid:8hex), for O(expect_holder). V(null) where the record is
              not written yet.
          type: str
          returned: always
          sample: nebius-h100-3:1993:0ef85993
        acquired_at:
          description: When the lock was taken, in unix seconds. V(null) for Redis, which does not record it.
          type: float
          returned: always
          sample: 1795469898.1287193
        ttl:
          description:
            - Seconds that the lock lives. For a file, what its holder gave it; for Redis, what is left of it, V(null)
              where it never expires.
          type: float
          returned: always
          sample: 3600.0
        age:
          description: Seconds since the lock was taken. V(null) for Redis.
          type: float
          returned: always
          sample: 71.4
        expires_in:
          description: Seconds until the lock expires, negative when it has. V(null) where it is not known.
          type: float
          returned: always
          sample: 3528.6
        alive:
          description: Whether the recorded process lives. V(null) where that cannot be told.
          type: bool
          returned: always
          sample: true
        holders:
          description: The processes of this node that keep the flock of the lock file. Empty for Redis.
          type: list
          elements: int
          returned: always
          sample: [1993]
    verdict:
      description:
        - V(free), V(held_live), V(held_live_foreign), V(stale_dead), V(stale_pid_reused), V(stale_prior_boot),
          V(stale_expired), V(orphan_fd), V(orphan_file) or V(unknown). The notes say what each means.
      type: str
      returned: always
      sample: held_live
    releasable:
      description: Whether the lock may be released without O(force). Follows from the verdict alone.
      type: bool
      returned: always
      sample: false
    reason:
      description: What the verdict rests on.
      type: str
      returned: always
      sample: process 1993 of nebius-h100-3 lives and keeps its flock
locks:
  description: The lock in every place that was looked into, each as in RV(lock).
  type: list
  elements: dict
  returned: always
  sample: []
split_brain:
  description:
    - Whether the lock is held in the file and in Redis at once. Then two processes may each believe that it is theirs.
  type: bool
  returned: always
  sample: false
record:
  description:
    - What stood in the lock before anything was done, as lines, bounded, by backend; V(null) where there is none.
  type: dict
  returned: always
  contains:
    file:
      description: The lines of the lock file.
      type: list
      elements: str
      returned: when the file was looked at
      sample: ["nebius-h100-3:1993:0ef85993", "1795469898.1287193", "3600"]
    redis:
      description: The value of the key.
      type: list
      elements: str
      returned: when Redis was looked at
      sample: ["nebius-h100-3:1993:0ef85993"]
released:
  description: Whether a lock was released, or in check mode would be.
  type: bool
  returned: always
  sample: true
after:
  description: The lock afterwards, in check mode as it would be; as in RV(lock).
  type: dict
  returned: always
  sample: {}
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._lock import (
    LockReport,
    inspect_all,
    refusal,
    release,
    released,
)


def look(module: AnsibleModule) -> LockReport:
    params = module.params
    return inspect_all(
        parse_config(params["config"]),
        params["service_path"],
        backend=params["backend"],
        path=params["path"],
        redis_url=params["redis_url"],
        assume_gone=params["assume_gone"] if module.check_mode else (),
        timeout=params["timeout"],
    )


def result_of(module: AnsibleModule, before: LockReport, after: LockReport, changed: bool) -> Dict[str, Any]:
    result = {**before.as_dict(), "changed": changed, "released": changed, "after": after.lock.as_dict()}
    if module._diff and module.params["state"] == "released":
        result["diff"] = {"before": {"locks": result["locks"]}, "after": {"locks": after.as_dict()["locks"]}}
    return result


def ensure_released(module: AnsibleModule, before: LockReport) -> Dict[str, Any]:
    """The result; it has a ``msg`` where the locks could not be released."""
    force = module.params["force"]
    refused = refusal(before, module.params["expect_holder"], force)
    if refused:
        return {**result_of(module, before, before, changed=False), "msg": refused}
    if module.check_mode or not before.taken:
        return result_of(module, before, released(before), changed=bool(before.taken))
    for number, lock in enumerate(before.taken):
        try:
            missed = release(lock, force, module.params["timeout"])
            after = look(module) if missed else before
            why = f"{missed}. It has changed meanwhile; run it again." if missed else None
        except RecoveryError as exc:
            # What was released before it stays told, with its record.
            after, why = before, str(exc)
        if why:
            msg = f"Lock {lock.name} ({lock.place}) was not released: {why}"
            return {**result_of(module, before, after, changed=number > 0), "msg": msg, "released": False}
    return result_of(module, before, look(module), changed=True)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "str", "required": True},
            "service_path": {"type": "path", "default": "~/ringrift/ai-service"},
            "state": {"type": "str", "choices": ["query", "released"], "default": "query"},
            "backend": {"type": "str", "choices": ["auto", "file", "redis"], "default": "auto"},
            "path": {"type": "path"},
            "redis_url": {"type": "str", "no_log": True},
            "expect_holder": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "assume_gone": {"type": "list", "elements": "int", "default": []},
            "timeout": {"type": "float", "default": 5.0},
        },
        required_if=[("backend", "redis", ["redis_url"])],
        supports_check_mode=True,
    )
    try:
        before = look(module)
        if module.params["state"] == "released":
            result = ensure_released(module, before)
        else:
            result = result_of(module, before, before, changed=False)
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

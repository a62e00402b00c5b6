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
      - V(auto) looks wherever a lock may be, and says in RV(chosen) which backend the service itself uses and why. It
        asks the service's Python API which one that is, where O(python) is there; it looks at the lock file in any
        case, and at Redis where O(redis_url) is given or the API selects it. A Redis that does not answer is then a
        lock with the verdict V(unknown). A refused logon is always a failure.
      - V(file) is the lock file alone.
      - V(redis) is Redis alone; that it does not answer is a failure.
      - V(api) is what the service's Python API selects, and it is a failure when that cannot be asked. The runbook's
        C(training_lock), which has C(get_holder) and C(force_release), is used as it is. Of today's
        C(DistributedLock) only the backend and its place are learned; the file or the key is then looked at directly.
    type: str
    choices: [auto, file, redis, api]
    default: auto
  python:
    description:
      - The Python that has what the service needs, to ask the service's API; relative to O(service_path) where it is
        not absolute. It is not used with O(backend=file) and O(backend=redis), nor with O(path).
    type: str
    default: venv/bin/python
  api_timeout:
    description:
      - Seconds for one question to the service's API. Importing the service takes most of it. After that the
        interpreter and all that it has started are killed.
    type: float
    default: 15.0
  path:
    description:
      - Another lock file than C(data/locks/training_<config>.lock) in O(service_path).
    type: path
  redis_url:
    description:
      - The Redis that the service uses for its locks, V(redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]), V(rediss://…)
        for TLS, or V(unix://[[USER]:PASSWORD@]/PATH[?db=DB]). The same as its environment variable E(REDIS_URL),
        which only the service's own API reads, where it is asked.
      - Write V(/), V(?), V(#) and V(@) in a password percent-encoded.
      - For TLS, V(ssl_ca_certs), V(ssl_certfile) and V(ssl_keyfile) in the query name files,
        V(ssl_check_hostname=false) accepts a certificate for another name, and V(ssl_cert_reqs=none) any certificate.
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
  holder_answers:
    description:
      - What the hosts that a lock may name say of its holder, as M(ringrift.recovery.lock_holder) returns it there.
      - A holder on another host counts as gone only where every answer about its token says so. A host that was asked
        and did not answer is given with the verdict V(unknown).
      - Of each answer RV(ringrift.recovery.lock_holder#module:token), RV(ringrift.recovery.lock_holder#module:verdict),
        RV(ringrift.recovery.lock_holder#module:reason), RV(ringrift.recovery.lock_holder#module:hostname) and
        RV(ringrift.recovery.lock_holder#module:kept) are looked at, and C(host), which names whom was asked.
    type: list
    elements: dict
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
    C(docs/locks.md) has the same as a table, with what to do.
  - "V(free): not releasable, there is nothing to release. No file, no key."
  - "V(held_live): not releasable. File: a live process keeps the flock. Redis, API: the recorded process lives on this
    host."
  - "V(held_live_foreign): not releasable. The record names another host, or one that may be another; ask there with
    M(ringrift.recovery.lock_holder), and give the answer in O(holder_answers)."
  - "V(orphan_fd): not releasable. File: the recorded process is gone, but another one, such as a data loader worker,
    inherited the flock and keeps it; stop that one."
  - "V(unknown): not releasable. What was seen proves nothing, for example since the open files of other users'
    processes cannot be seen; use C(become)."
  - "V(stale_dead): releasable. Redis, API: the recorded process is gone, and the lock still blocks everybody."
  - "V(stale_pid_reused): releasable. Nobody keeps the flock, where there is one, and the recorded number belongs to a
    process that was started after the lock was taken."
  - "V(stale_prior_boot): releasable. Nobody keeps the flock, where there is one, and the host was started after the
    lock was taken."
  - "V(stale_expired): releasable. File: nobody keeps the flock, the recorded process lives, and the lifetime is over."
  - "V(orphan_file): releasable. File: left over; nobody keeps the flock, and the recorded process is gone or has let
    it go, or the record is empty. This is what C(kill -9) and a full disk leave; the service does not count it as
    held."
  - Run it where the processes of the service can be seen, so not in another container on the same node.
  - The API is the weakest way. Between the last C(get_holder) and C(force_release) another holder may come, and
    where it says that nobody holds the lock, its C(is_locked) is asked, which in some implementations takes the lock
    for a moment. Asking it imports code of the service, in a process of its own that writes no byte code.
  - Locks in the Raft cluster of the P2P orchestrator are not looked at; one that the API selects is V(unknown).
seealso:
  - module: ringrift.recovery.lock_holder
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

- name: Ask the host of a holder on another host
  ringrift.recovery.lock_holder:
    token: "{{ training_lock.lock.holder.token }}"
  delegate_to: "{{ training_lock.lock.holder.host }}"
  register: holder

- name: Release the lock if that host says that the holder is gone
  ringrift.recovery.training_lock:
    config: hex8_2p
    redis_url: "{{ redis_url }}"
    holder_answers: "{{ [holder] }}"
    state: released

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
      description: V(file), V(redis) or V(api).
      type: str
      returned: always
      sample: file
    path:
      description: The lock file; V(null) for Redis and the API.
      type: str
      returned: always
      sample: /home/ubuntu/ringrift/ai-service/data/locks/training_hex8_2p.lock
    key:
      description: The key in Redis; V(null) for a file and the API.
      type: str
      returned: always
      sample: lock:training:hex8_2p
    server:
      description: Host, port and database of Redis, without user name and password; V(null) for a file and the
        API.
      type: str
      returned: always
      sample: 127.0.0.1:6379/0
    held:
      description:
        - Whether the service counts the lock as held, so that nobody else gets it. For a file, whether anybody keeps
          its flock; for Redis, whether the key exists; for the API, whether it names a holder. V(null) where that
          cannot be told.
      type: bool
      returned: always
      sample: true
    holder:
      description: Who took the lock, as far as it is known; V(null) where nobody is.
      type: dict
      returned: always
      contains:
        host:
          description: The recorded host name. V(null) where the API names none.
          type: str
          returned: always
          sample: nebius-h100-3
        pid:
          description: The recorded process ID on that host. V(null) where the API names none.
          type: int
          returned: always
          sample: 1993
        token:
          description:
            - The record of this one acquisition, C(host:pid:8hex), for O(expect_holder). V(null) where the record is
              not written yet. For the API, whatever it names the holder by.
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
          description: The processes of this node that keep the flock of the lock file. Empty for Redis and the API.
          type: list
          elements: int
          returned: always
          sample: [1993]
        min_age:
          description:
            - For Redis, seconds ago that the lock was taken at least, since nobody has touched its key for so long.
              V(null) where that is not known.
          type: float
          returned: always
          sample: 412.0
        host_match:
          description:
            - Whether the recorded host is this one. V(same), V(similar) where one name is the other without its domain,
              V(other), or V(null) where none is recorded.
          type: str
          returned: always
          sample: same
        processes:
          description:
            - The processes of this node that really hold the lock, at most 32. For a file those that keep its flock,
              otherwise the recorded one.
          type: list
          elements: dict
          returned: always
          sample: [{"pid": 1993, "ppid": 1871, "comm": "python", "state": "S", "start_time": 1795469890.12}]
          contains:
            pid:
              description: Its process ID.
              type: int
              returned: always
              sample: 1993
            ppid:
              description: The process ID of its parent.
              type: int
              returned: always
              sample: 1871
            comm:
              description: The name that the kernel has for it.
              type: str
              returned: always
              sample: python
            state:
              description: The letter that the kernel has for its state.
              type: str
              returned: always
              sample: S
            start_time:
              description: When it was started, in unix seconds.
              type: float
              returned: always
              sample: 1795469890.12
        parents:
          description:
            - The parent of the first of them, and so on upwards, at most eight; each as in
              RV(lock.holder.processes).
          type: list
          elements: dict
          returned: always
          sample: []
        children:
          description: What they have started, and so on downwards, at most 32; each as in RV(lock.holder.processes).
          type: list
          elements: dict
          returned: always
          sample: []
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
    - Whether the lock is held in two places at once, such as the file and Redis. Then two processes may each believe
      that it is theirs.
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
    api:
      description: The holder in the words of the API.
      type: list
      elements: str
      returned: when the API has a lock of its own
      sample: ["nebius-h100-3:1993:0ef85993"]
chosen:
  description: Which backend the service itself uses, as far as it is known.
  type: dict
  returned: always
  contains:
    backend:
      description: V(file), V(redis), V(api), or the name of one that only the service knows.
      type: str
      returned: always
      sample: redis
    reason:
      description: How that is known.
      type: str
      returned: always
      sample: "the service's own API was asked: it selects redis"
findings:
  description: What is wrong with the places taken together.
  type: list
  elements: dict
  returned: always
  sample: []
  contains:
    code:
      description:
        - V(split_brain) where it is held in two places at once, V(other_backend) where there is a lock in a place that
          the service does not use, V(api_unusable) where the service's API is there and could not be asked.
      type: str
      returned: always
      sample: split_brain
    message:
      description: The same in a sentence.
      type: str
      returned: always
      sample: There is a lock in file /a/training_hex8_2p.lock, but the service uses redis and does not look there.
node:
  description: The host that was looked at.
  type: dict
  returned: always
  contains:
    hostname:
      description: Its own name, as the service records it.
      type: str
      returned: always
      sample: nebius-h100-3
    boot_id:
      description: The identity of its boot.
      type: str
      returned: always
      sample: 5f0c1f3e-9d0b-4d7b-8f0a-3c1f0a0f9f53
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
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_api import Service
from ansible_collections.ringrift.recovery.plugins.module_utils._lock_holder import parse_answers


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
        service=Service(params["service_path"], params["python"], params["redis_url"], params["api_timeout"]),
        answers=parse_answers(params["holder_answers"]),
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
        # The API may only tell once more of a lock that has just been released where it is.
        told_again = lock.backend == "api" and lock.token in [other.token for other in before.taken[:number]]
        try:
            missed = release(lock, force, module.params["timeout"])
            if missed and told_again:
                continue
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
            "backend": {"type": "str", "choices": ["auto", "file", "redis", "api"], "default": "auto"},
            "python": {"type": "str", "default": "venv/bin/python"},
            "api_timeout": {"type": "float", "default": 15.0},
            "path": {"type": "path"},
            "redis_url": {"type": "str", "no_log": True},
            "expect_holder": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "assume_gone": {"type": "list", "elements": "int", "default": []},
            "holder_answers": {"type": "list", "elements": "dict", "default": []},
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

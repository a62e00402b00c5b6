#!/usr/bin/python
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
---
module: p2p_request
short_description: Send bounded JSON requests to the P2P orchestrator from the node
version_added: 0.1.0
description:
  - Sends a list of HTTP requests with JSON bodies from the node, and returns what came back.
  - A refused connection, a timeout, an error status or an answer that is not JSON is data in RV(answers), never a
    failure of the module. The module fails only when it could not even try, for example for a URL that is not one.
  - No proxy is used and no redirect is followed. Neighbouring GET requests are sent side by side, all others one at a
    time and in their order.
  - M(ringrift.recovery.p2p_training) uses this module. Use it directly for requests that it does not know.
author: The ringrift.recovery authors (@ringrift)
options:
  url:
    description:
      - Where the orchestrator listens, as seen from the node, without the path of a request.
    type: str
    default: http://localhost:8770
  requests:
    description:
      - What to send, at most 256 requests.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What to call the answer. The default is the method and the path.
        type: str
      method:
        description:
          - The HTTP method.
        type: str
        choices: [GET, POST, PUT, PATCH, DELETE]
        default: GET
      path:
        description:
          - The path with its query, if any. It begins with a slash.
        type: str
        required: true
      body:
        description:
          - What to send as JSON. Without it the body is empty.
        type: raw
  token:
    description:
      - The token of the cluster, sent in O(token_headers). It is never returned.
    type: str
  token_headers:
    description:
      - Headers that carry the token. C(Authorization) carries it as a bearer token, every other one, such as
        C(X-RingRift-Auth), carries it alone.
    type: list
    elements: str
    default: [Authorization]
  timeout:
    description:
      - Seconds for one request, from connecting to the last byte.
    type: float
    default: 5
  deadline:
    description:
      - Seconds for all requests. What has not begun by then is not sent.
    type: float
    default: 30
attributes:
  check_mode:
    support: full
    details:
      - GET requests are sent. All others are not; their answer has RV(answers[].skipped=true).
  diff_mode:
    support: none
extends_documentation_fragment:
  - ringrift.recovery._attributes
"""

EXAMPLES = r"""
- name: Ask the orchestrator for its health
  ringrift.recovery.p2p_request:
    requests:
      - name: health
        path: /health
  register: orchestrator

- name: Cancel one work item
  ringrift.recovery.p2p_request:
    url: http://localhost:8770
    token: "{{ p2p_token }}"
    requests:
      - method: POST
        path: /work/cancel
        body:
          work_id: 3e993afd
"""

RETURN = r"""
changed:
  description:
    - Whether a request other than GET was answered with a 2xx status. In check mode, whether one would be sent.
  returned: always
  type: bool
  sample: false
url:
  description: The URL that the requests went to.
  returned: success
  type: str
  sample: http://localhost:8770
time:
  description: The node's clock after the last answer, in seconds since the epoch.
  returned: success
  type: float
  sample: 1795470464.12
answers:
  description: One answer for each request, in the order of the requests.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the request.
      type: str
      sample: health
    method:
      description: The method of the request.
      type: str
      sample: GET
    path:
      description: The path of the request.
      type: str
      sample: /health
    status:
      description: The HTTP status, or null when no HTTP answer came.
      type: int
      sample: 200
    body:
      description: The parsed JSON, or the text cut at 2000 characters, or null when there is none.
      type: raw
      sample: {"healthy": true, "role": "leader"}
    error:
      description: Why no whole answer came, or null.
      type: str
      sample: connection refused
    seconds:
      description: How long the request took, in seconds.
      type: float
      sample: 0.004
    skipped:
      description: Whether the request was not sent because of check mode.
      type: bool
      sample: false
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import check_url, parse_requests, send


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://localhost:8770"},
            "requests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str"},
                    "method": {
                        "type": "str",
                        "choices": ["GET", "POST", "PUT", "PATCH", "DELETE"],
                        "default": "GET",
                    },
                    "path": {"type": "str", "required": True},
                    "body": {"type": "raw"},
                },
            },
            "token": {"type": "str", "no_log": True},
            "token_headers": {"type": "list", "elements": "str", "default": ["Authorization"], "no_log": False},
            "timeout": {"type": "float", "default": 5},
            "deadline": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        url = check_url(params["url"])
        answers = send(
            url,
            parse_requests(params["requests"]),
            token=params["token"],
            timeout=params["timeout"],
            deadline=params["deadline"],
            dry_run=module.check_mode,
            token_headers=params["token_headers"],
        )
    except RecoveryError as exc:
        module.fail_json(msg=str(exc))
    changed = any(answer.skipped or (answer.method != "GET" and answer.ok) for answer in answers)
    module.exit_json(changed=changed, url=url, time=time.time(), answers=[answer.as_dict() for answer in answers])


if __name__ == "__main__":
    main()

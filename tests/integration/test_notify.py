# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role that tells others, with a real web server and a real mail server on loopback."""

from __future__ import annotations

import email.policy
import http.server
import json
import socketserver
import ssl

import pytest
import trustme

from tests.integration.harness import ROOT, run
from tests.integration.listeners import Hook, Mail, SlackBehindAProxy

SECRET = "s3cret-t0ken"


def tell(tmp_path, *words, environment=None, **variables):
    playbook = tmp_path / "play.yml"
    role = {"role": "ringrift.recovery.notify", "vars": {"notify_config": "hex8_2p", **variables}}
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "roles": [role]}]))
    return run("ansible-playbook", str(playbook), "-vvv", *words, cwd=ROOT, **(environment or {}))


@pytest.fixture
def slack(tmp_path, serve):
    """Slack, and the environment in which its hosts are reached through the proxy and believed."""
    authority = trustme.CA()
    server, port = serve(http.server.ThreadingHTTPServer, SlackBehindAProxy)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.answer = {"ok": True, "channel": "C0123456789", "ts": "1795862427.000100"}
    authority.issue_cert("hooks.slack.com", "slack.com").configure_cert(server.context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    return server, {"https_proxy": f"http://127.0.0.1:{port}", "SSL_CERT_FILE": str(tmp_path / "authority.pem")}


def test_slack_is_told_through_an_incoming_webhook(tmp_path, slack):
    server, environment = slack
    token = f"T024BE7LD/B024BE7LH/{SECRET}"
    told = {"notify_outcome": "recovered", "notify_lines": ["h100: stopped pid 27"], "notify_slack_token": token}
    done = tell(tmp_path, environment=environment, **told)
    assert done.returncode == 0, done.stdout
    assert "did not reach" not in done.stdout
    ((host, path, body),) = server.heard
    assert (host, path) == ("hooks.slack.com:443", f"/services/{token}")
    assert body["text"] == "hex8_2p: recovered\nh100: stopped pid 27"
    assert SECRET not in done.stdout
    tell(tmp_path, "--check", environment=environment, **told)
    assert len(server.heard) == 1


@pytest.mark.parametrize("refusal", [None, "channel_not_found"])
def test_slack_is_told_through_its_web_api_and_a_refusal_is_said(tmp_path, slack, refusal):
    """Slack refuses with HTTP 200."""
    server, environment = slack
    if refusal:
        server.answer = {"ok": False, "error": refusal}
    told = {"notify_slack_token": f"xoxb-1234-56789abcdef-{SECRET}", "notify_slack_channel": "#training"}
    done = tell(tmp_path, environment=environment, notify_event="started", **told)
    assert done.returncode == 0, done.stdout
    ((host, path, body),) = server.heard
    assert (host, path) == ("slack.com:443", "/api/chat.postMessage")
    assert (body["channel"], body["text"]) == ("#training", "hex8_2p: recovery started")
    assert ("did not reach Slack" in done.stdout) is bool(refusal)
    assert SECRET not in done.stdout


def test_a_webhook_and_people_are_told_and_the_secret_is_not_shown(tmp_path, serve):
    hook, port = serve(http.server.ThreadingHTTPServer, Hook)
    mail, mail_port = serve(socketserver.ThreadingTCPServer, Mail)
    told = {
        "notify_outcome": "recovered, progress is proven",
        "notify_lines": ["h100: stopped pid 27"],
        "notify_report_url": "https://reports.example.com/",
        "notify_report_name": "20261128T104027Z-hex8_2p.html",
        "notify_webhook_url": f"http://127.0.0.1:{port}/hook/{SECRET}",
        "notify_webhook_headers": {"Authorization": f"Bearer {SECRET}"},
        "notify_mail_to": ["operator@example.com"],
        "notify_mail_host": "127.0.0.1",
        "notify_mail_port": mail_port,
    }
    done = tell(tmp_path, **told)
    assert done.returncode == 0, done.stdout
    ((authorization, body),) = hook.heard
    assert authorization == f"Bearer {SECRET}"
    assert (body["event"], body["config"], body["outcome"]) == ("ended", "hex8_2p", "recovered, progress is proven")
    link = "https://reports.example.com/20261128T104027Z-hex8_2p.html"
    assert (body["report"], "h100: stopped pid 27" in body["text"], link in body["text"]) == (link, True, True)
    letter = email.message_from_string(*mail.heard, policy=email.policy.default)
    assert letter["Subject"] == "hex8_2p: recovered, progress is proven"
    assert link in next(letter.iter_parts()).get_content()
    assert SECRET not in done.stdout
    assert "did not reach" not in done.stdout
    tell(tmp_path, "--check", **told)
    assert (len(hook.heard), len(mail.heard)) == (1, 1)


def test_what_cannot_be_told_fails_nothing_and_is_said(tmp_path, serve):
    hook, port = serve(http.server.ThreadingHTTPServer, Hook)
    hook.status = 500
    done = tell(tmp_path, notify_event="started", notify_webhook_url=f"http://127.0.0.1:{port}/{SECRET}")
    assert done.returncode == 0, done.stdout
    assert "did not reach the webhook" in done.stdout
    assert hook.heard[0][1]["text"] == "hex8_2p: recovery started"
    assert SECRET not in done.stdout


def test_by_default_nobody_is_told(tmp_path):
    done = tell(tmp_path)
    assert done.returncode == 0
    assert "changed=0" in done.stdout
    assert "ok=0" not in done.stdout

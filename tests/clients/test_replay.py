"""Messages sent again: receivers that use the providers' own libraries believe them once more."""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stripe
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook

from program import CANARIES, curl, hookbot

WEEK = 7 * 24 * 3600


@pytest.fixture
def receiver():
    """A service that keeps what it gets."""
    taken = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((dict(self.headers.items()), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    service.taken = taken
    service.url = f"http://127.0.0.1:{service.server_port}/hook"
    yield service
    service.shutdown()
    service.server_close()


class Stripe:
    provider, secret = "stripe", "whsec_of_stripe_alone"
    body = b'{\n  "id": "evt_1",\r\n  "object": "event", "type": "charge.failed"\n}\n'

    def sign(self, now):
        signed = stripe.WebhookSignature._compute_signature(
            f"{now}.{self.body.decode()}", self.secret
        )
        return {"Stripe-Signature": f"t={now},v1={signed}"}

    def believes(self, headers, body):
        try:
            stripe.Webhook.construct_event(body, headers["stripe-signature"], self.secret)
        except stripe.SignatureVerificationError:
            return False
        return True


class Slack:
    provider, secret = "slack", "secret-of-slack-alone"
    body = b"token=x&command=%2Fdeploy&text=a+b%0D%0A&response_url=https%3A%2F%2Fexample.com"

    def sign(self, now):
        verifier = SignatureVerifier(self.secret)
        signed = verifier.generate_signature(timestamp=str(now), body=self.body)
        return {"X-Slack-Request-Timestamp": str(now), "X-Slack-Signature": signed}

    def believes(self, headers, body):
        return SignatureVerifier(self.secret).is_valid_request(body, headers)


class Standard:
    provider, secret = "standard-webhooks", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = '{"type":"ü","n":1.0}'.encode()

    def sign(self, now):
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(now),
            "webhook-signature": "v1,b2xk",
        }

    def believes(self, headers, body):
        try:
            Webhook(self.secret).verify(body, headers)
        except Exception:
            return False
        return True


@pytest.mark.parametrize("kind", [Stripe, Slack, Standard])
def test_a_week_old_event_of_the_log_verifies_once_it_is_signed_anew(server, receiver, kind):
    sender = kind()
    CANARIES.add(sender.secret)
    headers = sender.sign(int(time.time()) - WEEK)
    flags = [part for pair in headers.items() for part in ("-H", ": ".join(pair))]
    url = server.publishing("/pub/hooks")
    sent = curl("--fail", *flags, "--data-binary", "@-", url, input=sender.body)
    assert sent.returncode == 0, sent.stderr

    def replay(*arguments):
        source = server.subscribing("/sub/hooks") + "?since=1h"
        done = hookbot("replay", *arguments, source, receiver.url, A_SECRET=sender.secret)
        assert done.returncode == 0, done.stderr
        (headers, body), *others = receiver.taken
        assert not others
        receiver.taken.clear()
        assert body == sender.body
        return sender.believes(headers, body)

    assert not replay()
    assert replay("--resign", sender.provider, "--secret", "env:A_SECRET")


def test_files_that_others_write_are_sent(tmp_path, receiver):
    """The three files of the documents, made by hand, without a script."""
    body = b"\xff\0\r\n"
    event = {
        "cursor": "",
        "topic": "t",
        "time": "2026-01-31T12:00:00.000Z",
        "method": "POST",
        "query": "",
        "address": "",
        "headers": [["x-a", "1"], ["x-b", {"base64": "/w=="}]],
    }
    facts = {"sha256": hashlib.sha256(body).hexdigest(), "event": event}
    (tmp_path / "one.json").write_text(json.dumps(facts))
    (tmp_path / "one.body").write_bytes(body)
    done = hookbot("replay", "--json", tmp_path, receiver.url)
    assert done.returncode == 0, done.stderr
    [(headers, taken)] = receiver.taken
    assert taken == body
    assert headers["x-a"] == "1" and headers["x-b"] == "\xff"
    assert json.loads(done.stdout.splitlines()[-1])["delivered"] == 1

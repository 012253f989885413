"""What the server delivers, verified by providers' own libraries."""

import base64
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stripe
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook, WebhookVerificationError

from program import CANARIES, DEADLINE, Server, curl

OLD, NEW, OTHER = (f"whsec_{base64.b64encode(byte * 24).decode()}" for byte in (b"1", b"2", b"3"))
BODY = json.dumps({"id": "evt_1", "object": "event", "text": "café"}, ensure_ascii=False)
CANARIES.update([OLD, NEW, "hush" * 8])


class Service:
    """An HTTP service that notes what it gets, and fails as often as it is told."""

    def __init__(self):
        self.failures, self.got = 0, queue.Queue()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = 503 if service.failures > 0 else 200
                service.failures -= 1
                service.got.put((dict(self.headers.items()), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/hook" % self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def next(self):
        return self.got.get(timeout=DEADLINE)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.close()


def config(path, service, more):
    text = f"""
        [[deliver]]
        name = "d"
        topic = "in/"
        url = "{service.url}"
        allow = "127.0.0.1"
        pause = "10ms"
        {more}
    """
    path.write_text(text)


def start(tmp_path, service, more, **env):
    file = tmp_path / "hookbot.toml"
    config(file, service, more)
    return Server("--config", file, **env)


def publish(server):
    done = curl("-d", BODY, "-H", "Content-Type: application/json", server.publishing("/pub/in/x"))
    assert done.stdout == "OK\n", done.stderr


def test_the_library_of_standard_webhooks_verifies_what_is_delivered(tmp_path, service):
    server = start(tmp_path, service, 'secrets = ["env:OLD", "env:NEW"]', OLD=OLD, NEW=NEW)
    service.failures = 1
    publish(server)
    ids = []
    for _ in range(2):
        headers, body = service.next()
        assert body == BODY.encode()
        for secret in (OLD, NEW):
            assert Webhook(secret).verify(body, headers)["text"] == "café"
        with pytest.raises(WebhookVerificationError):
            Webhook(OTHER).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(OLD).verify(body + b" ", headers)
        ids.append(headers["webhook-id"])
    assert ids[0] == ids[1]

    # The old one is taken out.
    server.log.skip_to_now()
    config(tmp_path / "hookbot.toml", service, 'secrets = "env:NEW"')
    server.signal(1)
    server.log.expect("configuration loaded again")
    publish(server)
    headers, body = service.next()
    Webhook(NEW).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(body, headers)
    assert headers["webhook-id"] != ids[0]


@pytest.mark.parametrize("provider", ["stripe", "slack"])
def test_other_providers_libraries_verify_what_is_signed_their_way(tmp_path, service, provider):
    secret = "hush" * 8
    more = f'secrets = "env:SECRET"\nsign = "{provider}"'
    server = start(tmp_path, service, more, SECRET=secret)
    publish(server)
    headers, body = service.next()
    headers = {name.lower(): value for name, value in headers.items()}

    def verifies(secret):
        if provider == "stripe":
            try:
                stripe.Webhook.construct_event(body, headers["stripe-signature"], secret)
            except stripe.SignatureVerificationError:
                return False
            return True
        return SignatureVerifier(secret).is_valid_request(body, headers)

    assert verifies(secret)
    assert not verifies("other")

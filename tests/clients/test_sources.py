"""Providers' own libraries sign, and the server takes only that; addresses, limits, revocation."""

import base64
import json
import socket
import struct
import time
from datetime import datetime, timezone

import pytest
import stripe
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook
from twilio.request_validator import RequestValidator

from program import CANARIES, Hookbot, Server, curl, hookbot, token

PUBLIC = "https://hooks.example.com"
SECRETS = {
    "stripe": f"whsec_{'5' * 32}",
    "slack": "6" * 32,
    "standard-webhooks": f"whsec_{base64.b64encode(b'7' * 24).decode()}",
    "twilio": "8" * 32,
}
OTHERS = {
    "stripe": f"whsec_{'a' * 32}",
    "slack": "b" * 32,
    "standard-webhooks": f"whsec_{base64.b64encode(b'c' * 24).decode()}",
    "twilio": "d" * 32,
}
BODY = "Body=caf%C3%A9&From=%2B1"
FORM = {"Body": "café", "From": "+1"}
CANARIES.update(SECRETS.values())


def signed(provider, secret, path):
    """The headers with which a provider's own library signs BODY."""
    now = int(time.time())
    if provider == "stripe":
        signature = stripe.WebhookSignature._compute_signature(f"{now}.{BODY}", secret)
        return {"Stripe-Signature": f"t={now},v1={signature}"}
    if provider == "slack":
        signature = SignatureVerifier(secret).generate_signature(timestamp=str(now), body=BODY)
        return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}
    if provider == "twilio":
        signature = RequestValidator(secret).compute_signature(f"{PUBLIC}{path}", FORM)
        return {"X-Twilio-Signature": signature}
    moment = datetime.fromtimestamp(now, timezone.utc)
    signature = Webhook(secret).sign("msg_1", moment, BODY)
    return {"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": signature}


def typed(headers):
    return [part for pair in headers.items() for part in ("-H", "%s: %s" % pair)]


def post(server, path, headers, *more):
    """The status and the body of the answer."""
    done = curl("-w", "%{http_code}", *typed(headers), *more, "-d", BODY, server.url(path))
    return int(done.stdout[-3:]), done.stdout[:-3]


@pytest.fixture
def sources(tmp_path):
    """A server with a source for each provider, and its configuration."""
    tables = [
        f"""
        [[source]]
        topic = "/unsafe/{provider}/"
        provider = "{provider}"
        secrets = "env:SECRET_{provider.upper().replace("-", "_")}"
        promote = "verified/{provider}/"
        """
        for provider in SECRETS
    ]
    file = tmp_path / "hookbot.toml"
    file.write_text("\n".join(tables))
    secrets = {f"SECRET_{name.upper().replace('-', '_')}": own for name, own in SECRETS.items()}
    data = tmp_path / "data"
    return Server(
        "--config", file, "--public-url", PUBLIC, HOOKBOT_DATA_DIR=data, **secrets
    ), data


def test_only_what_a_provider_has_signed_gets_onto_the_safe_topic(sources):
    server, data = sources
    listener = Hookbot(
        "listen", "--json", "--count", str(len(SECRETS)), server.subscribing("/sub/verified/")
    )
    server.expect_subscriber("/sub/verified/")
    for provider, secret in SECRETS.items():
        path = f"/unsafe/pub/{provider}/a%20b?x=1&y=%20"
        headers = signed(provider, secret, path)
        for wrong in ({}, signed(provider, OTHERS[provider], path)):
            assert post(server, path, wrong)[0] == 401
        assert post(server, path, headers, "-d", "x=1")[0] == 401
        assert post(server, path, headers) == (200, "OK\n")
    for provider in SECRETS:
        message = json.loads(listener.output.next())
        assert message["topic"] == f"verified/{provider}/a b"
        assert message["verified_by"] == provider
        assert message["source"] == f"/unsafe/{provider}/"
        assert message["body"] == BODY
    assert listener.wait() == 0
    told = hookbot("sources", "--json", HOOKBOT_DATA_DIR=data).stdout.splitlines()
    figures = {line["source"]["provider"]: line["source"] for line in map(json.loads, told)}
    assert {name: own["verified"] for name, own in figures.items()} == dict.fromkeys(SECRETS, 1)
    assert all(own["rejected"] == 3 for own in figures.values())


def test_a_named_token_is_logged_by_its_name_and_revoked_by_it(tmp_path):
    denied = tmp_path / "denied"
    denied.write_text("")
    server = Server("--deny-file", denied)
    made = hookbot("make-tokens", "--bare", "--name", "ada", "/sub/", "/pub/").stdout.split()
    CANARIES.update(own.rsplit(".", 1)[1] for own in made)
    subscribing, publishing = made
    url = f"ws://{subscribing}@{server.address}/sub/a"
    listener = Hookbot("listen", url)
    server.expect_subscriber("/sub/a")
    assert curl("-d", "1", server.url("/pub/a", f"?token={publishing}")).stdout == "OK\n"
    assert listener.output.next() == "1"
    server.log.expect('path="/pub/a" status=200 .* token="ada"')
    denied.write_text("ada\n")
    server.log.expect("the token has been revoked")
    # It tries again by itself, and is told that there is no point.
    listener.log.expect("401")
    done = curl("-w", "%{http_code}", "-d", "2", server.url("/pub/a", f"?token={publishing}"))
    assert done.stdout == "401 Unauthorized\n401"
    assert curl("-d", "3", server.publishing("/pub/a")).stdout == "OK\n"


def test_a_trusted_proxy_names_its_client_in_a_header_or_before_the_first_request():
    server = Server("--trusted-proxies", "127.0.0.0/8", "--deny-addresses", "192.0.2.66")
    for client, status in [("192.0.2.1", 200), ("192.0.2.66", 403), ("x, 192.0.2.66", 403)]:
        done = post(server, "/unsafe/pub/a", {"X-Forwarded-For": client})
        assert done[0] == status, done
    server.log.expect("peer=192.0.2.66 ")

    server = Server("--trusted-proxies", "127.0.0.1", "--proxy-protocol")
    # curl speaks version 1 by itself.
    done = curl("--haproxy-protocol", "-d", "x", server.url("/unsafe/pub/a"))
    assert done.stdout == "OK\n", done
    header = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack(">H", 12)
    header += socket.inet_aton("192.0.2.7") + socket.inet_aton("10.0.0.1")
    header += struct.pack(">HH", 4660, 80)
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port))) as proxy:
        proxy.sendall(header + b"GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert proxy.makefile("rb").read().startswith(b"HTTP/1.1 200")
    server.log.expect("peer=192.0.2.7:4660 ")


def test_too_much_of_one_is_refused_with_a_time_to_wait():
    server = Server("--token-rate", "3/h", "--max-subscribers-per-token", "1")
    url = server.url("/pub/a")
    headers = ["-H", f"Hookbot-Token: {token('/pub/a')}"]
    codes = [curl("-w", "%{http_code}", *headers, "-d", "x", url).stdout[-3:] for _ in range(4)]
    assert codes == ["200", "200", "200", "429"]
    refused = curl("-i", *headers, "-d", "x", url).stdout
    assert "retry-after: " in refused and "with this token" in refused
    listener = Hookbot("listen", server.subscribing("/sub/a"))
    server.expect_subscriber("/sub/a")
    events = ["-H", "Accept: text/event-stream", "-H", f"Hookbot-Token: {token('/sub/a')}"]
    assert curl("-w", "%{http_code}", *events, server.url("/sub/a")).stdout.endswith("429")
    listener.kill()

"""Other people's libraries sign, and hookbot verifies; hookbot signs, and they verify."""

import base64
import json
import random
import time
from datetime import datetime, timezone
from urllib.parse import parse_qs, urlencode

import pytest
import stripe
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook, WebhookVerificationError
from twilio.request_validator import RequestValidator

from program import CANARIES, Hookbot, curl, hookbot

URL = "https://hooks.example.com/pub/topic?x=1&y=%20"
BODIES = 100


class Standard:
    """PyPI's standardwebhooks."""

    provider, given = "standard-webhooks", ["-H", "webhook-id: msg_1"]

    def secret(self, source):
        return f"whsec_{base64.b64encode(source.randbytes(24)).decode()}"

    def sign(self, secret, body, now):
        moment = datetime.fromtimestamp(now, timezone.utc)
        signature = Webhook(secret).sign("msg_1", moment, body)
        return {"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": signature}

    def verifies(self, secret, body, headers):
        try:
            # What it returns is the body as JSON, which these are not.
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        except json.JSONDecodeError:
            pass
        return True


class Svix(Standard):
    """The same under Svix's own names."""

    provider, given = "svix", ["-H", "svix-id: msg_1"]

    def sign(self, secret, body, now):
        headers = super().sign(secret, body, now)
        return {name.replace("webhook", "svix"): value for name, value in headers.items()}

    def verifies(self, secret, body, headers):
        renamed = {name.replace("svix", "webhook"): value for name, value in headers.items()}
        return super().verifies(secret, body, renamed)


class Slack:
    provider, given = "slack", []

    def secret(self, source):
        return source.randbytes(16).hex()

    def sign(self, secret, body, now):
        signature = SignatureVerifier(secret).generate_signature(timestamp=str(now), body=body)
        return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}

    def verifies(self, secret, body, headers):
        return SignatureVerifier(secret).is_valid_request(body, headers)


class Stripe:
    provider, given = "stripe", []

    def secret(self, source):
        return f"whsec_{source.randbytes(16).hex()}"

    def sign(self, secret, body, now):
        signature = stripe.WebhookSignature._compute_signature(f"{now}.{body}", secret)
        return {"Stripe-Signature": f"t={now},v1={signature},v0={'0' * 64}"}

    def verifies(self, secret, body, headers):
        try:
            return stripe.WebhookSignature.verify_header(
                body, headers["stripe-signature"], secret, tolerance=300
            )
        except stripe.SignatureVerificationError:
            return False


class Twilio:
    """Signs a form and the URL."""

    provider, given = "twilio", ["--url", URL]

    def secret(self, source):
        return source.randbytes(16).hex()

    def body(self, source):
        names = [f"Field{source.randrange(9)}" for _ in range(source.randrange(1, 9))]
        return urlencode([(name, text(source)) for name in names])

    def sign(self, secret, body, _now):
        signature = RequestValidator(secret).compute_signature(URL, self.form(body))
        return {"X-Twilio-Signature": signature}

    def verifies(self, secret, body, headers):
        validator = RequestValidator(secret)
        return validator.validate(URL, self.form(body), headers["x-twilio-signature"])

    def form(self, body):
        return Form(parse_qs(body, keep_blank_values=True))


class TwilioSharedKey(Twilio):
    """Twilio's other algorithm, which it uses with keys that are not an account's token."""

    def sign(self, secret, body, _now):
        validator = RequestValidator(secret)
        signature = validator.compute_signature(URL, self.form(body), "HMAC_SHA256")
        return {"X-Twilio-Signature": signature}


class Form(dict):
    """As web frameworks hand a form over."""

    getall = dict.get


SIGNERS = [Standard(), Svix(), Slack(), Stripe(), Twilio()]


def text(source):
    characters = [chr(source.randrange(32, 127)), "é", "♥", "\N{PILE OF POO}", "\n", "\r\n", "%2B"]
    return "".join(source.choice(characters) for _ in range(source.randrange(40)))


def cases(signer):
    """The same secrets and bodies each time."""
    source = random.Random(signer.provider)
    body = getattr(signer, "body", text)
    for _ in range(BODIES):
        secret = signer.secret(source)
        CANARIES.add(secret)
        yield secret, body(source)


def typed(headers):
    return [part for pair in headers.items() for part in ("-H", "%s: %s" % pair)]


def named(signer):
    return type(signer).__name__


@pytest.mark.parametrize("signer", [*SIGNERS, TwilioSharedKey()], ids=named)
def test_what_others_sign_verifies(signer):
    for secret, body in cases(signer):
        headers = typed(signer.sign(secret, body, int(time.time())))
        command = ["verify", signer.provider, "--secret-env", "OLD", "--secret-env", "NEW"]
        command += [*headers, "--json", "--url", URL]
        old = signer.secret(random.Random(body))
        done = hookbot(*command, input=body.encode(), OLD=old, NEW=secret)
        assert done.returncode == 0, (body, done)
        verified = json.loads(done.stdout)
        assert (verified["secret"], verified["source"]) == (2, "env:NEW")

        done = hookbot(*command, input=f"{body}x".encode(), OLD=old, NEW=secret)
        assert done.returncode == 3, (body, done)
        assert json.loads(done.stdout)["verified"] is False


@pytest.mark.parametrize("signer", SIGNERS, ids=named)
def test_what_is_signed_here_verifies_elsewhere(signer):
    for secret, body in cases(signer):
        command = ["sign", signer.provider, "--secret-env", "SECRET", *signer.given]
        done = hookbot(*command, input=body.encode(), SECRET=secret)
        assert done.returncode == 0, (body, done)
        headers = dict(line.split(": ", 1) for line in done.stdout.splitlines())
        assert signer.verifies(secret, body, headers), (body, headers)
        assert not signer.verifies(secret, f"{body}x", headers)


def test_a_signed_request_can_be_posted_with_curl(server, tmp_path):
    body, secret, file = b'{"ref":1}\r\n', "a secret", tmp_path / "body"
    file.write_bytes(body)
    signing = ["sign", "github", "--secret-env", "SECRET", "--body", file]
    signed = hookbot(*signing, SECRET=secret).stdout.encode()
    listener = Hookbot("listen", "--json", "--count", "1", server.subscribing("/sub/a"))
    server.expect_subscriber("/sub/a")
    posted = ["-H", "@-", "--data-binary", f"@{file}", server.publishing("/pub/a")]
    assert curl(*posted, input=signed).stdout == "OK\n"
    kept = json.loads(listener.output.next())
    headers = [part for name, value in kept["headers"] for part in ("-H", f"{name}: {value}")]
    command = ["verify", "github", "--secret-file", tmp_path / "secret", *headers]
    (tmp_path / "secret").write_text(f"{secret}\n")
    done = hookbot(*command, input=kept["body"].encode())
    assert (done.returncode, done.stdout) == (
        0,
        f"verified with secret 1, file:{tmp_path / 'secret'}\n",
    )


@pytest.mark.parametrize(
    ("at", "code", "word"),
    [
        ("2023-11-14T22:13:20Z", 0, "verified with secret 1"),
        ("1700000300", 0, "verified with secret 1"),
        ("1700000301", 3, "301 s ago"),
        ("1699999699", 3, "301 s in the future"),
    ],
)
def test_the_time_can_be_given(at, code, word):
    signed = hookbot("sign", "stripe", "--secret-env", "S", "--at", "1700000000", input=b"b", S="s")
    header = ["-H", signed.stdout.strip()]
    done = hookbot("verify", "stripe", "--secret-env", "S", *header, "--at", at, input=b"b", S="s")
    assert done.returncode == code
    assert word in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["verify", "github"], "--secret-env"),
        (["verify", "githab", "--secret-env", "S"], "githab"),
        (["verify", "github", "--secret-env", "NONE"], "NONE"),
        (["verify", "github", "--secret-env", "EMPTY"], "EMPTY"),
        (["verify", "github", "--secret-file", "/no/such"], "/no/such"),
        (["verify", "trello", "--secret-env", "S"], "--url"),
        (["verify", "discord", "--secret-env", "S"], "env:S"),
        (["verify", "github", "--secret-env", "S", "-H", "x"], "NAME: VALUE"),
        (["verify", "github", "--secret-env", "S", "--tolerance", "5m"], "tolerance"),
        (["verify", "github", "--secret-env", "S", "--topic", "arn:"], "--topic"),
        (["verify", "generic", "--secret-env", "S"], "--signature-header"),
        (["sign", "github", "--secret-env", "S", "--prefix", "x"], "--signature-header"),
        (["sign", "svix", "--secret-env", "S"], "secret"),
        (["sign", "svix", "--secret-env", "W"], "cannot be signed: no svix-id header\n"),
        (["sign", "aws-sns", "--secret-env", "S"], "aws-sns"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else part,
)
def test_what_cannot_be_verified_or_signed_ends_with_2(arguments, word):
    done = hookbot(*arguments, S="a secret", W="whsec_c2VjcmV0", EMPTY="", NONE=None)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr

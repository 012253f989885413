"""A GitHub that is written in Python: openssl checks how an app signs, and Python's HMAC what comes.

It is a server of somebody's own, below a path, over TLS, with a certificate that nobody else trusts.
"""

import base64
import hashlib
import hmac
import json
import secrets
import ssl
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from certificates import openssl
from program import CANARIES, DEADLINE, Server, hookbot, run

SECRET = secrets.token_hex(20)
CANARIES.add(SECRET)
COUNT = 250


def payload(number):
    """What GitHub sends: as short as JSON can be, in no order, with all kinds of characters."""
    return {"z": number, "a": ["é♥\N{PILE OF POO}", '"\\/<&>', 1.5e300], "": {"n": None, " ": True}}


def sent(number):
    return json.dumps(payload(number), separators=(",", ":"), ensure_ascii=False).encode()


def signature(body):
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Service(ThreadingHTTPServer):
    """An HTTP server that is there while a test runs."""

    def __init__(self, answer, context=None):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, text = answer(self.path, self.headers, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

            def log_message(self, *arguments):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def services():
    started = []

    def start(*arguments):
        started.append(Service(*arguments))
        return started[-1].server_port

    yield start
    for service in started:
        service.shutdown()
        service.server_close()


class Github:
    """What an Enterprise server says of an app's deliveries, to nobody but the app."""

    def __init__(self, folder):
        self.folder, self.key = folder, folder / "app.pem"
        self.public, self.refused = folder / "public.pem", []
        openssl("genrsa", "-traditional", "-out", self.key, "2048")
        openssl("rsa", "-in", self.key, "-pubout", "-out", self.public)
        CANARIES.update(line for line in self.key.read_text().splitlines() if "-" not in line)

    def answer(self, path, headers, _):
        token = headers["Authorization"].removeprefix("Bearer ")
        CANARIES.add(token)
        if not self.believes(token):
            self.refused.append(path)
            return 401, {}, b'{"message":"A JSON web token could not be decoded"}'
        url = urlsplit(path)
        base = "/api/v3/app/hook/deliveries"
        if url.path != base:
            number = int(url.path.removeprefix(f"{base}/"))
            request = {
                "headers": {
                    "Content-Type": "application/json",
                    "X-GitHub-Delivery": f"d{number}",
                    "X-GitHub-Event": "push",
                    "X-Hub-Signature-256": signature(sent(number)),
                },
                "payload": payload(number),
            }
            detail = {"id": number, "guid": f"d{number}", "request": request, "response": {}}
            return 200, {}, json.dumps(detail, indent=2, ensure_ascii=False).encode()
        query = parse_qs(url.query)
        first = COUNT - int(query.get("cursor", ["0"])[0])
        last = max(first - int(query["per_page"][0]), 0)
        items = [
            {
                "id": number,
                "guid": f"d{number}",
                "delivered_at": f"2026-01-31T12:{number // 60:02}:{number % 60:02}Z",
                "redelivery": False,
                "status": "OK",
                "status_code": 200,
                "event": "push",
                "action": None,
            }
            for number in range(first, last, -1)
        ]
        link = {"Link": f'<https://other/?per_page=100&cursor={COUNT - last}>; rel="next"'}
        return 200, link if last else {}, json.dumps(items).encode()

    def believes(self, token):
        signed, signature = token.rsplit(".", 1)
        (self.folder / "signed").write_text(signed)
        (self.folder / "signature").write_bytes(decoded(signature))
        files = ["-signature", self.folder / "signature", self.folder / "signed"]
        verified = run(["openssl", "dgst", "-sha256", "-verify", self.public, *files])
        header, claims = (json.loads(decoded(part)) for part in signed.split("."))
        return verified.returncode == 0 and header["alg"] == "RS256" and claims["iss"] == "Iv1.x"


@pytest.fixture
def github(services, authority, tmp_path):
    """A GitHub, with the arguments that lead to it."""
    github, pair = Github(tmp_path), authority.pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    api = f"https://127.0.0.1:{services(github.answer, context)}/api/v3"
    app = ["--app-id", "Iv1.x", "--app-key", github.key, "--ca", authority.certificate]
    # The last 130.
    github.arguments = ["github", "--api-url", api, *app, "--since", "2026-01-31T12:02:01Z"]
    yield github
    assert not github.refused


def test_an_app_is_believed_and_what_it_passes_on_is_signed_to_the_byte(services, github):
    taken = []

    def receive(path, headers, body):
        taken.append((headers["X-GitHub-Delivery"], body, headers["X-Hub-Signature-256"]))
        return 204, {}, b""

    target = f"http://127.0.0.1:{services(receive)}/"
    done = hookbot("replay", *github.arguments, "--secret", "env:SECRET", target, SECRET=SECRET)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("signature verified") == 130
    assert taken == [(f"d{n}", sent(n), signature(sent(n))) for n in range(121, COUNT + 1)]


def test_what_came_while_a_server_was_down_is_there_afterwards(github, tmp_path):
    folder = {"HOOKBOT_DATA_DIR": tmp_path / "data"}
    server = Server(**folder)
    for number in range(121, 180):
        with http_post(server.publishing("/pub/github"), number) as answer:
            assert answer.status == 200
    server.kill()

    server = Server(**folder)
    urls = [server.subscribing("/sub/github"), server.publishing("/pub/github")]
    for code, published in [(8, 71), (0, 0)]:
        done = hookbot("reconcile", *github.arguments, *urls)
        assert done.returncode == code, done.stderr
        assert done.stdout.count("published now") == published
    listen = ["--after", "start", "--count", "130", server.subscribing("/sub/github")]
    heard = hookbot("listen", *listen).stdout.encode().splitlines()
    assert heard == [sent(n) for n in range(121, COUNT + 1)]


def http_post(url, number):
    """Posts as GitHub would."""
    user, _, address = url.removeprefix("http://").partition("@")
    headers = {"Authorization": f"Bearer {user}", "X-GitHub-Delivery": f"d{number}"}
    request = urllib.request.Request(f"http://{address}", sent(number), headers)
    return urllib.request.urlopen(request, timeout=DEADLINE)

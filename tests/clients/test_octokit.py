"""npm's @octokit/webhooks-methods signs as GitHub does, and hookbot verifies; and the reverse."""

import http.client
import json
import random

import pytest

from program import CANARIES, Server, hookbot, node

pytestmark = pytest.mark.usefixtures("needs_node")

SECRET = "a hook's secret, as npm knows it"
HEADER = "X-Hub-Signature-256"
CHARACTERS = [*map(chr, range(32, 127)), "é", "♥", "\N{PILE OF POO}", "\n", "\r\n", "\0"]
CANARIES.add(SECRET)


def bodies():
    """The same thousand each time; an empty one the library takes for a mistake."""
    source = random.Random(HEADER)
    for _ in range(1000):
        yield "".join(source.choices(CHARACTERS, k=source.randrange(1, 200)))


class Octokit:
    """One process that answers them all."""

    def __init__(self):
        self.program = node("octokit.mjs")

    def ask(self, **question):
        self.program.send(json.dumps({"secret": SECRET} | question))
        return json.loads(self.program.output.next())


def test_what_octokit_signs_is_taken_and_nothing_else(tmp_path):
    config = tmp_path / "hookbot.toml"
    config.write_text(
        "[[source]]\ntopic = '/unsafe/github.com/'\nprovider = 'github'\nsecrets = 'env:SECRET'\n"
    )
    server, octokit = Server("--config", config, SECRET=SECRET), Octokit()
    sender = http.client.HTTPConnection(server.address)

    def status(body, signature):
        sender.request(
            "POST", "/unsafe/pub/github.com/acme", body.encode(), {HEADER: signature}
        )
        answer = sender.getresponse()
        answer.read()
        return answer.status

    for number, body in enumerate(bodies()):
        signature = octokit.ask(body=body)
        assert status(body, signature) == 200, body
        # From the hundredth failure a minute on it would be 429.
        if number < 50:
            assert status(f"{body}x", signature) == 401, body


def test_what_is_signed_here_octokit_verifies():
    octokit = Octokit()
    for body in bodies():
        done = hookbot("sign", "github", "--secret-env", "S", input=body.encode(), S=SECRET)
        name, signature = done.stdout.strip().split(": ", 1)
        assert name.lower() == HEADER.lower()
        assert octokit.ask(body=body, signature=signature) is True, body
        assert octokit.ask(body=f"{body}x", signature=signature) is False, body

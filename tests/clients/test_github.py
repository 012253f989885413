"""The main job: what GitHub posts reaches whoever listens to a branch."""

import contextlib
import hashlib
import hmac
import http.client
import itertools
import json
import random
import threading
import time

import pytest

from program import DEADLINE, GITHUB_SECRET, ROOT, Hookbot, Server, curl, message, token, wscat

PUSH = (ROOT / "crates/routers/tests/data/push.json").read_bytes()
SHA = json.loads(PUSH)["after"]
BRANCH = "/sub/github.com/repo/acme/site/branch/main"
UPDATE = {
    "Type": "push",
    "Repo": "acme/site",
    "Branch": "main",
    "SHA": SHA,
    "Who": json.loads(PUSH)["pusher"]["name"],
}
JSON = ["-H", "Content-Type: application/json"]


@pytest.fixture
def github():
    return Server("--router", "github", HOOKBOT_GITHUB_SECRET=GITHUB_SECRET)


def post(server, body=PUSH, *options, secret=GITHUB_SECRET):
    """Posts a push as GitHub does."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    url = server.url("/unsafe/pub/github.com/org/acme", "?extra-metadata=github")
    done = curl(
        *["-H", "X-GitHub-Event: push", "-H", "User-Agent: GitHub-Hookshot/0a1b2c3"],
        *["-H", "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958"],
        *["-H", f"X-Hub-Signature-256: sha256={signature}"],
        *[*options, "--data-binary", "@-", url],
        input=body,
    )
    assert done.stdout == "OK\n", done


def push_of(sha):
    return PUSH.replace(SHA.encode(), sha.encode())


@pytest.mark.parametrize("content_type", [JSON, []], ids=["json", "curl's own"])
def test_a_push_reaches_wscat(needs_node, github, content_type):
    listener = wscat(github.subscribing(BRANCH))
    post(github, PUSH, *content_type)
    assert list(json.loads(message(listener)).items()) == list(UPDATE.items())


@pytest.mark.parametrize("content_type", [JSON, []], ids=["json", "curl's own"])
def test_a_push_reaches_hookbot_listen(github, content_type):
    listener = Hookbot("listen", "--json", "--count", "1", github.subscribing(BRANCH))
    github.expect_subscriber(BRANCH)
    post(github, PUSH, *content_type)
    received = json.loads(listener.output.next())
    assert received["topic"] == BRANCH.removeprefix("/sub/")
    assert json.loads(received["body"]) == UPDATE
    assert listener.wait() == 0


def test_what_github_did_not_sign_reaches_nobody(needs_node, github):
    listener = wscat(github.subscribing(BRANCH))
    forged, first, second = "f" * 40, "1" * 40, "2" * 40
    post(github, push_of(forged), secret="guessed")
    post(github, push_of(first))
    post(github, push_of(second))
    # The forged one was posted first, so it would have come first.
    assert [json.loads(message(listener))["SHA"] for _ in range(2)] == [first, second]


def test_the_router_can_run_outside(needs_node, server):
    start_router(server)
    listener = wscat(server.subscribing(BRANCH))
    post(server, push_of("f" * 40), secret="guessed")
    post(server)
    assert json.loads(message(listener)) == UPDATE


def test_the_router_outside_works_with_tls(needs_node, authority):
    server = authority.serve()
    start_router(server, "--ca", authority.certificate)
    listener = wscat(server.subscribing(BRANCH), "--ca", authority.certificate)
    post(server, PUSH, "--cacert", authority.certificate)
    assert json.loads(message(listener)) == UPDATE


def test_everything_on_one_token_for_the_repository(needs_node, github):
    below = "/sub/github.com/repo/acme/"
    listener = wscat(f"ws://{token(below)}@{github.address}{below}")
    post(github)
    topic, body = message(listener).split("\0")
    assert topic == BRANCH.removeprefix("/sub/")
    assert json.loads(body) == UPDATE


def test_what_was_acknowledged_is_routed_once_though_the_server_is_killed(tmp_path):
    env = {"HOOKBOT_DATA_DIR": tmp_path / "data", "HOOKBOT_GITHUB_SECRET": GITHUB_SECRET}
    numbers, acknowledged = itertools.count(1), set()

    def post_until_it_is_gone(server):
        connection = http.client.HTTPConnection(server.address, timeout=DEADLINE)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                sha = f"{next(numbers):040x}"
                post_over(connection, sha)
                acknowledged.add(sha)

    for _ in range(8):
        server = Server("--router", "github", **env)
        threads = [threading.Thread(target=post_until_it_is_gone, args=[server]) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.02, 0.3))
        server.kill()
        for thread in threads:
            thread.join()

    server = Server("--router", "github", **env)
    listener = Hookbot("listen", "--json", "--after", "start", server.subscribing(BRANCH))
    last = "f" * 40
    with contextlib.closing(http.client.HTTPConnection(server.address)) as connection:
        post_over(connection, last)
    routed = []
    while last not in routed:
        routed.append(json.loads(json.loads(listener.output.next())["body"])["SHA"])
    assert len(routed) == len(set(routed)), "something was routed twice"
    assert acknowledged <= set(routed), "something was not routed"
    assert len(acknowledged) > 100


def post_over(connection, sha):
    """Posts a push over a connection that is kept open."""
    body = push_of(sha)
    signature = hmac.new(GITHUB_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
    connection.request("POST", "/unsafe/pub/github.com/org/acme", body, headers)
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (200, b"OK\n")


def start_router(server, *arguments):
    below = "/unsafe/sub/github.com/"
    monitor = ["--monitor-url", server.subscribing(below)]
    Hookbot("route-github", *monitor, *arguments, HOOKBOT_GITHUB_SECRET=GITHUB_SECRET)
    server.expect_subscriber(below)

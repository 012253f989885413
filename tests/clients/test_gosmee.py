"""gosmee's client, by a program that does on the wire what it does."""

import json
import signal
import sys

import pytest

from program import GITHUB_SECRET, HERE, Program, Server, curl, token
from target import Target, push
from test_smee import ACCENTED, FORM, PUSH, channel, post


@pytest.fixture
def server():
    return Server("--open-channels")


@pytest.fixture
def target():
    target = Target()
    yield target
    target.close()


def gosmee(url, target, *state):
    client = Program([sys.executable, HERE / "gosmee_client.py", url, f"{target.url}/hook", *state])
    client.output.expect("^version matches$")
    client.output.expect("^forwarding .*ready")
    return client


@pytest.mark.parametrize("body", [PUSH, ACCENTED, b'{ "spaced":\n 1.0 }\n'])
def test_a_push_reaches_the_target_byte_by_byte(server, target, body):
    url = channel(server)
    gosmee(url, target)
    post(url, body, *push(body, GITHUB_SECRET))
    request = target.next()
    assert request.body == body
    assert request.is_signed_by_github(GITHUB_SECRET)
    assert request.headers["X-Github-Delivery"] == "72d3162e-cc78-11e3-81ab-4c9367dc0958"


@pytest.mark.parametrize(
    "kind, body",
    [("application/x-www-form-urlencoded", FORM), ("image/png", b"\x89PNG\0\xff"), ("text/plain", b"")],
)
def test_so_does_everything_else(server, target, kind, body):
    url = channel(server)
    gosmee(url, target)
    post(url, body, "-H", f"Content-Type: {kind}", "--data-binary", "@-")
    request = target.next()
    assert (request.headers["Content-Type"], request.body) == (kind, body)


def test_a_sender_cannot_put_another_body_in_its_place(server, target):
    url = channel(server)
    gosmee(url, target)
    forged = [*["-H", "Body: Zm9yZ2Vk", "-H", "bodyB: Zm9yZ2Vk"], *["-H", "BODYB: Zm9yZ2Vk"]]
    post(url, b'{"true":1}', *forged, *push(b'{"true":1}', GITHUB_SECRET))
    assert target.next().body == b'{"true":1}'


def test_what_is_replayed_arrives(server, target):
    url = channel(server)
    gosmee(url, target)
    path = f"/smee/replay/{url.rpartition('/')[2]}"
    refused = curl("-o", "/dev/null", "-w", "%{http_code}", "-d", "{}", server.url(path))
    assert refused.stdout == "401"
    done = curl("-H", f"Authorization: Bearer {token(path)}", "-d", '{"n":2}', server.url(path))
    assert done.stdout == "replayed\n", done
    assert target.next().body == b'{"n":2}'


@pytest.mark.parametrize("orderly", [True, False], ids=["stopped", "killed"])
def test_the_client_goes_on_where_it_was_when_the_server_comes_back(target, tmp_path, orderly):
    env = {"HOOKBOT_DATA_DIR": tmp_path / "data"}
    first = Server("--open-channels", **env)
    url = channel(first)
    client = gosmee(url, target)
    kind = ["-H", "Content-Type: application/json", "-d", "@-"]
    post(url, b"[1]", *kind)
    client.output.expect("^forwarded 200$")
    client.signal(signal.SIGSTOP)
    if orderly:
        assert first.stop() == 0
    else:
        first.kill()
    Server("--open-channels", bind=first.address, **env)
    post(url, b"[2]", *kind)
    client.signal(signal.SIGCONT)
    client.output.expect("^forwarding .*ready")
    client.output.expect("^forwarded 200$")
    post(url, b"[3]", *kind)
    assert [target.next().body for _ in range(3)] == [b"[1]", b"[2]", b"[3]"]
    assert target.requests.empty(), "something came twice"


def test_the_client_goes_on_where_it_was_when_it_is_started_again(server, target, tmp_path):
    url, state = channel(server), tmp_path / "state"
    kind = ["-H", "Content-Type: application/json", "-d", "@-"]
    client = gosmee(url, target, state)
    post(url, b"[1]", *kind)
    client.output.expect("^forwarded 200$")
    client.kill()
    post(url, b"[2]", *kind)
    gosmee(url, target, state)
    assert [target.next().body for _ in range(2)] == [b"[1]", b"[2]"]


def test_the_client_is_told_of_a_gap(server, target, tmp_path):
    url, state = channel(server), tmp_path / "state"
    post(url, b"[1]", "-H", "Content-Type: application/json", "-d", "@-")
    # A place that another server gave it, with Redis.
    state.write_text("1700000000000-0\n")
    client = gosmee(url, target, state)
    gap = json.loads(client.output.expect("^gap (.*)")[1])
    assert (gap["error"], gap["requested_id"]) == ("missed_history", "1700000000000-0")
    assert target.next().body == b"[1]"

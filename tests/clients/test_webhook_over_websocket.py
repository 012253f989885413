"""The client of webhook-over-websocket, by a program that does on the wire what it does."""

import json
import sys
import threading

import pytest

from program import CANARIES, GITHUB_SECRET, HERE, Program, Server, curl, token
from target import Target, push
from test_smee import FORM, PUSH


@pytest.fixture
def server():
    return Server("--open-channels")


def tunnel(server_url, target):
    """A client that is connected, and the URL that leads to it."""
    client = Program([sys.executable, HERE / "wow_client.py", server_url, target.url])
    url = client.output.next()
    CANARIES.add(url.rpartition("/")[2])
    assert client.output.next() == "connected"
    return client, url


def status(*arguments, input=b""):
    done = curl("-o", "/dev/null", "-w", "%{http_code}", *arguments, input=input)
    return int(done.stdout)


def test_a_push_reaches_the_target_and_its_answer_comes_back(server):
    target = Target(lambda request: (201, {"X-Answer": "yes"}, request.body[::-1]))
    _, url = tunnel(server.url(""), target)
    done = curl("-i", *push(PUSH, GITHUB_SECRET), f"{url}/github?a=1", input=PUSH)
    request = target.next()
    assert request.body == PUSH
    assert request.is_signed_by_github(GITHUB_SECRET)
    head, _, body = done.stdout.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 201"), head
    assert "x-answer: yes" in head.lower()
    assert body == PUSH[::-1].decode()


@pytest.mark.parametrize("kind, body", [("application/x-www-form-urlencoded", FORM), ("image/png", b"\0\xff" * 500_000)])
def test_so_does_everything_else(server, kind, body):
    target = Target()
    _, url = tunnel(server.url(""), target)
    assert status("-H", f"Content-Type: {kind}", "--data-binary", "@-", url, input=body) == 200
    request = target.next()
    assert (request.headers["Content-Type"], request.body) == (kind, body)


def test_a_large_answer_comes_back_whole(server, tmp_path):
    large, file = bytes(range(256)) * 16_000, tmp_path / "answer"
    _, url = tunnel(server.url(""), Target(lambda request: (200, {}, large)))
    assert curl("-f", "-o", file, url).returncode == 0
    assert file.read_bytes() == large


def test_every_method_comes_through(server):
    target = Target()
    _, url = tunnel(server.url(""), target)
    for method in ["GET", "PUT", "PATCH", "DELETE"]:
        assert status("-X", method, url) == 200
        assert target.next().method == method
    assert status("--head", url) == 200
    assert target.next().method == "HEAD"


def test_many_calls_wait_for_their_own_answers(server):
    together = threading.Barrier(20, timeout=20)

    def answer(request):
        # Nobody is answered before all have come.
        together.wait()
        return 200, {}, request.body

    _, url = tunnel(server.url(""), Target(answer))
    answers = {}

    def call(number):
        answers[number] = curl("-d", str(number), url).stdout

    threads = [threading.Thread(target=call, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: str(number) for number in range(20)}


def test_a_target_that_is_not_there_is_a_bad_gateway(server):
    target = Target()
    target.close()
    client, url = tunnel(server.url(""), target)
    assert status("-d", "x", url) == 502
    client.kill()
    server.log.expect("client of a channel gone")
    assert status("-d", "x", url) == 404


def test_channels_are_for_those_with_a_token_where_that_is_wanted():
    server = Server("--open-channels", "--channels-token")
    assert status(server.url("/new")) == 401
    made = curl(server.url_with_token("/new"))
    assert len(json.loads(made.stdout)["channel_id"]) == 44
    lists = curl(server.url_with_token("/internal/channels"))
    assert json.loads(lists.stdout)["webhook_channels"] == []
    assert status(server.url("/traefik-config")) == 401
    assert json.loads(curl(server.url_with_token("/traefik-config")).stdout) == {}
    assert json.loads(curl(server.url("/healthz")).stdout) == {"status": "OK"}
    assert token("/new") not in server.log.text()


def test_the_client_is_told_that_the_server_stops(server):
    client, _ = tunnel(server.url(""), Target())
    assert server.stop() == 0
    client.output.expect("^disconnected$")
    assert client.wait() == 0

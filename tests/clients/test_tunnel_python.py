"""Calls that a responder in Python answers, which knows docs/protocol.md and none of our code."""

import socket
import sys

import pytest

from program import HERE, Program, a_hundred_at_once, curl


def responder(server, path="/answer/shop"):
    """A responder that answers calls, and where they are made."""
    url = server.subscribing(path)
    own = Program([sys.executable, HERE / "responder.py", url])
    assert own.output.expect("^answering (.*)")[1] == server.url("/call/shop")
    server.log.expect("responder connected")
    return own, server.url_with_token("/call/shop/")


def test_a_call_is_answered_with_what_it_was_asked_with(server):
    own, url = responder(server)
    done = curl("-i", "-d", "question", f"{url}orders?id=7")
    head, _, body = done.stdout.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 201"), done
    assert "x-asked: POST /orders?id=7" in head
    assert "x-for: 127.0.0.1" in head
    assert f"x-host: {server.address}" in head
    assert body == "question"
    assert curl("-I", url).stdout.startswith("HTTP/1.1 201")
    assert own.output.expect("POST") and own.output.expect("HEAD")


@pytest.mark.parametrize("length", [0, 100, 300_000, 20_000_000])
def test_bodies_pass_whatever_their_length(server, tmp_path, length):
    _, url = responder(server)
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(bytes(range(251)) * (length // 251 + 1))
    with open(sent, "r+b") as file:
        file.truncate(length)
    done = curl("-f", "-T", sent, "-o", received, url)
    assert done.returncode == 0, done.stderr
    assert received.read_bytes() == sent.read_bytes()


def test_a_hundred_calls_have_their_own_answers(server):
    _, url = responder(server)
    a_hundred_at_once(lambda body: curl("-d", body, url).stdout)


def test_a_caller_that_hangs_up_takes_its_call_back(server):
    own, url = responder(server)
    host, port = server.address.split(":")
    token = url.split("//")[1].split("@")[0]
    with socket.create_connection((host, int(port))) as caller:
        head = f"POST /call/shop/a HTTP/1.1\r\nHost: h\r\nHookbot-Token: {token}\r\n"
        caller.sendall(f"{head}Content-Length: 10\r\n\r\nhalf".encode())
        own.output.expect("POST /a")
    own.output.expect("taken back")


def test_it_leaves_when_the_server_or_it_is_told_to_stop(server):
    first, url = responder(server)
    first.signal(15)
    assert first.output.expect("closed (.*)")[1] == "1000 left"
    assert first.wait() == 0
    second, url = responder(server)
    assert curl("-d", "still here", url).stdout == "still here"
    assert server.stop() == 0
    assert second.output.expect("closed (.*)")[1] == "1001 the server is shutting down"

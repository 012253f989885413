"""npm's ws, as a program embeds it."""

import base64
import http.client

import pytest

from program import curl, event, token, ws

pytestmark = pytest.mark.usefixtures("needs_node")

UNSAFE_IS_OK = {"X-Hookbot-Unsafe-Is-Ok": "I understand the security implications"}


def subscribe(url, **options):
    client = ws(url, **options)
    # Compression is offered by default; messages come without it.
    assert event(client) == {"event": "open", "extensions": ""}
    return client


def body(client):
    received = event(client)
    assert (received["event"], received["binary"]) == ("message", True)
    return base64.b64decode(received["data"])


def publish(server, path, text):
    done = curl("-d", text, server.publishing(path))
    assert done.stdout == "OK\n", done


def test_messages_come_in_the_order_of_their_publication(server):
    client = subscribe(server.subscribing("/sub/numbers"))
    publisher = http.client.HTTPConnection(server.address)
    for number in range(300):
        headers = {"Authorization": f"Bearer {token('/pub/numbers')}"}
        publisher.request("POST", "/pub/numbers", str(number), headers)
        assert publisher.getresponse().read() == b"OK\n"
    assert [body(client) for _ in range(300)] == [b"%d" % number for number in range(300)]


def test_below_a_prefix_messages_come_with_their_topic(server):
    client = subscribe(server.subscribing("/sub/deploys/"))
    publish(server, "/pub/deploys/site", "one")
    publish(server, "/pub/deploys/api/eu", "two")
    assert body(client) == b"deploys/site\0one"
    assert body(client) == b"deploys/api/eu\0two"


@pytest.mark.parametrize("way", ["user", "bearer", "header", "query"])
def test_a_token_is_accepted_however_it_comes(server, way):
    path = "/sub/doors"
    plain, own = f"ws://{server.address}{path}", token(path)
    url, headers = {
        "user": (server.subscribing(path), {}),
        "bearer": (plain, {"Authorization": f"Bearer {own}"}),
        "header": (plain, {"Hookbot-Token": own}),
        "query": (f"{plain}?token={own}", {}),
    }[way]
    client = subscribe(url, headers=headers)
    publish(server, "/pub/doors", "come in")
    assert body(client) == b"come in"


@pytest.mark.parametrize("user", ["", f"{token('/sub/other')}@", "nonsense@"])
def test_a_wrong_token_is_an_unexpected_response(server, user):
    client = ws(f"ws://{user}{server.address}/sub/secret")
    assert event(client) == {
        "event": "unexpected-response",
        "status": 401,
        "body": "401 Unauthorized\n",
    }


def test_the_unsafe_space_is_entered_knowingly(server):
    path = "/unsafe/sub/strangers"
    client = ws(server.subscribing(path))
    refused = event(client)
    assert (refused["event"], refused["status"]) == ("unexpected-response", 400)
    assert "X-Hookbot-Unsafe-Is-Ok header required" in refused["body"]

    client = subscribe(server.subscribing(path), headers=UNSAFE_IS_OK)
    done = curl("-d", "hello", server.url("/unsafe/pub/strangers"))
    assert done.stdout == "OK\n", done
    assert body(client) == b"hello"


def test_a_ping_is_answered(server):
    client = subscribe(server.subscribing("/sub/a"))
    client.send("ping")
    assert event(client) == {"event": "pong"}


def test_a_close_is_answered(server):
    client = subscribe(server.subscribing("/sub/a"))
    client.send("close")
    # Without an answer, the code would be 1006.
    assert event(client) == {"event": "close", "code": 1000, "reason": "bye"}

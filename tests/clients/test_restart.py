"""A server that dies: who notices, who comes back, and what is then delivered."""

import json

from program import Hookbot, Server, curl, wscat


def test_wscat_ends_and_hookbot_listen_comes_back(needs_node, tmp_path):
    folder = str(tmp_path / "data")
    first = Server(HOOKBOT_DATA_DIR=folder)
    person = wscat(first.subscribing("/sub/a"))
    listener = Hookbot("listen", "--json", first.subscribing("/sub/a"))
    first.expect_subscriber("/sub/a")
    first.expect_subscriber("/sub/a")

    first.kill()
    person.output.expect("^Disconnected")
    assert person.wait() == 0
    listener.log.expect("WARN.*reconnecting")

    second = Server(bind=first.address, HOOKBOT_DATA_DIR=folder)
    second.expect_subscriber("/sub/a")
    published = curl("-d", "after", second.publishing("/pub/a"))
    assert published.stdout == "OK\n", published
    received = json.loads(listener.output.next())
    assert (received["topic"], received["body"]) == ("a", "after")
    assert listener.running


def test_hookbot_listen_waits_for_a_server_that_is_not_there_yet():
    gone = Server()
    gone.kill()
    listener = Hookbot("listen", "--count", "1", gone.subscribing("/sub/a"))
    listener.log.expect("WARN.*reconnecting")
    server = Server(bind=gone.address)
    server.expect_subscriber("/sub/a")
    curl("-d", "at last", server.publishing("/pub/a"))
    assert listener.output.next() == "at last"
    assert listener.wait() == 0


def test_hookbot_listen_comes_back_after_an_orderly_end():
    first = Server()
    listener = Hookbot("listen", "--count", "2", first.subscribing("/sub/a"))
    first.expect_subscriber("/sub/a")
    curl("-d", "before", first.publishing("/pub/a"))
    assert first.stop() == 0
    assert listener.output.next() == "before"
    listener.log.expect("WARN.*1001")
    second = Server(bind=first.address)
    second.expect_subscriber("/sub/a")
    curl("-d", "after", second.publishing("/pub/a"))
    assert listener.output.next() == "after"
    assert listener.wait() == 0


def test_the_router_outside_comes_back():
    secret = {"HOOKBOT_GITHUB_SECRET": "a secret that nobody signs with here"}
    below = "/unsafe/sub/github.com/"
    first = Server()
    router = Hookbot("route-github", "--monitor-url", first.subscribing(below), **secret)
    first.expect_subscriber(below)
    first.kill()
    router.log.expect("WARN.*reconnecting")
    second = Server(bind=first.address)
    second.expect_subscriber(below)
    assert router.running

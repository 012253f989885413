"""curl, which most publishers are, in its many ways to send a body."""

import secrets
import shlex

import pytest
from websockets.sync.client import connect

from program import DEADLINE, Server, curl

BODY = "deploy=42"
MIB = 1 << 20
# The status on a line of its own behind the body.
STATUS = ["-w", "%{http_code}\n"]


@pytest.mark.parametrize(
    "form",
    [
        "-d @-",
        "--data-binary @-",
        "--data-urlencode deploy=42",
        "-T -",
        "-X POST -T -",
        "-X PUT --data-binary @-",
        "-H 'Transfer-Encoding: chunked' --data-binary @-",
        "-H 'Expect: 100-continue' --data-binary @-",
        "-0 --data-binary @-",
        "-H 'Content-Type:' --data-binary @-",
        "-H 'Content-Type: application/json' --data-binary @-",
    ],
)
def test_a_body_arrives_however_it_is_sent(server, form):
    with connect(server.subscribing_with_password("/sub/a")) as subscriber:
        done = curl(*shlex.split(form), server.publishing("/pub/a"), input=BODY.encode())
        assert done.stdout == "OK\n", done
        assert subscriber.recv(DEADLINE) == BODY.encode()


def test_a_file_arrives_as_it_is(server, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(secrets.token_bytes(MIB))
    with connect(server.subscribing_with_password("/sub/a"), max_size=None) as subscriber:
        for form in ["-T", "--upload-file"]:
            assert curl(form, file, server.publishing("/pub/a")).stdout == "OK\n"
            assert subscriber.recv(DEADLINE) == file.read_bytes()
        assert curl("--data-binary", f"@{file}", server.publishing("/pub/a")).stdout == "OK\n"
        assert subscriber.recv(DEADLINE) == file.read_bytes()


def test_a_large_body_waits_for_leave(server):
    sent = secrets.token_bytes(8 * MIB)
    with connect(server.subscribing_with_password("/sub/a"), max_size=None) as subscriber:
        url, expect = server.publishing("/pub/a"), ["-H", "Expect: 100-continue"]
        done = curl("-v", *expect, "--data-binary", "@-", url, input=sent)
        assert done.stdout == "OK\n", done
        assert "< HTTP/1.1 100 Continue" in done.stderr
        assert "Done waiting for 100-continue" not in done.stderr
        assert subscriber.recv(DEADLINE) == sent


@pytest.mark.parametrize("form", ["-H Expect:", "-H 'Expect: 100-continue'"])
@pytest.mark.parametrize("length", ["", "-H 'Transfer-Encoding: chunked'"])
def test_a_body_that_is_too_large_is_told_the_limit(form, length):
    server = Server("--max-body", "64KiB")
    options = shlex.split(f"{form} {length}")
    url = server.publishing("/pub/a")
    done = curl(*STATUS, *options, "--data-binary", "@-", url, input=bytes(10 * MIB))
    assert done.returncode == 0, done
    text, status = done.stdout.splitlines()
    assert status == "413"
    assert "65536 bytes" in text
    # At the limit is not beyond it.
    done = curl(*STATUS, *options, "--data-binary", "@-", url, input=bytes(64 << 10))
    assert done.stdout == "OK\n200\n", done


@pytest.mark.parametrize("form", ["-H Expect:", "-H 'Expect: 100-continue'"])
def test_a_refusal_is_seen_while_uploading(server, form):
    url = server.url("/pub/a")
    done = curl(*STATUS, *shlex.split(form), "--data-binary", "@-", url, input=bytes(10 * MIB))
    assert done.returncode == 0, done
    assert done.stdout == "401 Unauthorized\n401\n"


def test_the_cursor_is_told_to_those_with_a_token(server):
    done = curl("-i", "-d", "x", server.publishing("/pub/a"))
    assert "hookbot-cursor: " in done.stdout.lower()
    done = curl("-i", "-d", "x", server.url("/unsafe/pub/a"))
    assert done.stdout.endswith("OK\n")
    assert "hookbot-cursor" not in done.stdout.lower()


def test_the_servers_own_pages(server):
    head = curl("-I", server.url("/status"))
    assert head.stdout.startswith("HTTP/1.1 200 OK\r\n")
    assert curl(server.url("/status")).stdout == "OK\n"
    assert curl(server.url("/healthz")).stdout == '{"status":"OK"}\n'
    assert curl(server.url("/version")).stdout.startswith('{"version":"')


def test_a_subscription_without_a_websocket_says_where_to_go(server):
    done = curl(*STATUS, server.publishing("/sub/a"))
    text, status = done.stdout.splitlines()
    assert status == "426"
    assert f"ws://{server.address}/sub/a" in text


def test_a_connection_is_used_again(server):
    url = server.publishing("/pub/a")
    done = curl("-v", "-d", "x", url, url, "--next", "-sS", "-v", server.url("/status"))
    assert done.stdout == "OK\n" * 3
    assert done.stderr.count("Re-using existing connection") == 2


def test_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    server = Server(bind=f"unix:{path}")
    assert server.address == f"unix:{path}"
    done = curl("--unix-socket", path, "http://localhost/status")
    assert done.stdout == "OK\n", done
    assert server.stop() == 0
    assert not path.exists()

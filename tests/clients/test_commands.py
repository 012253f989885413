"""The commands from a shell's point of view: what they print, and how they end."""

import hashlib
import json
import socket

import pytest

from program import KEY, Hookbot, Server, curl, hookbot, token

PATHS = ["/pub/a", "/sub/a", "/sub/a/", "/a/b", "/", "/unsafe/sub/github.com/", "/pub/ü ✓"]


def test_a_token_is_the_hmac_of_its_path():
    done = hookbot("make-tokens", "--bare", *PATHS)
    assert done.stdout.splitlines() == [token(path) for path in PATHS], done


def test_the_go_programs_tokens_open_a_server_that_accepts_them(server):
    done = hookbot("make-tokens", "--bare", "--sha1", *PATHS)
    sha1 = [token(path, digest=hashlib.sha1) for path in PATHS]
    assert done.stdout.splitlines() == sha1, done

    old = sha1[PATHS.index("/pub/a")]
    tolerant = Server("--accept-sha1")
    assert curl("-d", "x", f"http://{old}@{tolerant.address}/pub/a").stdout == "OK\n"
    assert curl("-d", "x", f"http://{old}@{server.address}/pub/a").stdout == "401 Unauthorized\n"


@pytest.mark.parametrize("key", ["short", "with spaces in it", "ключ", "new\nline"])
def test_any_key_makes_the_same_tokens_everywhere(key):
    done = hookbot("make-tokens", "--bare", "/pub/a", HOOKBOT_KEY=key)
    assert done.stdout.strip() == token("/pub/a", key)


def test_a_key_from_a_file_has_no_newline(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    done = hookbot("make-tokens", "--bare", "/pub/a", HOOKBOT_KEY=None, HOOKBOT_KEY_FILE=file)
    assert done.stdout.strip() == token("/pub/a"), done


def test_urls_are_ready_to_use():
    pub, sub = token("/pub/a"), token("/sub/a/")
    uris = ["/pub/a", "/sub/a/"]

    done = hookbot("make-tokens", *uris)
    plain = [f"http://{pub}@localhost:8080/pub/a", f"ws://{sub}@localhost:8080/sub/a/"]
    assert done.stdout.splitlines() == plain

    secure = [f"https://{pub}@hook.example/pub/a", f"wss://{sub}@hook.example/sub/a/"]
    done = hookbot("make-tokens", "-U", "https://hook.example", *uris)
    assert done.stdout.splitlines() == secure
    done = hookbot("t", *uris, HOOKBOT_URL_BASE="https://hook.example")
    assert done.stdout.splitlines() == secure

    full = ["https://hook.example/pub/a?x=1", "https://hook.example/sub/a/"]
    done = hookbot("make-tokens", *full)
    assert done.stdout.splitlines() == [f"{secure[0]}?x=1", secure[1]]


def test_a_printed_url_works(server):
    made = hookbot("make-tokens", "-U", server.url(""), "/pub/ü (1)", "/sub/ü (1)")
    pub, sub = made.stdout.split()
    listener = Hookbot("listen", "--count", "1", sub)
    server.log.expect("status=101")
    assert curl("-d", "x", pub).stdout == "OK\n"
    assert listener.output.next() == "x"


def test_an_expiring_token_expires(server):
    made = hookbot("make-tokens", "--bare", "--expires", "1h", "/pub/a").stdout.strip()
    marker, seconds, mac = made.split(".")
    assert marker == "x1"
    assert mac == token(f"x1\n{seconds}\n/pub/a")
    assert curl("-d", "x", f"http://{made}@{server.address}/pub/a").stdout == "OK\n"
    old = f"x1.1000000000.{token(f'x1{chr(10)}1000000000{chr(10)}/pub/a')}"
    assert curl("-d", "x", f"http://{old}@{server.address}/pub/a").stdout == "401 Unauthorized\n"


@pytest.mark.parametrize(
    "command", [["serve", "--bind", "127.0.0.1:0"], ["make-tokens", "/pub/a"]], ids=lambda c: c[0]
)
@pytest.mark.parametrize("key", [None, ""], ids=["missing", "empty"])
def test_without_a_key_nothing_starts(command, key):
    done = hookbot(*command, HOOKBOT_KEY=key)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "HOOKBOT_KEY" in done.stderr


@pytest.mark.parametrize("secret", [None, ""], ids=["missing", "empty"])
def test_without_its_secret_the_github_router_does_not_start(secret):
    serve = ["serve", "--bind", "127.0.0.1:0", "--router", "github"]
    done = hookbot(*serve, HOOKBOT_GITHUB_SECRET=secret)
    assert done.returncode == 2
    assert "HOOKBOT_GITHUB_SECRET" in done.stderr


def test_a_taken_port_is_one_line(server):
    done = hookbot("serve", "--bind", server.address)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert server.address in line


def test_a_message_goes_round(server, tmp_path):
    listener = Hookbot("listen", "--count", "3", server.subscribing("/sub/a/"))
    server.expect_subscriber("/sub/a/")
    file = tmp_path / "file"
    file.write_text("from a file")

    done = hookbot("publish", server.publishing("/pub/a/b"), input=b"from a pipe")
    assert done.returncode == 0, done
    done = hookbot("publish", server.publishing("/pub/a/b"), file)
    assert done.returncode == 0, done
    done = hookbot("publish", "--json", server.publishing("/pub/a/c"), input=b"")
    assert json.loads(done.stdout)["cursor"]

    lines = [listener.output.next() for _ in range(3)]
    assert lines == ["a/b\tfrom a pipe", "a/b\tfrom a file", "a/c\t"]
    assert listener.wait() == 0


def test_what_is_not_text_is_base64(server):
    listener = Hookbot("listen", "--json", "--count", "1", server.subscribing("/sub/a"))
    server.expect_subscriber("/sub/a")
    hookbot("publish", server.publishing("/pub/a"), input=b"\xff\0")
    received = json.loads(listener.output.next())
    assert (received["topic"], received["body_base64"]) == ("a", "/wA=")


def test_a_command_runs_for_each_message(server, tmp_path):
    script = f'cat >> "{tmp_path}/bodies"; echo "$HOOKBOT_TOPIC" >> "{tmp_path}/topics"'
    listener = Hookbot("listen", "--count", "2", "--exec", script, server.subscribing("/sub/a/"))
    server.expect_subscriber("/sub/a/")
    for body in ["$(false)", "; 'two'\n"]:
        curl("--data-binary", "@-", server.publishing("/pub/a/b"), input=body.encode())
    assert listener.wait() == 0
    assert (tmp_path / "bodies").read_text() == "$(false); 'two'\n"
    assert (tmp_path / "topics").read_text() == "a/b\n" * 2


def test_a_wrong_token_ends_with_3(server):
    url = f"ws://{token('/sub/other')}@{server.address}/sub/a"
    done = hookbot("listen", url)
    assert (done.returncode, done.stdout) == (3, "")
    assert "401" in done.stderr
    done = hookbot("publish", f"http://{server.address}/pub/a", input=b"x")
    assert (done.returncode, done.stdout) == (3, "")


def test_a_server_that_is_not_there_ends_with_4():
    with socket.socket() as bound:
        # Bound but not listening: nobody else gets the port, and connections are refused.
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        done = hookbot("publish", f"http://127.0.0.1:{port}/pub/a", input=b"x")
    assert done.returncode == 4
    assert f"127.0.0.1:{port}" in done.stderr


def test_too_few_messages_in_time_end_with_5(server):
    done = hookbot("listen", "--count", "1", "--timeout", "200ms", server.subscribing("/sub/a"))
    assert done.returncode == 5
    done = hookbot("listen", "--timeout", "200ms", server.subscribing("/sub/a"))
    assert done.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["listen", "not a url"], ["publish"], ["serve", "--no-such-flag"], ["no-such-command"]],
    ids=" ".join,
)
def test_wrong_arguments_end_with_2(arguments):
    assert hookbot(*arguments).returncode == 2


@pytest.mark.parametrize("number", [2, 15])
def test_a_server_obeys_from_the_moment_it_listens(number):
    # Several, since one may be stopped late enough by chance.
    for _ in range(10):
        server = Server()
        server.signal(number)
        assert server.wait() == 0


def test_ctrl_c_ends_listening_with_0(server):
    listener = Hookbot("listen", server.subscribing("/sub/a"))
    server.expect_subscriber("/sub/a")
    listener.signal(2)
    assert listener.wait() == 0

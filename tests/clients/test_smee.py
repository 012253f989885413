"""smee.io's clients, unchanged: npm's smee-client and PyPI's pysmee."""

import json
import signal
import sys
from pathlib import Path

import pytest

from program import CANARIES, GITHUB_SECRET, ROOT, Program, Server, curl, node, token
from target import Target, push

# As GitHub writes JSON, without spaces. With what is beyond ASCII, pysmee does as it likes.
PUSH = json.loads((ROOT / "crates/routers/tests/data/push.json").read_bytes())
PUSH = json.dumps(PUSH, separators=(",", ":"), ensure_ascii=False).encode("ascii", "ignore")
ACCENTED = '{"pusher":{"name":"Zoë \\"Z\\" \\\\"},"size":12,"list":[1,[],{}]}'.encode()
FORM = b"token=xyzz&command=%2Fweather&text=94070+now&text=or+never"


class Smee:
    """smee-client's program."""

    name, large = "smee-client", 4_000_000

    def __init__(self, url, target):
        self.program = node("node_modules/.bin/smee", "--url", url, "--target", f"{target.url}/hook")
        self.expect_connection()

    def expect_connection(self):
        self.program.output.expect("^Connected to")


class Pysmee:
    """pysmee."""

    # It takes minutes over megabytes, for it searches all of an event with each KiB that comes.
    name, large = "pysmee", 100_000

    def __init__(self, url, target, *options):
        script = Path(sys.executable).with_name("pysmee")
        self.program = Program([script, "-v", "forward", *options, url, f"{target.url}/hook"])
        self.expect_connection()

    def expect_connection(self):
        self.program.log.expect("VERBOSE: Connected to")


@pytest.fixture
def server():
    return Server("--open-channels")


@pytest.fixture
def target():
    target = Target()
    yield target
    target.close()


@pytest.fixture(params=[Smee, Pysmee], ids=lambda client: client.name)
def client(request):
    if request.param is Smee:
        request.getfixturevalue("needs_node")
    return request.param


def channel(server):
    """The URL of a new channel."""
    made = curl(server.url("/smee/new"))
    url, address = made.stdout.strip(), f"http://{server.address}/smee/"
    assert url.startswith(address), made
    CANARIES.add(url.removeprefix(address))
    return url


def post(url, body, *options):
    done = curl("-f", *options, url, input=body)
    assert (done.returncode, done.stdout) == (0, ""), done


def test_a_push_reaches_the_target_and_its_signature_is_good(client, server, target):
    url = channel(server)
    client(url, target)
    post(url, PUSH, *push(PUSH, GITHUB_SECRET))
    request = target.next()
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["X-GitHub-Event"] == "push"
    assert request.body == PUSH
    assert request.is_signed_by_github(GITHUB_SECRET)


def test_smee_client_sends_on_what_is_beyond_ascii_as_github_signed_it(needs_node, server, target):
    url = channel(server)
    Smee(url, target)
    post(url, ACCENTED, *push(ACCENTED, GITHUB_SECRET))
    request = target.next()
    assert request.body == ACCENTED
    assert request.is_signed_by_github(GITHUB_SECRET)


def test_a_form_arrives_with_all_its_fields(client, server, target):
    url = channel(server)
    client(url, target)
    post(url, FORM, "-H", "X-Slack-Signature: v0=abc", "--data-binary", "@-")
    request = target.next()
    assert request.headers["X-Slack-Signature"] == "v0=abc"
    # The format has no other bodies than JSON.
    assert json.loads(request.body) == {
        "token": "xyzz",
        "command": "/weather",
        "text": ["94070 now", "or never"],
    }


def test_bytes_arrive_in_base64_and_say_so(client, server, target):
    url = channel(server)
    client(url, target)
    post(url, b"\x89PNG\0\xff", "-H", "Content-Type: image/png", "--data-binary", "@-")
    request = target.next()
    assert request.headers["X-Hookbot-Body-Encoding"] == "base64"
    assert json.loads(request.body) == "iVBORwD/"


def test_a_large_body_arrives_whole(client, server, target):
    url = channel(server)
    client(url, target)
    body = json.dumps({"text": "é" * (client.large // 6)}, separators=(",", ":")).encode()
    post(url, body, "-H", "Content-Type: application/json", "--data-binary", "@-")
    assert json.loads(target.next().body) == json.loads(body)


def test_smee_client_sends_the_query_on(needs_node, server, target):
    url = channel(server)
    Smee(url, target)
    post(f"{url}?a=1&b=x%20y", b"{}", "-H", "Content-Type: application/json", "-d", "@-")
    assert target.next().path == "/hook?a=1&b=x+y"


def test_smee_client_makes_a_channel(needs_node, target):
    server = Server("--open-channels", "--channels-token")
    made = node("smee_channel.mjs", server.url("/smee/new", f"?token={token('/smee/new')}"))
    url = made.output.next()
    assert url.startswith(f"http://{server.address}/smee/")
    Smee(url, target)
    post(url, b"[1]", "-H", "Content-Type: application/json", "-d", "@-")
    assert target.next().body == b"[1]"
    refused = node("smee_channel.mjs", server.url("/smee/new"))
    refused.log.expect("Failed to create channel")


def test_pysmee_sends_what_it_has_saved(server, target, tmp_path):
    url, saved = channel(server), tmp_path / "saved"
    listener = Pysmee(url, target, "--save", saved)
    post(url, b'{"n":1}', "-H", "Content-Type: application/json", "-d", "@-")
    assert target.next().body == b'{"n":1}'
    # It writes the file when it ends.
    listener.program.signal(signal.SIGINT)
    listener.program.wait()
    Pysmee(url, target)
    script = Path(sys.executable).with_name("pysmee")
    Program([script, "send", url, saved]).log.expect("POST .* - 200")
    assert target.next().body == b'{"n":1}'


@pytest.mark.parametrize("orderly", [True, False], ids=["stopped", "killed"])
def test_a_client_goes_on_where_it_was_when_the_server_comes_back(
    client, target, tmp_path, orderly
):
    env = {"HOOKBOT_DATA_DIR": tmp_path / "data"}
    first = Server("--open-channels", **env)
    url = channel(first)
    connected = client(url, target)
    kind = ["-H", "Content-Type: application/json", "-d", "@-"]
    post(url, b"[1]", *kind)
    assert target.next().body == b"[1]"
    # pysmee forgets where it was if the server is not there when it first tries.
    connected.program.signal(signal.SIGSTOP)
    if orderly:
        assert first.stop() == 0
    else:
        first.kill()

    second = Server("--open-channels", bind=first.address, **env)
    post(url, b"[2]", *kind)
    connected.program.signal(signal.SIGCONT)
    second.log.expect(r'path="/smee/hbc_\*\*\*" status=200')
    connected.expect_connection()
    post(url, b"[3]", *kind)
    assert sorted(target.next().body for _ in range(2)) == [b"[2]", b"[3]"]
    assert target.requests.empty(), "something came twice"

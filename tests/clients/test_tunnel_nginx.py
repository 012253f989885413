"""`hookbot tunnel` and its callers on the far side of nginx, which speaks TLS."""

import http.client
import queue
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync import client, server as websocket_server

from nginx import Nginx
from program import (
    DEADLINE,
    HERE,
    Hookbot,
    Program,
    Server,
    a_hundred_at_once,
    curl,
    token,
)
from target import Target


@pytest.fixture
def nginx(authority, tmp_path):
    return Nginx(authority.pair(), tmp_path)


@pytest.fixture
def server(nginx):
    own = Server("--public-url", nginx.url(""), "--trusted-proxies", "127.0.0.1")
    nginx.start(own)
    return own


@pytest.fixture
def call(authority, nginx):
    """Calls with curl, given what follows /call/shop."""

    def call(path, *arguments, input=b""):
        url = nginx.url(f"/call/shop{path}", token("/call/shop/"))
        return curl("--cacert", authority.certificate, *arguments, url, input=input)

    return call


def tunnel(nginx, authority, target):
    """Has a target answer, once calls get there."""
    url = nginx.url("/answer/shop", token("/answer/shop"), "wss")
    own = Hookbot("tunnel", "--ca", authority.certificate, url, target)
    expect_connected(own, nginx)
    return own


def expect_connected(own, nginx):
    assert own.output.expect("^answering calls to (.*)")[1] == nginx.url("/call/shop")


def echo(request):
    told = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"]
    headers = {f"X-{name}": request.headers[name] for name in told}
    return 201, headers | {"X-Asked": request.path}, request.body


def test_a_call_and_its_answer_pass(nginx, server, authority, call):
    tunnel(nginx, authority, Target(echo).url)
    # From an address that is not the proxy's.
    done = call("/a//b%2Fc?x=1", "-i", "-d", "question", "--interface", "127.0.0.2")
    head, _, body = done.stdout.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 201"), done
    lower = head.lower()
    assert "x-x-forwarded-for: 127.0.0.2" in lower
    assert "x-x-forwarded-proto: https" in lower
    assert f"x-x-forwarded-host: {nginx.url('')[8:]}" in lower
    assert "x-asked: /a//b%2fc?x=1" in lower
    assert body == "question"


def test_large_bodies_pass_both_ways(nginx, server, authority, call, tmp_path):
    tunnel(nginx, authority, Target(lambda request: (200, {}, request.body)).url)
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(bytes(range(251)) * 80_000)
    done = call("/", "-f", "-T", sent, "-o", received)
    assert done.returncode == 0, done.stderr
    assert received.read_bytes() == sent.read_bytes()


def test_a_body_is_on_its_way_before_its_end(nginx, server, authority):
    url = nginx.url("/answer/shop", token("/answer/shop"), "wss")
    own = Program([sys.executable, HERE / "responder.py", url, authority.certificate])
    own.output.expect("^answering")
    caller = connect(nginx, authority)
    caller.putrequest("POST", "/call/shop")
    caller.putheader("Authorization", f"Bearer {token('/call/shop')}")
    caller.putheader("Content-Length", "10")
    caller.endheaders(b"first")
    answer = caller.getresponse()
    assert answer.read(5) == b"first"
    caller.send(b"final")
    assert answer.read() == b"final"


def connect(nginx, authority):
    context = ssl.create_default_context(cafile=authority.certificate)
    host = nginx.url("")[8:]
    return http.client.HTTPSConnection(host, context=context, timeout=DEADLINE)


def test_a_websocket_passes(nginx, server, authority):
    def answer(socket):
        for message in socket:
            socket.send(message)

    with websocket_server.serve(answer, "127.0.0.1", 0) as target:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        tunnel(nginx, authority, f"http://127.0.0.1:{target.socket.getsockname()[1]}")
        context = ssl.create_default_context(cafile=authority.certificate)
        bearer = {"Authorization": f"Bearer {token('/call/shop/')}"}
        url = nginx.url("/call/shop/socket", scheme="wss")
        with client.connect(url, ssl=context, additional_headers=bearer) as socket:
            for message in ["text", b"", b"\0\xff" * 100_000]:
                socket.send(message)
                assert socket.recv(timeout=DEADLINE) == message
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=DEADLINE)


def test_events_come_one_by_one(nginx, server, authority):
    events = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            while event := events.get():
                self.wfile.write(f"data: {event}\n\n".encode())

        def log_message(self, *arguments):
            pass

    target = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    tunnel(nginx, authority, f"http://127.0.0.1:{target.server_port}")
    caller = connect(nginx, authority)
    headers = {"Authorization": f"Bearer {token('/call/shop')}"}
    caller.request("GET", "/call/shop", headers=headers)
    for number in range(1, 21):
        # Nothing more comes before this one is here.
        events.put(number)
        if number == 1:
            answer = caller.getresponse()
        assert answer.readline() == f"data: {number}\n".encode()
        assert answer.readline() == b"\n"
    events.put(None)
    assert answer.read() == b""


def test_a_hundred_calls_at_a_time_have_their_own_answers(nginx, server, authority, call):
    together = threading.Barrier(100, timeout=DEADLINE)

    def answer(request):
        # Nobody is answered before all have come.
        together.wait()
        return 200, {}, request.body

    tunnel(nginx, authority, Target(answer).url)
    a_hundred_at_once(lambda body: call("/", "-d", body).stdout)


def test_a_tunnel_comes_back_when_nginx_was_killed(nginx, server, authority, call):
    reached, never = threading.Event(), threading.Event()

    def answer(request):
        if request.path == "/held":
            reached.set()
            never.wait(DEADLINE)
        return 200, {}, b"here"

    own = tunnel(nginx, authority, Target(answer).url)
    held = []
    caller = threading.Thread(target=lambda: held.append(call("/held")))
    caller.start()
    assert reached.wait(DEADLINE)
    nginx.process.kill()
    caller.join()
    # Nothing that looks like an answer: it ended before there was one, or was reset.
    assert held[0].returncode in (52, 56) and held[0].stdout == ""
    server.log.expect("responder gone")
    nginx.start(server)
    expect_connected(own, nginx)
    assert call("/").stdout == "here"
    never.set()
    own.signal(15)
    assert own.wait() == 0

"""What a delivery costs the kernel: one write when a message comes alone, less in a burst."""

import contextlib
import os
import re
import shutil
import socket

import pytest

from program import DEADLINE, Program, Server, token

SUBSCRIBERS, ALONE, BURST = 20, 10, 200
BODY = b"x" * 1_000

pytestmark = pytest.mark.skipif(
    not shutil.which("strace") or os.geteuid() != 0, reason="takes strace, and root"
)


def test_a_delivery_is_one_write_and_in_a_burst_less(tmp_path):
    server = Server("--memory", RUST_LOG="hookbot::cli=info,warn")
    with contextlib.ExitStack() as stack:
        publisher = stack.enter_context(contextlib.closing(connect(server)))
        subscribers = [
            stack.enter_context(contextlib.closing(subscribe(server))) for _ in range(SUBSCRIBERS)
        ]

        def publish(count):
            """Publishes so many in one go, until everybody has them and all are answered."""
            publisher.sendall(count * request("POST", "/pub/t", BODY))
            answers = b""
            while answers.count(b"\r\n\r\nOK\n") < count:
                answers += read(publisher, 1)
            for subscriber in subscribers:
                read(subscriber, count * (4 + len(BODY)))

        publish(1)
        with writes(server, tmp_path / "alone") as alone:
            for _ in range(ALONE):
                publish(1)
        assert alone() == ALONE * (SUBSCRIBERS + 1), "a write a delivery, and one for the answer"
        with writes(server, tmp_path / "burst") as burst:
            publish(BURST)
        assert burst() < BURST * SUBSCRIBERS / 2, "what waits together goes out together"


@contextlib.contextmanager
def writes(server, calls):
    """Counts the server's writes to sockets meanwhile."""
    traced = "trace=write,writev,sendto,sendmsg"
    strace = Program(["strace", "-f", "-y", "-p", server.pid, "-o", calls, "-e", traced])
    strace.log.expect("attached")
    yield lambda: len(re.findall(r"^\d+ +\w+\(\d+<(?:TCP|socket)", calls.read_text(), re.M))
    strace.signal(2)
    strace.wait()


def subscribe(server):
    subscriber = connect(server)
    subscriber.sendall(
        request(
            *["GET", "/sub/t", b"", "Connection: Upgrade", "Upgrade: websocket"],
            *["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
        )
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read(subscriber, 1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return subscriber


def request(method, path, body, *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: h", f"Hookbot-Token: {token(path)}", *headers]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


def connect(server):
    host, port = server.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), DEADLINE)


def read(stream, count):
    read = b""
    while len(read) < count:
        more = stream.recv(count - len(read))
        assert more, "the server has closed"
        read += more
    return read

"""Python's websockets, which offers compression and checks what it gets closely."""

import asyncio
import secrets

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from program import DEADLINE, Server, curl, token

MIB = 1 << 20


def subscribe(server, path):
    url = server.subscribing_with_password(path)
    client = connect(url, max_size=None, open_timeout=DEADLINE)
    assert client.protocol.extensions == []
    return client


def publish(server, path, body):
    done = curl("--data-binary", "@-", server.publishing(path), input=body)
    assert done.stdout == "OK\n", done


def test_a_large_body_arrives_intact(server):
    sent = secrets.token_bytes(5 * MIB)
    with subscribe(server, "/sub/large") as client:
        publish(server, "/pub/large", sent)
        assert client.recv(DEADLINE) == sent


def test_an_empty_body_arrives(server):
    with subscribe(server, "/sub/empty") as client:
        publish(server, "/pub/empty", b"")
        assert client.recv(DEADLINE) == b""


def test_a_ping_is_answered(server):
    with subscribe(server, "/sub/a") as client:
        assert client.ping(b"are you there?").wait(DEADLINE)


def test_a_close_is_answered(server):
    with subscribe(server, "/sub/a") as client:
        client.close(1000, "bye")
    received = client.protocol.close_rcvd
    assert received is not None and received.code == 1000


def test_a_wrong_token_is_an_invalid_status(server):
    with pytest.raises(InvalidStatus) as refusal:
        connect(f"ws://{token('/sub/other')}:@{server.address}/sub/secret")
    assert refusal.value.response.status_code == 401


def test_a_text_frame_disturbs_nothing(server):
    with subscribe(server, "/sub/a") as client:
        client.send("a subscriber has nothing to say")
        publish(server, "/pub/a", b"but hears")
        assert client.recv(DEADLINE) == b"but hears"


def test_a_frame_that_is_too_long_closes_with_1009(server):
    with subscribe(server, "/sub/a") as client:
        client.send(bytes(65 << 10))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(DEADLINE)
    assert closed.value.rcvd.code == 1009


def test_everybody_hears(server):
    async def hear():
        async with asyncio.timeout(DEADLINE):
            url = server.subscribing_with_password("/sub/all/")
            clients = [await connect_async(url) for _ in range(50)]
            await asyncio.to_thread(publish, server, "/pub/all/of/you", b"hello")
            heard = await asyncio.gather(*(client.recv() for client in clients))
            for client in clients:
                await client.close()
            return heard

    assert asyncio.run(hear()) == [b"all/of/you\0hello"] * 50


def test_shutdown_delivers_what_is_pending_and_says_goodbye():
    server = Server("--grace", "20s")
    sent = [secrets.token_bytes(MIB) for _ in range(40)]
    with subscribe(server, "/sub/a") as client:
        # More than the client takes and the kernel holds while nobody reads.
        for body in sent:
            publish(server, "/pub/a", body)
        server.signal(15)
        server.log.expect("stopping")
        assert [client.recv(DEADLINE) for _ in sent] == sent
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(DEADLINE)
    assert closed.value.rcvd.code == 1001
    assert server.wait() == 0
    assert "cut off" not in server.log.text()

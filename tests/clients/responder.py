"""A responder in another language, written from docs/protocol.md: HTTP/2's server, in the binary
messages of a WebSocket.

    responder.py wss://TOKEN@HOST/answer/TOPIC [CERTIFICATES TO TRUST]

It sends each call's body back as it comes, tells of the call in headers, and prints a line a call.
"""

import asyncio
import signal
import ssl
import sys
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from websockets.asyncio.client import connect

SUBPROTOCOL = "hookbot.tunnel.v1"
STREAM_WINDOW = 256 << 10
CONNECTION_WINDOW = 2**31 - 1
MAX_CALLS = 100
MAX_MESSAGE = 1 << 20


class Responder:
    def __init__(self):
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.http.update_settings(
            {
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_CALLS,
            }
        )
        self.http.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        # What of each answer is still to be sent, and the calls of which all has come.
        self.waiting, self.whole = {}, set()

    def receive(self, data):
        for event in self.http.receive_data(data):
            match event:
                case RequestReceived():
                    self.begin(event.stream_id, dict(event.headers))
                case DataReceived():
                    self.waiting[event.stream_id].append((event.data, event.flow_controlled_length))
                case StreamEnded():
                    self.whole.add(event.stream_id)
                case StreamReset():
                    self.forget(event.stream_id)
                    print("taken back", flush=True)
        # Any of it may have been what others waited for.
        for stream in list(self.waiting):
            self.go_on(stream)

    def begin(self, stream, headers):
        method, path = headers[":method"], headers[":path"]
        print(method, path, flush=True)
        told = [(":status", "201"), ("x-asked", f"{method} {path}")]
        told += [("x-for", headers["x-forwarded-for"]), ("x-host", headers["x-forwarded-host"])]
        self.http.send_headers(stream, told)
        self.waiting[stream] = []

    def go_on(self, stream):
        """Sends as much as the server has room for, and lets the caller send as much again."""
        pieces = self.waiting[stream]
        while pieces:
            data, length = pieces[0]
            room = self.http.local_flow_control_window(stream)
            room = min(room, self.http.max_outbound_frame_size)
            if data:
                if room <= 0:
                    return
                self.http.send_data(stream, data[:room])
                pieces[0] = data[room:], length
            else:
                pieces.pop(0)
                self.http.acknowledge_received_data(length, stream)
        if stream in self.whole:
            self.http.end_stream(stream)
            self.forget(stream)

    def forget(self, stream):
        self.waiting.pop(stream, None)
        self.whole.discard(stream)


async def serve(url, trusted):
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    options = {
        "subprotocols": [SUBPROTOCOL],
        "additional_headers": {"Authorization": f"Bearer {parts.username}"},
        "compression": None,
        "max_size": MAX_MESSAGE,
    }
    if parts.scheme == "wss":
        options["ssl"] = ssl.create_default_context(cafile=trusted)
    async with connect(parts._replace(netloc=host).geturl(), **options) as socket:
        assert socket.subprotocol == SUBPROTOCOL
        print("answering", socket.response.headers["Hookbot-Call-Url"], flush=True)
        responder = Responder()

        def leave():
            # From here on nothing new comes, and the server closes once all is answered.
            asyncio.ensure_future(socket.send("leaving"))

        assert "leaving" in socket.response.headers["Hookbot-Words"]
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
        await socket.send(responder.http.data_to_send())
        async for message in socket:
            responder.receive(message)
            data = responder.http.data_to_send()
            for start in range(0, len(data), MAX_MESSAGE):
                await socket.send(data[start : start + MAX_MESSAGE])
        print("closed", socket.close_code, socket.close_reason, flush=True)


asyncio.run(serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))

"""What the client of webhook-over-websocket does on the wire, for it is in no registry: written from
a description of version 1.3.0.

    wow_client.py SERVER_URL TARGET_URL

It asks for a channel, connects, and sends each request to the target, whatever its path, many at a
time. The answer goes back as the target's response is on the wire.
"""

import base64
import http.client
import io
import json
import sys
import threading
import urllib.request
from urllib.parse import urlsplit

from websockets.sync.client import connect

# As long as the client's own limit for the target.
TIMEOUT = 10
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def main(server, target):
    with urllib.request.urlopen(f"{server}/new") as reply:
        channel = json.load(reply)["channel_id"]
    print(f"{server}/webhook/{channel}", flush=True)
    url = f"{server.replace('http', 'ws', 1)}/ws/{channel}"
    with connect(url, max_size=None) as socket:
        print("connected", flush=True)
        for frame in socket:
            assert isinstance(frame, str), "JSON comes as text"
            message = json.loads(frame)
            threading.Thread(target=answer, args=[socket, message, target], daemon=True).start()
    print("disconnected", flush=True)


def answer(socket, message, target):
    try:
        response = forward(base64.b64decode(message["payload"], validate=True), target)
    except OSError:
        response = BAD_GATEWAY
    payload = base64.b64encode(response).decode()
    socket.send(json.dumps({"req_id": message["req_id"], "payload": payload}))


def forward(raw, target):
    """Sends a request as it is to the target; its response as it is."""
    line, _, rest = raw.partition(b"\r\n")
    method, path, version = line.decode().split(" ")
    assert path.startswith("/webhook/") and version == "HTTP/1.1"
    file = io.BytesIO(rest)
    headers = http.client.parse_headers(file)
    length = int(headers["Content-Length"] or 0)
    body = file.read(length)
    assert len(body) == length and not file.read(), "the length is not that of the body"
    connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=TIMEOUT)
    connection.putrequest(method, urlsplit(target).path or "/", skip_accept_encoding=True, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, urlsplit(target).netloc if name.lower() == "host" else value)
    connection.endheaders(body or None)
    response = connection.getresponse()
    head = [f"HTTP/1.1 {response.status} {response.reason}"]
    head += [f"{name}: {value}" for name, value in response.getheaders()]
    return "\r\n".join([*head, "", ""]).encode() + response.read()


if __name__ == "__main__":
    main(*sys.argv[1:])

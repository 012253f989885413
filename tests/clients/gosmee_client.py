"""What gosmee's client does on the wire, for gosmee itself is in no registry: as version 0.32.0 of
it behaves.

    gosmee_client.py URL TARGET [RESUME_STATE_FILE]

It looks at the server's version, listens below /events/, and forwards every message to the target.
Messages with ids of two numbers are durable: such an id is where it goes on after it was cut off,
and, with a file, when it is started again. One that the target refuses for good ends it. What it
does is a line on standard output.
"""

import base64
import json
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

VERSION = "0.32.0"
# Redis's form; any other id is no place to go on from.
DURABLE = re.compile(r"\d+-\d+")


def say(*words):
    print(*words, flush=True)


def check_version(url):
    """Asks at the root, whatever the path of the channel is."""
    root = "/".join(url.split("/")[:3])
    with urllib.request.urlopen(f"{root}/version", timeout=5) as reply:
        server = reply.headers["X-Gosmee-Version"] or json.load(reply)["version"]
    say("version", "matches" if server == VERSION else f"mismatch {server}")


class Client:
    def __init__(self, url, target, state):
        base, _, channel = url.rpartition("/")
        self.events, self.target = f"{base}/events/{channel}", target
        self.state = Path(state) if state else None
        self.place = ""
        if self.state and self.state.exists():
            self.place = self.state.read_text().strip()
            assert DURABLE.fullmatch(self.place), "not a place"

    def run(self):
        delay = 1
        while True:
            headers = {
                "Accept": "text/event-stream",
                "Cache-Control": "no-cache",
                "User-Agent": f"gosmee/{VERSION}",
                "X-Accel-Buffering": "no",
            }
            if self.place:
                headers["Last-Event-ID"] = self.place
            try:
                with urllib.request.urlopen(urllib.request.Request(self.events, headers=headers)) as stream:
                    delay = 1
                    self.read(stream)
                say("closed")
            except (OSError, urllib.error.URLError) as error:
                say("cut off", error)
            time.sleep(delay)
            delay = min(2 * delay, 30)

    def read(self, stream):
        event = {"id": "", "event": "", "data": []}
        for line in stream:
            line = line.rstrip(b"\r\n").decode()
            if not line:
                if event != {"id": "", "event": "", "data": []}:
                    self.dispatch(event["id"], event["event"], "\n".join(event["data"]))
                event = {"id": "", "event": "", "data": []}
            elif line.startswith(":"):
                say("comment", line)
            else:
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "data":
                    event["data"].append(value)
                elif field in event:
                    event[field] = value

    def dispatch(self, place, name, data):
        if is_control(name, data):
            return say("forwarding", data)
        if name == "gosmee-gap":
            return say("gap", data)
        if data in ("", "{}"):
            return
        status = self.forward(place, *parse(data))
        if DURABLE.fullmatch(place):
            self.place = place
            if self.state:
                self.state.write_text(f"{place}\n")
        say("forwarded", status)

    def forward(self, place, headers, body):
        request = urllib.request.Request(self.target, body, headers, method="POST")
        delay, attempts = 1, 0
        while True:
            attempts += 1
            try:
                with urllib.request.urlopen(request, timeout=5) as reply:
                    return reply.status
            except urllib.error.HTTPError as error:
                is_passing = error.code in (408, 425, 429) or error.code >= 500
                if DURABLE.fullmatch(place) and not is_passing:
                    sys.exit(f"refused for good: {error.code}")
                if not is_passing:
                    return error.code
            except OSError as error:
                say("not forwarded", error)
            if not DURABLE.fullmatch(place) and attempts > 5:
                return "lost"
            time.sleep(delay)
            delay = min(2 * delay, 30)


def is_control(name, data):
    if name in ("ready", "ping") or data == "ready":
        return True
    try:
        message = json.loads(data)
    except ValueError:
        return False
    return len(message) == 1 and message.get("message") in ("connected", "ready")


def parse(data):
    """The headers and the body of a message."""
    message = json.loads(data)
    assert "body" not in message, "either may be taken, as Go's maps have no order"
    # Go finds the field for the body whether it is written in capital letters or not.
    bodies = [value for key, value in message.items() if key.lower() == "bodyb"]
    body = base64.b64decode(bodies[-1], validate=True)
    int(message["timestamp"])
    assert isinstance(message["timestamp"], str), "only a text is read as a time"
    headers = {
        key.title(): value
        for key, value in message.items()
        if isinstance(value, str) and key not in ("bodyB", "timestamp")
    }
    if "X-Forwarded-For" in headers:
        headers["X-Forwarded-For"] = headers["X-Forwarded-For"].split(":")[0]
    headers.setdefault("Content-Type", "")
    # These its HTTP library writes itself.
    for own in ("Host", "Content-Length", "Transfer-Encoding", "Accept-Encoding"):
        headers.pop(own, None)
    return headers, body


if __name__ == "__main__":
    url, target, *state = sys.argv[1:]
    check_version(url)
    Client(url, target, state[0] if state else None).run()

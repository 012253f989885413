"""What is left when a process is killed, the power goes, or the disk is full or fails.

An acknowledged message is there afterwards: once, whole, under its cursor, behind those that its
publisher sent before. One that was not acknowledged is there once or not at all.

The moments at which things break are random, so more rounds find more: HOOKBOT_KILLS and
HOOKBOT_CUTS say how many. Most of it takes root.
"""

import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import itertools
import json
import os
import random
import re
import secrets
import shutil
import struct
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from program import DEADLINE, Hookbot, Program, Server, hookbot, run, token

KILLS = int(os.environ.get("HOOKBOT_KILLS", 30))
CUTS = int(os.environ.get("HOOKBOT_CUTS", 5))

KIB, MIB = 1 << 10, 1 << 20
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
UNSAFE_IS_OK = {"X-Hookbot-Unsafe-Is-Ok": "I understand the security implications"}

# What the paths of safe and of unsafe messages begin with; on disk they are apart.
SPACES = ["", "/unsafe"]
# Of which space each publisher is.
PUBLISHERS = [""] * 6 + ["/unsafe"] * 2

# As many rounds share a folder, and about as many bytes: it is read again in full after them,
# and nothing may be old enough to be forgotten.
ROUNDS_A_FOLDER = 10
BYTES_A_FOLDER = 48 * MIB
# Retention decides how large a segment is, and the smaller they are the more often one begins.
SMALL_SEGMENTS = ["--retain", "128MiB"]
QUIET = {"RUST_LOG": "hookbot::cli=info,warn"}


# Killed processes.


def test_a_killed_server_has_what_it_acknowledged(tmp_path, report):
    done, total = 0, Outcome()
    while done < KILLS:
        folder = tmp_path / "data"
        history = History()
        rounds = min(ROUNDS_A_FOLDER, KILLS - done)
        while rounds > 0 and history.bytes < BYTES_A_FOLDER:
            if random.random() < 0.3:
                # Somewhere in its start.
                server = Hookbot("serve", "--bind", "127.0.0.1:0", HOOKBOT_DATA_DIR=folder)
                time.sleep(random.uniform(0, 0.03))
                server.kill()
            server = serve(folder)
            with publishing(server, history):
                time.sleep(random.uniform(0.005, 0.3))
                server.kill()
            rounds, done = rounds - 1, done + 1
        server = serve(folder)
        total += history.outcome(server)
        server.kill()
        shutil.rmtree(folder)
    report("kill -9", done, total)
    assert total.is_good, total


def test_a_listener_goes_on_where_it_was(tmp_path):
    data, state = tmp_path / "data", tmp_path / "state"
    server = Server(HOOKBOT_DATA_DIR=data)
    sent, heard = [], []

    def publish_some():
        for _ in range(5):
            sent.append(str(len(sent)))
            assert publish(server, "/pub/a", sent[-1].encode()).status == 200

    for ending in [Server.stop, Server.kill, Server.stop]:
        listener = Hookbot("listen", "--json", "--state", state, server.subscribing("/sub/a"))
        server.expect_subscriber("/sub/a")
        publish_some()
        while len(heard) < len(sent):
            heard.append(json.loads(listener.output.next()))
        listener.signal(2)
        assert listener.wait() == 0
        publish_some()
        ending(server)
        server = Server(HOOKBOT_DATA_DIR=data)
        publish_some()

    left = len(sent) - len(heard)
    done = hookbot(
        *["listen", "--json", "--state", state, "--count", left, server.subscribing("/sub/a")]
    )
    heard += map(json.loads, done.stdout.splitlines())
    assert [message["body"] for message in heard] == sent


# Power cuts.


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_power_cut_leaves_what_was_acknowledged(kind, tmp_path, report):
    done, total = 0, Outcome()
    while done < CUTS:
        with Disk(tmp_path, kind, 512 * MIB) as disk:
            history = History()
            rounds = min(ROUNDS_A_FOLDER, CUTS - done)
            while rounds > 0 and history.bytes < BYTES_A_FOLDER:
                server = disk.serve()
                with publishing(server, history) as publishers:
                    time.sleep(random.uniform(0.005, 0.3))
                    cut = disk.cut()
                # A machine without power acknowledges nothing. This one may, since a sync that is
                # under way at that moment can be told that all is well when it is not.
                history.forget_after(cut)
                # They go on until they are refused, and by a server that is still there.
                assert {publisher.refusal for publisher in publishers} == {503}
                assert (status(server, "/healthz"), status(server, "/readyz")) == (200, 503)
                disk.power_up()
                rounds, done = rounds - 1, done + 1
            total += history.outcome(disk.serve())
    report(f"power cut, {kind}", done, total)
    assert total.is_good, total


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_power_cut_without_syncing_loses_messages(kind, tmp_path, report):
    """The control: were the server not to sync, the test above would notice."""
    need("strace")
    total, rounds = Outcome(), 0
    with Disk(tmp_path, kind, 512 * MIB) as disk:
        while total.lost == 0 and rounds < 10:
            # One that stops in order, so that only the messages are at stake.
            disk.serve().stop()
            server = disk.serve()
            history = History()
            with traced(server, tmp_path / "calls", "fsync,fdatasync:retval=0"):
                with publishing(server, history, large=False):
                    time.sleep(random.uniform(0.1, 0.3))
                    cut = disk.cut()
            history.forget_after(cut)
            disk.power_up()
            server = disk.serve()
            total += history.outcome(server)
            server.stop()
            rounds += 1
    report(f"power cut, {kind}, no sync", rounds, total)
    assert total.lost > 0, total


# Disks that fail.


def test_a_sync_that_fails_is_the_last_one(tmp_path, report):
    need("strace")
    server = serve(tmp_path / "data")
    history, calls = History(), tmp_path / "calls"
    with traced(server, calls, "fdatasync:error=EIO:when=20"):
        with publishing(server, history) as publishers:
            pass
        assert {publisher.refusal for publisher in publishers} == {503}
        for _ in range(5):
            refused = publish(server, "/pub/late", b"late")
            assert (refused.status, refused.cursor) == (503, None)
        assert (status(server, "/healthz"), status(server, "/readyz")) == (200, 503)
        there = {at for topic, _, at in history.acknowledged() if topic.startswith("t/")}
        heard = everything(server, history.subscribing(""), max(there, key=place))
        assert there <= {head["cursor"] for head, _ in heard}
    syncs = re.findall(r"\b(f?sync|fdatasync|syncfs|sync_file_range)\(", calls.read_text())
    assert syncs == ["fdatasync"] * 20
    server.kill()

    outcome = history.outcome(serve(tmp_path / "data"))
    report("fdatasync fails", 1, outcome)
    assert outcome.is_good, outcome


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_refuses_and_recovers(kind, tmp_path):
    body = secrets.token_bytes(64 * KIB)
    with Disk(tmp_path, kind, 12 * MIB) as disk:
        disk.fill(3 * MIB)
        server = disk.serve()
        acknowledged, refused = [], []

        def send(contents):
            reply = publish(server, "/pub/t/full", contents)
            if reply.status == 200:
                acknowledged.append((reply.cursor, contents))
            else:
                assert (reply.status, reply.cursor) == (503, None)
                assert int(reply.retry_after) > 0
                refused.append(contents)
            return reply.status

        def assert_all_is_there():
            heard = everything(server, "/sub/t/", acknowledged[-1][0])
            assert [(head["cursor"], body) for head, body in heard] == acknowledged

        with subscribe(server, "/sub/t/full") as live:
            while len(refused) < 5:
                send(b"%d " % (len(acknowledged) + len(refused)) + body)
            assert (status(server, "/healthz"), status(server, "/readyz")) == (200, 503)
            heard = itertools.islice(messages(live), len(acknowledged))
            assert [(head["cursor"], body) for head, body in heard] == acknowledged
        assert len(acknowledged) > 20
        assert_all_is_there()

        disk.free()
        assert send(b"there is room again") == 200
        assert status(server, "/readyz") == 200
        while send(b"%d " % len(acknowledged) + body) == 200:
            pass
        assert_all_is_there()

        # It starts on a full disk as well.
        server.kill()
        server = disk.serve()
        assert_all_is_there()
        server.kill()


# Folders that are not as they were left.


def test_a_folder_has_one_server(tmp_path):
    server = serve(tmp_path / "data")
    second = hookbot("serve", "--bind", "127.0.0.1:0", HOOKBOT_DATA_DIR=tmp_path / "data")
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert str(tmp_path / "data") in line
    assert publish(server, "/pub/t/a", b"still here").status == 200
    # The next may have it, however the first one ended.
    server.kill()
    serve(tmp_path / "data")


def test_a_newer_folder_is_left_alone(tmp_path):
    server = serve(tmp_path / "data")
    publish(server, "/pub/t/a", b"old")
    assert server.stop() == 0
    flip(tmp_path / "data/meta", 8, to=99)
    before = contents(tmp_path / "data")
    for arguments in [[], ["--repair"]]:
        done = hookbot(
            "serve", "--bind", "127.0.0.1:0", *arguments, HOOKBOT_DATA_DIR=tmp_path / "data"
        )
        assert done.returncode == 1
        assert "version 99" in done.stderr and "newer" in done.stderr
        assert contents(tmp_path / "data") == before


def test_damage_is_refused_and_repaired(tmp_path):
    data = tmp_path / "data"
    server = serve(data)
    bodies = [b"message %d" % n for n in range(20)]
    cursors = [publish(server, "/pub/t/a", body).cursor for body in bodies]
    assert server.stop() == 0
    log = data / "safe-00000001.log"
    places = [log.read_bytes().index(body) for body in bodies]
    flip(log, places[7] + 3)
    before = contents(data)

    done = hookbot("serve", "--bind", "127.0.0.1:0", HOOKBOT_DATA_DIR=data)
    assert done.returncode == 6
    found = re.search(r"safe-00000001\.log, byte (\d+)", done.stderr)
    assert found and places[6] < int(found[1]) <= places[7], done.stderr
    assert "--repair" in done.stderr
    assert contents(data) == before

    server = serve(data, "--repair")
    last = publish(server, "/pub/t/a", b"after").cursor
    heard = list(everything(server, "/sub/t/", last))
    assert [body for _, body in heard] == bodies[:7] + bodies[8:] + [b"after"]
    epochs = {head["cursor"].partition(".")[0] for head, _ in heard}
    assert epochs == {last.partition(".")[0]} != {cursors[0].partition(".")[0]}
    # It takes one repair, not one a start.
    assert server.stop() == 0
    again = serve(data)
    assert [body for _, body in everything(again, "/sub/t/", last)] == [body for _, body in heard]


@pytest.mark.parametrize("shift", ["+365d", "-365d"])
def test_a_clock_that_jumps_forgets_nothing(shift, tmp_path):
    if not FAKETIME.exists():
        pytest.skip("libfaketime is not installed")
    clocks = [{}, {"LD_PRELOAD": FAKETIME, "DONT_FAKE_MONOTONIC": 1, "FAKETIME": shift}, {}]
    sent = []
    for clock in clocks:
        server = Server(*SMALL_SEGMENTS, HOOKBOT_DATA_DIR=tmp_path / "data", **QUIET, **clock)
        # Enough for a segment or two, so that there is one that could go.
        for _ in range(12):
            body = secrets.token_bytes(MIB)
            sent.append((publish(server, "/pub/t/a", body).cursor, body))
        heard = list(everything(server, "/sub/t/", sent[-1][0]))
        assert [(head["cursor"], body) for head, body in heard] == sent
        assert server.stop() == 0
    years = [int(head["time"][:4]) for head, _ in heard]
    assert abs(years[12] - years[0]) == 1 and years[-1] == years[0]
    places = [place(cursor) for cursor, _ in sent]
    assert places == sorted(places)


# Publishers, and what they were told.


class History:
    """What was published in some topics of its own, and how it was acknowledged."""

    def __init__(self):
        self.name = secrets.token_hex(4)
        self.publishers = [Writer(self.name, n, space) for n, space in enumerate(PUBLISHERS)]

    def subscribing(self, space):
        """The path below which all of a space is."""
        return f"{space}/sub/t/{self.name}/"

    def acknowledged(self):
        """Topic, number and cursor of each message that was."""
        for writer in self.publishers:
            for number, (cursor, _) in writer.acknowledged.items():
                yield writer.topic, number, cursor

    def forget_after(self, moment):
        """Takes what was acknowledged later for unacknowledged."""
        for writer in self.publishers:
            in_time = {n: ack for n, ack in writer.acknowledged.items() if ack.time <= moment}
            writer.acknowledged = in_time

    @property
    def bytes(self):
        return sum(writer.bytes for writer in self.publishers)

    def outcome(self, server):
        """Compares it with what the server has."""
        writers = {writer.topic: writer for writer in self.publishers}
        found = collections.defaultdict(list)
        outcome = Outcome()
        for space in SPACES:
            end = publish(server, f"{space}/pub/t/{self.name}/end", b"").cursor
            newest, before = collections.Counter(), 0
            for head, body in everything(server, self.subscribing(space), end):
                topic, cursor = head["topic"], head["cursor"]
                outcome.reordered += place(cursor) <= before
                before = place(cursor)
                if cursor == end:
                    continue
                number = number_of(topic, body)
                if number is None or number > writers[topic].number:
                    outcome.damaged += 1
                    continue
                outcome.reordered += number < newest[topic]
                newest[topic] = number
                found[topic, number].append(cursor)
        for topic, number, cursor in self.acknowledged():
            outcome.acked += 1
            outcome.lost += cursor not in found[topic, number]
        outcome.doubled = sum(len(cursors) > 1 for cursors in found.values())
        outcome.unacked = sum(len(cursors) > 0 for cursors in found.values())
        outcome.unacked -= outcome.acked - outcome.lost
        return outcome


@dataclasses.dataclass
class Outcome:
    """How many messages had which fate."""

    acked: int = 0
    # There, though nobody was told so.
    unacked: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    # Not what was published.
    damaged: int = 0

    def __add__(self, other):
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Outcome(*map(sum, zip(mine, others)))

    @property
    def is_good(self):
        return self.acked > 0 and not (
            self.lost or self.doubled or self.reordered or self.damaged
        )


Acknowledgement = collections.namedtuple("Acknowledgement", "cursor time")


class Writer:
    """A publisher of numbered messages, which comes back after each restart."""

    def __init__(self, name, n, space):
        self.path = f"{space}/pub/t/{name}/{n}"
        self.topic = f"{space}/t/{name}/{n}" if space else f"t/{name}/{n}"
        self.number, self.bytes = 0, 0
        self.acknowledged = {}
        self.refusal = None

    def run(self, server, large):
        """Publishes until it is refused or cut off."""
        self.refusal = None
        connection = http.client.HTTPConnection(server.address, timeout=DEADLINE)
        lost = (OSError, http.client.HTTPException)
        with contextlib.closing(connection), contextlib.suppress(*lost):
            while self.refusal is None:
                self.number += 1
                body = numbered(self.topic, self.number, large)
                self.bytes += len(body)
                connection.request("POST", self.path, body, {"Hookbot-Token": token(self.path)})
                response = connection.getresponse()
                if response.status == 200:
                    cursor = response.headers["Hookbot-Cursor"]
                    self.acknowledged[self.number] = Acknowledgement(cursor, time.monotonic())
                else:
                    self.refusal = response.status
                response.read()


def numbered(topic, number, large):
    """A body that says whose it is, and whether it is whole."""
    most = random.choices([KIB, 32 * KIB, 512 * KIB], [90, 8, 2])[0] if large else KIB
    filling = random.randbytes(random.randrange(most))
    head = f"{topic} {number} ".encode()
    return head + hashlib.sha256(head + filling).hexdigest().encode() + b" " + filling


def number_of(topic, body):
    """The number in a body, if the topic is its own and all of it is there."""
    own, number, digest, filling = body.split(b" ", 3)
    head = own + b" " + number + b" "
    is_whole = hashlib.sha256(head + filling).hexdigest().encode() == digest
    return int(number) if is_whole and own.decode() == topic else None


@contextlib.contextmanager
def publishing(server, history, large=True):
    """Has everybody publish, and in the end waits until all were refused or cut off."""
    threads = [
        threading.Thread(target=writer.run, args=[server, large], daemon=True)
        for writer in history.publishers
    ]
    for thread in threads:
        thread.start()
    yield history.publishers
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "a publisher has no answer"


Reply = collections.namedtuple("Reply", "status cursor retry_after")


def publish(server, path, body):
    headers = {"Hookbot-Token": token(path)}
    reply = request(server, "POST", path, body, headers)
    return Reply(reply.status, reply.headers["Hookbot-Cursor"], reply.headers["Retry-After"])


def status(server, path):
    return request(server, "GET", path).status


def request(server, method, path, body=None, headers={}):
    connection = http.client.HTTPConnection(server.address, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        return response


def subscribe(server, path, query=""):
    headers = UNSAFE_IS_OK if path.startswith("/unsafe/") else {}
    return connect(
        server.subscribing_with_password(path) + query,
        subprotocols=["hookbot.events.v1"],
        additional_headers=headers,
        max_size=None,
        open_timeout=DEADLINE,
    )


def messages(client):
    """Heads and bodies of what comes to a subscriber."""
    while True:
        head, _, body = client.recv(DEADLINE).partition(b"\0")
        head = json.loads(head)
        assert "gap" not in head, head
        # The others only say where the log is.
        if "cursor" in head:
            yield head, body


def everything(server, path, last):
    """Heads and bodies of all messages that the server has, up to this cursor."""
    with subscribe(server, path, "?after=start") as client:
        for head, body in messages(client):
            yield head, body
            if head["cursor"] == last:
                return


def place(cursor):
    """Where in the log a message is."""
    return int(cursor.partition(".")[2])


# Servers, disks, and how they are broken.


@pytest.fixture
def report(capsys):
    """Shows figures that are worth knowing though all is well."""

    def show(what, rounds, outcome):
        figures = {"rounds": rounds} | dataclasses.asdict(outcome)
        text = " ".join(f"{name}={figure}" for name, figure in figures.items())
        with capsys.disabled():
            print(f"\n{what}: {text}")

    return show


def need(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def serve(folder, *arguments):
    """A server with small segments that says little."""
    return Server(*SMALL_SEGMENTS, *arguments, HOOKBOT_DATA_DIR=folder, **QUIET)


@contextlib.contextmanager
def traced(server, calls, inject):
    """Has some of a server's system calls fail, or not happen, from now on."""
    # All that would make something durable, so that none is tried unseen.
    trace = "trace=fsync,fdatasync,sync,syncfs,sync_file_range"
    command = ["strace", "-f", "-p", server.pid, "-o", calls, "-e", trace]
    strace = Program([*command, "-e", f"inject={inject}"])
    if "attached" not in strace.log.expect("attached|not permitted")[0]:
        pytest.skip("strace may not attach to a process")
    try:
        yield
    finally:
        strace.signal(15)
        strace.wait()


class Disk:
    """A file system of its own, whose power can be cut, and the servers that use it."""

    def __init__(self, folder, kind, size):
        if os.geteuid() != 0:
            pytest.skip("mounting takes root")
        self._kind, self._size = kind, size
        self._image, self._at = folder / "image", folder / "disk"
        self._servers = []

    def __enter__(self):
        self._at.mkdir(exist_ok=True)
        if self._kind != "tmpfs":
            need(f"mkfs.{self._kind}")
            with open(self._image, "wb") as image:
                image.truncate(self._size)
            made = run([f"mkfs.{self._kind}", "-q", self._image])
            assert made.returncode == 0, made
        mounted = self._mount()
        if mounted.returncode != 0:
            pytest.skip(f"cannot mount {self._kind}: {mounted.stderr}")
        return self

    def __exit__(self, *_):
        self._unmount()
        self._image.unlink(missing_ok=True)

    def serve(self):
        server = serve(self._at / "data")
        self._servers.append(server)
        return server

    def cut(self):
        """Nothing gets to the disk any more, not even what the system has yet to write.

        Gives the moment before.
        """
        folder = os.open(self._at, os.O_RDONLY)
        try:
            moment = time.monotonic()
            fcntl.ioctl(folder, GOING_DOWN, struct.pack("I", WITHOUT_FLUSHING))
        finally:
            os.close(folder)
        return moment

    def power_up(self):
        """What a machine would find that starts again."""
        self._unmount()
        mounted = self._mount()
        assert mounted.returncode == 0, mounted

    def fill(self, size):
        """Takes so much of the room."""
        with open(self._at / "filler", "wb") as filler:
            filler.write(bytes(size))
            filler.flush()
            os.fsync(filler.fileno())

    def free(self):
        """Gives it back."""
        (self._at / "filler").unlink()
        run(["sync", "-f", self._at])

    def _mount(self):
        if self._kind == "tmpfs":
            return run(["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self._at])
        return run(["mount", "-o", "loop", self._image, self._at])

    def _unmount(self):
        for server in self._servers:
            server.kill()
        self._servers.clear()
        done = run(["umount", self._at])
        assert done.returncode == 0, done


# From the kernel's headers: XFS_IOC_GOINGDOWN, which ext4 knows as well, and its argument.
GOING_DOWN, WITHOUT_FLUSHING = 0x8004587D, 2


def flip(file, at, to=None):
    """Changes one byte, by default only its lowest bit."""
    contents = bytearray(file.read_bytes())
    contents[at] = contents[at] ^ 1 if to is None else to
    file.write_bytes(contents)


def contents(folder):
    """All files in a folder, but no sockets."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

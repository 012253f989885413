"""Child processes whose output is waited for, and the server as one of them.

Nothing here waits for time to pass: what a test needs to have happened is a line that somebody
prints. DEADLINE only turns a wait that would last for ever into a failure.
"""

import base64
import hashlib
import hmac
import itertools
import json
import os
import pty
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOOKBOT = os.environ.get("HOOKBOT_BIN") or str(
    Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "hookbot"
)
DEADLINE = 30

# A folder is used by one server at a time, so each has one of its own.
_FOLDERS = tempfile.TemporaryDirectory(prefix="hookbot-", ignore_cleanup_errors=True)
_NUMBERS = itertools.count()

# Made anew for each run, so that finding one in a log means that it was leaked.
KEY = secrets.token_hex(32)
GITHUB_SECRET = secrets.token_hex(20)
# What must never be in a log, and the log lines of every program of ours.
CANARIES = {KEY, GITHUB_SECRET}
LOGS = []


def token(path, key=KEY, digest=hashlib.sha256):
    """The token for a path, by Python's HMAC rather than ours."""
    made = hmac.new(key.encode(), path.encode(), digest).hexdigest()
    # Tools turn a token into this when it is given as user info.
    CANARIES.update({made, base64.b64encode(f"{made}:".encode()).decode()})
    return made


class Lines:
    """Lines that another thread reads, to be waited for."""

    def __init__(self, stream, name):
        self.lines = []
        self._name, self._next, self._ended = name, 0, False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=[stream], daemon=True).start()

    def _read(self, stream):
        try:
            for line in stream:
                with self._changed:
                    self.lines.append(clean(line))
                    self._changed.notify_all()
        except OSError:
            pass  # How a terminal says that its last program has ended.
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def expect(self, pattern=""):
        """The match with the next line that has one; the lines before it are passed over."""
        end = time.monotonic() + DEADLINE
        with self._changed:
            while True:
                while self._next < len(self.lines):
                    line = self.lines[self._next]
                    self._next += 1
                    if found := re.search(pattern, line):
                        return found
                if self._ended or not self._changed.wait(end - time.monotonic()):
                    raise AssertionError(f"no {pattern!r} in {self._name}:\n" + self.text())

    def next(self):
        """The next line, whatever it is."""
        return self.expect().string

    def rest(self):
        """What is left, once there will be no more."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, DEADLINE), "still open"
            rest, self._next = self.lines[self._next :], len(self.lines)
            return rest

    def skip_to_now(self):
        """Passes over what has come so far."""
        with self._changed:
            self._next = len(self.lines)

    def text(self):
        return "\n".join(self.lines)


def clean(line):
    """A line as it is to be seen in the end, without prompts that were overwritten and colours."""
    text = line.decode(errors="backslashreplace").rstrip("\r\n")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).rpartition("\r")[2]


class Program:
    """A program that runs on while the test does something else."""

    def __init__(self, command, *, tty=False, inherit=(), **env):
        self.command = [str(part) for part in command]
        options = {"env": environment(env), "stdin": subprocess.PIPE, "pass_fds": inherit}
        if tty:
            ours, theirs = pty.openpty()
            self._process = subprocess.Popen(
                self.command, **options | {"stdin": theirs}, stdout=theirs, stderr=theirs
            )
            os.close(theirs)
            self.output = Lines(os.fdopen(ours, "rb", buffering=0), self.command[0])
            self.log = self.output
            return
        self._process = subprocess.Popen(
            self.command, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.output = Lines(self._process.stdout, "standard output")
        self.log = Lines(self._process.stderr, "the log")

    @property
    def pid(self):
        return self._process.pid

    @property
    def running(self):
        return self._process.poll() is None

    def send(self, line):
        """Types a line."""
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def wait(self):
        """The exit code."""
        return self._process.wait(DEADLINE)


class Hookbot(Program):
    """A hookbot that runs on; its log is searched for secrets at the end."""

    def __init__(self, *arguments, **env):
        super().__init__([HOOKBOT, *arguments], **defaults() | env)
        LOGS.append(self.log)


class Server(Hookbot):
    """`hookbot serve` on a port of its own."""

    def __init__(self, *arguments, bind="127.0.0.1:0", scheme="http", **env):
        super().__init__("serve", "--bind", bind, *arguments, **env)
        self.address = self.log.expect(r"Listening on (\S+)")[1]
        self.scheme = scheme

    def url(self, path, query=""):
        return f"{self.scheme}://{self.address}{path}{query}"

    def url_with_token(self, path, scheme=None):
        scheme = scheme or self.scheme
        return f"{scheme}://{token(path)}@{self.address}{path}"

    def subscribing(self, path):
        """Where to subscribe, token included."""
        return self.url_with_token(path, self.scheme.replace("http", "ws"))

    def subscribing_with_password(self, path):
        """The same for clients that insist on a password, if only an empty one."""
        return f"ws://{token(path)}:@{self.address}{path}"

    def publishing(self, path):
        """Where to publish, token included."""
        return self.url_with_token(path)

    def expect_subscriber(self, path):
        """Waits for somebody to have subscribed: what is published from now on reaches them."""
        self.log.expect(f'method=GET path="{re.escape(path)}" status=101')

    def stop(self):
        """Has it stop, as a service manager does; gives the exit code."""
        self.signal(15)
        return self.wait()


def hookbot(*arguments, input=b"", **env):
    """Runs a hookbot command to its end."""
    done = run([HOOKBOT, *arguments], input=input, **defaults() | env)
    LOGS.append(Finished(done.stderr))
    return done


class Finished:
    """The log of a program that has ended."""

    def __init__(self, text):
        self.lines = text.splitlines()


def run(command, *, input=b"", **env):
    """Runs any command to its end; its output is text."""
    done = subprocess.run(
        [str(part) for part in command],
        input=input,
        capture_output=True,
        env=environment(env),
        timeout=DEADLINE,
    )
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


def curl(*arguments, input=b""):
    """Runs curl, which neither shows its progress nor reads a file of defaults."""
    return run(["curl", "-q", "-sS", "--max-time", str(DEADLINE), *arguments], input=input)


def a_hundred_at_once(call):
    """Makes a hundred calls, each with a body of its own, which has to be its answer, too."""
    sent = {number: f"<{number}>" * 1_000 for number in range(100)}
    answers = {}

    def one(number):
        answers[number] = call(sent[number])

    threads = [threading.Thread(target=one, args=[number]) for number in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == sent


def node(script, *arguments, tty=False):
    """Runs a JavaScript program."""
    return Program([shutil.which("node"), HERE / script, *arguments], tty=tty)


def wscat(url, *arguments):
    """Connects wscat, at a terminal as a person would, and waits until it is."""
    program = node("node_modules/.bin/wscat", "--no-color", "-c", url, *arguments, tty=True)
    program.output.expect("^Connected")
    return program


def message(program):
    """The next message that wscat shows."""
    return program.output.expect("^< (.*)")[1]


def ws(url, **options):
    """Connects npm's ws; what happens comes as `event`s."""
    return node("ws_client.js", json.dumps({"url": url} | options))


def event(program):
    """The next thing that happened to a client made by `ws`."""
    return json.loads(program.output.next())


def defaults():
    """What every hookbot is told, unless a test tells it otherwise."""
    return {"HOOKBOT_KEY": KEY, "HOOKBOT_DATA_DIR": Path(_FOLDERS.name, str(next(_NUMBERS)))}


def environment(extra):
    """Ours, without what would change how a program behaves; `None` removes a variable."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HOOKBOT_")
        and name != "RUST_LOG"
        and not name.lower().endswith("_proxy")
    }
    given = kept | {"TERM": "xterm"} | extra
    return {name: str(value) for name, value in given.items() if value is not None}

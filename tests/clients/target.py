"""An HTTP service that things are forwarded to, and that tells what came."""

import hashlib
import hmac
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from program import DEADLINE


class Target:
    """Answers on a port of its own, and keeps every request for `next`."""

    def __init__(self, answer=lambda request: (200, {}, b"")):
        self.requests = queue.Queue()
        target = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                length = int(self.headers.get("Content-Length", 0))
                request = Request(self.command, self.path, self.headers, self.rfile.read(length))
                target.requests.put(request)
                status, headers, body = answer(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def next(self):
        """The next request."""
        return self.requests.get(timeout=DEADLINE)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Request:
    """What came."""

    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def is_signed_by_github(self, secret):
        """Whether the body is what GitHub has signed."""
        made = hmac.new(secret.encode(), self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers["X-Hub-Signature-256"], f"sha256={made}")


def push(body, secret, *options):
    """What curl is told to post a push as GitHub does."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return [
        *["-H", "Content-Type: application/json", "-H", "X-GitHub-Event: push"],
        *["-H", "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958"],
        *["-H", f"X-Hub-Signature-256: sha256={signature}"],
        *[*options, "--data-binary", "@-"],
    ]

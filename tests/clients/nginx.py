"""nginx before a server, configured as docs/operations.md says."""

import re
import shutil
import socket

import pytest

from program import ROOT, Program


class Nginx:
    """Speaks TLS before a server, on a port that stays its own when it is started again."""

    def __init__(self, pair, folder):
        self._command, self._pair, self._folder = shutil.which("nginx"), pair, folder
        if self._command is None:
            pytest.skip("nginx is not installed")
        # It is here that somebody listens, so nobody else gets the port.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._port = self._listener.getsockname()[1]

    def url(self, path, token=None, scheme="https"):
        user = f"{token}@" if token else ""
        return f"{scheme}://{user}localhost:{self._port}{path}"

    def start(self, server):
        """Starts it, with what is needed to answer for this server."""
        own = documented()
        for told, here in [
            ("listen 443 ", f"listen 127.0.0.1:{self._port} "),
            ("hooks.example.com;", "localhost;"),
            ("/etc/ssl/hooks.pem;", f"{self._pair.certificate};"),
            ("/etc/ssl/hooks-key.pem;", f"{self._pair.key};"),
            ("http://127.0.0.1:8080;", f"http://{server.address};"),
        ]:
            assert told in own, told
            own = own.replace(told, here)
        kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        folders = "".join(f"{kind}_temp_path {self._folder / kind};\n" for kind in kinds)
        config = self._folder / "nginx.conf"
        config.write_text(
            f"daemon off; pid {self._folder / 'pid'}; error_log stderr;\n"
            "events { worker_connections 1000; }\n"
            f"http {{\naccess_log off;\n{folders}{own}}}\n"
        )
        number = self._listener.fileno()
        # How nginx is told of listeners when it takes another one's place.
        command = [self._command, "-p", self._folder, "-e", "stderr", "-c", config]
        self.process = Process(command, inherit=[number], NGINX=f"{number};")


class Process(Program):
    """One that has children, and ends them if it is asked to end: nobody is told goodbye."""

    def kill(self):
        self.signal(15)
        self.wait()


def documented():
    """The configuration that users are told."""
    text = (ROOT / "docs" / "operations.md").read_text()
    return re.search(r"^```nginx\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]

"""Certificates for the day, made with openssl."""

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import program


@dataclass
class Pair:
    """A certificate and its private key."""

    certificate: Path
    key: Path

    def move_over(self, other):
        """Takes the place of another pair, one file at a time, as a renewal does."""
        os.replace(self.certificate, other.certificate)
        os.replace(self.key, other.key)


class Authority:
    """Signs certificates for this machine's loopback, and for clients."""

    def __init__(self, folder):
        self._folder, self._count = folder, 0
        own = self._pair("authority")
        self.certificate, self._key = own.certificate, own.key
        subject = ["-x509", "-days", "2", "-subj", "/CN=hookbot tests"]
        openssl("req", *KEY, *subject, "-keyout", own.key, "-out", own.certificate)

    def pair(self, name="localhost"):
        """A new pair."""
        self._count += 1
        pair = self._pair(f"{name}-{self._count}")
        request, extensions = self._folder / "request", self._folder / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        signer = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"]
        result = ["-extfile", extensions, "-days", "1", "-out", pair.certificate]
        openssl("x509", "-req", "-in", request, *signer, *result)
        return pair

    def serve(self, *arguments, pair=None):
        """A server with a pair of its own, or with this one."""
        pair = pair or self.pair()
        files = ["--tls-cert", pair.certificate, "--tls-key", pair.key]
        return program.Server(*files, *arguments, scheme="https")

    def serial(self, server):
        """The serial number of the certificate that a new connection sees."""
        host, port = server.address.split(":")
        context = ssl.create_default_context(cafile=self.certificate)
        with socket.create_connection((host, int(port)), program.DEADLINE) as plain:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                return secured.getpeercert()["serialNumber"]

    def _pair(self, name):
        return Pair(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")


KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*arguments):
    done = program.run(["openssl", *arguments])
    assert done.returncode == 0, done.stderr

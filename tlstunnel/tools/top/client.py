"""Asking a running tunnel's admin endpoint, for the commands that show what it says."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlstunnel.address import Target, UnixAddress, shown
from tlstunnel.errors import StartupError, printable, words_of

TIMEOUT_S = 5.0
MAX_ANSWER = 16 << 20
_OTHER = "no tunnel's admin endpoint; name another with --admin"
_SPEAKS_TLS = (
    "this port speaks TLS; name the admin endpoint with --admin, and its CA with --ca if it is served over TLS"
)
_TLS_ALERT = "\x15\x03"
"""How a TLS server's answer to plain HTTP begins: a record with an alert (RFC 8446 section 5.1)."""
_HINTS = (b"speaks TLS", b"HTTPS port", b"HTTPS server")
"""In answers of servers that understand plain HTTP on a TLS port just enough to complain: ours, nginx's, Go's."""
_PARTS = {
    "/status": frozenset(("version", "phase", "ready", "services", "workers", "certificates", "last_reload")),
    "/connections": frozenset(("connections",)),
}
"""What is in a tunnel's documents, by path: other servers answer /status with JSON, too."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class AdminClient:
    """One endpoint. The connection is kept and made again when it breaks.

    Args:
        address: where the endpoint listens.
        tls: from `client_context`, where the endpoint is served over TLS.
    """

    def __init__(self, address: Target, tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self._tls = tls
        self._connection: http.client.HTTPConnection | None = None

    def document(self, path: str) -> dict[str, Any]:
        """The JSON document of a path.

        Raises:
            StartupError: nobody answers there, or something that is not a tunnel.
        """
        reused = self._connection is not None
        try:
            status, body = self._ask(path)
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            if reused:  # An idle connection that the endpoint has closed meanwhile: once more on a fresh one.
                return self.document(path)
            raise StartupError(f"{self.address}: {self._why(exc)}") from exc
        where = f"{self.address}{path}"
        if status != 200:
            raise StartupError(f"{where}: {_refusal(status, body)}")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise StartupError(f"{where}: the answer is not a tunnel's; name its admin endpoint with --admin") from exc
        if not isinstance(found, dict) or not _PARTS.get(path.partition("?")[0], frozenset()) <= found.keys():
            raise StartupError(f"{where}: the answer is not a tunnel's; name its admin endpoint with --admin")
        return found

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _why(self, exc: OSError | http.client.HTTPException) -> str:
        """Why there is no answer, and what would be right."""
        if isinstance(exc, http.client.BadStatusLine) and str(exc).startswith(_TLS_ALERT):
            return _SPEAKS_TLS
        if isinstance(exc, ssl.SSLCertVerificationError):
            why = exc.verify_message.rstrip(".").lower()
            return (
                f"its certificate is not trusted: {why}; name the CA with --ca, and the endpoint as it is called there"
            )
        if isinstance(exc, ssl.SSLError) and exc.reason == "WRONG_VERSION_NUMBER":
            return "this port speaks no TLS; leave out --ca, --cert and --key, or name another with --admin"
        wants = isinstance(exc, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (exc.reason or "")
        if wants or isinstance(exc, BrokenPipeError | ConnectionResetError):  # depends on who was faster
            may = "TLS (then --ca names its CA)" if self._tls is None else "it may want a certificate (--cert, --key)"
            return f"somebody is there, and closes without an answer: {may}, or {_OTHER}"
        if isinstance(exc, OSError):
            said = words_of(exc)
        else:  # what it holds are the peer's own bytes
            return f"answers, but not in HTTP; {_OTHER}"
        return (
            f"no tunnel's admin endpoint answers: {said}; start the tunnel with --admin {self.address}, "
            "or name another endpoint"
        )

    def _ask(self, path: str) -> tuple[int, bytes]:
        if self._connection is None:
            if isinstance(self.address, UnixAddress):
                self._connection = _UnixConnection(self.address.path)
            elif self._tls is not None:
                self._connection = http.client.HTTPSConnection(
                    self.address.host, self.address.port, timeout=TIMEOUT_S, context=self._tls
                )
            else:
                self._connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=TIMEOUT_S)
        self._connection.request("GET", path, headers={"Accept": "application/json"})
        response = self._connection.getresponse()
        return response.status, response.read(MAX_ANSWER)


@contextlib.contextmanager
def understood(client: AdminClient) -> Iterator[None]:
    """Here a tunnel's document is made use of: what is not as it should be in it makes it somebody else's.

    Raises:
        StartupError: it does.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        raise StartupError(
            f"{client.address}: the answer is not a tunnel's; name its admin endpoint with --admin"
        ) from exc


def cleaned(value: Any) -> Any:
    """A part of a document with every character that could steer a terminal written as an escape, for the screen."""
    if isinstance(value, dict):
        return {name: cleaned(each) for name, each in value.items()}
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _refusal(status: int, body: bytes) -> str:
    """An answer that is no document: the beginning of its text, on one line, and what would be right."""
    if status == 400 and any(hint in body for hint in _HINTS):
        return _SPEAKS_TLS
    text = "" if body.lstrip().startswith(b"<") else body[:1024].decode("utf-8", "replace").strip()
    said = f": {_quoted(text.splitlines()[0])}" if text else ""
    right = "ask again when it is ready, or name another endpoint with --admin" if status == 503 else _OTHER
    return f"answered {status}{said}; {right}"


def _quoted(text: str) -> str:
    return f'"{shown(printable(text))}"'


def client_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """How to reach an endpoint that is served over TLS; None for plain HTTP, when no file is named.

    Raises:
        MaterialError: a file cannot be read or used.
        StartupError: Python's own TLS does not take the certificate.
    """
    if ca is None and certificate is None:
        return None
    # cryptography, for TLS alone
    from tlstunnel.config.model import CertificateFiles  # noqa: PLC0415
    from tlstunnel.x509.material import load_ca, load_credential, load_system_ca  # noqa: PLC0415
    from tlstunnel.x509.passphrase import PassphraseSource  # noqa: PLC0415
    from tlstunnel.x509.pem import write_pem  # noqa: PLC0415

    trusted = load_system_ca() if ca is None else load_ca(ca)
    context = ssl.create_default_context(cadata=b"".join(trusted.certificates_der))
    if certificate is not None:
        files = CertificateFiles(certificate=certificate, key=key)
        own = load_credential(files, PassphraseSource.of_this_process())
        blocks = [write_pem("CERTIFICATE", der) for der in (own.certificate_der, *own.chain_der)]
        # `ssl` reads files alone; this one is in memory.
        with open(os.memfd_create("pair", os.MFD_CLOEXEC), "wb", buffering=0) as file:
            file.write(b"".join([*blocks, write_pem("PRIVATE KEY", own.key_der)]))
            try:
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
            except ssl.SSLError as exc:
                said = (exc.reason or "not usable").replace("_", " ").lower()
                raise StartupError(f"{certificate}: {said}; give an ECDSA P-256 or RSA certificate") from exc
    return context

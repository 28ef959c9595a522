"""Asking a running tunnel's admin endpoint, for the commands that show what it says."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any

from tlstunnel.address import Target, UnixAddress
from tlstunnel.errors import StartupError
from tlstunnel.reading import UnfitFileError, require_file

TIMEOUT_S = 5.0
MAX_ANSWER = 16 << 20


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
            said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
            if isinstance(exc, ssl.SSLCertVerificationError):
                said = f"its certificate is not trusted: {exc.verify_message}"
            raise StartupError(
                f"{self.address}: no tunnel's admin endpoint answers: {said}; start the tunnel with --admin "
                f"{self.address}, or name another endpoint"
            ) from exc
        if status != 200:
            raise StartupError(f"{self.address}{path}: answered {status}: {body[:200].decode('latin-1').strip()}")
        try:
            found = json.loads(body)
            if not isinstance(found, dict):
                raise ValueError("not an object")
        except ValueError as exc:
            raise StartupError(f"{self.address}{path}: the answer is not a tunnel's; name its admin endpoint") from exc
        return found

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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


def client_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """How to reach an endpoint that is served over TLS; None for plain HTTP, when no file is named.

    Raises:
        StartupError: a file cannot be read or used.
    """
    if ca is None and certificate is None:
        return None
    named = ca
    try:
        for named in (ca, certificate, key):
            if named is not None:
                require_file(named)
        named = ca
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if certificate is not None:
            named = certificate
            context.load_cert_chain(certificate, key)
    except UnfitFileError as exc:
        raise StartupError(f"{named}: {exc}") from exc
    except OSError as exc:
        said = exc.strerror or str(exc)
        if isinstance(exc, ssl.SSLError):
            said = (exc.reason or "not usable").replace("_", " ").lower()
        raise StartupError(f"{named}: {said}; name PEM files with --ca, --cert and --key") from exc
    return context

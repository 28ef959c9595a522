"""Asking a running tunnel's admin endpoint, for the commands that show what it says."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from tlstunnel.address import Target, UnixAddress
from tlstunnel.errors import StartupError

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
    """

    def __init__(self, address: Target) -> None:
        self.address = address
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
            else:
                self._connection = http.client.HTTPConnection(
                    self.address.host or "localhost", self.address.port, timeout=TIMEOUT_S
                )
        self._connection.request("GET", path, headers={"Accept": "application/json"})
        response = self._connection.getresponse()
        return response.status, response.read(MAX_ANSWER)

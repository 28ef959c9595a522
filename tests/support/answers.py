"""Servers of our own for a probe: what one sends when it has read a ClientHello."""

from __future__ import annotations

import socket
from typing import Any

from tlstunnel.tools.probe.route import Limits
from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.messages import ServerHello
from tlstunnel.tools.tls13.names import TLS_1_2, ContentType
from tlstunnel.tools.tls13.wire import Record

PATIENT = Limits(connect_s=5.0, answer_s=30.0, total_s=60.0)


DONE = b"\x0e\0\0\0"


def read_hello(connection: socket.socket) -> bytes:
    """The first record, or what there is of it."""
    data = b""
    while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5]):
        chunk = connection.recv(1 << 16)
        if not chunk:
            break
        data += chunk
    return data


def hello(suite: int, version: int = TLS_1_2, *extensions: Extension, **fields: Any) -> bytes:
    message = ServerHello(bytes(32), b"", suite, extensions, legacy_version=version, **fields).encode()
    return Record(ContentType.HANDSHAKE, min(version, TLS_1_2), message + DONE).encode()

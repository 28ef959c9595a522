"""ClientHellos for tests: recorded ones, and ones made of parts that can be wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tlstunnel.tls.firstbytes import MAX_MESSAGE, MAX_RECORDS

RECORDED = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "golden" / "clienthello").glob("*.json"))
}
"""By name: `record` in hexadecimal, beside what tshark 4.0 reads in it and the JA4 published for it or made of that."""

SUITES = b"\x13\x01\x13\x02"
MAX_BUFFER = MAX_MESSAGE + 4 + 5 * MAX_RECORDS
"""How many bytes can be needed before a first message is decided upon."""


def recorded(name: str) -> bytes:
    return bytes.fromhex(RECORDED[name]["record"])


def body(
    *extensions: bytes,
    version: int = 0x0303,
    session_id: bytes = b"",
    suites: bytes = SUITES,
    compression: bytes = b"\0",
) -> bytes:
    """What follows the head of the handshake message."""
    start = struct.pack(">H", version) + bytes(32) + vector(session_id, 1) + vector(suites, 2) + vector(compression, 1)
    return start + vector(b"".join(extensions), 2)


def message(content: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(content, 3)


def record(content: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    return struct.pack(">BHH", kind, version, len(content)) + content


def hello(*extensions: bytes, **parts: Any) -> bytes:
    """A ClientHello in one record."""
    return record(message(body(*extensions, **parts)))


def fragmented(whole: bytes, size: int) -> bytes:
    """A one-record hello cut into records of `size` bytes."""
    content = whole[5:]
    return b"".join(record(content[at : at + size]) for at in range(0, len(content), size))


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">H", kind) + vector(content, 2)


def server_name(name: bytes) -> bytes:
    return extension(0, vector(b"\0" + vector(name, 2), 2))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(b"".join(vector(name, 1) for name in names), 2))


def words(kind: int, *values: int) -> bytes:
    return extension(kind, vector(struct.pack(f">{len(values)}H", *values), 2))


def versions(*values: int) -> bytes:
    return extension(43, vector(struct.pack(f">{len(values)}H", *values), 1))


def vector(content: bytes, length_size: int) -> bytes:
    return len(content).to_bytes(length_size, "big") + content

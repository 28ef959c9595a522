"""The presentation language of TLS: integers, vectors, records (RFC 8446 sections 3 and 5).

A `Reader` walks over received bytes and knows its end; whatever does not fit raises `Violation` with decode_error,
and `end()` refuses bytes that nobody claimed, because TLS leaves no room for trailing data. `vector` writes what
`Reader.vector` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import AlertDescription, ContentType

MAX_PLAINTEXT = 1 << 14  # RFC 8446 section 5.1
MAX_CIPHERTEXT = MAX_PLAINTEXT + 256  # RFC 8446 section 5.2
RECORD_HEADER = 5


class Reader:
    """Reads big-endian integers and length-prefixed vectors from bytes that a peer sent.

    Every method raises `Violation` (decode_error) where the bytes do not fit.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._position = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._position < len(self._data)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._position + count
        if end > len(self._data):
            raise Violation(AlertDescription.DECODE_ERROR, f"{self._what} ends in the middle of a field")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def uint(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size))

    def vector(self, size: int, *, least: int = 0) -> bytes:
        """Bytes behind a length of `size` bytes; `least` is the shortest that the RFC's definition allows."""
        body = self.take(self.uint(size))
        if len(body) < least:
            raise Violation(AlertDescription.DECODE_ERROR, f"{self._what} holds a vector shorter than {least} bytes")
        return body

    def inner(self, size: int, *, least: int = 0) -> Reader:
        """A reader over the vector that comes next."""
        return Reader(self.vector(size, least=least), self._what)

    def uints(self, size: int, *, item: int = 2, least: int = 2) -> tuple[int, ...]:
        """A vector of integers of `item` bytes, its length in `size` bytes."""
        inner = self.inner(size, least=least)
        found = []
        while inner:
            found.append(inner.uint(item))
        return tuple(found)

    def end(self) -> None:
        """Refuse bytes that nobody claimed."""
        if self:
            raise Violation(AlertDescription.DECODE_ERROR, f"{self._what} has bytes after its end")


def uint(value: int, size: int) -> bytes:
    """`value` in `size` bytes, big-endian."""
    return value.to_bytes(size)


def vector(body: bytes, size: int) -> bytes:
    """`body` behind its length in `size` bytes."""
    return len(body).to_bytes(size) + body


def uints(values: Iterable[int], size: int, *, item: int = 2) -> bytes:
    """A vector of integers of `item` bytes, its length in `size` bytes."""
    return vector(b"".join(value.to_bytes(item) for value in values), size)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands on the wire: outer content type, legacy version, fragment."""

    content_type: int
    legacy_version: int
    fragment: bytes

    @property
    def header(self) -> bytes:
        """The five bytes before the fragment; for a protected record also its additional data (section 5.2)."""
        return uint(self.content_type, 1) + uint(self.legacy_version, 2) + uint(len(self.fragment), 2)

    def encode(self) -> bytes:
        """The record's bytes on the wire."""
        return self.header + self.fragment


class RecordBuffer:
    """Collects received bytes and hands out whole records, whatever way the transport cut them."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._data += data

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held back, so that an end of input here cuts no record."""
        return not self._data

    def records(self) -> Iterator[Record]:
        """The whole records there are.

        Raises:
            Violation: this is no TLS, or a record is longer than any may be (record_overflow).
        """
        while len(self._data) >= RECORD_HEADER:
            content_type = self._data[0]
            if content_type not in ContentType._value2member_map_ or self._data[1] != 3:
                raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "what came is not a TLS record")
            length = int.from_bytes(self._data[3:5])
            longest = MAX_CIPHERTEXT if content_type == ContentType.APPLICATION_DATA else MAX_PLAINTEXT
            if length > longest:
                raise Violation(AlertDescription.RECORD_OVERFLOW, f"a record of {length} bytes exceeds {longest}")
            if len(self._data) < RECORD_HEADER + length:
                return
            fragment = bytes(self._data[RECORD_HEADER : RECORD_HEADER + length])
            version = int.from_bytes(self._data[1:3])
            del self._data[: RECORD_HEADER + length]
            yield Record(content_type, version, fragment)

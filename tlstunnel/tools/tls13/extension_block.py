"""The block of extensions that most handshake messages end with (RFC 8446 section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import AlertDescription, extension_name
from tlstunnel.tools.tls13.wire import Reader, uint, vector


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension's type and its body."""

    type: int
    data: bytes


Extensions = tuple[Extension, ...]


def find(extensions: Extensions, kind: int) -> bytes | None:
    """The body of the extension of that type, or None."""
    return next((extension.data for extension in extensions if extension.type == kind), None)


def encode_extensions(extensions: Extensions) -> bytes:
    """The extensions as a vector."""
    return vector(b"".join(uint(each.type, 2) + vector(each.data, 2) for each in extensions), 2)


def decode_extensions(reader: Reader, what: str) -> Extensions:
    """The extensions that come next; one type twice is refused (section 4.2)."""
    inner = reader.inner(2)
    found: list[Extension] = []
    while inner:
        extension = Extension(inner.uint(2), inner.vector(2))
        if any(extension.type == other.type for other in found):
            raise Violation(
                AlertDescription.ILLEGAL_PARAMETER, f"{what} has the extension {extension_name(extension.type)} twice"
            )
        found.append(extension)
    return tuple(found)

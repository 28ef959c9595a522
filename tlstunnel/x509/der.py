"""DER (X.690): as much of it as is put together or taken apart by hand."""

from __future__ import annotations

INTEGER, OCTETS, SEQUENCE = 0x02, 0x04, 0x30


def wrap(tag: int, *parts: bytes) -> bytes:
    """An element with this content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def element(data: bytes, position: int, end: int) -> tuple[int, int, int] | None:
    """Tag, start and end of the content of the element here; None if it is not well-formed."""
    if position + 2 > end:
        return None
    tag, length = data[position], data[position + 1]
    body = position + 2
    if length == 0x80:  # indefinite (BER): its content runs to the end as far as we care
        return tag, body, end
    if length > 0x80:
        count = length & 0x7F
        if count > 4 or body + count > end:
            return None
        length = int.from_bytes(data[body : body + count], "big")
        body += count
    return (tag, body, body + length) if body + length <= end else None

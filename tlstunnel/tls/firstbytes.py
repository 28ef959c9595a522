"""From the first bytes of a connection to the body of a ClientHello: the records it comes in, and what is no TLS.

Every call begins at the start of the buffer, so work and memory are bounded by what may be in it: a client that sends a
byte at a time costs a short walk over record headers for each, and one that sends for ever is refused.
"""

from __future__ import annotations

import enum
import struct

from tlstunnel.outcome import CloseReason

# A ClientHello is 200 to 2,000 bytes; tickets that carry client certificates have been seen to reach 16 KiB. OpenSSL
# takes 128 KiB. Half of that leaves room nobody has used yet, and is what one unauthenticated connection may hold. Both
# bounds hold for every service, whether its server names are of interest or not.
MAX_MESSAGE = 65_536
# Clients that hide from middleboxes cut one hello into tens of records. A walk over this many takes about 30 µs.
MAX_RECORDS = 128
MAX_EMPTY_RECORDS = 32
"""In a row: nobody should send one (RFC 8446 section 5.1), and OpenSSL takes so many."""

MAX_FRAGMENT = 1 << 14  # RFC 8446 section 5.1
HANDSHAKE, CLIENT_HELLO = 22, 1

_RECORD = struct.Struct(">BBBH")


class Speaks(enum.StrEnum):
    """What a client that does not speak TLS seems to speak."""

    HTTP = "http"
    SSH = "ssh"
    SSLV2 = "sslv2"
    PROXY_V1 = "proxy-v1"
    PROXY_V2 = "proxy-v2"
    POSTGRES = "postgres"
    UNKNOWN = "unknown"


_SPEAKS_TEXT = {
    Speaks.HTTP: "plain HTTP; give it https:// instead of http://",
    Speaks.SSH: "SSH; give it another port",
    Speaks.SSLV2: "SSLv2, which nobody should accept; update it",
    Speaks.PROXY_V1: "the PROXY protocol (v1) before TLS; accept_proxy_protocol = true would read it",
    Speaks.PROXY_V2: "the PROXY protocol (v2) before TLS; accept_proxy_protocol = true would read it",
    Speaks.POSTGRES: 'PostgreSQL\'s own request for TLS; starttls = "postgres" would answer it',
    Speaks.UNKNOWN: "neither TLS nor anything known; it is a scanner, or should use TLS or another port",
}

_SIGNATURES: tuple[tuple[bytes, Speaks], ...] = (
    *(
        (method + b" ", Speaks.HTTP)
        for method in b"GET HEAD POST PUT DELETE OPTIONS PATCH CONNECT TRACE PROPFIND PRI".split()
    ),
    (b"SSH-", Speaks.SSH),
    (b"PROXY ", Speaks.PROXY_V1),
    (b"\r\n\r\n\x00\r\nQUIT\n", Speaks.PROXY_V2),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Speaks.POSTGRES),
)


# Alerts (RFC 8446 section 6), as OpenSSL chooses them.
UNEXPECTED_MESSAGE, RECORD_OVERFLOW, ILLEGAL_PARAMETER, DECODE_ERROR, PROTOCOL_VERSION = 10, 22, 47, 50, 70
NO_ALERT = -1


class HelloError(ValueError):
    """No usable ClientHello will come of these bytes, however many follow.

    `alert` is what the client is told where no TLS library answers it: passthrough, and what is longer than we allow.
    """

    close_reason = CloseReason.PROTOCOL_ERROR

    def __init__(self, text: str, alert: int = DECODE_ERROR) -> None:
        self.alert = alert
        super().__init__(text)


class TooLongError(HelloError):
    """The ClientHello is longer, or cut into more records, than we allow, though OpenSSL might take it."""


class NotTLSError(HelloError):
    """The client does not speak TLS; `speaks` says what it seems to speak instead."""

    close_reason = CloseReason.NOT_TLS

    def __init__(self, speaks: Speaks, start: bytes = b"") -> None:
        """`start` is what it began with: an alert is of use only to who speaks something like TLS."""
        self.speaks = speaks
        super().__init__(speaks, UNEXPECTED_MESSAGE if start[1:2] == b"\3" else NO_ALERT)

    def __str__(self) -> str:
        return f"client speaks {_SPEAKS_TEXT[self.speaks]}"


def assemble(buffer: bytes | bytearray | memoryview) -> bytes | None:
    """The body of the ClientHello at the start of the buffer, from however many records; None if not all is there.

    Raises:
        NotTLSError: these bytes start something else.
        TooLongError: it is longer than we allow.
        HelloError: no ClientHello, or none cut into records in a way that OpenSSL would take (RFC 8446 section 5.1).
    """
    if not buffer:
        return None
    if buffer[0] != HANDSHAKE or (len(buffer) > 1 and buffer[1] != 3):
        _refuse(bytes(buffer[:16]))
        return None
    parts: list[bytes] = []
    have = records = empty = pos = 0
    need = 4  # of the handshake message: its head, until that has said how long the whole is
    while have < need:
        if len(buffer) - pos < 5:
            return None
        kind, major, _, size = _RECORD.unpack_from(buffer, pos)
        if kind != HANDSHAKE or major != 3:
            alert = UNEXPECTED_MESSAGE if major == 3 else PROTOCOL_VERSION
            raise HelloError("another record in the middle of the ClientHello", alert)
        if size > MAX_FRAGMENT:
            raise HelloError("a record is longer than 16 KiB", RECORD_OVERFLOW)
        records += 1
        if records > MAX_RECORDS:
            raise TooLongError(f"ClientHello is cut into more than {MAX_RECORDS} records", UNEXPECTED_MESSAGE)
        empty = empty + 1 if size == 0 else 0
        if empty > MAX_EMPTY_RECORDS:
            raise HelloError(f"more than {MAX_EMPTY_RECORDS} empty records", UNEXPECTED_MESSAGE)
        part = bytes(buffer[pos + 5 : pos + 5 + size])
        parts.append(part)
        if have < 4 <= have + len(part):
            head = b"".join(parts)
            if head[0] != CLIENT_HELLO:
                raise HelloError("the first message is not a ClientHello", UNEXPECTED_MESSAGE)
            need = 4 + int.from_bytes(head[1:4], "big")
            if need > 4 + MAX_MESSAGE:
                raise TooLongError(f"ClientHello is longer than {MAX_MESSAGE} bytes", ILLEGAL_PARAMETER)
        have += len(part)
        if len(part) < size and have < need:
            return None
        pos += 5 + size
    return b"".join(parts)[4:need]


def _refuse(start: bytes) -> None:
    """Say what a connection that starts like this is, given that it is no TLS handshake.

    Returns only while the bytes fit the beginning of something we know, so that the next few will tell; 16 are enough.

    Raises:
        NotTLSError: it is something else.
        HelloError: it is TLS, but not the beginning of it.
    """
    for signature, speaks in _SIGNATURES:
        if start.startswith(signature):
            raise NotTLSError(speaks)
    # A two-byte header with its high bit set, CLIENT-HELLO, version 2 or 3.x (RFC 6101 appendix E).
    is_sslv2 = start[0] & 0x80 and start[2:3] in (b"", b"\x01") and start[3:4] in (b"", b"\x00", b"\x03")
    if is_sslv2 and len(start) >= 5:
        raise NotTLSError(Speaks.SSLV2, start)
    if is_sslv2 or any(signature.startswith(start) for signature, _ in _SIGNATURES):
        return
    if start[0] in (20, 21, 23) and start[1:2] in (b"", b"\x03"):
        raise HelloError("the first record is not a handshake record", UNEXPECTED_MESSAGE)
    raise NotTLSError(Speaks.UNKNOWN, start)

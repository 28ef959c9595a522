"""The first message of a TLS client, read before any TLS library sees it.

Theory of operation. What a connection gets - certificate, rules, target, versions - depends on the server name, and
the server name is in the first message. A callback out of OpenSSL would come too late for passthrough and needs
writable-executable memory, so the bytes are read here and handed to OpenSSL afterwards, untouched.

`parse` is called with everything received so far. It answers with a `ClientHello`, with None when more bytes are
needed, or it raises. Nothing is kept between calls: the caller's buffer is the state, which never needs to be
larger than `MAX_MESSAGE` and the headers of `MAX_RECORDS`.

Nearly every ClientHello is one record in one segment, so that case is looked at first and alone; `firstbytes` does the
others. One walk over the extensions notes where each begins; only the server name and the ALPN list are read in the
same go, because only these decide anything. The rest is read from the retained bytes when someone asks, which most
connections never do. A list that nobody asked for is therefore not checked here; OpenSSL checks all of it in any case.
(Measured with OpenSSL 4.0's 1,575 bytes on Python 3.11: 5 µs with name and ALPN alone, 15 µs with every list.)

Values reserved by RFC 8701 (GREASE) mean nothing and are left out of every list.
"""

from __future__ import annotations

import re
import struct

from tlstunnel.tls.firstbytes import (
    CLIENT_HELLO,
    DECODE_ERROR,
    HANDSHAKE,
    ILLEGAL_PARAMETER,
    MAX_FRAGMENT,
    HelloError,
    assemble,
)

SERVER_NAME, SUPPORTED_GROUPS, SIGNATURE_ALGORITHMS, ALPN, SUPPORTED_VERSIONS = 0, 10, 13, 16, 43

# Record header (content type, version, length), then the head of the handshake message (type, 24-bit length).
_HEAD = struct.Struct(">BBBHBBH")
_EXTENSION = struct.Struct(">HH")

# Labels of letters, digits, hyphens and (because they exist) underscores; the last one not all digits, since RFC 6066
# section 3 allows no IP addresses. Internationalized names arrive as A-labels, which are such labels too.
_HOST_NAME = re.compile(
    rb"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?![0-9]+\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
_MAX_HOST_NAME = 253

GREASE = frozenset(range(0x0A0A, 0x10000, 0x1010))
"""Cipher suites, extensions, groups and versions reserved to keep servers tolerant (RFC 8701)."""

_NAME_OF_VERSION = {0x0300: "SSLv3", 0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}


class ClientHello:
    """A complete ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

    `server_name` and `alpn` are read at once; the other properties are computed each time they are asked for and may
    raise `HelloError`, as the list they read may be malformed.
    """

    __slots__ = ("_body", "_ciphers", "_extensions", "alpn", "server_name", "server_name_problem")

    server_name: str | None
    """The host name asked for, validated and in lower case; internationalized names as A-labels (`xn--`)."""
    server_name_problem: str
    """Why a name that was sent is not in `server_name` (an IP address, no host name); empty if all is well."""
    alpn: tuple[bytes, ...]
    """The application protocols offered, most wanted first; empty without the extension."""

    def __init__(self, body: bytes) -> None:
        """Read a message's body, which is what follows the four bytes of type and length.

        Raises:
            HelloError: the body is not one.
        """
        self._body = body
        # Each vector's length is checked by the position after it: `end` is past the body when one is too long.
        end = len(body)
        if end < 38:  # version, random, and the shortest session id, cipher suites and compression methods
            # Of a single byte OpenSSL thinks otherwise than of all others.
            raise HelloError("ClientHello is too short", ILLEGAL_PARAMETER if end == 1 else DECODE_ERROR)
        sid_size = body[34]
        pos = 35 + sid_size
        if sid_size > 32 or pos + 2 > end:
            raise HelloError("session id is malformed")
        ciphers_size = (body[pos] << 8) | body[pos + 1]
        self._ciphers = pos + 2
        pos += 2 + ciphers_size
        if ciphers_size < 2 or ciphers_size & 1 or pos >= end:
            raise HelloError("cipher suites are malformed")
        pos += 1 + body[pos]
        if pos > end:
            raise HelloError("compression methods are malformed")

        extensions: dict[int, int] = {}
        self._extensions = extensions
        if pos != end:  # before TLS 1.3, the whole block may be missing
            if pos + 2 > end or pos + 2 + ((body[pos] << 8) | body[pos + 1]) != end:
                raise HelloError("extensions do not fill the message")
            pos += 2
            unpack = _EXTENSION.unpack_from
            last_head = end - 4
            while pos <= last_head:
                kind, size = unpack(body, pos)
                if kind in extensions:
                    raise HelloError("an extension comes twice", ILLEGAL_PARAMETER)
                pos += 4
                extensions[kind] = pos
                pos += size
            if pos != end:
                raise HelloError("an extension is cut short")

        self.server_name, self.server_name_problem = None, ""
        at = extensions.get(SERVER_NAME)
        if at is not None:
            self._read_server_name(at)
        at = extensions.get(ALPN)
        self.alpn = () if at is None else self._read_alpn(at)

    def _read_server_name(self, at: int) -> None:
        """RFC 6066 section 3: a list with one host name. Other types of name were never defined.

        A name that is none (empty, an address, bytes) is a problem and no error: OpenSSL takes it, and so do we, as if
        none had been sent.
        """
        body = self._body
        size = (body[at - 2] << 8) | body[at - 1]
        if size < 5 or size - 2 != (body[at] << 8) | body[at + 1]:
            raise HelloError("server_name is malformed")
        if body[at + 2] != 0 or size - 5 != (body[at + 3] << 8) | body[at + 4]:
            raise HelloError("server_name is not one host name")
        name = body[at + 5 : at + size].lower().removesuffix(b".")
        if len(name) <= _MAX_HOST_NAME and _HOST_NAME.fullmatch(name):
            self.server_name = name.decode("ascii")
        elif name and (b":" in name or not name.strip(b"0123456789.")):
            self.server_name_problem = "server_name is an IP address"
        else:
            self.server_name_problem = "server_name is not a host name"

    def _read_alpn(self, at: int) -> tuple[bytes, ...]:
        """RFC 7301 section 3.1."""
        body = self._body
        size = (body[at - 2] << 8) | body[at - 1]
        if size < 4 or size - 2 != (body[at] << 8) | body[at + 1]:
            raise HelloError("application_layer_protocol_negotiation is malformed")
        end, pos = at + size, at + 2
        names = []
        while pos < end:
            after = pos + 1 + body[pos]
            if after == pos + 1 or after > end:
                raise HelloError("application_layer_protocol_negotiation is malformed")
            names.append(body[pos + 1 : after])
            pos = after
        return tuple(names)

    def __repr__(self) -> str:
        return f"ClientHello(server_name={self.server_name!r}, alpn={self.alpn!r}, {len(self._body)} bytes)"

    @property
    def legacy_version(self) -> int:
        """The version field, 0x0303 in everything current; what is really offered is in `versions`."""
        return _word(self._body, 0)

    @property
    def session_id(self) -> bytes:
        """TLS 1.2: the session to resume. TLS 1.3: random, for middleboxes that want one."""
        return self._body[35 : 35 + self._body[34]]

    @property
    def cipher_suites(self) -> tuple[int, ...]:
        """Code points, most wanted first."""
        return _words(self._body, self._ciphers, _word(self._body, self._ciphers - 2))

    @property
    def extensions(self) -> tuple[int, ...]:
        """The types of the extensions, in the order sent."""
        return tuple(kind for kind in self._extensions if kind not in GREASE)

    @property
    def versions(self) -> tuple[int, ...]:
        """The TLS versions offered, most wanted first; `legacy_version` alone from a client before TLS 1.3."""
        data = self.extension(SUPPORTED_VERSIONS)
        if data is None:
            return (self.legacy_version,)
        if not data or data[0] != len(data) - 1 or data[0] < 2 or data[0] & 1:
            raise HelloError("supported_versions is malformed")
        return _words(data, 1, data[0])

    @property
    def version_names(self) -> tuple[str, ...]:
        """The same for people: `1.3`, `1.2`; an unknown version as `0x7f1c`."""
        return tuple(_NAME_OF_VERSION.get(version, f"0x{version:04x}") for version in self.versions)

    @property
    def groups(self) -> tuple[int, ...]:
        """Key-exchange groups the client supports (RFC 8446 section 4.2.7)."""
        return self._word_list(SUPPORTED_GROUPS, "supported_groups")

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """What the client can verify, most wanted first (RFC 8446 section 4.2.3)."""
        return self._word_list(SIGNATURE_ALGORITHMS, "signature_algorithms")

    def extension(self, kind: int) -> bytes | None:
        """The content of an extension, None if it was not sent."""
        at = self._extensions.get(kind)
        return None if at is None else self._body[at : at + _word(self._body, at - 2)]

    def _word_list(self, kind: int, name: str) -> tuple[int, ...]:
        data = self.extension(kind)
        if data is None:
            return ()
        if len(data) < 4 or len(data) & 1 or _word(data, 0) != len(data) - 2:
            raise HelloError(f"{name} is malformed")
        return _words(data, 2, len(data) - 2)


def parse(buffer: bytes | bytearray | memoryview) -> ClientHello | None:
    """Read the ClientHello at the start of what a client has sent so far; None if it is not all there yet.

    The hello keeps its own copy of the bytes, so the buffer may be reused. What follows the hello is left alone.

    Raises:
        NotTLSError: these bytes start something else.
        HelloError: the ClientHello is malformed, or larger than we allow.
    """
    if len(buffer) >= 9:
        kind, major, _, size, message, high, low = _HEAD.unpack_from(buffer)
        if kind == HANDSHAKE and major == 3 and message == CLIENT_HELLO:
            end = 9 + (high << 16 | low)
            if end <= 5 + size <= 5 + MAX_FRAGMENT and end <= len(buffer):
                return ClientHello(bytes(buffer[9:end]))
    body = assemble(buffer)
    return None if body is None else ClientHello(body)


def _word(data: bytes, at: int) -> int:
    return (data[at] << 8) | data[at + 1]


def _words(data: bytes, at: int, size: int) -> tuple[int, ...]:
    found = struct.unpack_from(f">{size // 2}H", data, at)
    return tuple(value for value in found if value not in GREASE)

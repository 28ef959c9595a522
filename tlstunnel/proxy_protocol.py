"""The PROXY protocol, versions 1 and 2: who the client of a proxy is, said before its first byte.

By HAProxy's specification, doc/proxy-protocol.txt (sections below are its). `parse` is called with everything received
so far; it answers with a header, with None when more is needed, or raises. It never wants more than `MAX_HEADER` bytes.
A receiver must know from its configuration that a header comes and from whom (section 2): whoever may send one may
claim any address, so nothing here is believed unless the sender is.

Text out of a header (authority, common name, ...) is what a stranger told the proxy. It is valid UTF-8, no more: escape
it before it is shown.
"""

from __future__ import annotations

import functools
import re
import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

MAX_V1 = 107
"""The longest line of version 1, with its line end (section 2.1)."""
MAX_HEADER = 16 + 16_384
"""The longest header of version 2 that is read. Its length field allows 64 KiB; section 2 wants all of it to fit 536
bytes, and the largest in use carry a client certificate, 2 to 4 KiB."""

_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_SIGNATURE = b"PROXY "
_V1_LINE = re.compile(rb"PROXY (TCP[46])((?: [0-9A-Fa-f:.]+){2})((?: (?:0|[1-9][0-9]{0,4})){2})")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")

_HEAD = struct.Struct(">12sBBH")
_TLV = struct.Struct(">BH")
_PORTS = struct.Struct(">HH")
_SSL_HEAD = struct.Struct(">BI")
_UNIX = 108  # bytes for each path, the size of sun_path (section 2.2)
_MAX_UNIQUE_ID = 128  # section 2.2.5

_ALPN, _AUTHORITY, _CRC32C, _NOOP, _UNIQUE_ID, _SSL, _NETNS = _TYPES = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30
_SSL_TYPES = {"version": 0x21, "cn": 0x22, "cipher": 0x23, "signature_algorithm": 0x24, "key_algorithm": 0x25}
_MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in an IPv6 one, RFC 4291 section 2.5.5.2


class ProxyProtocolError(ValueError):
    """No usable header will come of these bytes; the text says why, and the connection must end (section 2)."""


class MissingHeaderError(ProxyProtocolError):
    """The bytes are not the beginning of a header."""


class MalformedHeaderError(ProxyProtocolError):
    """A header begins, and then breaks the protocol."""


class Endpoint(NamedTuple):
    """An address as the kernel would give it: an IPv4 or IPv6 literal, and a port."""

    host: str
    port: int


class UnixEndpoint(NamedTuple):
    """A unix socket's path, as bytes; empty for one without a name, a leading NUL for an abstract one."""

    path: bytes


End = Endpoint | UnixEndpoint | None
"""Where a connection comes from or goes to; None where the protocol does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SSLInfo:
    """How the client spoke TLS to the proxy (section 2.2.6)."""

    uses_tls: bool = True
    """Flag PP2_CLIENT_SSL."""
    has_certificate: bool = False
    """Whether a certificate was shown in this connection (PP2_CLIENT_CERT_CONN)."""
    has_session_certificate: bool = False
    """Whether one was shown in this TLS session, which may have begun in an earlier connection."""
    verify: int = 1
    """0 if a certificate was shown and verified; anything else is the verifier's own code, or "there was none"."""
    version: str | None = None
    """Such as `TLSv1.3`."""
    cn: str | None = None
    """The common name of the client's certificate."""
    cipher: str | None = None
    """OpenSSL's name of the cipher suite."""
    signature_algorithm: str | None = None
    """Of the certificate the proxy showed, such as `SHA256`."""
    key_algorithm: str | None = None
    """Of the certificate the proxy showed, such as `RSA2048`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLVs:
    """What version 2 can say beyond addresses."""

    alpn: bytes | None = None
    authority: str | None = None
    """The host name the client asked for: its server name indication."""
    unique_id: bytes | None = None
    """Up to 128 bytes that name the connection in the logs of every proxy it passes."""
    ssl: SSLInfo | None = None
    netns: str | None = None
    """The network namespace the proxy runs in."""
    others: tuple[tuple[int, bytes], ...] = ()
    """Types we do not know, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A complete header."""

    version: int
    size: int
    """How many bytes of the buffer it took; the connection's own begin there."""
    is_local: bool = False
    """Whether the connection is the proxy's own, such as a health check, and its real addresses count (LOCAL)."""
    source: End = None
    """The client; None for LOCAL and for families that say nothing about a TCP or unix stream."""
    destination: End = None
    """What the client connected to; None together with `source`."""
    tlvs: TLVs = TLVs()


def parse(buffer: bytes | bytearray | memoryview) -> Header | None:
    """Read the header at the start of what a connection has sent so far; None if it is not all there yet.

    Raises:
        MissingHeaderError: these bytes start something else.
        MalformedHeaderError: the header breaks the protocol, or is longer than we allow.
    """
    start = bytes(buffer[:16])
    if start.startswith(_V2_SIGNATURE):
        return _parse_v2(buffer)
    if start.startswith(_V1_SIGNATURE):
        return _parse_v1(bytes(buffer[:MAX_V1]))
    if _V2_SIGNATURE.startswith(start) or _V1_SIGNATURE.startswith(start):
        return None
    raise MissingHeaderError("no PROXY protocol header; the sender has to be told to send one")


def encode_v1(source: End, destination: End) -> bytes:
    """The line of version 1; `UNKNOWN`, which says nothing, unless both ends are IP addresses.

    Raises:
        ValueError: a host is not an IP literal, or a port is none.
    """
    if not (isinstance(source, Endpoint) and isinstance(destination, Endpoint)):
        return b"PROXY UNKNOWN\r\n"
    family, packed = _in_one_family(source, destination)
    hosts = " ".join(socket.inet_ntop(family, host) for host in packed)
    name = "TCP4" if family == socket.AF_INET else "TCP6"
    _pack_ports(source, destination)  # only to refuse what is no port
    return f"PROXY {name} {hosts} {source.port} {destination.port}\r\n".encode("ascii")


def encode_v2(source: End, destination: End, tlvs: TLVs | None = None, *, crc32c: bool = False) -> bytes:
    """A header of version 2 for a client's connection.

    Unless both ends are IP addresses or both unix sockets, it is LOCAL, without addresses but with its TLVs. HAProxy
    writes that, too, and refuses PROXY without a family. What is refused elsewhere: unix addresses by HAProxy 2.6, and
    more than 107 bytes by nginx 1.22, so send TLVs only where they are asked for.

    Raises:
        ValueError: a host is not an IP literal, a port is none, or something is longer than its field.
    """
    if isinstance(source, Endpoint) and isinstance(destination, Endpoint):
        family, hosts = _in_one_family(source, destination)
        command, kind = 0x21, 0x11 if family == socket.AF_INET else 0x21
        addresses = b"".join(hosts) + _pack_ports(source, destination)
    elif isinstance(source, UnixEndpoint) and isinstance(destination, UnixEndpoint):
        if max(len(source.path), len(destination.path)) > _UNIX:
            raise ValueError(f"a unix socket's path is longer than {_UNIX} bytes")
        command, kind = 0x21, 0x31
        addresses = source.path.ljust(_UNIX, b"\0") + destination.path.ljust(_UNIX, b"\0")
    else:
        command, kind, addresses = 0x20, 0, b""
    following = addresses + (_encode_tlvs(tlvs) if tlvs else b"") + (_tlv(_CRC32C, bytes(4)) if crc32c else b"")
    if len(following) > MAX_HEADER - 16:
        raise ValueError(f"PROXY protocol header is longer than {MAX_HEADER} bytes")
    header = _HEAD.pack(_V2_SIGNATURE, command, kind, len(following)) + following
    if crc32c:
        header = header[:-4] + checksum(header).to_bytes(4, "big")
    return header


def checksum(data: bytes) -> int:
    """CRC32c (RFC 9260 appendix A), a byte at a time: about 8 µs for 100 bytes."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _parse_v1(start: bytes) -> Header | None:
    end = start.find(b"\r\n")
    if end < 0:
        if len(start) == MAX_V1:
            raise MalformedHeaderError(f"PROXY line does not end within {MAX_V1} bytes")
        if b"\n" in start or b"\r" in start[:-1]:
            raise MalformedHeaderError("PROXY line does not end with CR and LF")
        return None
    line, size = start[:end], end + 2
    if _V1_UNKNOWN.fullmatch(line):
        return Header(version=1, size=size)
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise MalformedHeaderError("PROXY line is not TCP4, TCP6 or UNKNOWN with two addresses and two ports")
    kind, hosts, ports = match[1].decode(), match[2].decode().split(), match[3].decode().split()
    family = socket.AF_INET if kind == "TCP4" else socket.AF_INET6
    try:
        texts = [socket.inet_ntop(family, socket.inet_pton(family, host)) for host in hosts]
    except OSError:
        raise MalformedHeaderError(f"PROXY line has an address that is not one of {kind}") from None
    source, destination = (Endpoint(text, int(port)) for text, port in zip(texts, ports, strict=True))
    if max(source.port, destination.port) > 65535:
        raise MalformedHeaderError("PROXY line has a port above 65535")
    return Header(version=1, size=size, source=source, destination=destination)


def _parse_v2(buffer: bytes | bytearray | memoryview) -> Header | None:
    if len(buffer) < _HEAD.size:
        return None
    _, version_and_command, kind, length = _HEAD.unpack_from(buffer)
    size = _HEAD.size + length
    if version_and_command not in (0x20, 0x21):
        raise MalformedHeaderError(f"version and command are 0x{version_and_command:02x}, neither LOCAL nor PROXY")
    if kind >> 4 > 3 or kind & 0xF > 2:
        raise MalformedHeaderError(f"family and protocol are 0x{kind:02x}, which nobody may send")
    if size > MAX_HEADER:
        raise MalformedHeaderError(f"header is longer than {MAX_HEADER} bytes")
    if len(buffer) < size:
        return None
    header = bytes(buffer[:size])
    if version_and_command == 0x20:  # LOCAL: whatever is in it has to be discarded
        return Header(version=2, size=size, is_local=True)
    source, destination, at = _parse_addresses(header, kind)
    tlvs = _parse_tlvs(header, at) if at < size else TLVs()
    return Header(version=2, size=size, source=source, destination=destination, tlvs=tlvs)


def _parse_addresses(header: bytes, kind: int) -> tuple[End, End, int]:
    """Source, destination, and where the TLVs begin."""
    size = (0, 4, 16, _UNIX)[kind >> 4] if kind & 0xF else 0
    middle, hosts_end = 16 + size, 16 + 2 * size
    end = hosts_end + (4 if size in (4, 16) else 0)
    if end > len(header):
        raise MalformedHeaderError("header is too short for its addresses")
    source, destination = header[16:middle], header[middle:hosts_end]
    if not size or kind & 0xF != 1:  # nothing at all, or datagrams, which cannot have led to this connection
        return None, None, end
    if size == _UNIX:
        return UnixEndpoint(_unix_path(source)), UnixEndpoint(_unix_path(destination)), end
    family = socket.AF_INET if size == 4 else socket.AF_INET6
    source_port, destination_port = _PORTS.unpack_from(header, hosts_end)
    hosts = (socket.inet_ntop(family, source), socket.inet_ntop(family, destination))
    return Endpoint(hosts[0], source_port), Endpoint(hosts[1], destination_port), end


def _parse_tlvs(header: bytes, at: int) -> TLVs:
    found: dict[int, bytes] = {}
    others: list[tuple[int, bytes]] = []
    for kind, value, start in _each_tlv(header, at):
        if kind == _NOOP:
            continue
        if kind == _CRC32C:
            _verify_checksum(header, start, value)
        if kind not in _TYPES:
            others.append((kind, value))
        elif kind in found:
            raise MalformedHeaderError(f"TLV 0x{kind:02x} comes twice")
        found[kind] = value
    if len(found.get(_UNIQUE_ID, b"")) > _MAX_UNIQUE_ID:
        raise MalformedHeaderError(f"unique id is longer than {_MAX_UNIQUE_ID} bytes")
    return TLVs(
        alpn=found.get(_ALPN),
        authority=_text(found, _AUTHORITY),
        unique_id=found.get(_UNIQUE_ID),
        ssl=_parse_ssl(found[_SSL]) if _SSL in found else None,
        netns=_text(found, _NETNS),
        others=tuple(others),
    )


def _parse_ssl(value: bytes) -> SSLInfo:
    if len(value) < _SSL_HEAD.size:
        raise MalformedHeaderError("SSL TLV is too short")
    client, verify = _SSL_HEAD.unpack_from(value)
    found = {kind: part for kind, part, _ in _each_tlv(value, _SSL_HEAD.size)}
    return SSLInfo(
        uses_tls=bool(client & 1),
        has_certificate=bool(client & 2),
        has_session_certificate=bool(client & 4),
        verify=verify,
        **{name: _text(found, kind) for name, kind in _SSL_TYPES.items()},
    )


def _each_tlv(data: bytes, at: int) -> list[tuple[int, bytes, int]]:
    """Type, value and the value's place, for each TLV up to the end of the data."""
    found = []
    while at < len(data):
        if at + 3 > len(data):
            raise MalformedHeaderError("a TLV is cut short")
        kind, size = _TLV.unpack_from(data, at)
        at += 3
        if at + size > len(data):
            raise MalformedHeaderError(f"TLV 0x{kind:02x} is longer than what holds it")
        found.append((kind, data[at : at + size], at))
        at += size
    return found


def _verify_checksum(header: bytes, at: int, value: bytes) -> None:
    """Section 2.2.3: over the whole header, with the field itself as zeroes."""
    if len(value) != 4:
        raise MalformedHeaderError("CRC32c TLV is not 4 bytes long")
    if checksum(header[:at] + bytes(4) + header[at + 4 :]) != int.from_bytes(value, "big"):
        raise MalformedHeaderError("CRC32c of the header is wrong")


def _text(found: dict[int, bytes], kind: int) -> str | None:
    value = found.get(kind)
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedHeaderError(f"TLV 0x{kind:02x} is not UTF-8") from None


def _unix_path(field: bytes) -> bytes:
    """A path ends at its first NUL; a name that begins with one is abstract and ends where the padding does."""
    return field.rstrip(b"\0") if field.startswith(b"\0") else field.partition(b"\0")[0]


def _in_one_family(source: Endpoint, destination: Endpoint) -> tuple[socket.AddressFamily, list[bytes]]:
    """Both hosts in IPv4 if both can be, else in IPv6, with IPv4 mapped into it."""
    packed = [_packed(end.host) for end in (source, destination)]
    if all(len(host) == 4 for host in packed):
        return socket.AF_INET, packed
    return socket.AF_INET6, [host if len(host) == 16 else _MAPPED + host for host in packed]


def _packed(host: str) -> bytes:
    """An IP literal's bytes; a zone means nothing elsewhere, and a mapped IPv4 address is one of IPv4."""
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        raise ValueError(f'"{host}" is not an IP address') from None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _pack_ports(source: Endpoint, destination: Endpoint) -> bytes:
    try:
        return _PORTS.pack(source.port, destination.port)
    except struct.error:
        raise ValueError("a port is not between 0 and 65535") from None


def _encode_tlvs(tlvs: TLVs) -> bytes:
    if tlvs.unique_id is not None and len(tlvs.unique_id) > _MAX_UNIQUE_ID:
        raise ValueError(f"unique id is longer than {_MAX_UNIQUE_ID} bytes")
    values: tuple[tuple[int, bytes | str | None], ...] = (
        (_ALPN, tlvs.alpn),
        (_AUTHORITY, tlvs.authority),
        (_UNIQUE_ID, tlvs.unique_id),
        (_SSL, None if tlvs.ssl is None else _encode_ssl(tlvs.ssl)),
        (_NETNS, tlvs.netns),
        *tlvs.others,
    )
    return b"".join(_tlv(kind, value) for kind, value in values if value is not None)


def _encode_ssl(ssl: SSLInfo) -> bytes:
    client = ssl.uses_tls | ssl.has_certificate << 1 | ssl.has_session_certificate << 2
    texts = ((kind, getattr(ssl, name)) for name, kind in _SSL_TYPES.items())
    return _SSL_HEAD.pack(client, ssl.verify) + b"".join(_tlv(kind, text) for kind, text in texts if text is not None)


def _tlv(kind: int, value: bytes | str) -> bytes:
    content = value.encode("utf-8") if isinstance(value, str) else value
    if len(content) > 0xFFFF:
        raise ValueError(f"TLV 0x{kind:02x} is longer than 65535 bytes")
    return _TLV.pack(kind, len(content)) + content


@functools.cache
def _crc_table() -> tuple[int, ...]:
    """The remainders of every byte by the Castagnoli polynomial, bits reflected."""
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ (0x82F63B78 if crc & 1 else 0) for crc in table]
    return tuple(table)

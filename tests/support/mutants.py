"""ClientHellos that went wrong, in every way that a parser could take for another: a few hundred, the same each time.

`MUTANTS` has them by a name that says what is wrong. Whoever answers one of them has to answer all of the same.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.support import hellos
from tests.support.hellos import extension, fragmented, message, record, vector

NAME = b"b.example"
"""The server name that every mutant asked for before it went wrong."""

_SHARE = extension(51, vector(struct.pack(">H", 0x1D) + vector(bytes(range(1, 33)), 2), 2))
_LISTS = (
    hellos.words(13, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805),
    hellos.words(10, 0x1D, 0x17),
    hellos.versions(0x304, 0x303),
    _SHARE,
)
_SUITES = b"\x13\x01\x13\x02\xc0\x2b\xc0\x2f"


def _hello(*extensions: bytes, named: bool = True, **parts: bytes | int) -> bytes:
    first = (hellos.server_name(NAME),) if named else ()
    return record(_message(*first, *extensions, **parts))


def _message(*extensions: bytes, **parts: bytes | int) -> bytes:
    return message(hellos.body(*_LISTS, *extensions, **{"suites": _SUITES, **parts}))  # type: ignore[arg-type]


def _sni(content: bytes) -> bytes:
    return _hello(extension(0, content), named=False)


def _host(name: bytes, kind: int = 0) -> bytes:
    return bytes([kind]) + vector(name, 2)


def _named() -> Iterator[tuple[str, bytes]]:
    good = _hello()
    content = good[5:]
    yield "good", good
    yield "good and nameless", _hello(named=False)
    # The name.
    yield "two host names", _sni(vector(_host(b"a.example") + _host(NAME), 2))
    yield "a host name and another kind", _sni(vector(_host(NAME) + _host(b"x", 1), 2))
    yield "another kind of name alone", _sni(vector(_host(b"x", 1), 2))
    yield "an empty host name", _sni(vector(_host(b""), 2))
    yield "an empty list of names", _sni(vector(b"", 2))
    yield "server_name without content", _sni(b"")
    yield "a list of names with a byte too many", _sni(vector(_host(NAME), 2) + b"\0")
    yield "a name with a byte too many", _sni(vector(_host(NAME) + b"\0", 2))
    yield "a name cut short", _sni(vector(_host(NAME)[:-1], 2))
    for size in (253, 255, 256, 1000, 60000):
        yield f"a name of {size} letters", _sni(vector(_host(b"a" * size), 2))
    for odd in (b"b.example\0", b"b\0.example", b"B.Example.", b".", b"..", b"-b", b"127.0.0.1", b"::1", b"\xff\xfe"):
        yield f"the name {odd!r}", _sni(vector(_host(odd), 2))
    yield "the name twice", _hello(hellos.server_name(NAME))
    # ALPN and other extensions.
    for label, alpn in {
        "empty": b"", "an empty list": vector(b"", 2), "an empty name": vector(vector(b"", 1), 2),
        "a name too long": vector(b"\x05ab", 2), "a byte too many": vector(vector(b"h2", 1), 2) + b"\0",
        "one byte": b"\0",
    }.items():  # fmt: skip
        yield f"alpn: {label}", _hello(extension(16, alpn))
    for kind in (10, 13, 43, 51, 45, 23, 35, 5, 11, 22, 44, 0xFF01, 0x1234):
        for label, content_of in {"empty": b"", "one byte": b"\1", "ff": b"\xff\xff\xff"}.items():
            yield f"extension {kind} once more, {label}", _hello(extension(kind, content_of))
    bare = hellos.body(suites=_SUITES)
    for kind in (10, 11, 13, 16, 23, 35, 43, 45, 51, 0xFF01):
        for label, content_of in {"empty": b"", "one byte": b"\1", "ff": b"\xff\xff\xff"}.items():
            lists = (extension(kind, content_of), *(each for each in _LISTS if each[:2] != kind.to_bytes(2, "big")))
            yield f"extension {kind}, {label}", record(message(hellos.body(*lists, suites=_SUITES)))
    # The body.
    yield "no extensions at all", record(message(bare[:-2]))
    yield "no extensions in their block", record(message(bare))
    yield "half a block of extensions", record(message(bare[:-1]))
    for size in (0, 1, 33, 34, 35, 37, 38, 39, 40, len(content) - 5):
        yield f"{size} bytes of body", record(message(content[4 : 4 + size]))
    yield "a byte after the extensions", record(message(content[4:] + b"\0"))
    yield "extensions too long", record(message(content[4 : -len(_SHARE)]))
    yield "no suites", _hello(suites=b"")
    yield "half a suite", _hello(suites=b"\x13")
    yield "unknown suites alone", _hello(suites=b"\x12\x34")
    yield "no compression", _hello(compression=b"")
    yield "compression", _hello(compression=b"\1")
    yield "compression and none", _hello(compression=b"\1\0")
    for size in (1, 32, 33, 200):
        yield f"a session id of {size} bytes", _hello(session_id=bytes(size))
    for version in (0x0000, 0x0200, 0x0300, 0x0301, 0x0302, 0x0304, 0x0399, 0x7F1C, 0xFFFF):
        yield f"version {version:04x}", _hello(version=version)
        old = message(hellos.body(*_LISTS[:2], version=version, suites=_SUITES))
        yield f"version {version:04x} alone", record(old)
    for offered in ((0x0301,), (0x0300, 0x0301), (0x7F1C,), (0x0A0A,), (0x0303,), (0x0305, 0x0304)):
        body = hellos.body(_LISTS[0], _LISTS[1], hellos.versions(*offered), _SHARE, suites=_SUITES)
        yield f"versions {offered}", record(message(body))
    # The message and its records.
    for kind in (0, 2, 11, 16, 20, 24, 255):
        yield f"message {kind}", record(message(content[4:], kind=kind))
    yield "an empty ClientHello", record(message(b""))
    yield "an empty ClientHello cut short", record(message(b"")[:1])
    for kind in (0, 20, 21, 23, 24, 25, 0x80):
        yield f"record {kind}", record(content, kind=kind)
        yield f"record {kind} in the middle", record(content[:50]) + record(content[50:], kind=kind)
    for version in (0x0000, 0x0200, 0x0300, 0x0302, 0x0303, 0x0304, 0x03FF, 0x0400):
        yield f"record version {version:04x}", record(content, version=version)
        yield f"record version {version:04x} later", record(content[:50]) + record(content[50:], version=version)
    yield "an empty record first", record(b"") + good
    yield "an empty record in the middle", record(content[:50]) + record(b"") + record(content[50:])
    yield "an empty record before the end of the head", record(content[:2]) + record(b"") + record(content[2:])
    yield "empty records alone", record(b"") * 40
    yield "an alert first", record(b"\1\0", kind=21) + good
    yield "a fatal alert first", record(b"\2\x28", kind=21)
    yield "an alert in the middle", record(content[:50]) + record(b"\1\0", kind=21) + record(content[50:])
    yield "a change of cipher first", record(b"\1", kind=20) + good
    yield "a record too long", struct.pack(">BHH", 22, 0x301, 16385) + bytes([1, 0, 64, 0]) + bytes(16390)
    yield "a record longer than any", struct.pack(">BHH", 22, 0x301, 0xFFFF) + content + bytes(3000)
    yield "a record too long, later", record(content[:50]) + struct.pack(">BHH", 22, 0x301, 20000) + bytes(20000)
    yield "a byte after the message in its record", record(content + b"\1")
    yield "a message after it in its record", record(content + message(b"", kind=0))
    yield "a second hello in its record", record(content + content)
    yield "a second hello behind it", good + good
    for size in (1, 2, 3, 4, 5, 7, 100, 200):
        yield f"records of {size}", fragmented(good, size)
    for size in (1 << 13, 1 << 14, 60000, 65000):
        yield f"{size} bytes of padding", _long(size)
    for size in (65536, 70000, 100000, 131072, 140000, 1 << 20):
        yield f"{size} bytes are too many", _long(size)
    yield "the longest length", record(b"\1\xff\xff\xff" + bytes(100))
    yield "as many records as there may be", _cut(good, 128)
    yield "one record too many", _cut(good, 129)
    yield "200 records", _cut(good, 200)
    # No TLS.
    yield "HTTP", b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"
    yield "a tunnel by HTTP", b"CONNECT b.example:443 HTTP/1.1\r\n\r\n"
    yield "SSH", b"SSH-2.0-OpenSSH_9.2\r\n"
    yield "SSLv2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(range(37))
    yield (
        "SSLv2 that offers TLS",
        b"\x80\x2b\x01\x03\x03\x00\x12\x00\x00\x00\x10" + b"\0\xc0\x2b\0\xc0\x2f" * 3 + bytes(16),
    )
    yield "PROXY", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + good
    yield "PROXY v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + good
    yield "PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f" + good
    yield "zeros", bytes(100)
    yield "ones", b"\xff" * 100
    yield "the issue's", bytes.fromhex("16030100050100000100")
    for one in (b"\x16", b"\x16\3", b"\x16\3\1\0", b"\x16\x02\1\0\x05\1\0\0\1\0", b"\x15\3", b"\x80", b"\0"):
        yield f"{one!r} alone", one


def _long(size: int) -> bytes:
    """A hello with so many bytes more than it needs, in records as long as they may be."""
    padding = min(size, 60000)
    suites = _SUITES + b"\x12\x34" * (min(size - padding, 60000) // 2)
    content = _message(hellos.server_name(NAME), extension(0x7000, bytes(padding)), suites=suites)
    content += bytes(max(0, size - padding - 60000))
    content = b"\1" + (len(content) - 4).to_bytes(3, "big") + content[4:]
    return b"".join(record(content[at : at + (1 << 14)]) for at in range(0, len(content), 1 << 14))


def _cut(whole: bytes, count: int) -> bytes:
    """One hello in so many records, all but the last of one byte."""
    content = whole[5:]
    return b"".join(record(content[at : at + 1]) for at in range(count - 1)) + record(content[count - 1 :])


def _random(count: int) -> Iterator[tuple[str, bytes]]:
    """Bytes changed, taken out and put in, by a source that always says the same."""
    source = random.Random(8446)
    whole = _hello(hellos.alpn(b"h2", b"x"))
    for number in range(count):
        changed = bytearray(whole)
        for _ in range(source.choice((1, 1, 1, 2, 3))):
            # Not in the random value, which may be anything.
            at = source.choice((source.randrange(11), source.randrange(43, len(changed))))
            match source.randrange(4):
                case 0:
                    changed[at] = source.randrange(256)
                case 1:
                    changed[at] ^= 1 << source.randrange(8)
                case 2:
                    del changed[at : at + source.randrange(1, 9)]
                case _:
                    changed[at:at] = source.randbytes(source.randrange(1, 9))
        if source.random() < 0.5:  # the outer lengths are right again
            size = len(changed) - 5
            changed[3:5], changed[6:9] = size.to_bytes(2, "big"), (size - 4).to_bytes(3, "big")
        yield f"random {number}", bytes(changed)


MUTANTS = dict(_named()) | dict(_random(250))

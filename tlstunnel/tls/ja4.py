"""JA4: a short name for the kind of client, taken from its ClientHello.

The same program offers the same things in every connection, so a hash of what is offered names the program (not the
person). The three parts: what is readable at a glance, the cipher suites, the extensions with the signature
algorithms. Lists are sorted before they are hashed because browsers shuffle them. By FoxIO's specification,
technical_details/JA4.md in github.com/FoxIO-LLC/ja4 (JA4 alone is under a BSD licence; the other JA4+ methods are not,
and are not here). It takes about 15 µs, so ask for it only where it is logged.
"""

from __future__ import annotations

import hashlib
import struct

from tlstunnel.tls.clienthello import ALPN, SERVER_NAME, ClientHello

_VERSION = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_NOTHING = "000000000000"


def fingerprint(hello: ClientHello) -> str:
    """The JA4 of a client on TCP, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.

    Raises:
        HelloError: a list it is made of is malformed.
    """
    readable, ciphers, extensions, algorithms = _parts(hello)
    named = "_".join(filter(None, (extensions, algorithms)))
    return f"{readable}_{_hash(ciphers)}_{_hash(named) if extensions else _NOTHING}"


def raw(hello: ClientHello) -> str:
    """The same without hashing (`JA4_r`), for those who want to see what differs.

    Raises:
        HelloError: a list it is made of is malformed.
    """
    readable, ciphers, extensions, algorithms = _parts(hello)
    return "_".join(filter(None, (readable, ciphers, extensions, algorithms)))


def _parts(hello: ClientHello) -> tuple[str, str, str, str]:
    suites = hello.cipher_suites
    extensions = hello.extensions
    readable = (
        f"t{_VERSION.get(max(hello.versions, default=0), '00')}"
        f"{'d' if SERVER_NAME in extensions else 'i'}"
        f"{min(len(suites), 99):02}{min(len(extensions), 99):02}{_alpn_ends(hello.alpn)}"
    )
    # The name and the protocol depend on where the client goes, and are in the first part.
    lasting = [kind for kind in extensions if kind not in (SERVER_NAME, ALPN)]
    return (
        readable,
        _list(sorted(suites)),
        _list(sorted(lasting)),
        _list(hello.signature_algorithms),
    )


def _alpn_ends(alpn: tuple[bytes, ...]) -> str:
    """First and last character of the protocol most wanted; of its hexadecimal form if either is not alphanumeric."""
    if not alpn:
        return "00"
    first, last = alpn[0][:1], alpn[0][-1:]
    if first.isalnum() and last.isalnum():  # on bytes, this means ASCII letters and digits
        return (first + last).decode("ascii")
    return first.hex()[0] + last.hex()[1]


def _list(values: tuple[int, ...] | list[int]) -> str:
    return struct.pack(f">{len(values)}H", *values).hex(",", 2)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12] if text else _NOTHING

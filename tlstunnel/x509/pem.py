"""Files of certificates and keys: read within bounds, taken apart as PEM, and named for what they are.

Most trouble with TLS is a file that is something else than its name says. So nothing here answers "no start line":
a file that does not hold what was asked for is recognised, and the error says what it is and how to convert it.

The PEM reader is more forgiving than OpenSSL's where the meaning is plain (indented text, Windows line ends, files
joined without a line break) and stricter where it is not (a block that is cut short never hides behind a good one).
RFC 7468 describes the format; the headers of encrypted traditional keys come from RFC 1421.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlstunnel import errors, reading
from tlstunnel.errors import UsageError
from tlstunnel.reading import UnfitFileError, read_whole, show_whole

MAX_CREDENTIAL_BYTES = 1 << 20
"""A chain of ten ML-DSA-87 certificates takes 100 KiB; a larger file is a mistake (an image, a log, a CA bundle)."""
MAX_CA_BYTES = 16 << 20
"""The web's whole trust store takes 250 KiB."""
MAX_CRL_BYTES = 64 << 20
"""The largest public revocation lists have tens of megabytes."""

KEY_LABELS = frozenset(
    {"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY"}
    | {"OPENSSH PRIVATE KEY"}
)
TRUSTED = "TRUSTED CERTIFICATE"
"""OpenSSL's own: a certificate, and after it what its owner trusts it for."""
CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE", TRUSTED})

_SHOWN = 160
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,60})-----")
_BLANKS = b" \t\r\n\v\f"


class MaterialError(UsageError):
    """A certificate, key, CA or CRL file that cannot be used. The message never holds anything of a key.

    Exit code 1 where the machine refused (unreadable, missing), 2 where the content is wrong.
    """

    def __init__(self, where: str, what: str, is_unreadable: bool = False) -> None:
        super().__init__(where, what)
        self.exit_code = 1 if is_unreadable else 2
        self.args = where, what, is_unreadable

    @property
    def where(self) -> str:
        """The file."""
        return self.problems[0].where


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it was at one moment: what is parsed, digested and judged is the same bytes."""

    path: Path
    data: bytes = field(repr=False)
    mode: int

    @property
    def where(self) -> str:
        """The path, for messages."""
        return shown(self.path)

    def error(self, what: str) -> MaterialError:
        """What is wrong with the content of this file."""
        return MaterialError(self.where, what)


@dataclass(frozen=True, slots=True)
class Block:
    """One BEGIN/END block. `text` is the block in plain PEM again, headers kept; both may be secret."""

    label: str
    line: int
    der: bytes = field(repr=False)
    text: bytes = field(repr=False)
    is_encrypted: bool
    is_limited: bool = False
    """Whether it is a certificate that somebody trusts for some purposes only, or distrusts for some."""

    @property
    def is_key(self) -> bool:
        return self.label in KEY_LABELS

    @property
    def is_certificate(self) -> bool:
        return self.label in CERTIFICATE_LABELS


def printable(text: str) -> str:
    """Text from a file, fit for one line of a log: nothing unprintable, nothing endless."""
    clean = errors.printable(text)
    return clean if len(clean) <= _SHOWN else clean[: _SHOWN - 3] + "..."


def shown(path: Path) -> str:
    """A path, for messages: whole, since a shortened one cannot be opened."""
    return errors.printable(str(path))


def read_file(path: Path, limit: int = MAX_CREDENTIAL_BYTES, *, may_be_empty: bool = False) -> SourceFile:
    """Read a file, or what a pipe gives, of at most `limit` bytes; see `reading.read_whole`.

    Raises:
        MaterialError: missing, unreadable, not a file, empty or too large.
    """
    with _refusals(path):
        found = read_whole(path, limit)
    if not may_be_empty and not found.data.strip():
        raise MaterialError(shown(path), "is empty; write it anew")
    return SourceFile(path, found.data, found.mode)


def hold_pipe(path: Path) -> None:
    """Take what a pipe gives without looking at it; see `reading.hold_pipe`.

    Raises:
        MaterialError: nothing comes out of it, or too much.
    """
    with _refusals(path):
        reading.hold_pipe(path, MAX_CREDENTIAL_BYTES)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except UnfitFileError as exc:
        raise MaterialError(shown(path), str(exc), exc.is_machine) from exc


def digest(files: Iterable[SourceFile]) -> str:
    """One fingerprint of the contents of several files, to notice a change."""
    total = hashlib.sha256()
    for file in files:
        total.update(len(file.data).to_bytes(8, "big"))
        total.update(file.data)
    return total.hexdigest()


def add_to_digest(total: Any, path: Path, limit: int) -> None:
    """The same for a file as it is now, of which nothing stays in memory: it may be a passphrase.

    Args:
        total: from hashlib.

    Raises:
        MaterialError: it cannot be read, or is too large.
    """

    def add(data: memoryview) -> None:
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)

    with _refusals(path):
        show_whole(path, limit, add)


def parse_pem(file: SourceFile) -> list[Block]:
    """All blocks of a file, in file order.

    Raises:
        MaterialError: the file is not PEM (it says what it is instead), or a block is damaged.
    """
    data, blocks, position = file.data, [], 0
    while (begin := _BEGIN.search(data, position)) is not None:
        block, position = _parse_block(file, begin)
        blocks.append(block)
    if not blocks:
        raise file.error(identify(data))
    return blocks


def identify(data: bytes, wanted: str = "PEM") -> str:
    """What a file is that is not `wanted` (PEM or PKCS#12), and what to do about it."""
    if not data.strip():
        return "is empty; write it anew"
    head = data[:512].lstrip(_BLANKS + b"\xef\xbb\xbf")
    for start, answer in _STARTS:
        if head.startswith(start):
            return answer
    if head[:15].lower().startswith((b"<!doctype html", b"<html")):
        return f"is an HTML page, not {wanted}; a download must have failed"
    # A text may begin with 0 too; DER goes on with a sequence, a number or an identifier.
    first = _der_body(data)[:1]
    if data[:1] == b"0" and (first in (b"\x30", b"\x02", b"\x06") or (not first and data[1:2] >= b"\x80")):
        return _identify_der(data, wanted)
    if wanted != "PEM":
        return f"is not {wanted}; a file that ends in .p12 or .pfx is meant"
    if b"-----BEGIN" in data:
        return "has a damaged -----BEGIN ...----- line; copy it anew"
    if re.match(rb"MI[A-Za-z0-9+/\r\n]{60}", head):
        return "is base64 alone; add its lines -----BEGIN ...----- and -----END ...-----"
    return "is not PEM; it would have a line like -----BEGIN CERTIFICATE-----"


def is_p12(data: bytes) -> bool:
    """Whether the data begins as PKCS#12 does: a sequence that begins with version 3 (RFC 7292 section 4)."""
    return data[:1] == b"0" and _der_body(data).startswith(_P12_VERSION)


_STARTS = (
    (b"\xfe\xed\xfe\xed", "is a Java key store (JKS); convert it with keytool -importkeystore -deststoretype PKCS12"),
    (b"\xce\xce\xce\xce", "is a Java key store (JCEKS); convert it with keytool -importkeystore -deststoretype PKCS12"),
    (b"PuTTY-User-Key-File-", "is a PuTTY key for SSH; TLS needs the certificate's own key as PEM"),
    (b"ssh-", "is a public key for SSH; TLS needs PEM"),
    (b"ecdsa-sha2-", "is a public key for SSH; TLS needs PEM"),
    (b"\xff\xfe", "is UTF-16 text; save it as ASCII or UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; save it as ASCII or UTF-8"),
    (b"PK\x03\x04", "is a zip archive; unpack it"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it"),
    (b"---- BEGIN SSH2", "is a public key for SSH; TLS needs PEM"),
)
# What follows the outer SEQUENCE of DER. PKCS#12 and a key begin with a version number, PKCS#7 with its own
# identifier, a certificate or request with another SEQUENCE.
_P12_VERSION = b"\x02\x01\x03"
_ENCRYPTION = (bytes.fromhex("06092a864886f70d0105"), bytes.fromhex("060a2a864886f70d010c01"))
"""PKCS#5 and PKCS#12."""


def _identify_der(data: bytes, wanted: str) -> str:
    body = _der_body(data)
    if is_cut_short(data):
        return f"is {'PKCS#12' if is_p12(data) else 'DER'} that is cut short; copy it anew"
    if body.startswith(_P12_VERSION):
        return f"is PKCS#12, not {wanted}; name it with p12 instead of certificate and key"
    if body.startswith(b"\x02\x01"):
        return f"is a private key in DER, not {wanted}; convert it with openssl pkey -inform DER"
    if body.startswith(b"\x06"):
        return f"is PKCS#7 in DER, not {wanted}; convert it with openssl pkcs7 -inform DER -print_certs"
    if is_encrypted_der(data):
        return f"is an encrypted private key in DER, not {wanted}; convert it with openssl pkcs8 -topk8 -inform DER"
    return f"is a certificate in DER, not {wanted}; convert it with openssl x509 -inform DER"


def is_cut_short(data: bytes) -> bool:
    """Whether DER says that it is longer than it is."""
    size = _der_size(data)
    return size is not None and size > len(data)


def is_encrypted_der(data: bytes) -> bool:
    """Whether DER is an encrypted PKCS#8 key (RFC 5958 section 3): it begins with an algorithm that encrypts."""
    inner = _der_body(data)
    return inner[:1] == b"\x30" and _der_body(inner).startswith(_ENCRYPTION)


def _der_size(data: bytes) -> int | None:
    """Of the first element, with its head; None where it does not say (the indefinite form)."""
    if len(data) < 2 or data[1] == 0x80:
        return None
    count = data[1] & 0x7F if data[1] & 0x80 else 0
    return 2 + count + (int.from_bytes(data[2 : 2 + count], "big") if count else data[1])


def _split(data: bytes) -> tuple[bytes, bytes]:
    size = _der_size(data) or len(data)
    return data[:size], data[size:]


def _der_body(data: bytes) -> bytes:
    """What follows the tag and the length (X.690 section 8.1.3; the indefinite form has one length byte as well)."""
    length = data[1] if len(data) > 1 else 0
    return data[2 + (length & 0x7F if length & 0x80 else 0) :][:24]


def _parse_block(file: SourceFile, begin: re.Match[bytes]) -> tuple[Block, int]:
    data, label = file.data, begin.group(1).decode()
    line = data.count(b"\n", 0, begin.start()) + 1
    end = b"-----END " + begin.group(1) + b"-----"
    stop = data.find(b"-----", begin.end())
    if stop < 0 or not data.startswith(b"-----END ", stop):
        raise file.error(f"line {line}: BEGIN {label} without END {label}; the file is cut short")
    if not data.startswith(end, stop):
        raise file.error(f"line {line}: BEGIN {label} ends with the END line of something else; copy it anew")
    body = data[begin.end() : stop]
    headers = _headers(body)
    encoded = body[len(headers) :].translate(None, _BLANKS)
    if b"\\n" in encoded:
        raise file.error(
            f'line {line}: {label} has the two characters "\\n" in the place of line breaks; break the lines'
        )
    try:
        der = binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error:
        # The reason would be safe, but not the exception's context: it may come from a key.
        raise file.error(f"line {line}: {label} is not base64; the file is damaged") from None
    if not der:
        raise file.error(f"line {line}: {label} is empty; copy it anew")
    lines = b"\n".join(part.strip(_BLANKS) for part in headers.strip(_BLANKS).splitlines())
    text = _framed(label, encoded, lines + b"\n\n" if lines else b"")
    is_limited = False
    if label == TRUSTED:
        der, rest = _split(der)
        # CertAux is a sequence that begins with the purposes trusted, then those rejected ([0]), if there are any.
        is_limited = _der_body(rest)[:1] in (b"\x30", b"\xa0")
    is_encrypted = b"ENCRYPTED" in headers or label == "ENCRYPTED PRIVATE KEY"
    return Block(label, line, der, text, is_encrypted, is_limited), stop + len(end)


def _headers(body: bytes) -> bytes:
    """The part up to the empty line, when there are `Name: value` lines (encrypted traditional keys)."""
    if b":" not in body[:4096]:
        return b""
    blank = re.search(rb"\n[ \t]*\r?\n", body[body.find(b":") :])
    return body[: body.find(b":") + blank.end()] if blank else b""


def write_pem(label: str, der: bytes) -> bytes:
    """One block, with lines of 64 characters (RFC 7468 section 2)."""
    return _framed(label, binascii.b2a_base64(der, newline=False))


def _framed(label: str, encoded: bytes, headers: bytes = b"") -> bytes:
    lines = [encoded[at : at + 64] + b"\n" for at in range(0, len(encoded), 64)]
    return b"".join((f"-----BEGIN {label}-----\n".encode(), headers, *lines, f"-----END {label}-----\n".encode()))

"""What can be chosen in TLS: versions, suites, key types and groups, and the rows in which they are measured.

Everything is measured along one axis at a time, from one base: TLS 1.3, AES-128-GCM, ECDSA P-256, X25519. What changes
between two rows of an axis is then that one choice. X25519 is the base group although X25519MLKEM768 is the default,
because it is what a TLS 1.2 row can be compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tlstunnel.tools.pki.keys import KeyKind


@dataclass(frozen=True, slots=True)
class Suite:
    """A TLS 1.3 suite, or a TLS 1.2 cipher for one kind of key."""

    name: str
    """As OpenSSL writes it."""
    version: str
    bits: int
    """Of the symmetric key."""
    aead: str
    key: str = ""
    """TLS 1.2: the key type it needs. Of TLS 1.3 any will do."""


@dataclass(frozen=True, slots=True)
class Key:
    """A type of key for a certificate."""

    name: str
    kind: KeyKind
    bits: int
    """Strength against the best known attack: NIST SP 800-57 part 1, table 2; FIPS 204 section 4 for ML-DSA."""
    note: str = ""
    """Who cannot use it."""
    is_widely_usable: bool = True
    is_post_quantum: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A group for the key exchange."""

    name: str
    is_post_quantum: bool = False
    name_12: str = ""
    """What OpenSSL calls it in TLS 1.2, where that differs."""


SUITES = (
    Suite("TLS_AES_128_GCM_SHA256", "1.3", 128, "AES-128-GCM"),
    Suite("TLS_AES_256_GCM_SHA384", "1.3", 256, "AES-256-GCM"),
    Suite("TLS_CHACHA20_POLY1305_SHA256", "1.3", 256, "ChaCha20-Poly1305"),
    Suite("TLS_AES_128_CCM_SHA256", "1.3", 128, "AES-128-CCM"),
    Suite("TLS_AES_128_CCM_8_SHA256", "1.3", 64, "AES-128-CCM-8"),
    Suite("ECDHE-ECDSA-AES128-GCM-SHA256", "1.2", 128, "AES-128-GCM", "p256"),
    Suite("ECDHE-ECDSA-AES256-GCM-SHA384", "1.2", 256, "AES-256-GCM", "p256"),
    Suite("ECDHE-ECDSA-CHACHA20-POLY1305", "1.2", 256, "ChaCha20-Poly1305", "p256"),
    Suite("ECDHE-RSA-AES128-GCM-SHA256", "1.2", 128, "AES-128-GCM", "rsa2048"),
    Suite("ECDHE-RSA-AES256-GCM-SHA384", "1.2", 256, "AES-256-GCM", "rsa2048"),
    Suite("ECDHE-RSA-CHACHA20-POLY1305", "1.2", 256, "ChaCha20-Poly1305", "rsa2048"),
)
"""RFC 8446 section B.4, and of TLS 1.2 what has forward secrecy and authenticated encryption (RFC 9325 section 4.2)."""

_TOO_NEW = "few clients know it yet, and public CAs do not sign it"

KEYS = (
    Key("ECDSA P-256", KeyKind.P256, 128),
    Key("ECDSA P-384", KeyKind.P384, 192),
    Key(
        "Ed25519",
        KeyKind.ED25519,
        128,
        "browsers do not take it, and public CAs do not sign it",
        is_widely_usable=False,
    ),
    Key("RSA 2048", KeyKind.RSA2048, 112),
    Key("RSA 3072", KeyKind.RSA3072, 128),
    Key("RSA 4096", KeyKind.RSA4096, 140),
    Key("ML-DSA-44", KeyKind.MLDSA44, 128, _TOO_NEW, is_widely_usable=False, is_post_quantum=True),
    Key("ML-DSA-65", KeyKind.MLDSA65, 192, _TOO_NEW, is_widely_usable=False, is_post_quantum=True),
    Key("ML-DSA-87", KeyKind.MLDSA87, 256, _TOO_NEW, is_widely_usable=False, is_post_quantum=True),
)

GROUPS = (
    Group("X25519"),
    Group("P-256"),
    Group("P-384"),
    Group("P-521"),
    Group("X448"),
    Group("X25519MLKEM768", is_post_quantum=True),
    Group("SecP256r1MLKEM768", is_post_quantum=True),
    Group("SecP384r1MLKEM1024", is_post_quantum=True),
    Group("MLKEM512", is_post_quantum=True),
    Group("MLKEM768", is_post_quantum=True),
    Group("MLKEM1024", is_post_quantum=True),
    Group("brainpoolP256r1tls13", name_12="brainpoolP256r1"),
    Group("brainpoolP384r1tls13", name_12="brainpoolP384r1"),
    Group("brainpoolP512r1tls13", name_12="brainpoolP512r1"),
    Group("ffdhe2048"),
    Group("ffdhe3072"),
    Group("ffdhe4096"),
)

BASE_KEY, BASE_GROUP = KEYS[0], GROUPS[0]
BASE_SUITE = SUITES[0]
_KEYS_BY_KIND = {str(key.kind): key for key in KEYS}
BULK_SIZES = (1024, 16 * 1024, 256 * 1024)
"""Bytes of one write: a small exchange, one whole record, a chunk of bulk."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A row: handshakes of one kind."""

    axis: str
    """What the row is compared by: `suite`, `key`, `group` or `version`."""
    version: str
    suite: Suite
    key: Key
    group: Group
    is_resumed: bool = False

    @property
    def words(self) -> str:
        """What `--filter` looks at."""
        how = "resumed" if self.is_resumed else "full"
        words = ("handshake", f"tls{self.version}", self.suite.name, self.key.name, self.group.name, how)
        return f"{' '.join(words)} {self.key.kind} {self.key.name.replace(' ', '-')}".lower()

    @property
    def name(self) -> str:
        """One line that says it all."""
        how = "resumed" if self.is_resumed else "full"
        return f"TLS {self.version}, {self.suite.name}, {self.key.name}, {self.group.name}, {how}"


@dataclass(frozen=True, slots=True)
class Bulk:
    """A row: data under one suite."""

    suite: Suite
    key: Key
    size: int
    """Bytes of one write."""

    @property
    def words(self) -> str:
        """What `--filter` looks at."""
        return f"bulk encrypt decrypt tls{self.suite.version} {self.suite.name} {self.suite.aead} {self.size}".lower()

    @property
    def name(self) -> str:
        """One line that says it all."""
        return f"TLS {self.suite.version}, {self.suite.name}, writes of {self.size} bytes"


Case = Handshake | Bulk


def every_case() -> list[Case]:
    """All rows, each once, in the order of the report."""
    found: dict[tuple[object, ...], Case] = {}
    for case in (*_by_suite(), *_by_key(), *_by_group()):
        found.setdefault((case.version, case.suite, case.key, case.group, case.is_resumed), case)
    return [*found.values(), *(Bulk(suite, key_of(suite), size) for suite in SUITES for size in BULK_SIZES)]


def chosen_by(words: str) -> list[Case]:
    """The rows in which each of these words occurs; all of them for no words."""
    wanted = words.lower().split()
    return [case for case in every_case() if all(word in case.words for word in wanted)]


def key_of(suite: Suite) -> Key:
    """The key to measure a suite with."""
    return _KEYS_BY_KIND[suite.key] if suite.key else BASE_KEY


def suite_12(key: Key) -> Suite:
    """The AES-128 cipher of TLS 1.2 for a key. What is neither RSA nor a curve has none, and will say so."""
    kind = "rsa2048" if key.kind.startswith("rsa") else "p256"
    return next(suite for suite in SUITES if suite.version == "1.2" and suite.key == kind)


def _by_suite() -> Iterator[Handshake]:
    for suite in SUITES:
        for is_resumed in (False, True):
            yield Handshake("suite", suite.version, suite, key_of(suite), BASE_GROUP, is_resumed)


def _by_key() -> Iterator[Handshake]:
    for key in KEYS:
        yield Handshake("key", "1.3", BASE_SUITE, key, BASE_GROUP)
        yield Handshake("key", "1.2", suite_12(key), key, BASE_GROUP)


def _by_group() -> Iterator[Handshake]:
    for group in GROUPS:
        yield Handshake("group", "1.3", BASE_SUITE, BASE_KEY, group)
        yield Handshake("group", "1.3", BASE_SUITE, BASE_KEY, group, is_resumed=True)
        yield Handshake("group", "1.2", suite_12(BASE_KEY), BASE_KEY, group)

"""Names of the numbers in a ClientHello, for people, as OpenSSL spells them. Numbers without a name stay numbers."""

from __future__ import annotations

from collections.abc import Iterable

MAX_NAMES, MAX_SUITES = 5, 2
"""A client may offer hundreds; a line of the log has room for the first, beside what would be right."""

_GROUPS = {
    0x0017: "P-256", 0x0018: "P-384", 0x0019: "P-521", 0x001D: "X25519", 0x001E: "X448",
    0x001A: "brainpoolP256r1", 0x001B: "brainpoolP384r1", 0x001C: "brainpoolP512r1",
    0x001F: "brainpoolP256r1tls13", 0x0020: "brainpoolP384r1tls13", 0x0021: "brainpoolP512r1tls13",
    0x0100: "ffdhe2048", 0x0101: "ffdhe3072", 0x0102: "ffdhe4096", 0x0103: "ffdhe6144", 0x0104: "ffdhe8192",
    0x0200: "MLKEM512", 0x0201: "MLKEM768", 0x0202: "MLKEM1024",
    0x11EB: "SecP256r1MLKEM768", 0x11EC: "X25519MLKEM768", 0x11ED: "SecP384r1MLKEM1024",
    0x0015: "P-224", 0x0016: "secp256k1", 0x6399: "X25519Kyber768Draft00",
}  # fmt: skip
_ALIASES = {"prime256v1": "p-256", "secp256r1": "p-256", "secp384r1": "p-384", "secp521r1": "p-521"}
_SIGNATURES = {
    0x0101: "rsa_pkcs1_md5", 0x0201: "rsa_pkcs1_sha1", 0x0202: "dsa_sha1", 0x0203: "ecdsa_sha1",
    0x0301: "rsa_pkcs1_sha224", 0x0303: "ecdsa_sha224",
    0x0401: "rsa_pkcs1_sha256", 0x0501: "rsa_pkcs1_sha384", 0x0601: "rsa_pkcs1_sha512",
    0x0402: "dsa_sha256", 0x0502: "dsa_sha384", 0x0602: "dsa_sha512", 0x0302: "dsa_sha224",
    0x0403: "ecdsa_secp256r1_sha256", 0x0503: "ecdsa_secp384r1_sha384", 0x0603: "ecdsa_secp521r1_sha512",
    0x0804: "rsa_pss_rsae_sha256", 0x0805: "rsa_pss_rsae_sha384", 0x0806: "rsa_pss_rsae_sha512",
    0x0809: "rsa_pss_pss_sha256", 0x080A: "rsa_pss_pss_sha384", 0x080B: "rsa_pss_pss_sha512",
    0x0807: "ed25519", 0x0808: "ed448", 0x0904: "mldsa44", 0x0905: "mldsa65", 0x0906: "mldsa87",
}  # fmt: skip
_WEAK_HASHES = frozenset((1, 2))
"""MD5 and SHA-1, in the first byte (RFC 5246 section 7.4.1.4.1)."""
# What OpenSSL 4 has no name for any more, and old clients still offer.
_OLD_SUITES = {
    0x0004: "RC4-MD5", 0x0005: "RC4-SHA", 0x0009: "DES-CBC-SHA", 0x000A: "DES-CBC3-SHA", 0x0013: "DHE-DSS-DES-CBC3-SHA",
    0x0015: "DHE-RSA-DES-CBC-SHA", 0x0016: "DHE-RSA-DES-CBC3-SHA", 0xC007: "ECDHE-ECDSA-RC4-SHA",
    0xC008: "ECDHE-ECDSA-DES-CBC3-SHA", 0xC011: "ECDHE-RSA-RC4-SHA", 0xC012: "ECDHE-RSA-DES-CBC3-SHA",
}  # fmt: skip
_SIGNALS = (0x00FF, 0x5600)
"""No suites: secure renegotiation (RFC 5746), and a fallback (RFC 7507)."""


def groups(numbers: Iterable[int]) -> list[str]:
    """Key-exchange groups."""
    return [_GROUPS.get(number, f"0x{number:04x}") for number in numbers]


def same_group(one: str, other: str) -> bool:
    """Whether two spellings mean one group."""
    first, second = (_ALIASES.get(name.lower(), name.lower()) for name in (one.strip("*?"), other.strip("*?")))
    return first == second


def signatures(numbers: Iterable[int]) -> list[str]:
    """Signature algorithms."""
    return [_SIGNATURES.get(number, f"0x{number:04x}") for number in numbers]


def are_weak_signatures(numbers: Iterable[int]) -> bool:
    """Whether all of them sign MD5 or SHA-1, as none at all does before TLS 1.3 (RFC 5246 section 7.4.1.4.1)."""
    return all(number >> 8 in _WEAK_HASHES for number in numbers)


def suites(numbers: Iterable[int], known: dict[int, str]) -> list[str]:
    """Cipher suites; `known` are OpenSSL's names."""
    return [
        known.get(number) or _OLD_SUITES.get(number, f"0x{number:04x}") for number in numbers if number not in _SIGNALS
    ]


def some(names: list[str], most: int = MAX_NAMES) -> str:
    """The first of them, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"

"""Key-exchange groups: every number worth asking for, with name, size, and whether it withstands quantum computers."""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.tools.tls13.names import group_name

_OLD_CURVES = {
    1: "sect163k1", 2: "sect163r1", 3: "sect163r2", 4: "sect193r1", 5: "sect193r2", 6: "sect233k1", 7: "sect233r1",
    8: "sect239k1", 9: "sect283k1", 10: "sect283r1", 11: "sect409k1", 12: "sect409r1", 13: "sect571k1",
    14: "sect571r1", 15: "secp160k1", 16: "secp160r1", 17: "secp160r2", 18: "secp192k1", 19: "secp192r1",
    20: "secp224k1", 21: "secp224r1", 22: "secp256k1", 26: "brainpoolP256r1", 27: "brainpoolP384r1",
    28: "brainpoolP512r1", 41: "curveSM2",
}  # fmt: skip
_POST_QUANTUM = {
    0x11EC: "X25519MLKEM768", 0x11EB: "SecP256r1MLKEM768", 0x11ED: "SecP384r1MLKEM1024", 0x11EE: "curveSM2MLKEM768",
    0x0202: "MLKEM1024", 0x0201: "MLKEM768", 0x0200: "MLKEM512",
}  # fmt: skip
_DRAFTS = {0x6399: "X25519Kyber768Draft00", 0x639A: "SecP256r1Kyber768Draft00"}
_MODERN = (0x001D, 0x0017, 0x001E, 0x0018, 0x0019)
_FFDHE = (0x0100, 0x0101, 0x0102, 0x0103, 0x0104)
_BRAINPOOL_TLS13 = (0x001F, 0x0020, 0x0021)

IN_TLS13 = (*_POST_QUANTUM, *_DRAFTS, *_MODERN, *_BRAINPOOL_TLS13, 41, *_FFDHE)
"""What RFC 8446 section 4.2.7, RFC 8734, RFC 8998 and the ML-KEM drafts allow in TLS 1.3."""
CURVES = (*_MODERN, 28, 27, 26, 22, 14, 13, 12, 11, 10, 9, 21, 20, 8, 7, 6, 19, 18, 5, 4, 17, 16, 15, 3, 2, 1)
"""The elliptic curves of TLS 1.2 and before (RFC 8422, RFC 7027, RFC 4492)."""
IN_TLS12 = (*CURVES, *_FFDHE)
CURVE_OF_KEY = {
    "secp192r1": 19, "secp224r1": 21, "secp256k1": 22, "secp256r1": 23, "secp384r1": 24, "secp521r1": 25,
    "brainpoolP256r1": 26, "brainpoolP384r1": 27, "brainpoolP512r1": 28,
}  # fmt: skip
"""The group that is the curve of a certificate's key, by the name `cryptography` has for the curve."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group. `bits` is the size of its field; None where that would say nothing about a group of several parts."""

    id: int
    name: str
    bits: int | None
    is_post_quantum: bool

    @property
    def is_weak(self) -> bool:
        """Whether it is within reach of an attacker with much money (below 112 bits of strength, NIST SP 800-57)."""
        return self.bits is not None and self.bits < (2048 if self.name.startswith("ffdhe") else 224)


def group(number: int) -> Group:
    """The group of that number."""
    hybrid = _POST_QUANTUM.get(number) or _DRAFTS.get(number)
    if hybrid is not None:
        return Group(number, hybrid, None, True)
    name = _OLD_CURVES.get(number) or group_name(number)
    digits = "".join(char if char.isdigit() else " " for char in name.removesuffix("tls13")).split()
    bits = {"x25519": 255, "x448": 448}.get(name) or (int(max(digits, key=len)) if digits else None)
    if name == "curveSM2":
        bits = 256
    return Group(number, name, None if "unknown" in name else bits, False)

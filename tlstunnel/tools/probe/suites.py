"""Cipher suites by number and name (the IANA registry), and what a name says about a suite's strength.

Left out are suites that need what a probe has not got (Kerberos, SRP, ECCPWD, GOST) and drafts that were never
standards. A name of TLS 1.2 and before reads KEY-EXCHANGE_WITH_CIPHER, where the cipher ends with its MAC's hash or,
for an AEAD, the PRF's.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.tools.tls13.names import TLS_1_2

SCSV_RENEGOTIATION = 0x00FF  # RFC 5746 section 3.3
SCSV_FALLBACK = 0x5600  # RFC 7507

_TLS13 = {
    0x1302: "TLS_AES_256_GCM_SHA384", 0x1303: "TLS_CHACHA20_POLY1305_SHA256", 0x1301: "TLS_AES_128_GCM_SHA256",
    0x1304: "TLS_AES_128_CCM_SHA256", 0x1305: "TLS_AES_128_CCM_8_SHA256", 0x00C6: "TLS_SM4_GCM_SM3",
    0x00C7: "TLS_SM4_CCM_SM3", 0xC0B5: "TLS_SHA384_SHA384", 0xC0B4: "TLS_SHA256_SHA256",
}  # fmt: skip
_BY_KEY_EXCHANGE = {
    "RSA": """
        0001 NULL_MD5  0002 NULL_SHA  0004 RC4_128_MD5  0005 RC4_128_SHA  0007 IDEA_CBC_SHA  0009 DES_CBC_SHA
        000A 3DES_EDE_CBC_SHA  002F AES_128_CBC_SHA  0035 AES_256_CBC_SHA  003B NULL_SHA256  003C AES_128_CBC_SHA256
        003D AES_256_CBC_SHA256  0041 CAMELLIA_128_CBC_SHA  0084 CAMELLIA_256_CBC_SHA  0096 SEED_CBC_SHA
        009C AES_128_GCM_SHA256  009D AES_256_GCM_SHA384  00BA CAMELLIA_128_CBC_SHA256  00C0 CAMELLIA_256_CBC_SHA256
        C03C ARIA_128_CBC_SHA256  C03D ARIA_256_CBC_SHA384  C050 ARIA_128_GCM_SHA256  C051 ARIA_256_GCM_SHA384
        C07A CAMELLIA_128_GCM_SHA256  C07B CAMELLIA_256_GCM_SHA384  C09C AES_128_CCM  C09D AES_256_CCM
        C0A0 AES_128_CCM_8  C0A1 AES_256_CCM_8""",
    "RSA_EXPORT": "0003 RC4_40_MD5  0006 RC2_CBC_40_MD5  0008 DES40_CBC_SHA",
    "DH_DSS_EXPORT": "000B DES40_CBC_SHA",
    "DH_DSS": """
        000C DES_CBC_SHA  000D 3DES_EDE_CBC_SHA  0030 AES_128_CBC_SHA  0036 AES_256_CBC_SHA  003E AES_128_CBC_SHA256
        0042 CAMELLIA_128_CBC_SHA  0068 AES_256_CBC_SHA256  0085 CAMELLIA_256_CBC_SHA  0097 SEED_CBC_SHA
        00A4 AES_128_GCM_SHA256  00A5 AES_256_GCM_SHA384  00BB CAMELLIA_128_CBC_SHA256  00C1 CAMELLIA_256_CBC_SHA256
        C03E ARIA_128_CBC_SHA256  C03F ARIA_256_CBC_SHA384  C058 ARIA_128_GCM_SHA256  C059 ARIA_256_GCM_SHA384
        C082 CAMELLIA_128_GCM_SHA256  C083 CAMELLIA_256_GCM_SHA384""",
    "DH_RSA_EXPORT": "000E DES40_CBC_SHA",
    "DH_RSA": """
        000F DES_CBC_SHA  0010 3DES_EDE_CBC_SHA  0031 AES_128_CBC_SHA  0037 AES_256_CBC_SHA  003F AES_128_CBC_SHA256
        0043 CAMELLIA_128_CBC_SHA  0069 AES_256_CBC_SHA256  0086 CAMELLIA_256_CBC_SHA  0098 SEED_CBC_SHA
        00A0 AES_128_GCM_SHA256  00A1 AES_256_GCM_SHA384  00BC CAMELLIA_128_CBC_SHA256  00C2 CAMELLIA_256_CBC_SHA256
        C040 ARIA_128_CBC_SHA256  C041 ARIA_256_CBC_SHA384  C054 ARIA_128_GCM_SHA256  C055 ARIA_256_GCM_SHA384
        C07E CAMELLIA_128_GCM_SHA256  C07F CAMELLIA_256_GCM_SHA384""",
    "DHE_DSS_EXPORT": "0011 DES40_CBC_SHA",
    "DHE_DSS": """
        0012 DES_CBC_SHA  0013 3DES_EDE_CBC_SHA  0032 AES_128_CBC_SHA  0038 AES_256_CBC_SHA  0040 AES_128_CBC_SHA256
        0044 CAMELLIA_128_CBC_SHA  0066 RC4_128_SHA  006A AES_256_CBC_SHA256  0087 CAMELLIA_256_CBC_SHA
        0099 SEED_CBC_SHA  00A2 AES_128_GCM_SHA256  00A3 AES_256_GCM_SHA384  00BD CAMELLIA_128_CBC_SHA256
        00C3 CAMELLIA_256_CBC_SHA256  C042 ARIA_128_CBC_SHA256  C043 ARIA_256_CBC_SHA384  C056 ARIA_128_GCM_SHA256
        C057 ARIA_256_GCM_SHA384  C080 CAMELLIA_128_GCM_SHA256  C081 CAMELLIA_256_GCM_SHA384""",
    "DHE_RSA_EXPORT": "0014 DES40_CBC_SHA",
    "DHE_RSA": """
        0015 DES_CBC_SHA  0016 3DES_EDE_CBC_SHA  0033 AES_128_CBC_SHA  0039 AES_256_CBC_SHA  0045 CAMELLIA_128_CBC_SHA
        0067 AES_128_CBC_SHA256  006B AES_256_CBC_SHA256  0088 CAMELLIA_256_CBC_SHA  009A SEED_CBC_SHA
        009E AES_128_GCM_SHA256  009F AES_256_GCM_SHA384  00BE CAMELLIA_128_CBC_SHA256  00C4 CAMELLIA_256_CBC_SHA256
        C044 ARIA_128_CBC_SHA256  C045 ARIA_256_CBC_SHA384  C052 ARIA_128_GCM_SHA256  C053 ARIA_256_GCM_SHA384
        C07C CAMELLIA_128_GCM_SHA256  C07D CAMELLIA_256_GCM_SHA384  C09E AES_128_CCM  C09F AES_256_CCM
        C0A2 AES_128_CCM_8  C0A3 AES_256_CCM_8  CCAA CHACHA20_POLY1305_SHA256""",
    "DH_anon_EXPORT": "0017 RC4_40_MD5  0019 DES40_CBC_SHA",
    "DH_anon": """
        0018 RC4_128_MD5  001A DES_CBC_SHA  001B 3DES_EDE_CBC_SHA  0034 AES_128_CBC_SHA  003A AES_256_CBC_SHA
        0046 CAMELLIA_128_CBC_SHA  006C AES_128_CBC_SHA256  006D AES_256_CBC_SHA256  0089 CAMELLIA_256_CBC_SHA
        009B SEED_CBC_SHA  00A6 AES_128_GCM_SHA256  00A7 AES_256_GCM_SHA384  00BF CAMELLIA_128_CBC_SHA256
        00C5 CAMELLIA_256_CBC_SHA256  C046 ARIA_128_CBC_SHA256  C047 ARIA_256_CBC_SHA384  C05A ARIA_128_GCM_SHA256
        C05B ARIA_256_GCM_SHA384  C084 CAMELLIA_128_GCM_SHA256  C085 CAMELLIA_256_GCM_SHA384""",
    "PSK": """
        002C NULL_SHA  008A RC4_128_SHA  008B 3DES_EDE_CBC_SHA  008C AES_128_CBC_SHA  008D AES_256_CBC_SHA
        00A8 AES_128_GCM_SHA256  00A9 AES_256_GCM_SHA384  00AE AES_128_CBC_SHA256  00AF AES_256_CBC_SHA384
        00B0 NULL_SHA256  00B1 NULL_SHA384  C064 ARIA_128_CBC_SHA256  C065 ARIA_256_CBC_SHA384  C06A ARIA_128_GCM_SHA256
        C06B ARIA_256_GCM_SHA384  C08E CAMELLIA_128_GCM_SHA256  C08F CAMELLIA_256_GCM_SHA384
        C094 CAMELLIA_128_CBC_SHA256  C095 CAMELLIA_256_CBC_SHA384  C0A4 AES_128_CCM  C0A5 AES_256_CCM
        C0A8 AES_128_CCM_8  C0A9 AES_256_CCM_8  CCAB CHACHA20_POLY1305_SHA256""",
    "DHE_PSK": """
        002D NULL_SHA  008E RC4_128_SHA  008F 3DES_EDE_CBC_SHA  0090 AES_128_CBC_SHA  0091 AES_256_CBC_SHA
        00AA AES_128_GCM_SHA256  00AB AES_256_GCM_SHA384  00B2 AES_128_CBC_SHA256  00B3 AES_256_CBC_SHA384
        00B4 NULL_SHA256  00B5 NULL_SHA384  C066 ARIA_128_CBC_SHA256  C067 ARIA_256_CBC_SHA384  C06C ARIA_128_GCM_SHA256
        C06D ARIA_256_GCM_SHA384  C090 CAMELLIA_128_GCM_SHA256  C091 CAMELLIA_256_GCM_SHA384
        C096 CAMELLIA_128_CBC_SHA256  C097 CAMELLIA_256_CBC_SHA384  C0A6 AES_128_CCM  C0A7 AES_256_CCM
        CCAD CHACHA20_POLY1305_SHA256""",
    "RSA_PSK": """
        002E NULL_SHA  0092 RC4_128_SHA  0093 3DES_EDE_CBC_SHA  0094 AES_128_CBC_SHA  0095 AES_256_CBC_SHA
        00AC AES_128_GCM_SHA256  00AD AES_256_GCM_SHA384  00B6 AES_128_CBC_SHA256  00B7 AES_256_CBC_SHA384
        00B8 NULL_SHA256  00B9 NULL_SHA384  C068 ARIA_128_CBC_SHA256  C069 ARIA_256_CBC_SHA384  C06E ARIA_128_GCM_SHA256
        C06F ARIA_256_GCM_SHA384  C092 CAMELLIA_128_GCM_SHA256  C093 CAMELLIA_256_GCM_SHA384
        C098 CAMELLIA_128_CBC_SHA256  C099 CAMELLIA_256_CBC_SHA384  CCAE CHACHA20_POLY1305_SHA256""",
    "RSA_EXPORT1024": "0060 RC4_56_MD5  0061 RC2_CBC_56_MD5  0062 DES_CBC_SHA  0064 RC4_56_SHA",
    "DHE_DSS_EXPORT1024": "0063 DES_CBC_SHA  0065 RC4_56_SHA",
    "ECDH_ECDSA": """
        C001 NULL_SHA  C002 RC4_128_SHA  C003 3DES_EDE_CBC_SHA  C004 AES_128_CBC_SHA  C005 AES_256_CBC_SHA
        C025 AES_128_CBC_SHA256  C026 AES_256_CBC_SHA384  C02D AES_128_GCM_SHA256  C02E AES_256_GCM_SHA384
        C04A ARIA_128_CBC_SHA256  C04B ARIA_256_CBC_SHA384  C05E ARIA_128_GCM_SHA256  C05F ARIA_256_GCM_SHA384
        C074 CAMELLIA_128_CBC_SHA256  C075 CAMELLIA_256_CBC_SHA384  C088 CAMELLIA_128_GCM_SHA256
        C089 CAMELLIA_256_GCM_SHA384""",
    "ECDHE_ECDSA": """
        C006 NULL_SHA  C007 RC4_128_SHA  C008 3DES_EDE_CBC_SHA  C009 AES_128_CBC_SHA  C00A AES_256_CBC_SHA
        C023 AES_128_CBC_SHA256  C024 AES_256_CBC_SHA384  C02B AES_128_GCM_SHA256  C02C AES_256_GCM_SHA384
        C048 ARIA_128_CBC_SHA256  C049 ARIA_256_CBC_SHA384  C05C ARIA_128_GCM_SHA256  C05D ARIA_256_GCM_SHA384
        C072 CAMELLIA_128_CBC_SHA256  C073 CAMELLIA_256_CBC_SHA384  C086 CAMELLIA_128_GCM_SHA256
        C087 CAMELLIA_256_GCM_SHA384  C0AC AES_128_CCM  C0AD AES_256_CCM  C0AE AES_128_CCM_8  C0AF AES_256_CCM_8
        CCA9 CHACHA20_POLY1305_SHA256""",
    "ECDH_RSA": """
        C00B NULL_SHA  C00C RC4_128_SHA  C00D 3DES_EDE_CBC_SHA  C00E AES_128_CBC_SHA  C00F AES_256_CBC_SHA
        C029 AES_128_CBC_SHA256  C02A AES_256_CBC_SHA384  C031 AES_128_GCM_SHA256  C032 AES_256_GCM_SHA384
        C04E ARIA_128_CBC_SHA256  C04F ARIA_256_CBC_SHA384  C062 ARIA_128_GCM_SHA256  C063 ARIA_256_GCM_SHA384
        C078 CAMELLIA_128_CBC_SHA256  C079 CAMELLIA_256_CBC_SHA384  C08C CAMELLIA_128_GCM_SHA256
        C08D CAMELLIA_256_GCM_SHA384""",
    "ECDHE_RSA": """
        C010 NULL_SHA  C011 RC4_128_SHA  C012 3DES_EDE_CBC_SHA  C013 AES_128_CBC_SHA  C014 AES_256_CBC_SHA
        C027 AES_128_CBC_SHA256  C028 AES_256_CBC_SHA384  C02F AES_128_GCM_SHA256  C030 AES_256_GCM_SHA384
        C04C ARIA_128_CBC_SHA256  C04D ARIA_256_CBC_SHA384  C060 ARIA_128_GCM_SHA256  C061 ARIA_256_GCM_SHA384
        C076 CAMELLIA_128_CBC_SHA256  C077 CAMELLIA_256_CBC_SHA384  C08A CAMELLIA_128_GCM_SHA256
        C08B CAMELLIA_256_GCM_SHA384  CCA8 CHACHA20_POLY1305_SHA256""",
    "ECDH_anon": "C015 NULL_SHA  C016 RC4_128_SHA  C017 3DES_EDE_CBC_SHA  C018 AES_128_CBC_SHA  C019 AES_256_CBC_SHA",
    "ECDHE_PSK": """
        C033 RC4_128_SHA  C034 3DES_EDE_CBC_SHA  C035 AES_128_CBC_SHA  C036 AES_256_CBC_SHA  C037 AES_128_CBC_SHA256
        C038 AES_256_CBC_SHA384  C039 NULL_SHA  C03A NULL_SHA256  C03B NULL_SHA384  C070 ARIA_128_CBC_SHA256
        C071 ARIA_256_CBC_SHA384  C09A CAMELLIA_128_CBC_SHA256  C09B CAMELLIA_256_CBC_SHA384
        CCAC CHACHA20_POLY1305_SHA256  D001 AES_128_GCM_SHA256  D002 AES_256_GCM_SHA384  D003 AES_128_CCM_8_SHA256
        D005 AES_128_CCM_SHA256""",
    "PSK_DHE": "C0AA AES_128_CCM_8  C0AB AES_256_CCM_8",
}  # fmt: skip
_BITS = (
    ("NULL", 0), ("RC4_40", 40), ("RC4_56", 56), ("RC4_128", 128), ("RC2_CBC_40", 40), ("RC2_CBC_56", 56),
    ("DES40", 40), ("DES_CBC", 56), ("3DES", 112), ("IDEA", 128), ("SEED", 128), ("CHACHA20", 256), ("SM4", 128),
    ("SHA256_SHA256", 0), ("SHA384_SHA384", 0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher suite. `key_exchange` is empty for those of TLS 1.3, which leave it to other parts of the handshake."""

    id: int
    name: str
    key_exchange: str
    cipher: str

    @property
    def is_tls13(self) -> bool:
        """Whether it is a suite of TLS 1.3, and of nothing before it."""
        return not self.key_exchange

    @property
    def is_forward_secret(self) -> bool:
        """Whether a key stolen later opens nothing recorded earlier."""
        return self.is_tls13 or self.key_exchange.startswith(("DHE_", "ECDHE_", "DH_anon", "ECDH_anon", "PSK_DHE"))

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody proves who they are."""
        return "anon" in self.key_exchange

    @property
    def is_export(self) -> bool:
        """Whether it was made weak on purpose, in the 1990s."""
        return "EXPORT" in self.key_exchange

    @property
    def uses_psk(self) -> bool:
        """Whether it needs a key that both ends have beforehand."""
        return "PSK" in self.key_exchange

    @property
    def uses_curves(self) -> bool:
        """Whether it has an ephemeral key exchange on an elliptic curve."""
        return self.key_exchange.startswith(("ECDHE_", "ECDH_anon"))

    @property
    def uses_ephemeral_dh(self) -> bool:
        """Whether it has an ephemeral key exchange modulo a prime."""
        return self.key_exchange.startswith(("DHE_", "DH_anon", "PSK_DHE"))

    @property
    def is_signed(self) -> bool:
        """Whether the server signs its half of the key exchange."""
        return self.is_forward_secret and not (self.is_tls13 or self.is_anonymous or self.uses_psk)

    @property
    def is_aead(self) -> bool:
        """Whether encryption and authentication are one operation."""
        return any(word in self.cipher for word in ("GCM", "CCM", "POLY1305"))

    @property
    def is_cbc(self) -> bool:
        """Whether it encrypts with a block cipher in CBC mode."""
        return "CBC" in self.cipher

    @property
    def bits(self) -> int:
        """The length of the cipher's key."""
        for word, bits in _BITS:
            if self.cipher.startswith(word):
                return bits
        return 256 if "_256" in self.cipher else 128

    @property
    def needs_tls12(self) -> bool:
        """Whether versions before TLS 1.2 do not have it (RFC 5246 appendix A.5: SHA-256 MACs and AEADs)."""
        return self.is_aead or self.cipher.endswith(("SHA256", "SHA384"))

    @property
    def strength(self) -> tuple[int, ...]:
        """Sorts suites, the one to wish for first the largest."""
        return (
            not (self.is_anonymous or self.is_export or self.bits < 112),
            not self.uses_psk,
            self.is_forward_secret,
            self.is_aead,
            not self.cipher.startswith(("3DES", "RC4", "IDEA", "SEED")),
            "CCM_8" not in self.cipher,
            self.key_exchange.startswith("ECDHE"),
            self.bits,
        )


def _table() -> dict[int, Suite]:
    found = {number: Suite(number, name, "", name.removeprefix("TLS_")) for number, name in _TLS13.items()}
    for key_exchange, text in _BY_KEY_EXCHANGE.items():
        words = text.split()
        for number, cipher in zip(words[::2], words[1::2], strict=True):
            found[int(number, 16)] = Suite(int(number, 16), f"TLS_{key_exchange}_WITH_{cipher}", key_exchange, cipher)
    return found


SUITES = _table()
_BY_STRENGTH = tuple(sorted(SUITES, key=lambda number: SUITES[number].strength, reverse=True))


def offered_in(version: int) -> tuple[int, ...]:
    """Every suite that a protocol version can have, the ones to wish for first."""
    if version > TLS_1_2:
        return tuple(_TLS13)
    fitting = (SUITES[number] for number in _BY_STRENGTH if number not in _TLS13)
    return tuple(suite.id for suite in fitting if version == TLS_1_2 or not suite.needs_tls12)


def suite(number: int) -> Suite:
    """The suite of that number; one that nobody here knows is named by its number."""
    return SUITES.get(number) or Suite(number, f"unknown 0x{number:04x}", "unknown", "unknown")

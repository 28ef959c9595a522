"""The code points of TLS 1.3, under the names RFC 8446 gives them.

What arrives from a peer stays a plain integer until somebody understands it: a value we have no name for is legal in
most places (RFC 8701 makes clients send such values on purpose), so decoding never fails on one. `describe` finds
words for either.
"""

from __future__ import annotations

from enum import IntEnum

from cryptography.hazmat.primitives import hashes

TLS_1_2 = 0x0303
TLS_1_3 = 0x0304


class ContentType(IntEnum):
    """What a record carries (RFC 8446 section 5.1)."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(IntEnum):
    """Handshake messages (RFC 8446 section 4)."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20
    KEY_UPDATE = 24
    MESSAGE_HASH = 254


class ExtensionType(IntEnum):
    """Extensions that this package reads or writes, and those it only names (RFC 8446 section 4.2 and IANA)."""

    SERVER_NAME = 0
    MAX_FRAGMENT_LENGTH = 1
    STATUS_REQUEST = 5
    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SIGNATURE_ALGORITHMS = 13
    USE_SRTP = 14
    HEARTBEAT = 15
    ALPN = 16
    SIGNED_CERTIFICATE_TIMESTAMP = 18
    CLIENT_CERTIFICATE_TYPE = 19
    SERVER_CERTIFICATE_TYPE = 20
    PADDING = 21
    ENCRYPT_THEN_MAC = 22
    EXTENDED_MASTER_SECRET = 23
    COMPRESS_CERTIFICATE = 27
    RECORD_SIZE_LIMIT = 28
    SESSION_TICKET = 35
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    CERTIFICATE_AUTHORITIES = 47
    OID_FILTERS = 48
    POST_HANDSHAKE_AUTH = 49
    SIGNATURE_ALGORITHMS_CERT = 50
    KEY_SHARE = 51
    RENEGOTIATION_INFO = 0xFF01


class NamedGroup(IntEnum):
    """Key-exchange groups this package can compute with (RFC 8446 section 4.2.7)."""

    SECP256R1 = 0x0017
    SECP384R1 = 0x0018
    X25519 = 0x001D
    X25519MLKEM768 = 0x11EC


class SignatureScheme(IntEnum):
    """Signatures this package can make and verify (RFC 8446 section 4.2.3)."""

    ECDSA_SECP256R1_SHA256 = 0x0403
    ECDSA_SECP384R1_SHA384 = 0x0503
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807


class CipherSuite(IntEnum):
    """An AEAD and the hash of the key schedule (RFC 8446 appendix B.4)."""

    TLS_AES_128_GCM_SHA256 = 0x1301
    TLS_AES_256_GCM_SHA384 = 0x1302
    TLS_CHACHA20_POLY1305_SHA256 = 0x1303

    @property
    def hash(self) -> hashes.HashAlgorithm:
        """The hash of the transcript and of HKDF."""
        return hashes.SHA384() if self is CipherSuite.TLS_AES_256_GCM_SHA384 else hashes.SHA256()

    @property
    def key_length(self) -> int:
        """Bytes of a traffic key."""
        return 16 if self is CipherSuite.TLS_AES_128_GCM_SHA256 else 32


class AlertDescription(IntEnum):
    """Alerts (RFC 8446 section 6)."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


# Names of groups and schemes that peers offer and we do not compute with, so that a story can still name them.
_OTHER_GROUPS = {
    0x0019: "secp521r1", 0x001E: "x448", 0x001F: "brainpoolP256r1tls13", 0x0020: "brainpoolP384r1tls13",
    0x0021: "brainpoolP512r1tls13", 0x0100: "ffdhe2048", 0x0101: "ffdhe3072", 0x0102: "ffdhe4096",
    0x0103: "ffdhe6144", 0x0104: "ffdhe8192", 0x0200: "MLKEM512", 0x0201: "MLKEM768", 0x0202: "MLKEM1024",
    0x11EB: "SecP256r1MLKEM768", 0x11ED: "SecP384r1MLKEM1024", 0x6399: "X25519Kyber768Draft00",
}  # fmt: skip
_OTHER_SCHEMES = {
    0x0201: "rsa_pkcs1_sha1", 0x0203: "ecdsa_sha1", 0x0202: "dsa_sha1", 0x0301: "rsa_sha224",
    0x0303: "ecdsa_sha224", 0x0302: "dsa_sha224", 0x0401: "rsa_pkcs1_sha256", 0x0402: "dsa_sha256",
    0x0501: "rsa_pkcs1_sha384", 0x0502: "dsa_sha384", 0x0601: "rsa_pkcs1_sha512", 0x0602: "dsa_sha512",
    0x0808: "ed448", 0x0809: "rsa_pss_pss_sha256", 0x080A: "rsa_pss_pss_sha384", 0x080B: "rsa_pss_pss_sha512",
    0x081A: "ecdsa_brainpoolP256r1tls13_sha256", 0x081B: "ecdsa_brainpoolP384r1tls13_sha384",
    0x081C: "ecdsa_brainpoolP512r1tls13_sha512", 0x0904: "mldsa44", 0x0905: "mldsa65", 0x0906: "mldsa87",
}  # fmt: skip
_VERSIONS = {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", TLS_1_2: "TLS 1.2", TLS_1_3: "TLS 1.3"}
_EXTENSION_NAMES = {ExtensionType.ALPN: "application_layer_protocol_negotiation"}


def is_grease(value: int) -> bool:
    """Whether a 16-bit code point is one of the reserved nonsense values of RFC 8701."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def group_name(value: int) -> str:
    """`x25519`, `secp256r1`, `X25519MLKEM768`, or the number of a group nobody here knows."""
    if value in NamedGroup._value2member_map_:
        name = NamedGroup(value).name
        return name if name == "X25519MLKEM768" else name.lower()
    return _OTHER_GROUPS.get(value) or _unknown(value)


def scheme_name(value: int) -> str:
    """The name of a signature scheme, as RFC 8446 section 4.2.3 writes it."""
    if value in SignatureScheme._value2member_map_:
        return SignatureScheme(value).name.lower()
    return _OTHER_SCHEMES.get(value) or _unknown(value)


def suite_name(value: int) -> str:
    """The name of a TLS 1.3 cipher suite."""
    if value in CipherSuite._value2member_map_:
        return CipherSuite(value).name
    named = {0x00FF: "TLS_EMPTY_RENEGOTIATION_INFO_SCSV", 0x1304: "TLS_AES_128_CCM_SHA256", 0x5600: "TLS_FALLBACK_SCSV"}
    return named.get(value) or _unknown(value)


def version_name(value: int) -> str:
    """`TLS 1.3` for 0x0304, and so on."""
    return _VERSIONS.get(value) or _unknown(value)


def extension_name(value: int) -> str:
    """The name of an extension, in the RFC's spelling."""
    if value in ExtensionType._value2member_map_:
        known = ExtensionType(value)
        return _EXTENSION_NAMES.get(known, known.name.lower())
    return _unknown(value)


def alert_name(value: int) -> str:
    """`decode_error` for 50, and so on."""
    if value in AlertDescription._value2member_map_:
        return AlertDescription(value).name.lower()
    return f"unknown alert {value}"


def message_name(value: int) -> str:
    """`ClientHello` for 1, and so on."""
    if value in HandshakeType._value2member_map_:
        return "".join(word.capitalize() for word in HandshakeType(value).name.split("_"))
    return f"unknown message {value}"


def _unknown(value: int) -> str:
    return f"GREASE 0x{value:04x}" if is_grease(value) else f"unknown 0x{value:04x}"

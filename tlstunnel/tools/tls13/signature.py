"""Certificates' keys at work: what CertificateVerify signs, how, and how it is checked (RFC 8446 section 4.4.3)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tlstunnel.errors import UsageError
from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import AlertDescription, SignatureScheme, scheme_name
from tlstunnel.tools.tls13.notes import Role

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_RSA_HASHES: dict[int, hashes.HashAlgorithm] = {
    SignatureScheme.RSA_PSS_RSAE_SHA256: hashes.SHA256(),
    SignatureScheme.RSA_PSS_RSAE_SHA384: hashes.SHA384(),
    SignatureScheme.RSA_PSS_RSAE_SHA512: hashes.SHA512(),
}
# In TLS 1.3 an ECDSA scheme names the curve as well as the hash.
_ECDSA: dict[int, tuple[str, hashes.HashAlgorithm]] = {
    SignatureScheme.ECDSA_SECP256R1_SHA256: ("secp256r1", hashes.SHA256()),
    SignatureScheme.ECDSA_SECP384R1_SHA384: ("secp384r1", hashes.SHA384()),
    SignatureScheme.ECDSA_SECP521R1_SHA512: ("secp521r1", hashes.SHA512()),
}


def signed_content(signer: Role, transcript_hash: bytes) -> bytes:
    """What CertificateVerify signs: 64 spaces, a context that names the signer, a zero, the transcript hash.

    The spaces keep a signature made for TLS 1.3 from being read as one over an older version's random values.
    """
    context = f"TLS 1.3, {signer.value} CertificateVerify".encode("ascii")
    return b" " * 64 + context + b"\0" + transcript_hash


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate chain in DER, the end entity's first, and its private key, which never shows in a `repr`."""

    chain: tuple[bytes, ...]
    key: PrivateKey = field(repr=False)

    def choose_scheme(self, offered: Iterable[int]) -> SignatureScheme | None:
        """The first scheme the peer offers that this key can use, or None."""
        public = self.key.public_key()
        fitting = (SignatureScheme(each) for each in offered if each in SignatureScheme._value2member_map_)
        return next((each for each in fitting if _fits(each, public)), None)

    def sign(self, scheme: SignatureScheme, content: bytes) -> bytes:
        """The signature over `content`."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            algorithm = _RSA_HASHES[scheme]
            return self.key.sign(content, _pss(algorithm), algorithm)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(content, ec.ECDSA(_ECDSA[scheme][1]))
        return self.key.sign(content)


def make_credential(chain: Sequence[bytes], key: object, where: str) -> Credential:
    """A credential of certificates in DER and the key of the first one, that were loaded from files.

    Raises:
        UsageError: the key is of a kind that cannot sign here.
    """
    if not isinstance(key, PrivateKey):
        raise UsageError(where, "a key of this kind cannot sign here; give an ECDSA, RSA or Ed25519 key")
    return Credential(tuple(chain), key)


def load_public_key(certificate: bytes) -> PublicKey:
    """The public key of a certificate in DER.

    Raises:
        Violation: bad_certificate if it is none, unsupported_certificate for a kind of key that TLS 1.3 here lacks.
    """
    try:
        with warnings.catch_warnings():
            # A stranger's certificate may be odd; that is for its verifier to say, not for our standard error.
            warnings.simplefilter("ignore")
            key = x509.load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm:
        raise Violation(AlertDescription.UNSUPPORTED_CERTIFICATE, "the certificate's key is of no known kind") from None
    except PARSE_ERRORS:
        raise Violation(AlertDescription.BAD_CERTIFICATE, "the peer's certificate cannot be parsed") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise Violation(AlertDescription.UNSUPPORTED_CERTIFICATE, f"cannot verify signatures of a {type(key).__name__}")
    return key


def verify(scheme: int, key: PublicKey, content: bytes, signature: bytes) -> None:
    """Check a signature.

    Raises:
        Violation: illegal_parameter if the scheme does not go with the key, decrypt_error if the signature is wrong.
    """
    if not _fits(scheme, key):
        raise Violation(
            AlertDescription.ILLEGAL_PARAMETER, f"{scheme_name(scheme)} does not go with the certificate's key"
        )
    try:
        if isinstance(key, rsa.RSAPublicKey):
            algorithm = _RSA_HASHES[scheme]
            key.verify(signature, content, _pss(algorithm), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(_ECDSA[scheme][1]))
        else:
            key.verify(signature, content)
    except InvalidSignature:
        raise Violation(
            AlertDescription.DECRYPT_ERROR, "the signature in CertificateVerify is not the certificate's"
        ) from None


def _pss(algorithm: hashes.HashAlgorithm) -> padding.PSS:
    """RSA-PSS with a salt as long as the digest (section 4.2.3)."""
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)


def _fits(scheme: int, key: PublicKey) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        # EMSA-PSS needs room for the hash, a salt as long and two bytes; RSA-1024 has none for SHA-512 (RFC 8017).
        return scheme in _RSA_HASHES and key.key_size > 16 * _RSA_HASHES[scheme].digest_size + 16
    if isinstance(key, ec.EllipticCurvePublicKey):
        return scheme in _ECDSA and _ECDSA[scheme][0] == key.curve.name
    return scheme == SignatureScheme.ED25519

"""OCSP for our own certificates: requests, and what a response must be before it is stapled (RFC 6960).

Pure: bytes in, values out. `daemon.ocsp.stapling` has responses fetched and `tls.inspection` reads files; both believe
nothing that `judge` has not seen. What it demands:

* the response is for this certificate: serial number, and the hashes of its issuer's name and key;
* it is signed by the issuer itself, or by a responder that the issuer certified for that (section 4.2.2.2);
* it says "good". A response that says anything else would only tell clients to leave.

Dates are not its business: a staple has them, and its user compares them with the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.x509.certificate import issued, load_certificate, serial, utc

MAX_RESPONSE = 64 * 1024
"""Bytes. A response is one or two KiB, with the responder's certificate perhaps four."""
_WITHOUT_END = timedelta(days=1)
# The clocks of a responder and of this machine may differ by so much.
_SKEW = timedelta(minutes=5)
_STATUS = {
    ocsp.OCSPResponseStatus.MALFORMED_REQUEST: "could not read the request",
    ocsp.OCSPResponseStatus.INTERNAL_ERROR: "has an error of its own",
    ocsp.OCSPResponseStatus.TRY_LATER: "says to try later",
    ocsp.OCSPResponseStatus.SIG_REQUIRED: "wants signed requests",
    ocsp.OCSPResponseStatus.UNAUTHORIZED: "does not answer for this certificate",
}


class OCSPError(ValueError):
    """A response proves nothing; the message says why, to follow the name of who gave it."""


class NotOursError(OCSPError):
    """It is a response, but for another certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staple:
    """An OCSP response that says that a certificate is good, as it is sent to clients."""

    der: bytes = field(repr=False)
    since: float
    """Unix time."""
    until: float
    """Unix time: not sent any more after that."""

    def is_good_at(self, when: float) -> bool:
        """Whether it may be sent at a Unix time."""
        return self.since - _SKEW.total_seconds() <= when < self.until

    def problem(self, when: float) -> str:
        """Why it is not sent at a Unix time; empty if it is."""
        if when >= self.until:
            return f"expired on {utc(datetime.fromtimestamp(self.until, UTC))}; fetch it anew"
        if not self.is_good_at(when):
            return f"is dated {utc(datetime.fromtimestamp(self.since, UTC))}; check the clock"
        return ""


Staples = dict[bytes, Staple]
"""By certificate (DER)."""


def request(certificate_der: bytes, issuer_der: bytes) -> bytes:
    """What to ask a responder. The hash names the issuer and protects nothing; SHA-1 is what every responder knows."""
    certificate, issuer = load_certificate(certificate_der), load_certificate(issuer_der)
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    return builder.build().public_bytes(Encoding.DER)


def issuer_of(certificate_der: bytes, candidates_der: Iterable[bytes]) -> bytes | None:
    """The one among the candidates that signed the certificate."""
    certificate = load_certificate(certificate_der)
    return next((der for der in candidates_der if issued(load_certificate(der), certificate)), None)


def judge(response_der: bytes, certificate_der: bytes, issuer_der: bytes) -> Staple:
    """What a response proves about a certificate.

    Raises:
        NotOursError: it is for another certificate.
        OCSPError: it is damaged, not signed by whom it must be, or the certificate is not good.
    """
    try:
        response = ocsp.load_der_ocsp_response(response_der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise OCSPError(
                f"says nothing of the certificate: the responder {_STATUS[response.response_status]}; ask it again"
            )
        certificate, issuer = load_certificate(certificate_der), load_certificate(issuer_der)
        single = _find(response, certificate, issuer)
        _check_signature(response, issuer)
        status, since, until = single.certificate_status, single.this_update_utc, single.next_update_utc
    except OCSPError:
        raise
    except PARSE_ERRORS:
        raise OCSPError("is not an OCSP response in DER, or damaged; fetch it anew") from None
    if status is not ocsp.OCSPCertStatus.GOOD:
        word = "revoked; replace the certificate" if status is ocsp.OCSPCertStatus.REVOKED else "unknown to its CA"
        raise OCSPError(f"says that the certificate is {word}")
    # Without an end newer information may exist at any time (section 4.2.2.1): a day is what browsers grant.
    end = until or since + _WITHOUT_END
    return Staple(der=response_der, since=since.timestamp(), until=end.timestamp())


def refresh_at(staple: Staple, now: float) -> float:
    """When to ask for the next one, in Unix time: half-way through, or if that is past, after a quarter of what is
    left. Responders repeat themselves until they have signed anew."""
    half = (staple.since + staple.until) / 2
    return half if half > now else now + max(1.0, (staple.until - now) / 4)


def _find(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> ocsp.OCSPSingleResponse:
    """The part of the response that is about the certificate."""
    for single in response.responses:
        if single.serial_number != serial(certificate):
            continue
        wanted = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
        hashed = (single.issuer_name_hash, single.issuer_key_hash)
        if hashed == (wanted.issuer_name_hash, wanted.issuer_key_hash):
            return single
    raise NotOursError("is for another certificate")


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate) -> None:
    """
    Raises:
        OCSPError: neither the issuer signed it nor anybody the issuer certified for that.
    """
    why = "nobody that it names"
    for signer in (issuer, *response.certificates):
        if not _is_named(response, signer):
            continue
        if signer != issuer and (trouble := _unfit(signer, issuer, response)):
            why = trouble
            continue
        try:
            _verify(signer, response)
        except InvalidSignature:
            why = "nobody: the signature is broken"
            continue
        return
    raise OCSPError(f"is not signed by the certificate's issuer or its delegate but by {why}; fetch it anew")


def _is_named(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return signer.subject == response.responder_name
    return x509.SubjectKeyIdentifier.from_public_key(signer.public_key()).digest == response.responder_key_hash


def _unfit(signer: x509.Certificate, issuer: x509.Certificate, response: ocsp.OCSPResponse) -> str:
    """Why a certificate that came with the response may not speak for the issuer (section 4.2.2.2); empty if it may."""
    if signer.subject == issuer.subject and signer.public_key() == issuer.public_key():
        return ""  # the issuer under another certificate, such as a cross-signed one
    try:
        signer.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return "a delegate of another CA"
    try:
        purposes = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    if ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        return "a certificate that is not for signing responses"
    if not signer.not_valid_before_utc <= response.produced_at_utc <= signer.not_valid_after_utc:
        return "a delegate whose certificate has expired"
    return ""


def _verify(signer: x509.Certificate, response: ocsp.OCSPResponse) -> None:
    """
    Raises:
        InvalidSignature: the signature is not this key's.
    """
    key, signature, signed = signer.public_key(), response.signature, response.tbs_response_bytes
    digest = response.signature_hash_algorithm
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
    elif isinstance(key, rsa.RSAPublicKey) and digest is not None:
        key.verify(signature, signed, padding.PKCS1v15(), digest)
    elif isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
        key.verify(signature, signed, ec.ECDSA(digest))
    else:
        raise InvalidSignature

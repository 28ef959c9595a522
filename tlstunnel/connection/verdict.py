"""Why a handshake failed, in terms of the connection: whose certificate was refused and by whom, what was offered.

What is known of the peer goes into the record.
"""

from __future__ import annotations

from tlstunnel._openssl import X509_V_ERR_APPLICATION_VERIFICATION, X509_V_ERR_CERT_REJECTED, TLSError
from tlstunnel.access.peer import UnusableCertificateError, identity, printable
from tlstunnel.access.policy import NO_CERTIFICATE
from tlstunnel.config.model import TLSSettings
from tlstunnel.connection import hint
from tlstunnel.connection.offers import Ours
from tlstunnel.connection.refusal import Refusal
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.outcome import CloseReason
from tlstunnel.tls import remedies
from tlstunnel.tls.codepoints import some
from tlstunnel.tls.context import Objection
from tlstunnel.tls.reasons import classify
from tlstunnel.tls.store import ServerSide


def of_client(
    error: TLSError,
    record: ConnectionRecord,
    side: ServerSide | None,
    first: hint.FirstMessage | None,
    settings: TLSSettings,
) -> Refusal:
    """Of a handshake with a client.

    Args:
        error: what it failed by.
        side: what the session was made from, if it was known by then.
        first: the client's first message.
        settings: what we offer.
    """
    reason, detail = classify(error.reasons, error.verify_code)
    if side is not None:
        if error.verify_code == X509_V_ERR_APPLICATION_VERIFICATION:
            return _objected(record, error.objection)
        if error.verify_code:
            record.claimed = error.objection if isinstance(error.objection, str) else None
            return Refusal(reason, detail)
    ours = None if side is None else Ours(settings, side.key_types)
    reason, detail = hint.explain(reason, detail, first, ours)
    return Refusal(reason, detail, NO_CERTIFICATE if reason is CloseReason.NO_CLIENT_CERTIFICATE else None)


def of_backend(
    error: TLSError, record: ConnectionRecord, expected: str, shown: bytes | None, *, is_server: bool
) -> Refusal:
    """Of a handshake with a backend, which had to show a certificate for the name `expected`.

    Args:
        error: what it failed by.
        expected: the name.
        shown: the certificate (DER) that it showed, if any.
        is_server: whether we are in server mode, where the record is about the client.
    """
    if error.verify_code == X509_V_ERR_CERT_REJECTED:
        return _objected(None if is_server else record, error.objection)
    reason, detail = classify(error.reasons, error.verify_code, remedies.KEYS)
    if reason is CloseReason.NAME_MISMATCH:
        detail = mismatch(shown, expected)
    return Refusal(reason, detail)


def mismatch(shown: bytes | None, expected: str) -> str:
    """What a server's certificate (DER) is for, that it is not for the name expected."""
    try:
        found = None if shown is None else identity(shown)
    except UnusableCertificateError:
        found = None
    if found is None:
        return f"it is not for {expected}"
    names = [printable(name) for name in (*found.dns_names, *map(str, found.ip_addresses))]
    if not names:
        return f"{remedies.NAMELESS}, so it is for {expected} as little as for any other"
    return f"it is not for {expected} but for {some(names)}"


def _objected(record: ConnectionRecord | None, objection: object) -> Refusal:
    """What access rules have against a peer's certificate that OpenSSL finds good.

    Args:
        record: of the peer, if the record is about the peer.
        objection: what its judge said; None if it raised, which has been told: an error of ours refuses whom it might
            have let in.
    """
    if not isinstance(objection, Objection):
        return Refusal(CloseReason.INTERNAL_ERROR, "the certificate could not be judged")
    if record is None:
        return Refusal(objection.reason, objection.detail)
    record.identity = objection.identity
    return Refusal(objection.reason, objection.detail, objection.decision)

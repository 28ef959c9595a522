"""Why a handshake failed, in terms of the connection: whose certificate was refused and by whom, what was offered.

What is known of the peer goes into the record; a decision of access rules is handed back to be counted.
"""

from __future__ import annotations

from tlstunnel._openssl import X509_V_ERR_APPLICATION_VERIFICATION, X509_V_ERR_CERT_REJECTED, TLSError
from tlstunnel.access.peer import UnusableCertificateError, identity, printable
from tlstunnel.access.policy import NO_CERTIFICATE, Decision
from tlstunnel.config.model import TLSSettings
from tlstunnel.connection import hint
from tlstunnel.connection.offers import Ours
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.outcome import CloseReason
from tlstunnel.tls import remedies
from tlstunnel.tls.codepoints import some
from tlstunnel.tls.context import Context, Objection
from tlstunnel.tls.reasons import classify
from tlstunnel.tls.store import ServerSide

Verdict = tuple[CloseReason, str, Decision | None]


def of_client(
    error: TLSError,
    record: ConnectionRecord,
    side: ServerSide | None,
    first: hint.FirstMessage | None,
    settings: TLSSettings,
) -> Verdict:
    """Of a handshake with a client.

    Args:
        side: what the session was made from, if it was known by then.
        first: the client's first message.
        settings: what we offer.
    """
    reason, detail = classify(error.reasons, error.verify_code)
    if side is not None:
        if error.verify_code == X509_V_ERR_APPLICATION_VERIFICATION:
            return _unjudged() if side.objection is None else _objected(record, side.objection)
        if error.verify_code:
            record.claimed = side.take_claim()
            return reason, detail, None
    ours = None if side is None else Ours(settings, side.key_types)
    reason, detail = hint.explain(reason, detail, first, ours)
    return reason, detail, NO_CERTIFICATE if reason is CloseReason.NO_CLIENT_CERTIFICATE else None


def of_backend(
    error: TLSError,
    record: ConnectionRecord,
    context: Context | None,
    expected: str,
    shown: bytes | None,
    *,
    is_server: bool,
) -> Verdict:
    """Of a handshake with a backend, which had to show a certificate for the name `expected`.

    Args:
        shown: the certificate (DER) that it showed, if any.
        is_server: whether we are in server mode, where the record is about the client.
    """
    objection = None if context is None else context.objection
    if error.verify_code == X509_V_ERR_CERT_REJECTED and context is not None and context.judge is not None:
        if objection is None:
            return _unjudged()
        return (objection.reason, objection.detail, None) if is_server else _objected(record, objection)
    reason, detail = classify(error.reasons, error.verify_code, remedies.KEYS)
    if reason is CloseReason.NAME_MISMATCH:
        detail = mismatch(shown, expected)
    return reason, detail, None


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


def _unjudged() -> Verdict:
    """The judge raised, which has been told: an error of ours refuses whom it might have let in."""
    return CloseReason.INTERNAL_ERROR, "the certificate could not be judged", None


def _objected(record: ConnectionRecord, objection: Objection) -> Verdict:
    """What access rules have against a peer's certificate that OpenSSL finds good."""
    record.identity = objection.identity
    return objection.reason, objection.detail, objection.decision

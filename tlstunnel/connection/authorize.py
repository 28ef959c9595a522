"""Who the peer is once a handshake is complete, and whether that will do."""

from __future__ import annotations

import time

from tlstunnel.access.peer import Identity, UnusableCertificateError, identity
from tlstunnel.access.policy import Decision, Policy, Reason, decide, refusal
from tlstunnel.config.model import TLSSettings
from tlstunnel.connection.connection import Connection
from tlstunnel.connection.refusal import RefusedError
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import TLSEnd

FALLBACK = Decision(allowed=True, rule="fallback_target", reason=Reason.ANONYMOUS)
"""What a service with a `fallback_target` says to a client without a certificate, whatever its rules."""


def identify(end: TLSEnd) -> Identity | None:
    """Who the peer is by its certificate; None if it showed none.

    Raises:
        RefusedError: the certificate's names can be read in two ways.
    """
    certificate = end.engine.peer_certificate()
    if certificate is None:
        return None
    try:
        return identity(certificate)
    except UnusableCertificateError as exc:
        raise RefusedError(CloseReason.BAD_CERTIFICATE, str(exc)) from None


def judge(connection: Connection, policy: Policy, who: Identity | None) -> None:
    """Let the client go on, or not; also on a resumed session, where OpenSSL did not ask.

    Raises:
        RefusedError: no rule admits it, one denies it, or the certificate of the session it resumes has expired since.
    """
    record = connection.record
    decision = decide(policy, who)
    record.identity = str(who) if who is not None else None
    note(connection, decision)
    if not decision.allowed:
        raise RefusedError(CloseReason.DENIED, refusal(decision, who))
    # Each resumption brings a new ticket, so a session can outlive the certificate it was made with
    # (RFC 8446 section 4.6.1), and OpenSSL does not look at the dates again.
    if who is not None and record.resumed and time.time() > who.not_after.timestamp():
        raise RefusedError(
            CloseReason.EXPIRED_CERTIFICATE, f"{who}: expired since the session that it resumes was made"
        )


def note(connection: Connection, decision: Decision) -> None:
    """Name a decision in the record, and count it. At most once per connection."""
    connection.runtime.worker.observer.judged(connection.record, decision.rule, decision.reason)


def require_alpn(end: TLSEnd, settings: TLSSettings) -> None:
    """A server that chose none of our protocols said so by silence (RFC 7301 section 3.1).

    Raises:
        RefusedError: it did, and one is required.
    """
    if settings.alpn_required and not end.engine.alpn():
        raise RefusedError(CloseReason.NO_SHARED_ALPN, f"backend chose none of {', '.join(settings.alpn)}")

"""What a client that failed at its first message did wrong, in words that help."""

from __future__ import annotations

from tlstunnel.outcome import CloseReason
from tlstunnel.tls import clienthello, ja4
from tlstunnel.tls.firstbytes import HelloError, NotTLSError, Speaks

_BODY = b"This port speaks TLS. Use https:// instead of http://, or a client that speaks TLS.\n"
HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    % len(_BODY)
) + _BODY
"""For plain HTTP on a TLS port: nothing else that we could send would reach the person behind it."""

_FROM_HELLO = frozenset(
    (
        CloseReason.NOT_TLS,
        CloseReason.PROTOCOL_ERROR,
        CloseReason.NO_SHARED_VERSION,
        CloseReason.NO_SHARED_CIPHER,
        CloseReason.NO_SHARED_GROUP,
        CloseReason.NO_SHARED_SIGNATURE,
        CloseReason.NO_SHARED_ALPN,
    )
)


def explain(reason: CloseReason, detail: str, wire: memoryview) -> tuple[CloseReason, str]:
    """A better reason and detail, from the client's first bytes, which stand in the wire area when its first message
    failed. A failure that came later finds something else there, and keeps what OpenSSL said."""
    if reason not in _FROM_HELLO:
        return reason, detail
    try:
        hello = clienthello.parse(wire)
        if hello is None:
            return reason, detail
        offers = ", ".join(hello.version_names)
        return reason, f"{detail}; client offers TLS {offers}, ja4 {ja4.fingerprint(hello)}"
    except NotTLSError as exc:
        return CloseReason.NOT_TLS, str(exc)
    except HelloError:
        return reason, detail


def is_http(detail: str) -> bool:
    """Whether `explain` found plain HTTP."""
    return detail == str(NotTLSError(Speaks.HTTP))

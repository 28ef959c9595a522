"""Why a connection goes no further: one value, raised in one way, whoever finds it.

What is found by code that knows nothing of connections (a socket's error, a ClientHello that nobody could read) is
raised there in its own terms, and put into ours here. A failed handshake is put into ours by `verdict`, which has to
know whose it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.access.policy import Decision
from tlstunnel.errors import words_of
from tlstunnel.outcome import CloseReason
from tlstunnel.tls.firstbytes import NO_ALERT, HelloError


@dataclass(frozen=True, slots=True)
class Refusal:
    """The end of a connection that has no link.

    Attributes:
        reason: whose fault it is, and in which stage, belong to it.
        detail: for people.
        decision: what the access rules said, where it was they that refused, and nobody has counted it.
        alert: what the client is told in an alert of ours, where no TLS session can say it (RFC 8446 section 6).
    """

    reason: CloseReason
    detail: str = ""
    decision: Decision | None = None
    alert: int = NO_ALERT


class RefusedError(Exception):
    """Raised by what finds a refusal; ends at the connection."""

    def __init__(self, reason: CloseReason, detail: str = "", *, alert: int = NO_ALERT) -> None:
        self.refusal = Refusal(reason, detail, alert=alert)
        super().__init__(reason, detail)


def refusal_of(error: Exception) -> Refusal | None:
    """What an exception that a step raised says of the connection; None for an error of ours."""
    match error:
        case RefusedError():
            return error.refusal
        case HelloError():
            return Refusal(error.close_reason, str(error), alert=error.alert)
        case EOFError():
            return Refusal(CloseReason.HANDSHAKE_EOF)
        case ConnectionError():
            return Refusal(CloseReason.HANDSHAKE_RESET)
        case OSError():
            return Refusal(CloseReason.HANDSHAKE_RESET, words_of(error))
        case _:
            return None

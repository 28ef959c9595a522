"""NNTP: CAPABILITIES, STARTTLS (RFC 4642 section 2.2)."""

from __future__ import annotations

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, heard, shown


def client() -> Conversation:
    """Ask a news server for TLS."""
    incoming = Incoming()
    greeting = yield from incoming.line()
    if greeting[:3] not in ("200", "201"):
        raise StartTLSError(f"the greeting is {shown(greeting)}, not that of a news server; give the right protocol")
    yield b"CAPABILITIES\r\n"
    line = yield from incoming.line()
    if not line.startswith("101"):
        raise StartTLSError(f"the news server answers CAPABILITIES with {shown(line)}; it has no TLS here")
    offered = []
    while line != ".":
        line = yield from incoming.line()
        offered.append(line.upper().partition(" ")[0])
    if "STARTTLS" not in offered:
        raise StartTLSError("the news server does not offer STARTTLS; it may have no certificate")
    yield b"STARTTLS\r\n"
    answer = yield from incoming.line()
    if not answer.startswith("382"):
        raise StartTLSError(f"the news server answers STARTTLS with {shown(answer)}; it has no TLS here")
    incoming.end()
    return heard([greeting])

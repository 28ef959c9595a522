"""POP3: STLS (RFC 2595 section 4)."""

from __future__ import annotations

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, heard, shown


def client() -> Conversation:
    """Ask a POP3 server for TLS."""
    incoming = Incoming()
    greeting = yield from incoming.line()
    if not greeting.startswith("+OK"):
        raise StartTLSError(f"the greeting is {shown(greeting)}, not that of a POP3 server; give the right protocol")
    yield b"STLS\r\n"
    answer = yield from incoming.line()
    if not answer.startswith("+OK"):
        raise StartTLSError(f"the POP3 server answers STLS with {shown(answer)}; it has no TLS here")
    incoming.end()
    return heard([greeting])

"""SMTP: EHLO, STARTTLS (RFC 3207). Submission and LMTP servers answer to the same words."""

from __future__ import annotations

from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, shown


def client(name: str = "localhost") -> Conversation:
    """Ask an SMTP server for TLS; `name` is who we say we are."""
    incoming = Incoming()
    yield from _expect(incoming, "220", "greeting")
    yield f"EHLO {name}\r\n".encode("ascii", "replace")
    offered = yield from _expect(incoming, "250", "answer to EHLO")
    if not any(line[4:].strip().upper() == "STARTTLS" for line in offered):
        raise StartTLSError("the SMTP server does not offer STARTTLS; it may on another port, such as 587")
    yield b"STARTTLS\r\n"
    yield from _expect(incoming, "220", "answer to STARTTLS")
    incoming.end()


def _expect(incoming: Incoming, code: str, what: str) -> Generator[bytes, bytes, list[str]]:
    """The lines of one reply (RFC 5321 section 4.2)."""
    lines = []
    while True:
        line = yield from incoming.line()
        if line[:3] != code or line[3:4] not in ("-", " ", ""):
            raise StartTLSError(f"the {what} of the SMTP server is {shown(line)}, not {code}; give the right protocol")
        lines.append(line)
        if line[3:4] != "-":
            return lines

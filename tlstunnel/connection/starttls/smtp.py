"""SMTP and submission: EHLO, STARTTLS (RFC 3207). LMTP says LHLO instead (RFC 2033 section 4.1)."""

from __future__ import annotations

from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, heard, shown


def client() -> Conversation:
    """Ask an SMTP server for TLS."""
    return (yield from _ask("SMTP", "EHLO", "it may on another port, such as 587"))


def lmtp_client() -> Conversation:
    """Ask an LMTP server for TLS."""
    return (yield from _ask("LMTP", "LHLO", "it may have no certificate"))


def _ask(protocol: str, hello: str, hint: str) -> Conversation:
    incoming = Incoming()
    greeting = yield from _expect(incoming, protocol, "220", "greeting")
    yield f"{hello} localhost\r\n".encode("ascii")
    offered = yield from _expect(incoming, protocol, "250", f"answer to {hello}")
    if not any(line[4:].strip().upper() == "STARTTLS" for line in offered):
        raise StartTLSError(f"the {protocol} server does not offer STARTTLS; {hint}")
    yield b"STARTTLS\r\n"
    yield from _expect(incoming, protocol, "220", "answer to STARTTLS")
    incoming.end()
    return heard(greeting)


def _expect(incoming: Incoming, protocol: str, code: str, what: str) -> Generator[bytes, bytes, list[str]]:
    """The lines of one reply (RFC 5321 section 4.2)."""
    lines = []
    while True:
        line = yield from incoming.line()
        if line[:3] != code or line[3:4] not in ("-", " ", ""):
            raise StartTLSError(
                f"the {what} of the {protocol} server is {shown(line)}, not {code}; give the right protocol"
            )
        lines.append(line)
        if line[3:4] != "-":
            return lines

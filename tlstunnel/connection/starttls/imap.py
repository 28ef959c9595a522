"""IMAP: CAPABILITY, STARTTLS (RFC 3501 section 6.2.1)."""

from __future__ import annotations

import re
from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, heard, shown

_CAPABILITIES = re.compile(r"\[CAPABILITY [^\]]*\] ?", re.IGNORECASE)


def client() -> Conversation:
    """Ask an IMAP server for TLS."""
    incoming = Incoming()
    greeting = yield from incoming.line()
    if not greeting.upper().startswith("* OK"):
        raise StartTLSError(f"the greeting is {shown(greeting)}, not that of an IMAP server; give the right protocol")
    yield b"a1 CAPABILITY\r\n"
    offered = yield from _reply(incoming, "a1")
    if not any("STARTTLS" in line.upper().split() for line in offered):
        raise StartTLSError("the IMAP server does not offer STARTTLS; it may on another port, such as 143")
    yield b"a2 STARTTLS\r\n"
    yield from _reply(incoming, "a2")
    incoming.end()
    return heard([_CAPABILITIES.sub("", greeting)])  # others hold within TLS (section 6.2.1)


def _reply(incoming: Incoming, tag: str) -> Generator[bytes, bytes, list[str]]:
    """The lines up to the one that ends a command."""
    lines: list[str] = []
    while True:
        line = yield from incoming.line()
        if line.startswith(tag + " "):
            if line[len(tag) + 1 :].upper().startswith("OK"):
                return lines
            raise StartTLSError(f"the IMAP server answers {shown(line)}; it has no TLS here")
        lines.append(line)

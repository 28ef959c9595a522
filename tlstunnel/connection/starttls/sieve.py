"""ManageSieve: the server greets with what it can do, the client says STARTTLS (RFC 5804 section 2.2)."""

from __future__ import annotations

import re
from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import MAX_PLAINTEXT, Conversation, Incoming, StartTLSError, shown

_LITERAL = re.compile(r"\{(\d{1,9})\}$")


def client() -> Conversation:
    """Ask a ManageSieve server for TLS."""
    incoming = Incoming()
    offered = yield from _response(incoming, "greets with")
    if not any(line.upper().startswith('"STARTTLS"') for line in offered):
        raise StartTLSError("the ManageSieve server does not offer STARTTLS; it may have no certificate")
    yield b"STARTTLS\r\n"
    yield from _response(incoming, "answers STARTTLS with")
    incoming.end()
    return b""  # it says again what it can do, within TLS (section 2.2)


def _response(incoming: Incoming, what: str) -> Generator[bytes, bytes, list[str]]:
    """The lines up to the one that says OK (section 1.2)."""
    lines: list[str] = []
    while True:
        line = yield from incoming.line()
        while literal := _LITERAL.search(line):  # a string that goes on behind the line, whatever it holds
            size = int(literal[1])
            if size > MAX_PLAINTEXT:
                raise StartTLSError(f"the ManageSieve server {what} a string of {size} bytes; give the right protocol")
            text = yield from incoming.take(size)
            line = f'{line[: literal.start()]}"{text.decode("ascii", "backslashreplace")}"'
            line += yield from incoming.line()
        word = line.upper().partition(" ")[0]
        if word == "OK":
            return lines
        if not line.startswith('"'):
            raise StartTLSError(f"the ManageSieve server {what} {shown(line)}, not OK; give the right protocol")
        lines.append(line)

"""ManageSieve: the server greets with what it can do, the client says STARTTLS (RFC 5804 section 2.2)."""

from __future__ import annotations

import re
from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import MAX_PLAINTEXT, Conversation, Incoming, StartTLSError, shown
from tlstunnel.connection.starttls.text import Command, Dialect

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


# Server mode.


def _word(line: bytes) -> bytes:
    return line.upper().partition(b" ")[0]


def _is_complete(lines: list[bytes], _: Command | None) -> bool:
    return _word(lines[-1]) in {b"OK", b"NO", b"BYE"}


def _offer(lines: list[bytes], command: Command | None, is_required: bool) -> list[bytes]:
    """RFC 5804 section 1.7: without TLS no mechanism is left, and the list says so."""
    if (command is not None and command.verb != "CAPABILITY") or _word(lines[-1]) != b"OK":
        return lines
    kept = [line for line in lines[:-1] if _word(line) != b'"STARTTLS"']
    if is_required:
        kept = [b'"SASL" ""' if _word(line) == b'"SASL"' else line for line in kept]
    return [*kept, b'"STARTTLS"', lines[-1]]


SIEVE = Dialect(
    start="STARTTLS",
    before=frozenset(("CAPABILITY", "LOGOUT", "NOOP")),
    is_good=lambda line: _word(line) == b"OK",
    turns_away=(b"BYE", b"NO"),
    is_complete=_is_complete,
    offer=_offer,
    go_ahead='OK "Begin TLS negotiation now"',
    demand='NO (ENCRYPT-NEEDED) "TLS is required first; use STARTTLS"',  # section 1.3
    misuse='NO "this is not understood here"',
    goodbye='BYE "{text}"',
    first=b"CAPABILITY\r\n",  # the list is said again, unasked, when TLS stands (section 2.2)
    has_words=False,
    has_literals=True,
)

"""ManageSieve: the server greets with what it can do, the client says STARTTLS (RFC 5804 section 2.2)."""

from __future__ import annotations

from tlstunnel.connection.starttls.text import Command, Dialect


def _word(line: bytes) -> bytes:
    return line.upper().partition(b" ")[0]


def _is_complete(lines: list[bytes], _: Command | None) -> bool:
    """What is no line of the list ends it (section 1.2)."""
    return not lines[-1].startswith(b'"')


def _offer(lines: list[bytes], command: Command | None, is_required: bool) -> list[bytes]:
    """RFC 5804 section 1.7: without TLS no mechanism is left, and the list says so."""
    if (command is not None and command.verb != "CAPABILITY") or _word(lines[-1]) != b"OK":
        return lines
    kept = [line for line in lines[:-1] if _word(line) != b'"STARTTLS"']
    if is_required:
        kept = [b'"SASL" ""' if _word(line) == b'"SASL"' else line for line in kept]
    return [*kept, b'"STARTTLS"', lines[-1]]


SIEVE = Dialect(
    name="a ManageSieve",
    hello=None,
    start="STARTTLS",
    before=frozenset(("CAPABILITY", "LOGOUT", "NOOP")),
    leave="LOGOUT",
    is_good=lambda lines, _: _word(lines[-1]) == b"OK",
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

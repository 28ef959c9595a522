"""NNTP: CAPABILITIES, STARTTLS (RFC 4642 section 2.2)."""

from __future__ import annotations

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, heard, shown
from tlstunnel.connection.starttls.text import Command, Dialect


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


# Server mode.


def _is_complete(lines: list[bytes], _: Command | None) -> bool:
    """RFC 3977 section 3.1.1: of what may be asked before TLS, HELP and CAPABILITIES are answered in many lines."""
    return lines[0][:3] not in {b"100", b"101"} or lines[-1] == b"."


def _offer(lines: list[bytes], command: Command | None, is_required: bool) -> list[bytes]:
    """RFC 4642 section 2.1; passwords are asked for within TLS only (RFC 4643 section 2.3.1). The version comes first
    (RFC 3977 section 3.3.2), also of a backend that knows no CAPABILITIES: no client would ask for TLS else."""
    if command is None or command.verb != "CAPABILITIES":
        return lines
    if not lines[0].startswith(b"101"):
        return [b"101 Capability list follows", b"VERSION 2", b"STARTTLS", b"."]
    withheld = {b"STARTTLS", b"AUTHINFO", b"SASL"} if is_required else {b"STARTTLS"}
    kept = [line for line in lines[1:-1] if line.upper().partition(b" ")[0] not in withheld]
    return [lines[0], *kept, b"STARTTLS", b"."]


NNTP = Dialect(
    start="STARTTLS",
    before=frozenset(("CAPABILITIES", "DATE", "HELP", "MODE READER", "QUIT")),
    is_good=lambda line: line.startswith((b"200", b"201")),
    turns_away=(b"4", b"5"),
    is_complete=_is_complete,
    offer=_offer,
    go_ahead="382 Continue with TLS negotiation",
    demand="483 TLS is required first; use STARTTLS",
    misuse="501 this is not understood here",
    goodbye="400 {text}",
)

"""NNTP: CAPABILITIES, STARTTLS (RFC 4642 section 2.2)."""

from __future__ import annotations

from tlstunnel.connection.starttls.text import Command, Dialect


def _is_good(lines: list[bytes], command: Command | None) -> bool:
    verb = command.verb if command else ""
    return lines[0].startswith({"CAPABILITIES": (b"101",), "STARTTLS": (b"382",)}.get(verb, (b"200", b"201")))


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
    name="a news",
    hello="CAPABILITIES",
    start="STARTTLS",
    before=frozenset(("CAPABILITIES", "DATE", "HELP", "MODE READER", "QUIT")),
    leave="QUIT",
    is_good=_is_good,
    turns_away=(b"4", b"5"),
    is_complete=_is_complete,
    offer=_offer,
    go_ahead="382 Continue with TLS negotiation",
    demand="483 TLS is required first; use STARTTLS",
    misuse="501 this is not understood here",
    goodbye="400 {text}",
)

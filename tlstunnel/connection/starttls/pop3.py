"""POP3: CAPA, STLS (RFC 2595 section 4)."""

from __future__ import annotations

from tlstunnel.connection.starttls.text import Command, Dialect


def _is_complete(lines: list[bytes], command: Command | None) -> bool:
    """RFC 1939 section 3; of the commands before TLS only CAPA has more than one line (RFC 2449 section 5)."""
    is_list = command is not None and command.verb == "CAPA" and lines[0].startswith(b"+OK")
    return not is_list or lines[-1] == b"."


def _offer(lines: list[bytes], command: Command | None, is_required: bool) -> list[bytes]:
    """RFC 2595 section 4. A backend without CAPA has one: no client would ask for TLS else."""
    if command is None or command.verb != "CAPA":
        return lines
    if not lines[0].startswith(b"+OK"):
        return [b"+OK", b"STLS", b"."]
    withheld = {b"STLS", b"USER", b"SASL"} if is_required else {b"STLS"}
    kept = [line for line in lines[1:-1] if line.upper().partition(b" ")[0] not in withheld]
    return [lines[0], *kept, b"STLS", b"."]


POP3 = Dialect(
    name="a POP3",
    hello="",  # older servers have no CAPA, and STLS says by itself whether it is known
    start="STLS",
    before=frozenset(("CAPA", "QUIT")),
    leave="QUIT",
    is_good=lambda lines, _: lines[0].startswith(b"+OK"),
    turns_away=(b"-ERR",),
    is_complete=_is_complete,
    offer=_offer,
    go_ahead="+OK Begin TLS negotiation",
    demand="-ERR TLS is required first; use STLS",
    misuse="-ERR this is not understood here",
    goodbye="-ERR {text}",
    has_words=False,
)

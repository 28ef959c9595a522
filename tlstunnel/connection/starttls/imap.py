"""IMAP: CAPABILITY, STARTTLS (RFC 9051 section 6.2.1, RFC 3501 likewise)."""

from __future__ import annotations

import re

from tlstunnel.connection.starttls.text import Command, Dialect

_LIST = re.compile(rb"(?:\A\* |\[)CAPABILITY ", re.IGNORECASE)


def _is_good(lines: list[bytes], command: Command | None) -> bool:
    """A backend that greets with PREAUTH leaves no room for STARTTLS (RFC 9051 section 7.1.4)."""
    return lines[-1].upper().startswith((command.tag.upper() if command else b"*") + b" OK")


def _is_complete(lines: list[bytes], command: Command | None) -> bool:
    return command is None or lines[-1].startswith(command.tag + b" ")


def _offer(lines: list[bytes], _: Command | None, is_required: bool) -> list[bytes]:
    """RFC 9051 section 6.2.3: where passwords have to wait for TLS, LOGINDISABLED says so."""
    return [_offered(line, is_required) for line in lines]


def _offered(line: bytes, is_required: bool) -> bytes:
    found = _LIST.search(line)
    if found is None:
        return line
    end = line.find(b"]", found.end())
    end = len(line) if end < 0 else end
    names = [name for name in line[found.end() : end].split() if name.upper() not in {b"STARTTLS", b"LOGINDISABLED"}]
    if is_required:
        names = [name for name in names if name.upper() != b"SASL-IR" and not name.upper().startswith(b"AUTH=")]
    names += [b"STARTTLS", *([b"LOGINDISABLED"] if is_required else [])]
    return line[: found.end()] + b" ".join(names) + line[end:]


IMAP = Dialect(
    name="an IMAP",
    hello="CAPABILITY",
    start="STARTTLS",
    before=frozenset(("CAPABILITY", "LOGOUT", "NOOP")),
    leave="LOGOUT",
    is_good=_is_good,
    turns_away=(b"* BYE",),
    is_complete=_is_complete,
    offer=_offer,
    go_ahead="{tag} OK Begin TLS negotiation now",
    demand="{tag} NO [PRIVACYREQUIRED] TLS is required first; use STARTTLS",  # RFC 5530 section 3
    misuse="{tag} BAD this is not understood here",
    goodbye="* BYE {text}",
    has_tags=True,
    has_words=False,
)

"""IMAP: CAPABILITY, STARTTLS (RFC 9051 section 6.2.1, RFC 3501 likewise)."""

from __future__ import annotations

import re
from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, heard, shown
from tlstunnel.connection.starttls.text import Command, Dialect

_CAPABILITIES = re.compile(r"\[CAPABILITY ", re.IGNORECASE)


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
    return heard([_without_capabilities(greeting)])  # others hold within TLS (section 6.2.1)


def _without_capabilities(greeting: str) -> str:
    found = _CAPABILITIES.search(greeting)
    end = -1 if found is None else greeting.find("]", found.end())
    if found is None or end < 0:
        return greeting
    return greeting[: found.start()] + greeting[end + 1 :].removeprefix(" ")


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


# Server mode.

_LIST = re.compile(rb"(?:\A\* |\[)CAPABILITY ", re.IGNORECASE)


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
    start="STARTTLS",
    before=frozenset(("CAPABILITY", "LOGOUT", "NOOP")),
    # A backend that knows the client already (PREAUTH) leaves no room for STARTTLS (section 7.1.4).
    is_good=lambda line: line.upper().startswith(b"* OK"),
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

"""SMTP and submission: EHLO, STARTTLS (RFC 3207). LMTP says LHLO instead (RFC 2033 section 4.1)."""

from __future__ import annotations

import re

from tlstunnel.connection.starttls.text import Command, Dialect

_HELLOS = ("EHLO", "LHLO")


def _is_good(lines: list[bytes], command: Command | None) -> bool:
    is_hello = command is not None and command.verb in _HELLOS
    return lines[-1].startswith(b"250" if is_hello else b"220")


def _is_complete(lines: list[bytes], _: Command | None) -> bool:
    """RFC 5321 section 4.2.1."""
    return lines[-1][3:4] != b"-" or not lines[-1][:3].isdigit()


def _offer(lines: list[bytes], command: Command | None, is_required: bool) -> list[bytes]:
    """RFC 3207 section 4; passwords are asked for within TLS only (RFC 4954 section 4)."""
    if command is None or command.verb not in _HELLOS or not lines[-1].startswith(b"250"):
        return lines
    withheld = {b"STARTTLS", b"AUTH"} if is_required else {b"STARTTLS"}
    texts = [line[4:] for line in lines]
    texts = [texts[0], *(text for text in texts[1:] if re.split(b"[ =]", text.upper())[0] not in withheld), b"STARTTLS"]
    return [b"250-" + text for text in texts[:-1]] + [b"250 " + texts[-1]]


def _dialect(hello: str) -> Dialect:
    """RFC 3207 section 4 names the commands that are allowed before TLS, and section 4.2 what has to be forgotten."""
    return Dialect(
        name="an SMTP" if hello == "EHLO" else "an LMTP",
        hello=f"{hello} localhost",
        start="STARTTLS",
        before=frozenset((hello, "NOOP", "QUIT")),
        leave="QUIT",
        is_good=_is_good,
        turns_away=(b"4", b"5"),
        is_complete=_is_complete,
        offer=_offer,
        go_ahead="220 2.0.0 Ready to start TLS",
        demand="530 5.7.0 Must issue a STARTTLS command first",
        misuse="501 5.5.4 Syntax error (no parameters allowed)",
        goodbye="421 4.7.0 {text}",
        reset=f"{hello} localhost\r\n".encode(),
    )


SMTP, LMTP = _dialect("EHLO"), _dialect("LHLO")

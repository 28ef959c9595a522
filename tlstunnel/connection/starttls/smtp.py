"""SMTP and submission: EHLO, STARTTLS (RFC 3207). LMTP says LHLO instead (RFC 2033 section 4.1)."""

from __future__ import annotations

import re
from collections.abc import Generator

from tlstunnel.connection.starttls.conversation import Conversation, Incoming, StartTLSError, heard, shown
from tlstunnel.connection.starttls.text import Command, Dialect


def client() -> Conversation:
    """Ask an SMTP server for TLS."""
    return (yield from _ask("SMTP", "EHLO", "it may on another port, such as 587"))


def lmtp_client() -> Conversation:
    """Ask an LMTP server for TLS."""
    return (yield from _ask("LMTP", "LHLO", "it may have no certificate"))


def _ask(protocol: str, hello: str, hint: str) -> Conversation:
    incoming = Incoming()
    greeting = yield from _expect(incoming, protocol, "220", "greeting")
    yield f"{hello} localhost\r\n".encode("ascii")
    offered = yield from _expect(incoming, protocol, "250", f"answer to {hello}")
    if not any(line[4:].strip().upper() == "STARTTLS" for line in offered):
        raise StartTLSError(f"the {protocol} server does not offer STARTTLS; {hint}")
    yield b"STARTTLS\r\n"
    yield from _expect(incoming, protocol, "220", "answer to STARTTLS")
    incoming.end()
    return heard(greeting)


def _expect(incoming: Incoming, protocol: str, code: str, what: str) -> Generator[bytes, bytes, list[str]]:
    """The lines of one reply (RFC 5321 section 4.2)."""
    lines = []
    while True:
        line = yield from incoming.line()
        if line[:3] != code or line[3:4] not in ("-", " ", ""):
            raise StartTLSError(
                f"the {what} of the {protocol} server is {shown(line)}, not {code}; give the right protocol"
            )
        lines.append(line)
        if line[3:4] != "-":
            return lines


# Server mode.


def _is_complete(lines: list[bytes], _: Command | None) -> bool:
    """RFC 5321 section 4.2.1."""
    return lines[-1][3:4] != b"-" or not lines[-1][:3].isdigit()


def _offer(lines: list[bytes], command: Command | None, is_required: bool) -> list[bytes]:
    """RFC 3207 section 4; passwords are asked for within TLS only (RFC 4954 section 4)."""
    if command is None or command.verb not in {"EHLO", "LHLO"} or not lines[-1].startswith(b"250"):
        return lines
    withheld = {b"STARTTLS", b"AUTH"} if is_required else {b"STARTTLS"}
    texts = [line[4:] for line in lines]
    texts = [texts[0], *(text for text in texts[1:] if re.split(b"[ =]", text.upper())[0] not in withheld), b"STARTTLS"]
    return [b"250-" + text for text in texts[:-1]] + [b"250 " + texts[-1]]


def _dialect(hello: str) -> Dialect:
    """RFC 3207 section 4 names the commands that are allowed before TLS, and section 4.2 what has to be forgotten."""
    return Dialect(
        start="STARTTLS",
        before=frozenset((hello, "NOOP", "QUIT")),
        is_good=lambda line: line.startswith(b"220"),
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

"""Asking: a hello on a connection of its own, and what the server said to it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from tlstunnel.address import TCPAddress
from tlstunnel.tools.probe import ssl2
from tlstunnel.tools.probe.answer import Answer, AnswerReader
from tlstunnel.tools.probe.hello import Offer, encode
from tlstunnel.tools.probe.route import Line, Route
from tlstunnel.tools.probe.trouble import BrokenTLS, HungUp, NotTLS, Silent, Unreachable, shown
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import AlertDescription, ContentType, alert_name
from tlstunnel.tools.tls13.wire import Record

_GOODBYE = b"\2\x5a"  # fatal, user_canceled: there will be no handshake
_TLS_1_2 = 0x0303
_GREETINGS = {b"220": "smtp", b"* OK": "imap", b"+OK": "pop3"}
_SSL2_WAIT_S = 3.0
"""A server without SSL 2.0 may take its hello for the start of a long record, and wait for the rest."""


@dataclass(slots=True)
class Asker:
    """Asks one server, and keeps what every answer says about it besides."""

    route: Route
    server_name: str = ""
    alpn: tuple[str, ...] = ()
    last: Answer = field(default_factory=Answer)
    """The last answer, refusal or not."""
    answers: list[Answer] = field(default_factory=list)
    """Every answer that was not a refusal; appended to from several threads."""

    def ask(self, offer: Offer) -> Answer:
        """The answer to an offer. A server that hangs up on it has refused it.

        Raises:
            Unreachable, Silent, NotTLS, OutOfTime: there is no answer to be had.
        """
        try:
            return self._ask(offer)
        except Unreachable:
            # Among so many connections one may be dropped; twice is a server that has had enough.
            return self._ask(offer)

    def _ask(self, offer: Offer) -> Answer:
        with self.route.open() as line:
            answer = converse(line, offer)
        self.last = answer
        if answer.suite is not None:
            self.answers.append(answer)
        return answer

    def offer(self, *versions: int, **what: object) -> Offer:
        """An offer with the server name and the protocols that every hello of this probe carries."""
        defaults: dict[str, object] = {"server_name": self.server_name, "alpn": self.alpn}
        return Offer(versions=versions, **(defaults | what))  # type: ignore[arg-type]


def converse(line: Line, offer: Offer) -> Answer:
    """Send an offer on a connection and read what the server says to it in the clear.

    Raises:
        Silent, NotTLS: there is no answer to be had.
    """
    reader = AnswerReader(offer)
    try:
        line.send(encode(offer))
        while not reader.is_complete:
            data = line.receive()
            if not data:
                break
            reader.feed(data)
    except HungUp:
        return reader.answer
    except Silent:
        if reader.answer.suite is not None:
            return reader.answer  # enough to know that it would; the rest of its answer is missing
        raise
    except Violation as exc:
        raise not_tls(line, exc) from exc
    if reader.answer.alert is None:
        with contextlib.suppress(HungUp, Silent):
            line.send(_goodbye(reader.answer.version))
    return reader.answer


def _goodbye(version: int | None) -> bytes:
    """In the version that the server chose, or it would report a broken record instead of a client that left."""
    return Record(ContentType.ALERT, min(version or _TLS_1_2, _TLS_1_2), _GOODBYE).encode()


def not_tls(line: Line, exc: Violation) -> NotTLS:
    """What to say of a server that broke a rule: that it speaks no TLS at all, or which rule."""
    if line.first[:1] not in (b"\x16", b"\x15", b"\x14", b"\x17") or line.first[1:2] not in (b"\x03", b""):
        protocol = next((name for greeting, name in _GREETINGS.items() if line.first.startswith(greeting)), None)
        hint = "give a port that does" + (f", or use probe --starttls {protocol}" if protocol else "")
        return NotTLS(f"speaks no TLS: it begins with {shown(line.first)}; {hint}")
    return BrokenTLS(f"breaks the rules of TLS: {exc.text}; check what runs on this port")


def ask_ssl2(route: Route) -> tuple[int, ...] | None:
    """The ciphers of SSL 2.0 that a server still has; None if it does not speak it."""
    answer = ssl2.Answer()
    try:
        with route.open(answer_s=_SSL2_WAIT_S) as line:
            line.send(ssl2.encode())
            while not answer.is_complete:
                data = line.receive()
                if not data:
                    break
                answer.feed(data)
    except (HungUp, Silent):
        return None
    return answer.ciphers


def sni_of(name: str) -> str:
    """The name to send for a host; empty for an IP address, which has no place there (RFC 6066 section 3)."""
    return "" if not name.isascii() or TCPAddress(name, 0).is_literal else name


def refusal(answer: Answer) -> str:
    """What to say of a server that refused everything it was offered."""
    if answer.alert is None:
        return "closes the connection on every ClientHello; check that this port speaks TLS"
    no_protocol = answer.alert == AlertDescription.NO_APPLICATION_PROTOCOL
    hint = "give one it knows with --alpn" if no_protocol else "it may need another --server-name"
    return f"speaks TLS, but refuses every ClientHello with the alert {alert_name(answer.alert)}; {hint}"

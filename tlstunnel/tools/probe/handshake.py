"""Whole handshakes of TLS 1.3, with the client of `tls13`: for what that version says under encryption only.

That is the certificates, the staple, the certificate request, ALPN, tickets. A server whose signatures the client
cannot verify (Ed448, ML-DSA) still shows its certificates before the handshake fails.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from tlstunnel.tools.probe.ask import not_tls
from tlstunnel.tools.probe.hello import SCHEMES, STATUS_REQUEST
from tlstunnel.tools.probe.http import HTTP, head_request
from tlstunnel.tools.probe.route import Line, Route
from tlstunnel.tools.probe.trouble import HungUp, NotTLS, Silent
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.events import ApplicationData, Closed, Event, HandshakeComplete
from tlstunnel.tools.tls13.extension_block import find
from tlstunnel.tools.tls13.failure import PeerAlert, Violation
from tlstunnel.tools.tls13.keyexchange import supported_groups
from tlstunnel.tools.tls13.messages import Certificate, EncryptedExtensions
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.notes import MessageNote, Note
from tlstunnel.tools.tls13.session import Session
from tlstunnel.tools.tls13.wire import Reader

_GREETING_WAIT_S = 0.5
"""How long a server that speaks first may take to do so, beside the round trips."""
_FAREWELL_S = 1.0


@dataclass(slots=True, kw_only=True)
class Handshake:
    """What a handshake showed, as far as it went. Times are in seconds."""

    is_complete: bool = False
    is_resumed: bool = False
    suite: int | None = None
    group: int | None = None
    scheme: int | None = None
    alpn: str | None = None
    has_answered_extensions: bool = False
    """Whether the server's extensions came, so that no `alpn` means that it chose none."""
    chain: tuple[bytes, ...] = ()
    staple: bytes | None = None
    authorities: tuple[bytes, ...] | None = None
    """The CAs that a certificate request names, in DER; None without such a request."""
    alert: int | None = None
    refused_after: bool = False
    """Whether that alert came when the handshake was complete for us, as for a client whose certificate is missed."""
    problem: str | None = None
    """What the server did wrong, or what it signed with that cannot be verified here."""
    sessions: list[Session] = field(default_factory=list)
    tcp_s: float | None = None
    starttls_s: float | None = None
    hello_s: float | None = None
    """From our hello to the first byte of the server's."""
    handshake_s: float | None = None
    first_byte_s: float | None = None
    """From the end of the handshake to the first byte of application data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a handshake is for."""

    server_name: str = ""
    alpn: tuple[str, ...] = ()
    schemes: tuple[int, ...] = SCHEMES
    session: Session | None = None
    host: str = ""
    """For the Host field of a request, if HTTP is agreed on."""
    is_timed: bool = False
    """Whether to wait for application data, and ask for some if HTTP is agreed on."""
    only_extensions: bool = False
    """Whether to hang up as soon as the server's extensions are known."""


def handshake(route: Route, plan: Plan) -> Handshake:
    """Do a handshake, then close.

    Raises:
        Unreachable, Silent, NotTLS, OutOfTime: not even a hello came back.
    """
    return _Run(plan).through(route)


class _Run:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._found = Handshake()
        groups = tuple(supported_groups())
        config = ClientConfig(
            server_name=plan.server_name, groups=groups, signature_schemes=plan.schemes, alpn=plan.alpn,
            session=plan.session, extra_extensions=(STATUS_REQUEST,),
        )  # fmt: skip
        self._client = Client(config, witness=self._note)

    def through(self, route: Route) -> Handshake:
        found = self._found
        with route.open() as line:
            found.tcp_s, found.starttls_s = line.connected_s, line.starttls_s
            try:
                self._shake_hands(line)
                if found.is_complete:
                    self._stay(line)
                    self._leave(line)
            except HungUp as exc:
                found.problem = str(exc)
            except Silent:
                if self._client.suite is None:
                    raise
                found.problem = "the server stopped answering in the middle of the handshake"
            except Violation as exc:
                if not found.has_answered_extensions and self._client.suite is None:
                    raise not_tls(line, exc) from exc
                found.problem = exc.text
                with contextlib.suppress(HungUp, Silent, NotTLS):
                    line.send(self._client.data_to_send())
            except PeerAlert as exc:
                found.alert, found.refused_after = exc.alert, found.is_complete
        self._take_over()
        return found

    def _shake_hands(self, line: Line) -> None:
        start = time.monotonic()
        self._client.start()
        line.send(self._client.data_to_send())
        while not self._found.is_complete:
            if self._plan.only_extensions and self._found.has_answered_extensions:
                return
            data = line.receive()
            if self._found.hello_s is None:
                self._found.hello_s = time.monotonic() - start
            if not data:
                raise HungUp("the server hung up in the middle of the handshake")
            events = self._client.receive(data)
            self._flush(line)
            if HandshakeComplete() in events:
                self._found.is_complete = True
                self._found.handshake_s = time.monotonic() - start

    def _stay(self, line: Line) -> None:
        """Wait for the first application data."""
        if not self._plan.is_timed:
            return
        start = time.monotonic()
        if self._client.alpn == HTTP:
            self._client.send(head_request(self._plan.host or "localhost"))
            self._flush(line)
            wait = None
        else:
            wait = _GREETING_WAIT_S + 2 * line.connected_s
        deadline = None if wait is None else start + wait
        while self._found.first_byte_s is None:
            try:
                data = line.receive_until(deadline)
            except Silent:
                return
            if not data:
                return
            events = self._client.receive(data)
            if any(isinstance(event, ApplicationData) for event in events):
                self._found.first_byte_s = time.monotonic() - start
            if Closed() in events:
                return

    def _leave(self, line: Line) -> None:
        """Say goodbye and hear the server out: tickets and refusals may still come (RFC 8446 section 4.4.2.4)."""
        self._client.close()
        line.shorten(_FAREWELL_S)
        with contextlib.suppress(HungUp, Silent):
            self._flush(line)
            while True:
                data = line.receive()
                events: list[Event] = self._client.receive(data) if data else [Closed()]
                if Closed() in events:
                    return

    def _flush(self, line: Line) -> None:
        data = self._client.data_to_send()
        if data:
            line.send(data)

    def _note(self, note: Note) -> None:
        if not isinstance(note, MessageNote):
            return
        if isinstance(note.message, EncryptedExtensions):
            self._found.has_answered_extensions = True
        if isinstance(note.message, Certificate) and note.message.entries:
            body = find(note.message.entries[0].extensions, Ext.STATUS_REQUEST)
            self._found.staple = _staple(body) if body is not None else None

    def _take_over(self) -> None:
        client, found = self._client, self._found
        found.suite, found.group, found.scheme = client.suite, client.group, client.server_scheme
        found.alpn, found.chain, found.is_resumed = client.alpn, client.server_chain, client.is_resumed
        found.sessions = client.sessions
        if client.certificate_request is not None:
            body = find(client.certificate_request.extensions, Ext.CERTIFICATE_AUTHORITIES)
            found.authorities = _authorities(body)


def _authorities(body: bytes | None) -> tuple[bytes, ...]:
    try:
        return ext.read_certificate_authorities(body) if body is not None else ()
    except Violation:
        return ()


def _staple(body: bytes) -> bytes | None:
    """The OCSP response in a CertificateStatus (RFC 6066 section 8)."""
    reader = Reader(body, "status_request")
    try:
        return reader.vector(3) if reader.uint(1) == 1 else None
    except Violation:
        return None

"""The client: from ClientHello to Finished (RFC 8446 sections 2 and 4, states of appendix A.1).

    START -> WAIT_SH -> WAIT_EE -> WAIT_CERT_CR -> WAIT_CERT -> WAIT_CV -> WAIT_FINISHED -> CONNECTED
               |  ^         |                                                   ^
               +--+         +-------------------- with a PSK -------------------+
         HelloRetryRequest

The client proposes, the server chooses once, and from the ServerHello on both hold the same secrets. Everything the
server says must be something the client offered; most refusals below say just that.
"""

from __future__ import annotations

from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.client_checks import check_encrypted_extensions, check_server_hello, illegal, required
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.client_hello import HelloBuilder
from tlstunnel.tools.tls13.connection import Connection, known
from tlstunnel.tools.tls13.events import HandshakeComplete, State, TicketReceived
from tlstunnel.tools.tls13.extension_block import find
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.finished import check_finished, make_finished
from tlstunnel.tools.tls13.keyexchange import Entropy, system_entropy
from tlstunnel.tools.tls13.messages import (
    Certificate,
    CertificateEntry,
    CertificateRequest,
    CertificateVerify,
    EncryptedExtensions,
    EndOfEarlyData,
    Finished,
    Message,
    NewSessionTicket,
    ServerHello,
)
from tlstunnel.tools.tls13.names import (
    AlertDescription,
    ContentType,
    HandshakeType,
    group_name,
)
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.notes import CheckNote, DataNote, Role, SharedSecretNote, Witness, nobody
from tlstunnel.tools.tls13.protection import TrafficKeys
from tlstunnel.tools.tls13.schedule import KeySchedule
from tlstunnel.tools.tls13.session import Session
from tlstunnel.tools.tls13.signature import load_public_key, signed_content, verify
from tlstunnel.tools.tls13.tamper import Tamper


class Client(Connection):
    """A TLS 1.3 client. Call `start`, then carry bytes between `data_to_send` and `receive`.

    It proves that the server holds the key of its certificate; whether that certificate is to be trusted is asked of
    `ClientConfig.verify`, and of nobody if there is none. What it learned stands in the attributes: `server_chain`,
    `group`, `server_scheme`, `alpn`, `is_resumed`, `sessions`.
    """

    role = Role.CLIENT

    def __init__(
        self,
        config: ClientConfig,
        *,
        entropy: Entropy = system_entropy,
        witness: Witness = nobody,
        tamper: Tamper | None = None,
    ) -> None:
        super().__init__(entropy, witness, tamper or Tamper())
        self.config = config
        self.server_chain: tuple[bytes, ...] = ()
        self.server_scheme: int | None = None
        self.group: int | None = None
        self.alpn: str | None = None
        self.is_resumed = False
        self.was_retried = False
        self.sessions: list[Session] = []
        self.certificate_request: CertificateRequest | None = None
        self.early_data_accepted = False
        self._hello = HelloBuilder(config, entropy)
        self._compatible_ccs_sent = False
        self._client_handshake: TrafficKeys | None = None
        self._server_handshake: TrafficKeys | None = None
        self._resumption_secret = b""
        self._table = {
            State.WAIT_SH: {HandshakeType.SERVER_HELLO: self._on_server_hello},
            State.WAIT_EE: {HandshakeType.ENCRYPTED_EXTENSIONS: self._on_encrypted_extensions},
            State.WAIT_CERT_CR: {
                HandshakeType.CERTIFICATE_REQUEST: self._on_certificate_request,
                HandshakeType.CERTIFICATE: self._on_certificate,
            },
            State.WAIT_CERT: {HandshakeType.CERTIFICATE: self._on_certificate},
            State.WAIT_CV: {HandshakeType.CERTIFICATE_VERIFY: self._on_certificate_verify},
            State.WAIT_FINISHED: {HandshakeType.FINISHED: self._on_finished},
            State.CONNECTED: {
                HandshakeType.NEW_SESSION_TICKET: self._on_ticket,
                HandshakeType.KEY_UPDATE: self._on_key_update,
            },
        }

    def start(self) -> None:
        """Queue the ClientHello, and 0-RTT data behind it if the configuration has some."""
        self._channel.plain_version = 0x0301  # section 5.1: for old servers, a first ClientHello may say so
        self._send_hello()
        self._channel.plain_version = 0x0303
        session = self.config.session
        if session is not None and self.config.early_data:
            self._send_early_data(session)
        self.state = State.WAIT_SH

    def _send_hello(self) -> None:
        session = self._hello.offered_session
        schedule = None
        if session is not None:
            schedule = KeySchedule(session.suite.hash, self._witness)
            schedule.enter_early(session.psk)
        self._send(self._hello.build(self._transcript, schedule))
        self._end_flight()
        self._schedule = schedule

    def _send_early_data(self, session: Session) -> None:
        name = "client_early_traffic_secret"
        hashed = self._transcript.hash(session.suite.hash)
        secret = known(self._schedule).derive(name, "c e traffic", hashed, self._transcript.span)
        self._send_compatible_ccs()
        self._write_with(self._keys(self.role, session.suite, secret, name, "early data"))
        self._channel.emit(ContentType.APPLICATION_DATA, self.config.early_data)
        self._witness(DataNote(self.role, "early data", self.config.early_data, "early data"))

    def _send_compatible_ccs(self) -> None:
        """Appendix D.4: once, before the second flight, if we pretend to resume a TLS 1.2 session."""
        if self.config.compatibility_mode and not self._compatible_ccs_sent:
            self._compatible_ccs_sent = True
            self._send_change_cipher_spec()

    # The server's hello, or its wish for another one of ours.

    def _on_server_hello(self, message: ServerHello, before: bytes) -> None:
        if message.is_retry:
            self._retry(message)
            return
        share = ext.read_server_share(required(message, Ext.KEY_SHARE))
        offer = self._hello.offers.get(share.group)
        if offer is None:
            raise illegal(f"the server answered for {group_name(share.group)}, for which no key share was sent")
        self._accept_psk(find(message.extensions, Ext.PRE_SHARED_KEY))
        shared_secret, parts = offer.finish(share.key_exchange)
        self.group = share.group
        self._witness(SharedSecretNote(share.group, shared_secret, parts))
        schedule = known(self._schedule)
        schedule.enter_handshake(shared_secret)
        client, server = Role.CLIENT, Role.SERVER
        self._client_handshake = self._derive_keys(
            client, "client_handshake_traffic_secret", "c hs traffic", "handshake"
        )
        self._server_handshake = self._derive_keys(
            server, "server_handshake_traffic_secret", "s hs traffic", "handshake"
        )
        self._read_with(self._server_handshake)
        if not self._is_early():
            self._write_with(self._client_handshake)
        self.state = State.WAIT_EE

    def _before_absorbing(self, message: Message) -> None:
        if isinstance(message, ServerHello):
            self._check_server_hello(message)

    def _check_server_hello(self, message: ServerHello) -> None:
        suite = check_server_hello(message, self.config, self._hello)
        if self.suite not in (None, suite):
            raise illegal("the server changed the cipher suite after its HelloRetryRequest")
        if self.suite is None and message.is_retry:
            # The ClientHello before this message is replaced by its hash, now that the hash is known.
            self._transcript.fold(suite.hash)
        self.suite = suite

    def _retry(self, message: ServerHello) -> None:
        if self.was_retried:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a second HelloRetryRequest came")
        self.was_retried = True
        group_body = find(message.extensions, Ext.KEY_SHARE)
        group = ext.read_single(group_body, "key_share") if group_body else None
        cookie_body = find(message.extensions, Ext.COOKIE)
        if group is None and cookie_body is None:
            raise illegal("a HelloRetryRequest asks for nothing new")
        if group is not None and (group not in self.config.groups or group in self._hello.offers):
            raise illegal(f"a HelloRetryRequest asks for {group_name(group)}, not offered or already sent")
        self._hello.answer_retry(group, ext.read_cookie(cookie_body) if cookie_body else None, known(self.suite))
        self._channel.write_keys = None
        self._send_compatible_ccs()
        self._send_hello()

    def _accept_psk(self, body: bytes | None) -> None:
        suite = known(self.suite)
        session = self._hello.offered_session
        if body is not None:
            if session is None or ext.read_single(body, "pre_shared_key") != 0:
                raise illegal("the server chose a PSK that was not offered")
            if session.suite.hash.name != suite.hash.name:
                raise illegal("the server chose a PSK that belongs to another hash")
            self.is_resumed = True
        else:
            # A PSK that was offered and not taken leaves no trace in the secrets.
            self._schedule = KeySchedule(suite.hash, self._witness)
            self._schedule.enter_early(None)

    def _is_early(self) -> bool:
        """Whether 0-RTT data was sent, so that EndOfEarlyData must go out under its keys."""
        return self._channel.write_epoch == "early data"

    # The rest of the server's flight.

    def _on_encrypted_extensions(self, message: EncryptedExtensions, before: bytes) -> None:
        check_encrypted_extensions(message, self._hello)
        protocol = find(message.extensions, Ext.ALPN)
        if protocol is not None:
            chosen = ext.read_alpn(protocol)
            if len(chosen) != 1 or chosen[0] not in self.config.alpn:
                raise illegal("the server chose an application protocol that was not offered")
            self.alpn = chosen[0]
        self.early_data_accepted = find(message.extensions, Ext.EARLY_DATA) is not None
        session = self.config.session
        if self.early_data_accepted and (not self.is_resumed or session is None or session.suite is not self.suite):
            raise illegal("the server accepts 0-RTT data without the PSK and the suite that protect it")
        if self._is_early() and not self.early_data_accepted:
            self._write_with(known(self._client_handshake))
        self.state = State.WAIT_FINISHED if self.is_resumed else State.WAIT_CERT_CR

    def _on_certificate_request(self, message: CertificateRequest, before: bytes) -> None:
        if message.context:
            raise illegal("a CertificateRequest in the handshake has a context")
        required(message, Ext.SIGNATURE_ALGORITHMS)
        self.certificate_request = message
        self.state = State.WAIT_CERT

    def _on_certificate(self, message: Certificate, before: bytes) -> None:
        if message.context:
            raise illegal("the server's Certificate has a context")
        if not message.entries:
            raise Violation(AlertDescription.DECODE_ERROR, "the server sent no certificate")
        self.server_chain = tuple(entry.data for entry in message.entries)
        self.state = State.WAIT_CV

    def _on_certificate_verify(self, message: CertificateVerify, before: bytes) -> None:
        if message.scheme not in self.config.signature_schemes:
            raise illegal("the server signed with a scheme that was not offered")
        content = signed_content(Role.SERVER, before)
        verify(message.scheme, load_public_key(self.server_chain[0]), content, message.signature)
        self.server_scheme = message.scheme
        text = "the signature verifies with the public key of the server's certificate over the signed content"
        self._witness(CheckNote(self.role, HandshakeType.CERTIFICATE_VERIFY, text, (("signed content", content),)))
        if self.config.verify is not None:
            verdict = self.config.verify(self.server_chain)
            kind = HandshakeType.CERTIFICATE
            self._witness(CheckNote(self.role, kind, verdict.text, passed=verdict.trusted))
        self.state = State.WAIT_FINISHED

    def _on_finished(self, message: Finished, before: bytes) -> None:
        self._witness(check_finished(message, known(self._server_handshake), before, self.role))
        schedule = known(self._schedule)
        schedule.enter_master()
        client_keys = self._derive_keys(
            Role.CLIENT, "client_application_traffic_secret_0", "c ap traffic", "application"
        )
        server_keys = self._derive_keys(
            Role.SERVER, "server_application_traffic_secret_0", "s ap traffic", "application"
        )
        self._derive("exporter_master_secret", "exp master")
        self._read_with(server_keys)
        self._send_compatible_ccs()
        if self._is_early():
            self._send(EndOfEarlyData())
            self._write_with(known(self._client_handshake))
        if self.certificate_request is not None:
            self._send_certificate(self.certificate_request)
        self._send(make_finished(known(self._client_handshake), self._hash()))
        self._write_with(client_keys)
        self._resumption_secret = self._derive("resumption_master_secret", "res master")
        self.state = State.CONNECTED
        self._events.append(HandshakeComplete())

    def _send_certificate(self, request: CertificateRequest) -> None:
        offered = ext.read_numbers(required(request, Ext.SIGNATURE_ALGORITHMS), "signature_algorithms")
        credential = self.config.credential
        scheme = credential.choose_scheme(offered) if credential else None
        chain = credential.chain if credential and scheme else ()
        self._send(Certificate(b"", tuple(CertificateEntry(each) for each in chain)))
        if credential and scheme:
            content = signed_content(self.role, self._hash())
            self._send(CertificateVerify(scheme, credential.sign(scheme, content)))

    # After the handshake.

    def _on_ticket(self, message: NewSessionTicket, before: bytes) -> None:
        if message.lifetime > 604800:
            raise illegal("a ticket's lifetime exceeds seven days")
        early = find(message.extensions, Ext.EARLY_DATA)
        limit = ext.read_single(early, "early_data", 4) if early is not None else 0
        psk = known(self._schedule).resumption_psk(self._resumption_secret, message.nonce)
        suite = known(self.suite)
        self.sessions.append(Session(message.ticket, psk, suite, message.age_add, message.lifetime, limit))
        self._events.append(TicketReceived())

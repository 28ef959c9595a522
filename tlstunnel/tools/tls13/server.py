"""The server: from ClientHello to Finished (RFC 8446 sections 2 and 4, states of appendix A.2).

    START -> [WAIT_EOED] -> [WAIT_CERT -> [WAIT_CV]] -> WAIT_FINISHED -> CONNECTED
     |  ^
     +--+  HelloRetryRequest

The server answers a ClientHello with its whole flight at once, so most of its work is in `_answer`. `negotiate.py`
decides what to use; this file says it, derives the keys and checks what the client then proves.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import constant_time

from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.connection import Connection, known
from tlstunnel.tools.tls13.events import ApplicationData, HandshakeComplete, State
from tlstunnel.tools.tls13.extension_block import Extension, find
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.finished import check_finished, make_finished
from tlstunnel.tools.tls13.keyexchange import Entropy, answer, system_entropy
from tlstunnel.tools.tls13.messages import (
    HELLO_RETRY_RANDOM,
    Certificate,
    CertificateEntry,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    EndOfEarlyData,
    Finished,
    NewSessionTicket,
    ServerHello,
)
from tlstunnel.tools.tls13.names import TLS_1_3, AlertDescription, HandshakeType, scheme_name
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.negotiate import Choice, ClientOffer, choose, choose_credential, read_offer
from tlstunnel.tools.tls13.notes import CheckNote, DataNote, Role, SharedSecretNote, Witness, nobody
from tlstunnel.tools.tls13.protection import TrafficKeys
from tlstunnel.tools.tls13.schedule import KeySchedule, digest, finished_key, mac
from tlstunnel.tools.tls13.server_config import ClientAuth, ServerConfig
from tlstunnel.tools.tls13.session import Session
from tlstunnel.tools.tls13.signature import load_public_key, signed_content, verify
from tlstunnel.tools.tls13.tamper import Tamper
from tlstunnel.tools.tls13.wire import uint

_SKIPPABLE_EARLY_DATA = 1 << 16  # What a client whose 0-RTT data is refused may have sent before it learns that.


class Server(Connection):
    """A TLS 1.3 server. Carry bytes between `receive` and `data_to_send`.

    What it learned stands in the attributes: `client_chain`, `server_name`, `group`, `alpn`, `is_resumed`.
    """

    role = Role.SERVER

    def __init__(
        self,
        config: ServerConfig,
        *,
        entropy: Entropy = system_entropy,
        witness: Witness = nobody,
        tamper: Tamper | None = None,
    ) -> None:
        super().__init__(entropy, witness, tamper or Tamper())
        self.config = config
        self.client_chain: tuple[bytes, ...] = ()
        self.server_name = ""
        self.group: int | None = None
        self.alpn: str | None = None
        self.is_resumed = False
        self._first: tuple[ClientHello, Choice] | None = None
        self._early_left = 0
        self._client_handshake: TrafficKeys | None = None
        self._client_application: TrafficKeys | None = None
        self._resumption_secret = b""
        self._tickets_given = 0
        self._table = {
            State.START: {HandshakeType.CLIENT_HELLO: self._on_client_hello},
            State.WAIT_EOED: {HandshakeType.END_OF_EARLY_DATA: self._on_end_of_early_data},
            State.WAIT_CERT: {HandshakeType.CERTIFICATE: self._on_certificate},
            State.WAIT_CV: {HandshakeType.CERTIFICATE_VERIFY: self._on_certificate_verify},
            State.WAIT_FINISHED: {HandshakeType.FINISHED: self._on_finished},
            State.CONNECTED: {HandshakeType.KEY_UPDATE: self._on_key_update},
        }

    # The ClientHello and the answer to it.

    def _on_client_hello(self, message: ClientHello, before: bytes) -> None:
        self._expect_boundary()
        offer = read_offer(message)
        choice = choose(self.config, offer)
        if self._first is not None:
            self._check_second_hello(message, choice)
        self.server_name = offer.server_name
        if choice.share is None:
            self._retry(message, offer, choice)
            return
        self.suite = choice.suite
        self._schedule = KeySchedule(choice.suite.hash, self._witness)
        self._schedule.enter_early(choice.session.psk if choice.session else None)
        if choice.session is not None and offer.psk is not None:
            self._check_binder(offer.psk, choice.psk_index)
            self.is_resumed = True
        early = self._accepts_early_data(offer, choice)
        early_keys = self._early_keys(choice.session) if early and choice.session else None
        if offer.offers_early_data and not early:
            self._channel.skippable = _SKIPPABLE_EARLY_DATA
        self._answer(offer, choice, choice.share, early_keys)

    def _retry(self, message: ClientHello, offer: ClientOffer, choice: Choice) -> None:
        if self._first is not None:
            raise _illegal("the second ClientHello still has no share for the group that was asked for")
        self._first = (message, choice)
        self.suite = choice.suite
        self._transcript.fold(choice.suite.hash)
        if offer.offers_early_data:
            self._channel.skippable = _SKIPPABLE_EARLY_DATA
        wishes = [ext.single(Ext.KEY_SHARE, choice.group)]
        if self.config.cookie:
            wishes.append(ext.cookie(self.config.cookie))
        wishes.append(ext.single(Ext.SUPPORTED_VERSIONS, TLS_1_3))
        self._send(ServerHello(HELLO_RETRY_RANDOM, message.session_id, choice.suite, tuple(wishes)))
        if message.session_id:
            self._send_change_cipher_spec()

    def _check_second_hello(self, message: ClientHello, choice: Choice) -> None:
        """Section 4.1.2: the second ClientHello differs only where it was told to."""
        first, first_choice = known(self._first)
        if message.random != first.random or message.session_id != first.session_id:
            raise _illegal("the second ClientHello is not the first one's")
        if message.cipher_suites != first.cipher_suites or choice.suite is not first_choice.suite:
            raise _illegal("the second ClientHello changes the cipher suites")
        if choice.share is None or choice.share.group != first_choice.group:
            raise _illegal("the second ClientHello has no share for the group that was asked for")
        cookie = find(message.extensions, Ext.COOKIE)
        if (ext.read_cookie(cookie) if cookie is not None else b"") != self.config.cookie:
            raise _illegal("the second ClientHello does not bring the cookie back")

    def _check_binder(self, offered: ext.OfferedPSK, index: int) -> None:
        """Section 4.2.11.2: the client knows the PSK, and means this hello."""
        schedule = known(self._schedule)
        algorithm = schedule.algorithm
        binder_key = schedule.derive("binder_key", "res binder", digest(algorithm, b""), '""')
        truncated = self._transcript.hash_without_tail(algorithm, offered.binders_length)
        expected = mac(algorithm, finished_key(algorithm, binder_key), truncated)
        if not constant_time.bytes_eq(offered.binders[index], expected):
            raise Violation(AlertDescription.DECRYPT_ERROR, "the PSK binder is wrong")
        text = 'HMAC(HKDF-Expand-Label(binder_key, "finished", "", Hash.length), Transcript-Hash up to the binders)'
        values = (("Transcript-Hash up to the binders", truncated), ("binder", expected))
        self._witness(CheckNote(self.role, HandshakeType.CLIENT_HELLO, f"the binder equals {text}", values))

    def _accepts_early_data(self, offer: ClientOffer, choice: Choice) -> bool:
        session = choice.session
        return (
            offer.offers_early_data
            and session is not None
            and choice.psk_index == 0
            and session.suite is choice.suite
            and 0 < session.max_early_data <= self.config.max_early_data
            and self._first is None
        )

    def _early_keys(self, session: Session) -> TrafficKeys:
        self._early_left = session.max_early_data
        return self._derive_keys(Role.CLIENT, "client_early_traffic_secret", "c e traffic", "early data")

    def _answer(self, offer: ClientOffer, choice: Choice, share: ext.KeyShare, early_keys: TrafficKeys | None) -> None:
        public, shared_secret, parts = answer(share.group, share.key_exchange, self._entropy)
        self.group, self.alpn = share.group, choice.alpn
        self._send_server_hello(offer, choice, ext.KeyShare(share.group, public))
        self._witness(SharedSecretNote(share.group, shared_secret, parts))
        schedule = known(self._schedule)
        schedule.enter_handshake(shared_secret)
        self._client_handshake = self._derive_keys(
            Role.CLIENT, "client_handshake_traffic_secret", "c hs traffic", "handshake"
        )
        server_handshake = self._derive_keys(
            Role.SERVER, "server_handshake_traffic_secret", "s hs traffic", "handshake"
        )
        if offer.hello.session_id and self._first is None:
            self._send_change_cipher_spec()
        self._write_with(server_handshake)
        self._send(EncryptedExtensions(self._encrypted_extensions(offer, early=early_keys is not None)))
        if choice.session is None:
            self._send_authentication(offer)
        self._send(make_finished(server_handshake, self._hash()))
        schedule.enter_master()
        self._client_application = self._derive_keys(
            Role.CLIENT, "client_application_traffic_secret_0", "c ap traffic", "application"
        )
        server_application = self._derive_keys(
            Role.SERVER, "server_application_traffic_secret_0", "s ap traffic", "application"
        )
        self._derive("exporter_master_secret", "exp master")
        self._write_with(server_application)
        self._read_with(early_keys or self._client_handshake)
        self.state = self._after_hello(is_early=early_keys is not None)

    def _send_server_hello(self, offer: ClientOffer, choice: Choice, share: ext.KeyShare) -> None:
        answers = [ext.server_share(share), ext.single(Ext.SUPPORTED_VERSIONS, TLS_1_3)]
        if choice.session is not None:
            answers.insert(0, ext.single(Ext.PRE_SHARED_KEY, choice.psk_index))
        random = self._entropy(32, "server random")
        self._send(ServerHello(random, offer.hello.session_id, choice.suite, tuple(answers)))

    def _encrypted_extensions(self, offer: ClientOffer, *, early: bool) -> tuple[Extension, ...]:
        found = list(self.config.encrypted_extensions)
        if offer.server_name and self.config.acknowledge_name:
            found.append(Extension(Ext.SERVER_NAME, b""))
        if self.alpn is not None:
            found.append(ext.alpn((self.alpn,)))
        if early:
            found.append(Extension(Ext.EARLY_DATA, b""))
        return tuple(found)

    def _send_authentication(self, offer: ClientOffer) -> None:
        credential, scheme = choose_credential(self.config, offer)
        if self.config.client_auth is not ClientAuth.NONE:
            wishes = [ext.signature_algorithms(self.config.signature_schemes)]
            if self.config.authorities:
                wishes.append(ext.certificate_authorities(self.config.authorities))
            self._send(CertificateRequest(b"", tuple(wishes)))
        self._send(Certificate(b"", tuple(CertificateEntry(each) for each in credential.chain)))
        content = signed_content(self.role, self._hash())
        self._send(CertificateVerify(scheme, credential.sign(scheme, content)))

    def _after_hello(self, *, is_early: bool) -> State:
        if is_early:
            return State.WAIT_EOED
        wants_certificate = self.config.client_auth is not ClientAuth.NONE and not self.is_resumed
        return State.WAIT_CERT if wants_certificate else State.WAIT_FINISHED

    # What the client proves.

    def _on_data(self, content: bytes) -> None:
        if self.state is not State.WAIT_EOED:
            super()._on_data(content)
            return
        self._early_left -= len(content)
        if self._early_left < 0:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "more 0-RTT data than the ticket allows")
        self._witness(DataNote(self.role.other, "early data", content, "early data"))
        self._events.append(ApplicationData(content, is_early=True))

    def _on_end_of_early_data(self, message: EndOfEarlyData, before: bytes) -> None:
        self._read_with(known(self._client_handshake))
        self.state = self._after_hello(is_early=False)

    def _on_certificate(self, message: Certificate, before: bytes) -> None:
        if message.context:
            raise _illegal("the client's Certificate has a context that was not asked for")
        if message.entries:
            self.client_chain = tuple(entry.data for entry in message.entries)
            self.state = State.WAIT_CV
        elif self.config.client_auth is ClientAuth.REQUIRED:
            raise Violation(AlertDescription.CERTIFICATE_REQUIRED, "the client sent no certificate")
        else:
            self.state = State.WAIT_FINISHED

    def _on_certificate_verify(self, message: CertificateVerify, before: bytes) -> None:
        if message.scheme not in self.config.signature_schemes:
            raise _illegal(f"the client signed with {scheme_name(message.scheme)}, which was not offered")
        content = signed_content(Role.CLIENT, before)
        verify(message.scheme, load_public_key(self.client_chain[0]), content, message.signature)
        text = "the signature verifies with the public key of the client's certificate over the signed content"
        self._witness(CheckNote(self.role, HandshakeType.CERTIFICATE_VERIFY, text, (("signed content", content),)))
        if self.config.verify_client is not None:
            verdict = self.config.verify_client(self.client_chain)
            kind = HandshakeType.CERTIFICATE
            self._witness(CheckNote(self.role, kind, verdict.text, passed=verdict.trusted))
        self.state = State.WAIT_FINISHED

    def _on_finished(self, message: Finished, before: bytes) -> None:
        self._witness(check_finished(message, known(self._client_handshake), before, self.role))
        self._resumption_secret = self._derive("resumption_master_secret", "res master")
        self._read_with(known(self._client_application))
        self.state = State.CONNECTED
        self._events.append(HandshakeComplete())
        for _ in range(self.config.tickets):
            self.send_ticket()

    # After the handshake.

    def send_ticket(self) -> None:
        """Give the client a ticket, and remember the session in `ServerConfig.sessions` (section 4.6.1)."""
        self._expect_connected()
        nonce = uint(self._tickets_given, 2)
        self._tickets_given += 1
        ticket = self._entropy(32, "ticket")
        age_add = int.from_bytes(self._entropy(4, "ticket_age_add"))
        psk = known(self._schedule).resumption_psk(self._resumption_secret, nonce)
        limit, lifetime = self.config.max_early_data, self.config.ticket_lifetime
        early = (Extension(Ext.EARLY_DATA, uint(limit, 4)),) if limit else ()
        self.config.sessions[ticket] = Session(ticket, psk, known(self.suite), age_add, lifetime, limit)
        self._send(NewSessionTicket(lifetime, age_add, nonce, ticket, early))


def _illegal(text: str) -> Violation:
    return Violation(AlertDescription.ILLEGAL_PARAMETER, text)

"""Builds a client's ClientHello, and the second one after a HelloRetryRequest (RFC 8446 sections 4.1.2 and 4.2)."""

from __future__ import annotations

from dataclasses import replace

from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.keyexchange import Entropy, Offer, offer
from tlstunnel.tools.tls13.messages import ClientHello
from tlstunnel.tools.tls13.names import TLS_1_3, CipherSuite
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.schedule import KeySchedule, Transcript, digest, finished_key, mac
from tlstunnel.tools.tls13.session import Session

_PADDED_LENGTH = 512


class HelloBuilder:
    """Holds what stays the same between the two ClientHellos of one connection, and the key shares' private halves."""

    def __init__(self, config: ClientConfig, entropy: Entropy) -> None:
        self.offers: dict[int, Offer] = {}
        self.session_id = b""
        self.offered_session: Session | None = config.session
        self.offered_types: set[int] = set()
        self._config = config
        self._entropy = entropy
        self._random = b""
        self._cookie: bytes | None = None
        self._is_retried = False

    def answer_retry(self, group: int | None, cookie: bytes | None, suite: CipherSuite) -> None:
        """Take a HelloRetryRequest's wishes into the next hello: one share, for `group`, and the cookie."""
        self._is_retried = True
        self._cookie = cookie
        if group is not None:
            self.offers = {group: offer(group, self._entropy)}
        session = self.offered_session
        if session is not None and session.suite.hash.name != suite.hash.name:
            self.offered_session = None

    def build(self, transcript: Transcript, schedule: KeySchedule | None) -> ClientHello:
        """The next ClientHello. A PSK's binder covers the transcript so far and this message up to the binders."""
        if not self._random:
            self._random = self._entropy(32, "client random")
            if self._config.compatibility_mode:
                self.session_id = self._entropy(32, "session id")
            self.offers = {group: offer(group, self._entropy) for group in self._config.share_groups}
        hello = ClientHello(self._random, self.session_id, self._config.cipher_suites, self._extensions())
        session = self.offered_session
        if session is None or schedule is None:
            hello = self._pad(hello)
        else:
            hello = self._with_psk(hello, session, transcript, schedule)
        self.offered_types = {extension.type for extension in hello.extensions}
        return hello

    def _extensions(self) -> tuple[Extension, ...]:
        config = self._config
        shares = tuple(ext.KeyShare(each.group, each.public) for each in self.offers.values())
        found = [
            ext.groups(config.groups),
            ext.signature_algorithms(config.signature_schemes),
            ext.client_versions((TLS_1_3,)),
            ext.psk_modes(),
            ext.client_shares(shares),
            *config.extra_extensions,
        ]
        if config.server_name:
            found.insert(0, ext.server_name(config.server_name))
        if config.alpn:
            found.append(ext.alpn(config.alpn))
        if self._cookie is not None:
            found.append(ext.cookie(self._cookie))
        if config.early_data and config.session is not None and not self._is_retried:
            found.append(Extension(Ext.EARLY_DATA, b""))
        return self._ordered(found)

    def _ordered(self, extensions: list[Extension]) -> tuple[Extension, ...]:
        order = {kind: place for place, kind in enumerate(self._config.extension_order)}
        return tuple(sorted(extensions, key=lambda each: order.get(each.type, len(order))))

    def _pad(self, hello: ClientHello, more: int = 0) -> ClientHello:
        """RFC 7685 section 3; `more` is the length of what will follow the padding."""
        length = len(hello.encode()) + more
        if not self._config.pad_hello or not _PADDED_LENGTH // 2 <= length < _PADDED_LENGTH:
            return hello
        zeros = bytes(max(_PADDED_LENGTH - length - 4, 1))
        padded = [*hello.extensions, Extension(Ext.PADDING, zeros)]
        return replace(hello, extensions=self._ordered(padded))

    def _with_psk(
        self, hello: ClientHello, session: Session, transcript: Transcript, schedule: KeySchedule
    ) -> ClientHello:
        """Section 4.2.11.2: the binder proves that we know the PSK, and ties it to this very hello."""
        algorithm = session.suite.hash
        identity = (session.ticket, session.obfuscated_age(self._config.ticket_age_ms))
        blank = ext.OfferedPSK((identity,), (bytes(algorithm.digest_size),))
        hello = self._pad(hello, len(blank.encode().data) + 4)
        unbound = replace(hello, extensions=(*hello.extensions, blank.encode())).encode()
        truncated = unbound[: -blank.binders_length]
        binder_key = schedule.derive("binder_key", "res binder", digest(algorithm, b""), '""')
        binder = mac(algorithm, finished_key(algorithm, binder_key), transcript.hash(algorithm, truncated))
        bound = replace(blank, binders=(binder,))
        return replace(hello, extensions=(*hello.extensions, bound.encode()))

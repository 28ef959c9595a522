"""Builds the contexts in which sessions are made: the only user of pyOpenSSL's Context.

Built from values (`x509.material`), never from files, so a worker can build them without reading anything.

What the defaults are and why: Mozilla's intermediate profile narrowed to forward secrecy with AEAD, post-quantum key
exchange first. The server chooses, except that a client which prefers ChaCha20 (it has no AES in hardware) gets it.
AES-128-GCM comes before AES-256-GCM: its SHA-256 makes a handshake 3 % cheaper than the other's SHA-384, and no attack
tells the two apart; whoever must have 256 bits sets `ciphersuites`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from tlstunnel import _openssl
from tlstunnel.access.peer import claim
from tlstunnel.access.policy import Decision
from tlstunnel.config.model import ALPNMismatch, ClientAuth, TLSSettings
from tlstunnel.outcome import CloseReason
from tlstunnel.tls import ciphers
from tlstunnel.tls.ocsp import Staples
from tlstunnel.x509.certificate import load_certificate
from tlstunnel.x509.material import CRL, CABundle, Credential

DEFAULT_SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
DEFAULT_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
DEFAULT_GROUPS = "X25519MLKEM768:X25519:P-256:P-384"
_CLIENT_GROUPS = "*X25519MLKEM768:*X25519:P-256:P-384"
"""The same for a client, which sends key shares for both of those with a star: a server without ML-KEM need not ask for
another ClientHello. 35 us more in a full handshake against a round trip."""

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# Not among pyOpenSSL's names; the values are OpenSSL's ABI (openssl/ssl.h).
_OP_NO_RENEGOTIATION = 1 << 30
_OP_PRIORITIZE_CHACHA = 1 << 21
_OP_CIPHER_SERVER_PREFERENCE = SSL.OP_CIPHER_SERVER_PREFERENCE
_SESS_CACHE_OFF = 0
_MODE_ENABLE_PARTIAL_WRITE = 1
_MODE_NO_AUTO_CHAIN = 8
SESSION_LIFETIME_S = 7200
"""How long a session can be resumed."""


class ContextError(ValueError):
    """OpenSSL refuses a setting. `key` is the configuration key; the message says what it refuses."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Objection:
    """What is against a peer's certificate that OpenSSL has verified."""

    reason: CloseReason
    detail: str
    identity: str | None = None
    decision: Decision | None = None
    """What the access rules said, if they were asked."""


Judge = Callable[[bytes], Objection | None]


class Context:
    """A pyOpenSSL context, with what must live as long as it does.

    Attributes:
        staples: for clients that ask for one, by our certificate.
        judge: says what is against a server's certificate (DER) that OpenSSL has verified, or nothing.
    """

    __slots__ = ("_kept", "judge", "raw", "staples")

    def __init__(self, raw: SSL.Context) -> None:
        self.raw = raw
        self.staples: Staples = {}
        self.judge: Judge | None = None
        self._kept: list[object] = []
        # Sessions know only `raw`, and may outlive this object: a handshake that was under way during a reload.
        raw.set_app_data(self._kept)

    def keep(self, callback: object) -> None:
        """Let a callback live as long as the context."""
        self._kept.append(callback)

    def staple_for(self, certificate: bytes) -> bytes | None:
        """The staple of our certificate (DER), while it is good."""
        staple = self.staples.get(certificate)
        return staple.der if staple is not None and staple.is_good_at(time.time()) else None


def server_context(
    settings: TLSSettings,
    credentials: Sequence[Credential],
    *,
    client_auth: ClientAuth = ClientAuth.NONE,
    client_ca: CABundle | None = None,
    crls: Sequence[CRL] = (),
    forgives_expired_lists: bool = False,
    judge: Judge | None = None,
    staples: bool = False,
    session_scope: bytes = b"",
    keylog: Callable[[bytes], None] | None = None,
) -> Context:
    """A context that accepts sessions.

    Args:
        credentials: one, or several of different key types; OpenSSL picks by what the client offers.
        forgives_expired_lists: whether a revocation list past its date is used all the same.
        judge: asked about a client's certificate (DER) that OpenSSL has verified; says what is against it, or nothing.
            The client then gets an alert. Not asked on resumption.
        staples: whether responses in `Context.staples` are sent to clients that ask for one.
        session_scope: sessions made under another scope cannot be resumed. Everything that decides who may connect
            belongs in it.

    Raises:
        ContextError: OpenSSL refuses a setting.
    """
    raw = _common(settings)
    context = Context(raw)
    raw.set_options(_OP_CIPHER_SERVER_PREFERENCE | _OP_PRIORITIZE_CHACHA)
    for credential in credentials:
        _use(raw, credential, is_alone=len(credentials) == 1)
    # Tickets carry sessions (RFC 8446 section 4.6.1); a cache beside them would cost memory and a lock.
    raw.set_session_cache_mode(_SESS_CACHE_OFF)
    raw.set_timeout(SESSION_LIFETIME_S)
    raw.set_session_id(hashlib.sha256(b"tlstunnel" + session_scope).digest())
    if client_auth is not ClientAuth.NONE and client_ca is not None:
        mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if client_auth is ClientAuth.REQUIRED else 0)
        raw.set_verify(mode)
        subjects = [load_certificate(der) for der in client_ca.certificates_der]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            raw.set_client_ca_list([crypto.X509.from_cryptography(ca).get_subject() for ca in subjects])
        context.keep(
            _openssl.set_judge(
                raw, mode, judge or _nothing_against, refused=claim, forgives_expired_lists=forgives_expired_lists
            )
        )
        _trust(raw, client_ca, crls)
    if settings.alpn:
        rejects = settings.alpn_required or settings.alpn_mismatch is ALPNMismatch.REJECT
        context.keep(_openssl.set_alpn_choice(raw, settings.alpn, rejects_others=rejects))
    if staples:
        context.keep(_openssl.set_staple(raw, context.staple_for))
    _log_keys(raw, keylog)
    return context


def client_context(
    settings: TLSSettings,
    ca: CABundle,
    *,
    credential: Credential | None = None,
    crls: Sequence[CRL] = (),
    forgives_expired_lists: bool = False,
    judge: Judge | None = None,
    keylog: Callable[[bytes], None] | None = None,
) -> Context:
    """A context that opens sessions and verifies the server's chain; the name is verified for each session.

    Args:
        judge: asked about a server's certificate (DER) that OpenSSL has verified, before our own is shown; each session
            is to be given `Context.judge`. The server then gets an alert. Not asked on resumption.

    Raises:
        ContextError: OpenSSL refuses a setting.
    """
    raw = _common(settings)
    context = Context(raw)
    if not settings.groups:
        _openssl.set_groups(raw, _CLIENT_GROUPS)
    raw.set_session_cache_mode(_SESS_CACHE_OFF)
    raw.set_verify(SSL.VERIFY_PEER)
    context.judge = judge
    forgives = forgives_expired_lists and bool(crls)
    if judge is not None:
        context.keep(_openssl.ask_sessions(raw, SSL.VERIFY_PEER, forgives_expired_lists=forgives))
    elif forgives:
        context.keep(_openssl.set_judge(raw, SSL.VERIFY_PEER, None, forgives_expired_lists=True))
    _trust(raw, ca, crls)
    if credential is not None:
        _use(raw, credential)
    if settings.alpn:
        raw.set_alpn_protos([name.encode("ascii") for name in settings.alpn])
    _log_keys(raw, keylog)
    return context


def _nothing_against(_certificate: bytes) -> Objection | None:
    """The judge where OpenSSL's own verdict is all that is asked for."""
    return None


def check_settings(settings: TLSSettings) -> list[ContextError]:
    """What OpenSSL refuses of these settings, all of it."""
    errors = []
    for key, apply in (("ciphers", _set_ciphers), ("ciphersuites", _set_suites), ("groups", _set_groups)):
        try:
            apply(SSL.Context(SSL.TLS_METHOD), settings)
        except ContextError as exc:
            exc.key = key
            errors.append(exc)
    if _VERSIONS[settings.min_version] > _VERSIONS[settings.max_version]:
        errors.append(
            ContextError("min_version", f"{settings.min_version} is above max_version {settings.max_version}")
        )
    return errors


def keylog_from_environment() -> Callable[[bytes], None] | None:
    """Appends to the file that SSLKEYLOGFILE names, in NSS format; `None` when the variable is not set."""
    path = os.environ.get("SSLKEYLOGFILE")
    if not path:
        return None
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)

    def write(line: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk or a slow reader loses lines; no connection waits for it
            os.write(fd, line + b"\n")

    return write


def _common(settings: TLSSettings) -> SSL.Context:
    raw = SSL.Context(SSL.TLS_METHOD)
    raw.set_min_proto_version(_VERSIONS[settings.min_version])
    raw.set_max_proto_version(_VERSIONS[settings.max_version])
    raw.set_options(SSL.OP_NO_COMPRESSION | _OP_NO_RENEGOTIATION)
    # pyOpenSSL sets this mode; it would end every write after one record of 16 KiB.
    raw.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    # An idle session keeps no record buffers: 22 KiB less for each (ladder: release-buffers).
    # What is sent is what `certificate` holds: OpenSSL would complete a chain from the CAs that peers are verified by.
    raw.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
    _set_ciphers(raw, settings)
    _set_suites(raw, settings)
    _set_groups(raw, settings)
    return raw


def _set_ciphers(raw: SSL.Context, settings: TLSSettings) -> None:
    try:
        raw.set_cipher_list((settings.ciphers or DEFAULT_CIPHERS).encode())
    except (SSL.Error, UnicodeEncodeError):
        raise ContextError(
            "ciphers", f'OpenSSL knows no TLS 1.2 cipher in "{settings.ciphers}"; see `openssl ciphers -tls1_2`'
        ) from None
    if settings.ciphers and (bare := ciphers.unprotected(ciphers.expanded(settings.ciphers))):
        raise ContextError(
            "ciphers",
            f'"{settings.ciphers}" lets in {_some(bare)}, which leave data in the clear or the server unproved; '
            'append ":!aNULL:!eNULL"',
        )


def _set_suites(raw: SSL.Context, settings: TLSSettings) -> None:
    try:
        raw.set_tls13_ciphersuites((settings.ciphersuites or DEFAULT_SUITES).encode())
    except (SSL.Error, UnicodeEncodeError):
        raise ContextError(
            "ciphersuites",
            f'"{settings.ciphersuites}" is not a list of TLS 1.3 suites; write for example "{DEFAULT_SUITES}"',
        ) from None
    if bare := ciphers.unprotected(ciphers.words_of(settings.ciphersuites)):
        raise ContextError("ciphersuites", f"{_some(bare)} leaves data in the clear; remove it")


def _set_groups(raw: SSL.Context, settings: TLSSettings) -> None:
    try:
        _openssl.set_groups(raw, settings.groups or DEFAULT_GROUPS)
    except (_openssl.TLSError, UnicodeEncodeError):
        raise ContextError(
            "groups", f'OpenSSL does not know every group in "{settings.groups}"; write for example "{DEFAULT_GROUPS}"'
        ) from None


def _use(raw: SSL.Context, credential: Credential, *, is_alone: bool = True) -> None:
    try:
        with warnings.catch_warnings():
            # pyOpenSSL would rather be given cryptography's keys, and then refuses ML-DSA and RSASSA-PSS ones.
            warnings.simplefilter("ignore", DeprecationWarning)
            key = crypto.load_privatekey(crypto.FILETYPE_ASN1, credential.key_der)
            if is_alone:
                raw.use_certificate(load_certificate(credential.certificate_der))
                for der in credential.chain_der:
                    raw.add_extra_chain_cert(load_certificate(der))
            else:
                _use_with_own_chain(raw, credential)
            raw.use_privatekey(key)
    except (SSL.Error, crypto.Error) as exc:
        raise ContextError("certificate", f"{credential.source}: OpenSSL refuses it: {_words(exc)}") from None


def _use_with_own_chain(raw: SSL.Context, credential: Credential) -> None:
    """Beside another certificate: chains added to a context are sent with each of them, those read from a file only
    with their own. The file is memory of this process."""
    fd = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        for der in (credential.certificate_der, *credential.chain_der):
            os.write(fd, load_certificate(der).public_bytes(Encoding.PEM))
        raw.use_certificate_chain_file(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _trust(raw: SSL.Context, ca: CABundle, crls: Sequence[CRL]) -> None:
    store = raw.get_cert_store()
    assert store is not None  # noqa: S101 - a context that we made has one
    for der in ca.certificates_der:
        store.add_cert(crypto.X509.from_cryptography(load_certificate(der)))
    if crls:
        for crl in crls:
            store.add_crl(x509.load_der_x509_crl(crl.der))
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _log_keys(raw: SSL.Context, keylog: Callable[[bytes], None] | None) -> None:
    if keylog is not None:
        try:
            raw.set_keylog_callback(lambda _connection, line: keylog(line))
        except MemoryError:  # pyOpenSSL's own callback (design notes: one TLS library, reached in two ways)
            raise ContextError(
                "unsafe_keylog",
                "needs memory that is writable and executable, which MemoryDenyWriteExecute= forbids; "
                "leave the key out, or run without that setting for as long as it takes",
            ) from None


def _some(names: Sequence[str]) -> str:
    """The first few."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _words(error: Exception) -> str:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[-1] for entry in entries) or "no reason given"

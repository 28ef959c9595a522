"""What each service needs of certificates: values, and the contexts built of them wherever sessions are made.

Nothing here touches a file: `tls.inventory` reads, in the process that may. Between the two stands `Material`, frozen
and picklable.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tlstunnel.access.peer import UnusableCertificateError, identity
from tlstunnel.access.policy import Policy, decide, refusal
from tlstunnel.config.model import ClientAuth, CRLExpired, Mode, OCSPStaple, Service, TLSSettings
from tlstunnel.outcome import CloseReason
from tlstunnel.tls.context import Context, Judge, Objection, client_context, keylog_from_environment, server_context
from tlstunnel.tls.ocsp import Staple, Staples
from tlstunnel.x509.material import CRL, CABundle, Credential

MAX_CLIENT_CERTIFICATE = 60 * 1024
"""Bytes. A session ticket holds the client's certificate and has 64 KiB at most (RFC 8446 section 4.6.1); OpenSSL ends
the session by internal_error where it does not fit. Ordinary certificates have one or two KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The certificates, keys, CAs and revocation lists of one service."""

    credentials: tuple[Credential, ...] = field(default=(), repr=False)
    client_ca: CABundle | None = None
    crls: tuple[CRL, ...] = ()
    sni: tuple[tuple[Credential, ...], ...] = field(default=(), repr=False)
    """For each entry of `Service.sni`, in order."""
    target_ca: CABundle | None = None
    target_credential: Credential | None = field(default=None, repr=False)
    target_crls: tuple[CRL, ...] = ()
    staples: tuple[tuple[bytes, Staple], ...] = ()
    """From `ocsp_response`, by certificate (DER)."""

    def shown(self) -> tuple[Credential, ...]:
        """What clients of a service in server mode are shown, each once."""
        return tuple(dict.fromkeys((*self.credentials, *(each for name in self.sni for each in name))))


class ServerSide:
    """What the server sessions of one route are made from, and how it is renewed without losing a session.

    Session-ticket keys live in an SSL_CTX and cannot be carried to another. So every server session is made from one
    `base` context, for its tickets, and then switched to the `current` one with the certificates and the trust of
    today. The base is made before workers are forked, which is why a session resumes whichever worker gets it, and it
    outlives renewals and generations for as long as what it fixes (versions, suites, groups, client_auth) is the same.
    """

    __slots__ = ("base", "current", "fixed", "key_types", "names", "not_after", "not_before")

    def __init__(self, current: Context, credentials: Sequence[Credential], fixed: object) -> None:
        self.base = self.current = current
        self.fixed = fixed
        used = _one_of_each_kind(credentials, time.time()).values()
        self.key_types = tuple(credential.key_type for credential in used)
        self.names = tuple(name for credential in used for name in credential.names)
        self.not_before = max(credential.not_before.timestamp() for credential in used)
        self.not_after = min(credential.not_after.timestamp() for credential in used)

    def is_valid_at(self, when: float) -> bool:
        """Whether the certificates are within their dates at a Unix time."""
        return self.not_before <= when <= self.not_after

    def keep_tickets_of(self, previous: ServerSide | None) -> ServerSide:
        """Let sessions made from `previous` be resumed here, where that is possible. Returns itself."""
        if previous is not None and previous.fixed == self.fixed:
            self.base = previous.base
        return self


class ServiceContexts:
    """The contexts of one service.

    Args:
        previous: the contexts of this service until now, whose tickets should stay good.

    Raises:
        ContextError: OpenSSL refuses a setting.
    """

    __slots__ = ("_keylog", "_service", "_staples", "server", "sni", "target")

    def __init__(self, service: Service, material: Material, previous: ServiceContexts | None = None) -> None:
        self._service = service
        self._keylog = keylog_from_environment() if service.unsafe_keylog else None
        self.server: ServerSide | None = None if previous is None else previous.server
        self.sni: tuple[ServerSide | None, ...] = () if previous is None else previous.sni
        self.target: Context | None = None
        self._staples: Staples = {} if previous is None else previous._staples
        self.renew(material)

    def renew(self, material: Material) -> None:
        """Use this material for sessions from now on. All or nothing.

        Raises:
            ContextError: OpenSSL refuses something; what was in use stays.
        """
        service = self._service
        server: ServerSide | None = None
        sni: list[ServerSide] | list[None] = [None] * len(service.sni)
        if service.mode is Mode.SERVER:
            server = self._side(material, material.credentials, service.tls, service.policy)
            server.keep_tickets_of(self.server)
            olds = self.sni if len(self.sni) == len(service.sni) else (None,) * len(service.sni)
            sni = [
                self._side(material, own or material.credentials, entry.tls, entry.policy).keep_tickets_of(old)
                for entry, own, old in zip(service.sni, material.sni, olds, strict=True)
            ]
        target = None
        if service.target_tls is not None and material.target_ca is not None:
            target = client_context(
                service.target_tls.tls,
                material.target_ca,
                credential=material.target_credential,
                crls=material.target_crls,
                forgives_expired_lists=service.crl_expired is CRLExpired.WARNING,
                judge=None if service.target_tls.verify is None else _judge(service.target_tls.verify, is_server=True),
                keylog=self._keylog,
            )
        self.server, self.sni, self.target = server, tuple(sni), target
        self.staple(dict(material.staples) if service.ocsp_staple is OCSPStaple.FILE else self._staples)

    def adopt(self, other: ServiceContexts) -> None:
        """Use the contexts that were built and judged elsewhere, for sessions from now on."""
        self.server, self.sni, self.target, self._staples = other.server, other.sni, other.target, other._staples

    def staple(self, staples: Staples) -> None:
        """Send these staples to clients that ask, also after `renew`."""
        self._staples = staples
        for side in (self.server, *self.sni):
            if side is not None:
                side.current.staples = staples

    def _side(
        self, material: Material, credentials: tuple[Credential, ...], tls: TLSSettings, policy: Policy
    ) -> ServerSide:
        service = self._service
        auth = service.client_auth
        if auth is ClientAuth.OPTIONAL and not policy.anonymous and not service.fallback_target:
            auth = ClientAuth.REQUIRED  # who is refused without a certificate is told so by an alert
        context = server_context(
            tls,
            tuple(_one_of_each_kind(credentials, time.time()).values()),
            client_auth=auth,
            client_ca=material.client_ca,
            crls=material.crls,
            forgives_expired_lists=service.crl_expired is CRLExpired.WARNING,
            judge=_judge(policy),
            staples=service.ocsp_staple is not OCSPStaple.OFF,
            session_scope=trust_digest(service, material, policy),
            keylog=self._keylog,
        )
        return ServerSide(context, credentials, (service.name, tls, auth))


def _one_of_each_kind(credentials: Sequence[Credential], now: float) -> dict[str, Credential]:
    """What OpenSSL can hold: one certificate of each kind of key. A valid one comes before one that is not, then the
    one that stays valid longest."""

    def worth(credential: Credential) -> tuple[bool, float]:
        begin, end = credential.not_before.timestamp(), credential.not_after.timestamp()
        return begin <= now <= end, end

    found: dict[str, Credential] = {}
    for credential in credentials:
        kind = credential.key_type.partition(" ")[0]
        if kind not in found or worth(credential) > worth(found[kind]):
            found[kind] = credential
    return found


def _judge(policy: Policy, *, is_server: bool = False) -> Judge:
    """Says what the rules have against a certificate: a client's, or a server's that `verify` is about."""
    who_is = "backend " if is_server else ""

    def judge(certificate: bytes) -> Objection | None:
        if len(certificate) > MAX_CLIENT_CERTIFICATE and not is_server:
            size = f"it has {len(certificate)} bytes, and at most {MAX_CLIENT_CERTIFICATE} fit into a session ticket"
            return Objection(CloseReason.BAD_CERTIFICATE, size)
        try:
            who = identity(certificate)
        except UnusableCertificateError as exc:
            return Objection(CloseReason.BAD_CERTIFICATE, f"{who_is}{exc}")
        decision = decide(policy, who)
        if decision.allowed:
            return None
        said = refusal(decision, who, is_server=is_server)
        return Objection(CloseReason.DENIED, f"{who_is}{said}", str(who), decision)

    return judge


def trust_digest(service: Service, material: Material, policy: Policy) -> bytes:
    """Changes whenever it changes who may connect, so that no session accepted under other rules is resumed."""
    digest = hashlib.sha256(service.name.encode())
    if service.client_auth is not ClientAuth.NONE:
        digest.update(repr((service.client_auth.value, policy)).encode())
        for value in (material.client_ca, *material.crls):
            digest.update(value.digest.encode() if value is not None else b"-")
    return digest.digest()
